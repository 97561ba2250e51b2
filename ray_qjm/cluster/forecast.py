"""What a task would take at its backends: circuits looked at, services asked for their limits, nothing submitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from ray.exceptions import RayError

from ray_qjm.backends.codes import words
from ray_qjm.backends.registry import Choice
from ray_qjm.circuits.source import DriverSource, WorkerSource
from ray_qjm.cluster.messages import TaskSetup
from ray_qjm.cluster.open_jobs import EarlierJobs, earlier_jobs
from ray_qjm.cluster.peek import Peeked
from ray_qjm.cluster.sample import Sample
from ray_qjm.cluster.services import Service
from ray_qjm.errors import BackendLoadError, InvalidInputError
from ray_qjm.options import RunOptions
from ray_qjm.planning.plan import Account, BackendPlan, Beyond, beyond_budgets, plan_backend, under_quotas
from ray_qjm.planning.quota import Cost
from ray_qjm.planning.ranges import Ranges


class Forecast(NamedTuple):
    """What is expected of a task.

    Attributes:
        circuits: How many there are to run.
        backends: A plan each.
        beyond: The limits of budgets that they go beyond.
        notes: What was found out on the way.
    """

    circuits: int
    backends: tuple[BackendPlan, ...]
    beyond: tuple[Beyond, ...]
    notes: tuple[str, ...]


def forecast(
    source: WorkerSource | DriverSource,
    setup: TaskSetup,
    choices: Sequence[Choice],
    services: Mapping[int, Service],
    options: RunOptions,
    stored: Peeked | None,
) -> Forecast:
    """Plan each backend's share by weight, and all of them under the quotas and budgets that they share.

    Raises:
        InvalidInputError: How many circuits there are isn't known; or a backend with open jobs isn't named.
        BackendLoadError: A desk doesn't say what was spent.
    """
    count = source.count if stored is None or source.count is not None else stored.total
    if count is None:
        raise InvalidInputError("how many circuits there are isn't known before they are read. Pass count=.")
    earlier = EarlierJobs()
    kept = Ranges()
    if stored is not None:
        setup, kept = replace(setup, seed=stored.seed), stored.kept
        names = [name for name, _, _ in setup.backends]
        earlier = earlier_jobs(stored, kept, names, services, setup.shots_of)
    work = Work.left(count, setup, kept, earlier)
    notes = work.notes(count, earlier, 0 if stored is None else stored.failed)
    sample = Sample(source, setup, work.rows)
    if services:
        notes += sample.notes()
    weights = np.cumsum([0.0, *(choice.spec.weight for choice in choices)])
    plans = []
    for at, choice in enumerate(choices):
        share = work.share(at, weights[at : at + 2] / weights[-1])
        service = services.get(at)
        if service is None:
            plans.append(BackendPlan(choice.name, len(share)))
            continue
        seen = sample.compiled(service, options)
        notes += seen.notes
        plans.append(
            plan_backend(
                choice.name,
                work.shots[share[seen.sendable(share)]],
                limits=service.limits,
                mixed=service.facts.mixed,
                circuit_bytes=seen.mean_bytes,
                costs=(service.facts.job_s, service.facts.execution_s),
                account=choice.account,
            )
        )
    accounts = _accounts(services)
    found = under_quotas(plans, accounts)
    beyond = beyond_budgets(found, accounts, options.budget, earlier.spent + _reserved(earlier, services))
    return Forecast(len(work.rows), tuple(found), tuple(beyond), (*notes, *_shared_rates(found, accounts)))


@dataclass(frozen=True)
class Work:
    """What is left to submit.

    Attributes:
        rows: The circuits, ascending.
        shots: Of each.
        bound: The backend that has some of its shots in an open job and must run the others; -1: any may.
        open: How many circuits are with open jobs.
    """

    rows: NDArray[np.int64]
    shots: NDArray[np.int64]
    bound: NDArray[np.int64]
    open: int

    @classmethod
    def left(cls, count: int, setup: TaskSetup, kept: Ranges, earlier: EarlierJobs) -> Work:
        """All that has neither rows nor an open job."""
        missing = [np.arange(start, stop) for start, stop in kept.rest(0, count)]
        rows = np.concatenate(missing) if missing else np.empty(0, np.int64)
        shots = np.full(count, setup.shots) if isinstance(setup.shots, int) else setup.shots
        had, bound = np.zeros(count, np.int64), np.full(count, -1)
        for backend, jobs in earlier.open.items():
            for run in (run for job in jobs for run in job.runs):
                had[run.start : run.stop] += run.shots
                bound[run.start : run.stop] = backend
        with_jobs = int(np.count_nonzero(had[rows]))
        rows = rows[shots[rows] > had[rows]]
        return cls(rows, shots[rows] - had[rows], bound[rows], with_jobs)

    def share(self, backend: int, cut: NDArray[np.float64]) -> NDArray[np.int64]:
        """Positions of the circuits that a backend gets: what is bound to it, and its part of what isn't."""
        free = np.flatnonzero(self.bound == -1)
        start, stop = np.round(cut * len(free)).astype(np.int64)
        return np.concatenate([free[start:stop], np.flatnonzero(self.bound == backend)])

    def notes(self, count: int, earlier: EarlierJobs, failed: int) -> list[str]:
        """What needn't be submitted, in words."""
        found = []
        jobs = sum(map(len, earlier.open.values()))
        partly = int(np.count_nonzero(self.bound != -1))
        stored = count - len(self.rows) - self.open + partly
        if stored:
            without = f", {failed:,} of them without all their counts" if failed else ""
            found.append(f"{stored:,} of {count:,} circuits have their rows in the store already{without}.")
        if self.open:
            part = f" ({partly:,} of them with a part of their shots)" if partly else ""
            found.append(
                f"{self.open:,} of {count:,} circuits are with {jobs:,} open job{'' if jobs == 1 else 's'} of an "
                f"earlier session already{part}: these are waited for, not submitted again."
            )
        return found


