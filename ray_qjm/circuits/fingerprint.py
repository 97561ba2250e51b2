"""A number that tells whether a circuit is still the one that was run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit.circuit import CircuitInstruction, ClassicalRegister, Clbit, ControlFlowOp, ParameterExpression
from qiskit.circuit.classical import expr
from qiskit.circuit.library import (
    DiagonalGate,
    HamiltonianGate,
    Initialize,
    Isometry,
    StatePreparation,
    UnitaryGate,
)

from ray_qjm.errors import StoreMismatchError

#: Instructions without a definition of their own that are no gates.
_PLAIN = frozenset({"barrier", "delay", "measure", "reset"})

#: Gates of which the parameters say everything.
_BY_PARAMETERS = (DiagonalGate, HamiltonianGate, Initialize, Isometry, StatePreparation, UnitaryGate)


def fingerprint(circuit: QuantumCircuit) -> int:
    """Hash what a circuit does: its operations, the bits they act on, their parameters; its registers of clbits.

    Names of circuits and registers, metadata, labels and the layout are left out; so are names of instructions
    that have a definition, since Qiskit counts them through (``circuit-172``). Equal across processes and machines
    for one release of Qiskit.

    Returns:
        0 <= value < 2**64.

    >>> bell = QuantumCircuit(2)
    >>> _ = bell.h(0), bell.cx(0, 1)
    >>> fingerprint(bell) == fingerprint(bell.copy("of another name"))
    True
    """
    lines: list[str] = []
    _circuit(circuit, lines)
    digest = hashlib.blake2b("\n".join(lines).encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "big")


def try_fingerprint(circuit: QuantumCircuit) -> int:
    """The fingerprint, or 0 of a circuit that has an instruction which can't tell what it is."""
    try:
        return fingerprint(circuit)
    except Exception:  # a gate of the user's, whose definition raises
        return 0


def check_marks(
    marks: NDArray[np.uint64], start: int, circuits: Sequence[QuantumCircuit | Exception], kind: str
) -> None:
    """Make sure that circuits are those that were run.

    Args:
        marks: Fingerprints by row, 0 where unknown.
        start: Row of the first circuit.
        circuits: Now, or what was raised in place of one.
        kind: What gave them.

    Raises:
        StoreMismatchError: One is another.
    """
    for row, circuit in enumerate(circuits, start):
        stored = int(marks[row]) if row < len(marks) else 0
        if not stored:
            continue
        if isinstance(circuit, Exception):
            given = f"{type(circuit).__name__}: {circuit}"
        else:
            now = try_fingerprint(circuit)
            if now in (0, stored):
                continue
            given = f"{now:016x}"
        raise StoreMismatchError(
            "circuits",
            f"{stored:016x}",
            given,
            f"circuit {row} of {kind} isn't the one that was run: the store has its fingerprint as {stored:016x}, "
            f"now it is {given}. Make the same circuits as before (fix the seed of what draws them), or give "
            "another store.",
        )


def _circuit(circuit: QuantumCircuit, lines: list[str]) -> None:
    """The circuit as lines of text, no two different circuits the same."""
    places: dict[Any, int] = {bit: i for i, bit in enumerate(circuit.qubits)}
    places.update((bit, i) for i, bit in enumerate(circuit.clbits))
    lines.append(f"{circuit.num_qubits} {circuit.num_clbits} {_value(circuit.global_phase)}")
    lines += [f"register {[places[bit] for bit in register]}" for register in circuit.cregs]
    if circuit.num_vars:
        lines += [f"{var.name!r} {var.type}" for var in circuit.iter_vars()]
    place = places.__getitem__
    for instruction in circuit.data:
        where = f"{[*map(place, instruction.qubits)]}"
        if not instruction.is_standard_gate():
            _operation(instruction, where, places, lines)
        elif values := instruction.params:
            lines.append(f"{instruction.name!r} {where} {[*map(_value, values)]}")
        else:
            lines.append(f"{instruction.name!r} {where}")


