"""Samplers as services: bits by register come back as counts by clbit, however the registers lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Clbit, Qubit
from qiskit.primitives import (
    BackendSamplerV2,
    BitArray,
    DataBin,
    PrimitiveResult,
    SamplerPubResult,
    StatevectorSampler,
)
from qiskit_aer import AerSimulator
from qiskit_ibm_runtime.executor_sampler import Sampler

import ray_qjm
from ray_qjm import BackendSpec, Limits
from ray_qjm.backends.pub_bits import LOOSE
from ray_qjm.errors import BackendLoadError, InvalidInputError, PartialResultWarning
from tests.services.hosted import BITS, expected, marked
from tests.services.scene import Scene, check_counts, options, run


def registers(index: int) -> QuantumCircuit:
    """Bits 0 and 2 are set; registers of two and one bits, a loose bit between them, and an alias of two."""
    bits = [Clbit() for _ in range(4)]
    circuit = QuantumCircuit(
        [Qubit() for _ in range(4)],
        bits,
        ClassicalRegister(bits=bits[:2], name="low"),
        ClassicalRegister(bits=[bits[3]], name="high"),
        ClassicalRegister(bits=[bits[3], bits[0]], name="alias"),
        name=f"r{index}",
    )
    circuit.x([0, 2])
    circuit.measure(range(4), range(4))
    return circuit


def wide(index: int) -> QuantumCircuit:
    """70 clbits over 3 qubits; bits 0, 66 and 69 are set."""
    circuit = QuantumCircuit(QuantumRegister(3, "q"), ClassicalRegister(40, "a"), ClassicalRegister(30, "b"))
    circuit.x(0)
    for clbit in (0, 66, 69):
        circuit.measure(0, clbit)
    circuit.measure(1, 1)
    return circuit


def sampler(services: Scene, made: Any, **more: Any) -> BackendSpec:
    return services.spec(connect=made, **more)


@pytest.mark.parametrize("kind", ["statevector", "backend"])
def test_counts_and_shots_of_a_sampler(services: Scene, kind: str) -> None:
    made = StatevectorSampler(seed=1) if kind == "statevector" else BackendSamplerV2(backend=AerSimulator())
    result = run(sampler(services, made, limits=Limits(max_circuits=6)), 15, memory=True)
    check_counts(result)
    assert result.get_memory(5) == ["000101"] * 10
    assert result.jobs.num_rows >= 3


def test_registers_that_overlap_and_loose_bits(services: Scene) -> None:
    result = run(sampler(services, BackendSamplerV2(backend=AerSimulator())), 3, circuits=registers)
    aer = ray_qjm.run(registers, "aer", count=3, shots=10, seed=1, progress=False)
    assert result.get_counts() == aer.get_counts()
    assert result.table.column("outcomes").to_pylist() == [[0b0101]] * 3
    assert result.table.column("registers").to_pylist() == aer.table.column("registers").to_pylist()


def test_more_than_64_clbits(services: Scene) -> None:
    result = run(sampler(services, BackendSamplerV2(backend=AerSimulator())), 2, circuits=wide, memory=True)
    value = 1 | 1 << 66 | 1 << 69
    assert result.table.column("outcomes_wide").to_pylist() == [[value.to_bytes(9, "big")]] * 2
    (outcome,) = result.get_counts(1)
    assert int(outcome.replace(" ", ""), 2) == value


def test_a_circuit_that_a_sampler_refuses_fails_alone(services: Scene) -> None:
    with pytest.warns(PartialResultWarning):
        result = run(sampler(services, StatevectorSampler(seed=1)), 9, circuits=one_resets_in_the_middle)
    assert [row.status for row in result].count("failed") == 1
    assert result[4].status == "failed" and result[4].error
    check_counts(result, but=[4])


def one_resets_in_the_middle(index: int) -> QuantumCircuit:
    circuit = marked(index)
    if index == 4:
        circuit.measure(0, 0)
        circuit.x(0)
        circuit.measure(0, 0)
    return circuit


def test_array_of_shots_is_mixed_in_one_job(services: Scene) -> None:
    result = run(sampler(services, StatevectorSampler(seed=1)), 4, shots=[1, 2, 3, 4])
    assert result.get_counts() == [expected(index, index + 1) for index in range(4)]


@pytest.mark.parametrize("kind", ["known to refuse", "said to refuse"])
def test_array_of_shots_makes_jobs_of_one_number_where_the_sampler_wants_it(
    services: Scene, kind: str
) -> None:
    if kind == "known to refuse":
        spec = sampler(services, Sampler(mode=AerSimulator()))
    else:
        spec = sampler(services, Uniform(), run_options={"mixed_shots": False})
    result = run(spec, 6, shots=[1, 2, 1, 2, 1, 2])
    assert result.get_counts() == [expected(index, 1 + index % 2) for index in range(6)]
    assert sorted(zip(*(result.jobs[name].to_pylist() for name in ("circuits", "shots")), strict=True)) == [
        (3, 3),
        (3, 6),
    ]
    assert set(result.jobs["state"].to_pylist()) == {"done"}


class Uniform(StatevectorSampler):  # type: ignore[misc]
    """Refuses PUBs of different shots."""

    def run(self, pubs: Any, *, shots: int | None = None) -> Any:
        if len({pub[2] for pub in pubs}) > 1:
            raise ValueError("All pubs must have the same shots")
        return super().run(pubs, shots=shots)


def test_an_option_that_a_sampler_does_not_know_is_refused(services: Scene) -> None:
    with pytest.raises(InvalidInputError, match="has 'fooo', which it doesn't know"):
        run(BackendSpec(StatevectorSampler(), run_options={"fooo": 1}), 1)
    with pytest.raises(BackendLoadError, match="has 'fooo', which it doesn't know"):
        run(sampler(services, StatevectorSampler, run_options={"fooo": 1}), 1)


class Spoiling(StatevectorSampler):  # type: ignore[misc]
    """What it gives for circuits 1 to 4 can't be theirs."""

    def run(self, pubs: Any, *, shots: int | None = None) -> Any:
        job = super().run(pubs, shots=shots)
        found = [*job.result()]
        for at, data in enumerate(
            [
                DataBin(),
                DataBin(c=np.zeros((10, 2))),
                DataBin(c=BitArray.from_samples([1] * 10, num_bits=32)),
                DataBin(d=found[4].data.c),
            ],
            start=1,
        ):
            found[at] = SamplerPubResult(data)
        job.result = lambda: PrimitiveResult(found)
        return job


