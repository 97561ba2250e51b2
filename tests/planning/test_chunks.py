"""How many circuits make the next chunk."""

from __future__ import annotations

import math
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_qjm.planning.chunks import A_SECOND, FIRST, GROWTH, MOST, TAIL_FLOOR, TAIL_SHARE, ChunkSizer

PLENTY = 10**9


def learnt(pace_s: float, *, target_s: float = 1.5, most: int | None = None, slots: int = 1) -> ChunkSizer:
    """A sizer that has seen its full-sized chunk."""
    sizer = ChunkSizer(target_s, most)
    for _ in range(20):
        size = sizer.size(None, slots)
        sizer.observe(size, size * pace_s)
    return sizer


def test_first_chunks_are_small() -> None:
    sizer = ChunkSizer(1.5)
    assert [sizer.size(left, 2) for left in (None, PLENTY)] == [FIRST, FIRST]
    assert sizer.pace_s is None


def test_most_holds_for_the_first_chunk_too() -> None:
    assert ChunkSizer(1.5, most=2).size(None, 1) == 2


def test_one_lucky_measurement_makes_no_huge_chunk() -> None:
    sizer = ChunkSizer(1.5)
    sizer.observe(FIRST, 1e-9)
    assert sizer.size(None, 1) == GROWTH * FIRST


@pytest.mark.parametrize("pace_s", [1e-4, 3e-3, 0.1, 0.74])
def test_chunks_grow_until_they_take_the_target_time(pace_s: float) -> None:
    sizer = ChunkSizer(1.5)
    sizes: list[int] = []
    for _ in range(12):
        sizes.append(sizer.size(PLENTY, 2))
        sizer.observe(sizes[-1], sizes[-1] * pace_s)
    assert sizes[-1] == pytest.approx(min(MOST, 1.5 / pace_s), abs=1)
    assert all(after <= GROWTH * max(sizes[: n + 1]) for n, after in enumerate(sizes[1:]))


def test_circuit_slower_than_the_target_stands_alone() -> None:
    sizer = ChunkSizer(1.5)
    sizer.observe(FIRST, FIRST * 20.0)
    assert sizer.size(PLENTY, 2) == 1


@pytest.mark.parametrize(("slots", "seconds"), [(2, 1.5), (375, 1.5), (1000, 4.0), (10_000, 40.0)])
def test_many_slots_get_longer_chunks_so_that_the_driver_keeps_up(slots: int, seconds: float) -> None:
    sizer = learnt(0.5, slots=slots)
    assert sizer.size(PLENTY * slots, slots) == seconds / 0.5
    assert slots / (sizer.size(PLENTY * slots, slots) * 0.5) <= A_SECOND


def test_chunk_that_took_no_time_grows_to_most_step_by_step() -> None:
    sizer = ChunkSizer(1.5)
    sizes: list[int] = []
    for _ in range(8):
        sizes.append(sizer.size(None, 1))
        sizer.observe(sizes[-1], 0.0)
    assert sizes == [4, 16, 64, 256, 1024, 4096, 10_000, 10_000]


def test_target_of_nothing_makes_chunks_of_one() -> None:
    assert learnt(0.01, target_s=0.0).size(PLENTY, 4) == 1


def test_larger_chunk_replaces_what_smaller_ones_said() -> None:
    sizer = ChunkSizer(1.5)
    sizer.observe(4, 4.0)  # warming up
    sizer.observe(16, 0.16)
    assert sizer.pace_s == pytest.approx(0.01)


def test_smaller_chunk_moves_the_pace_a_little() -> None:
    sizer = ChunkSizer(1.5)
    sizer.observe(100, 1.0)
    sizer.observe(10, 1.0)
    assert sizer.pace_s == pytest.approx(0.01 + 0.3 * 0.09)


def test_chunk_of_which_nothing_ran_teaches_nothing() -> None:
    sizer = ChunkSizer(1.5)
    sizer.observe(0, 3.0)
    assert sizer.pace_s is None


