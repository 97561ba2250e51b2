"""What a worker does with a chunk, without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit.random import random_circuit

from ray_qjm.backends.registry import choose
from ray_qjm.circuits.identity import digest
from ray_qjm.circuits.sources import make_source
from ray_qjm.cluster import chunk_work
from ray_qjm.cluster.chunk_work import ChunkWorker
from ray_qjm.cluster.messages import Outcome, StoreSetup, TaskSetup, read_batches
from ray_qjm.options import TranspileOptions
from ray_qjm.planning.events import Chunk, Deferred
from ray_qjm.results.lease import epoch_name
from ray_qjm.results.objects import Objects

COUNT = 40
BROKEN, WIDE = 11, (17, 23)


def circuit(index: int, rng: np.random.Generator) -> QuantumCircuit:
    if index == BROKEN:
        raise ValueError("broken on purpose")
    if index in WIDE:  # 2**26 amplitudes: a gigabyte, which no chunk has unless it reserves it
        wide = QuantumCircuit(26, 1)
        wide.ry(0.1, range(26))
        wide.measure(0, 0)
        return wide
    return random_circuit(3, 3, measure=True, seed=int(rng.integers(2**32)))


def worker(store: StoreSetup | None = None) -> ChunkWorker:
    source: Any = make_source(circuit, COUNT)
    backends = [(choice.name, choice.spec, choice.load) for choice in choose(["aer"], memory=False)]
    return ChunkWorker(TaskSetup(source, backends, TranspileOptions(), 7, 100, False, {}, store), 0)


def rows(outcome: Outcome) -> pa.Table:
    return pa.Table.from_batches(read_batches(outcome.data)).unify_dictionaries()


@pytest.mark.parametrize("at_once", [1, 7, 18, COUNT])
def test_rows_are_the_same_however_few_circuits_are_worked_off_at_once(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeds, the broken circuit and those that wait for memory, on both sides of a cut."""
    whole = worker().run(Chunk(0, COUNT), None, None)
    monkeypatch.setattr(chunk_work, "AT_ONCE", at_once)
    cut = worker().run(Chunk(0, COUNT), None, None)
    assert rows(cut).equals(rows(whole))
    assert (cut.done, cut.shots) == (whole.done, whole.shots) == (COUNT - 3, 100 * (COUNT - 3))
    assert cut.failures == whole.failures and [failure.start for failure in cut.failures] == [BROKEN]
    assert cut.deferred == whole.deferred == tuple(Deferred(i, i + 1, 2**26 * 16) for i in WIDE)


def test_no_more_circuits_are_alive_than_are_worked_off_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    made = worker()
    run = made._backend.run

    def counted(ready: Any) -> Any:
        asked.append(len(ready))
        return run(ready)

    monkeypatch.setattr(chunk_work, "AT_ONCE", 10)
    monkeypatch.setattr(made._backend, "run", counted)
    made.run(Chunk(0, COUNT), None, None)
    assert asked == [10, 8, 9, 10]


def test_a_chunk_tells_the_seconds_of_its_stages() -> None:
    """Its own, in a worker that has run others."""
    found = worker()
    for _ in range(2):
        outcome = found.run(Chunk(0, COUNT), None, None)
        assert set(outcome.stages) == {"build", "transpile", "run", "pack"}
        assert all(seconds > 0 for seconds in outcome.stages.values())
        assert sum(outcome.stages.values()) <= outcome.seconds
        assert outcome.size == len(outcome.data) > 0


def test_a_chunk_for_a_store_tells_what_it_wrote(tmp_path: Path) -> None:
    objects = Objects(str(tmp_path))
    record = b"an epoch's record"
    objects.create(epoch_name(1), record)
    written = worker(StoreSetup(objects, "t", 1, digest(record))).run(Chunk(0, 10), None, None)
    assert set(written.stages) == {"build", "transpile", "run", "pack", "write"}
    assert written.data == b"" and written.stored == ((0, 10),)
    assert written.size == sum(part.stat().st_size for part in (tmp_path / "parts").rglob("*.parquet"))
