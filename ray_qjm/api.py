"""``run`` and ``submit``: arguments are checked here, before anything runs."""

from __future__ import annotations

import json
import platform
import secrets
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ray_qjm.backends.registry import Choice, choose
from ray_qjm.circuits.compile import Compiler
from ray_qjm.circuits.source import DriverSource, WorkerSource
from ray_qjm.circuits.sources import make_source
from ray_qjm.cluster.coordinator import Coordinator
from ray_qjm.cluster.messages import TaskSetup, pack_setup
from ray_qjm.cluster.session import connect
from ray_qjm.cluster.workers import RayLauncher
from ray_qjm.errors import InvalidInputError, RayQjmError, TaskInterrupted
from ray_qjm.frontends.progress import View, view
from ray_qjm.frontends.task import Task
from ray_qjm.options import RunOptions, whole
from ray_qjm.planning.chunks import ChunkSizer
from ray_qjm.planning.schedule import BackendState, Schedule
from ray_qjm.planning.seeds import transpiler_seed
from ray_qjm.planning.status import TaskStatus
from ray_qjm.results.parts import MemoryParts
from ray_qjm.results.schema import schema
from ray_qjm.results.task_result import TaskResult

#: Most shots of a circuit: counts are int32.
MAX_SHOTS = 2**31 - 1
#: Batches that may wait for the reader of a stream before no new chunks are started: about a minute of work.
STREAM_AHEAD = 64

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
        backends: Names (``"aer"``, ``"fake_manila"``, ``"module:factory"``), ``BackendV2`` objects that run
            locally, or ``BackendSpec``; several share the work.
        count: Number of circuits; needed for a callable, the most that is read of an iterable.
        shots: Per circuit: an int, or integers of shape ``(count,)``.
        seed: Fixes building, transpiling and simulation, whatever the number of workers. ``None`` takes
            fresh entropy, recorded in the table's metadata.
        memory: Keep every shot (columns ``memory`` and ``memory_wide``).
        name: What people call this task.
        tags: Further words of theirs, recorded in the table's metadata.
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
        TaskInterrupted: Ctrl-C; ``error.result`` holds what was finished.

    Warns:
        PartialResultWarning: Some circuits have no counts.
    """
    shown = _view(progress)
    with shown:
        task = _submit(circuits, backends, count, shots, seed, memory, name, tags, shown, options)
        try:
            task.wait()
        except KeyboardInterrupt:
            _stop(task)
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
        progress: ``None`` or ``False`` shows nothing; a callable as for ``run``.
        options: As for ``run``.

    Raises:
        InvalidInputError: An argument is wrong; nothing was run.
    """
    shown = _view(False if progress is None else progress)
    return _submit(circuits, backends, count, shots, seed, memory, name, tags, shown, options)


def _submit(
    circuits: Any,
    backends: Any,
    count: int | None,
    shots: int | ArrayLike,
    seed: int | None,
    memory: bool,
    name: str | None,
    tags: Sequence[str],
    shown: View,
    options: RunOptions | None,
) -> Task:
    options = RunOptions() if options is None else options
    if not isinstance(options, RunOptions):
        raise InvalidInputError(f"options is a {type(options).__name__}. Give RunOptions(...).")
    if not isinstance(memory, (bool, np.bool_)):
        raise InvalidInputError(f"memory is {memory!r}. Give True or False.")
    info = _labels(name, tags)
    seed = secrets.randbits(63) if seed is None else whole("seed", seed, least=0)
    choices = choose(backends, memory=bool(memory))
    _check_transpiling(choices, options, seed)
    source = make_source(circuits, count)
    schema(extra_types=source.column_types)  # a column named like one of ours is refused here
    setup = TaskSetup(
        source=source if isinstance(source, WorkerSource) else None,
        backends=[(choice.name, choice.spec, choice.load) for choice in choices],
        transpile=options.transpile,
        seed=seed,
        shots=_shots(shots, source.count),
        memory=bool(memory),
        column_types=dict(source.column_types),
    )
    data = pack_setup(setup)
    task_id = secrets.token_hex(4)
    resources = [(choice.name, choice.spec.resources) for choice in choices]
    launcher = RayLauncher(task_id, data, resources, only_here=connect())
    schedule = Schedule(
        source.count,
        [BackendState(ChunkSizer(options.chunk_s, options.max_chunk)) for _ in choices],
        max_failures=options.max_failures,
        crash_retries=options.crash_retries,
        max_in_flight=options.max_in_flight,
    )
    gate: list[Callable[[bool], None]] = []
    coordinator = Coordinator(
        task_id=task_id,
        name=name,
        schedule=schedule,
        launcher=launcher,
        setup=setup,
        feed=source if isinstance(source, DriverSource) else None,
        options=options,
        parts=MemoryParts(limit=STREAM_AHEAD, on_gate=lambda open_: gate[0](open_)),
        observe=shown.update,
    )
    gate.append(coordinator.gate)
    coordinator.start()
    info |= {
        "task_id": task_id,
        "seed": str(seed),
        "backends": json.dumps([choice.name for choice in choices]),
    }
    return Task(
        coordinator,
        info=info,
        circuits=source.circuits if isinstance(source, DriverSource) else None,
        raise_failures=options.on_failure == "raise",
        complaint=shown.complaint,
    )


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


def _labels(name: str | None, tags: Sequence[str]) -> dict[str, str]:
    if name is not None and not isinstance(name, str):
        raise InvalidInputError(f"name is a {type(name).__name__}. Give a text.")
    if isinstance(tags, str) or not all(isinstance(tag, str) for tag in tags):
        raise InvalidInputError(f"tags is {tags!r}. Give several texts, such as ['calibration'].")
    info = {
        "tags": json.dumps(list(tags)),
        "python": platform.python_version(),
        "versions": json.dumps(_versions()),
    }
    return info if name is None else {"name": name, **info}


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


def _stop(task: Task) -> None:
    """Cancel after Ctrl-C; a second Ctrl-C doesn't wait for chunks that run."""
    task.cancel()
    try:
        task.wait()
    except KeyboardInterrupt:
        task.cancel(force=True)
        task.wait()


def _interrupted(task: Task) -> TaskInterrupted:
    result = task.result(partial=True)
    status = task.status()
    return TaskInterrupted(
        f"interrupted: {status.done} of {len(result)} circuits are done, {status.failed} failed, "
        f"{status.cancelled} were not run. error.result has them.",
        result,
    )
