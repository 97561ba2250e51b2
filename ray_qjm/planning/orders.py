"""What one job of a service consists of, and how its shots are cut."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Run(NamedTuple):
    """The circuits ``[start, stop)``, each with ``shots`` shots: their slice number ``slice_`` of all their shots.

    A circuit with more shots than one job may have runs in several slices, whose counts are added up.
    """

    start: int
    stop: int
    shots: int
    slice_: int = 0

    @property
    def circuits(self) -> int:
        """How many circuits."""
        return self.stop - self.start

    @property
    def executions(self) -> int:
        """Circuits times shots."""
        return (self.stop - self.start) * self.shots


class Order(NamedTuple):
    """One job to be submitted.

    Attributes:
        number: Unique within a task's epoch and backend.
        runs: What it runs, in this order.
        payload_bytes: Of its circuits.
        attempt: How often it was halved, or packed anew, before.
    """

    number: int
    runs: tuple[Run, ...]
    payload_bytes: int = 0
    attempt: int = 0

    @property
    def circuits(self) -> int:
        """Circuits, each slice counted."""
        return sum(run.circuits for run in self.runs)

    @property
    def executions(self) -> int:
        """Circuits times shots."""
        return sum(run.executions for run in self.runs)

    @property
    def start(self) -> int:
        """The first circuit."""
        return min(run.start for run in self.runs)

    @property
    def stop(self) -> int:
        """One past the last circuit; between the two there may be others."""
        return max(run.stop for run in self.runs)

    def halves(self) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
        """Its runs, cut after half of the circuits: see ``cut``."""
        return self.cut(self.circuits // 2)

    def first_within(self, executions: float) -> int:
        """How many of its circuits, in order, have no more executions than these.

        >>> Order(1, (Run(0, 3, 10), Run(7, 8, 10))).first_within(25)
        2
        """
        found = 0
        for run in self.runs:
            if run.executions > executions:
                return found + int(max(0.0, executions) // run.shots)
            found, executions = found + run.circuits, executions - run.executions
        return found

    def cut(self, circuits: int) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
        """Its runs, cut after so many circuits.

        >>> Order(1, (Run(0, 3, 10), Run(7, 8, 10))).cut(2)
        ((Run(start=0, stop=2, shots=10, slice_=0),), (Run(start=2, stop=3, shots=10, slice_=0), Run(start=7, ...)))
        """
        first: list[Run] = []
        second: list[Run] = []
        left = circuits
        for run in self.runs:
            cut = min(left, run.circuits)
            left -= cut
            if cut:
                first.append(run._replace(stop=run.start + cut))
            if cut < run.circuits:
                second.append(run._replace(start=run.start + cut))
        return tuple(first), tuple(second)


def slices(shots: int, most: int | None) -> list[int]:
    """How the shots of one circuit are cut, where a job may have ``most`` of each.

    >>> slices(2500, 1000), slices(2500, None)
    ([1000, 1000, 500], [2500])
    """
    if most is None or shots <= most:
        return [shots]
    full, rest = divmod(shots, most)
    return [most] * full + ([rest] if rest else [])


def joined(runs: Iterable[Run]) -> tuple[Run, ...]:
    """Runs with neighbours made one where they go on.

    >>> joined([Run(0, 2, 10), Run(2, 5, 10), Run(6, 7, 10)])
    (Run(start=0, stop=5, shots=10, slice_=0), Run(start=6, stop=7, shots=10, slice_=0))
    """
    found: list[Run] = []
    for run in runs:
        last = found[-1] if found else None
        if last is not None and last.stop == run.start and last[2:] == run[2:]:
            found[-1] = last._replace(stop=run.stop)
        else:
            found.append(run)
    return tuple(found)
