"""The handle of a task that runs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from ray_qjm.errors import (
    CircuitFailedError,
    InvalidInputError,
    PartialResultWarning,
    TaskCancelledError,
    TaskFailedError,
    WaitTimeoutError,
)
from ray_qjm.planning.status import TaskStatus
from ray_qjm.results.jobs import JobLog
from ray_qjm.results.labels import labels, write_labels
from ray_qjm.results.objects import Objects
from ray_qjm.results.report import lines
from ray_qjm.results.rows import HeldRows
from ray_qjm.results.task_result import TaskResult
from ray_qjm.results.watch import StoredTask

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from ray_qjm.results.jobs import Job
    from ray_qjm.results.report import FailureRange
    from ray_qjm.results.rows import Rows


class Run(Protocol):
    """What drives a task, or sees it from afar: a ``Coordinator`` or a ``StoredTask``."""

    task_id: str
    complaint: str | None

    @property
    def status(self) -> TaskStatus:
        """Where it stands."""

    @property
    def error(self) -> BaseException | None:
        """Why it ended without having run everything, if so."""

    def done(self) -> bool:
        """Whether it has ended."""

    def wait(self, timeout: float | None) -> bool:
        """Wait for the end; return whether it has come."""

    def cancel(self, *, force: bool = False, keep_jobs: bool = False) -> None:
        """Start nothing any more."""

    def leave(self) -> None:
        """Whoever looked on wants no more."""

    def failures(self) -> tuple[list[FailureRange], int]:
        """Ranges of failed circuits, and how many failed beyond them."""

    def jobs(self) -> pa.Table:
        """The table of jobs that have ended."""

    def open_jobs(self) -> list[Job]:
        """Jobs that haven't, as far as they are known; some may stand in the table by now."""

    def rows(self) -> Rows:
        """The rows by now."""

    def stream(self) -> Iterator[pa.RecordBatch]:
        """Batches as they land."""


