"""What travels arrives as it left: by QPY where that is known, pickled where QPY would lose something."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qiskit_aer  # noqa: F401 - adds save_* to QuantumCircuit
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister, qpy, transpile
from qiskit.circuit import AncillaRegister, Clbit, Gate, Measure, Parameter, ParameterVector, Qubit
from qiskit.circuit.classical import expr
from qiskit.circuit.library import QFTGate, RXGate, UnitaryGate, XGate
from qiskit.circuit.random import random_circuit
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import random_unitary

from ray_qjm.circuits.payload import decode, encode, why_not_qpy
from ray_qjm.errors import CircuitFailedError, SourceError, UnsupportedCircuitError

BACKEND = GenericBackendV2(5, coupling_map=[[0, 1], [1, 2], [2, 3], [3, 4]], control_flow=True, seed=1)


def details(circuit: QuantumCircuit) -> dict[str, Any]:
    """What == doesn't look at, or takes for equal."""
    return {
        "type": type(circuit),
        "name": circuit.name,
        "metadata": repr(circuit.metadata),
        "phase": (type(circuit.global_phase), circuit.global_phase),
        "qregs": [(type(register), register.name, len(register)) for register in circuit.qregs],
        "cregs": [(type(register), register.name, len(register)) for register in circuit.cregs],
        "owned": [
            [(register.name, index) for register, index in circuit.find_bit(bit).registers]
            for bit in [*circuit.qubits, *circuit.clbits]
        ],
        "ancillas": len(circuit.ancillas),
        "parameters": list(circuit.parameters),
        "schedule": (circuit._op_start_times, circuit._duration, circuit._unit),
        "operations": [operation_details(item.operation) for item in circuit.data],
    }


def operation_details(operation: Any) -> tuple[Any, ...]:
    return (
        getattr(operation, "base_class", type(operation)),
        operation.name,
        getattr(operation, "label", None),
        [parameter_details(parameter) for parameter in getattr(operation, "params", [])]
        if not getattr(operation, "blocks", None)
        else [details(block) for block in operation.blocks],
        getattr(operation, "unit", None),
        getattr(operation, "duration", None),
        getattr(operation, "ctrl_state", None),
    )


def parameter_details(parameter: Any) -> tuple[str, str]:
    # A number read off an instruction may be NumPy's or Python's, as Qiskit last touched it.
    if isinstance(parameter, float):
        return "float", repr(float(parameter))
    return type(parameter).__name__, str(parameter)


def layout_details(circuit: QuantumCircuit) -> Any:
    layout = circuit.layout
    if layout is None:
        return None
    return (
        layout.initial_index_layout(),
        layout.initial_index_layout(filter_ancillas=True),
        layout.final_index_layout(),
        layout.final_index_layout(filter_ancillas=False),
        layout.routing_permutation(),
        layout.initial_virtual_layout(filter_ancillas=True),
        layout.final_virtual_layout(),
    )


def arrived(circuit: QuantumCircuit) -> QuantumCircuit:
    (item,) = decode(encode([circuit]))
    assert isinstance(item, QuantumCircuit), item
    return item


def assert_arrives(circuit: QuantumCircuit) -> None:
    item = arrived(circuit)
    assert item is not circuit
    assert item == circuit
    assert details(item) == details(circuit)
    assert item.layout == circuit.layout
    assert layout_details(item) == layout_details(circuit)


def reference(error: Exception) -> tuple[str, str]:
    return type(error).__name__, str(error)


# Circuits of any kind.

Step = Callable[[QuantumCircuit], object]


class Named(Gate):  # type: ignore[misc]
    """A gate of the user's own, with a field."""

    def __init__(self, field: int) -> None:
        super().__init__("named", 1, [0.5])
        self.field = field


def block(circuit: QuantumCircuit) -> None:
    with circuit.if_test((circuit.clbits[0], True)) as otherwise:
        circuit.rx(0.5, 0)
        with circuit.for_loop(range(3)):
            circuit.h(1)
    with otherwise:
        circuit.delay(100, 0, unit="ns")


def switch(circuit: QuantumCircuit) -> None:
    with circuit.switch(circuit.cregs[0]) as case:
        with case(0, 1):
            circuit.x(0)
        with case(case.DEFAULT):
            circuit.unitary(random_unitary(2, seed=3), 1)


