"""What a task will take at a service, said before anything is paid."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ray_qjm.options import Budget, Limits, Quota
from ray_qjm.planning.orders import slices
from ray_qjm.planning.quota import WINDOW_S, Cost


@dataclass(frozen=True)
class BackendPlan:
    """One backend's share of a task.

    Attributes:
        name: Of the backend.
        circuits: That it would be sent.
        jobs: That these take; ``None`` on workers, where chunks are sized as the task runs.
        circuits_a_job: In the fullest, each slice of a circuit's shots counted.
        executions_a_job: Circuits times shots in the fullest.
        payload_bytes: Of all circuits, from a sample; ``None`` if there was none to look at.
        limit: Which limit makes jobs as small as they are; ``None``: none does.
        submission_s: The shortest time in which they may be submitted under ``jobs_per_minute``, together with
            those of all backends of the account.
        qpu_s: Estimated QPU seconds; ``None`` where nothing is known.
        executions: Circuits times shots of all jobs.
        account: Whose quota it uses; ``None`` on workers.
    """

    name: str
    circuits: int
    jobs: int | None = None
    circuits_a_job: int | None = None
    executions_a_job: int | None = None
    payload_bytes: int | None = None
    limit: str | None = None
    submission_s: float | None = None
    qpu_s: float | None = None
    executions: int | None = None
    account: str | None = None


@dataclass(frozen=True)
class Account:
    """What backends of one account share.

    Attributes:
        name: What people call it.
        quota: Of the account.
        spent: By all its tasks so far, with what is reserved for jobs under way.
    """

    name: str
    quota: Quota
    spent: Cost = field(default_factory=Cost)


@dataclass(frozen=True)
class Beyond:
    """A limit of a budget that a task goes beyond: what is beyond it won't be submitted.

    Attributes:
        whose: Budget it is: the task's, or an account's.
        what: ``"jobs"``, ``"executions"`` or ``"qpu_seconds"``.
        budget: How many there may be.
        spent: Of these so far, with what is reserved for jobs under way.
        needed: How many more the task would take.

    >>> print(Beyond("the task", "jobs", 5, 4, 2))
    Beyond the budget of the task: 2 jobs needed, 1 left of 5.
    """

    whose: str
    what: str
    budget: float
    spent: float
    needed: float

    def __str__(self) -> str:
        what = self.what.replace("qpu_", "QPU ")
        left = f"{max(0, self.budget - self.spent):,.10g} left of " if self.spent else ""
        there = "" if self.spent else " allowed"
        needed = f"{self.needed:,.10g} {what[:-1] if self.needed == 1 else what}"
        return f"Beyond the budget of {self.whose}: {needed} needed, {left}{self.budget:,.10g}{there}."


def plan_backend(
    name: str,
    shots: NDArray[np.int64],
    *,
    limits: Limits,
    mixed: bool,
    circuit_bytes: float | None,
    costs: tuple[float, float],
    account: str | None = None,
) -> BackendPlan:
    """Count jobs as ``Packer`` will make them, of circuits that are all of the mean size.

    When they may be submitted isn't told yet: see ``under_quotas``.

    Args:
        name: Of the backend.
        shots: Of each circuit that it would be sent.
        limits: Of one job.
        mixed: Whether a job may hold circuits with different numbers of shots.
        circuit_bytes: Mean size of a circuit; ``None`` if unknown.
        costs: Estimated QPU seconds of a job and of an execution.
        account: Whose quota it uses.

    >>> plan = plan_backend("torino", np.full(1_000_000, 1024), limits=Limits(max_executions=10_000_000),
    ...                     mixed=False, circuit_bytes=None, costs=(2.0, 250e-6), account="lab")
    >>> plan.jobs, plan.circuits_a_job, plan.limit
    (103, 9765, 'executions')
    >>> under_quotas([plan], {"lab": Account("the lab", Quota(jobs_per_minute=5))})[0].submission_s
    1200.0
    """
    values, numbers = np.unique(shots, return_counts=True)
    most = min((x for x in (limits.max_shots, limits.max_executions) if x is not None), default=None)
    cells: dict[int, int] = {}
    for value, number in zip(values.tolist(), numbers.tolist(), strict=True):
        for part in slices(value, most):
            cells[part] = cells.get(part, 0) + number
    if mixed and cells:
        total = sum(cells.values())
        cells = {math.ceil(sum(part * number for part, number in cells.items()) / total): total}
    jobs = fullest = executions = 0
    limit: str | None = None
    for part, number in cells.items():
        room, binds = _room(part, limits, circuit_bytes)
        here = number if room is None else min(room, number)
        jobs += 1 if room is None else math.ceil(number / room)
        if room is not None and room < number:
            limit = limit or binds
        fullest, executions = max(fullest, here), max(executions, here * part)
    cut = limits.max_shots is not None and bool((shots > limits.max_shots).any())
    total = int(shots.sum())
    return BackendPlan(
        name,
        len(shots),
        jobs,
        fullest,
        executions,
        None if circuit_bytes is None else round(circuit_bytes * sum(cells.values())),
        "shots" if limit is None and cut else limit,
        qpu_s=costs[0] * jobs + costs[1] * total if any(costs) else None,
        executions=total,
        account=account,
    )


def under_quotas(plans: Sequence[BackendPlan], accounts: Mapping[str, Account]) -> list[BackendPlan]:
    """Tell of each backend when the last job of its account may go, if none has to wait for a slot."""
    jobs = dict.fromkeys(accounts, 0)
    for plan in plans:
        if plan.account is not None:
            jobs[plan.account] += plan.jobs or 0
    return [
        plan
        if plan.account is None
        else replace(plan, submission_s=_submission_s(jobs[plan.account], accounts[plan.account].quota))
        for plan in plans
    ]


def beyond_budgets(
    plans: Sequence[BackendPlan], accounts: Mapping[str, Account], budget: Budget | None, spent: Cost
) -> list[Beyond]:
    """Which limits all backends together go beyond.

    Args:
        plans: Of the backends.
        accounts: Theirs.
        budget: Of the task.
        spent: Of that so far, with what is reserved for jobs under way.
    """
    found = _beyond("the task", budget, spent, _cost(plans))
    for key, account in accounts.items():
        needed = _cost(plan for plan in plans if plan.account == key)
        found += _beyond(account.name, account.quota.budget, account.spent, needed)
    return found


def _cost(plans: Iterable[BackendPlan]) -> Cost:
    return sum((Cost(plan.jobs or 0, plan.executions or 0, plan.qpu_s or 0.0) for plan in plans), Cost())


def _beyond(whose: str, budget: Budget | None, spent: Cost, needed: Cost) -> list[Beyond]:
    found = []
    for what in ("jobs", "executions", "qpu_seconds"):
        most = getattr(budget, what, None)
        had, more = getattr(spent, what), getattr(needed, what)
        if most is not None and more and had + more > most:
            found.append(Beyond(whose, what, most, had, more))
    return found


def _room(shots: int, limits: Limits, circuit_bytes: float | None) -> tuple[int | None, str | None]:
    """How many circuits of so many shots a job may have, and which limit says so."""
    rooms = []
    if limits.max_circuits is not None:
        rooms.append((limits.max_circuits, "circuits"))
    if limits.max_executions is not None:
        rooms.append((max(1, limits.max_executions // shots), "executions"))
    if limits.max_payload_bytes is not None and circuit_bytes:
        rooms.append((max(1, int(limits.max_payload_bytes // circuit_bytes)), "payload bytes"))
    return min(rooms, default=(None, None))


def _submission_s(jobs: int, quota: Quota) -> float:
    """When the last job may go, if none has to wait for a slot."""
    rate = quota.jobs_per_minute
    if rate is None or jobs == 0:
        return 0.0
    tokens = max(1, math.floor(rate))
    return (jobs - 1) // tokens * (WINDOW_S if rate >= 1 else WINDOW_S / rate)
