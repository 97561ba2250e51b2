"""``run``, ``submit`` and ``plan``: arguments are checked here, before anything runs."""

from __future__ import annotations

import json
import os
import platform
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ray_qjm.backends.registry import Choice, choose
from ray_qjm.circuits.compile import Compiler
from ray_qjm.circuits.source import DriverSource, WorkerSource
from ray_qjm.circuits.sources import make_source
from ray_qjm.cluster.forecast import forecast
from ray_qjm.cluster.messages import TaskSetup, pack_setup
from ray_qjm.cluster.peek import peek_store
from ray_qjm.cluster.resume import Durable, Resumed, open_store
from ray_qjm.cluster.services import check_budget, close_services, open_services, with_shadows
from ray_qjm.cluster.start import start
from ray_qjm.errors import InvalidInputError, RayQjmError, TaskInterrupted
from ray_qjm.frontends.plan import Plan
from ray_qjm.frontends.progress import View, view
from ray_qjm.frontends.task import Run, Task, stop
from ray_qjm.options import RunOptions, whole
from ray_qjm.planning.seeds import transpiler_seed
from ray_qjm.planning.status import TaskStatus
from ray_qjm.results.labels import labels
from ray_qjm.results.schema import schema
from ray_qjm.results.task_result import TaskResult
from ray_qjm.results.watch import StoredTask

#: Most shots of a circuit: counts are int32.
MAX_SHOTS = 2**31 - 1
_PACKAGES = ("ray-qjm", "qiskit", "qiskit-aer", "ray", "pyarrow", "numpy")


def run(
    circuits: Any,
    backends: Any = ("aer",),
    *,
    count: int | None = None,
    shots: int | ArrayLike = 1024,
    seed: int | None = None,
    memory: bool = False,
    name: str | None = None,
    tags: Sequence[str] = (),
    store: str | os.PathLike[str] | None = None,
    version: str | None = None,
    retry_failed: bool = False,
    progress: bool | Callable[[TaskStatus], None] | None = None,
    options: RunOptions | None = None,
) -> TaskResult:
    """Run circuits on one or more backends and return their counts as one table.

    Row i is circuit i, whichever backend ran it and in whatever order chunks ended.

    Args:
        circuits: A callable ``f(index)`` or ``f(index, rng)``, called on workers, perhaps more than once for
            an index (a worker can die); it must answer the same circuit each time. Or a list, any other
            iterable or generator (read lazily), ``{"A": [...], "B": [...]}``, ``Sweep``, ``QpyFiles`` or
            ``QasmFiles``.
        backends: Names (``"aer"``, ``"fake_manila"``, ``"ibm_fez"``, ``"module:factory"``), ``BackendV2`` or
            sampler objects, or ``BackendSpec``; several share the work.
        count: Number of circuits; needed for a callable, the most that is read of an iterable.
        shots: Per circuit: an int, or integers of shape ``(count,)``.
        seed: Fixes building, transpiling and simulation, whatever the number of workers. ``None`` takes
            fresh entropy, recorded in the table's metadata.
        memory: Keep every shot (columns ``memory`` and ``memory_wide``).
        name: What people call this task.
        tags: Further words of theirs. Name and tags are no part of what the task is: they stand in the table's
            metadata and in the store, and ``Task.relabel`` changes them.
        store: A directory, or a URI such as ``s3://bucket/prefix``, that keeps the rows as they come. The same
            call with the same store goes on where the last one ended, however it ended. ``None`` keeps rows
            in memory.
        version: Yours, of circuits whose source text can't be read (``functools.partial``, objects, code typed
            in): a stored task goes on only with the same one.
        retry_failed: When a stored task goes on, run circuits again that failed for a reason which may have
            passed (their worker died), never broken ones.
        progress: ``None`` shows a bar on a terminal or in a notebook and plain lines elsewhere; ``False``
            nothing; a callable gets a ``TaskStatus`` after each event, from another thread.
        options: See ``RunOptions``.

    Returns:
        A ``TaskResult`` with a row for each circuit, failed ones included with their reason.

    Raises:
        InvalidInputError: An argument is wrong; nothing was run.
        SourceError: The circuits can't be had on workers, or read.
        BackendLoadError: A backend can't be had on workers.
        TaskFailedError: One reason failed ``options.max_failures`` circuits in a row, or some circuits have
            no counts and ``options.on_failure == "raise"``; ``error.result`` holds the rest.
        StoreError: The store holds another task (``StoreMismatchError``), is being used by another process
            (``StoreInUseError``), or can't be read or written.
        TaskInterrupted: Ctrl-C; ``error.result`` holds what was finished.

    Warns:
        PartialResultWarning: Some circuits have no counts.
    """
    shown = _view(progress)
    with shown:
        durable = Durable(store, version, retry_failed)
        call = _check(circuits, backends, count, shots, seed, memory, name, tags, options)
        task = _submit(call, name, durable, shown)
        try:
            task.wait()
        except KeyboardInterrupt:
            stop(task)
            raise _interrupted(task) from None
    return task._outcome()