def loop(circuit: QuantumCircuit) -> None:
    with circuit.while_loop(expr.logic_not(circuit.clbits[0])):
        circuit.measure(0, 0)
        circuit.break_loop()


def variable(circuit: QuantumCircuit) -> None:
    v = circuit.add_var(f"v{circuit.num_identifiers}", expr.lift(True))
    circuit.store(v, circuit.clbits[1])


def boxed(circuit: QuantumCircuit) -> None:
    with circuit.box(label="b", duration=100, unit="ns"):
        circuit.h(0)


def scaled(circuit: QuantumCircuit) -> None:
    vector = ParameterVector(f"w{len(circuit.data)}", 2)
    circuit.rx(2 * vector[0] + vector[1], 0)


def renamed(gate: Any, name: str, *qubits: int, clbits: list[int] | None = None) -> Step:
    gate = gate.to_mutable() if hasattr(gate, "to_mutable") else gate
    gate.name = name
    return lambda circuit: circuit.append(gate, list(qubits), clbits)


def composite() -> Gate:
    inner = QuantumCircuit(2, name="inner")
    inner.h(0)
    inner.cx(0, 1)
    return inner.to_gate()


STEPS: dict[str, Step] = {
    "x": lambda c: c.x(0),
    "labelled": lambda c: c.append(XGate(label="l"), [0]),
    "no label": lambda c: c.append(XGate(label=""), [0]),
    "rx": lambda c: c.rx(0.1, 1),
    "rx int": lambda c: c.rx(1, 1),
    "rx numpy": lambda c: c.rx(np.float64(0.25), 1),
    "cx": lambda c: c.cx(0, 1),
    "cx on 0": lambda c: c.cx(0, 1, ctrl_state=0),
    "mcx": lambda c: c.mcx([0, 1], 2),
    "ccrx": lambda c: c.append(RXGate(0.3).control(2, annotated=False), [0, 1, 2]),
    "cu": lambda c: c.cu(0.1, 0.2, 0.3, 0.4, 0, 2),
    "barrier": lambda c: c.barrier(),
    "barrier label": lambda c: c.barrier(0, label="here"),
    "measure": lambda c: c.measure(1, 1),
    "reset": lambda c: c.reset(2),
    "unitary": lambda c: c.unitary(random_unitary(4, seed=2), [0, 2]),
    "unitary F": lambda c: c.unitary(np.asfortranarray(random_unitary(4, seed=2).data), [0, 2]),
    "unitary label": lambda c: c.unitary(random_unitary(2, seed=2), [0], label="u"),
    "phase": lambda c: setattr(c, "global_phase", c.global_phase + 0.3),
    "int phase": lambda c: setattr(c, "global_phase", 1),
    "delay dt": lambda c: c.delay(100, 0),
    "long delay": lambda c: c.delay(2**53 + 1, 0),
    "delay ns": lambda c: c.delay(100, 0, unit="ns"),
    "delay us": lambda c: c.delay(1.5, 0, unit="us"),
    "delay s": lambda c: c.delay(1e-6, 0, unit="s"),
    "save": lambda c: c.save_statevector(label=f"s{len(c.data)}"),
    "save probabilities": lambda c: c.save_probabilities([0, 1], label=f"p{len(c.data)}"),
    "parameter": lambda c: c.rx(Parameter(f"p{len(c.data)}"), 0),
    "expression": scaled,
    "parameter phase": lambda c: setattr(c, "global_phase", Parameter(f"f{len(c.data)}")),
    "if": block,
    "switch": switch,
    "while": loop,
    "variable": variable,
    "box": boxed,
    "opaque gate": lambda c: c.append(Gate("mine", 1, [0.5]), [0]),
    "gate called x": lambda c: c.append(Gate("x", 1, []), [0]),
    "own class": lambda c: c.append(Named(3), [0]),
    "composite": lambda c: c.append(composite(), [0, 2]),
    "renamed rx": renamed(RXGate(0.5), "odd", 0),
    "renamed x": renamed(XGate(), "odd", 0),
    "renamed unitary": renamed(UnitaryGate(np.eye(2)), "odd", 0),
    "renamed measure": renamed(Measure(), "odd", 0, clbits=[0]),
    "qft": lambda c: c.append(QFTGate(3), [0, 1, 2]),
    "initialize": lambda c: c.initialize([1, 0], 0),
    "tuple": lambda c: c.metadata.update(shape=(1, 2)),
    "numpy": lambda c: c.metadata.update(array=np.float64(0.5)),
    "number key": lambda c: c.metadata.update({1: "one"}),
    "json": lambda c: c.metadata.update(big=10**400, none=None, nested={"x": [1, 2.5, True, "\u00fc"]}),
    "nan": lambda c: c.metadata.update(nan=float("nan"), inf=-float("inf")),
    "name": lambda c: setattr(c, "name", "\u00fc\x00\U0001f389"),
    "empty name": lambda c: setattr(c, "name", ""),
    "long name": lambda c: setattr(c, "name", "n" * 70_000),
    "ancilla": lambda c: c.add_register(AncillaRegister(2, f"anc{len(c.qregs)}")),
    "alias": lambda c: c.add_register(QuantumRegister(name=f"al{len(c.qregs)}", bits=c.qubits[1:3])),
    "empty register": lambda c: c.add_register(ClassicalRegister(0, f"e{len(c.cregs)}")),
    "loose bits": lambda c: c.add_bits([Qubit(), Clbit()]),
}


