"""The report: contiguous circuits with one reason are one line."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from ray_qjm.results.report import FailureRange, lines, merge


def test_neighbours_with_one_reason_are_one_line() -> None:
    single = [FailureRange(i, i + 1, "failed", "TypeError", "no gate") for i in range(200, 300)]
    other = FailureRange(300, 301, "failed", "TypeError", "another gate")
    apart = FailureRange(17, 18, "cancelled", None, None)
    ranges = merge([*reversed(single), other, apart])
    assert lines(ranges, 898, 1000) == [
        "circuit 17 cancelled.",
        "circuits 200-299 failed. Reason: TypeError: no gate",
        "circuit 300 failed. Reason: TypeError: another gate",
        "898 of 1000 circuits done, 1 cancelled, 101 failed.",
    ]


def test_no_failure_is_one_line() -> None:
    assert lines([], 5, 5) == ["5 of 5 circuits done."]
    assert lines([], 0, 0) == ["0 of 0 circuits done."]


def test_partial_circuits_are_told_apart() -> None:
    assert lines([FailureRange(0, 2, "partial", "QuotaError", "no credit left")], 1, 3) == [
        "circuits 0-1 partly done. Reason: QuotaError: no credit left",
        "1 of 3 circuits done, 2 partial.",
    ]


def test_long_reasons_and_many_ranges_are_cut_but_counted() -> None:
    (line, _) = lines([FailureRange(0, 1, "failed", "E", "x\n  y " * 1000)], 0, 1)
    assert (
        line.startswith("circuit 0 failed. Reason: E: x y x y") and len(line) < 500 and line.endswith("...")
    )
    ranges = [FailureRange(i, i + 1, "failed", "E", str(i)) for i in range(250)]
    text = lines(ranges, 0, 250)
    assert len(text) == 102
    assert text[-2:] == [
        "... and 150 more circuits in 150 ranges; see the table of failures.",
        "0 of 250 circuits done, 250 failed.",
    ]
    assert len(lines(ranges, 0, 250, max_lines=None)) == 251


@given(st.lists(st.sampled_from(["a", "b", None]), max_size=40), st.randoms())
def test_merging_keeps_every_circuit_and_leaves_no_equal_neighbours(
    errors: list[str | None], rng: object
) -> None:
    single = [
        FailureRange(i, i + 1, "failed", "E", error) for i, error in enumerate(errors) if error is not None
    ]
    merged = merge(rng.sample(single, len(single)))
    assert [(i, item.error) for item in merged for i in range(item.start, item.stop)] == [
        (item.start, item.error) for item in single
    ]
    for left, right in pairwise(merged):
        assert left.stop < right.start or left.error != right.error
