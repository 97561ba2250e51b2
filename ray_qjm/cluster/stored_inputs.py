"""Circuits of an iterable in the store of their task, from when they were read until they have their rows.

An iterable may not give them again: a resumed task runs what it had read, and not what the iterable gives now.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ray_qjm.circuits.payload import from_qpy, to_qpy, why_not_qpy
from ray_qjm.planning.ranges import Ranges
from ray_qjm.results.objects import Objects

FOLDER = "inputs"


class _Input(NamedTuple):
    """The object with the circuits ``[start, stop)``, written under an epoch."""

    epoch: int
    start: int
    stop: int

    @property
    def path(self) -> str:
        return f"{FOLDER}/{self.epoch}/{self.start}-{self.stop}.qpy"

    @classmethod
    def parse(cls, path: str) -> _Input | None:
        pieces = path.removeprefix(f"{FOLDER}/").removesuffix(".qpy").replace("-", "/").split("/")
        if len(pieces) != 3 or not all(piece.isascii() and piece.isdecimal() for piece in pieces):
            return None
        found = cls(*map(int, pieces))
        return found if found.path == path else None


class StoredInputs:
    """The objects ``inputs/<e>/<start>-<stop>.qpy`` of a store.

    What earlier epochs have left is copied under this one at once: the process of an earlier one may still
    remove what it wrote. One thread, the feeder's, exchanges; another drops.

    Args:
        objects: The store.
        epoch: Of this process.
        kept: Circuits that have their rows.
    """

    def __init__(self, objects: Objects, epoch: int, kept: Ranges) -> None:
        self._objects = objects
        self._epoch = epoch
        self._here: set[_Input] = set()
        #: Circuits that an earlier session had read.
        self._before: dict[int, Any] = {}
        left = [found for entry in objects.entries(FOLDER) if (found := _Input.parse(entry.name)) is not None]
        for item in sorted(left):
            wanted = kept.rest(item.start, item.stop)
            circuits = from_qpy(objects.read(item.path) or b"") if wanted else []
            if circuits is not None and len(circuits) == len(range(item.start, item.stop)):
                for start, stop in wanted:
                    some = circuits[start - item.start : stop - item.start]
                    self._before.update(zip(range(start, stop), some, strict=True))
        rows = sorted(self._before)
        for start, stop in Ranges((row, row + 1) for row in rows):
            self._write(start, [self._before[row] for row in range(start, stop)])
        objects.remove([item.path for item in left if item not in self._here])

    def exchange(self, start: int, stop: int, items: Sequence[Any]) -> list[Any]:
        """What to run as the circuits ``[start, stop)``, where an iterable gives ``items`` for them.

        What an earlier session had read goes before what is given now; all else is stored. What QPY can't keep
        isn't: it has to be given again. So has an exception that stands for a circuit.
        """
        found = list(items)
        new: list[tuple[int, Any]] = []
        for row in range(start, stop):
            at = row - start
            if row in self._before and at <= len(found):  # the iterable may have become shorter
                found[at : at + 1] = [self._before.pop(row)]
            elif at < len(found):
                new.append((row, found[at]))
        keep = [
            (row, item) for row, item in new if not isinstance(item, Exception) and why_not_qpy(item) is None
        ]
        circuits = dict(keep)
        for first, last in Ranges((row, row + 1) for row in circuits):
            self._write(first, [circuits[row] for row in range(first, last)])
        return found

    def drop(self, covered: Ranges) -> None:
        """Remove those of which every circuit has its row."""
        done = [item for item in tuple(self._here) if not covered.rest(item.start, item.stop)]
        self._here.difference_update(done)
        self._objects.remove([item.path for item in done])

    def _write(self, start: int, circuits: Sequence[Any]) -> None:
        item = _Input(self._epoch, start, start + len(circuits))
        self._objects.create(item.path, to_qpy(circuits))
        self._here.add(item)
