"""Circuits for a target: untouched where they can be, at level 1 where not, refused with a reason."""

from __future__ import annotations

from typing import Any

import pytest
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter
from qiskit.transpiler import PassManager
from qiskit.transpiler.passes import RemoveBarriers
from qiskit_aer import AerSimulator
from qiskit_ibm_runtime.fake_provider import FakeManilaV2

from ray_qjm.circuits.compile import Compiler, check_runnable, measures
from ray_qjm.errors import UnsupportedCircuitError
from ray_qjm.options import TranspileOptions

AER = AerSimulator()
MANILA = FakeManilaV2()


def compiled(circuit: QuantumCircuit, backend: Any = AER, **options: Any) -> QuantumCircuit:
    return Compiler(backend, TranspileOptions(**options), 5).compile(circuit)


def bell() -> QuantumCircuit:
    circuit = QuantumCircuit(2, 2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.barrier()
    circuit.measure([0, 1], [0, 1])
    return circuit


def test_auto_leaves_what_the_target_has_untouched() -> None:
    circuit = bell()
    assert compiled(circuit) is circuit


def test_auto_leaves_a_circuit_with_layout_untouched() -> None:
    circuit = transpile(bell(), MANILA, optimization_level=0)
    assert compiled(circuit, MANILA) is circuit


def test_auto_compiles_what_the_coupling_forbids() -> None:
    circuit = QuantumCircuit(5, 1)
    circuit.cx(0, 4)
    circuit.measure(0, 0)
    found = compiled(circuit, MANILA)
    assert found is not circuit
    pairs = {tuple(found.find_bit(q).index for q in item.qubits) for item in found.data if item.name == "cx"}
    assert pairs
    assert all(MANILA.target.instruction_supported("cx", pair) for pair in pairs)
    near = QuantumCircuit(5, 1)
    near.cx(3, 4)
    near.measure(0, 0)
    assert compiled(near, MANILA) is near


def test_auto_looks_into_control_flow() -> None:
    circuit = QuantumCircuit(5, 1)
    circuit.measure(0, 0)
    with circuit.if_test((0, 1)):
        circuit.cx(0, 4)
    assert compiled(circuit, MANILA) is not circuit
    near = QuantumCircuit(5, 1)
    near.measure(0, 0)
    with near.if_test((0, 1)):
        near.cx(1, 0)
    assert compiled(near, MANILA) is near


def test_level_compiles_every_circuit_and_its_seed_makes_it_repeatable() -> None:
    circuit = QuantumCircuit(5)
    for a in range(5):
        for b in range(a):
            circuit.cx(a, b)
    circuit.measure_all()
    first, again = compiled(circuit, MANILA, level=1), compiled(circuit, MANILA, level=1)
    assert first == again
    assert compiled(bell(), level=1) is not None
    fixed = Compiler(MANILA, TranspileOptions(level=1, seed=9), 1).compile(circuit)
    assert fixed == Compiler(MANILA, TranspileOptions(level=1, seed=9), 2).compile(circuit)


def test_options_reach_the_preset_passes() -> None:
    circuit = QuantumCircuit(2)
    circuit.cx(0, 1)
    circuit.measure_all()
    found = compiled(circuit, MANILA, level=1, options={"initial_layout": [3, 4]})
    assert {found.find_bit(q).index for item in found.data if item.name == "cx" for q in item.qubits} == {
        3,
        4,
    }
    with pytest.raises(TypeError, match="routing"):
        compiled(circuit, MANILA, level=1, options={"routing": "sabre"})


def test_own_pass_manager_is_used_in_place_of_presets() -> None:
    found = compiled(bell(), pass_manager=PassManager([RemoveBarriers()]))
    assert "barrier" not in found.count_ops()
    with pytest.raises(TypeError, match="pass_manager returned a list"):
        compiled(bell(), pass_manager=lambda circuit: [circuit])


@pytest.mark.parametrize("level", ["auto", 1, "off"])
def test_too_wide_circuit_names_both_widths(level: Any) -> None:
    circuit = QuantumCircuit(7)
    circuit.x(6)
    circuit.measure_all()
    with pytest.raises(UnsupportedCircuitError, match="it has 7 qubits, fake_manila has 5"):
        compiled(circuit, MANILA, level=level)


def test_wide_clifford_circuit_is_the_simulators_own_affair() -> None:
    circuit = QuantumCircuit(60)
    circuit.h(range(60))
    circuit.measure_all()
    assert compiled(circuit) is circuit


def test_off_refuses_what_is_not_isa_and_names_it() -> None:
    with pytest.raises(UnsupportedCircuitError, match="fake_manila has no 'h'"):
        compiled(bell(), MANILA, level="off")
    circuit = QuantumCircuit(5, 1)
    circuit.cx(0, 4)
    with pytest.raises(UnsupportedCircuitError, match="no 'cx' on qubits 0, 4"):
        compiled(circuit, MANILA, level="off")
    isa = transpile(bell(), MANILA, optimization_level=0)
    assert compiled(isa, MANILA, level="off") is isa


@pytest.mark.parametrize("save", ["save_statevector", "save_density_matrix", "save_state"])
def test_saved_data_is_refused_by_name(save: str) -> None:
    circuit = bell()
    getattr(circuit, save)()
    with pytest.raises(UnsupportedCircuitError, match=f"it has {save}"):
        compiled(circuit)


def test_what_would_run_and_give_nothing_is_refused() -> None:
    with pytest.raises(UnsupportedCircuitError, match="no measurement"):
        check_runnable(QuantumCircuit(2))
    unbound = bell()
    for number in range(7):
        unbound.rx(Parameter(f"p{number}"), 0)
    with pytest.raises(UnsupportedCircuitError, match="p0, p1, p2, p3, p4 and 2 more have no values"):
        check_runnable(unbound)
    check_runnable(bell())


def test_measurement_inside_control_flow_counts() -> None:
    circuit = QuantumCircuit(1, 1)
    with circuit.for_loop(range(2)):
        circuit.measure(0, 0)
    assert measures(circuit)
    empty = QuantumCircuit(1, 1)
    with empty.for_loop(range(2)):
        empty.x(0)
    assert not measures(empty)
