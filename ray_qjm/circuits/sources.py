"""Where circuits come from: a callable, a list, an iterable, named groups; ``sweep`` and ``files`` add more."""

from __future__ import annotations

import functools
import inspect
import operator
import os
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any, Literal

import numpy as np
from qiskit import QuantumCircuit

from ray_qjm.circuits.identity import code_of
from ray_qjm.circuits.source import DriverSource, WorkerSource
from ray_qjm.errors import InvalidInputError

_KINDS = (
    "a list or another iterable of QuantumCircuits, a callable f(index) with count=, a mapping of names to "
    "lists, Sweep(circuit, values), QpyFiles(paths) or QasmFiles(paths)"
)

#: Row numbers are int64; beyond 2**53 programs that read JSON round them.
MAX_COUNT = 2**53


def _fresh_references() -> int:
    """References to a circuit that nobody else holds: it holds itself, beside the variable and the call."""
    circuit = QuantumCircuit(1)
    return sys.getrefcount(circuit)


_FRESH_REFERENCES = _fresh_references()


class CallableSource(WorkerSource):
    """Circuit ``i`` is ``f(i)``, or ``f(i, rng)``, called on a worker, possibly more than once.

    ``rng`` is a ``numpy.random.Generator`` drawn from the task's seed and ``i`` alone. It is passed if
    ``f`` has a parameter named ``rng`` behind the first, or else a second positional one without a default:
    the default of ``lambda i, n=n: ...`` stays what it is. What ``f`` returns is copied: it may go on
    changing one circuit.

    Args:
        f: A function, a class, a ``functools.partial`` or another callable that cloudpickle can ship.
        count: Number of circuits, at least 1.

    Raises:
        InvalidInputError: ``count`` is missing or bad, or ``f`` can't be called like that.

    >>> CallableSource(lambda i: QuantumCircuit(i + 1), count=3).build(2, seed=0).num_qubits
    3
    """

    def __init__(self, f: Callable[..., QuantumCircuit], count: int | None) -> None:
        self.kind = f"callable {_name_of(f)}"
        if count is None:
            raise InvalidInputError(
                f"{self.kind} comes without count: how many circuits there are can't be known. "
                "Pass count=, the number of circuits."
            )
        self.count = _check_count(count)
        self._f = f
        self._rng_place = _rng_place(f, self.kind)

    def build(self, index: int, seed: int) -> QuantumCircuit:
        """Call the function; see ``WorkerSource.build``.

        Raises:
            TypeError: It returned something else than a ``QuantumCircuit``.
        """
        if self._rng_place is None:
            circuit = self._f(index)
        else:
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
            circuit = self._f(index, rng) if self._rng_place == "second" else self._f(index, rng=rng)
        if not isinstance(circuit, QuantumCircuit):
            raise TypeError(f"{self.kind} returned {_a(circuit)}, not a QuantumCircuit")
        # Copying costs up to 2 % of a small circuit's way, and only one that the function keeps may change.
        return circuit if sys.getrefcount(circuit) <= _FRESH_REFERENCES else circuit.copy()

    def identity(self, version: str | None) -> dict[str, Any]:
        """Return the version, or what the source text is; see ``WorkerSource.identity``."""
        return {"kind": "callable", **code_of(self._f, version, self.kind)}


class ListSource(DriverSource):
    """A list of circuits, as it was when it was given.

    Args:
        circuits: Any number, none included; items that are no circuits fail alone.
        count: ``None``, or the length for a check.

    Raises:
        InvalidInputError: The list holds only file names, or hasn't ``count`` items.
    """

    def __init__(self, circuits: Iterable[object], count: int | None = None) -> None:
        items = list(circuits)
        self.kind = "list of circuits"
        self.circuits = items
        self.count = _check_length(len(items), count, self.kind)
        if items and all(isinstance(item, (str, os.PathLike)) for item in items):
            raise InvalidInputError(
                f"the list holds {len(items)} strings or paths, no circuits. Files are read by "
                "QpyFiles(paths) or QasmFiles(paths)."
            )
        self._items = items
        self._next = 0

    def read(self, n: int) -> list[QuantumCircuit | Exception]:
        """Return the next ``n`` items; see ``DriverSource.read``."""
        items = self._items[self._next : self._next + n]
        self._next += len(items)
        return [_checked(item) for item in items]


