"""The rows of a task between the thread that collects them and the one that reads them.

Threads wait for events with a timeout, never for the clock: what hangs fails after ``PATIENCE``.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_qjm.errors import InvalidTransitionError, ResultStreamedError
from ray_qjm.results.counts import blank, with_jobs
from ray_qjm.results.parts import MemoryParts

PATIENCE = 20.0


def batch(start: int, stop: int | None = None) -> pa.RecordBatch:
    stop = start + 1 if stop is None else stop
    return with_jobs(
        blank(start, stop, status="cancelled", error_type=None, error=None, shots_requested=1), [0]
    )


def first(part: pa.RecordBatch) -> int:
    circuit: int = part.column("circuit")[0].as_py()
    return circuit


class GateLog:
    """What the gate was told, and a wait for the next word."""

    def __init__(self) -> None:
        self.told: list[bool] = []
        self.closed = threading.Event()
        self.opened = threading.Event()

    def __call__(self, open_: bool) -> None:
        self.told.append(open_)
        (self.opened if open_ else self.closed).set()


class Worker(threading.Thread):
    """A thread whose failure is the test's."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self.value: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.value = self._work()
        except BaseException as error:
            self.error = error

    def end(self) -> Any:
        self.join(PATIENCE)
        assert not self.is_alive(), "the thread hangs"
        if self.error is not None:
            raise self.error
        return self.value


@pytest.fixture
def gate() -> GateLog:
    return GateLog()


def kept(gate: Callable[[bool], None], *starts: int, limit: int = 4) -> MemoryParts:
    parts = MemoryParts(limit=limit, on_gate=gate)
    for start in starts:
        parts.add(batch(start))
    return parts


def rows(batches: list[pa.RecordBatch]) -> list[int]:
    return sorted(circuit for part in batches for circuit in part.column("circuit").to_pylist())


def test_batches_are_kept_until_the_end_and_the_gate_stays_open(gate: GateLog) -> None:
    parts = kept(gate, *range(50, 0, -1))
    early = parts.batches()
    parts.add(batch(0))
    parts.close()
    parts.close()
    assert rows(early) == list(range(1, 51))  # a snapshot
    assert rows(parts.batches()) == list(range(51))
    assert gate.told == []
    with pytest.raises(InvalidTransitionError, match="circuit 60 came after the last"):
        parts.add(batch(60))


def test_streaming_begins_at_the_call(gate: GateLog) -> None:
    parts = kept(gate, 3, 1)
    stream = parts.stream()
    with pytest.raises(ResultStreamedError, match=r"handed over to stream\(\) and not kept: write them"):
        parts.batches()
    with pytest.raises(ResultStreamedError, match="not kept"):
        parts.stream()
    parts.add(batch(0))
    parts.close()
    assert [first(part) for part in stream] == [3, 1, 0]
    assert list(stream) == []
    with pytest.raises(ResultStreamedError):
        parts.batches()
    assert list(kept_nothing(gate).stream()) == []


def kept_nothing(gate: GateLog) -> MemoryParts:
    parts = kept(gate)
    parts.close()
    return parts


def test_reader_waits_for_each_batch_and_for_the_end(gate: GateLog) -> None:
    parts = kept(gate)
    stream = parts.stream()
    got: list[int] = []
    seen = [threading.Event() for _ in range(3)]

    def read() -> None:
        for part in stream:
            got.append(first(part))
            seen[len(got) - 1].set()

    reader = Worker(read)
    for number in range(3):
        assert len(got) == number
        parts.add(batch(number))
        assert seen[number].wait(PATIENCE)
    assert reader.is_alive()
    parts.close()
    reader.end()
    assert got == [0, 1, 2]


def test_handed_over_batches_are_not_kept(gate: GateLog) -> None:
    parts = kept(gate, *range(10), limit=100)
    stream = parts.stream()
    before = pa.total_allocated_bytes()
    wide = batch(10, 200_010)
    size = pa.total_allocated_bytes() - before
    parts.add(wide)
    del wide
    assert size > 10**7
    for _ in range(11):
        next(stream)
    assert pa.total_allocated_bytes() - before < size / 10
    assert parts.missing(200_020) == [(200_010, 200_020)]


def test_gate_closes_above_the_limit_and_opens_at_half_of_it(gate: GateLog) -> None:
    parts = kept(gate)
    stream = parts.stream()
    for start in range(4):
        parts.add(batch(start))
    assert gate.told == []
    parts.add(batch(4))
    parts.add(batch(5))
    assert gate.told == [False]
    for _ in range(3):
        next(stream)
    assert gate.told == [False]  # 3 wait
    next(stream)
    assert gate.told == [False, True]  # 2
    for start in range(6, 9):
        parts.add(batch(start))
    assert gate.told == [False, True, False]


def test_gate_closes_at_once_where_many_are_kept(gate: GateLog) -> None:
    parts = kept(gate, *range(5))
    assert gate.told == []
    stream = parts.stream()
    assert gate.told == [False]
    parts.close()
    assert len(list(stream)) == 5 and gate.told == [False, True]
    few = kept(gate, *range(4))
    few.stream()
    assert gate.told == [False, True]


def test_limit_of_nothing_lets_the_producer_go_once_all_is_read(gate: GateLog) -> None:
    parts = kept(gate, limit=0)
    stream = parts.stream()
    for start in range(3):
        parts.add(batch(start))
        assert first(next(stream)) == start
    assert gate.told == [False, True] * 3


