"""How circuits travel inside Ray: as QPY where nothing is lost, by cloudpickle where something would be.

QPY is four times faster than pickle and three times smaller, but turns ``delay(100, "ns")`` into 100 dt,
can't load ``delay(1e-6, "s")``, loses the classes behind Aer's ``save_*`` and tuples in metadata. So it gets
only what it is known to keep; whatever isn't on that list costs time, never truth.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import cloudpickle
import numpy as np
from qiskit import QuantumCircuit, qpy
from qiskit.circuit import (
    CASE_DEFAULT,
    AncillaRegister,
    Barrier,
    Delay,
    Gate,
    Measure,
    Operation,
    Qubit,
    Reset,
)
from qiskit.circuit.library import UnitaryGate, get_standard_gate_name_mapping

from ray_qjm.errors import RayQjmError, UnsupportedCircuitError

_GATES = [gate for gate in get_standard_gate_name_mapping().values() if isinstance(gate, Gate)]
_OTHERS = [Barrier(1), Measure(), Reset(), UnitaryGate(np.eye(2))]
_STANDARD = frozenset(gate.base_class for gate in _GATES)
_PLAIN = frozenset(other.base_class for other in _OTHERS)

#: Class to the name and the number of attributes of an instruction that nobody has changed. QPY writes the
#: class, and the name, definition and attributes that a user may have given are lost.
_FRESH = {fresh.base_class: (fresh.name, len(vars(fresh))) for fresh in [*_GATES, *_OTHERS, Delay(1)]}

_CIRCUIT_ATTRIBUTES = frozenset(vars(QuantumCircuit()))

#: QPY stores the lengths of names in 16 bits; UTF-8 takes at most four bytes a character.
_MAX_NAME = (2**16 - 1) // 4

# Qiskit (2.6) pickles the default case of a switch as an object of its own, and the circuit that holds it
# can't be loaded. Told to copyreg, because callables and sweeps that hold one are pickled elsewhere.
copyreg.pickle(type(CASE_DEFAULT), lambda _: "CASE_DEFAULT")

#: Leads every payload: a worker of another version must not guess.
#: Bytes of JSON around a compressed circuit.
_AROUND = 80

_MAGIC = b"rqjm1\n"


def encode(items: Sequence[QuantumCircuit | Exception]) -> bytes:
    """Pack circuits, and the exceptions that stand for circuits which couldn't be had, in their order.

    All circuits that QPY keeps go into one QPY dump, the others are pickled one by one. What can't be sent
    doesn't hold up the rest: such a circuit becomes an ``UnsupportedCircuitError`` that says why, such an
    exception one of the same type name and message.

    Returns:
        Bytes for ``decode``, in a process with the same versions of Qiskit and of this package.

    >>> [item.name for item in decode(encode([QuantumCircuit(1, name="a"), QuantumCircuit(2, name="b")]))]
    ['a', 'b']
    """
    at = [i for i, item in enumerate(items) if isinstance(item, QuantumCircuit) and why_not_qpy(item) is None]
    dump = _dump([items[i] for i in at])
    if dump is None:  # one that QPY should keep, but can't write: find it, it must not slow down the rest
        at = [i for i in at if _dump([items[i]]) is not None]
        dump = _dump([items[i] for i in at])
        if dump is None:
            at, dump = [], b""
    kept = set(at)
    pickled = [(i, _pickles(item)) for i, item in enumerate(items) if i not in kept]
    return _MAGIC + pickle.dumps((len(items), at, dump, pickled), protocol=pickle.HIGHEST_PROTOCOL)


def decode(data: bytes) -> list[QuantumCircuit | Exception]:
    """Unpack what ``encode`` packed. It unpickles: give it only payloads of this task.

    Returns:
        The items in order. A circuit that can't be loaded here (its module isn't installed on this worker) is
        an ``UnsupportedCircuitError``, such an exception one of the same type name and message.

    Raises:
        ValueError: ``data`` isn't a payload of this version, or damaged.
    """
    if not data.startswith(_MAGIC):
        raise ValueError(
            f"payload of {len(data)} bytes starts with {data[:8]!r}, not {_MAGIC!r}: it comes from another "
            "version of ray_qjm. Install one version on all nodes."
        )
    try:
        size, at, dump, pickled = pickle.loads(memoryview(data)[len(_MAGIC) :])
    except Exception as error:
        raise ValueError(
            f"payload of {len(data)} bytes is damaged ({type(error).__name__}: {error}). Run its circuits "
            "again."
        ) from error
    items: list[Any] = [None] * size
    if at:
        for i, circuit in zip(at, qpy.load(io.BytesIO(dump)), strict=True):
            items[i] = circuit
    for i, blobs in pickled:
        items[i] = _unpickle(blobs)
    return items


def to_qpy(circuits: Sequence[QuantumCircuit]) -> bytes:
    """Circuits that QPY keeps, see ``why_not_qpy``, as a QPY file: nothing is run when it is read."""
    buffer = io.BytesIO()
    qpy.dump(list(circuits), buffer)
    return buffer.getvalue()


def packed_bytes(circuit: QuantumCircuit, *, squeezed: bool) -> int:
    """Bytes of a circuit on its way to a service.

    Args:
        circuit: Compiled.
        squeezed: As IBM's client sends it: compressed by itself, in base64, in JSON with its brackets.
    """
    data = to_qpy([circuit])
    return -(-len(zlib.compress(data)) * 4 // 3) + _AROUND if squeezed else len(data)


def smallest_qpy() -> int:
    """Bytes of a circuit that measures one qubit: no circuit with counts is smaller."""
    circuit = QuantumCircuit(1, 1)
    circuit.measure(0, 0)
    return len(to_qpy([circuit]))


def from_qpy(data: bytes) -> list[QuantumCircuit] | None:
    """What ``to_qpy`` was given; ``None`` if the bytes are torn, or of a newer Qiskit."""
    try:
        return list(qpy.load(io.BytesIO(data)))
    except Exception:  # whatever struct, json and Qiskit itself make of such bytes
        return None


def why_not_qpy(circuit: QuantumCircuit) -> str | None:
    """Say what QPY would lose of a circuit, or might lose as far as is known; ``None``: nothing.

    >>> why_not_qpy(QuantumCircuit(1)) is None
    True
    >>> delayed = QuantumCircuit(1)
    >>> _ = delayed.delay(100, 0, unit="ns")
    >>> why_not_qpy(delayed)
    "a delay in 'ns'"
    """
    if type(circuit) is not QuantumCircuit:
        return f"its class {type(circuit).__name__}"
    if not isinstance(circuit.name, str) or len(circuit.name) > _MAX_NAME:
        return "its name"
    if not _is_json(circuit.metadata):
        return "metadata that JSON can't say"
    # The transpiler leaves a few that are None.
    if any(value is not None for name, value in vars(circuit).items() if name not in _CIRCUIT_ATTRIBUTES):
        return "attributes of its own"
    if circuit.num_parameters or type(circuit.global_phase) not in (float, int):
        return "free parameters"
    if circuit.num_identifiers:
        return "classical variables"
    if any(getattr(circuit, name, None) is not None for name in ("_op_start_times", "_duration")):
        return "a schedule (start times of instructions)"
    if any(isinstance(register, AncillaRegister) for register in circuit.qregs):
        return "an ancilla register"
    if circuit.layout is not None and not _keeps_layout(circuit):
        return "a layout of qubits without registers, or made by hand"
    for instruction in circuit.data:
        operation = instruction.operation
        base = getattr(operation, "base_class", None)
        if base is not None and base in _FRESH and _is_fresh(operation, base):
            if base in _STANDARD:
                label = operation.label is None or 0 < len(operation.label) <= _MAX_NAME
                if (
                    label
                    and instruction.is_standard_gate()
                    and all(type(p) is float for p in instruction.params)
                ):
                    continue
            elif base in _PLAIN:
                if operation.label is None:
                    continue
            elif operation.unit != "dt" or type(operation.duration) is not int:
                return f"a delay in {operation.unit!r}"
            elif operation.label is None:
                continue
        return f"an instruction {operation.name!r} of type {type(operation).__name__}"
    return None


def _is_fresh(operation: Any, base: type[Operation]) -> bool:
    """Tell whether an instruction is as its class makes it."""
    if not operation.mutable:
        return True
    # ``definition`` would make one; what stands here is the user's, or made from the class for whoever asked.
    return operation._definition is None and _FRESH[base] == (operation.name, len(vars(operation)))


def _keeps_layout(circuit: QuantumCircuit) -> bool:
    """Tell whether the layout is as the transpiler makes it, of qubits that are known by their registers.

    QPY gives back an equal layout then, but for the registers noted in it, which only layout passes read.
    Qubits without a register would come back as other ones.
    """
    layout = circuit.layout
    before = layout.input_qubit_mapping
    return (
        bool(before)
        and before.keys() == layout.initial_layout.get_virtual_bits().keys()
        and all(type(qubit) is Qubit and qubit._register is not None for qubit in before)
        and layout._input_qubit_count is not None
        and layout._output_qubit_list == circuit.qubits
    )


def _is_json(value: object) -> bool:
    """Tell whether JSON gives back the same values of the same types."""
    try:
        return _is_plain(value)
    except RecursionError:  # it holds itself, or is very deep
        return False


def _is_plain(value: object) -> bool:
    if type(value) is dict:
        return all(type(key) is str for key in value) and all(map(_is_plain, value.values()))
    if type(value) is list:
        return all(map(_is_plain, value))
    return value is None or type(value) in (str, int, float, bool)


def _dump(circuits: Iterable[Any]) -> bytes | None:
    circuits = list(circuits)
    if not circuits:
        return b""
    buffer = io.BytesIO()
    try:
        qpy.dump(circuits, buffer)
    except Exception:
        return None
    return buffer.getvalue()


def _pickles(item: object) -> list[bytes]:
    """Pickle a circuit or an exception; the first that a worker can load counts."""
    if not isinstance(item, Exception):
        try:
            return [cloudpickle.dumps(item)]
        except Exception as error:
            reason = f"it can't be sent to a worker ({type(error).__name__}: {error}). Make it picklable."
            return [cloudpickle.dumps(UnsupportedCircuitError(reason))]
    blobs = [cloudpickle.dumps(_stand_in(item))]
    try:
        # Pickling an exception succeeds, and if its __init__ takes fields, loading it fails or gives it
        # another message.
        blob: bytes = cloudpickle.dumps(item)
        loaded = pickle.loads(blob)
        if type(loaded).__name__ == type(item).__name__ and str(loaded) == str(item):
            blobs.insert(0, blob)
    except Exception:
        pass
    return blobs


def _unpickle(blobs: Sequence[bytes]) -> object:
    reason = ""
    for blob in blobs:
        try:
            return pickle.loads(blob)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
    return UnsupportedCircuitError(
        f"it can't be loaded on a worker ({reason}). Install what it needs on every node."
    )


def _stand_in(error: Exception) -> Exception:
    """An exception with the type's name and message of one that can't travel: all that a row tells of it."""
    try:
        message = str(error)
    except Exception:
        message = "(its message can't be had)"
    kind: type[Exception] = type(type(error).__name__, (RayQjmError,), {"__module__": "__main__"})
    return kind(message)