class IterableSource(DriverSource):
    """Any iterable, generators included: advanced only by ``read``, never turned into a list.

    Each circuit is copied as it comes, because a generator may go on changing the one that it yielded.
    After a generator has raised it has ended: the exception is its last row. Another iterator may go on, and
    is asked for its next item.

    Args:
        circuits: The iterable. Iterating starts here, but nothing is taken yet.
        count: Number of circuits to read at most, or ``None``: until it ends. If the iterable has a length,
            ``count`` must equal it.

    Raises:
        InvalidInputError: ``circuits`` can't be iterated, or ``count`` is bad.
    """

    def __init__(self, circuits: Iterable[object], count: int | None = None) -> None:
        self.kind = f"iterable ({type(circuits).__name__})"
        try:
            self._iterator: Iterator[object] = iter(circuits)
        except TypeError as error:
            raise InvalidInputError(f"circuits is {_a(circuits)} ({error}). Pass {_KINDS}.") from error
        length = _length(circuits)
        if length is not None:
            self.count = _check_length(length, count, self.kind)
        else:
            self.count = None if count is None else _check_count(count)
        self._read = 0

    def read(self, n: int) -> list[QuantumCircuit | Exception]:
        """Advance the iterable by ``n`` items; see ``DriverSource.read``."""
        if self.count is not None:
            n = min(n, self.count - self._read)
        items: list[QuantumCircuit | Exception] = []
        while len(items) < n:
            try:
                items.append(_checked(next(self._iterator), copy=True))
            except StopIteration:
                self._iterator = iter(())  # some iterators go on after their end; rows must not
                break
            except Exception as error:
                items.append(error)
        self._read += len(items)
        return items


class GroupSource(DriverSource):
    """Named groups, ``{"A": [...], "B": [...]}``, one after the other; the name is the column ``group``.

    Args:
        groups: Group name to an iterable of circuits; an iterable that isn't a list is read lazily.
        count: ``None``, or the number of circuits over all groups.

    Raises:
        InvalidInputError: A name that is no string, a group that is no iterable of circuits, or another
            number of circuits than ``count``.
    """

    column_types: Mapping[str, str] = {"group": "string"}

    def __init__(self, groups: Mapping[str, Iterable[object]], count: int | None = None) -> None:
        self.kind = "mapping of groups"
        self._names: list[str] = []
        self._parts: list[DriverSource] = []
        for name, circuits in groups.items():
            if not isinstance(name, str):
                raise InvalidInputError(
                    f"group name {name!r} is {_a(name)}. Pass strings: they become a column."
                )
            if isinstance(circuits, WorkerSource) or _is_callable(circuits):
                kind = getattr(circuits, "kind", None) or f"callable {_name_of(circuits)}"
                raise InvalidInputError(
                    f"group {name!r} is a {kind}, and groups are read in the driver. "
                    "Pass a list or an iterable of circuits, or run it as a task of its own."
                )
            try:
                part = make_source(circuits)
            except InvalidInputError as error:
                raise InvalidInputError(f"group {name!r}: {error}") from error
            assert isinstance(part, DriverSource)
            self._names.append(name)
            self._parts.append(part)
        if all(isinstance(part, ListSource) for part in self._parts):
            self.circuits = [circuit for part in self._parts for circuit in part.circuits or ()]
        known = [part.count for part in self._parts if part.count is not None]
        if len(known) == len(self._parts):
            self.count = _check_length(sum(known), count, self.kind)
        else:
            self.count = None if count is None else _check_count(count)
        # First row of each group met so far: the current one is the last. An empty group starts where the
        # next one does, and bisect_right passes it over.
        self._starts = [0]
        self._read = 0

    def read(self, n: int) -> list[QuantumCircuit | Exception]:
        """Read on, across the ends of groups; see ``DriverSource.read``."""
        if self.count is not None:
            n = min(n, self.count - self._read)
        items: list[QuantumCircuit | Exception] = []
        while len(items) < n and self._parts:
            wanted = n - len(items)
            got = self._parts[len(self._starts) - 1].read(wanted)
            items += got
            self._read += len(got)
            if len(got) < wanted:
                if len(self._starts) == len(self._parts):
                    break
                self._starts.append(self._read)
        return items

    def identity(self, version: str | None) -> dict[str, Any]:
        """Return the names of the groups too; see ``WorkerSource.identity``."""
        return {**super().identity(version), "groups": list(self._names)}

    def columns(self, start: int, stop: int) -> dict[str, list[object]]:
        """Return ``group`` for the rows ``[start, stop)``."""
        return {"group": [self._names[bisect_right(self._starts, row) - 1] for row in range(start, stop)]}


