"""A backend of a package that this project has never seen: BackendV2 and nothing else, and scriptable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit import Measure
from qiskit.circuit.library import XGate
from qiskit.providers import BackendV2, JobStatus, JobV1, Options
from qiskit.result import Result
from qiskit.result.models import ExperimentResult, ExperimentResultData
from qiskit.transpiler import Target

Answer = Callable[[QuantumCircuit, int, dict[str, Any]], ExperimentResult]


def counted(circuit: QuantumCircuit, position: int, options: dict[str, Any]) -> ExperimentResult:
    """Each bit is set that an X acts on."""
    value = 0
    for instruction in circuit.data:
        if instruction.name == "x":
            value |= 1 << circuit.find_bit(instruction.qubits[0]).index
    return answer({hex(value): options["shots"]}, options["shots"])


def answer(counts: dict[str, int] | None, shots: int, **more: Any) -> ExperimentResult:
    data = ExperimentResultData() if counts is None else ExperimentResultData(counts=counts)
    return ExperimentResult(shots=shots, success=more.pop("success", True), data=data, **more)


class StrangeJob(JobV1):  # type: ignore[misc]
    def __init__(self, backend: BackendV2, found: Sequence[ExperimentResult]) -> None:
        super().__init__(backend, "strange")
        self._found = found

    def submit(self) -> None:
        raise AssertionError("run() submits")

    def result(self) -> Result:
        return Result(results=list(self._found), backend_name="strange", job_id="strange", success=True)

    def status(self) -> JobStatus:
        return JobStatus.DONE


class Strange(BackendV2):  # type: ignore[misc]
    """Records the lists that it is asked to run.

    Args:
        answer: Makes the result of one circuit.
        max_circuits: As the interface has it.
        options: Names of run options that it lists; others raise TypeError, as a strict signature would.
        refuse: Name of a circuit that makes it refuse the whole list.
        drop: Leave out the last result.
    """

    def __init__(
        self,
        answer: Answer = counted,
        *,
        max_circuits: int | None = None,
        options: Sequence[str] = ("shots",),
        refuse: str | None = None,
        drop: bool = False,
    ) -> None:
        super().__init__(name="strange")
        self._target = Target(num_qubits=70)
        self._target.add_instruction(XGate())
        self._target.add_instruction(Measure())
        self._answer = answer
        self._most = max_circuits
        self._listed = tuple(options)
        self._options = Options(**dict.fromkeys(options))
        self._refuse = refuse
        self._drop = drop
        self.asked: list[tuple[list[str], dict[str, Any]]] = []

    @property
    def target(self) -> Target:
        return self._target

    @property
    def max_circuits(self) -> int | None:
        return self._most

    @classmethod
    def _default_options(cls) -> Options:
        return Options()

    def run(self, run_input: list[QuantumCircuit], **options: Any) -> StrangeJob:
        unknown = set(options) - set(self._listed)
        if unknown:
            raise TypeError(f"run() got unexpected arguments {sorted(unknown)}")
        names = [circuit.name for circuit in run_input]
        self.asked.append((names, options))
        if self._most is not None and len(run_input) > self._most:
            raise ValueError(f"{len(run_input)} circuits, {self._most} allowed")
        if self._refuse in names:
            raise RuntimeError(f"I don't run {self._refuse}")
        found = [self._answer(circuit, position, options) for position, circuit in enumerate(run_input)]
        return StrangeJob(self, found[:-1] if self._drop and len(found) > 1 else found)
