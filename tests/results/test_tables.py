"""A result as one file: every row is there, in words that other tools read."""

from __future__ import annotations

import csv
import io
import json

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_qjm import TaskResult
from ray_qjm.results import tables
from ray_qjm.results.row import Row
from tests.results.building import result_of
from tests.storing import rows_of


def result(memory: bool = False) -> TaskResult:
    rows = [
        Row(
            0,
            backend="aer",
            clbits=2,
            registers='[["c",[0,1]]]',
            shots_requested=3,
            counts={"0x0": 1, "0x3": 2},
        ),
        Row(
            1, status="failed", shots_requested=3, stage="build", error_type="KeyError", error="no\nsuch, key"
        ),
        Row(
            2,
            backend="aer",
            clbits=3,
            registers='[["a",[0]],["b",[1,2]]]',
            shots_requested=3,
            counts={"0x1": 3},
            memory=["0x1"] * 3 if memory else None,
            seed=2**63 + 1,
            name="mine",
            metadata={"depth": 3},
        ),
    ]
    extra = {"theta": [0.5, float("nan"), None]}
    return result_of(rows, part=2, extra=extra, extra_types={"theta": "float64"}, memory=memory)


def written(kind: str, found: TaskResult) -> bytes:
    sink = io.BytesIO()
    tables.WRITERS[kind](found, sink)
    return sink.getvalue()


def test_parquet_is_the_table_with_its_metadata() -> None:
    found = result(memory=True)
    table = pq.read_table(io.BytesIO(written("parquet", found)))
    again = TaskResult(table.to_batches(), info={})
    assert again.table.schema.equals(found.table.schema)
    assert str(rows_of(again).to_pylist()) == str(rows_of(found).to_pylist())  # a NaN equals nothing
    assert table.schema.metadata[b"task_id"] == b"t1" and b"sql" in table.schema.metadata


def test_small_batches_share_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_GROUP_ROWS", 100)
    rows = [Row(i, backend=f"b{i}", clbits=1, counts={"0x1": 1}, shots_requested=1) for i in range(250)]
    found = result_of(rows, part=1)
    file = pq.ParquetFile(io.BytesIO(written("parquet", found)))
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [100, 100, 50]
    assert file.read().column("backend").cast(pa.string()).to_pylist() == [f"b{i}" for i in range(250)]


def test_csv_has_a_line_an_outcome_and_one_a_failure() -> None:
    lines = list(csv.DictReader(io.StringIO(written("csv", result()).decode(), newline="")))
    assert [(line["circuit"], line["outcome"], line["count"]) for line in lines] == [
        ("0", "00", "1"),
        ("0", "11", "2"),
        ("1", "", ""),
        ("2", "00 1", "3"),
    ]
    assert list(lines[0]) == (
        [
            "circuit",
            "name",
            "theta",
            "status",
            "backend",
            "shots",
            "outcome",
            "count",
            "stage",
            "error_type",
            "error",
        ]
    )
    assert lines[2]["error"] == "no\nsuch, key" and lines[2]["stage"] == "build"
    assert lines[3]["name"] == "mine" and lines[0]["theta"] == "0.5"
    assert pl.read_csv(written("csv", result())).get_column("count").sum() == 6


def test_json_has_an_object_a_circuit() -> None:
    lines = [json.loads(line) for line in written("json", result(memory=True)).splitlines()]
    assert [line["counts"] for line in lines] == [{"00": 1, "11": 2}, None, {"00 1": 3}]
    assert lines[1]["error_type"] == "KeyError" and lines[1]["theta"] is None
    assert lines[2]["seed"] == 2**63 + 1 and lines[2]["metadata"] == {"depth": 3}
    assert lines[2]["memory"] == ["00 1"] * 3 and "memory" not in lines[0]


def test_an_empty_result_is_an_empty_file() -> None:
    found = TaskResult([], info={})
    assert pq.read_table(io.BytesIO(written("parquet", found))).num_rows == 0
    assert written("csv", found) == written("json", found) == b""