def test_what_cannot_be_read_costs_one_circuit_its_counts(services: Scene) -> None:
    with pytest.warns(PartialResultWarning, match="4 of 8 circuits"):
        result = run(sampler(services, Spoiling(seed=1)), 8)
    check_counts(result, but=range(1, 5))
    assert [result[index].error for index in range(1, 5)] == [
        "the result has registers [], the circuit ['c']",
        "register 'c' holds a ndarray in the result, not bits",
        "register 'c' has 32 bits in the result, and 6 in the circuit",
        "the result has registers ['d'], the circuit ['c']",
    ]
    assert result.jobs["state"].to_pylist() == ["done"]


def odd_registers(index: int) -> QuantumCircuit:
    """A register without bits, or one that is called as ours are, beside a loose clbit."""
    if index == 1:
        circuit = QuantumCircuit(QuantumRegister(1), ClassicalRegister(0, "none"), ClassicalRegister(1, "c"))
    elif index == 2:
        circuit = QuantumCircuit([Qubit()], [Clbit()], ClassicalRegister(1, LOOSE))
    else:
        circuit = QuantumCircuit(1, 1)
    circuit.x(0)
    circuit.measure(0, 0)
    return circuit


def test_odd_registers(services: Scene) -> None:
    result = run(sampler(services, StatevectorSampler(seed=1)), 4, circuits=odd_registers)
    assert result.table.column("outcomes").to_pylist() == [[1]] * 4
    assert result.table.column("clbits").to_pylist() == [1, 1, 2, 1]
    assert result.jobs.num_rows == 1


def test_placement_on_workers_is_refused(services: Scene) -> None:
    with pytest.raises(InvalidInputError, match=r"placement of sampler .* is 'workers'"):
        run(BackendSpec(StatevectorSampler(), placement="workers"), 1)


def test_sampler_beside_a_simulator_on_workers(services: Scene) -> None:
    result = run([sampler(services, StatevectorSampler(seed=1)), "aer"], 60, options=options(max_chunk=4))
    check_counts(result)
    used = set(result.table.column("backend").to_pylist())
    assert used == {"service", "aer"}
    assert BITS == 6
