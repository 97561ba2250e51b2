"""Where the rows of a running task go: into the driver's memory, or into a store."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import pyarrow as pa

from ray_qjm.cluster.blanks import Blanks
from ray_qjm.cluster.messages import Outcome, job_id, read_batches
from ray_qjm.cluster.open_jobs import settle
from ray_qjm.cluster.part_writer import told_failures, within
from ray_qjm.cluster.stored_inputs import StoredInputs
from ray_qjm.errors import StoreTakenError
from ray_qjm.planning.events import Chunk, Failure
from ray_qjm.planning.ranges import Ranges
from ray_qjm.planning.status import TaskStatus
from ray_qjm.results.counts import with_jobs, with_named_jobs
from ray_qjm.results.jobs import Job, JobLog
from ray_qjm.results.parts import MemoryParts
from ray_qjm.results.records import EndRecord
from ray_qjm.results.rows import HeldRows, Rows
from ray_qjm.results.store import Opened
from ray_qjm.results.stored_parts import StoredParts
from ray_qjm.results.stored_rows import StoredRows, in_pieces
from ray_qjm.results.submissions import unfinished


class Collector(ABC):
    """Takes in rows as they come and gives them to whoever asks.

    One thread, the coordinator's, calls what changes something; any thread may read.

    Attributes:
        jobs: Those that have ended.
    """

    jobs: JobLog

    def job_id(self, task_id: str, chunk: Chunk) -> str:
        """What the job of a chunk is called."""
        return job_id(task_id, chunk)

    @abstractmethod
    def take(self, outcome: Outcome, job: int | None) -> int:
        """Take the rows of a chunk; return how many they are.

        Args:
            outcome: Of the chunk.
            job: Row of the table of jobs of the job that ran it; ``None``: each row says which jobs it has.
        """

    @abstractmethod
    def fail(self, failure: Failure, backend: str | None) -> None:
        """Give circuits rows that say why they have no counts: no worker will send any."""

    @abstractmethod
    def cancel(self, start: int, stop: int, why: str) -> None:
        """Give circuits that were not run their rows."""

    def found(self, chunk: Chunk) -> Outcome | None:
        """What became of a chunk whose worker couldn't tell any more, if that can be known."""
        return None

    def left(self) -> list[Job]:
        """Jobs that services still have, though the task has ended."""
        return []

    @abstractmethod
    def missing(self, total: int) -> list[tuple[int, int]]:
        """The ranges of ``[0, total)`` of which no row was taken."""

    @abstractmethod
    def rows(self, total: int | None, why: str) -> Rows:
        """What was taken, with cancelled rows for the rest and the reason for them."""

    @abstractmethod
    def stream(self) -> Iterator[pa.RecordBatch]:
        """Batches as they come, until ``close``."""

    @abstractmethod
    def watch(
        self,
        status: Callable[[], TaskStatus],
        lost: Callable[[BaseException], None],
        cancel: Callable[[], None],
    ) -> None:
        """Let others see the task and ask to cancel it; be told when it is no longer this process's."""

    @abstractmethod
    def finish(self, status: TaskStatus, error: BaseException | None) -> None:
        """Write down how the task ended; may raise ``StoreError``."""

    @abstractmethod
    def close(self) -> None:
        """No more rows will come."""


