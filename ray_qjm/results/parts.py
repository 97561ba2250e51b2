"""The rows of a task in memory, between the thread that collects them and the one that reads them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator

import pyarrow as pa

from ray_qjm.errors import InvalidTransitionError, ResultStreamedError
from ray_qjm.planning.ranges import Ranges
from ray_qjm.results.joining import MANY, first_circuit, is_small, joined

#: Whoever waits looks up so often: a signal that the system gives to a library's thread wakes no other, and Python
#: calls its handler in the main thread alone.
HEARD_S = 0.5


class MemoryParts:
    """Keeps record batches until the end, or hands each over once to a stream.

    One thread adds; any thread may read. While a stream lags behind, the gate is closed, which asks
    the producer for no new work; what is under way still lands. Without a stream it never closes.

    Args:
        limit: Batches that may wait for the reader of the stream before the gate closes; it opens again
            at half of them.
        on_gate: Called with False when the gate closes and with True when it opens, from the thread that
            brought it about or from one that is just telling an earlier change; one call at a time, the
            last of them the true state, and never while a lock is held.
    """

    def __init__(self, *, limit: int, on_gate: Callable[[bool], None]) -> None:
        self._limit = limit
        self._on_gate = on_gate
        self._changed = threading.Condition()
        self._batches: deque[pa.RecordBatch] = deque()
        self._small = 0
        self._join_at = MANY
        self._covered = Ranges()
        self._closed = False
        self._streamed = False
        self._left = False
        # The gate as it should be, as it was told, and whether a thread is telling it.
        self._open = self._told = True
        self._telling = False

    def add(self, batch: pa.RecordBatch) -> None:
        """Take a batch of contiguous circuits.

        Raises:
            InvalidTransitionError: After ``close``.
        """
        if not batch.num_rows:
            return
        start = first_circuit(batch)
        with self._changed:
            if self._closed:
                raise InvalidTransitionError(f"the part of circuit {start} came after the last one.")
            self._covered.add(start, start + batch.num_rows)
            if not self._left:
                self._batches.append(batch)
                self._join_small(batch)
            self._changed.notify_all()
            self._set_gate()
        self._tell()

    def close(self) -> None:
        """No more batches will come; the stream ends when it has handed over the last one."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def batches(self) -> list[pa.RecordBatch]:
        """What has landed so far; small batches of neighbours are joined.

        Raises:
            ResultStreamedError: A stream has begun.
        """
        with self._changed:
            self._check_kept()
            if self._small > 1:
                self._join()
            return list(self._batches)

    def stream(self) -> Iterator[pa.RecordBatch]:
        """Hand over what has landed, and then each batch as it lands, until ``close``.

        Streaming begins with the call. A reader that leaves early (closes or drops the iterator) holds
        nothing up: what lands from then on can't be had by anyone and is dropped, still counted by
        ``missing``.

        Raises:
            ResultStreamedError: A stream has begun before.
        """
        with self._changed:
            self._check_kept()
            self._streamed = True
            self._set_gate()
        stream = _Stream(self)
        self._tell()
        return stream

    def missing(self, total: int) -> list[tuple[int, int]]:
        """The ranges ``[start, stop)`` of ``[0, total)`` of which no row was added, handed over or not."""
        with self._changed:
            return self._covered.rest(0, total)

    def _join_small(self, batch: pa.RecordBatch) -> None:
        if self._streamed or not is_small(batch):
            return
        self._small += 1
        if self._small >= self._join_at:
            self._join()

    def _join(self) -> None:
        small: list[pa.RecordBatch] = []
        large: list[pa.RecordBatch] = []
        for batch in self._batches:
            (small if is_small(batch) else large).append(batch)
        found = joined(small)
        self._batches = deque([*large, *found])
        self._small = sum(map(is_small, found))
        # Those that have no neighbour yet stay small: wait for as many again before the next try.
        self._join_at = MANY + 2 * self._small

    def _next(self) -> pa.RecordBatch | None:
        """The next batch for the stream; ``None`` when there will be none."""
        with self._changed:
            while not self._batches and not self._closed and not self._left:
                self._changed.wait(HEARD_S)
            batch = self._batches.popleft() if self._batches else None
            self._set_gate()
        self._tell()
        return batch

    def _leave(self) -> None:
        with self._changed:
            self._left = True
            self._batches.clear()
            self._changed.notify_all()
            self._set_gate()
        self._tell()

    def _check_kept(self) -> None:
        if self._streamed:
            raise ResultStreamedError(
                "the parts of this task were handed over to stream() and not kept: write them where they "
                "should stay as they come, or call result() without stream()."
            )

    def _set_gate(self) -> None:
        waiting = len(self._batches)
        if not self._streamed or waiting <= self._limit // 2:
            self._open = True
        elif waiting > self._limit:
            self._open = False

    def _tell(self) -> None:
        # Called without the lock, or a callback that waits for the producer would never end. Then two
        # calls could overtake each other and leave the gate closed for ever, so one thread at a time
        # tells, and goes on until it has told the last state.
        while True:
            with self._changed:
                if self._telling or self._told == self._open:
                    return
                self._telling = True
                self._told = told = self._open
            try:
                self._on_gate(told)
            finally:
                self._telling = False


class _Stream(Iterator[pa.RecordBatch]):
    """What ``MemoryParts.stream`` gives: no generator, whose ``finally`` doesn't run if it never began."""

    def __init__(self, parts: MemoryParts) -> None:
        self._parts = parts

    def __next__(self) -> pa.RecordBatch:
        batch = self._parts._next()
        if batch is None:
            raise StopIteration
        return batch

    def close(self) -> None:
        """Read no more; ``yield from`` calls it when its own generator is closed."""
        self._parts._leave()

    # The lock is reentrant: the collector may call this inside any line of the same thread.
    __del__ = close
