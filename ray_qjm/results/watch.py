"""A task of a store, seen from anywhere: it may run in another process, have ended, or have been interrupted."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property, lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ray_qjm.errors import InvalidInputError, StoreError, TaskFailedError
from ray_qjm.planning.ranges import Ranges
from ray_qjm.planning.status import BackendStatus, TaskStatus
from ray_qjm.results.counts import blank, with_jobs
from ray_qjm.results.jobs import Job
from ray_qjm.results.labels import read_labels
from ray_qjm.results.lease import LEASE_S, beat_name, cancel_name, is_dead
from ray_qjm.results.objects import Objects
from ray_qjm.results.part_files import Head
from ray_qjm.results.records import TaskRecord, read_beat
from ray_qjm.results.report import FailureRange, clipped, merge
from ray_qjm.results.store import SHOTS, Look, heads_of, jobs_of, look
from ray_qjm.results.stored_rows import StoredRows, in_pieces
from ray_qjm.results.submissions import SUBMISSIONS, job_of, submissions, unfinished
from ray_qjm.results.winners import PartName, Taken

#: How often a store is looked at for news.
LOOK_S = 1.0


class StoredTask:
    """What a store says of its task, read anew at each question.

    Args:
        store: Directory or URI.

    Raises:
        InvalidInputError: There is no task.
        StoreError: It can't be read.
    """

    def __init__(self, store: str | os.PathLike[str]) -> None:
        self.objects = Objects(store, make=False)
        task = look(self.objects).task
        if task is None:
            raise InvalidInputError(f"store {self.objects.place} holds no task.")
        self.task: TaskRecord = task
        self.task_id = task.task_id
        #: Of showing progress: nothing is shown here.
        self.complaint: str | None = None
        self._heads: dict[PartName, Head] = {}
        # The last sign of life, and when it was first seen, by this machine's clock that never jumps.
        self._beat = ((0, -1), time.monotonic())

    @property
    def info(self) -> dict[str, str]:
        """Facts that stand in the result's metadata."""
        record = look(self.objects).record
        backends = json.dumps([] if record is None else list(record.backends))
        facts = {"task_id": self.task_id, "seed": str(self.task.seed), "backends": backends}
        return {**self.task.info, **read_labels(self.objects), **facts}

    @property
    def status(self) -> TaskStatus:
        """Where the task stands; some seconds old if it runs elsewhere."""
        seen = look(self.objects)
        if seen.end is not None:
            return (
                TaskStatus.of_plain(seen.end.status)
                if seen.end.status
                else self._counted(seen, seen.end.state)
            )
        told = self._told(seen)
        if told is None:
            return self._counted(seen, "interrupted")
        return TaskStatus.of_plain(told) if told else self._counted(seen, "running")

    @property
    def error(self) -> BaseException | None:
        """Why it ended without having run everything, if so."""
        seen = look(self.objects)
        if seen.end is not None and seen.end.state == "failed":
            return TaskFailedError(seen.end.error or "the task failed, for a reason that wasn't recorded.")
        if self.status.state == "interrupted":
            return TaskFailedError(
                f"the task of store {self.objects.place} was interrupted: the process that ran it is gone. Run the "
                "same call with the same store to go on with it; result(partial=True) gives what there is."
            )
        return None

    def done(self) -> bool:
        """Whether nobody runs it any more."""
        return self.status.state not in ("running", "cancelling")

    def wait(self, timeout: float | None) -> bool:
        """Wait until nobody runs it any more, for at most so many seconds; return whether that is so."""
        until = None if timeout is None else time.monotonic() + timeout
        pause = threading.Event()
        while not self.done():
            left = LOOK_S if until is None else min(LOOK_S, until - time.monotonic())
            if left <= 0:
                return False
            pause.wait(left)
        return True

    def cancel(self, *, force: bool = False, keep_jobs: bool = False) -> None:
        """Ask the process that runs it to cancel it; it hears that within seconds.

        Raises:
            StoreError: No process runs it.
        """
        if self.done():
            raise StoreError(
                f"no process runs the task of store {self.objects.place} (it is {self.status.state}): there is nothing "
                "to cancel."
            )
        seen = look(self.objects)
        if seen.record is not None:
            self.objects.create(cancel_name(seen.record.epoch), b"{}\n")

    def leave(self) -> None:
        """Whoever watches may go: the task goes on."""

    def jobs(self) -> pa.Table:
        """The table of jobs."""
        return jobs_of(self.objects, look(self.objects)).table()

    def open_jobs(self) -> list[Job]:
        """Jobs that services have, as their desks wrote it down, and such as have ended since the last part came.

        Chunks on workers aren't written down: they end within seconds. The status tells their number.
        """
        if look(self.objects).end is not None:
            return unfinished(self.objects)  # the table has all others
        entries = submissions(self.objects, SUBMISSIONS).values()
        return [job_of(entry) for entry in entries if entry.get("job_id") is not None]

    def failures(self) -> tuple[list[FailureRange], int]:
        """Ranges of failed circuits, and how many circuits failed beyond those: none."""
        return self._failures(look(self.objects)), 0

    def rows(self) -> StoredRows:
        """The rows that are there by now, and cancelled ones in the gaps."""
        seen = look(self.objects)
        return self._rows(seen, seen.taken)

    def stream(self) -> Iterator[pa.RecordBatch]:
        """Batches of rows: those that are there, and further ones as they land, until nobody runs it any more."""
        covered = Ranges()
        pause = threading.Event()
        while True:
            ended = self.done()
            seen = look(self.objects)
            rows = self._rows(seen, seen.taken)
            for start, stop, part in seen.taken:
                held = Ranges() if ended else self._may_be_replaced(seen, part)
                for a, b in covered.rest(start, stop):
                    for c, d in held.rest(a, b):
                        yield from (found.batch for found in rows.parts_of(Taken(c, d, part)))
                        covered.add(c, d)
            if ended:
                for start, stop in covered.rest(0, rows.count):
                    yield from (self._blank(a, b) for a, b in in_pieces(start, stop))
                return
            pause.wait(LOOK_S)

    def _may_be_replaced(self, seen: Look, part: PartName) -> Ranges:
        """Circuits that failed in an earlier epoch: this one may be running them again."""
        if seen.record is None or part.epoch == seen.record.epoch:
            return Ranges()
        head = self._head(part)
        return Ranges() if head is None else Ranges((item.start, item.stop) for item in head.failures)

    def _head(self, part: PartName) -> Head | None:
        if part not in self._heads:
            self._heads.update(heads_of(self.objects, [part]))
        return self._heads.get(part)

    def _told(self, seen: Look) -> Mapping[str, object] | None:
        """What the owner's last sign of life says; ``None`` if it is gone."""
        if seen.record is None or is_dead(seen.record.owner):
            return None
        beat = read_beat(self.objects.read(beat_name(seen.record.epoch)))
        newest = (seen.record.epoch, 0 if beat is None else beat.number)
        if newest != self._beat[0]:
            self._beat = (newest, time.monotonic())
        elif time.monotonic() - self._beat[1] > LEASE_S:
            return None
        return {} if beat is None else beat.status

    def _counted(self, seen: Look, state: str) -> TaskStatus:
        """A status made from what is stored."""
        stored = sum(stop - start for start, stop, _ in seen.taken)
        failed = sum(item.stop - item.start for item in self._failures(seen) if item.status == "failed")
        names = [] if seen.record is None else list(seen.record.backends)
        jobs = {job.job_id: job for head in self._heads.values() for job in head.jobs}
        names += sorted({job.backend for job in jobs.values()} - set(names))
        beat = None if seen.record is None else read_beat(self.objects.read(beat_name(seen.record.epoch)))
        return TaskStatus.of_plain(
            {
                "task_id": self.task_id,
                "name": self.task.info.get("name"),
                "state": state,
                "total": seen.total,
                "done": stored - failed,
                "failed": failed,
                "cancelled": 0,
                "elapsed_s": 0.0 if beat is None else beat.status.get("elapsed_s", 0.0),
                "rate": None,
                "backends": [asdict(_backend(name, jobs.values())) for name in names],
            }
        )

    def _failures(self, seen: Look) -> list[FailureRange]:
        taken = seen.taken
        self._heads.update(
            heads_of(self.objects, [item.part for item in taken if item.part not in self._heads])
        )
        found = []
        for start, stop, part in taken:
            head = self._heads.get(part)
            found += [] if head is None else clipped(head.failures, start, stop)
        return merge(found)

    def _rows(self, seen: Look, taken: list[Taken]) -> StoredRows:
        count = max((item.stop for item in taken), default=0) if seen.total is None else seen.total
        jobs = lru_cache(maxsize=1)(lambda: jobs_of(self.objects, seen))
        return StoredRows(self.objects, taken, count, blank=self._blank, jobs=jobs)

    def _blank(self, start: int, stop: int) -> pa.RecordBatch:
        shots = self._shots
        rows = blank(
            start,
            stop,
            status="cancelled",
            error_type="TaskCancelledError",
            error="it has not been run",
            shots_requested=shots if isinstance(shots, int) else shots[start:stop],
            memory=bool(self.task.identity["memory"]),
            extra_types=self.task.column_types,
        )
        return with_jobs(rows, [])

    @cached_property
    def _shots(self) -> int | NDArray[np.int64]:
        shots = self.task.identity["shots"]
        if isinstance(shots, int):
            return shots
        try:
            array: NDArray[np.int64] = np.load(
                io.BytesIO(self.objects.read(SHOTS) or b""), allow_pickle=False
            )
        except (ValueError, EOFError, OSError):  # not written yet, or torn: of circuits that weren't run
            return 0
        return array


def _backend(name: str, jobs: Iterable[Job]) -> BackendStatus:
    """What a backend has done, as far as jobs tell; which circuits failed they don't."""
    done = [job for job in jobs if job.backend == name]
    return BackendStatus(name, sum(job.circuits for job in done), 0, 0, 0, len(done), 0)