class MemoryCollector(Collector):
    """Keeps rows in the driver's memory.

    Args:
        blanks: Makes rows that no worker will.
        limit: As for ``MemoryParts``.
        on_gate: As for ``MemoryParts``.
    """

    def __init__(self, blanks: Blanks, *, limit: int, on_gate: Callable[[bool], None]) -> None:
        self.jobs = JobLog()
        self._blanks = blanks
        self._parts = MemoryParts(limit=limit, on_gate=on_gate)
        # Their rows are made when they're wanted: of a long task that was cancelled they would fill the memory.
        self._cancelled: list[tuple[int, int, str]] = []

    def take(self, outcome: Outcome, job: int | None) -> int:
        """See ``Collector``."""
        rows = 0
        for batch in read_batches(outcome.data) if outcome.data else ():
            rows += batch.num_rows
            whole = with_named_jobs(batch, self.jobs.places()) if job is None else with_jobs(batch, [job])
            self._parts.add(whole)
        return rows

    def fail(self, failure: Failure, backend: str | None) -> None:
        """See ``Collector``."""
        self._parts.add(with_jobs(self._blanks.failed(failure, backend), []))

    def cancel(self, start: int, stop: int, why: str) -> None:
        """See ``Collector``."""
        self._cancelled.append((start, stop, why))

    def missing(self, total: int) -> list[tuple[int, int]]:
        """See ``Collector``."""
        return self._parts.missing(total)

    def rows(self, total: int | None, why: str) -> Rows:
        """See ``Collector``."""
        return HeldRows(self._blanks.fill([*self._parts.batches(), *self._last()], total, why))

    def stream(self) -> Iterator[pa.RecordBatch]:
        """See ``Collector``; each batch is handed over once."""
        return self._handed(self._parts.stream())

    def _handed(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from batches
        yield from self._last()

    def _last(self) -> Iterator[pa.RecordBatch]:
        for start, stop, why in self._cancelled:
            for a, b in in_pieces(start, stop):
                yield with_jobs(self._blanks.cancelled(a, b, why), [])

    def watch(
        self,
        status: Callable[[], TaskStatus],
        lost: Callable[[BaseException], None],
        cancel: Callable[[], None],
    ) -> None:
        """Nobody else can see it."""

    def finish(self, status: TaskStatus, error: BaseException | None) -> None:
        """Nobody else will ask."""

    def close(self) -> None:
        """See ``Collector``."""
        self._parts.close()


class StoreCollector(Collector):
    """Keeps note of what workers have written into a store.

    Args:
        opened: The store, taken by this process.
        kept: Circuits of earlier sessions that won't be run again.
        blanks: Makes rows that no worker will.
        inputs: Circuits that are kept there until they have their rows.
        lacking: Whether some of ``kept`` lack shots.
    """

    def __init__(
        self,
        opened: Opened,
        kept: Ranges,
        blanks: Blanks,
        inputs: StoredInputs | None = None,
        *,
        lacking: bool = False,
    ) -> None:
        self._lacking = lacking
        self._inputs = inputs
        self.jobs = opened.jobs
        self._opened = opened
        self._blanks = blanks
        self._parts = StoredParts(opened, kept)

    def job_id(self, task_id: str, chunk: Chunk) -> str:
        """See ``Collector``."""
        return job_id(task_id, chunk, self._opened.record.epoch)

    def take(self, outcome: Outcome, job: int | None) -> int:
        """See ``Collector``."""
        for start, stop in outcome.stored:
            self._parts.landed(start, stop)
        self._lacking |= bool(outcome.partial)
        self._drop_inputs()
        return sum(stop - start for start, stop in outcome.stored)

    def fail(self, failure: Failure, backend: str | None) -> None:
        """See ``Collector``."""
        self._parts.write(
            self._blanks.failed(failure, backend), within([failure], failure.start, failure.stop)
        )
        self._drop_inputs()

    def _drop_inputs(self) -> None:
        if self._inputs is not None:
            self._inputs.drop(self._parts.covered)

    def cancel(self, start: int, stop: int, why: str) -> None:
        """See ``Collector``; they aren't stored, or a resume would pass them over."""
        self._parts.last(start, stop, lambda a, b: with_jobs(self._blanks.cancelled(a, b, why), []))

    def found(self, chunk: Chunk) -> Outcome | None:
        """See ``Collector``: a worker may write its rows and die before it tells."""
        head = self._parts.find(chunk.start, chunk.stop)
        if head is None:
            return None
        self._lacking |= any(failure.status == "partial" for failure in head.failures)
        failures = tuple(told_failures(head))
        failed = sum(failure.stop - failure.start for failure in failures)
        job = head.jobs[0]
        return Outcome(
            stored=((head.start, head.stop),),
            done=len(chunk) - failed,
            failures=failures,
            seconds=job.seconds or 0.0,
            started=job.started or 0.0,
            shots=job.shots or 0,
        )

    def left(self) -> list[Job]:
        """See ``Collector``."""
        return unfinished(self._opened.objects)

    def missing(self, total: int) -> list[tuple[int, int]]:
        """See ``Collector``."""
        return self._parts.missing(total)

    def rows(self, total: int | None, why: str) -> StoredRows:
        """See ``Collector``; nothing is read yet."""
        taken = self._parts.taken
        return StoredRows(
            self._opened.objects,
            taken,
            max((item.stop for item in taken), default=0) if total is None else total,
            blank=lambda start, stop: with_jobs(self._blanks.cancelled(start, stop, why), []),
            jobs=lambda: self.jobs,
        )

    def stream(self) -> Iterator[pa.RecordBatch]:
        """See ``Collector``; what stays in the store can be streamed as often as one likes."""
        return self._parts.stream(self.rows(None, ""))

    def watch(
        self,
        status: Callable[[], TaskStatus],
        lost: Callable[[BaseException], None],
        cancel: Callable[[], None],
    ) -> None:
        """See ``Collector``."""
        self._opened.lease.report(lambda: status().plain(), lost, cancel)

    def finish(self, status: TaskStatus, error: BaseException | None) -> None:
        """See ``Collector``."""
        if isinstance(error, StoreTakenError):
            return
        end = EndRecord(
            epoch=self._opened.record.epoch,
            state=status.state,
            error=None if error is None else str(error),
            ended=time.time(),
            taken=self._parts.taken,
            total=status.total,
            status=status.plain(),
        )
        self._opened.finish(end)
        # Else it may go on: jobs that are over still have results of circuits that lack some of their shots.
        if end.state == "done" and not status.failed and not self._lacking:
            settle(self._opened.objects, self._opened.record.epoch)

    def close(self) -> None:
        """See ``Collector``."""
        self._opened.lease.stop()
        self._parts.close()
