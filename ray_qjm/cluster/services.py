"""The services of a task: reached before anything runs, and a line of work to each."""

from __future__ import annotations

import hashlib
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import cloudpickle
import numpy as np

from ray_qjm.backends.base import Facts
from ray_qjm.backends.registry import Choice, MakeAdapter, lost_operations
from ray_qjm.backends.shadow import ShadowOf
from ray_qjm.circuits.payload import smallest_qpy
from ray_qjm.cluster.backend_actor import Counter
from ray_qjm.cluster.desk_link import DeskLink
from ray_qjm.cluster.desk_state import state_root
from ray_qjm.cluster.line_jobs import LineSetup, Spell
from ray_qjm.cluster.line_purse import LinePurse
from ray_qjm.cluster.messages import TaskSetup
from ray_qjm.cluster.open_jobs import EarlierJobs
from ray_qjm.cluster.service_line import ServiceLine
from ray_qjm.cluster.service_tasks import ServiceTasks
from ray_qjm.cluster.session import connect
from ray_qjm.errors import BackendLoadError, InvalidInputError
from ray_qjm.options import Budget, Limits, RunOptions
from ray_qjm.planning.assembly import Assembly
from ray_qjm.planning.events import Closed, Paced, Wants
from ray_qjm.planning.quota import Purse
from ray_qjm.planning.seeds import simulator_base
from ray_qjm.results.jobs import Job

#: Seconds between two polls of a service, at least and at most, by how many requests one poll is.
POLLS_S = (0.05, 60.0)


@dataclass(frozen=True)
class Service:
    """A service of a task, reached.

    Attributes:
        choice: What the user said of it.
        link: To its desk.
        counter: What the desk calls it.
        facts: What it said of itself.
        limits: Of one job: the tighter of the user's and its own.
    """

    choice: Choice
    link: DeskLink
    counter: str
    facts: Facts
    limits: Limits


def open_services(
    choices: Sequence[Choice], options: RunOptions, *, memory: bool = False
) -> dict[int, Service]:
    """Reach the services among a task's backends, by their position; ``memory``: single shots are wanted of them.

    Raises:
        InvalidInputError: Limits that no circuit can satisfy, a budget that no job can, another quota than the
            one that the account has on this cluster, or single shots of a backend that has none.
        BackendLoadError: One can't be reached; the message has its words.
        ConnectionError: Ray can't be.
    """
    found: dict[int, Service] = {}
    wanted = {at: choice for at, choice in enumerate(choices) if choice.account is not None}
    if not wanted:
        return found
    connect()
    try:
        for at, choice in wanted.items():
            found[at] = _open(choice, options)
            if memory and not found[at].facts.memory:
                raise InvalidInputError(
                    f"memory=True, but {choice.name} has no option 'memory': it can't give single shots."
                )
    except BaseException:
        close_services(found)
        raise
    return found


def close_services(services: Mapping[int, Service]) -> None:
    """Speak to no service any more."""
    for service in services.values():
        with suppress(Exception):
            service.link.close()


def _open(choice: Choice, options: RunOptions) -> Service:
    spec = choice.spec
    assert choice.account is not None
    link = DeskLink(
        choice.account,
        f"account {spec.account!r}" if spec.account else f"backend {choice.name}",
        spec.quota,
        root=state_root(),
        call_s=options.retry.call_s,
        label=spec.account or choice.name,
    )
    own = choice.name.partition("#")[0]
    made = cloudpickle.dumps(MakeAdapter(choice.load, own, spec.run_options))
    # Backends of one name may differ in what nobody sees; those of two drivers are one if their pickles are.
    key = f"{own}-{hashlib.sha256(made).hexdigest()[:12]}"
    try:
        facts = link.open(Counter(key, made, POLLS_S))
    except BackendLoadError as error:
        link.close()
        raise BackendLoadError(f"backend {choice.name} can't be used: {error}") from None
    limits = spec.limits.within(facts.limits)
    _check_same(choice, facts)
    _check_possible(choice.name, limits, facts, options.budget, spec.quota.budget)
    return Service(choice, link, key, facts, limits)


def _check_same(choice: Choice, facts: Facts) -> None:
    """Some backends lose their target on the way to another process, and no circuit would compile for them."""
    if lost := lost_operations(choice, facts):
        raise InvalidInputError(
            f"backend {choice.name} has lost {len(lost)} operations of its target on the way to another process "
            f"({', '.join(lost[:5])}): it can't be pickled as it is. Give BackendSpec(factory, "
            "placement='actor') with a function that makes it there."
        )


