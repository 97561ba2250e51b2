"""What tests look for in a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ray_qjm import TaskResult


def rows_of(result: TaskResult, but: Sequence[str] = ()) -> pa.Table:
    """The rows, without what tells one run from another."""
    table = result.table.drop(["jobs", *but]).replace_schema_metadata(None).combine_chunks()
    # Dictionaries in the order of first use, whatever the chunks were.
    return pa.table({name: _plain(table.column(name)) for name in table.schema.names})


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def check_store(store: Path, count: int, beside: Sequence[str] = ()) -> None:
    """Every circuit stands in just one file, every file counts, and no other file is there but some."""
    result = TaskResult.open(store)
    files = result.files()
    circuits = [c for file in files for c in pq.read_table(file, columns=["circuit"]).column(0).to_pylist()]
    assert sorted(circuits) == list(range(count))
    assert len(result) == count
    found = {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()}
    named = {str(Path(file).relative_to(store)) for file in files}
    epochs = sorted(int(Path(name).stem) for name in found if name.startswith("epochs/"))
    records = {f"{folder}/{epoch}.json" for folder in ("epochs", "ends") for epoch in epochs}
    expected = {"task.json", f"jobs/{epochs[-1]}.parquet", *beside}
    assert found - named - records - {"shots.npy"} == expected
