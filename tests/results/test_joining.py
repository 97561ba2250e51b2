"""Small batches are joined, so that a task of slow circuits takes no more memory than its rows."""

from __future__ import annotations

import random

import pyarrow as pa

from ray_qjm.results.counts import Row, pack, with_jobs
from ray_qjm.results.joining import MANY, first_circuit, joined
from ray_qjm.results.parts import MemoryParts


def single(circuit: int, register: str) -> pa.RecordBatch:
    row = Row(circuit, clbits=2, registers=register, counts={"0x1": circuit + 1}, backend=f"b{circuit % 3}")
    return with_jobs(pack([row]), [circuit])


def test_neighbours_become_one_batch_with_the_same_rows() -> None:
    batches = [single(i, f'[["r{i % 2}",[0,1]]]') for i in (5, 3, 4, 0, 9)]
    found = joined(batches)
    assert [batch.column("circuit").to_pylist() for batch in found] == [[0], [3, 4, 5], [9]]
    whole = pa.Table.from_batches(found).unify_dictionaries()
    ascending = sorted(batches, key=first_circuit)
    assert whole.equals(pa.Table.from_batches(ascending).unify_dictionaries())


def test_parts_in_any_order_end_as_few_batches() -> None:
    circuits = list(range(4 * MANY))
    random.Random(5).shuffle(circuits)
    parts = MemoryParts(limit=4, on_gate=lambda open_: None)
    for circuit in circuits:
        parts.add(single(circuit, '[["c",[0,1]]]'))
    batches = parts.batches()
    assert len(batches) < 10
    rows = sorted(circuit for batch in batches for circuit in batch.column("circuit").to_pylist())
    assert rows == list(range(4 * MANY))


def test_large_batches_are_left_alone() -> None:
    # Joined they could reach 2**31 bytes, where the offsets of their strings end.
    rows = [Row(i, status="failed", stage="run", error_type="E", error="x" * 300_000) for i in range(4)]
    parts = MemoryParts(limit=4, on_gate=lambda open_: None)
    for first in range(0, 4 * 2 * MANY, 4):
        for i, row in enumerate(rows):
            row.circuit = first + i
        parts.add(with_jobs(pack(rows), []))
    batches = parts.batches()
    assert [batch.num_rows for batch in batches] == [4] * 2 * MANY
