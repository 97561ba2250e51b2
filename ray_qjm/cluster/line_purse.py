"""What a line's jobs may cost: the task's purse, which all its lines share."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

from ray_qjm.backends.desk_messages import Told
from ray_qjm.planning.orders import Order
from ray_qjm.planning.quota import Cost, Purse


@dataclass(frozen=True, slots=True)
class TooDear:
    """A job goes beyond the budget.

    Attributes:
        why_not: As from ``Purse``.
        affordable: How many of its circuits the rest of the budget would pay for; never all.
    """

    why_not: str
    affordable: int


class LinePurse:
    """Reserves what jobs will cost, and pays what they have cost. From any thread.

    Args:
        purse: The task's; nobody touches it but under ``lock``.
        lock: Guards it.
        costs: Estimated QPU seconds of a job and of an execution.
    """

    def __init__(self, purse: Purse, lock: threading.Lock, costs: tuple[float, float]) -> None:
        self._purse = purse
        self._lock = lock
        self._costs = costs

    def cost(self, order: Order) -> Cost:
        """What is reserved for a job."""
        job_s, execution_s = self._costs
        return Cost(1, order.executions, job_s + execution_s * order.executions)

    def reserve(self, tag: str, order: Order) -> TooDear | None:
        """Reserve what a job will cost, if the budget has it."""
        cost = self.cost(order)
        with self._lock:
            why_not = self._purse.why_not(cost)
            if why_not is not None:
                return TooDear(why_not, self._affordable(order))
            self._purse.reserve(tag, cost)
        return None

    def adopt(self, tag: str, order: Order) -> None:
        """Reserve what a job of an earlier session costs, whatever the budget: it may be at the service."""
        with self._lock:
            self._purse.reserve(tag, self.cost(order))

    def settle(self, tag: str, order: Order, news: Told) -> None:
        """A job is over."""
        with self._lock:
            self._purse.settle(tag, _spent(order, news))

    def spend(self, order: Order, news: Told) -> str | None:
        """Pay a job that nothing was reserved for; return which limit of the budget is passed by now, if any is."""
        with self._lock:
            self._purse.spend(_spent(order, news) or self.cost(order))
            return self._purse.why_not(Cost())

    def left(self) -> dict[str, float]:
        """What is left of the task's budget, of all that has a limit."""
        with self._lock:
            return self._purse.left().limited()

    def _affordable(self, order: Order) -> int:
        left = self._purse.left()
        job_s, execution_s = self._costs
        seconds = left.qpu_seconds - job_s
        paid = seconds / execution_s if execution_s else math.copysign(math.inf, seconds)
        most = order.first_within(min(left.executions, paid)) if left.jobs >= 1 else 0
        return min(most, order.circuits - 1)


def _spent(order: Order, news: Told) -> Cost | None:
    """What a job has cost, where it differs from what was reserved."""
    if news.job_id is None and news.state != "lost":
        return Cost()  # it never was at the service
    usage = news.facts.get("usage_s")
    return None if usage is None else Cost(1, order.executions, usage)
