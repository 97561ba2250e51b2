"""The same circuit has the same fingerprint wherever it is built; another has another."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister, transpile
from qiskit.circuit import Clbit, Gate, Parameter, Qubit
from qiskit.circuit.classical import expr, types
from qiskit.circuit.library import CXGate, UnitaryGate, XGate
from qiskit.circuit.random import random_circuit

from ray_qjm.circuits.fingerprint import check_marks, fingerprint, try_fingerprint


def plain() -> QuantumCircuit:
    circuit = QuantumCircuit(QuantumRegister(3, "q"), ClassicalRegister(2, "a"), ClassicalRegister(1, "b"))
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.rz(0.25, 2)
    circuit.measure([0, 1, 2], [0, 1, 2])
    return circuit


def with_gate(angle: float) -> QuantumCircuit:
    inside = QuantumCircuit(1)
    inside.rx(angle, 0)
    gate = Gate("mine", 1, [])
    gate.definition = inside
    circuit = QuantumCircuit(1)
    circuit.append(gate, [0])
    return circuit


def with_test(value: int, bit: int = 0) -> QuantumCircuit:
    circuit = QuantumCircuit(2, 2)
    circuit.measure(0, 0)
    with circuit.if_test((circuit.clbits[bit], value)):
        circuit.x(1)
    return circuit


def with_expression(left: int, limit: int) -> QuantumCircuit:
    circuit = QuantumCircuit(QuantumRegister(1), ClassicalRegister(4, "a"), ClassicalRegister(4, "b"))
    with circuit.if_test(expr.less(circuit.cregs[left], limit)):
        circuit.x(0)
    return circuit


def with_loop(stop: int) -> QuantumCircuit:
    circuit = QuantumCircuit(1)
    with circuit.for_loop(range(stop)):
        circuit.x(0)
    return circuit


def with_switch(case: int) -> QuantumCircuit:
    circuit = QuantumCircuit(1, 2)
    with circuit.switch(circuit.cregs[0]) as cases:
        with cases(case):
            circuit.x(0)
        with cases(cases.DEFAULT):
            circuit.h(0)
    return circuit


def with_variable(name: str) -> QuantumCircuit:
    circuit = QuantumCircuit(1)
    circuit.add_var(expr.Var.new(name, types.Bool()), expr.lift(True))
    return circuit


def changed(change: Callable[[QuantumCircuit], object]) -> QuantumCircuit:
    circuit = plain()
    change(circuit)
    return circuit


#: No two of them do the same.
DIFFERENT: dict[str, QuantumCircuit] = {
    "plain": plain(),
    "one more gate": changed(lambda circuit: circuit.h(0)),
    "on another qubit": changed(lambda circuit: circuit.h(1)),
    "another angle": changed(lambda circuit: circuit.rz(np.nextafter(0.25, 1), 2)),
    "that angle": changed(lambda circuit: circuit.rz(0.25, 2)),
    "a phase": changed(lambda circuit: setattr(circuit, "global_phase", 0.5)),
    "measured elsewhere": changed(lambda circuit: circuit.measure(0, 1)),
    "a barrier": changed(lambda circuit: circuit.barrier(0)),
    "a longer barrier": changed(lambda circuit: circuit.barrier(0, 1)),
    "a reset": changed(lambda circuit: circuit.reset(0)),
    "a delay": changed(lambda circuit: circuit.delay(100, 0, unit="dt")),
    "a longer delay": changed(lambda circuit: circuit.delay(100, 0, unit="ns")),
    "a free parameter": changed(lambda circuit: circuit.rx(Parameter("t"), 0)),
    "another free parameter": changed(lambda circuit: circuit.rx(Parameter("u"), 0)),
    "an open control": changed(lambda circuit: circuit.append(CXGate(ctrl_state=0), [0, 1])),
    "a closed control": changed(lambda circuit: circuit.append(CXGate(), [0, 1])),
    "two controls": changed(lambda circuit: circuit.append(XGate().control(2, ctrl_state=1), [0, 1, 2])),
    "two other controls": changed(
        lambda circuit: circuit.append(XGate().control(2, ctrl_state=2), [0, 1, 2])
    ),
    "a matrix": changed(lambda circuit: circuit.append(UnitaryGate(np.eye(2)), [0])),
    "another matrix": changed(lambda circuit: circuit.append(UnitaryGate(1j * np.eye(2)), [0])),
    "one register": QuantumCircuit(3, 3),
    "two registers": QuantumCircuit(QuantumRegister(3), ClassicalRegister(2, "c"), ClassicalRegister(1, "d")),
    "loose clbits": QuantumCircuit([Qubit(), Qubit(), Qubit()], [Clbit(), Clbit(), Clbit()]),
    "a gate of one's own": with_gate(0.1),
    "another gate of that name": with_gate(0.2),
    "if 1": with_test(1),
    "if 0": with_test(0),
    "if another bit is 1": with_test(1, bit=1),
    "an expression": with_expression(0, 3),
    "an expression of another register": with_expression(1, 3),
    "an expression with another limit": with_expression(0, 4),
    "a loop": with_loop(2),
    "a longer loop": with_loop(3),
    "a switch": with_switch(1),
    "another switch": with_switch(2),
    "a variable": with_variable("a"),
    "another variable": with_variable("b"),
}


def test_different_circuits_differ() -> None:
    found = {name: fingerprint(circuit) for name, circuit in DIFFERENT.items()}
    assert [pair for pair in combinations(found, 2) if found[pair[0]] == found[pair[1]]] == []


@pytest.mark.parametrize(
    "make", [plain, lambda: with_gate(0.1), lambda: with_test(1), lambda: with_expression(0, 3)]
)
def test_circuits_built_anew_are_the_same(make: Callable[[], QuantumCircuit]) -> None:
    assert fingerprint(make()) == fingerprint(make())


def test_names_metadata_and_types_of_numbers_do_not_count() -> None:
    other = plain()
    other.name, other.metadata = "another", {"a": 1}
    assert fingerprint(other) == fingerprint(plain())
    one, two = QuantumCircuit(1), QuantumCircuit(1)
    one.rx(0.5, 0)
    two.rx(np.float64(0.5), 0)
    assert fingerprint(one) == fingerprint(two)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_random_circuits_survive_copies_and_meet_no_other(seed: int, conditional: bool) -> None:
    circuit = random_circuit(4, 4, measure=True, conditional=conditional, seed=seed)
    assert fingerprint(circuit.copy()) == fingerprint(circuit)
    again = random_circuit(4, 4, measure=True, conditional=conditional, seed=seed)
    assert fingerprint(again) == fingerprint(circuit)
    again.x(0)
    assert fingerprint(again) != fingerprint(circuit)


def test_another_process_agrees() -> None:
    code = (
        "from qiskit.circuit.random import random_circuit\n"
        "from ray_qjm.circuits.fingerprint import check_marks, fingerprint, try_fingerprint\n"
        "print([fingerprint(random_circuit(4, 6, measure=True, conditional=True, seed=i)) for i in range(20)])\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    here = [fingerprint(random_circuit(4, 6, measure=True, conditional=True, seed=i)) for i in range(20)]
    assert told.strip() == str(here)


def test_compiled_circuits_have_one_too() -> None:
    compiled = transpile(plain(), basis_gates=["cx", "rz", "sx"], optimization_level=1, seed_transpiler=1)
    assert fingerprint(compiled) != fingerprint(plain())


def with_counted_names() -> QuantumCircuit:
    """Registers and instructions that Qiskit names by counters of the process."""
    inner = QuantumCircuit(2)
    inner.h(0)
    inner.cx(0, 1)
    circuit = QuantumCircuit(QuantumRegister(3), ClassicalRegister(2))
    circuit.append(inner.to_gate(), [0, 1])
    circuit.append(inner.to_gate().control(), [0, 1, 2])
    circuit.append(inner.to_instruction().inverse(), [1, 2])
    circuit.compose(inner, [0, 2], wrap=True, inplace=True)
    circuit.measure([0, 1], [0, 1])
    return circuit


def test_names_that_qiskit_counts_through_dont_tell() -> None:
    first, second = with_counted_names(), with_counted_names()
    assert first.cregs[0].name != second.cregs[0].name
    assert fingerprint(first) == fingerprint(second)
    second.data[0] = second.data[0].replace(qubits=second.qubits[:2][::-1])
    assert fingerprint(first) != fingerprint(second)


def test_gates_of_matrices_are_not_decomposed() -> None:
    """That takes seconds for seven qubits, and ends in floats that differ by machine."""

    def circuit(phase: float) -> QuantumCircuit:
        found = QuantumCircuit(7)
        found.unitary(np.diag(np.exp(1j * phase * np.arange(2**7))), range(7))
        return found

    made = circuit(0.1)
    assert fingerprint(made) == fingerprint(circuit(0.1)) != fingerprint(circuit(0.2))
    assert made.data[0].operation._definition is None


class Undefined(Gate):  # type: ignore[misc]
    """A gate of a user's that can't be defined."""

    def __init__(self) -> None:
        super().__init__("undefined", 1, [])

    def _define(self) -> None:
        raise NotImplementedError("no definition")


def test_what_cant_tell_what_it_is_is_unknown() -> None:
    circuit = QuantumCircuit(1)
    circuit.append(Undefined(), [0])
    assert try_fingerprint(circuit) == 0
    check_marks(np.array([7], np.uint64), 0, [circuit], "list")