def _operation(
    instruction: CircuitInstruction, line: str, places: Mapping[Any, int], lines: list[str]
) -> None:
    """One instruction that isn't among Qiskit's standard gates, which are given by name and parameters."""
    line = f"{line} {[places[clbit] for clbit in instruction.clbits]}"
    name = instruction.name
    if name in _PLAIN:
        unit = instruction.operation.unit if name == "delay" else ""
        lines.append(f"{name!r} {line} {[*map(_value, instruction.params)]} {unit}")
        return
    operation = instruction.operation
    if isinstance(operation, ControlFlowOp):
        lines.append(f"{name!r} {line} {_control(operation, places)}")
        for block in operation.blocks:
            _nested(block, lines)
        return
    values = [_value(value) for value in getattr(operation, "params", ())]
    line = f"{line} {type(operation).__name__} {values} {getattr(operation, 'ctrl_state', '')}"
    # To define a gate of a matrix is to decompose it: seconds for seven qubits, and floats that differ by machine.
    definition = None if isinstance(operation, _BY_PARAMETERS) else getattr(operation, "definition", None)
    if definition is None:
        lines.append(f"{name!r} {line}")
    else:
        lines.append(line)
        _nested(definition, lines)


def _nested(circuit: QuantumCircuit, lines: list[str]) -> None:
    lines.append("{")
    _circuit(circuit, lines)
    lines.append("}")


def _control(operation: ControlFlowOp, places: Mapping[Any, int]) -> str:
    """What decides: a condition, a target with its cases, or a loop's values."""
    parts = []
    for name in ("condition", "target"):
        value = getattr(operation, name, None)
        if isinstance(value, tuple):
            parts.append(f"{_classical(value[0], places)} == {int(value[1])}")
        elif value is not None:
            parts.append(_classical(value, places))
    if (cases := getattr(operation, "cases_specifier", None)) is not None:
        parts.append(str([[str(value) for value in values] for values, _ in cases()]))
    if operation.name == "for_loop":
        values, parameter, _ = operation.params
        parts.append(f"{list(values)} {parameter}")
    return " ".join(parts)


def _classical(value: Any, places: Mapping[Any, int]) -> str:
    if isinstance(value, Clbit):
        return f"clbit {places[value]}"
    if isinstance(value, ClassicalRegister):
        return f"register {[places[bit] for bit in value]}"
    if isinstance(value, expr.Expr):
        bits = [_classical(var.var, places) for var in expr.iter_vars(value) if not var.standalone]
        return f"{_shape(value)} {bits}"
    return str(value)


def _shape(value: expr.Expr) -> str:
    """An expression without the bits in it, whose text would hold their addresses."""
    if isinstance(value, expr.Var):
        return f"var {value.name if value.standalone else ''} {value.type}"
    if isinstance(value, expr.Value):
        return f"value {value.value} {value.type}"
    operands = [
        getattr(value, name)
        for name in ("operand", "left", "right", "target", "index")
        if hasattr(value, name)
    ]
    return (
        f"{type(value).__name__} {getattr(value, 'op', '')} {value.type} ({', '.join(map(_shape, operands))})"
    )


def _value(value: Any) -> str:
    """A parameter; floats to the last bit."""
    if isinstance(value, float):
        return value.hex()  # numpy.float64 is a float too, and its repr another
    if isinstance(value, (int, str, np.integer, np.bool_)):
        return repr(value) if isinstance(value, str) else str(int(value))
    if isinstance(value, (complex, np.complexfloating, np.floating)):
        return f"{float(value.real).hex()} {float(value.imag).hex()}"
    if isinstance(value, np.ndarray):
        content = hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=8)
        return f"{value.dtype} {value.shape} {content.hexdigest()}"
    if isinstance(value, ParameterExpression):
        return f"expression {value}"
    if isinstance(value, QuantumCircuit):
        return f"circuit {fingerprint(value)}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    # Of an object that this doesn't know only the kind is sure to be the same tomorrow.
    return type(value).__name__
