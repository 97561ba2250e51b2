"""Many small batches made few: slow circuits come back one by one, and each batch takes 30 kB whatever it holds."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

#: A batch of fewer circuits is small: its Arrow and Python objects outweigh its rows.
SMALL = 128
#: So many small ones are joined at once; each row is copied that once.
MANY = 512


def first_circuit(batch: pa.RecordBatch) -> int:
    """Row number of a batch's first circuit."""
    circuit: int = batch.column("circuit")[0].as_py()
    return circuit


def joined(batches: Iterable[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Batches of contiguous circuits, joined where one goes on where another ends; ascending."""
    runs: list[list[pa.RecordBatch]] = []
    stop = -1
    for batch in sorted(batches, key=first_circuit):
        start = first_circuit(batch)
        if start != stop:
            runs.append([])
        runs[-1].append(batch)
        stop = start + batch.num_rows
    return [run[0] if len(run) == 1 else _one(run) for run in runs]


def _one(run: list[pa.RecordBatch]) -> pa.RecordBatch:
    table = pa.Table.from_batches(run).unify_dictionaries().combine_chunks()
    (batch,) = table.to_batches()
    return batch
