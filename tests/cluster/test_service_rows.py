"""Rows out of the answers of services, without Ray."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qiskit import QuantumCircuit

from ray_qjm.backends.base import Answer
from ray_qjm.backends.registry import choose
from ray_qjm.backends.run_api import RunAdapter
from ray_qjm.backends.shadow import ShadowOf
from ray_qjm.circuits.sources import make_source
from ray_qjm.cluster.messages import TaskSetup, read_batches
from ray_qjm.cluster.service_work import Result, ServiceWorker
from ray_qjm.options import BackendSpec, TranspileOptions
from ray_qjm.planning.assembly import Whole
from ray_qjm.planning.events import Chunk
from ray_qjm.planning.orders import Order, Run
from tests.backends.strange import Strange

COUNT = 3


def circuit(index: int) -> QuantumCircuit:
    made = QuantumCircuit(2, 2)
    made.x(0)
    made.measure([0, 1], [0, 1])
    return made


def worker() -> ServiceWorker:
    source: Any = make_source(circuit, COUNT)
    (choice,) = choose(BackendSpec(Strange, placement="actor"))
    spec = replace(choice.spec, backend_or_factory=None)
    facts = RunAdapter(Strange(), {}).facts()
    backends = [(choice.name, spec, ShadowOf(facts))]
    return ServiceWorker(TaskSetup(source, backends, TranspileOptions(), 7, 10, False, {}), 0)


def test_bit_strings_are_as_long_as_their_circuit_has_clbits_in_each_slice_of_its_shots() -> None:
    """Circuit 0 has a good slice and a bad one, 1 good ones, 2 one of each way to write outcomes."""
    made = worker()
    chunk = Chunk(0, COUNT)
    _, _, sheet = made.prepare(chunk, None)
    order = Order(1, (Run(0, COUNT, 5, 0), Run(0, COUNT, 5, 1)))
    good, bad, number = Answer({"0x1": 5}, bits=2), Answer({"0x1": 5}, bits=3), Answer({"0x1": 5})
    raw = [good, good, good, bad, good, number]
    (outcome,), _ = made.collect(Result(order, "job", raw), [Whole(chunk, (1,), ())], [sheet], [], [])
    rows = [row for batch in read_batches(outcome.data) for row in batch.to_pylist()]
    assert [row["status"] for row in rows] == ["failed", "done", "done"]
    assert rows[0]["error"] == "Strange gave outcomes of 3 bits for a circuit of 2 clbits"
    assert [row["shots"] for row in rows[1:]] == [10, 10]
