"""What tests submit to the service, and how."""

from __future__ import annotations

from typing import Any

from qiskit.circuit import QuantumCircuit
from qiskit_ibm_runtime import SamplerV2

TAG = "task-7f"
SUBMIT = "POST /jobs"
DEPRECATED = "ignore:The SamplerV2 class is deprecated:DeprecationWarning"


def ones(*qubits: int, name: str | None = None, marker: object = None) -> QuantumCircuit:
    """Five qubits, of which these are 1."""
    circuit = QuantumCircuit(5, name=name, metadata={} if marker is None else {"marker": marker})
    for qubit in qubits:
        circuit.x(qubit)
    circuit.measure_all()
    return circuit


def sampler(mode: Any, **environment: Any) -> SamplerV2:
    return SamplerV2(mode=mode, options={"environment": {"job_tags": [TAG], **environment}})


def counts(job: Any, index: int = 0) -> dict[str, int]:
    found: dict[str, int] = job.result(timeout=20, poll_interval=0.1)[index].data.meas.get_counts()
    return found