def fresh() -> QuantumCircuit:
    return QuantumCircuit(QuantumRegister(3, "a"), ClassicalRegister(2, "m"), name="c", metadata={})


@pytest.mark.parametrize("step", STEPS)
def test_each_feature_arrives(step: str) -> None:
    circuit = fresh()
    circuit.h(0)
    STEPS[step](circuit)
    assert_arrives(circuit)


@given(st.lists(st.lists(st.sampled_from(sorted(STEPS)), max_size=6), max_size=4))
@settings(max_examples=60)
def test_any_mixture_of_features_arrives_in_order(recipes: list[list[str]]) -> None:
    circuits = []
    for recipe in recipes:
        circuit = fresh()
        for step in recipe:
            STEPS[step](circuit)
        circuits.append(circuit)
    items = decode(encode(circuits))
    assert items == circuits
    for item, circuit in zip(items, circuits, strict=True):
        assert isinstance(item, QuantumCircuit)
        assert details(item) == details(circuit)


@given(st.integers(1, 5), st.integers(0, 6), st.booleans(), st.integers(0, 2**31), st.booleans())
@settings(max_examples=40)
def test_random_circuits_arrive(width: int, depth: int, conditional: bool, seed: int, laid_out: bool) -> None:
    circuit = random_circuit(
        width, depth, max_operands=min(width, 4), measure=True, conditional=conditional, reset=True, seed=seed
    )
    if laid_out:
        circuit = transpile(circuit, BACKEND, optimization_level=seed % 4, seed_transpiler=seed)
    assert_arrives(circuit)


METADATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), METADATA, max_size=4), st.text(max_size=20))
def test_any_metadata_and_name_arrive(metadata: dict[str, Any], name: str) -> None:
    circuit = QuantumCircuit(1, name=name, metadata=metadata)
    item = arrived(circuit)
    assert item.name == name
    assert repr(item.metadata) == repr(metadata)


def test_metadata_that_holds_itself_arrives() -> None:
    metadata: dict[str, Any] = {"a": 1}
    metadata["self"] = metadata
    item = arrived(QuantumCircuit(1, metadata=metadata))
    assert item.metadata["self"]["self"]["a"] == 1


def test_metadata_of_a_subclass_of_dict_or_str_keeps_its_types() -> None:
    class Text(str):
        pass

    class Mapping(dict[str, Any]):
        pass

    for metadata in (Mapping(), {"a": Text("b")}, {Text("a"): 1}):
        item = arrived(QuantumCircuit(1, metadata=metadata))
        assert item.metadata == metadata
        assert type(item.metadata) is type(metadata)
        for given_pair, pair in zip(metadata.items(), item.metadata.items(), strict=True):
            assert [type(part).__name__ for part in pair] == [type(part).__name__ for part in given_pair]


def test_class_and_attributes_of_a_circuit_arrive() -> None:
    class Own(QuantumCircuit):  # type: ignore[misc]
        pass

    circuit = QuantumCircuit(1)
    circuit.note = {"mine": 1}
    assert arrived(circuit).note == {"mine": 1}
    assert type(arrived(Own(1))).__name__ == "Own"


