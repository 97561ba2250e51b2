"""Entries written to journals, each journal in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ray_qjm.backends.codes import words

#: A journal's thread ends that has had nothing to write for so many seconds.
IDLE_S = 10.0
#: How long the end of what is being written is waited for.
_CLOSE_S = 30.0


class Journal(Protocol):
    """Where entries are made safe; see ``results.submissions``."""

    def write(self, entries: Sequence[Any]) -> None:
        """Return when they are; raises what keeps them from being."""


class Writer:
    """Writes entries to journals: to each in the order in which they came, and none waits for another.

    What comes while a journal's last batch is being written is written at once. A task's store that hangs holds up
    that task only.

    Args:
        tell: Runs a function in the thread of whoever made this.
    """

    def __init__(self, tell: Callable[[Callable[[], None]], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._lanes: dict[int, _Lane] = {}

    def put(
        self, entry: Any, journals: Sequence[Journal], then: Callable[[str | None], None] | None = None
    ) -> None:
        """Write an entry; ``then`` is told ``None`` when all journals have it, or why one can't."""
        job = _Job(entry, len(journals), then)
        with self._lock:
            for journal in journals:
                lane = self._lanes.get(id(journal))
                if lane is None:
                    lane = self._lanes[id(journal)] = _Lane(journal)
                    name = "ray_qjm journal"
                    threading.Thread(target=self._run, args=(lane,), name=name, daemon=True).start()
                lane.waiting.put(job)

    def close(self) -> None:
        """Write what waits, and end."""
        with self._lock:
            lanes = list(self._lanes.values())
            for lane in lanes:
                lane.waiting.put(None)
        for lane in lanes:
            lane.ended.wait(_CLOSE_S)

    def _run(self, lane: _Lane) -> None:
        goes_on = True
        while goes_on:
            batch: list[_Job] = []
            try:
                item = lane.waiting.get(timeout=IDLE_S)
                while item is not None:
                    batch.append(item)
                    item = lane.waiting.get_nowait()
                goes_on = False
            except queue.Empty:
                with self._lock:
                    goes_on = bool(batch) or not lane.waiting.empty()
                    if not goes_on:
                        del self._lanes[id(lane.journal)]
            if batch:
                self._write(lane.journal, batch)
        lane.ended.set()

    def _write(self, journal: Journal, batch: Sequence[_Job]) -> None:
        problem = None
        try:
            journal.write([job.entry for job in batch])  # it has tried more than once
        except Exception as error:
            problem = f"{type(error).__name__}: {words(error)}"
        for job in batch:
            with self._lock:
                job.left -= 1
                job.problem = job.problem or problem
                then = job.then if job.left == 0 else None
            if then is not None:
                self._tell(_bound(then, job.problem))


class _Lane:
    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self.ended = threading.Event()


class _Job:
    def __init__(self, entry: Any, left: int, then: Callable[[str | None], None] | None) -> None:
        self.entry = entry
        #: Journals that don't have it yet.
        self.left = left
        self.then = then
        self.problem: str | None = None


def _bound(function: Callable[[str | None], None], value: str | None) -> Callable[[], None]:
    return lambda: function(value)
