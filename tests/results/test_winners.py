"""Every stored circuit is taken from one part, the best."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_qjm.results.winners import PartName, Taken, winners

parts = st.builds(
    lambda epoch, start, length: PartName(epoch, start, start + length),
    st.integers(1, 3),
    st.integers(0, 30),
    st.integers(1, 12),
)


@given(st.lists(parts, max_size=12))
def test_each_circuit_has_the_best_of_its_parts(have: list[PartName]) -> None:
    found: dict[int, PartName] = {}
    for taken in winners(have):
        assert taken.start < taken.stop
        for circuit in range(taken.start, taken.stop):
            assert circuit not in found, f"circuit {circuit} is taken twice"
            found[circuit] = taken.part
    for circuit in range(50):
        holding = [part for part in have if part.start <= circuit < part.stop]
        best = max(holding, key=lambda part: (part.epoch, part.stop - part.start, -part.start), default=None)
        assert found.get(circuit) == best


@given(st.lists(parts, max_size=12))
def test_order_of_the_listing_does_not_matter(have: list[PartName]) -> None:
    assert winners(reversed(have)) == winners(have) == winners([*have, *have])


def test_parts_that_follow_each_other_are_taken_whole() -> None:
    have = [PartName(1, start, start + 10) for start in range(0, 10_000, 10)]
    assert winners(have) == [Taken(part.start, part.stop, part) for part in have]


@pytest.mark.parametrize(
    "path",
    [
        "parts/1/0-10.parquet#1",
        "parts/1/0-10.json",
        "parts/1/10-0.parquet",
        "parts/1/10-10.parquet",
        "parts/01/0-10.parquet",
        "parts/1/-10.parquet",
        "parts/x/0-10.parquet",
        "parts/1/2/3-4.parquet",
        "task.json",
    ],
)
def test_other_names_are_no_parts(path: str) -> None:
    assert PartName.parse(path) is None