def _reserved(earlier: EarlierJobs, services: Mapping[int, Service]) -> Cost:
    """What will be reserved for open jobs."""
    found = Cost()
    for backend, jobs in earlier.open.items():
        facts = services[backend].facts
        for job in jobs:
            executions = sum(run.executions for run in job.runs)
            found = found + Cost(1, executions, facts.job_s + facts.execution_s * executions)
    return found


def _accounts(services: Mapping[int, Service]) -> dict[str, Account]:
    """The accounts of services, with what was spent of those that have a budget."""
    members: dict[str, list[Service]] = {}
    for service in services.values():
        members.setdefault(service.choice.account or service.choice.name, []).append(service)
    found = {}
    for key, own in members.items():
        spec, names = own[0].choice.spec, ", ".join(service.choice.name for service in own)
        name = names if spec.account is None else f"account {spec.account!r} ({names})"
        found[key] = Account(name, spec.quota, Cost() if spec.quota.budget is None else _spent(own[0], name))
    return found


def _spent(service: Service, account: str) -> Cost:
    try:
        return Cost(**service.link.state()["spent"])
    except RayError as error:
        raise BackendLoadError(f"the desk of {account} doesn't say what was spent: {words(error)}") from error


def _shared_rates(plans: Sequence[BackendPlan], accounts: Mapping[str, Account]) -> list[str]:
    """Why the jobs of a backend wait for more than their own number."""
    found = []
    for key, account in accounts.items():
        own = [plan for plan in plans if plan.account == key]
        jobs = sum(plan.jobs or 0 for plan in own)
        if len(own) > 1 and any(plan.submission_s for plan in own):
            found.append(
                f"{account.name}: its {jobs:,} jobs share {account.quota.jobs_per_minute:g} a minute."
            )
    return found
