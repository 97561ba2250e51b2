"""May one more job go now: slots, the rate of submissions, and what may be spent. ``now`` comes in."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import asdict, dataclass, field

from ray_qjm.options import Budget, Quota

#: The window of ``jobs_per_minute``, seconds.
WINDOW_S = 60.0


@dataclass(slots=True)
class Cost:
    """What a job, or all of them, cost. ``qpu_seconds`` is an estimate until the provider tells."""

    jobs: float = 0
    executions: float = 0
    qpu_seconds: float = 0.0

    def plain(self) -> list[float]:
        """For a journal: what ``Cost(*...)`` takes. ``dataclasses.astuple`` takes ten times as long."""
        return [self.jobs, self.executions, self.qpu_seconds]

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.jobs + other.jobs, self.executions + other.executions, self.qpu_seconds + other.qpu_seconds
        )

    def __sub__(self, other: Cost) -> Cost:
        return Cost(
            self.jobs - other.jobs, self.executions - other.executions, self.qpu_seconds - other.qpu_seconds
        )

    def limited(self) -> dict[str, float]:
        """Of what is left of a budget all that has a limit."""
        return {name: value for name, value in asdict(self).items() if value < math.inf}


@dataclass(slots=True)
class Purse:
    """What was spent of a budget, and what is reserved for jobs under way.

    >>> purse = Purse(Budget(jobs=2, qpu_seconds=10.0))
    >>> purse.reserve("a", Cost(1, 100, 4.0)); purse.why_not(Cost(1, 100, 7.0))
    '10 qpu_seconds are the budget, 4 are spent or reserved, and the job would take 7'
    >>> purse.settle("a", Cost(1, 100, 2.5)); purse.why_not(Cost(1, 100, 7.0)) is None
    True
    """

    budget: Budget | None = None
    spent: Cost = field(default_factory=Cost)
    _reserved: dict[str, Cost] = field(default_factory=dict)

    @property
    def used(self) -> Cost:
        """Spent and reserved."""
        return sum(self._reserved.values(), self.spent)

    def why_not(self, cost: Cost) -> str | None:
        """Which limit a job would go beyond; ``None``: none."""
        if self.budget is None:
            return None
        used = self.used
        for name in ("jobs", "executions", "qpu_seconds"):
            most, more = getattr(self.budget, name), getattr(cost, name)
            if most is not None and getattr(used, name) + more > most:
                said = f"{_shown(most)} {name} are the budget, {_shown(getattr(used, name))} are spent or reserved"
                return f"{said}, and the job would take {_shown(more)}" if more else said
        return None

    def left(self) -> Cost:
        """What may yet be spent, infinite where there is no limit."""
        budget, used = Budget() if self.budget is None else self.budget, self.used
        return Cost(
            *(
                math.inf if getattr(budget, name) is None else getattr(budget, name) - getattr(used, name)
                for name in ("jobs", "executions", "qpu_seconds")
            )
        )

    def reserve(self, key: str, cost: Cost) -> None:
        """A job is about to be submitted."""
        self._reserved[key] = cost

    def spend(self, cost: Cost) -> None:
        """Something was paid that nothing was reserved for."""
        self.spent = self.spent + cost

    def settle(self, key: str, cost: Cost | None = None) -> None:
        """A job is over: it cost what was reserved, or ``cost``; all zeros if it never was."""
        reserved = self._reserved.pop(key, None)
        if reserved is not None:
            self.spent = self.spent + (reserved if cost is None else cost)


def _shown(number: float) -> str:
    """A number for people, none of its digits before the point left out."""
    return f"{number:,}" if isinstance(number, int) else f"{number:,.15g}"


class Meter:
    """Slots and tokens of one account.

    A token comes back ``WINDOW_S`` after the call that used it ended: the request has surely arrived by then,
    so that the service too sees no more than the quota in any window, whatever the delays on the way.

    Args:
        quota: Of the account.
    """

    def __init__(self, quota: Quota) -> None:
        self._slots: set[str] = set()
        self._sending: set[str] = set()
        self._sent: deque[float] = deque()
        self.change(quota)

    def change(self, quota: Quota) -> None:
        """Another quota from now on; what was sent in the last minute counts against it too."""
        self.quota = quota
        rate = quota.jobs_per_minute
        self._tokens = None if rate is None else max(1, math.floor(rate))
        self._window_s = WINDOW_S if rate is None or rate >= 1 else WINDOW_S / rate

    @property
    def pending(self) -> int:
        """Slots that are taken."""
        return len(self._slots)

    def free_at(self, now: float) -> float:
        """When one more job may be sent: ``now``, later, or ``inf`` if a slot has to come free first."""
        if len(self._slots) >= self.quota.max_pending:
            return math.inf
        if self._tokens is None:
            return now
        while self._sent and self._sent[0] + self._window_s <= now:
            self._sent.popleft()
        if len(self._sending) + len(self._sent) < self._tokens:
            return now
        # Those that are being sent hold their token until they are, and for a window more.
        return self._sent[0] + self._window_s if self._sent else math.inf

    def take(self, key: str) -> None:
        """A job is about to be sent."""
        self._slots.add(key)
        self._sending.add(key)

    def hold(self, key: str) -> None:
        """A job that was sent in an earlier life of this process has its slot still."""
        self._slots.add(key)

    def sent(self, key: str, now: float) -> None:
        """The call that sent it has ended, well or not."""
        if key in self._sending:
            self._sending.remove(key)
            self._sent.append(now)
        while self._sent and self._sent[0] + self._window_s <= now:
            self._sent.popleft()

    def release(self, key: str) -> None:
        """The job is over, or never was."""
        self._slots.discard(key)

    def spend_all(self, now: float) -> None:
        """Take all tokens: nobody knows what an earlier life of this process has just sent."""
        if self._tokens is not None:
            self._sent.extend([now] * self._tokens)
