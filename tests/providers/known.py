"""The providers that the matrix runs on, as their packages are, and circuits with known counts."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister, transpile

#: Circuits of a task of the matrix, and shots of each.
COUNT, SHOTS = 24, 64


@dataclass(frozen=True)
class Provider:
    """A backend of another package, and what is known of it.

    Attributes:
        name: For the names of tests.
        module: To be imported, or the tests are skipped.
        make: Makes the backend.
        refused: Makes a circuit that compiles for it and that it refuses to run.
        reason: Part of its words then.
        broken: How handing over the object itself fails; ``None``: it survives the way to another process.
        memory: Whether it gives single shots: ``None``: it has no such option; ``False``: it has, and ignores it.
        seeded: Whether the same seed gives a circuit that runs alone the same counts.
        most: Circuits that it takes at once; ``None`` is no limit.
    """

    name: str
    module: str
    make: Callable[[], Any]
    refused: Callable[[], QuantumCircuit]
    reason: str
    broken: str | None = None
    memory: bool | None = None
    seeded: bool = True
    most: int | None = None

    @property
    def installed(self) -> bool:
        """Whether its package is; nothing of it is imported for that."""
        return importlib.util.find_spec(self.module.partition(".")[0]) is not None


def ddsim() -> Any:
    return importlib.import_module("mqt.ddsim").DDSIMProvider().get_backend("qasm_simulator")


def ddsim_by_qdmi() -> Any:
    provider = importlib.import_module("mqt.core.plugins.qiskit").QDMIProvider()
    return provider.get_backend("MQT Core DDSIM QDMI Device")


def menos() -> Any:
    return importlib.import_module("menos.qiskit").MENOSBackend()


def clifft() -> Any:
    return importlib.import_module("clifft_qiskit").ClifftBackend()


def bell() -> QuantumCircuit:
    circuit = QuantumCircuit(2, 2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure([0, 1], [0, 1])
    return circuit


def flipped() -> QuantumCircuit:
    circuit = QuantumCircuit(3, 3)
    circuit.x(0)
    circuit.measure([0, 1, 2], [0, 1, 2])
    return circuit


def crossed() -> QuantumCircuit:
    circuit = QuantumCircuit(2, 2)
    circuit.x(0)
    circuit.measure([0, 1], [1, 0])
    return circuit


def two_registers() -> QuantumCircuit:
    circuit = QuantumCircuit(QuantumRegister(3, "q"), ClassicalRegister(1, "a"), ClassicalRegister(2, "b"))
    circuit.x(1)
    circuit.measure([0, 1, 2], [0, 2, 1])
    return circuit


#: Circuits, and the outcomes that each has.
CIRCUITS: Sequence[tuple[Callable[[], QuantumCircuit], frozenset[str]]] = [
    (bell, frozenset({"00", "11"})),
    (flipped, frozenset({"001"})),
    (crossed, frozenset({"10"})),
    (two_registers, frozenset({"10 0"})),
]


def circuit(index: int) -> QuantumCircuit:
    """The source of a task: these in turn."""
    return CIRCUITS[index % len(CIRCUITS)][0]()


def far_clbit() -> QuantumCircuit:
    """A clbit beyond the number of qubits."""
    circuit = QuantumCircuit(1, 2)
    circuit.x(0)
    circuit.measure(0, 1)
    return circuit


def loose_clbits() -> QuantumCircuit:
    """Clbits of no register."""
    bits = QuantumCircuit(2, 2)
    circuit = QuantumCircuit(bits.qubits, bits.clbits)
    circuit.x(0)
    circuit.measure([0, 1], [0, 1])
    return circuit


def gate_after_measurement() -> QuantumCircuit:
    circuit = QuantumCircuit(1, 2)
    circuit.x(0)
    circuit.measure(0, 0)
    circuit.h(0)
    circuit.measure(0, 1)
    return circuit


def reset_inside() -> QuantumCircuit:
    """It has a layout, and so goes to its backend as it is."""
    circuit = QuantumCircuit(2, 2)
    circuit.x(0)
    circuit.reset(0)
    circuit.measure([0, 1], [0, 1])
    return transpile(circuit, coupling_map=[[0, 1]], optimization_level=1)


PROVIDERS = [
    Provider("ddsim", "mqt.ddsim", ddsim, far_clbit, "injective mapping", broken="has lost", memory=False),
    Provider(
        "ddsim-qdmi",
        "mqt.core.plugins.qiskit",
        ddsim_by_qdmi,
        loose_clbits,
        "Classical registers must partition",
        broken="can't be pickled",
        memory=True,
        seeded=False,
    ),
    Provider("menos", "menos.qiskit", menos, gate_after_measurement, "measure", most=1),
    Provider("clifft", "clifft_qiskit", clifft, reset_inside, "does not support operation 'reset'"),
]
