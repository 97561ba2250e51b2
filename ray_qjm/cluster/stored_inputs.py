"""Circuits of an iterable in the store of their task, from when they were read until they have their rows.

An iterable may not give them again: a resumed task runs what it had read, and not what the iterable gives now.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from qiskit import QuantumCircuit, qpy

from ray_qjm.circuits.payload import why_not_qpy
from ray_qjm.planning.ranges import Ranges
from ray_qjm.results.objects import Objects

_PREFIX, _SUFFIX = "inputs/", ".qpy"


class StoredInputs:
    """The objects ``inputs/<start>-<stop>.qpy`` of a store.

    One thread, the feeder's, exchanges; another drops.

    Args:
        objects: The store.
        kept: Circuits that have their rows.
    """

    def __init__(self, objects: Objects, kept: Ranges) -> None:
        self._objects = objects
        found = (_range_of(entry.name) for entry in objects.entries("inputs"))
        self._ranges = {item for item in found if item is not None}
        #: Of an earlier session.
        self._before = Ranges(self._ranges)
        self.drop(kept)

    def exchange(
        self, start: int, stop: int, items: Sequence[QuantumCircuit | Exception]
    ) -> list[QuantumCircuit | Exception]:
        """What to run as the circuits ``[start, stop)``, where an iterable gives ``items`` for them.

        What an earlier session had read goes before what is given now; all else is stored. What QPY can't keep
        isn't: it has to be given again.
        """
        found = list(items)
        for a, b in self._before.within(start, stop):
            for first, circuits in self._read(a, b):
                at = first - start
                if at <= len(found):  # the iterable may have become shorter
                    found[at : at + len(circuits)] = circuits
        self._write(start, found)
        return found

    def drop(self, covered: Ranges) -> None:
        """Remove those of which every circuit has its row."""
        done = [item for item in tuple(self._ranges) if not covered.rest(*item)]
        self._ranges.difference_update(done)
        self._objects.remove([_name(*item) for item in done])

    def _read(self, start: int, stop: int) -> list[tuple[int, list[QuantumCircuit]]]:
        """Stored circuits of a range, in runs, each with its first row."""
        found = []
        for a, b in sorted(self._ranges):
            low, high = max(a, start), min(b, stop)
            data = self._objects.read(_name(a, b)) if low < high else None
            if data is None:
                continue
            try:
                circuits = qpy.load(io.BytesIO(data))
            except Exception:  # torn, or of another release of Qiskit: it has to be given again
                continue
            found.append((low, circuits[low - a : high - a]))
        return found

    def _write(self, start: int, items: Sequence[QuantumCircuit | Exception]) -> None:
        run: list[QuantumCircuit] = []
        for index, item in enumerate([*items, None], start):
            if isinstance(item, QuantumCircuit) and not self._has(index) and why_not_qpy(item) is None:
                run.append(item)
            elif run:
                first = index - len(run)
                buffer = io.BytesIO()
                qpy.dump(run, buffer)
                self._objects.create(_name(first, index), buffer.getvalue())
                self._ranges.add((first, index))
                run = []

    def _has(self, index: int) -> bool:
        return self._before.count(index, index + 1) > 0


def _name(start: int, stop: int) -> str:
    return f"{_PREFIX}{start}-{stop}{_SUFFIX}"


def _range_of(name: str) -> tuple[int, int] | None:
    start, _, stop = name.removeprefix(_PREFIX).removesuffix(_SUFFIX).partition("-")
    if not (start.isascii() and start.isdecimal() and stop.isascii() and stop.isdecimal()):
        return None
    found = int(start), int(stop)
    return found if _name(*found) == name else None
