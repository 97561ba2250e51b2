"""The rows of a task that runs with a store: the counterpart of ``MemoryParts``."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pyarrow as pa

from ray_qjm.errors import InvalidTransitionError
from ray_qjm.planning.ranges import Ranges
from ray_qjm.results.part_files import Head, TornPartError, encode, verify
from ray_qjm.results.parts import HEARD_S
from ray_qjm.results.report import FailureRange
from ray_qjm.results.store import Opened
from ray_qjm.results.stored_rows import Blank, StoredRows, in_pieces
from ray_qjm.results.winners import PartName, Taken, winners


class StoredParts:
    """Notes which parts of a task are in its store; the rows themselves stay there.

    One thread adds; any thread may read.

    Args:
        opened: The store, taken by this process.
        kept: Circuits of the accepted parts that won't be run again.
    """

    def __init__(self, opened: Opened, kept: Ranges) -> None:
        self._opened = opened
        self._objects = opened.objects
        self._epoch = opened.record.epoch
        self._changed = threading.Condition()
        self._parts: list[PartName] = []
        #: Circuits that have their rows and won't be run again.
        self.covered = Ranges(kept)
        self._kept = [
            Taken(max(start, a), min(stop, b), part)
            for start, stop, part in opened.record.accepted
            for a, b in kept.within(start, stop)
        ]
        self._last: list[tuple[int, int, Blank]] = []
        self._closed = False

    @property
    def taken(self) -> list[Taken]:
        """The rows that count by now, those of earlier epochs included."""
        with self._changed:
            return winners(self._parts, self._opened.record.accepted)

    def landed(self, start: int, stop: int) -> None:
        """A worker has written the rows ``[start, stop)``."""
        with self._changed:
            if self._closed:
                raise InvalidTransitionError(f"the part of circuit {start} came after the last one.")
            self._parts.append(PartName(self._epoch, start, stop))
            self.covered.add(start, stop)
            self._changed.notify_all()

    def write(self, batch: pa.RecordBatch, failures: Sequence[FailureRange]) -> None:
        """Write rows that no worker will.

        Raises:
            StoreUnavailableError: The store doesn't take them.
        """
        start = batch.column("circuit")[0].as_py()
        name = PartName(self._epoch, start, start + batch.num_rows)
        self._objects.create(name.path, encode(batch, failures=failures))
        self.landed(name.start, name.stop)

    def find(self, start: int, stop: int) -> Head | None:
        """What a worker has written of just these circuits, if it has, whether it lived to tell or not."""
        data = self._objects.read(PartName(self._epoch, start, stop).path)
        try:
            return None if data is None else verify(data)[0]
        except TornPartError:
            return None

    def last(self, start: int, stop: int, blank: Blank) -> None:
        """Circuits whose rows aren't stored, for the end of a stream; ``blank`` makes them, when they're wanted."""
        self._last.append((start, stop, blank))

    def close(self) -> None:
        """No more parts will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def missing(self, total: int) -> list[tuple[int, int]]:
        """The ranges of ``[0, total)`` that still have to be run."""
        with self._changed:
            return self.covered.rest(0, total)

    def stream(self, rows: StoredRows) -> Iterator[pa.RecordBatch]:
        """The rows of earlier sessions, then those of each part as it lands, until ``close``.

        Args:
            rows: Reads them.
        """
        yield from self._batches(rows, self._kept)
        seen = 0
        while True:
            with self._changed:
                while len(self._parts) == seen and not self._closed:
                    self._changed.wait(HEARD_S)
                new = self._parts[seen:]
            if not new:
                for start, stop, blank in self._last:
                    yield from (blank(a, b) for a, b in in_pieces(start, stop))
                return
            seen += len(new)
            yield from self._batches(rows, [Taken(part.start, part.stop, part) for part in new])

    @staticmethod
    def _batches(rows: StoredRows, taken: Sequence[Taken]) -> Iterator[pa.RecordBatch]:
        for item in taken:
            yield from (part.batch for part in rows.parts_of(item))
