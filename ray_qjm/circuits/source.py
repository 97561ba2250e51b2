"""What a source of circuits is to the rest.

A source numbers its circuits from 0. A *worker source* is shipped once and builds any circuit from its
number; a *driver source* is read in order, in the driver, a few circuits at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from qiskit import QuantumCircuit


class WorkerSource(ABC):
    """Circuits that a worker builds from their numbers; shipped to workers once, by cloudpickle.

    Attributes:
        kind: What the source is, for messages.
        count: Number of circuits.
        column_types: The columns that the source adds to the result: name to ``"string"``, ``"int64"``,
            ``"float64"`` or ``"bool"``.
        template: The parametrised circuit that all circuits share, or ``None``. With a template, ``bind``
            turns its compiled form into circuit ``index``, so that it is compiled only once.
    """

    kind: str
    count: int
    column_types: Mapping[str, str] = {}
    template: QuantumCircuit | None = None

    @abstractmethod
    def build(self, index: int, seed: int) -> QuantumCircuit:
        """Build circuit ``index``, equal at every call.

        Args:
            index: Row number, ``0 <= index < count``.
            seed: The task's seed, a non-negative integer of any size.

        Raises:
            Exception: Whatever the user's code or the file raises: the reason why this circuit has no counts.
            SourceError: Nothing can be built on this worker; the task ends.
        """

    @abstractmethod
    def identity(self, version: str | None) -> dict[str, Any]:
        """Return what must be the same when a stored task goes on, as JSON values.

        Args:
            version: The user's, for what can't be compared.

        Raises:
            InvalidInputError: There must be a version, and it is ``None``.
        """

    def bind(self, index: int, compiled: QuantumCircuit) -> QuantumCircuit:
        """Return circuit ``index`` made from the compiled ``template``; only sources with one can."""
        raise NotImplementedError(f"{self.kind} has no template")

    def columns(self, start: int, stop: int) -> dict[str, list[object]]:
        """Return the source's columns for the rows ``[start, stop)``: one list a name of ``column_types``."""
        return {}


class DriverSource(ABC):
    """Circuits that exist, or come into being, in the driver; read once, in order.

    Attributes:
        kind: What the source is, for messages.
        count: Number of circuits as far as known before reading; ``None``: until the source ends.
        column_types: As for ``WorkerSource``.
        circuits: All the circuits if the user gave a list, for look-up by object; else ``None``.
    """

    kind: str
    count: int | None
    column_types: Mapping[str, str] = {}
    circuits: Sequence[object] | None = None

    @abstractmethod
    def read(self, n: int) -> list[QuantumCircuit | Exception]:
        """Return the next ``n`` items; fewer mean that the source has ended.

        An item which raised, or which is no circuit, is the exception that stands in its row.
        """

    def identity(self, version: str | None) -> dict[str, Any]:
        """As for ``WorkerSource``; the circuits themselves are compared as they are read."""
        return {"kind": "circuits"} if version is None else {"kind": "circuits", "version": version}

    def columns(self, start: int, stop: int) -> dict[str, list[object]]:
        """Return the source's columns for the rows ``[start, stop)``, which must have been read."""
        return {}