def test_changed_definition_and_attributes_of_a_gate_arrive() -> None:
    instead = QuantumCircuit(1)
    instead.x(0)
    for gate in (RXGate(0.5), XGate().to_mutable(), UnitaryGate(np.eye(2))):
        gate.definition = instead
        gate.note = "mine"
        circuit = QuantumCircuit(1)
        circuit.append(gate, [0])
        operation = arrived(circuit).data[0].operation
        assert operation.definition == instead
        assert operation.note == "mine"


def test_parameters_stay_the_same_ones() -> None:
    parameter = Parameter("t")
    circuit = QuantumCircuit(1)
    circuit.rx(parameter, 0)
    bound = arrived(circuit).assign_parameters({parameter: 0.5})
    assert bound.data[0].params == [0.5]


# Layouts.


def entangled(*bits: Any) -> QuantumCircuit:
    circuit = QuantumCircuit(*bits)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.cx(0, 2)
    circuit.cx(1, 2)
    circuit.measure_all()
    return circuit


LOOSE = [Qubit(), Qubit(), Qubit()]
QUBITS: dict[str, list[Any]] = {
    "one register": [3],
    "two registers": [QuantumRegister(1, "x"), QuantumRegister(2, "y")],
    "name of the physical one": [QuantumRegister(5, "q")],
    "name of the filling": [QuantumRegister(3, "ancilla")],
    "slice": [QuantumRegister(4, "w")[:3], QuantumRegister(1, "z")],
    "ancilla": [QuantumRegister(2, "x"), AncillaRegister(1, "y")],
    "loose": [LOOSE],
    "alias": [LOOSE, QuantumRegister(name="al", bits=LOOSE[1:])],
}


@pytest.mark.parametrize("bits", QUBITS)
@pytest.mark.parametrize("level", [0, 1, 3])
def test_layout_arrives(bits: str, level: int) -> None:
    compiled = transpile(
        entangled(*QUBITS[bits]), BACKEND, optimization_level=level, initial_layout=None, seed_transpiler=4
    )
    assert compiled.layout is not None
    assert_arrives(compiled)
    if bits in ("loose", "alias"):
        assert why_not_qpy(compiled) == "a layout of qubits without registers, or made by hand"
    elif bits != "ancilla":
        assert why_not_qpy(compiled) is None


def test_layout_with_routing_arrives_by_qpy() -> None:
    circuit = entangled(3)
    compiled = transpile(circuit, BACKEND, optimization_level=1, initial_layout=[4, 0, 2], seed_transpiler=4)
    assert compiled.layout.final_layout is not None
    assert why_not_qpy(compiled) is None
    assert_arrives(compiled)
    assert_arrives(transpile(compiled, BACKEND, seed_transpiler=5))


def test_layout_made_by_hand_arrives() -> None:
    compiled = transpile(entangled(3), BACKEND, seed_transpiler=4)
    compiled._layout._input_qubit_count = None
    assert why_not_qpy(compiled) == "a layout of qubits without registers, or made by hand"
    item = arrived(compiled)
    assert item.layout == compiled.layout
    assert item.layout._output_qubit_list is not None


def test_schedule_arrives() -> None:
    compiled = transpile(entangled(3), BACKEND, scheduling_method="alap", seed_transpiler=4)
    assert why_not_qpy(compiled) == "a schedule (start times of instructions)"
    assert_arrives(compiled)
    assert arrived(compiled).op_start_times == compiled.op_start_times


# Which way.


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ("delay ns", "a delay in 'ns'"),
        ("delay s", "a delay in 's'"),
        ("tuple", "metadata that JSON can't say"),
        ("numpy", "metadata that JSON can't say"),
        ("number key", "metadata that JSON can't say"),
        ("long name", "its name"),
        ("parameter", "free parameters"),
        ("parameter phase", "free parameters"),
        ("variable", "classical variables"),
        ("ancilla", "an ancilla register"),
        ("save", "an instruction 'save_statevector' of type SaveStatevector"),
        ("if", "an instruction 'if_else' of type IfElseOp"),
        ("own class", "an instruction 'named' of type Named"),
        ("renamed rx", "an instruction 'odd' of type RXGate"),
        ("unitary label", "an instruction 'unitary' of type UnitaryGate"),
    ],
)
def test_what_qpy_would_lose_is_told(step: str, reason: str) -> None:
    circuit = fresh()
    STEPS[step](circuit)
    assert why_not_qpy(circuit) == reason


