"""The circuits of that driver, for workers to import."""

from __future__ import annotations

from qiskit import QuantumCircuit

COUNT = 5000
SHOTS = 20
PENDING = 3


def marked(index: int) -> QuantumCircuit:
    """Qubits are 1 where the index's bits are; the service counts how often each marker ran."""
    circuit = QuantumCircuit(5, metadata={"marker": index})
    for qubit in range(5):
        if index >> qubit & 1:
            circuit.x(qubit)
    circuit.measure_all()
    return circuit
