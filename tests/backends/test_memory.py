"""What a simulation takes."""

from __future__ import annotations

from typing import Any

import pytest
from qiskit import QuantumCircuit
from qiskit.providers.basic_provider import BasicSimulator
from qiskit_aer import AerSimulator
from qiskit_ibm_runtime.fake_provider import FakeTorino

from ray_qjm.backends.memory import FREE_BYTES, simulation_bytes
from tests.backends.strange import Strange


def wide(qubits: int, *, clifford: bool = False, idle: int = 0) -> QuantumCircuit:
    circuit = QuantumCircuit(qubits + idle, 1)
    circuit.h(range(qubits))
    if not clifford:
        circuit.t(0)
    circuit.barrier()
    circuit.measure(0, 0)
    return circuit


@pytest.mark.parametrize(
    ("backend", "circuit", "expected"),
    [
        (AerSimulator(), wide(30), 16 * 2**30),
        (AerSimulator(method="statevector"), wide(30, clifford=True), 16 * 2**30),
        (AerSimulator(), wide(100, clifford=True), 0),
        (AerSimulator(precision="single"), wide(30), 8 * 2**30),
        (AerSimulator(method="density_matrix"), wide(15), 16 * 4**15),
        (AerSimulator(method="matrix_product_state"), wide(60), 0),
        (AerSimulator(method="stabilizer"), wide(60, clifford=True), 0),
        (BasicSimulator(), wide(24), 16 * 2**24),
        (FakeTorino(), wide(20, idle=100), 16 * 2**20),
        (Strange(), wide(60), 0),
    ],
)
def test_bytes_follow_method_and_width(backend: Any, circuit: QuantumCircuit, expected: int) -> None:
    assert simulation_bytes(backend, {}, circuit) == expected


def test_run_options_go_before_the_backends_own() -> None:
    backend = AerSimulator()
    assert simulation_bytes(backend, {"method": "matrix_product_state"}, wide(40)) == 0
    assert simulation_bytes(backend, {"device": "GPU"}, wide(40)) == 0


def test_widths_that_are_never_asked_about_fit_into_what_is_free() -> None:
    assert FREE_BYTES >= 16 * 4**12
