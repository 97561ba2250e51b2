"""How much memory a simulation takes, where that is known.

A Ray task reserves it as a Ray resource, so that wide circuits wait for each other instead of driving a node
out of memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qiskit import QuantumCircuit

#: Bytes that a chunk may use without reserving them: what a worker process takes anyhow is of this size, and
#: reserving for each narrow circuit would cost a Ray task of its own.
FREE_BYTES = 2**28

#: Narrower circuits are never asked about: a density matrix of 12 qubits takes FREE_BYTES.
_NARROW = 13

_AMPLITUDE = {"double": 16, "single": 8}
#: How many times n a method's 2**n amplitudes are; methods that aren't here don't grow like that.
_EXPONENT = {"automatic": 1, "statevector": 1, "density_matrix": 2, "unitary": 2, "superop": 4}
_CLIFFORD = frozenset(
    {"barrier", "cx", "cy", "cz", "dcx", "delay", "ecr", "h", "id", "iswap", "measure", "pauli", "reset"}
    | {"s", "sdg", "swap", "sx", "sxdg", "x", "y", "z"}
)


def simulation_bytes(backend: Any, run_options: Mapping[str, Any], circuit: QuantumCircuit) -> int:
    """Bytes that simulating ``circuit`` takes; 0 where it is little or nobody knows.

    Known are Aer's methods, the fake devices (which run on Aer) and ``BasicSimulator``; of qubits, those
    count that an instruction acts on, since Aer leaves out idle ones.

    Args:
        backend: The backend that will run it.
        run_options: What its ``run`` is told beside the circuits.
        circuit: Compiled for that backend.
    """
    if circuit.num_qubits < _NARROW:
        return 0
    package = type(backend).__module__
    if package.startswith("qiskit.providers.basic_provider"):
        return int(2**circuit.num_qubits) * _AMPLITUDE["double"]
    if not package.startswith(("qiskit_aer", "qiskit_ibm_runtime.fake_provider")):
        return 0
    option = {**dict(backend.options), **run_options}.get
    method = option("method") or "automatic"
    if (option("device") or "CPU") != "CPU" or method not in _EXPONENT:
        return 0
    if method == "automatic" and circuit.count_ops().keys() <= _CLIFFORD:
        return 0  # Aer takes the stabilizer method for it
    size = _AMPLITUDE.get(option("precision") or "double", 16)
    return int(2 ** (active_qubits(circuit) * _EXPONENT[method])) * size


def active_qubits(circuit: QuantumCircuit) -> int:
    """Number of qubits that some instruction other than a barrier acts on."""
    found = set()
    for instruction in circuit.data:
        if instruction.name != "barrier":
            found.update(instruction.qubits)
    return len(found)
