"""Packing: the schema, its room, and what must not get into it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_qjm.errors import BackendResultError, InvalidInputError
from ray_qjm.results import TaskResult
from ray_qjm.results.counts import (
    JOBS_SCHEMA,
    Row,
    blank,
    fault,
    job_names,
    pack,
    schema,
    with_jobs,
    with_named_jobs,
)
from ray_qjm.results.metadata import to_json
from tests.calls import calls_of
from tests.results.building import failed


def many_rows(number: int = 10_000, outcomes: int = 30) -> list[Row]:
    rng = np.random.default_rng(5)
    return [
        Row(
            index,
            backend="aer",
            clbits=5,
            registers='[["c", [0, 1, 2, 3, 4]]]',
            shots_requested=1024,
            seed=2**63 + index,
            counts={hex(value): 34 for value in rng.permutation(32)[:outcomes]},
            name=f"circuit-{index}",
            metadata={},
        )
        for index in range(number)
    ]


def test_a_million_circuits_take_the_promised_room() -> None:
    """12.53 bytes an outcome and 78.97 a circuit for the rest were measured; 13 and 80 are promised."""
    rows = many_rows()
    parts = [with_jobs(pack(rows[i : i + 500]), [i // 500]) for i in range(0, len(rows), 500)]
    jobs = pa.Table.from_pylist([], schema=JOBS_SCHEMA)
    table = TaskResult(parts, jobs=jobs, info={}).table
    room = {name: table.column(name).nbytes for name in table.column_names}
    assert sum(room.values()) == table.nbytes
    measured = room.pop("outcomes") + room.pop("counts")
    assert measured / (10_000 * 30) <= 13
    assert sum(room.values()) / 10_000 <= 80, room


def test_packing_takes_few_steps_a_row() -> None:
    rows = many_rows(3000)
    assert calls_of(lambda: pack(rows)) / len(rows) < 100


def test_schema_of_a_packed_batch() -> None:
    rows = [Row(7, clbits=2, counts={"0x2": 3, "0x0": 1}, shots_requested=4), failed(8)]
    extra: dict[str, list[Any]] = {
        "theta": [0.5, None],
        "file": ["a.qpy", "b.qpy"],
        "n": [1, 2],
        "ok": [True, None],
    }
    types = {"theta": "float64", "file": "string", "n": "int64", "ok": "bool"}
    for memory in (False, True):
        batch = with_jobs(pack(rows, memory=memory, extra=extra, extra_types=types), [4, 9])
        batch.validate(full=True)
        assert batch.schema == schema(memory=memory, extra_types=types)
        assert not batch.schema.field("circuit").nullable
        assert batch.column("jobs").to_pylist() == [[4, 9], [4, 9]]
        assert batch.column("outcomes").to_pylist() == [[0, 2], None]
        assert batch.column("counts").to_pylist() == [[1, 3], None]
        assert batch.column("shots").to_pylist() == [4, None]
        assert batch.column("theta").to_pylist() == [0.5, None]
    assert "memory" not in schema().names
    assert schema().names[:5] == ["circuit", "name", "status", "stage", "error_type"]


def test_no_rows_and_no_jobs_make_batches_too() -> None:
    batch = with_jobs(pack([]), [1])
    batch.validate(full=True)
    assert batch.schema == schema()
    assert with_jobs(pack([failed(0)]), []).column("jobs").to_pylist() == [[]]
    pa.Table.from_pylist([], schema=JOBS_SCHEMA).validate()


@st.composite
def measured_rows(draw: st.DrawFn) -> list[Row]:
    rows = []
    for index in range(draw(st.integers(0, 8))):
        if draw(st.integers(0, 4)) == 0:
            rows.append(failed(index))
            continue
        clbits = draw(st.sampled_from([1, 2, 7, 8, 31, 32, 33, 63, 64, 65, 71, 72, 128, 129, 1300]))
        values = st.integers(0, 2**clbits - 1)
        counts = draw(st.dictionaries(values, st.integers(0, 50), max_size=12))
        memory = [hex(value) for value, count in counts.items() for _ in range(count)]
        rows.append(
            Row(
                index,
                clbits=clbits,
                counts={hex(value): count for value, count in counts.items()},
                memory=draw(st.permutations(memory)),
            )
        )
    return rows


@settings(max_examples=150, deadline=None)
@given(rows=measured_rows())
def test_every_outcome_comes_back_whatever_the_width(rows: list[Row]) -> None:
    batch = pack(rows, memory=True)
    batch.validate(full=True)
    for row, packed in zip(rows, batch.to_pylist(), strict=True):
        if row.counts is None:
            assert (
                packed["outcomes"] is packed["outcomes_wide"] is packed["counts"] is packed["memory"] is None
            )
            continue
        assert row.clbits is not None and row.memory is not None
        wide = row.clbits > 64
        assert (packed["outcomes"] is None) == wide and (packed["outcomes_wide"] is None) != wide
        if wide:
            assert {len(item) for item in packed["outcomes_wide"]} <= {(row.clbits + 7) // 8}
            outcomes = [int.from_bytes(item, "big") for item in packed["outcomes_wide"]]
            shots = [int.from_bytes(item, "big") for item in packed["memory_wide"]]
        else:
            outcomes, shots = packed["outcomes"], packed["memory"]
        assert outcomes == sorted(outcomes)
        assert dict(zip(outcomes, packed["counts"], strict=True)) == {
            int(key, 16): count for key, count in row.counts.items()
        }
        assert shots == [int(key, 16) for key in row.memory]
        assert packed["shots"] == sum(row.counts.values())


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (Row(5), "without counts"),
        (Row(5, status="failed", counts={"0x0": 1}), "with counts"),
        (Row(5, counts={"0x0": 1}), "number of clbits"),
        (Row(5, clbits=2, counts={"0x1": 1}, shots=2), "add up to 1 shots, not to 2"),
        (Row(5, clbits=2, counts={"0x4": 1}), "more bits than the circuit's 2"),
        (Row(5, clbits=70, counts={hex(1 << 70): 1}), "more bits than the circuit's 70"),
        (Row(5, clbits=70, counts={hex(1 << 90): 1}), "more bits than the circuit's 70"),
        (Row(5, clbits=2, counts={"-0x1": 1}), "more bits"),
        (Row(5, clbits=2, counts={"0x1": 1, "0x01": 1}), "twice"),
        (Row(5, clbits=70, counts={"0x1": 1, "0x01": 1}), "twice"),
        (Row(5, clbits=2, counts={"0x1": 0.5}), "whole number"),  # type: ignore[dict-item]
        (Row(5, clbits=2, counts={"0x1": -1}), "whole number"),
        (Row(5, clbits=2, counts={"0x1": 2**31}), "whole number"),
        (Row(5, clbits=2, counts={"zero": 1}), "hexadecimal"),
        (Row(5, clbits=2, counts={"0x1": 2}, memory=["0x1"]), "1 shots in memory, 2 in counts"),
    ],
)
def test_counts_that_cannot_be_true_are_refused_by_circuit_and_reason(row: Row, reason: str) -> None:
    assert reason in (fault(row) or "")
    good = Row(4, clbits=2, counts={"0x1": 1}, memory=["0x1"])
    assert fault(good) is None
    with pytest.raises(BackendResultError, match=f"circuit 5 on .*{reason}"):
        pack([good, row], memory=True)


def test_automatic_names_become_null_and_others_stay() -> None:
    names = ["circuit-1", "circuit-12-305", "circuit-", "mycircuit-1", "circuit-1a", "", None]
    batch = pack([Row(i, status="failed", name=name) for i, name in enumerate(names)])
    assert batch.column("name").to_pylist() == [None, None, "circuit-", "mycircuit-1", "circuit-1a", "", None]


def test_a_message_that_is_no_unicode_does_not_lose_the_part() -> None:
    batch = pack([failed(0, error="no file b\udc80d")])
    assert batch.column("error").to_pylist() == ["no file b\\udc80d"]


def test_unknown_words_for_status_and_stage_are_refused() -> None:
    for row in (Row(0, status="lost"), Row(0, status="failed", stage="measure")):
        with pytest.raises(KeyError):
            pack([row])


@pytest.mark.parametrize("memory", [False, True])
def test_blank_rows_are_those_that_pack_makes(memory: bool) -> None:
    types = {"theta": "float64", "file": "string", "n": "int64", "ok": "bool"}
    theta: Any = np.array([0.1, 0.2, 0.3])
    batch = blank(
        5,
        8,
        status="failed",
        error_type="OSError",
        error="no file b\udc80d",
        stage="build",
        backend="fez",
        shots_requested=np.array([10, 20, 30]),
        memory=memory,
        extra={"theta": theta, "file": ["a", None, "c"]},
        extra_types=types,
    )
    rows = [
        Row(
            i,
            "failed",
            "fez",
            shots_requested=10 * (i - 4),
            stage="build",
            error_type="OSError",
            error="no file b\udc80d",
        )
        for i in range(5, 8)
    ]
    extra: dict[str, list[Any]] = {
        "theta": [0.1, 0.2, 0.3],
        "file": ["a", None, "c"],
        "n": [None] * 3,
        "ok": [None] * 3,
    }
    packed = pack(rows, memory=memory, extra=extra, extra_types=types)
    batch.validate(full=True)
    assert batch.schema.equals(packed.schema) and batch.equals(packed)
    complete = with_jobs(batch, [])
    assert complete.schema.equals(schema(memory=memory, extra_types=types))
    assert pa.Table.from_batches([complete, with_jobs(packed, [1])]).unify_dictionaries().num_rows == 6


def test_blank_rows_by_the_million_are_not_made_one_by_one() -> None:
    reason: dict[str, Any] = {
        "status": "cancelled",
        "error_type": "E",
        "error": "Ctrl-C",
        "shots_requested": 100,
    }
    assert calls_of(lambda: blank(100_000, 1_000_000, **reason)) < 10_000
    batch = blank(100_000, 1_000_000, **reason)
    assert batch.num_rows == 900_000 and batch.column("circuit")[-1].as_py() == 999_999
    assert batch.column("shots_requested")[-1].as_py() == 100 and batch.column("stage").null_count == 900_000


def test_blank_without_rows_and_with_what_cannot_be() -> None:
    reason: dict[str, Any] = {"status": "failed", "error_type": None, "error": None, "shots_requested": 1}
    assert with_jobs(blank(3, 3, **reason), []).schema == schema()
    with pytest.raises(BackendResultError, match="'done' without counts"):
        blank(3, 4, **{**reason, "status": "done"})
    with pytest.raises(InvalidInputError, match="2 values for 3 circuits"):
        blank(3, 6, **reason, extra={"x": [1, 2]}, extra_types={"x": "int64"})
    with pytest.raises(InvalidInputError, match="without a type: x"):
        blank(3, 6, **reason, extra={"x": [1, 2, 3]})
    with pytest.raises(InvalidInputError, match="'shots_requested' has 2 values for 3 circuits"):
        blank(3, 6, **{**reason, "shots_requested": np.array([1, 2])})


def test_a_long_message_is_not_repeated_into_gigabytes() -> None:
    reason: dict[str, Any] = {"status": "failed", "error_type": "E", "shots_requested": 1}
    batch = blank(0, 1_000_000, error="é" * 5000, **reason)
    message = batch.column("error")[0].as_py()
    assert batch.column("error").nbytes < 2**28 + 2**23
    assert message.startswith("ééé") and message.endswith("é...") and len(message) > 130
    assert blank(0, 100, error="é" * 5000, **reason).column("error")[99].as_py() == "é" * 5000


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


def test_metadata_is_strict_json_whatever_the_user_put_in() -> None:
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    assert to_json(None) is None and to_json({}) is None
    given = {
        "n": np.int64(3),
        "x": np.float64(0.5),
        "f": np.float32(0.5),
        "b": np.bool_(True),
        "a": np.array([[1, 2]]),
        "t": (1, None),
        "z": 1j,
        "s": {1},
        "o": Unprintable(),
    }
    text = to_json(given)
    assert text is not None and json.loads(text) == {
        "n": 3,
        "x": 0.5,
        "f": 0.5,
        "b": True,
        "a": [[1, 2]],
        "t": [1, None],
        "z": "1j",
        "s": "{1}",
        "o": "<Unprintable>",
    }
    text = to_json({(0, 1): float("nan"), 3: np.array([np.inf]), None: {"k": -np.inf}, np.int64(4): 1})
    assert text is not None and json.loads(text) == {
        "(0, 1)": "nan",
        "3": ["inf"],
        "null": {"k": "-inf"},
        "4": 1,
    }
    assert isinstance(json.loads(to_json(cycle) or ""), str)


def test_columns_of_the_users_own_are_checked() -> None:
    row = failed(0)
    with pytest.raises(InvalidInputError, match="'counts' is one of the result's own"):
        pack([row], extra={"counts": [1]}, extra_types={"counts": "int64"})
    with pytest.raises(InvalidInputError, match="'memory'"):  # without memory too
        schema(extra_types={"memory": "int64"})
    with pytest.raises(InvalidInputError, match="complex"):
        schema(extra_types={"x": "complex"})
    with pytest.raises(InvalidInputError, match="without a type: x"):
        pack([row], extra={"x": [1]})
    with pytest.raises(InvalidInputError, match="without a type: counts"):
        pack([row], extra={"counts": [[1]]})
    with pytest.raises(InvalidInputError, match="2 values for 1 circuits"):
        pack([row], extra={"x": [1, 2]}, extra_types={"x": "int64"})
    batch = pack([row], extra={"x": np.array([0.25])}, extra_types={"x": "float64"})  # type: ignore[dict-item]
    assert batch.column("x").to_pylist() == [0.25]


def test_jobs_that_two_backends_call_alike_are_told_apart() -> None:
    def row(circuit: int, backend: str | None) -> Row:
        return Row(circuit, backend=backend, clbits=1, counts={"0x0": 4}, shots_requested=4)

    batch = pack([row(0, "a"), row(1, "b"), row(2, "a"), row(3, None)])
    batch = batch.append_column("job", job_names([["job-0"], ["job-0"], ["job-0", "job-1"], []]))
    known: dict[tuple[str | None, str], int] = {("a", "job-0"): 0, ("b", "job-0"): 1, ("a", "job-1"): 2}
    assert with_named_jobs(batch, known).column("jobs").to_pylist() == [[0], [1], [0, 2], []]
