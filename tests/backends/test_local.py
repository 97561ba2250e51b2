"""Lists of circuits on backends that do as they like."""

from __future__ import annotations

from typing import Any

import pytest
from qiskit import ClassicalRegister, QuantumCircuit
from qiskit.circuit import Clbit
from qiskit.result.models import ExperimentResult
from qiskit_aer import AerSimulator

from ray_qjm.backends.local import LocalBackend, Ready, checked
from ray_qjm.planning.seeds import AER_STRIDE, simulator_seed
from ray_qjm.results.counts import Row
from tests.backends.strange import Strange, answer, counted

BASE = 1000


def binary(value: int, bits: int = 5) -> QuantumCircuit:
    circuit = QuantumCircuit(bits, bits, name=str(value))
    for bit in range(bits):
        if value >> bit & 1:
            circuit.x(bit)
    circuit.measure(range(bits), range(bits))
    return circuit


def ready(*indices: int, shots: int = 10) -> list[Ready]:
    return [Ready(index, binary(index), shots) for index in indices]


def local(backend: Any, *, memory: bool = False, **run_options: Any) -> LocalBackend:
    return LocalBackend(backend, name="strange", run_options=run_options, memory=memory, base=BASE)


def lists(backend: Strange) -> list[list[int]]:
    return [[int(name) for name in names] for names, _ in backend.asked]


def test_consecutive_rows_are_one_list() -> None:
    backend = Strange()
    rows = local(backend).run(ready(3, 4, 5))
    assert lists(backend) == [[3, 4, 5]]
    assert [(row.circuit, row.counts, row.shots) for row in rows] == [
        (3, {"0x3": 10}, 10), (4, {"0x4": 10}, 10), (5, {"0x5": 10}, 10)
    ]  # fmt: skip


def test_list_is_cut_at_holes_and_where_shots_change() -> None:
    backend = Strange()
    local(backend).run([*ready(0, 1, 3), *ready(4, 5, shots=20)])
    assert lists(backend) == [[0, 1], [3], [4, 5]]


def test_list_is_cut_at_what_the_backend_allows() -> None:
    backend = Strange(max_circuits=2)
    local(backend).run(ready(0, 1, 2, 3, 4))
    assert lists(backend) == [[0, 1], [2, 3], [4]]


def test_only_listed_options_are_passed() -> None:
    backend = Strange(options=("shots", "seed_simulator", "memory", "colour"))
    local(backend, colour="red").run(ready(2))
    assert backend.asked[0][1] == {"shots": 10, "seed_simulator": simulator_seed(BASE, 2), "colour": "red"}
    bare = Strange()
    local(bare).run(ready(2))
    assert bare.asked[0][1] == {"shots": 10}


def test_refused_list_is_halved_until_the_circuit_at_fault_stands_alone() -> None:
    backend = Strange(refuse="5")
    rows = local(backend).run(ready(*range(8)))
    assert [row.status for row in rows] == ["done"] * 5 + ["failed"] + ["done"] * 2
    assert (rows[5].stage, rows[5].error_type, rows[5].error) == ("run", "RuntimeError", "I don't run 5")
    assert lists(backend) == [list(range(8)), [0, 1, 2, 3], [4, 5, 6, 7], [4, 5], [4], [5], [6, 7]]


def test_missing_result_spoils_no_other_circuit() -> None:
    rows = local(Strange(drop=True)).run(ready(0, 1, 2))
    assert [row.counts for row in rows] == [{"0x0": 10}, {"0x1": 10}, {"0x2": 10}]


def test_backend_that_seeds_lists_in_its_own_way_is_run_one_by_one() -> None:
    def same_seed(circuit: QuantumCircuit, position: int, options: dict[str, Any]) -> ExperimentResult:
        found = counted(circuit, position, options)
        found.seed_simulator = options["seed_simulator"]
        return found

    backend = Strange(same_seed, options=("shots", "seed_simulator"))
    runner = local(backend)
    rows = runner.run(ready(0, 1, 2))
    assert [row.seed for row in rows] == [BASE, BASE + AER_STRIDE, BASE + 2 * AER_STRIDE]
    assert lists(backend) == [[0, 1, 2], [0], [1], [2]]
    runner.run(ready(3, 4))
    assert lists(backend)[4:] == [[3], [4]]


@pytest.mark.parametrize(
    ("found", "error"),
    [
        (answer(None, 10), "gave no counts"),
        (answer({}, 10), "gave no counts"),
        (answer({"0x1": 10}, 10, success=False, status="ERROR: out of ions"), "ERROR: out of ions"),
        (answer({"0x1": 11}, 10), "gave 11 shots, 10 were asked for"),
        (answer({"pear": 10}, 10), "gave outcome 'pear', which is no string of bits"),
    ],
    ids=["no data", "empty", "failed", "too many", "no number"],
)
def test_answer_that_cannot_be_true_fails_its_circuit(found: ExperimentResult, error: str) -> None:
    def strange(circuit: QuantumCircuit, position: int, options: dict[str, Any]) -> ExperimentResult:
        return found if circuit.name == "1" else counted(circuit, position, options)

    rows = local(Strange(strange)).run(ready(0, 1, 2))
    assert [row.status for row in rows] == ["done", "failed", "done"]
    assert rows[1].error_type == "BackendResultError"
    assert error in str(rows[1].error)


def test_fewer_shots_are_a_partial_result() -> None:
    def few(circuit: QuantumCircuit, position: int, options: dict[str, Any]) -> ExperimentResult:
        return answer({"0x0": 6}, 10)

    (row,) = local(Strange(few)).run(ready(0))
    assert (row.status, row.shots, row.shots_requested, row.error) == (
        "partial", 6, 10, "strange gave 6 of 10 shots"
    )  # fmt: skip


def test_bit_strings_are_understood_as_qiskit_does() -> None:
    def bits(circuit: QuantumCircuit, position: int, options: dict[str, Any]) -> ExperimentResult:
        return answer({"01 100": 4, "00000": 6}, 10)

    (row,) = local(Strange(bits)).run(ready(0))
    assert row.counts == {"0xc": 4, "0x0": 6}


def test_outcome_wider_than_the_circuit_is_caught() -> None:
    rows = checked([Row(0, clbits=2, counts={"0x7": 3}, backend="b"), Row(1, clbits=2, counts={"0x3": 3})])
    assert [row.status for row in rows] == ["failed", "done"]
    assert "more bits than the circuit's 2" in str(rows[0].error)


def test_registers_are_told_by_clbits_aliased_and_loose_ones_too() -> None:
    loose = Clbit()
    circuit = QuantumCircuit(1)
    circuit.add_bits([loose])
    first = ClassicalRegister(2, "a")
    alias = ClassicalRegister(name="b", bits=[first[1], loose])
    circuit.add_register(first, alias, ClassicalRegister(0, "none"))
    circuit.measure(0, first[0])
    (row,) = local(AerSimulator()).run([Ready(0, circuit, 10)])
    assert row.registers == '[["a",[1,2]],["b",[2,0]],["none",[]]]'
    assert row.clbits == 3


def test_memory_is_asked_for_and_kept() -> None:
    (row,) = local(AerSimulator(), memory=True).run(ready(3))
    assert row.memory == ["0x3"] * 10
