"""Clients of ``tests.services.process``: an adapter with tags, and a ``BackendV2`` that knows nothing of them."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit import Measure, Parameter
from qiskit.circuit.library import CXGate, RZGate, XGate
from qiskit.providers import BackendV2, JobStatus, JobV1, Options
from qiskit.result import Result
from qiskit.result.models import ExperimentResult, ExperimentResultData
from qiskit.transpiler import Target

from ray_qjm.backends.base import Answer, Facts, Submission
from ray_qjm.backends.codes import judge
from ray_qjm.circuits.payload import to_qpy
from ray_qjm.options import Limits
from ray_qjm.planning.errands import Seen
from ray_qjm.planning.verdicts import Verdict
from tests.services.process import seen
from tests.services.wire import Where

#: Bits of a marked circuit, and qubits of the device.
BITS = 6

_STATUS = {
    "submitted": JobStatus.QUEUED,
    "running": JobStatus.RUNNING,
    "done": JobStatus.DONE,
    "failed": JobStatus.ERROR,
    "cancelled": JobStatus.CANCELLED,
}


def marked(index: int) -> QuantumCircuit:
    """A circuit that measures its number and carries it in its name; devices here have no swap."""
    circuit = QuantumCircuit(BITS, BITS, name=f"c{index}")
    for bit in range(BITS):
        if index >> bit & 1:
            circuit.x(bit)
    circuit.swap(0, 1)
    circuit.measure([1, 0, *range(2, BITS)], range(BITS))
    return circuit


def expected(index: int, shots: int) -> dict[str, int]:
    """Its counts."""
    return {f"{index % 2**BITS:0{BITS}b}": shots}


def line_of_qubits() -> Target:
    """A small device: neighbours only, and few gates."""
    target = Target(num_qubits=BITS)
    for gate in (XGate(), RZGate(Parameter("angle")), Measure()):
        target.add_instruction(gate, {(qubit,): None for qubit in range(BITS)})
    pairs = [(qubit, qubit + 1) for qubit in range(BITS - 1)]
    target.add_instruction(CXGate(), dict.fromkeys([*pairs, *((b, a) for a, b in pairs)]))
    return target


def send(where: Where, tag: str, circuits: Sequence[QuantumCircuit], shots: Sequence[int]) -> str:
    """Submit a job as a client does; raises what the service says, or that it says nothing."""
    answer, takes_s = where.ask("submit", os.getpid(), tag, to_qpy(circuits), list(shots))
    time.sleep(takes_s)
    if isinstance(answer, Exception):
        raise answer
    return str(answer)


class HostedAdapter:
    """Speaks to the service and finds its jobs by their tag.

    Args:
        where: The service.
        facts: Of it.
    """

    def __init__(self, where: Where, facts: Facts) -> None:
        self._where = where
        self._facts = facts

    def facts(self) -> Facts:
        """See ``Adapter``."""
        return self._facts

    def submit(self, job: Submission) -> str:
        """See ``Adapter``."""
        return send(self._where, job.tag, job.circuits, job.shots)

    def find(self, tag: str) -> list[str] | None:
        """See ``Adapter``."""
        found: list[str] = self._where.ask("find", tag)
        return found if self._facts.tagged else None

    def status(self, job_ids: Sequence[str]) -> Mapping[str, Seen]:
        """See ``Adapter``."""
        return seen(self._where, job_ids)

    def fetch(self, job_id: str) -> list[Answer]:
        """See ``Adapter``."""
        return [Answer({value: shots}) for value, shots in self._where.ask("fetch", job_id)]

    def forget(self, job_id: str) -> None:
        """Nothing is kept here."""

    def cancel(self, job_id: str) -> None:
        """See ``Adapter``."""
        self._where.ask("cancel", job_id)

    def classify(self, error: BaseException) -> Verdict:
        """See ``Adapter``."""
        return judge(error, "unknown")


@dataclass(frozen=True)
class Connect:
    """A factory of ``HostedAdapter``.

    Attributes:
        where: The service.
        limits: As it tells them.
        mixed: See ``Facts``; so for the others.
        tagged: See there.
        job_s: See there.
        execution_s: See there.
        refuses: Why it can't be connected to.
    """

    where: Where
    limits: Limits = field(default_factory=Limits)
    mixed: bool = False
    tagged: bool = True
    job_s: float = 0.0
    execution_s: float = 0.0
    refuses: str | None = None

    def __call__(self) -> HostedAdapter:
        """Connect."""
        if self.refuses is not None:
            raise PermissionError(self.refuses)
        facts = Facts(
            "hosted",
            line_of_qubits(),
            self.limits,
            mixed=self.mixed,
            tagged=self.tagged,
            recalled=True,
            job_s=self.job_s,
            execution_s=self.execution_s,
        )
        return HostedAdapter(self.where, facts)


class PlainJob(JobV1):  # type: ignore[misc]
    """A job of ``Plain``."""

    def __init__(self, backend: Plain, job_id: str) -> None:
        super().__init__(backend, job_id)
        self._where = backend.where

    def submit(self) -> None:
        """Done already."""

    def status(self) -> JobStatus:
        """As the service says."""
        return _STATUS[str(seen(self._where, [self.job_id()])[self.job_id()].state)]

    def cancel(self) -> None:
        """Ask the service."""
        self._where.ask("cancel", self.job_id())

    def result(self) -> Result:
        """Counts; raises why there are none."""
        told = seen(self._where, [self.job_id()])[self.job_id()]
        if told.verdict is not None:
            raise RuntimeError(told.verdict.reason)
        results = [
            ExperimentResult(
                shots=shots,
                success=True,
                data=ExperimentResultData(counts={value: shots}, memory=[value] * shots),
            )
            for value, shots in self._where.ask("fetch", self.job_id())
        ]
        return Result(results=results, backend_name="plain", job_id=self.job_id(), success=True)


class Plain(BackendV2):  # type: ignore[misc]
    """Qiskit's interface and nothing else.

    Args:
        where: The service.
        max_circuits: As the interface has it.
    """

    def __init__(self, where: Where, max_circuits: int | None = None) -> None:
        super().__init__(name="plain")
        self.where = where
        self._most = max_circuits
        self._target = line_of_qubits()

    @property
    def target(self) -> Target:
        """A small one."""
        return self._target

    @property
    def max_circuits(self) -> int | None:
        """Of one job."""
        return self._most

    @classmethod
    def _default_options(cls) -> Options:
        return Options(shots=1024, memory=False)

    def run(self, run_input: list[QuantumCircuit], **options: Any) -> PlainJob:
        """Submit a job; nobody learns its tag."""
        shots = [options["shots"]] * len(run_input)
        return PlainJob(self, send(self.where, secrets.token_hex(8), run_input, shots))


class Recalling(Plain):
    """As many providers' backends: jobs can be had again by their id."""

    def retrieve_job(self, job_id: str) -> PlainJob:
        """A job that any process has submitted."""
        return PlainJob(self, job_id)
