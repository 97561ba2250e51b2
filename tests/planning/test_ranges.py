"""Ranges are a set of integers, held by their ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ray_qjm.planning.ranges import Ranges

TOTAL = 40
pieces = st.lists(st.tuples(st.integers(0, TOTAL), st.integers(0, 12)).map(lambda p: (p[0], p[0] + p[1])))


def members(ranges: Ranges) -> set[int]:
    return {i for start, stop in ranges for i in range(start, stop)}


@given(pieces)
def test_they_hold_what_was_added_in_as_few_ranges_as_can_be(added: list[tuple[int, int]]) -> None:
    ranges = Ranges(added)
    assert members(ranges) == {i for start, stop in added for i in range(start, stop)}
    ends = [end for both in ranges for end in both]
    assert ends == sorted(set(ends)), "ranges overlap, touch, are empty or out of order"
    assert bool(ranges) == bool(members(ranges))


@given(pieces, st.integers(0, TOTAL + 15))
def test_gap_is_the_next_run_of_what_is_not_in(added: list[tuple[int, int]], at: int) -> None:
    ranges = Ranges(added)
    inside = members(ranges)
    start, stop = ranges.gap(at)
    assert start == next(i for i in range(at, 3 * TOTAL) if i not in inside)
    later = [i for i in sorted(inside) if i > start]
    assert stop == (later[0] if later else None)


@given(pieces, st.integers(0, TOTAL + 15))
def test_gaps_are_what_is_not_in(added: list[tuple[int, int]], total: int) -> None:
    ranges = Ranges(added)
    found = {i for start, stop in ranges.rest(0, total) for i in range(start, stop)}
    assert found == set(range(total)) - members(ranges)


@given(pieces, st.integers(0, TOTAL), st.integers(0, TOTAL))
def test_count_is_how_many_are_in(added: list[tuple[int, int]], start: int, stop: int) -> None:
    ranges = Ranges(added)
    assert ranges.count(start, stop) == len(members(ranges) & set(range(start, stop)))
