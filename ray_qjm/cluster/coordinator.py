"""The loop that drives a task: events in from Ray, actions out of the schedule, carried out here."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

import pyarrow as pa

from ray_qjm.circuits.source import DriverSource
from ray_qjm.cluster.chunk_jobs import ChunkJobs
from ray_qjm.cluster.collector import Collector
from ray_qjm.cluster.deaths import dooms_all, reason_for
from ray_qjm.cluster.exit import end_with_the_process
from ray_qjm.cluster.feeder import Reading
from ray_qjm.cluster.held import HeldPayloads
from ray_qjm.cluster.launcher import Launchers
from ray_qjm.cluster.line_jobs import Spell
from ray_qjm.cluster.measuring import TaskMeasures
from ray_qjm.cluster.messages import Outcome, TaskSetup, waiting
from ray_qjm.cluster.resume import Resumed
from ray_qjm.cluster.slot_watch import SlotWatch
from ray_qjm.cluster.supply import Supply
from ray_qjm.cluster.task_rows import TaskRows
from ray_qjm.errors import RayQjmError, SourceError, TaskFailedError
from ray_qjm.options import RunOptions
from ray_qjm.planning.events import (
    Cancel,
    Chunk,
    Crashed,
    Drained,
    Dropped,
    Event,
    Finish,
    Gate,
    Paced,
    Shortened,
    Slots,
    Start,
    Stop,
    Stored,
    WriteFailed,
)
from ray_qjm.planning.schedule import Schedule
from ray_qjm.planning.status import Pace, TaskState, TaskStatus, snapshot
from ray_qjm.results.jobs import Job
from ray_qjm.results.parts import HEARD_S
from ray_qjm.results.report import FailureRange
from ray_qjm.results.rows import Rows

#: How often the status is told anew, and measured: where jobs stand at a service moves without an event.
LOOK_AROUND_S = 5.0
#: How often chunks are killed until none is left: Ray 2.60 loses a kill in a hundred of those that are just starting.
FORCE_EVERY_S = 1.0


class Coordinator:
    """Drives one task, in a thread of its own.

    Args:
        task_id: The task's id; leads its job ids.
        name: What the user called it.
        schedule: Decides.
        launcher: Runs chunks.
        setup: What workers have too: names, shots, columns.
        feed: The source, where only the driver can read it.
        options: Of the task.
        collector: Where rows go.
        held: Circuits that were read from ``feed`` and have no row yet.
        resumed: What an earlier session of the task has left.
        observe: Called with the status after each event, from the coordinator's thread.
    """

    def __init__(
        self,
        *,
        task_id: str,
        name: str | None,
        schedule: Schedule,
        launcher: Launchers,
        setup: TaskSetup,
        feed: DriverSource | None,
        options: RunOptions,
        collector: Collector,
        held: HeldPayloads,
        resumed: Resumed | None = None,
        observe: Callable[[TaskStatus], None] | None,
    ) -> None:
        self.task_id = task_id
        self.name = name
        self.ended = threading.Event()
        #: Why the task ended without having run everything, if so.
        self.error: BaseException | None = None
        #: What went wrong with showing progress, if anything did.
        self.complaint: str | None = None
        self._schedule = schedule
        self._launcher = launcher
        self._names = [backend for backend, _, _ in setup.backends]
        self._options = options
        self._observe = observe
        self._collector = collector
        self._supply = Supply(feed, held, put=launcher.put, told=self._told, resumed=resumed)
        self._rows = TaskRows(collector, resumed)
        self._jobs = ChunkJobs(task_id, self._names, collector, launcher.is_service)
        self._drained: set[int] = set()
        self._kept_jobs = False
        self._state: TaskState = "running"
        self._slots: Sequence[int] = []
        self._slot_watch = SlotWatch(launcher.slots, lambda slots: self._calls.put(lambda: self._have(slots)))
        self._pace = Pace()
        self._begun = time.monotonic()
        self._force_at = math.inf
        self._late_at = math.inf if options.timeout_s is None else self._begun + options.timeout_s
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._status = self._snapshot()
        self._measures = TaskMeasures(task_id, name)
        self._thread = threading.Thread(target=self._run, name=f"ray_qjm {task_id}", daemon=True)

    def start(self) -> None:
        """Begin."""
        end_with_the_process(self)
        self._collector.watch(lambda: self.status, self._lose, self.cancel)
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait until its thread is gone, with all that it held, for at most so many seconds."""
        self._thread.join(timeout)

    def cancel(self, *, force: bool = False, keep_jobs: bool = False) -> None:
        """Start nothing any more; returns at once, ``ended`` tells when it is over.

        Args:
            force: Kill the worker processes that run chunks, without grace.
            keep_jobs: Leave jobs at services to whoever takes the task's store next.
        """
        self._calls.put(lambda: self._cancel(force=force, keep_jobs=keep_jobs))

    def hear(self, news: Event | Job | Spell | None) -> None:
        """Something that a service's line has to tell, ``None`` if only its jobs have moved; from any thread."""
        self._calls.put(lambda: self._heard(news))

    def gate(self, open_: bool) -> None:
        """Hold back new chunks while the reader of the stream lags behind."""
        self._calls.put(lambda: self._apply(Gate(open_)))

    @property
    def status(self) -> TaskStatus:
        """Where the task stands."""
        status = self._status
        return status if self.ended.is_set() else replace(status, elapsed_s=time.monotonic() - self._begun)

    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self.ended.is_set()

    def wait(self, timeout: float | None) -> bool:
        """Wait for the end, for at most so many seconds; return whether it has come."""
        until = math.inf if timeout is None else time.monotonic() + timeout
        while not self.ended.wait(max(0.0, min(HEARD_S, until - time.monotonic()))):
            if time.monotonic() >= until:
                return False
        return True

    def leave(self) -> None:
        """Nobody wants the rest."""
        self.cancel()

    def jobs(self) -> pa.Table:
        """The table of jobs that have ended so far."""
        return self._collector.jobs.table()

    def open_jobs(self) -> list[Job]:
        """Jobs that haven't ended, or whose end the table may not have yet; of a task that has, those it left."""
        if self.ended.is_set():
            return self._collector.left() if self._kept_jobs else []
        return self._jobs.running() + self._launcher.open_jobs()

    def failures(self) -> tuple[list[FailureRange], int]:
        """Ranges of failed circuits so far, and how many circuits failed beyond those that are listed."""
        return self._rows.failures()

    def rows(self) -> Rows:
        """The rows that are there by now, and cancelled ones in the gaps."""
        if not self.ended.is_set():
            return self._collector.rows(
                self._schedule.total, "it was not finished when this result was taken"
            )
        return self._collector.rows(self._total, self._why)

    def stream(self) -> Iterator[pa.RecordBatch]:
        """Batches of rows as they land."""
        return self._collector.stream()

    # The thread.

    def _run(self) -> None:
        try:
            self._loop()
        # SystemExit too: a thread that ended without a word would leave its task looking whole.
        except BaseException as error:
            self.error = error if isinstance(error, RayQjmError) else _broken(error)
            self._state = "failed"
            with suppress(Exception):
                self._launcher.cancel()
        finally:
            try:
                self._slot_watch.stop()
                self._supply.stop()
                self._fill_up()
            except BaseException as error:
                self.error = self.error or _broken(error)
                self._state = "failed"
            try:
                self._collector.finish(self._snapshot(), self.error)
            except BaseException as error:
                self.error = self.error or (error if isinstance(error, RayQjmError) else _broken(error))
                self._state = "failed"
            with suppress(Exception):  # whoever waits for the end must not wait for ever
                self._launcher.close()
            self._supply.clear()
            self._collector.close()
            self._tell()  # before anyone who waits goes on: the bar's last state is the true one
            self._measure()
            self._measures.close()
            self.ended.set()

    def _loop(self) -> None:
        self._have(self._launcher.slots())
        self._slot_watch.begin()
        self._tell()
        self._measure()
        look_at = time.monotonic() + LOOK_AROUND_S
        while not self._schedule.finished or self._rest_unread():
            now = time.monotonic()
            if now >= look_at:
                self._tell()
                self._measure()
                look_at = now + LOOK_AROUND_S
            if now >= self._force_at:
                self._launcher.cancel()
                self._force_at = now + FORCE_EVERY_S
            if now >= self._late_at:
                self._late_at = math.inf
                self._end(
                    TaskFailedError(f"the task was not done after {self._options.timeout_s:g} s (timeout_s).")
                )
            try:
                wake_at = min(look_at, self._force_at, self._late_at)
                call = self._calls.get(timeout=max(0.0, wake_at - now))
            except queue.Empty:
                continue
            call()
            self._tell()
        if self._state == "running":
            self._state = "done"
        elif self._state == "cancelling":
            self._state = "cancelled" if self.error is None else "failed"

    def _rest_unread(self) -> bool:
        """Whether circuits behind the last that ran have still to be compared with those of earlier sessions."""
        if self._state == "running":
            self._supply.compare_rest(self._total)
        return self._supply.rest_unread()

    def _have(self, slots: Sequence[int] | RayQjmError) -> None:
        """What the cluster has now, or why it is no more."""
        if isinstance(slots, RayQjmError):
            raise slots
        if slots != self._slots:
            self._slots = slots
            self._apply(*(Slots(backend, number) for backend, number in enumerate(slots)))

    def _apply(self, *events: Event) -> None:
        for action in self._schedule.handle(*events):
            match action:
                case Start():
                    self._drained.discard(action.chunk.backend)
                    if not self._supply.ask(action.chunk):
                        self._submit(action.chunk)
                case Drained():
                    self._drained.add(action.backend)
                case WriteFailed():
                    self._write_failed(action)
                case Stop():
                    self._cancel()
                    self.error = TaskFailedError(
                        f"the task was stopped: {action.reason} Mend the cause, or raise RunOptions(max_failures=...)."
                    )
                case Finish():
                    pass  # the loop sees it
        # Circuits that are being read are still to come.
        for backend in self._drained - self._supply.reads_for():
            self._drained.remove(backend)
            self._launcher.drained(backend)

    def _submit(self, chunk: Chunk) -> None:
        self._jobs.begin(chunk)
        self._launcher.start(
            chunk,
            self._supply.payload(chunk),
            lambda result: self._calls.put(lambda: self._done(chunk, result)),
        )

    def _heard(self, news: Event | Job | Spell | None) -> None:
        if isinstance(news, Job):
            self._collector.jobs.add(news)
        elif isinstance(news, Spell):
            self._measures.took(self._names[news.backend], news.stages)
            self._measures.packed(self._names[news.backend], news.size)
        elif isinstance(news, Paced):
            self._apply(Paced(news.chunk, self._supply.taken_s(news.chunk, news.seconds)))
        elif news is not None:
            self._apply(news)

    def _told(self, chunk: Chunk, reading: Reading) -> None:
        self._calls.put(lambda: self._read(chunk, reading))

    def _read(self, chunk: Chunk, reading: Reading) -> None:
        if not self._supply.awaits(chunk):
            return  # dropped when the task was cancelled
        got = self._supply.take(chunk, reading)
        if reading.error is not None:
            self._end(reading.error)
            if len(chunk) > 0:  # else it is the rest, which the schedule hasn't started
                self._apply(Dropped(chunk))
            return
        if len(got) < len(chunk):
            self._apply(Shortened(chunk, got.stop))
        if len(got) > 0:
            self._submit(got)
            self._apply()

    def _done(self, chunk: Chunk, result: Outcome | BaseException) -> None:
        if dooms_all(result):
            self._jobs.end(chunk, "failed", str(result), None)
            self._end(SourceError(f"workers can't be started: {result}"))
            self._apply(Dropped(chunk))
        elif isinstance(result, BaseException):
            reason = reason_for(result)
            found = self._collector.found(chunk)
            if found is not None:
                self._store(chunk, found)
            elif self._schedule.cancelling:
                self._jobs.end(chunk, "cancelled", None, None)
                self._apply(Dropped(chunk))
            else:
                self._jobs.end(chunk, "failed", ": ".join(reason), None)
                self._apply(Crashed(chunk, *reason))
        elif result.fatal is not None:
            self._jobs.end(chunk, "failed", str(result.fatal), result)
            self._end(result.fatal)
            self._apply(Dropped(chunk))
        else:
            self._store(chunk, result)

    def _store(self, chunk: Chunk, outcome: Outcome) -> None:
        job = self._jobs.end(chunk, "done", waiting(outcome.deferred), outcome)
        rows = self._rows.take(chunk, outcome, job)
        self._measures.landed(self._names[chunk.backend], outcome)
        seconds = self._supply.taken_s(chunk, outcome.seconds)
        self._supply.release(chunk, rows)
        self._apply(
            Stored(chunk, seconds, outcome.done, outcome.failures, outcome.deferred, outcome.returned)
        )
        self._pace.add(time.monotonic() - self._begun, self._schedule.done + self._schedule.failed)

    def _write_failed(self, action: WriteFailed) -> None:
        failure = action.failure
        self._launcher.withdraw(action.backend, failure.start, failure.stop)
        self._rows.fail(failure, self._names[action.backend])
        self._supply.release(Chunk(failure.start, failure.stop), failure.stop - failure.start)

    def _lose(self, error: BaseException) -> None:
        """The store is no longer this process's: what it would do from now on wouldn't count."""
        self._calls.put(lambda: self._end(error, force=True, keep_jobs=True))

    def _end(self, error: BaseException, *, force: bool = False, keep_jobs: bool = False) -> None:
        if self._state == "running":
            self._cancel(force=force, keep_jobs=keep_jobs)
            self.error = error

    def _cancel(self, *, force: bool = False, keep_jobs: bool = False) -> None:
        """Start nothing any more; what was submitted may end within the grace.

        Ray's soft cancel is never used: it waits for the worker's interpreter lock, which Aer holds while it
        simulates, and then no forced one is heard either.
        """
        if self._state == "running":
            self._state = "cancelling"
            self._supply.stop()
            self._apply(Cancel())
            self._kept_jobs = keep_jobs
            if keep_jobs:
                self._launcher.leave()
            else:
                self._launcher.stop()
            for chunk in self._supply.drop():
                self._apply(Dropped(chunk))
            self._force_at = time.monotonic() + self._options.cancel_grace_s
        if force:
            self._launcher.abandon()
            self._force_at = time.monotonic()

    # The end.

    @property
    def _total(self) -> int:
        """Circuits of the task, as far as they are known."""
        return self._schedule.next_index if self._schedule.total is None else self._schedule.total

    @property
    def _why(self) -> str:
        """Why circuits were not run, if any were not."""
        if self._kept_jobs and self.error is None:
            return "the task was stopped before its counts came; a job that has it was left at its service"
        what = "the task ended" if self.error else "the task was cancelled"
        return f"{what} before it was run"

    def _fill_up(self) -> None:
        """Give a row to every circuit that has none, and to those that the source has promised and not given."""
        done, failed = self._rows.fill_up(self._total, self._why)
        self._schedule.done += done
        self._schedule.failed += failed
        lacking = self._supply.lacking(self._total) if self._state == "done" else None
        if lacking is not None:
            self._schedule.failed += lacking.stop - lacking.start
            self._schedule.total = lacking.stop
            self._rows.fail(lacking)

    # What others see.

    def _snapshot(self) -> TaskStatus:
        return snapshot(
            self._schedule,
            self._names,
            task_id=self.task_id,
            name=self.name,
            state=self._state,
            cancelled=self._rows.cancelled,
            elapsed_s=time.monotonic() - self._begun,
            rate=self._pace.rate,
            services=self._launcher.stand(),
        )

    def _measure(self) -> None:
        with suppress(Exception):  # what is left is asked of a line that may be ending
            self._measures.see(self._status, self._launcher.left())

    def _tell(self) -> None:
        self._status = self._snapshot()
        if self._observe is None:
            return
        try:
            self._observe(self._status)
        except BaseException as error:  # whoever watches must not end the task
            self._observe = None
            self.complaint = f"progress raised {type(error).__name__}: {error}; it was not called again."


def _broken(error: BaseException) -> TaskFailedError:
    failed = TaskFailedError(f"the task's coordinator broke: {type(error).__name__}: {error}")
    failed.__cause__ = error
    return failed
