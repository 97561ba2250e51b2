"""Many small batches made few: each takes 25 to 50 kB besides its rows, and a million circuits make thousands."""

from __future__ import annotations

import mmap
from collections.abc import Iterable

import pyarrow as pa

#: A batch of fewer circuits and bytes is small: what it takes besides its rows still shows. The bytes also keep
#: what is joined far from 2**31, where the offsets of a column of strings end.
SMALL = 4096
SMALL_BYTES = 2**20
#: So many small ones are joined at once: they lie in malloc's arenas, one a thread, each of which grows to hold
#: as many (64 at once: 75 MB more in the driver of a million circuits). A row is copied once where chunks have
#: SMALL / MANY circuits, and up to SMALL / 2 MANY times where they have one, which takes 40 us a chunk.
MANY = 16


def first_circuit(batch: pa.RecordBatch) -> int:
    """Row number of a batch's first circuit."""
    circuit: int = batch.column("circuit")[0].as_py()
    return circuit


def is_small(batch: pa.RecordBatch) -> bool:
    """Whether a batch should be joined with its neighbours."""
    return bool(batch.num_rows < SMALL and batch.get_total_buffer_size() < SMALL_BYTES)


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
    return _in_one_block(batch)


def _in_one_block(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch in memory that the kernel gives for it alone.

    Arrow's allocator rounds each column up: 15 % more memory over a million circuits.
    """
    count = pa.MockOutputStream()
    with pa.ipc.new_stream(count, batch.schema) as writer:
        writer.write_batch(batch)
    block = pa.py_buffer(mmap.mmap(-1, count.size()))
    with pa.ipc.new_stream(pa.FixedSizeBufferWriter(block), batch.schema) as writer:
        writer.write_batch(batch)
    with pa.ipc.open_stream(block) as reader:
        return reader.read_next_batch()
