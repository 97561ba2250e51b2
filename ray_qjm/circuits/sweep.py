"""One parametrised circuit, many values: compiled once, bound once a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector

from ray_qjm.circuits.fingerprint import fingerprint
from ray_qjm.circuits.identity import digest
from ray_qjm.circuits.source import WorkerSource
from ray_qjm.circuits.sources import _a
from ray_qjm.errors import InvalidInputError

#: Columns that every result has: a parameter of such a name couldn't be told from them.
RESERVED_COLUMNS = frozenset(
    {
        *("circuit", "name", "status", "stage", "error_type", "error", "backend", "clbits", "registers"),
        *("shots_requested", "shots", "seed", "jobs", "outcomes", "outcomes_wide", "counts"),
        *("memory", "memory_wide", "metadata"),
    }
)


class Sweep(WorkerSource):
    """Circuit ``i`` is one parametrised circuit with row ``i`` of the values.

    The values become float64 columns of the result, named as the parameters, in the order of
    ``circuit.parameters``: by name, but the elements of a ``ParameterVector`` by index, and Qiskit sorts
    ``t0, t1, t10, t2``. That order matters for an array only.

    Args:
        circuit: A circuit with at least one free parameter; it is copied.
        values: One finite real number a circuit and parameter, as one of

            - a mapping of parameters to arrays of shape ``(count,)``; a key is a name, a ``Parameter``, or a
              ``ParameterVector`` with an array of shape ``(count, len(vector))``;
            - a table with one column a parameter (pyarrow, pandas, Polars);
            - an array of shape ``(count, circuit.num_parameters)`` in the order of ``circuit.parameters``.

            Of 0 rows, ``count`` is 0.

    Raises:
        InvalidInputError: The circuit has no parameters or one named like a column of the result; a name is
            unknown, missing or given twice; lengths differ; a value is no finite real number.

    >>> circuit = QuantumCircuit(1)
    >>> _ = circuit.rx(Parameter("t"), 0)
    >>> sweep = Sweep(circuit, {"t": [0.0, 0.5, 1.0]})
    >>> sweep.count, sweep.columns(1, 3), sweep.build(1, seed=0).data[0].params
    (3, {'t': [0.5, 1.0]}, [0.5])
    """

    kind = "Sweep"
    template: QuantumCircuit
    values: NDArray[np.float64]

    def __init__(self, circuit: QuantumCircuit, values: Any) -> None:
        if not isinstance(circuit, QuantumCircuit):
            raise InvalidInputError(f"circuit of Sweep is {_a(circuit)}. Pass one QuantumCircuit.")
        self.template = circuit.copy()
        self._parameters = tuple(self.template.parameters)
        names = [parameter.name for parameter in self._parameters]
        if not names:
            raise InvalidInputError(
                f"circuit {circuit.name!r} of Sweep has no free parameters. Pass a list of circuits, or "
                "leave at least one Parameter unbound."
            )
        if taken := sorted(RESERVED_COLUMNS.intersection(names)):
            raise InvalidInputError(
                f"the circuit of Sweep has parameters named {_shown(taken)}: columns that every result has "
                "already. Rename them (assign_parameters({old: Parameter(new)}))."
            )
        named = _named(values)
        array = _from_array(values, names) if named is None else _from_columns(named, names)
        bad = ~np.isfinite(array)
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            raise InvalidInputError(
                f"values of Sweep has {int(bad.sum())} numbers that are not finite (or null), the first in "
                f"row {row}, parameter {names[column]!r}. Remove or fill them."
            )
        array.setflags(write=False)
        self.values = array
        self.count = len(array)
        self.column_types = dict.fromkeys(names, "float64")
        self._order: tuple[QuantumCircuit, NDArray[np.intp]] | None = None

    def build(self, index: int, seed: int) -> QuantumCircuit:
        """Bind row ``index`` on the circuit itself; ``seed`` isn't used."""
        return self.bind(index, self.template)

    def bind(self, index: int, compiled: QuantumCircuit) -> QuantumCircuit:
        """Bind row ``index`` on a compiled form of ``template``, which stays as it is.

        Parameters are known by their identity (uuid), not by object: ``compiled`` and the source may have
        been pickled. Those that compiling dropped aren't missed.

        Args:
            index: Row number, ``0 <= index < count``.
            compiled: Must not be changed between calls.

        Returns:
            A new circuit without free parameters, of the name, layout and metadata of ``compiled``.

        Raises:
            InvalidInputError: ``compiled`` has a parameter that ``template`` hasn't.
        """
        # The caller binds a chunk on one template: remembering the last one is enough. One tuple, so that two
        # threads with two templates can only forget each other's.
        order = self._order
        if order is None or order[0] is not compiled:
            order = self._order = (compiled, self._order_in(compiled))
        bound = compiled.copy()
        # In place: not in place Qiskit appends a counter of the process to the name.
        bound.assign_parameters(self.values[index, order[1]].tolist(), inplace=True)
        return bound

    def identity(self, version: str | None) -> dict[str, Any]:
        """Return digests of the circuit and of all values; see ``WorkerSource.identity``."""
        return {
            "kind": "sweep",
            "circuit": f"{fingerprint(self.template):016x}",
            "parameters": list(self.column_types),
            "values": digest(self.values.tobytes()),
            **({} if version is None else {"version": version}),
        }

    def columns(self, start: int, stop: int) -> dict[str, list[object]]:
        """Return the values of the rows ``[start, stop)``, one list a parameter."""
        part = self.values[start:stop]
        return {name: part[:, j].tolist() for j, name in enumerate(self.column_types)}

    def _order_in(self, compiled: QuantumCircuit) -> NDArray[np.intp]:
        """Return the columns of ``values`` in the order of the parameters of ``compiled``."""
        positions = {parameter: j for j, parameter in enumerate(self._parameters)}
        try:
            return np.array([positions[parameter] for parameter in compiled.parameters], dtype=np.intp)
        except KeyError:
            strange = [parameter.name for parameter in compiled.parameters if parameter not in positions]
            raise InvalidInputError(
                f"the compiled circuit has parameters {_shown(strange)} that the circuit of Sweep hasn't (of "
                "the same name, perhaps, but not the same). Compile Sweep.template itself."
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_order": None}

    def __repr__(self) -> str:
        return f"Sweep({self.template.name!r}, {self.count} rows of {_shown(list(self.column_types))})"


def _named(values: Any) -> list[tuple[object, Any]] | None:
    """Return the columns of a mapping or table in its order, or ``None``: ``values`` is an array."""
    if isinstance(values, Mapping):
        return list(values.items())
    if hasattr(values, "column_names") and hasattr(values, "columns"):  # pyarrow Table, RecordBatch
        return [(name, column) for name, column in zip(values.column_names, values.columns, strict=True)]
    if hasattr(values, "columns") and hasattr(values, "iloc"):  # pandas
        return [(name, values.iloc[:, j]) for j, name in enumerate(values.columns)]
    if hasattr(values, "columns") and hasattr(values, "get_column"):  # Polars
        return [(name, values.get_column(name)) for name in values.columns]
    return None


def _from_columns(columns: list[tuple[object, Any]], names: Sequence[str]) -> NDArray[np.float64]:
    found: dict[str, NDArray[np.float64]] = {}
    for key, value in columns:
        if isinstance(key, ParameterVector):
            block = _rows(value, repr(key.name), len(key))
            if block.ndim != 2 or block.shape[1] != len(key):
                raise InvalidInputError(
                    f"values of Sweep for vector {key.name!r} have shape {block.shape}. "
                    f"Give (count, {len(key)})."
                )
            pairs = [(element.name, block[:, j]) for j, element in enumerate(key)]
        else:
            name = key.name if isinstance(key, Parameter) else key
            if not isinstance(name, str):
                raise InvalidInputError(f"values of Sweep has the key {key!r}. Give names of parameters.")
            pairs = [(name, _numbers(value, repr(name)))]
        for name, array in pairs:
            if name in found:
                raise InvalidInputError(f"values of Sweep gives parameter {name!r} twice. Give it once.")
            if array.ndim != 1:
                raise InvalidInputError(
                    f"values of Sweep for {name!r} have shape {array.shape}. Give one number a circuit, "
                    "(count,); for a constant np.full(count, value), or bind it beforehand."
                )
            found[name] = array
    unknown, missing = [n for n in found if n not in set(names)], [n for n in names if n not in found]
    if unknown or missing:
        told = [f"{_shown(unknown)} isn't a parameter of the circuit"] if unknown else []
        told += [f"{_shown(missing)} has no values"] if missing else []
        raise InvalidInputError(
            f"values of Sweep: {', and '.join(told)}. The parameters are {_shown(names)}."
        )
    lengths = {name: len(found[name]) for name in names}
    if len(set(lengths.values())) > 1:
        short, long = min(names, key=lengths.__getitem__), max(names, key=lengths.__getitem__)
        raise InvalidInputError(
            f"values of Sweep have unequal lengths: {lengths[short]} for {short!r}, {lengths[long]} for "
            f"{long!r}. Give one number a circuit for each."
        )
    return np.column_stack([found[name] for name in names])


def _from_array(values: ArrayLike, names: Sequence[str]) -> NDArray[np.float64]:
    array = _rows(values, "the array", len(names))
    if array.ndim != 2 or array.shape[1] != len(names):
        raise InvalidInputError(
            f"values of Sweep has shape {array.shape}. Give (count, {len(names)}), the columns in the order "
            f"{_shown(names)}; or a mapping by name."
        )
    return array.copy(order="C")


def _rows(value: Any, what: str, width: int) -> NDArray[np.float64]:
    """Return numbers of two dimensions: an empty list has 0 rows of any width."""
    array = _numbers(value, what)
    return array.reshape(0, width) if array.shape == (0,) else array


def _numbers(value: Any, what: str) -> NDArray[np.float64]:
    """Return float64, null as NaN; strings, complex numbers and truth values aren't taken for numbers."""
    try:
        if isinstance(value, np.ma.MaskedArray) and value.dtype.kind in "iuf":
            value = np.ma.filled(value.astype(np.float64), np.nan)  # asarray gives what is under the mask
        array = np.asarray(value)
        if array.dtype.kind == "O" and all(map(_is_number_or_null, array.flat)):  # integers with nulls, say
            flat = [np.nan if _is_null(number) else float(number) for number in array.flat]
            array = np.array(flat, dtype=np.float64).reshape(array.shape)
    except Exception as error:  # ragged lists, tables of other libraries, integers beyond float64
        raise InvalidInputError(
            f"values of Sweep for {what} make no array ({error}). Give real numbers."
        ) from error
    if array.dtype.kind not in "iuf":
        raise InvalidInputError(
            f"values of Sweep for {what} are {_a(value)} of {array.dtype}. Give real numbers."
        )
    with np.errstate(over="ignore"):  # a longdouble beyond float64 becomes inf, which is refused
        return array.astype(np.float64, copy=False)


def _is_number_or_null(value: object) -> bool:
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return number or _is_null(value)


def _is_null(value: object) -> bool:
    return value is None or type(value).__name__ == "NAType"  # pandas.NA, without importing pandas


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