def test_what_qpy_would_lose_of_the_circuit_itself_is_told() -> None:
    class Own(QuantumCircuit):  # type: ignore[misc]
        pass

    circuit = QuantumCircuit(1)
    circuit.note = 1
    assert why_not_qpy(circuit) == "attributes of its own"
    assert why_not_qpy(Own(1)) == "its class Own"
    scheduled = QuantumCircuit(1)
    scheduled._duration = 100
    assert why_not_qpy(scheduled) == "a schedule (start times of instructions)"


@pytest.mark.parametrize(
    "step",
    [
        *("x", "labelled", "rx", "rx int", "rx numpy", "cx", "mcx", "cu", "barrier", "measure", "reset"),
        *("unitary", "phase", "delay dt", "json", "nan", "name", "alias"),
    ],
)
def test_common_circuits_go_by_qpy(step: str) -> None:
    circuit = fresh()
    STEPS[step](circuit)
    assert why_not_qpy(circuit) is None


def test_what_was_drawn_decomposed_or_transpiled_still_goes_by_qpy() -> None:
    circuit = entangled(3)
    circuit.rx(0.5, 0)
    circuit.draw()
    transpile(circuit, BACKEND, optimization_level=3)
    circuit.decompose()
    for made in (circuit, circuit.copy(), circuit.decompose(), circuit.reverse_bits(), arrived(circuit)):
        assert why_not_qpy(made) is None


def test_one_circuit_that_qpy_fails_to_write_does_not_slow_down_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As far as is known QPY writes whatever is on the list; a later Qiskit may not."""
    bad = QuantumCircuit(1, name="bad")
    written: list[int] = []
    dump = qpy.dump

    def picky(circuits: list[QuantumCircuit], stream: Any) -> None:
        if any(circuit.name == "bad" for circuit in circuits):
            raise ValueError("not that one")
        written.append(len(circuits))
        dump(circuits, stream)

    monkeypatch.setattr(qpy, "dump", picky)
    circuits = [QuantumCircuit(1, name=name) for name in ("a", "bad", "b")]
    assert [getattr(item, "name", None) for item in decode(encode(circuits))] == ["a", "bad", "b"]
    assert written[-1] == 2
    assert decode(encode([bad])) == [bad]


def test_nothing_is_a_payload_too() -> None:
    assert decode(encode([])) == []


def test_qpy_payload_is_small() -> None:
    circuits = [random_circuit(5, 8, max_operands=2, seed=seed, measure=True) for seed in range(50)]
    assert len(encode(circuits)) < sum(len(pickle.dumps(circuit)) for circuit in circuits) / 2


# What can't be sent or loaded.


def test_circuit_that_cannot_be_pickled_stands_as_an_error() -> None:
    bad = QuantumCircuit(1, metadata={"lock": threading.Lock()})
    items = decode(encode([QuantumCircuit(1), bad, QuantumCircuit(2)]))
    assert [type(item) for item in items] == [QuantumCircuit, UnsupportedCircuitError, QuantumCircuit]
    assert str(items[1]) == (
        "it can't be sent to a worker (TypeError: cannot pickle '_thread.lock' object). Make it picklable."
    )


class Fields(Exception):  # noqa: N818
    """Takes more than its message: unpickling it fails."""

    def __init__(self, code: int, where: str) -> None:
        self.code = code
        super().__init__(f"{where} failed with {code}")


class Prefixed(Exception):  # noqa: N818
    """Unpickling succeeds and gives another message."""

    def __init__(self, what: str) -> None:
        super().__init__(f"failed: {what}")


class Keyword(Exception):  # noqa: N818
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")


class Locked(Exception):  # noqa: N818
    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


class Mute(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Reduced(Exception):  # noqa: N818
    def __reduce__(self) -> Any:
        raise RuntimeError("stays here")


class Turncoat(Exception):  # noqa: N818
    def __reduce__(self) -> Any:
        return ValueError, ("another type",)


@pytest.mark.parametrize(
    "error",
    [
        Fields(3, "here"),
        Prefixed("it"),
        Keyword(code=3),
        Locked(),
        Reduced("told"),
        Turncoat("mine"),
        ValueError("plain"),
        KeyError("key"),
        ValueError(),
        ValueError(threading.Lock()),
        OSError(2, "No such file", "a.qpy"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        CircuitFailedError(3, "failed", "ValueError", "why"),
        SourceError("gone"),
    ],
)
def test_exception_arrives_with_its_type_name_and_message(error: Exception) -> None:
    circuit = QuantumCircuit(1)
    first, item, last = decode(encode([circuit, error, circuit]))
    assert first == last == circuit
    assert isinstance(item, Exception)
    assert reference(item) == reference(error)


def test_exception_that_can_travel_keeps_its_type_and_fields() -> None:
    (item,) = decode(encode([CircuitFailedError(3, "failed", "ValueError", "why")]))
    assert isinstance(item, CircuitFailedError)
    assert (item.circuit, item.error_type) == (3, "ValueError")


def test_exception_without_words_arrives() -> None:
    (item,) = decode(encode([Mute()]))
    assert reference(item if isinstance(item, Exception) else ValueError()) == (
        "Mute",
        "(its message can't be had)",
    )


def test_exception_with_its_cause_and_traceback_arrives() -> None:
    def fail() -> Exception:
        try:
            try:
                raise Locked
            except Locked as error:
                raise ValueError("outer") from error
        except ValueError as error:
            return error

    (item,) = decode(encode([fail()]))
    assert isinstance(item, ValueError)
    assert str(item) == "outer"


MODULE = """
from qiskit import QuantumCircuit
from qiskit.circuit import Gate
from ray_qjm.circuits.payload import encode

