"""What tests submit to the service, and how."""

from __future__ import annotations

import time
from typing import Any

from qiskit.circuit import QuantumCircuit
from qiskit_ibm_runtime import SamplerV2

from ray_qjm.backends.base import Adapter, Submission
from ray_qjm.backends.ibm import IbmAdapter
from ray_qjm.backends.ibm_place import IbmPlace
from ray_qjm.options import IbmBackend
from ray_qjm.planning.errands import Seen

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


def adapter(**fields: Any) -> IbmAdapter:
    """An adapter for the service to which the environment leads; fields of ``IbmBackend``."""
    return IbmAdapter(IbmPlace.of(IbmBackend("ibm_loop", **fields)))


def job(tag: str, *circuits: QuantumCircuit, shots: int = 50) -> Submission:
    return Submission(circuits, [shots] * len(circuits), tag)


def wait_until_ended(one: Adapter, job_id: str, timeout_s: float = 20.0) -> Seen:
    """Poll until a job has ended."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        seen = one.status([job_id])[job_id]
        if seen.state not in ("submitted", "running"):
            return seen
        time.sleep(0.02)
    raise TimeoutError(f"job {job_id} has not ended in {timeout_s} s")
