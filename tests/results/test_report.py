"""The report: contiguous circuits with one reason are one line."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ray_qjm.results.report import MAX_RANGES, FailureLog, FailureRange, lines, merge, ranges


def test_neighbours_with_one_reason_are_one_line() -> None:
    single = [FailureRange(i, i + 1, "failed", "TypeError", "no gate") for i in range(200, 300)]
    other = FailureRange(300, 301, "failed", "TypeError", "another gate")
    apart = FailureRange(17, 18, "cancelled", None, None)
    assert lines(merge([*reversed(single), other, apart]), 898, 1000) == [
        "circuit 17 cancelled.",
        "circuits 200-299 failed. Reason: TypeError: no gate",
        "circuit 300 failed. Reason: TypeError: another gate",
        "898 of 1000 circuits done, 1 cancelled, 101 failed.",
    ]


def test_stage_is_told_and_keeps_ranges_apart() -> None:
    single = [
        FailureRange(
            i, i + 1, "failed", "TypeError", "no gate", stage=("build", "transpile", "run", None)[i // 10]
        )
        for i in range(40)
    ]
    assert lines(merge(single), 0, 42) == [
        "circuits 0-9 failed to build. Reason: TypeError: no gate",
        "circuits 10-19 failed to transpile. Reason: TypeError: no gate",
        "circuits 20-29 failed to run. Reason: TypeError: no gate",
        "circuits 30-39 failed. Reason: TypeError: no gate",
        "0 of 42 circuits done, 40 failed.",
    ]
    unexplained = [FailureRange(3, 4, "failed", None, None, stage="build")]
    assert lines(unexplained, 0, 1)[0] == "circuit 3 failed to build."
    # Only a failure is one of a stage.
    assert (
        lines([FailureRange(3, 4, "cancelled", None, None, stage="run")], 0, 1)[0] == "circuit 3 cancelled."
    )


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
    many = [FailureRange(i, i + 1, "failed", "E", str(i)) for i in range(250)]
    text = lines(many, 0, 250)
    assert len(text) == 102
    assert text[-2:] == [
        "... and 150 more circuits in 150 ranges; see the table of failures.",
        "0 of 250 circuits done, 250 failed.",
    ]
    assert len(lines(many, 0, 250, max_lines=None)) == 251


@given(st.lists(st.sampled_from(["a", "b", None]), max_size=40), st.randoms())
def test_merging_keeps_every_circuit_and_leaves_no_equal_neighbours(
    errors: list[str | None], rng: Random
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


@given(
    rows=st.lists(
        st.tuples(
            st.integers(1, 3),
            st.sampled_from(["failed", "cancelled"]),
            st.sampled_from(["run", "build", None]),
            st.sampled_from(["E", "F", None]),
            st.sampled_from(["x", "y", None]),
        ),
        max_size=30,
    ),
    chunk=st.integers(1, 7),
    begin=st.integers(0, 5),
)
def test_ranges_of_a_table_are_those_of_its_rows(
    rows: list[tuple[int, str, str | None, str | None, str | None]], chunk: int, begin: int
) -> None:
    table = pa.table(
        {
            "circuit": pa.array([sum(row[0] for row in rows[: i + 1]) for i in range(len(rows))], pa.int64()),
            **{
                name: pa.array([row[place] for row in rows], pa.string())
                for place, name in enumerate(("status", "stage", "error_type", "error"), 1)
            },
        }
    )
    for name in ("status", "stage", "error_type"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table.column(name).dictionary_encode())
    parts = [table.slice(start, chunk) for start in range(begin, len(rows), chunk)]
    cut = pa.concat_tables(parts) if parts else table.slice(0, 0)
    expected = merge(
        FailureRange(
            row["circuit"], row["circuit"] + 1, row["status"], row["error_type"], row["error"], row["stage"]
        )
        for row in cut.to_pylist()
    )
    assert merge(ranges(cut)) == expected


def test_log_joins_neighbours_and_counts_what_it_no_longer_lists() -> None:
    log = FailureLog()
    for circuit in range(2 * MAX_RANGES):
        log.add(FailureRange(circuit, circuit + 1, "failed", "ValueError", "one reason"))
    assert log.ranges() == ([FailureRange(0, 2 * MAX_RANGES, "failed", "ValueError", "one reason")], 0)

    log = FailureLog()
    for circuit in range(MAX_RANGES + 50):
        log.add(FailureRange(circuit, circuit + 1, "failed", "ValueError", f"reason {circuit}"))
    kept, beyond = log.ranges()
    assert (len(kept), beyond) == (MAX_RANGES, 50)