def test_a_callback_that_waits_for_the_producer_gets_it() -> None:
    """The reader opens the gate, and its callback returns only when another thread has added a batch."""
    added = threading.Event()
    closed = threading.Event()

    def late() -> None:
        parts.add(batch(9))
        added.set()

    def on_gate(open_: bool) -> None:
        if open_:
            Worker(late)
            assert added.wait(PATIENCE)
        else:
            closed.set()

    parts = MemoryParts(limit=1, on_gate=on_gate)
    parts.add(batch(0))
    parts.add(batch(1))
    stream = parts.stream()
    assert closed.is_set()

    def read() -> list[int]:
        return [first(next(stream)) for _ in range(2)]

    assert Worker(read).end() == [0, 1]
    assert added.is_set() and parts.missing(10) == [(2, 9)]


def test_a_late_word_does_not_leave_the_gate_closed() -> None:
    """The producer is still telling 'closed' while the reader empties everything.

    Were each thread to tell its own change, 'open' would come before 'closed' has ended, and a
    'closed' that came after it would be the last word: the task would stand still for ever.
    """
    told: list[bool] = []
    closing, read_all = threading.Event(), threading.Event()

    def on_gate(open_: bool) -> None:
        if not open_:
            closing.set()
            assert read_all.wait(PATIENCE)
        told.append(open_)

    parts = MemoryParts(limit=1, on_gate=on_gate)
    stream = parts.stream()
    parts.add(batch(0))
    producer = Worker(lambda: parts.add(batch(1)))
    assert closing.wait(PATIENCE)
    assert [first(next(stream)) for _ in range(2)] == [0, 1]  # not held up by the callback
    assert told == []
    read_all.set()
    producer.end()
    assert told == [False, True]


def test_producer_that_keeps_to_the_gate_is_never_far_ahead() -> None:
    """A thousand batches through a gate of 8, the reader as fast as it can, nothing lost or doubled."""
    number, limit = 1000, 8
    may_start = threading.Event()
    may_start.set()

    def on_gate(open_: bool) -> None:
        (may_start.set if open_ else may_start.clear)()

    parts = MemoryParts(limit=limit, on_gate=on_gate)
    stream = parts.stream()
    most = 0

    def produce() -> None:
        nonlocal most
        for start in range(number):
            assert may_start.wait(PATIENCE)
            parts.add(batch(start))
            most = max(most, len(parts._batches))
        parts.close()

    producer = Worker(produce)
    reader = Worker(lambda: [first(part) for part in stream])
    producer.end()
    assert reader.end() == list(range(number))
    assert most <= limit + 1
    assert parts.missing(number) == []


@pytest.mark.parametrize("how", ["close", "drop", "drop unread", "in a generator"])
def test_a_reader_that_leaves_holds_nothing_up(how: str, gate: GateLog) -> None:
    parts = kept(gate, *range(6))
    stream: Iterator[pa.RecordBatch] | None = parts.stream()
    assert gate.told == [False] and stream is not None
    if how == "in a generator":
        outer = (part for part in stream)
        next(outer)
        del outer
    elif how != "drop unread":
        next(stream)
    if how == "close":
        stream.close()  # type: ignore[attr-defined]
        assert list(stream) == []
    del stream
    gc.collect()
    assert gate.told == [False, True]
    for start in range(6, 20):
        parts.add(batch(start))
    assert gate.told == [False, True] and len(parts._batches) == 0
    assert parts.missing(21) == [(20, 21)]
    with pytest.raises(ResultStreamedError):
        parts.stream()


def test_closing_the_stream_wakes_its_reader(gate: GateLog) -> None:
    parts = kept(gate)
    stream: Any = parts.stream()
    reader = Worker(lambda: list(stream))
    stream.close()
    assert reader.end() == []


def test_missing_are_the_gaps_in_order(gate: GateLog) -> None:
    parts = MemoryParts(limit=1, on_gate=gate)
    assert parts.missing(5) == [(0, 5)] and parts.missing(0) == []
    parts.add(batch(3, 3))  # no rows
    for start, stop in [(20, 30), (5, 10), (12, 15)]:
        parts.add(batch(start, stop))
    assert parts.missing(40) == [(0, 5), (10, 12), (15, 20), (30, 40)]
    assert parts.missing(30) == [(0, 5), (10, 12), (15, 20)]
    assert parts.missing(25) == [(0, 5), (10, 12), (15, 20)]
    assert parts.missing(13) == [(0, 5), (10, 12)]
    assert parts.missing(11) == [(0, 5), (10, 11)]
    parts.add(batch(10, 12))
    parts.add(batch(0, 5))
    assert parts.missing(40) == [(15, 20), (30, 40)]
    assert len(parts._covered._starts) == len(parts._covered._stops) == 2


@settings(max_examples=200, deadline=None)
@given(
    added=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=25),
    total=st.integers(0, 75),
)
def test_missing_is_what_no_batch_had(added: list[tuple[int, int]], total: int) -> None:
    """Overlaps too: a row that came twice must not make others look missing, or present."""
    parts = MemoryParts(limit=1, on_gate=lambda open_: None)
    have: set[int] = set()
    for start, rows in added:
        parts._covered.add(start, start + rows)
        have.update(range(start, start + rows))
    gaps = parts.missing(total)
    assert [i for start, stop in gaps for i in range(start, stop)] == [
        i for i in range(total) if i not in have
    ]
    assert all(start < stop for start, stop in gaps)
    assert all(left[1] < right[0] for left, right in pairwise(gaps))
    ends = list(zip(parts._covered._starts, parts._covered._stops, strict=True))
    assert all(left[1] < right[0] for left, right in pairwise(ends))