def submit(
    circuits: Any,
    backends: Any = ("aer",),
    *,
    count: int | None = None,
    shots: int | ArrayLike = 1024,
    seed: int | None = None,
    memory: bool = False,
    name: str | None = None,
    tags: Sequence[str] = (),
    store: str | os.PathLike[str] | None = None,
    version: str | None = None,
    retry_failed: bool = False,
    progress: bool | Callable[[TaskStatus], None] | None = None,
    options: RunOptions | None = None,
) -> Task:
    """Start what ``run`` runs, and return at once.

    Args:
        circuits: As for ``run``. A source without end works with ``Task.stream``.
        backends: As for ``run``.
        count: As for ``run``.
        shots: As for ``run``.
        seed: As for ``run``.
        memory: As for ``run``.
        name: As for ``run``.
        tags: As for ``run``.
        store: As for ``run``.
        version: As for ``run``.
        retry_failed: As for ``run``.
        progress: ``None`` or ``False`` shows nothing; a callable as for ``run``.
        options: As for ``run``.

    Raises:
        InvalidInputError: An argument is wrong; nothing was run.
        StoreError: As for ``run``.
    """
    shown = _view(False if progress is None else progress)
    durable = Durable(store, version, retry_failed)
    call = _check(circuits, backends, count, shots, seed, memory, name, tags, options)
    return _submit(call, name, durable, shown)


def attach(store: str | os.PathLike[str]) -> Task:
    """Watch, report or read a stored task, from any process, with or without Ray, while it runs or later.

    What it says of a task that runs elsewhere may be some seconds old. ``cancel`` asks the process that runs it;
    leaving ``stream`` early leaves the task alone.

    Args:
        store: The directory or URI that was given to ``run``.

    Raises:
        InvalidInputError: It holds no task.
        StoreError: It can't be read.
    """
    task = StoredTask(store)
    return Task(
        task,
        info=task.info,
        store=task.objects.place,
        circuits=None,
        raise_failures=False,
        complaint=lambda: None,
    )


def plan(
    circuits: Any,
    backends: Any = ("aer",),
    *,
    count: int | None = None,
    shots: int | ArrayLike = 1024,
    seed: int | None = None,
    memory: bool = False,
    name: str | None = None,
    tags: Sequence[str] = (),
    store: str | os.PathLike[str] | None = None,
    version: str | None = None,
    retry_failed: bool = False,
    progress: bool | Callable[[TaskStatus], None] | None = None,
    options: RunOptions | None = None,
) -> Plan:
    """Say what ``run`` with the same arguments would take at services, before anything is paid.

    Services are asked for their limits, a few circuits are built and compiled here to learn their size, and
    nothing is submitted or changed. Circuits that have their rows in the store, or are with jobs that an earlier
    session submitted, are left out; what was spent before counts against the budgets of task and accounts.

    Args:
        circuits: As for ``run``; of an iterable ``count`` must be known, and its circuits aren't looked at.
        backends: As for ``run``.
        count: As for ``run``.
        shots: As for ``run``.
        seed: As for ``run``.
        memory: As for ``run``.
        name: As for ``run``.
        tags: As for ``run``.
        store: As for ``run``.
        version: As for ``run``.
        retry_failed: As for ``run``.
        progress: As for ``run``; nothing is shown.
        options: As for ``run``.

    Returns:
        Jobs, circuits and executions a job, bytes, the shortest time to submit them and estimated QPU seconds, a
        backend each, and which limit binds; the budgets that all together go beyond. It prints as a table.

    Raises:
        InvalidInputError: An argument is wrong, or the number of circuits isn't known.
        BackendLoadError: A service can't be reached.
        StoreError: As for ``run``.
    """
    _view(progress)
    durable = Durable(store, version, retry_failed)
    call = _check(circuits, backends, count, shots, seed, memory, name, tags, options)
    services = open_services(call.choices, call.options, memory=call.setup.memory)
    try:
        check_budget(call.options, call.setup.shots, services)
        stored = peek_store(durable, call.source, call.setup, seed=call.seed, info=call.info)
        found = forecast(call.source, call.setup, call.choices, services, call.options, stored)
    finally:
        close_services(services)
    return Plan(found.circuits, found.backends, found.notes, found.beyond)


@dataclass(frozen=True)
class _Call:
    """Arguments of a call, checked."""

    source: WorkerSource | DriverSource
    choices: Sequence[Choice]
    setup: TaskSetup
    options: RunOptions
    info: dict[str, str]
    labels: dict[str, str]
    seed: int | None


