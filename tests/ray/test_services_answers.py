"""A provider whose jobs end well and whose answers are odd: nothing is paid twice, and no good counts are lost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from qiskit import QuantumCircuit
from qiskit.result import Result
from qiskit.result.models import ExperimentResult

import ray_qjm
from ray_qjm import RetryPolicy
from ray_qjm.errors import PartialResultWarning
from tests.backends.strange import Strange, StrangeJob, counted
from tests.services.scene import RETRY, Scene, options, run


def flips(index: int) -> QuantumCircuit:
    """Measures its number."""
    circuit = QuantumCircuit(3, 3, name=f"c{index}")
    for bit in range(3):
        if index >> bit & 1:
            circuit.x(bit)
    circuit.measure(range(3), range(3))
    return circuit


class RefusedError(Exception):
    """As HTTP clients raise it."""

    status_code = 404


EMPTY = Result(results=[], backend_name="odd", job_id="odd", success=True)


class OddJob(StrangeJob):
    """Its result is first one trouble after the other; the last for ever if it says so."""

    troubles: list[Any]
    for_ever = False

    def result(self) -> Result:
        if not self.troubles:
            return super().result()
        trouble = self.troubles[0] if self.for_ever else self.troubles.pop(0)
        if isinstance(trouble, Exception):
            raise trouble
        return trouble


@dataclass(frozen=True)
class MakeOdd:
    """A factory of backends.

    Attributes:
        paid: Each run is written down here.
        kind: What is odd.
    """

    paid: Path
    kind: str

    def __call__(self) -> Strange:
        """Make it."""
        return Odd(self.paid, self.kind)


class Odd(Strange):
    """See ``MakeOdd``."""

    def __init__(self, paid: Path, kind: str) -> None:
        super().__init__(answer=self._odd, options=("shots", "memory"))
        self._paid, self._kind = paid, kind

    def run(self, run_input: list[QuantumCircuit], **given: Any) -> Any:
        with self._paid.open("a") as file:
            file.write(f"{len(run_input)}\n")
        made = super().run(run_input, **given)
        if self._kind == "no job":
            return None
        job = OddJob(self, made._found[::-1] if self._kind == "backwards" else made._found)
        page = json.JSONDecodeError("Expecting value", "<html>", 0)
        job.troubles = [EMPTY, RefusedError("not yet"), page] if self._kind == "late" else []
        if self._kind == "never":
            job.troubles, job.for_ever = [ValueError("cannot parse")], True
        return job

    def _odd(self, circuit: QuantumCircuit, position: int, given: dict[str, Any]) -> ExperimentResult:
        found = counted(circuit, position, given)
        found.header = {"name": circuit.name}
        (outcome,) = found.data.counts
        if "memory" in given:
            found.data.memory = {"0x1": [outcome] * 7, "0x2": ["0x7"] * 10, "0x3": None}.get(
                outcome, [outcome] * 10
            )
        return found


def odd(services: Scene, tmp_path: Path, kind: str, count: int = 4, **more: Any) -> ray_qjm.TaskResult:
    return run(services.spec(connect=MakeOdd(tmp_path / "paid", kind)), count, circuits=flips, **more)


def paid(tmp_path: Path) -> list[int]:
    """Circuits of each job that was run."""
    return [int(line) for line in (tmp_path / "paid").read_text().split()]


def check_all(result: ray_qjm.TaskResult) -> None:
    assert result.get_counts() == [{f"{index:03b}": 10} for index in range(4)]
    assert set(result.table["status"].to_pylist()) == {"done"}


def test_result_that_is_late_is_waited_for_and_paid_once(services: Scene, tmp_path: Path) -> None:
    check_all(odd(services, tmp_path, "late"))
    assert paid(tmp_path) == [4]


def test_result_that_never_comes_fails_its_circuits_and_is_paid_once(services: Scene, tmp_path: Path) -> None:
    retry = RetryPolicy(**{**vars(RETRY), "give_up_s": 0.2})
    with pytest.warns(PartialResultWarning):
        result = odd(services, tmp_path, "never", options=options(retry=retry))
    assert {(row.error_type, row.error) for row in result} == {
        ("JobResultError", "its result can't be had: ValueError: cannot parse")
    }
    assert paid(tmp_path) == [4]


def test_results_in_another_order_are_told_by_their_names(services: Scene, tmp_path: Path) -> None:
    check_all(odd(services, tmp_path, "backwards"))


def test_run_without_a_job_is_a_lost_one(services: Scene, tmp_path: Path) -> None:
    with pytest.warns(PartialResultWarning):
        result = odd(services, tmp_path, "no job")
    assert {row.error_type for row in result} == {"JobLostError"}
    assert "run() of strange returned None in place of a job" in str(result[0].error)
    assert paid(tmp_path) == [4]


def test_single_shots_are_all_there_or_told_to_be_missing(services: Scene, tmp_path: Path) -> None:
    with pytest.warns(PartialResultWarning, match="1 of 4 circuits"):
        result = odd(services, tmp_path, "memory", memory=True)
    assert result.table["status"].to_pylist() == ["done", "partial", "failed", "partial"]
    assert result.get_memory(0) == ["000"] * 10
    assert [result.get_counts(index) for index in (1, 3)] == [{"001": 10}, {"011": 10}]
    assert [result[index].error for index in range(1, 4)] == [
        "strange gave 7 single shots, and counts of 10",
        "strange contradicts itself: outcome 0x7 comes 10 times among its single shots and 0 times in its counts",
        "service gave counts and no single shots, which memory=True asks for",
    ]