def test_pace_that_changes_is_followed() -> None:
    sizer = learnt(1e-3)
    for _ in range(30):
        size = sizer.size(None, 1)
        sizer.observe(size, size * 1e-2)
    assert sizer.size(None, 1) == pytest.approx(150, abs=1)


def test_unknown_end_has_no_tail() -> None:
    sizer = learnt(1e-3)
    assert sizer.size(None, 64) == 1500


def test_tail_is_cut_to_a_share_of_what_is_left_but_not_to_crumbs() -> None:
    sizer = learnt(1e-3)
    assert sizer.size(4000, 2) == 4000 // (TAIL_SHARE * 2)
    assert sizer.size(120, 2) == math.ceil(1500 * TAIL_FLOOR) == 100
    assert sizer.size(20, 2) == 20


def test_no_slots_is_as_one() -> None:
    sizer = learnt(1e-3)
    assert sizer.size(1000, 0) == sizer.size(1000, 1)


@given(
    seen=st.lists(st.tuples(st.integers(0, 20_000), st.floats(0, 1e4))),
    target_s=st.floats(0, 1e6),
    most=st.none() | st.integers(1, 50_000),
    left=st.none() | st.integers(1, 10**12),
    slots=st.integers(0, 10_000),
)
def test_chunk_is_never_empty_nor_more_than_left_or_most(
    seen: list[tuple[int, float]], target_s: float, most: int | None, left: int | None, slots: int
) -> None:
    sizer = ChunkSizer(target_s, most)
    for circuits, seconds in seen:
        sizer.observe(circuits, seconds)
    size = sizer.size(left, slots)
    assert 1 <= size <= min(MOST if most is None else most, PLENTY if left is None else left)
    if sizer.pace_s is not None:
        assert size <= GROWTH * max(circuits for circuits, _ in seen)


def ends(total: int, slots: int, pace_s: float, prefetch: int = 2) -> tuple[list[float], list[int]]:
    """When each slot runs dry, and the sizes of all chunks: slots take from one queue, as Ray's do."""
    sizer = ChunkSizer(1.5)
    left = total
    sizes: list[int] = []
    queue: deque[int] = deque()
    running: list[tuple[float, int, int]] = []  # end, slot, circuits
    free = [(0.0, slot) for slot in range(slots)]
    dry = [0.0] * slots
    while True:
        while left and len(queue) + len(running) < prefetch * slots:
            sizes.append(sizer.size(left, slots))
            queue.append(sizes[-1])
            left -= sizes[-1]
        while queue and free:
            now, slot = free.pop(0)
            size = queue.popleft()
            running.append((now + size * pace_s, slot, size))
        if not running:
            assert sum(sizes) == total
            return dry, sizes
        running.sort()
        end, slot, size = running.pop(0)
        sizer.observe(size, size * pace_s)
        dry[slot] = end
        free.append((end, slot))


@given(total=st.integers(1, 60_000), pace_s=st.sampled_from([1e-3, 4e-3, 0.02, 0.4]))
def test_slots_run_dry_together(total: int, pace_s: float) -> None:
    """Two slots, one pace: the first that runs dry waits no longer than one shortest chunk takes."""
    dry, _ = ends(total, 2, pace_s)
    idle = (max(dry) - min(dry)) / pace_s
    assert idle <= math.ceil(1.5 / pace_s * TAIL_FLOOR) + 1e-6


def test_tail_chunks_shrink_to_the_shortest() -> None:
    """100000 circuits of 1 ms: 1500 a chunk, and towards the end down to 100."""
    _, sizes = ends(100_000, 2, 1e-3)
    assert sizes[:4] == [FIRST] * 4
    assert max(sizes) == 1500
    assert 100 in sizes[-2:] and sizes[-1] <= 100
    tail = sizes[sizes.index(1500) :]
    assert tail == sorted(tail, reverse=True)
    assert len(sizes) < 100_000 / 1500 + 30
