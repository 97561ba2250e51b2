"""Reads a source that only the driver can read, in a thread of its own: a chunk when one is wanted."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_qjm.circuits.fingerprint import check_marks
from ray_qjm.circuits.payload import encode
from ray_qjm.circuits.source import DriverSource
from ray_qjm.cluster.messages import Payload
from ray_qjm.cluster.stored_inputs import StoredInputs
from ray_qjm.errors import RayQjmError, SourceError, StoreMismatchError
from ray_qjm.planning.events import Chunk
from ray_qjm.planning.ranges import Ranges

#: Circuits that are read at once to be passed over.
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Reading:
    """What a source gave for a chunk.

    Attributes:
        circuits: How many; fewer than were asked for mean that it has ended.
        reference: Their payload in the object store; ``None`` if there were none.
        seconds: How long the source took.
        error: Why it can't be read any more.
    """

    circuits: int = 0
    reference: Any = None
    seconds: float = 0.0
    error: BaseException | None = None


Told = Callable[[Chunk, Reading], None]


class Feeder:
    """Takes from the source just what chunks ask for: there are never more circuits than chunks in flight.

    A thread of its own, because the user's generator may take its time, and the coordinator must not.

    Args:
        source: Where circuits come from.
        put: Puts a payload into the object store.
        told: Called from the feeder's thread for each chunk, in the order in which they were asked for.
        marks: Fingerprints of circuits that have their rows from an earlier session: uint64 by row, 0 where
            unknown. They are read again, compared, and passed over.
        inputs: Keeps what is read until it has its rows; ``None``: nobody does.
        kept: Circuits that have their rows: the source must not end before them.
    """

    def __init__(
        self,
        source: DriverSource,
        put: Callable[[Payload], Any],
        told: Told,
        marks: NDArray[np.uint64] | None = None,
        inputs: StoredInputs | None = None,
        kept: Ranges | None = None,
    ) -> None:
        self._source = source
        self._marks = np.empty(0, np.uint64) if marks is None else marks
        self._inputs = inputs
        self._kept = Ranges() if kept is None else kept
        self._at = 0
        self._put = put
        self._told = told
        self._stopped = False
        self._putting = threading.Lock()
        self._asked: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        # A generator that never answers must not keep the process alive.
        threading.Thread(target=self._run, name="ray_qjm feeder", daemon=True).start()

    def ask(self, chunk: Chunk) -> None:
        """Read the circuits of a chunk; chunks come in their order."""
        self._asked.put(chunk)

    def stop(self) -> None:
        """Read nothing any more, not even what was asked for; Ray isn't touched once this has returned.

        Ray ends the whole process when a thread uses it while another shuts it down.
        """
        with self._putting:
            self._stopped = True
        self._asked.put(None)

    def _run(self) -> None:
        while (chunk := self._asked.get()) is not None and not self._stopped:
            try:
                reading = self._read(chunk)
            # A generator may raise SystemExit or a CancelledError: nobody would answer for its chunk.
            except BaseException as error:
                why = f"{self._source.kind} can't be read on ({type(error).__name__}: {error})."
                reading = Reading(error=error if isinstance(error, RayQjmError) else SourceError(why))
            self._told(chunk, reading)
            del reading

    def _read(self, chunk: Chunk) -> Reading:
        self._pass_over(chunk.start)
        begun = time.perf_counter()
        items = self._source.read(len(chunk))
        self._at += len(items)
        seconds = time.perf_counter() - begun
        if self._inputs is not None:
            items = self._inputs.exchange(chunk.start, chunk.stop, items)
        if len(items) < len(chunk):
            self._check_end(chunk.start + len(items))
        if not items:
            return Reading()
        columns = self._source.columns(chunk.start, chunk.start + len(items))
        payload = Payload(chunk.start, encode(items), columns)
        with self._putting:
            reference = None if self._stopped else self._put(payload)
        return Reading(len(items), reference, seconds)

    def _pass_over(self, start: int) -> None:
        """Read up to a circuit, and make sure that what has rows is what it was."""
        while self._at < start and not self._stopped:
            items = self._source.read(min(_BLOCK, start - self._at))
            if not items:
                self._check_end(self._at)
                return
            check_marks(self._marks, self._at, items, self._source.kind)
            self._at += len(items)

    def _check_end(self, total: int) -> None:
        """Make sure that no circuit behind the end of the source has its row already."""
        start, stop = self._kept.gap(total)
        if start > total or stop is not None:
            beyond = total if start > total else stop
            raise StoreMismatchError(
                "circuits",
                f"{beyond} and more",
                total,
                f"{self._source.kind} ended after {total} circuits, and the store has the row of circuit {beyond}. "
                "Give the circuits that it was begun with, or another store.",
            )