def _check_possible(name: str, limits: Limits, facts: Facts, *budgets: Budget | None) -> None:
    size = smallest_qpy() // (2 if facts.squeezed else 1)
    if limits.max_payload_bytes is not None and limits.max_payload_bytes < size:
        raise InvalidInputError(
            f"max_payload_bytes of {name} is {limits.max_payload_bytes}, and a circuit of one measurement takes {size} "
            "bytes. Raise it."
        )
    for budget in budgets:
        seconds = None if budget is None else budget.qpu_seconds
        if seconds is not None and not facts.job_s and not facts.execution_s:
            raise InvalidInputError(
                f"qpu_seconds of the budget is {seconds:g}, and nobody knows what a job on {name} takes before it was "
                "billed: it would not be kept. Give jobs or executions."
            )


def with_shadows(setup: TaskSetup, services: Mapping[int, Service]) -> TaskSetup:
    """A setup for workers that compile for services, and never see what connects to them."""
    backends = [
        (name, spec, ShadowOf(services[at].facts)) if at in services else (name, spec, load)
        for at, (name, spec, load) in enumerate(setup.backends)
    ]
    return replace(setup, backends=backends)


def make_lines(
    services: Mapping[int, Service],
    setup: TaskSetup,
    reference: Sequence[Any],
    *,
    key: str,
    task_id: str,
    task_name: str | None,
    options: RunOptions,
    earlier: EarlierJobs,
    tell: Callable[[Wants | Paced | Closed | Job | Spell | None], None],
) -> dict[int, ServiceLine]:
    """A line of work to each service; each listens, and acts once it is told to ``begin``.

    Args:
        services: Of the task.
        setup: What workers have.
        reference: To it, in a list.
        key: Unique for this session of the task.
        task_id: Of the task.
        task_name: What the user called it.
        options: Of the task.
        earlier: What earlier sessions have submitted.
        tell: As for ``ServiceLine``.
    """
    purse, lock = Purse(options.budget, earlier.spent), threading.Lock()
    lines: dict[int, ServiceLine] = {}
    epoch = 1 if setup.store is None else setup.store.epoch
    for at, service in services.items():
        name = setup.backends[at][0]
        pending = service.choice.spec.quota.max_pending
        line = lines[at] = ServiceLine(
            LineSetup(
                backend=at,
                name=name,
                counter=service.counter,
                account=service.choice.account or name,
                prefix=f"{task_id}-e{epoch}-{key[:4]}-{at}",
                task_id=task_id,
                session=epoch,
                retry=options.retry,
                job_timeout_s=options.job_timeout_s,
                memory=setup.memory,
                base=simulator_base(setup.seed),
                recalled=service.facts.recalled,
                ahead=max(2, pending // 4),
            ),
            Assembly(
                _within_budgets(service, options, setup.shots),
                mixed=service.facts.mixed,
                shots_of=setup.shots_of,
            ),
            service.link,
            ServiceTasks(key, reference, name, at, service.choice.spec.resources, task_name),
            LinePurse(purse, lock, (service.facts.job_s, service.facts.execution_s)),
            tell,
        )
        service.link.join(f"{key}-{at}", setup.store, line.heard)
        for job in earlier.open.get(at, ()):
            line.adopt(job)
    return lines


def _within_budgets(service: Service, options: RunOptions, shots: int | np.ndarray[Any, Any]) -> Limits:
    """Limits under which no job alone goes beyond a budget: it would be refused, and the budget left unused."""
    limits, most = service.limits, shots if isinstance(shots, int) else int(shots.max(initial=1))
    for budget in (options.budget, service.choice.spec.quota.budget):
        if budget is not None and budget.executions is not None:
            limits = limits.within(Limits(max_executions=max(budget.executions, most)))
    return limits


def check_budget(
    options: RunOptions, shots: int | np.ndarray[Any, Any], services: Mapping[int, Service]
) -> None:
    """Refuse a budget that the smallest job goes beyond, and tell of one that nothing is counted for.

    Raises:
        InvalidInputError: The smallest job goes beyond it.
    """
    for name in ("budget", "job_timeout_s"):
        if not services and getattr(options, name) is not None:
            message = f"RunOptions({name}=...) is for jobs at services, and all backends here run on workers: it has "
            warnings.warn(f"{message}no effect.", UserWarning, stacklevel=4)
    least = shots if isinstance(shots, int) else int(shots.min(initial=1))
    for service in services.values():
        for what, budget in (
            ("the task", options.budget),
            (service.choice.name, service.choice.spec.quota.budget),
        ):
            if budget is None:
                continue
            cut = min([least, *(x for x in (service.limits.max_shots, service.limits.max_executions) if x)])
            if budget.executions is not None and budget.executions < cut:
                raise InvalidInputError(
                    f"the budget of {what} is {budget.executions:,} executions, and the smallest job has {cut:,}. "
                    "Raise it, or lower shots."
                )
            seconds = service.facts.job_s + service.facts.execution_s * cut
            if budget.qpu_seconds is not None and budget.qpu_seconds < seconds:
                raise InvalidInputError(
                    f"the budget of {what} is {budget.qpu_seconds:g} qpu_seconds, and the smallest job on "
                    f"{service.choice.name} takes about {seconds:.3g}. Raise it, or lower shots."
                )
