"""What a task will take at a service, said before anything is paid."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
        circuits: That it would run.
        jobs: That these take; ``None`` on workers, where chunks are sized as the task runs.
        circuits_a_job: In the fullest, each slice of a circuit's shots counted.
        executions_a_job: Circuits times shots in the fullest.
        payload_bytes: Of all circuits, from a sample; ``None`` if there was none to look at.
        limit: Which limit makes jobs as small as they are; ``None``: none does.
        submission_s: The shortest time in which so many jobs may be submitted under ``jobs_per_minute``.
        qpu_s: Estimated QPU seconds; ``None`` where nothing is known.
        budget: Which budget they go beyond, in words; ``None``: none.
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
    budget: str | None = None


def plan_backend(
    name: str,
    shots: NDArray[np.int64],
    *,
    limits: Limits,
    quota: Quota,
    mixed: bool,
    circuit_bytes: float | None,
    costs: tuple[float, float],
    budget: Budget | None,
) -> BackendPlan:
    """Count jobs as ``Packer`` will make them, of circuits that are all of the mean size.

    Args:
        name: Of the backend.
        shots: Of each circuit that it would run.
        limits: Of one job.
        quota: Of its account.
        mixed: Whether a job may hold circuits with different numbers of shots.
        circuit_bytes: Mean size of a circuit; ``None`` if unknown.
        costs: Estimated QPU seconds of a job and of an execution.
        budget: Of the task.

    >>> quota = Quota(jobs_per_minute=5)
    >>> plan = plan_backend("torino", np.full(1_000_000, 1024), limits=Limits(max_executions=10_000_000), quota=quota,
    ...                     mixed=False, circuit_bytes=None, costs=(2.0, 250e-6), budget=None)
    >>> plan.jobs, plan.circuits_a_job, plan.limit, plan.submission_s
    (103, 9765, 'executions', 1200.0)
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
    needed = Cost(jobs, int(shots.sum()), costs[0] * jobs + costs[1] * float(shots.sum()))
    beyond = [_beyond(each, needed) for each in (budget, quota.budget) if each is not None]
    return BackendPlan(
        name,
        len(shots),
        jobs,
        fullest,
        executions,
        None if circuit_bytes is None else round(circuit_bytes * sum(cells.values())),
        "shots" if limit is None and cut else limit,
        _submission_s(jobs, quota),
        needed.qpu_seconds if any(costs) else None,
        next((reason for reason in beyond if reason is not None), None),
    )


def _beyond(budget: Budget, needed: Cost) -> str | None:
    """Which limit of a budget a share goes beyond, if it does."""
    for name in ("jobs", "executions", "qpu_seconds"):
        most = getattr(budget, name)
        if most is not None and getattr(needed, name) > most:
            return f"{getattr(needed, name):,.6g} {name} of {most:,.6g}"
    return None


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
