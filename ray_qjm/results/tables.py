"""A result as one file that other tools read, written a batch at a time: it may be larger than memory."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ray_qjm.results.schema import OWN_COLUMNS
from ray_qjm.results.views import CircuitResult, Part

if TYPE_CHECKING:
    from ray_qjm.results.task_result import TaskResult

#: Rows and bytes of one row group of Parquet, at least, but for the last: many small ones are slow to read.
_GROUP_ROWS = 2**16
_GROUP_BYTES = 2**27

#: Before and after the sweep's parameters, names of files and the like, which stand between.
_FIRST = ("circuit", "name")
_THEN = ("status", "backend", "shots")
_REASON = ("stage", "error_type", "error")


def write_parquet(result: TaskResult, file: IO[bytes]) -> None:
    """All columns of the result's table, and its metadata."""
    writer: pq.ParquetWriter | None = None
    try:
        for group in _groups(result.iter_batches()):
            table = pa.Table.from_batches(group).replace_schema_metadata(result.info)
            if writer is None:
                writer = pq.ParquetWriter(file, table.schema, compression="zstd")
            writer.write_table(table.unify_dictionaries())
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        pq.write_table(result.table, file)


def write_csv(result: TaskResult, file: IO[bytes]) -> None:
    """A line an outcome, as a bit string; of a circuit without counts one line, with the reason."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    try:
        writer: Any = None
        for row in _rows(result, ()):
            counts = row.pop("counts") or {"": None}
            for outcome, count in counts.items():
                reason = {name: row[name] for name in _REASON}
                line = {
                    **{name: value for name, value in row.items() if name not in _REASON},
                    "outcome": outcome,
                    "count": count,
                    **reason,
                }
                if writer is None:
                    writer = csv.DictWriter(text, list(line))
                    writer.writeheader()
                writer.writerow(line)
    finally:
        text.flush()
        text.detach()


def write_json(result: TaskResult, file: IO[bytes]) -> None:
    """JSON Lines: an object a circuit, with ``counts`` by bit string, or ``null`` and the reason."""
    for row in _rows(result, ("seed", "metadata")):
        row["metadata"] = json.loads(row["metadata"] or "{}")
        finite = {name: None if _is_no_number(value) else value for name, value in row.items()}
        file.write(json.dumps(finite).encode() + b"\n")


#: By what users call them.
WRITERS: dict[str, Callable[[TaskResult, IO[bytes]], None]] = {
    "parquet": write_parquet,
    "csv": write_csv,
    "json": write_json,
}


#: Tables of a result beside that of its circuits, which may be many and are written a batch at a time.
OTHERS: dict[str, Callable[[TaskResult], pa.Table]] = {
    "jobs": lambda result: result.jobs,
    "failures": lambda result: result.failures,
}


def write_other(table: pa.Table, kind: str, file: IO[bytes]) -> None:
    """Write a table of ``OTHERS`` as one of ``WRITERS`` names it; in CSV and JSON times are ISO 8601."""
    if kind == "parquet":
        pq.write_table(table, file, compression="zstd")
        return
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    try:
        lines = csv.DictWriter(text, table.column_names)
        if kind == "csv":
            lines.writeheader()
        for batch in table.to_batches():
            for row in batch.to_pylist():
                plain = {name: _as_text(value) for name, value in row.items()}
                if kind == "csv":
                    lines.writerow(plain)
                else:
                    text.write(json.dumps(plain) + "\n")
    finally:
        text.flush()
        text.detach()


def _as_text(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else None if _is_no_number(value) else value


def _rows(result: TaskResult, more: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Each row's plain values and its counts; ``memory`` too where it was kept."""
    start = 0
    for batch in result.iter_batches():
        names = batch.schema.names
        extra = [name for name in names if name not in OWN_COLUMNS]
        columns = {
            name: batch.column(name).to_pylist() for name in (*_FIRST, *extra, *_THEN, *more, *_REASON)
        }
        part = Part(batch, start)
        for at in range(batch.num_rows):
            row = {name: values[at] for name, values in columns.items()}
            view = CircuitResult(part, at)
            row["counts"] = view.counts() if part.have_counts[at] else None
            if more and view.has_memory:
                row["memory"] = view.memory()
            yield row
        start += batch.num_rows


def _groups(batches: Iterator[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    group: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        group.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, rows, size = [], 0, 0
    if group:
        yield group


def _is_no_number(value: object) -> bool:
    """JSON has no infinity, and nothing that is not a number."""
    return isinstance(value, float) and not math.isfinite(value)