class Task:
    """A task that runs in the background; ``submit`` makes it, ``attach`` shows one of another process.

    As a context manager it is cancelled when the block is left before it has ended::

        with ray_qjm.submit(endless(), shots=100) as task:
            for batch in task.stream():
                ...

    Args:
        run: Drives it, or sees it.
        info: Facts that stand in the result's metadata.
        store: Where its rows are, if they outlive this process.
        circuits: The circuits, where the driver has them all.
        raise_failures: Whether circuits without counts are an error.
        complaint: Asked at the end for what went wrong with showing progress.
    """

    def __init__(
        self,
        run: Run,
        *,
        info: Mapping[str, str],
        store: str | None,
        circuits: Sequence[object] | None,
        raise_failures: bool,
        complaint: Callable[[], str | None],
    ) -> None:
        self._run = run
        self._info = info
        self._store = store
        self._circuits = circuits
        self._raise_failures = raise_failures
        self._complaint = complaint
        self._result: TaskResult | None = None

    @property
    def id(self) -> str:
        """What the task is called in job ids, names of Ray tasks and metadata."""
        return self._run.task_id

    @property
    def name(self) -> str | None:
        """What people call it."""
        return self._info.get("name")

    @property
    def tags(self) -> list[str]:
        """Further words of theirs."""
        tags: list[str] = json.loads(self._info.get("tags", "[]"))
        return tags

    @property
    def store(self) -> str | None:
        """The directory or URI of its store, ``None`` if its rows are in memory."""
        return self._store

    @property
    def elsewhere(self) -> bool:
        """Whether it is seen through its store only: another process runs it, or nobody does."""
        return isinstance(self._run, StoredTask)

    def relabel(self, *, name: str | None = None, tags: Sequence[str] | None = None) -> None:
        """Call it something else; in its store too, if it has one.

        Results that were taken before, and jobs at services, keep the words that they have.

        Args:
            name: ``None`` leaves it.
            tags: All of them from now on; ``None`` leaves them.

        Raises:
            InvalidInputError: They are no texts.
            StoreError: The store doesn't take them.
        """
        changed = labels(name, tags)
        if self._store is not None:
            write_labels(Objects(self._store, make=False), changed)
        self._info = {**self._info, **changed}
        self._result = None

    @property
    def jobs(self) -> pa.Table:
        """All jobs so far, as ``TaskResult.jobs`` has them: those that have ended, then those that haven't.

        These have no ``ended``, and no ``job_id`` until they are submitted; their states are ``"queued"`` (for a
        permit), ``"intended"``, ``"unknown"``, ``"submitted"``, ``"running"`` and ``"cancelling"``. Of a task that
        another process runs, chunks on workers are only counted: see ``status``.
        """
        # In this order: a job that ends meanwhile is in both.
        going_on = self._run.open_jobs()
        table = self._run.jobs()
        log = JobLog(table)
        names = pa.array([job.job_id for job in going_on if job.job_id is not None], pa.string())
        twice = table.filter(pc.field("job_id").isin(names)).select(["backend", "job_id"]).to_pylist()
        known = {(job["backend"], job["job_id"]) for job in twice}
        for job in going_on:
            if (job.backend, job.job_id) not in known:
                log.add(job)
        return log.table()

    @property
    def job_ids(self) -> list[str]:
        """Jobs that were submitted so far: of services by their names, else ``<task>-<start>-<stop>``."""
        return [job for job in self.jobs.column("job_id").to_pylist() if job is not None]

    def status(self) -> TaskStatus:
        """How many circuits and jobs are in which state; prints as a few lines."""
        status = self._run.status
        return status if status.name == self.name else replace(status, name=self.name)

    def report(self) -> str:
        """What was done and what failed so far, a line for each run of circuits with one reason."""
        status = self.status()
        ranges, unlisted = self._run.failures()
        total = status.total if status.total is not None else status.done + status.failed
        text = lines(ranges, status.done, total)
        if status.cancelled:
            text[-1] = f"{text[-1].rstrip('.')}, {status.cancelled} cancelled."
        if unlisted:
            text.insert(-1, f"... and {unlisted} more circuits, which the result lists.")
        if status.state == "running":
            text.append(
                f"{status.running} running, {'?' if status.waiting is None else status.waiting} waiting."
            )
        return "\n".join(text)

    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._run.done()

    def wait(self, timeout: float | None = None) -> TaskStatus:
        """Wait until it has ended, well or not.

        Args:
            timeout: Seconds; ``None`` waits for ever.

        Raises:
            WaitTimeoutError: It goes on; nothing was cancelled.
        """
        if not self._run.wait(timeout):
            raise WaitTimeoutError(f"after {timeout:g} s the task still runs.\n{self.status()}")
        return self.status()

    def cancel(self, *, force: bool = False, keep_jobs: bool = False) -> None:
        """Start nothing any more. Returns at once; ``wait`` tells when it is over.

        Chunks that are submitted may end within ``RunOptions.cancel_grace_s``; then their worker processes
        are killed. What is finished is kept: ``result(partial=True)``.

        Args:
            force: Kill worker processes at once.
            keep_jobs: Don't cancel what is at services: the same call with the same store goes on with those jobs.

        Raises:
            InvalidInputError: ``keep_jobs`` of a task without a store, whose jobs nobody could find again, or of one
                that runs in another process.
        """
        if keep_jobs and (self.store is None or self.elsewhere):
            raise InvalidInputError(
                "keep_jobs is for a task with a store, in the process that runs it: nobody else could find its jobs."
            )
        self._run.cancel(force=force, keep_jobs=keep_jobs)

    def stream(self) -> Iterator[pa.RecordBatch]:
        """Record batches of the result's schema as they land, in no order of circuits.

        Without a store batches are handed over and not kept, so that memory stays flat however long the task
        is; if the reader lags behind, no new chunks are started. With one they stay there: they can be
        streamed again, and ``result`` has them too. Leaving the loop early cancels the task, unless another
        process runs it (``attach``).

        Raises:
            ResultStreamedError: The parts were handed over already.
            SourceError: And the other reasons why a task ends early, after the last batch.
        """
        batches = self._run.stream()
        return self._stream(batches)

    def _stream(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except BaseException:  # the loop was left, or Ctrl-C
            self._run.leave()
            raise
        self._run.wait(None)
        if self._run.error is not None:
            raise self._run.error

    def result(self, partial: bool = False, timeout: float | None = None) -> TaskResult:
        """Wait for the end and return the counts.

        Args:
            partial: Return at once with what there is, whatever the state; circuits that aren't finished
                have the status ``"cancelled"``.
            timeout: Seconds to wait for the end; ``None`` waits for ever.

        Raises:
            WaitTimeoutError: It goes on.
            TaskCancelledError: It was cancelled; ``error.result`` holds what was finished.
            TaskFailedError: It was stopped (``max_failures``), or circuits failed and ``on_failure`` is
                ``"raise"``; ``error.result`` holds the rest.
            SourceError: Its circuits couldn't be had.
            BackendLoadError: A backend couldn't be had.
            ResultStreamedError: ``stream`` handed the parts over.

        Warns:
            PartialResultWarning: Some circuits have no counts.
        """
        if partial:
            return self._whole() if self.done() else self._make()
        self.wait(timeout)
        return self._outcome()

    def _outcome(self) -> TaskResult:
        complaint = self._complaint() or self._run.complaint
        if complaint is not None:
            warnings.warn(complaint, RuntimeWarning, stacklevel=3)
        error = self._run.error
        if isinstance(error, TaskFailedError) and error.result is None:
            error.result = self._whole()
        if error is not None:
            raise error
        status = self.status()
        result = self._whole()
        if status.state == "cancelled":
            raise TaskCancelledError(
                f"the task was cancelled: {status.done} of {len(result)} circuits are done; error.result has them.",
                result,
            )
        if status.state != "done":
            raise TaskFailedError(f"the task ended as {status.state!r}, without a reason.", result)
        if status.failed:
            message = _what_failed(result, status.failed)
            if self._raise_failures:
                raise TaskFailedError(message, result)
            warnings.warn(PartialResultWarning(message, result=result), stacklevel=3)
        return result

    def _whole(self) -> TaskResult:
        if self._result is not None:
            return self._result
        result = self._make()
        if self.status().state == "done":  # one that was interrupted may go on in another process
            self._result = result
        return result

    def _make(self) -> TaskResult:
        rows = self._run.rows()
        # Rows of a store know their jobs; asking here too would read every part.
        jobs = self._run.jobs() if isinstance(rows, HeldRows) else None
        return TaskResult(rows, jobs=jobs, info=self._info, circuits=self._circuits)

    def __enter__(self) -> Task:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.done():
            self._run.leave()

    def __repr__(self) -> str:
        """The status."""
        return f"<Task\n{self.status()}>"

    def _repr_html_(self) -> Any:
        return self.status()._repr_html_()


def stop(task: Task, *, keep_jobs: bool = False) -> None:
    """Cancel a task after Ctrl-C, and wait until it has ended; a second Ctrl-C doesn't wait for chunks that run."""
    task.cancel(keep_jobs=keep_jobs)
    try:
        task.wait()
    except KeyboardInterrupt:
        task.cancel(force=True)
        task.wait()


def _what_failed(result: TaskResult, failed: int) -> str:
    listed = result.failures.slice(0, 1).to_pylist()
    if not listed:  # a worker that was given up has written its rows after all
        return f"{failed} of {len(result)} circuits were given up, and have counts all the same."
    (first,) = listed
    reason = CircuitFailedError(
        first["circuit"], first["status"], first["error_type"] or "Error", first["error"] or "no reason given"
    )
    return (
        f"{failed} of {len(result)} circuits have no counts, or not all. The first: {str(reason).rstrip('.')}. "
        "See result.report() and result.failures."
    )