class Own(Exception):
    pass

class OwnGate(Gate):
    def __init__(self):
        super().__init__("own", 1, [])

def write(path):
    circuit = QuantumCircuit(1)
    circuit.append(OwnGate(), [0])
    with open(path, "wb") as stream:
        stream.write(encode([circuit, Own("the reason"), QuantumCircuit(2)]))
"""


def test_module_that_is_missing_on_a_worker_costs_its_circuits_alone(tmp_path: Path) -> None:
    (tmp_path / "only_in_the_driver.py").write_text(MODULE)
    script = f"import only_in_the_driver; only_in_the_driver.write({str(tmp_path / 'payload')!r})"
    path = [str(tmp_path), *sys.path]
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {path!r}; {script}"], check=True, timeout=120
    )
    circuit, error, last = decode((tmp_path / "payload").read_bytes())
    assert last == QuantumCircuit(2)
    assert isinstance(circuit, UnsupportedCircuitError)
    assert str(circuit) == (
        "it can't be loaded on a worker (ModuleNotFoundError: No module named 'only_in_the_driver'). "
        "Install what it needs on every node."
    )
    assert isinstance(error, Exception)
    assert reference(error) == ("Own", "the reason")


# Foreign bytes.


@pytest.mark.parametrize("data", [b"", b"QISKIT\x10", b"rqjm0\n", pickle.dumps([]), b"rqjm1"])
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError) as caught:
        decode(data)
    assert str(caught.value) == (
        f"payload of {len(data)} bytes starts with {data[:8]!r}, not b'rqjm1\\n': it comes from another "
        "version of ray_qjm. Install one version on all nodes."
    )


@given(st.binary(max_size=30).filter(lambda data: not data.startswith(b"rqjm1\n")))
def test_any_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="Install one version on all nodes"):
        decode(data)


@pytest.mark.parametrize("rest", [b"", b"garbage", pickle.dumps(3), pickle.dumps((1, 2))])
def test_damaged_payload_is_refused(rest: bytes) -> None:
    with pytest.raises(ValueError, match=r"payload of \d+ bytes is damaged \(.*\)\. Run its circuits again"):
        decode(b"rqjm1\n" + rest)


def test_payload_cut_off_anywhere_is_refused() -> None:
    data = encode([QuantumCircuit(1), QuantumCircuit(1, metadata={"t": (1,)})])
    for stop in range(len(data)):
        with pytest.raises(ValueError, match="payload of"):
            decode(data[:stop])
