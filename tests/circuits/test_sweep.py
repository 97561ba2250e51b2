"""Sweep: values by name or by column, bound on the circuit or on its compiled form."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter, ParameterVector
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import Operator, Statevector
from qiskit_aer import AerSimulator

from ray_qjm.circuits.sources import make_source
from ray_qjm.circuits.sweep import RESERVED_COLUMNS, Sweep
from ray_qjm.errors import InvalidInputError
from ray_qjm.results.schema import OWN_COLUMNS

NAMES = ["t0", "t1", "t10", "t2"]  # as Qiskit sorts them
VALUES = np.array([[0.1, 0.2, 0.3, 0.4], [1.1, 1.2, 1.3, 1.4], [2.1, 2.2, 2.3, 2.4]])


def four_angles() -> QuantumCircuit:
    """Parameters appended in another order than theirs: t10, t2, t0, t1."""
    circuit = QuantumCircuit(2, name="four")
    for name, gate in (("t10", circuit.rx), ("t2", circuit.ry), ("t0", circuit.rz), ("t1", circuit.p)):
        gate(Parameter(name), 0)
        circuit.h(0)
    circuit.cx(0, 1)
    return circuit


def angles(circuit: QuantumCircuit) -> dict[str, float]:
    """What ``four_angles`` was bound to."""
    gates = {"rx": "t10", "ry": "t2", "rz": "t0", "p": "t1"}
    return {gates[item.name]: item.params[0] for item in circuit.data if item.name in gates}


def one_angle(name: str = "t") -> QuantumCircuit:
    circuit = QuantumCircuit(1, name="one")
    circuit.rx(Parameter(name), 0)
    return circuit


def with_vector(length: int = 12) -> tuple[QuantumCircuit, ParameterVector]:
    vector = ParameterVector("v", length)
    circuit = QuantumCircuit(1)
    for element in reversed(vector):
        circuit.rx(element, 0)
        circuit.h(0)
    return circuit, vector


def by_name() -> dict[str, list[float]]:
    return {name: VALUES[:, j].tolist() for j, name in enumerate(NAMES)}


def shuffled() -> dict[str, Any]:
    columns = by_name()
    return {name: columns[name] for name in ("t2", "t10", "t0", "t1")}


TABLES: list[Callable[[], Any]] = [
    by_name,
    shuffled,
    lambda: {Parameter(name): column for name, column in shuffled().items()},
    lambda: {name: pa.array(column) for name, column in shuffled().items()},
    lambda: {name: pl.Series(column) for name, column in shuffled().items()},
    lambda: pa.table(shuffled()),
    lambda: pa.concat_tables([pa.table(shuffled()).slice(0, 1), pa.table(shuffled()).slice(1)]),
    lambda: pa.RecordBatch.from_pydict(shuffled()),
    lambda: pd.DataFrame(shuffled()),
    lambda: pd.DataFrame(shuffled(), index=[7, 7, 3]),
    lambda: pd.DataFrame(shuffled()).convert_dtypes(),
    lambda: pl.DataFrame(shuffled()),
    lambda: VALUES,
    lambda: VALUES.tolist(),
    lambda: np.asfortranarray(VALUES),
    lambda: VALUES.astype(object),
    lambda: np.ma.masked_array(VALUES),
]


@pytest.mark.parametrize("make", TABLES)
def test_values_reach_their_parameters(make: Callable[[], Any]) -> None:
    sweep = Sweep(four_angles(), make())
    assert sweep.count == 3
    assert dict(sweep.column_types) == dict.fromkeys(NAMES, "float64")
    assert list(sweep.column_types) == NAMES
    for row in range(3):
        assert angles(sweep.build(row, seed=0)) == dict(zip(NAMES, VALUES[row], strict=True))
    assert sweep.columns(1, 3) == {name: column[1:] for name, column in by_name().items()}
    assert sweep.columns(2, 2) == {name: [] for name in NAMES}


def test_sweep_is_a_source_with_a_template() -> None:
    sweep = Sweep(four_angles(), VALUES)
    assert make_source(sweep) is sweep
    assert make_source(sweep, 3) is sweep
    assert sweep.template == sweep.template.copy()
    with pytest.raises(
        InvalidInputError, match=r"the Sweep has 3 circuits, but count is 4\. Leave count out"
    ):
        make_source(sweep, 4)


def test_elements_of_a_vector_are_ordered_by_index() -> None:
    circuit, vector = with_vector()
    block = np.arange(24.0).reshape(2, 12)
    for values in ({vector: block}, block, {f"v[{j}]": block[:, j] for j in range(12)}):
        sweep = Sweep(circuit, values)
        assert list(sweep.column_types) == [f"v[{j}]" for j in range(12)]
        bound = [item.params[0] for item in sweep.build(1, 0).data if item.name == "rx"]
        assert bound == block[1, ::-1].tolist()


def test_vector_and_parameters_go_together() -> None:
    circuit, vector = with_vector(2)
    circuit.rz(Parameter("a"), 0)
    sweep = Sweep(circuit, {vector: [[1, 2], [3, 4]], "a": [5, 6]})
    assert sweep.columns(0, 2) == {"a": [5.0, 6.0], "v[0]": [1.0, 3.0], "v[1]": [2.0, 4.0]}


def test_integers_become_float64_exactly() -> None:
    for values in ([1, 2], np.array([1, 2], dtype=np.uint8), pa.array([1, 2], type=pa.int32()), [1, 2.0]):
        sweep = Sweep(one_angle(), {"t": values})
        assert sweep.values.dtype == np.float64
        assert sweep.columns(0, 2) == {"t": [1.0, 2.0]}


def test_values_and_circuit_are_copied() -> None:
    circuit, values = one_angle(), np.array([[1.0], [2.0]])
    sweep = Sweep(circuit, values)
    values[:] = 9
    circuit.h(0)
    assert sweep.build(0, 0).data[0].params == [1.0]
    assert len(sweep.build(0, 0).data) == 1
    with pytest.raises(ValueError, match="read-only"):
        sweep.values[0, 0] = 3


def test_parameter_of_global_phase_and_of_a_body_is_bound() -> None:
    a, b = Parameter("a"), Parameter("b")
    circuit = QuantumCircuit(1, 1, global_phase=2 * a)
    circuit.measure(0, 0)
    with circuit.if_test((circuit.clbits[0], True)):
        circuit.rx(a + b, 0)
    bound = Sweep(circuit, {"a": [0.25], "b": [0.5]}).build(0, 0)
    assert bound.global_phase == 0.5
    assert bound.data[1].operation.blocks[0].data[0].params == [0.75]
    assert bound.num_parameters == 0


# Binding on a compiled form.


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_bound_template_is_the_bound_circuit(level: int) -> None:
    sweep = Sweep(four_angles(), VALUES)
    compiled = transpile(
        sweep.template, basis_gates=["rz", "sx", "x", "cx"], optimization_level=level, seed_transpiler=1
    )
    before = compiled.copy()
    for row in (2, 0, 1, 2):
        bound, built = sweep.bind(row, compiled), sweep.build(row, 0)
        assert Operator(bound) == Operator(built)
        assert bound.num_parameters == 0
    assert compiled == before
    assert sorted(parameter.name for parameter in compiled.parameters) == NAMES


def test_bound_template_simulates_as_the_bound_circuit_does() -> None:
    simulator = AerSimulator(method="statevector", max_parallel_threads=1)
    sweep = Sweep(four_angles(), VALUES)
    compiled = transpile(sweep.template, simulator, optimization_level=1)

    def state(circuit: QuantumCircuit) -> Statevector:
        circuit = circuit.copy()
        circuit.save_statevector()
        return simulator.run(circuit).result().get_statevector()

    for row in range(3):
        assert state(sweep.bind(row, compiled)).equiv(state(sweep.build(row, 0)))


def test_bound_circuit_keeps_name_layout_and_metadata() -> None:
    circuit = four_angles()
    circuit.metadata = {"tag": [1, 2]}
    sweep = Sweep(circuit, VALUES)
    compiled = transpile(
        sweep.template, GenericBackendV2(3, seed=1), initial_layout=[2, 1], seed_transpiler=1
    )
    first, second = sweep.bind(0, compiled), sweep.bind(1, compiled)
    for bound in (first, second):
        assert bound.name == "four"
        assert bound.layout == compiled.layout
        assert bound.metadata == {"tag": [1, 2]}
    assert sweep.build(0, 0).name == sweep.build(2, 0).name == "four"
    first.h(0)
    assert second == sweep.bind(1, compiled)


@pytest.mark.parametrize("dumper", [pickle, cloudpickle])
def test_source_and_compiled_template_may_travel_apart(dumper: Any) -> None:
    circuit, vector = with_vector(3)
    sweep = Sweep(circuit, {vector: VALUES[:, :3]})
    compiled = transpile(sweep.template, basis_gates=["rz", "sx", "x", "cx"], optimization_level=0)
    expected = [sweep.bind(row, compiled) for row in range(3)]
    shipped, template = (pickle.loads(dumper.dumps(item)) for item in (sweep, compiled))
    assert [shipped.bind(row, template) for row in range(3)] == expected
    assert [shipped.bind(row, compiled) for row in range(3)] == expected
    assert [sweep.bind(row, template) for row in range(3)] == expected
    assert [shipped.build(row, 0) for row in range(3)] == [sweep.build(row, 0) for row in range(3)]
    assert shipped.columns(0, 3) == sweep.columns(0, 3)
    assert shipped.count == 3


def test_parameter_that_compiling_dropped_is_not_missed() -> None:
    circuit = four_angles()
    sweep = Sweep(circuit, VALUES)
    compiled = QuantumCircuit(1)
    compiled.rx(next(p for p in sweep.template.parameters if p.name == "t10"), 0)
    assert sweep.bind(1, compiled).data[0].params == [1.3]
    bare = QuantumCircuit(1)
    assert sweep.bind(1, bare) == bare


def test_two_templates_in_turn_do_not_mix() -> None:
    sweep = Sweep(four_angles(), VALUES)
    one, other = sweep.template.copy(), QuantumCircuit(1)
    other.rx(next(p for p in sweep.template.parameters if p.name == "t2"), 0)
    for row in range(3):
        assert angles(sweep.bind(row, one)) == dict(zip(NAMES, VALUES[row], strict=True))
        assert sweep.bind(row, other).data[0].params == [VALUES[row, 3]]


def test_template_of_strange_parameters_is_refused() -> None:
    sweep = Sweep(one_angle(), {"t": [1.0]})
    with pytest.raises(InvalidInputError) as caught:
        sweep.bind(0, one_angle())
    assert str(caught.value) == (
        "the compiled circuit has parameters 't' that the circuit of Sweep hasn't (of the same name, "
        "perhaps, but not the same). Compile Sweep.template itself."
    )


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_every_finite_float_is_bound_as_it_is(values: list[float]) -> None:
    sweep = Sweep(one_angle(), {"t": values})
    assert sweep.columns(0, len(values)) == {"t": values}
    assert [sweep.build(row, 0).data[0].params[0] for row in range(len(values))] == values


# 0 rows.


@pytest.mark.parametrize(
    "values",
    [
        {"t": []},
        {Parameter("t"): np.array([])},
        [],
        np.empty((0, 1)),
        pa.table({"t": []}),
        pa.table({"t": pa.array([], type=pa.float64())}),
        pd.DataFrame({"t": []}),
        pl.DataFrame({"t": []}),
    ],
)
def test_sweep_of_0_rows_has_count_0(values: Any) -> None:
    sweep = Sweep(one_angle(), values)
    assert sweep.count == 0
    assert sweep.columns(0, 0) == {"t": []}
    assert cloudpickle.loads(cloudpickle.dumps(sweep)).count == 0
    assert make_source(sweep, 0) is sweep


def test_vector_of_0_rows_has_count_0() -> None:
    circuit, vector = with_vector(3)
    assert Sweep(circuit, {vector: []}).count == 0
    assert Sweep(circuit, []).count == 0


# What is refused.


def refusal(circuit: Any, values: Any) -> str:
    with pytest.raises(InvalidInputError) as caught:
        Sweep(circuit, values)
    return str(caught.value)


def test_reserved_names_are_those_of_the_result() -> None:
    assert RESERVED_COLUMNS == OWN_COLUMNS


@pytest.mark.parametrize("name", sorted(RESERVED_COLUMNS))
def test_parameter_named_like_a_column_is_refused(name: str) -> None:
    assert refusal(one_angle(name), {name: [1.0]}) == (
        f"the circuit of Sweep has parameters named '{name}': columns that every result has already. "
        "Rename them (assign_parameters({old: Parameter(new)}))."
    )


def test_what_is_no_circuit_is_refused() -> None:
    assert refusal([one_angle()], {"t": [1]}) == "circuit of Sweep is a list. Pass one QuantumCircuit."


def test_circuit_without_parameters_is_refused() -> None:
    assert refusal(QuantumCircuit(1, name="bare"), [[1.0]]) == (
        "circuit 'bare' of Sweep has no free parameters. Pass a list of circuits, or leave at least one "
        "Parameter unbound."
    )


def test_unknown_and_missing_names_are_told_together() -> None:
    assert refusal(four_angles(), {"t0": [1], "t1": [1], "T2": [1]}) == (
        "values of Sweep: 'T2' isn't a parameter of the circuit, and 't10', 't2' has no values. "
        "The parameters are 't0', 't1', 't10', 't2'."
    )
    assert "'t' has no values" in refusal(one_angle(), {})


def test_long_lists_of_names_are_cut() -> None:
    circuit, _ = with_vector(40)
    assert "'v[9]' and 30 more has no values" in refusal(circuit, {})


def test_unequal_lengths_are_refused() -> None:
    circuit = one_angle("a")
    circuit.rx(Parameter("b"), 0)
    assert refusal(circuit, {"a": [1, 2, 3], "b": [1, 2]}) == (
        "values of Sweep have unequal lengths: 2 for 'b', 3 for 'a'. Give one number a circuit for each."
    )
    assert "unequal lengths: 0 for 'b', 3 for 'a'" in refusal(circuit, {"a": [1, 2, 3], "b": []})


@pytest.mark.parametrize(("value", "shape"), [(0.5, "()"), ([[1.0], [2.0]], "(2, 1)")])
def test_value_of_a_parameter_that_is_no_list_of_numbers_is_refused(value: Any, shape: str) -> None:
    assert refusal(one_angle(), {"t": value}) == (
        f"values of Sweep for 't' have shape {shape}. Give one number a circuit, (count,); for a constant "
        "np.full(count, value), or bind it beforehand."
    )


@pytest.mark.parametrize("block", [[1.0, 2.0], [[1.0, 2.0]], np.zeros((2, 3, 1))])
def test_vector_needs_a_column_an_element(block: Any) -> None:
    circuit, vector = with_vector(3)
    message = refusal(circuit, {vector: block})
    assert message == (f"values of Sweep for vector 'v' have shape {np.shape(block)}. Give (count, 3).")


@pytest.mark.parametrize("array", [np.zeros((3, 3)), np.zeros(4), np.zeros((2, 4, 1)), 3.0, np.zeros((0, 3))])
def test_array_needs_a_column_a_parameter(array: Any) -> None:
    assert refusal(four_angles(), array) == (
        f"values of Sweep has shape {np.shape(array)}. Give (count, 4), the columns in the order "
        "'t0', 't1', 't10', 't2'; or a mapping by name."
    )


def test_parameter_given_twice_is_refused() -> None:
    circuit, vector = with_vector(2)
    message = "values of Sweep gives parameter 'v[1]' twice. Give it once."
    assert refusal(circuit, {vector: [[1, 2]], "v[1]": [3]}) == message
    assert refusal(circuit, {vector: [[1, 2]], vector[1]: [3]}) == message
    table = pa.table([[1.0], [2.0]], names=["t", "t"])
    assert "gives parameter 't' twice" in refusal(one_angle(), table)
    frame = pd.DataFrame([[1.0, 2.0]], columns=["t", "t"])
    assert "gives parameter 't' twice" in refusal(one_angle(), frame)


def test_key_that_is_no_name_is_refused() -> None:
    assert refusal(one_angle(), {0: [1]}) == "values of Sweep has the key 0. Give names of parameters."
    assert "has the key 0" in refusal(one_angle(), pd.DataFrame([[1.0]]))


NAN = float("nan")


@pytest.mark.parametrize(
    "values",
    [
        {"t": [0.0, NAN, 1.0, float("inf")]},
        {"t": [0.0, None, 1.0, -float("inf")]},
        {"t": [0, None, 1, NAN]},
        [[0.0], [NAN], [1.0], [NAN]],
        {"t": np.ma.masked_array([0.0, 1.0, 2.0, 3.0], mask=[False, True, False, True])},
        {"t": np.ma.masked_array([0, 1, 2, 3], mask=[False, True, False, True])},
        {"t": np.array([0, 1e39, 1, 1e39]).astype(np.longdouble) ** 10},
        pa.table({"t": pa.array([0, None, 1, None])}),
        pa.table({"t": pa.array([0.0, None, 1.0, None])}),
        pd.DataFrame({"t": pd.array([0, None, 1, None], dtype="Int64")}),
        pd.DataFrame({"t": [0.0, None, 1.0, NAN]}),
        pl.DataFrame({"t": [0, None, 1, None]}),
        pl.DataFrame({"t": [0.0, None, 1.0, NAN]}, strict=False),
    ],
)
def test_numbers_that_are_not_finite_are_counted_and_refused(values: Any) -> None:
    assert refusal(one_angle(), values) == (
        "values of Sweep has 2 numbers that are not finite (or null), the first in row 1, parameter 't'. "
        "Remove or fill them."
    )


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (["0.5", "1"], "a list of <U3"),
        ([1j], "a list of complex128"),
        ([True, False], "a list of bool"),
        (np.array([True, 0.5], dtype=object), "a ndarray of object"),
        (np.array([np.complex128(1)], dtype=object), "a ndarray of object"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), "a ndarray of datetime64[D]"),
        (["x", None], "a list of object"),
        ([Decimal(1)], "a list of object"),
        ([Parameter("u")], "a list of object"),
        (pa.array(["a"]), "a StringArray of object"),
    ],
)
def test_what_is_no_real_number_is_refused(values: Any, shown: str) -> None:
    assert refusal(one_angle(), {"t": values}) == f"values of Sweep for 't' are {shown}. Give real numbers."


@pytest.mark.parametrize("values", [[[1, 2], [3]], [10**400]])
def test_values_that_make_no_array_are_refused(values: Any) -> None:
    message = refusal(one_angle(), {"t": values})
    assert message.startswith("values of Sweep for 't' make no array (")
    assert message.endswith("). Give real numbers.")


def test_sweep_shows_what_it_is() -> None:
    assert repr(Sweep(one_angle(), {"t": [1, 2]})) == "Sweep('one', 2 rows of 't')"


def test_million_rows_are_kept_in_8_bytes_a_number() -> None:
    values: NDArray[np.float64] = np.linspace(0, 1, 10**6, dtype=np.float64)
    sweep = Sweep(one_angle(), {"t": values})
    assert len(cloudpickle.dumps(sweep)) < 8 * 10**6 + 10_000
    assert sweep.build(10**6 - 1, 0).data[0].params == [1.0]
