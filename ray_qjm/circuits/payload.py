"""How circuits travel inside Ray: as QPY where nothing is lost, by cloudpickle where something would be.

QPY is four times faster than pickle and three times smaller, but turns ``delay(100, "ns")`` into 100 dt,
can't load ``delay(1e-6, "s")``, loses the classes behind Aer's ``save_*`` and tuples in metadata. So it gets
only what it is known to keep; whatever isn't on that list costs time, never truth.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Sequence
from typing import Any

import cloudpickle
from qiskit import QuantumCircuit, qpy
from qiskit.circuit import AncillaRegister, Barrier, Delay, Gate, Measure, Reset
from qiskit.circuit.library import UnitaryGate, get_standard_gate_name_mapping

from ray_qjm.errors import RayQjmError, UnsupportedCircuitError

_STANDARD = frozenset(
    gate.base_class for gate in get_standard_gate_name_mapping().values() if isinstance(gate, Gate)
)
_PLAIN = frozenset({Barrier, Measure, Reset, UnitaryGate})

#: QPY stores the lengths of names in 16 bits; UTF-8 takes at most four bytes a character.
_MAX_NAME = (2**16 - 1) // 4

#: Leads every payload: a worker of another version must not guess.
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
    pickled = [(i, _pickle(item)) for i, item in enumerate(items) if i not in kept]
    return _MAGIC + pickle.dumps((len(items), at, dump, pickled), protocol=pickle.HIGHEST_PROTOCOL)


def decode(data: bytes) -> list[QuantumCircuit | Exception]:
    """Unpack what ``encode`` packed. It unpickles: give it only payloads of this task.

    Returns:
        The items in order. One that can't be loaded here (its module isn't installed on this worker) is an
        ``UnsupportedCircuitError``.

    Raises:
        ValueError: ``data`` isn't a payload of this version.
    """
    if not data.startswith(_MAGIC):
        raise ValueError(
            f"payload of {len(data)} bytes starts with {data[:8]!r}, not {_MAGIC!r}: it comes from another version "
            "of ray_qjm. Install one version on all nodes."
        )
    size, at, dump, pickled = pickle.loads(memoryview(data)[len(_MAGIC) :])
    items: list[Any] = [None] * size
    if at:
        for i, circuit in zip(at, qpy.load(io.BytesIO(dump)), strict=True):
            items[i] = circuit
    for i, blob in pickled:
        try:
            items[i] = pickle.loads(blob)
        except Exception as error:
            items[i] = UnsupportedCircuitError(
                f"it can't be loaded on a worker ({type(error).__name__}: {error}). "
                "Install what it needs on every node."
            )
    return items


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
    if circuit.metadata and not _is_json(circuit.metadata):
        return "metadata that JSON can't say"
    if circuit.num_parameters or type(circuit.global_phase) not in (float, int):
        return "free parameters"
    if circuit.num_identifiers:
        return "classical variables"
    if getattr(circuit, "_op_start_times", None) is not None:
        return "a schedule (start times of instructions)"
    if any(isinstance(register, AncillaRegister) for register in circuit.qregs):
        return "an ancilla register"
    for instruction in circuit.data:
        operation = instruction.operation
        base = getattr(operation, "base_class", None)
        if base in _STANDARD:
            if instruction.is_standard_gate() and not any(type(p) is not float for p in instruction.params):
                if operation.label is None or 0 < len(operation.label) <= _MAX_NAME:
                    continue
        elif base in _PLAIN:
            if operation.label is None:
                continue
        elif base is Delay:
            if operation.unit == "dt" and type(operation.duration) is int and operation.label is None:
                continue
            return f"a delay in {operation.unit!r}"
        return f"an instruction {operation.name!r} of type {type(operation).__name__}"
    return None


def _is_json(value: object) -> bool:
    """Tell whether JSON gives back the same values of the same types."""
    if type(value) is dict:
        return all(type(key) is str for key in value) and all(map(_is_json, value.values()))
    if type(value) is list:
        return all(map(_is_json, value))
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


def _pickle(item: object) -> bytes:
    try:
        blob: bytes = cloudpickle.dumps(item)
        if isinstance(item, Exception):
            # Pickling an exception succeeds and loading it fails if its __init__ takes fields.
            pickle.loads(blob)
    except Exception as error:
        if isinstance(item, Exception):
            blob = cloudpickle.dumps(_stand_in(item))
        else:
            reason = f"it can't be sent to a worker ({type(error).__name__}: {error}). Make it picklable."
            blob = cloudpickle.dumps(UnsupportedCircuitError(reason))
    return blob


def _stand_in(error: Exception) -> Exception:
    """An exception with the type's name and message of one that can't travel: all that a row tells of it."""
    try:
        message = str(error)
    except Exception:
        message = "(its message can't be had)"
    kind: type[Exception] = type(type(error).__name__, (RayQjmError,), {"__module__": "__main__"})
    return kind(message)