def make_source(circuits: Any, count: int | None = None) -> WorkerSource | DriverSource:
    """Tell what ``circuits`` is and make its source; nothing is built or read yet.

    Args:
        circuits: A list, tuple or array of circuits; any other iterable; a callable; a mapping of group
            names to iterables; a ``Sweep``, ``QpyFiles`` or ``QasmFiles``. None of them need hold a circuit:
            ``count`` is 0 then.
        count: Number of circuits: needed for a callable, a check for whatever has a length, the most that
            is read from another iterable. At least 1, but for a check.

    Raises:
        InvalidInputError: It is none of these, or ``count`` is no such integer or not their number.

    >>> make_source([QuantumCircuit(1), QuantumCircuit(2)]).count
    2
    >>> make_source(QuantumCircuit(1))
    Traceback (most recent call last):
    ...
    ray_qjm.errors.InvalidInputError: circuits is one bare QuantumCircuit. Pass a list: [circuit].
    """
    if isinstance(circuits, (WorkerSource, DriverSource)):
        if circuits.count is not None:
            _check_length(circuits.count, count, circuits.kind)
        return circuits
    if isinstance(circuits, QuantumCircuit):
        raise InvalidInputError("circuits is one bare QuantumCircuit. Pass a list: [circuit].")
    if isinstance(circuits, (str, bytes, os.PathLike)):
        raise InvalidInputError(
            f"circuits is {_a(circuits)}, {circuits!r:.80}. Files are read by QpyFiles(paths) or "
            "QasmFiles(paths); a program in a string by qiskit.qasm2.loads or qiskit.qasm3.loads."
        )
    if isinstance(circuits, Mapping):
        return GroupSource(circuits, count)
    if isinstance(circuits, (list, tuple)) or (isinstance(circuits, np.ndarray) and circuits.ndim > 0):
        return ListSource(circuits, count)
    if _is_callable(circuits):
        return CallableSource(circuits, count)
    return IterableSource(circuits, count)


def _rng_place(f: Callable[..., object], kind: str) -> Literal["second", "keyword"] | None:
    """Tell how to pass ``rng``, if at all; no call being possible: InvalidInputError."""
    if inspect.isgeneratorfunction(f) or inspect.iscoroutinefunction(f):
        raise InvalidInputError(
            f"{kind} is a generator or coroutine function: called with an index it gives no circuit. "
            "Pass the generator itself, f(), or a function that returns one circuit."
        )
    try:
        signature = inspect.signature(f)
    except (TypeError, ValueError):  # some builtins have no signature: let the call tell
        return None
    parameters = list(signature.parameters.values())
    takes_index = bool(parameters) and parameters[0].kind not in (
        inspect.Parameter.KEYWORD_ONLY,
        inspect.Parameter.VAR_KEYWORD,
    )
    rest = parameters[1:]
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p for p in rest if p.default is p.empty and p.kind not in variable]
    place: Literal["second", "keyword"] | None = None
    if isinstance(f, functools.partial) and "rng" in f.keywords:
        pass  # partial(f, rng=...): the user's own stays
    elif any(p.name == "rng" and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in rest):
        place = "keyword"  # by its name: it may stand behind what functools.partial has bound
        needed = [p for p in needed if p.name != "rng"]
    else:
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        if any(p.kind in positional and (p.default is p.empty or p.name == "rng") for p in rest[:1]):
            place = "second"
            needed = [p for p in needed if p is not rest[0]]
    if needed or not takes_index:
        raise InvalidInputError(
            f"{kind} has the signature {signature}, but is called as f(index) or f(index, rng). "
            "Bind further arguments with functools.partial."
        )
    return place


def _is_callable(circuits: object) -> bool:
    return callable(circuits) and not isinstance(circuits, Iterable)


def _check_count(count: object, least: int = 1) -> int:
    """Return ``count`` as an int of at least ``least``; NumPy integers are fine, bools and floats are not."""
    try:
        # Asked first: NumPy before 2.3 takes its truth values for indices.
        value = -1 if isinstance(count, (bool, np.bool_)) else operator.index(count)  # type: ignore[arg-type]
    except TypeError:
        value = -1
    if value < least:
        raise InvalidInputError(f"count is {count!r}. Pass a positive integer: the number of circuits.")
    if value > MAX_COUNT:
        raise InvalidInputError(f"count is {count!r}; a task has at most {MAX_COUNT} circuits.")
    return value


def _check_length(length: int, count: object, kind: str) -> int:
    if count is not None and _check_count(count, least=0) != length:
        raise InvalidInputError(f"the {kind} has {length} circuits, but count is {count}. Leave count out.")
    return length


def _length(circuits: object) -> int | None:
    """The length, where it has one; a wrapper round a generator may only pretend to."""
    try:
        return len(circuits) if isinstance(circuits, Sized) else None
    except TypeError:
        return None


def _checked(item: object, copy: bool = False) -> QuantumCircuit | Exception:
    # Reports merge rows of equal reasons: no row numbers in them.
    if not isinstance(item, QuantumCircuit):
        return TypeError(f"this item is {_a(item)}, not a QuantumCircuit")
    return item.copy() if copy else item


def _name_of(f: object) -> str:
    name = getattr(f, "__qualname__", None) or type(f).__qualname__
    return name.rpartition("<locals>.")[2]


def _a(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
