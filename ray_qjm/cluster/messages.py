"""What travels between the driver and its workers: a task's setup, circuits, and what became of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_qjm.circuits.source import WorkerSource
from ray_qjm.errors import InvalidInputError, RayQjmError, SourceError
from ray_qjm.options import BackendSpec, TranspileOptions
from ray_qjm.planning.events import Chunk, Deferred, Failure, Returned
from ray_qjm.results.objects import Objects


@dataclass(frozen=True)
class StoreSetup:
    """Where the rows of a task go.

    Attributes:
        objects: The store.
        task_id: The task's.
        epoch: The driver's, under which its workers write.
        record: Digest of that epoch's record: a worker that reads another one there sees another store.
    """

    objects: Objects
    task_id: str
    epoch: int
    record: str


@dataclass(frozen=True)
class TaskSetup:
    """What is the same for all chunks of a task; shipped to each worker process once.

    Attributes:
        source: Builds circuits on workers, or ``None`` where they come with each chunk.
        backends: Name, spec and loader of each backend.
        transpile: Of the task; a spec may have its own.
        seed: The task's.
        shots: For every circuit, or int64 of shape ``(count,)``.
        memory: Whether single shots are kept.
        column_types: The source's columns.
        store: Where workers write rows; ``None``: they send them to the driver.
    """

    source: WorkerSource | None
    backends: Sequence[tuple[str, BackendSpec, Callable[[], Any]]]
    transpile: TranspileOptions
    seed: int
    shots: int | NDArray[np.int64]
    memory: bool
    column_types: Mapping[str, str]
    store: StoreSetup | None = None

    def shots_of(self, index: int) -> int:
        """Shots of one circuit."""
        return self.shots if isinstance(self.shots, int) else int(self.shots[index])

    def shots_in(self, start: int, stop: int) -> int | NDArray[np.int64]:
        """Shots of the circuits ``[start, stop)``, as ``results.counts.blank`` takes them."""
        return self.shots if isinstance(self.shots, int) else self.shots[start:stop]


@dataclass(frozen=True)
class Payload:
    """Circuits of a source that only the driver can read.

    Attributes:
        start: Row of the first.
        data: ``circuits.payload.encode`` of the circuits.
        columns: The source's columns for these rows.
    """

    start: int
    data: bytes
    columns: Mapping[str, Sequence[object]]


@dataclass(frozen=True)
class Outcome:
    """What became of a chunk.

    Attributes:
        data: Arrow IPC stream of record batches, contiguous circuits each, all but the column ``jobs``.
            ``bytes``, because Ray copies these once out of its shared memory when it unpickles them, and
            the driver's batches then point into memory of its own.
        stored: Ranges of circuits whose rows stand in the store, in place of ``data``.
        done: Circuits with counts.
        failures: Those without, neighbours of one reason joined.
        partial: Of those with counts the ones that lack shots, for a reason that may pass.
        deferred: Those that weren't run, because they need more memory than the chunk had reserved.
        returned: Those that the backend won't run: another one may.
        noted: Whether the jobs that ran it are in the table of jobs already, and each row says which it has.
        seconds: How long it took, the loading of backend and source not counted.
        started: When it began, seconds since the epoch.
        shots: Sum over all circuits.
        stages: Seconds of it in each stage that it went through, for those who watch: see ``cluster.metrics``.
        size: Bytes of the rows, as they were sent or written.
        fatal: Why the whole task has to end, if it has to.
    """

    data: bytes = b""
    stored: tuple[tuple[int, int], ...] = ()
    done: int = 0
    failures: tuple[Failure, ...] = ()
    partial: tuple[Failure, ...] = ()
    deferred: tuple[Deferred, ...] = ()
    returned: tuple[Returned, ...] = ()
    noted: bool = False
    seconds: float = 0.0
    started: float = 0.0
    shots: int = 0
    stages: Mapping[str, float] = field(default_factory=dict)
    size: int = 0
    fatal: RayQjmError | None = None


def job_id(task_id: str, chunk: Chunk, epoch: int = 1) -> str:
    """The id of the job that runs a chunk; ``epoch`` tells a resumed task's from those before.

    >>> job_id("t1", Chunk(100, 200)), job_id("t1", Chunk(100, 101, attempt=1, memory=2**30), epoch=3)
    ('t1-100-200', 't1-100-101-1-reserved-e3')
    """
    attempt = (f"-{chunk.attempt}" if chunk.attempt else "") + ("-reserved" if chunk.memory else "")
    return f"{task_id}-{chunk.start}-{chunk.stop}{attempt}" + (f"-e{epoch}" if epoch > 1 else "")


def waiting(deferred: Sequence[Deferred]) -> str | None:
    """What a job's row says of circuits that it left for later."""
    if not deferred:
        return None
    circuits = sum(item.stop - item.start for item in deferred)
    most = max(item.memory for item in deferred) / 2**30
    return f"{circuits} circuit{' waits' if circuits == 1 else 's wait'} for {most:.1f} GiB to be reserved"


def pack_setup(setup: TaskSetup) -> bytes:
    """Pickle what workers need.

    Raises:
        InvalidInputError: Something of it can't be pickled.
    """
    for what, value in (
        (f"the {setup.source.kind}" if setup.source is not None else "", setup.source),
        ("transpile of RunOptions", setup.transpile),
        *((f"backend {name}", (spec, load)) for name, spec, load in setup.backends),
    ):
        try:
            cloudpickle.dumps(value)
        except Exception as error:
            raise InvalidInputError(
                f"{what} can't be pickled, so workers can't have it ({type(error).__name__}: {error}). Leave open "
                "files, generators, locks and connections out of it, or make them inside the function."
            ) from error
    data: bytes = cloudpickle.dumps(setup)
    return data


def load_setup(data: bytes) -> TaskSetup:
    """Unpickle what the driver sent.

    Raises:
        SourceError: Something that the source or a backend needs isn't here.
    """
    try:
        setup: TaskSetup = cloudpickle.loads(data)
    except Exception as error:
        raise SourceError(
            f"what the task needs can't be loaded on a worker ({type(error).__name__}: {error}). Put the modules of "
            "the circuits' function and of the backends where workers can import them."
        ) from error
    return setup


def read_batches(data: bytes) -> list[pa.RecordBatch]:
    """The record batches of an outcome; they point into ``data``."""
    with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
        return list(reader)


def write_batches(batches: Sequence[pa.RecordBatch]) -> bytes:
    """Record batches as the data of an outcome; nothing if there are none."""
    if not batches:
        return b""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data