def _check(
    circuits: Any,
    backends: Any,
    count: int | None,
    shots: int | ArrayLike,
    seed: int | None,
    memory: bool,
    name: str | None,
    tags: Sequence[str],
    options: RunOptions | None,
) -> _Call:
    """Refuse what is wrong before anything runs, Ray included."""
    options = RunOptions() if options is None else options
    if not isinstance(options, RunOptions):
        raise InvalidInputError(f"options is a {type(options).__name__}. Give RunOptions(...).")
    if not isinstance(memory, (bool, np.bool_)):
        raise InvalidInputError(f"memory is {memory!r}. Give True or False.")
    given = labels(name, tags or None)
    seed = None if seed is None else whole("seed", seed, least=0)
    choices = choose(backends, memory=bool(memory))
    _check_transpiling(choices, options, 0 if seed is None else seed)
    source = make_source(circuits, count)
    schema(extra_types=source.column_types)  # a column named like one of ours is refused here
    setup = TaskSetup(
        source=source if isinstance(source, WorkerSource) else None,
        # What the user gave may hold connections; what makes it again stands beside.
        backends=[
            (choice.name, replace(choice.spec, backend_or_factory=None), choice.load) for choice in choices
        ],
        transpile=options.transpile,
        seed=secrets.randbits(63) if seed is None else seed,
        shots=_shots(shots, source.count),
        memory=bool(memory),
        column_types=dict(source.column_types),
    )
    pack_setup(setup)  # what can't be pickled is refused before a store is taken
    return _Call(source, choices, setup, options, _facts(), given, seed)


def _submit(call: _Call, name: str | None, durable: Durable, shown: View) -> Task:
    source, choices, setup, options, info = call.source, call.choices, call.setup, call.options, call.info
    services = open_services(choices, options, memory=setup.memory)
    try:
        check_budget(options, setup.shots, services)
        setup = with_shadows(setup, services)
        resumed = open_store(durable, source, setup, seed=call.seed, info=info, labels=call.labels)
        info = {**info, **call.labels} if resumed is None else dict(resumed.info)
        found: Run | None = _whole(resumed, source)
        if found is None:
            found = start(
                source,
                setup,
                choices=choices,
                services=services,
                resumed=resumed,
                name=name,
                options=options,
                observe=shown.update,
            )
        else:
            close_services(services)
            shown.update(found.status)
    except BaseException:
        close_services(services)
        raise
    info |= {
        "task_id": found.task_id,
        "seed": str(setup.seed if resumed is None else resumed.task.seed),
        "backends": json.dumps([choice.name for choice in choices]),
    }
    return Task(
        found,
        info=info,
        store=None if resumed is None else resumed.opened.objects.place,
        circuits=source.circuits if isinstance(source, DriverSource) else None,
        raise_failures=options.on_failure == "raise",
        complaint=shown.complaint,
    )


def _whole(resumed: Resumed | None, source: WorkerSource | DriverSource) -> StoredTask | None:
    """A stored task of which nothing is left to run: Ray needn't be started for it."""
    if resumed is None or not resumed.whole:
        return None
    try:
        if isinstance(source, DriverSource):
            resumed.compare(source)
    finally:
        resumed.opened.give_back()
    return StoredTask(resumed.opened.objects.root)


def _view(progress: bool | Callable[[TaskStatus], None] | None) -> View:
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise InvalidInputError(f"progress is a {type(progress).__name__}. Give None, False or a callable.")
    return view(progress)


def _shots(shots: Any, count: int | None) -> int | NDArray[np.int64]:
    if isinstance(shots, str) or not isinstance(shots, (Iterable, np.ndarray)):
        return whole("shots", shots, least=1, most=MAX_SHOTS)
    array = np.asarray(shots if isinstance(shots, np.ndarray) else list(shots))
    if count is None:
        raise InvalidInputError(
            f"shots has {array.size} numbers, and how many circuits there are is unknown. Pass count=."
        )
    if array.shape != (count,):
        raise InvalidInputError(
            f"shots has shape {array.shape} for {count} circuits. Give one number a circuit."
        )
    if count and array.dtype.kind not in "iu":
        raise InvalidInputError(f"shots is an array of {array.dtype}. Give integers.")
    if count and not 1 <= array.min() <= array.max() <= MAX_SHOTS:
        row = int(np.flatnonzero((array < 1) | (array > MAX_SHOTS))[0])
        raise InvalidInputError(f"shots of circuit {row} is {array[row]}; it must be from 1 to {MAX_SHOTS}.")
    return array.astype(np.int64)


def _facts() -> dict[str, str]:
    """What stands in the metadata of every result."""
    return {"tags": "[]", "python": platform.python_version(), "versions": json.dumps(_versions())}


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _check_transpiling(choices: Sequence[Choice], options: RunOptions, seed: int) -> None:
    """Make pass managers with options once here: a misspelt one must not reach a worker."""
    for choice in choices:
        transpile = choice.spec.transpile or options.transpile
        if choice.backend is None or not transpile.options:
            continue
        try:
            Compiler(choice.backend, transpile, transpiler_seed(seed))
        except RayQjmError:
            raise
        except Exception as error:
            raise InvalidInputError(
                f"the options of TranspileOptions don't suit backend {choice.name} ({type(error).__name__}: {error})."
            ) from error


def _interrupted(task: Task) -> TaskInterrupted:
    result = task.result(partial=True)
    status = task.status()
    return TaskInterrupted(
        f"interrupted: {status.done} of {len(result)} circuits are done, {status.failed} failed, "
        f"{status.cancelled} were not run. error.result has them.",
        result,
    )
