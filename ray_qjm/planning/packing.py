"""Circuits become jobs that are as full as the limits allow.

A packer has a bin for each number of shots that its circuits ask for (a single one, where a job of the backend
may mix them). Circuits go into it in the order in which they come; a bin that can't take the next circuit is a job.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ray_qjm.options import Limits
from ray_qjm.planning.orders import Order, Run, joined, slices


@dataclass(slots=True)
class _Bin:
    runs: list[Run] = field(default_factory=list)
    circuits: int = 0
    executions: int = 0
    payload_bytes: int = 0


class Packer:
    """Packs the circuits of one task for one backend.

    Args:
        limits: Of one job.
        mixed: Whether a job may hold circuits with different numbers of shots.
    """

    def __init__(self, limits: Limits, *, mixed: bool) -> None:
        self.limits = limits
        self._mixed = mixed
        bounds = [bound for bound in (limits.max_shots, limits.max_executions) if bound is not None]
        self._most_shots = min(bounds, default=None)
        self._bins: dict[int, _Bin] = {}
        self._number = 0

    @property
    def waiting(self) -> int:
        """Circuits in jobs that aren't full, each slice counted."""
        return sum(bin_.circuits for bin_ in self._bins.values())

    def slices(self, shots: int) -> list[int]:
        """How the shots of a circuit are cut for this backend."""
        return slices(shots, self._most_shots)

    def fits(self, payload_bytes: int) -> bool:
        """Whether a circuit of this size can be submitted at all."""
        most = self.limits.max_payload_bytes
        return most is None or payload_bytes <= most

    def add(self, circuit: int, shots: int, payload_bytes: int, first: int = 0) -> Iterator[Order]:
        """Take a circuit in; give the jobs that are full now.

        Args:
            circuit: Its row number.
            shots: Of the circuit.
            payload_bytes: Its size, within the limit.
            first: Number of the first slice of these shots.
        """
        for number, part in enumerate(self.slices(shots), first):
            key = 0 if self._mixed else part
            bin_ = self._bins.get(key)
            if bin_ is not None and not self._has_room(bin_, part, payload_bytes):
                yield self._close(key)
                bin_ = None
            if bin_ is None:
                bin_ = self._bins[key] = _Bin()
            bin_.runs.append(Run(circuit, circuit + 1, part, number))
            bin_.circuits += 1
            bin_.executions += part
            bin_.payload_bytes += payload_bytes
            if self._is_full(bin_):
                yield self._close(key)

    def flush(self) -> list[Order]:
        """What waits for more circuits, as jobs that aren't full."""
        return [self._close(key) for key in list(self._bins)]

    def order(self, runs: Sequence[Run], payload_bytes: int, attempt: int) -> Order:
        """A job of just these runs."""
        self._number += 1
        return Order(self._number, joined(runs), payload_bytes, attempt)

    def _close(self, key: int) -> Order:
        bin_ = self._bins.pop(key)
        # By slice: neighbours of one slice become one run, however many slices each circuit has.
        runs = sorted(bin_.runs, key=lambda run: (run.slice_, run.start))
        return self.order(runs, bin_.payload_bytes, 0)

    def _has_room(self, bin_: _Bin, shots: int, payload_bytes: int) -> bool:
        limits = self.limits
        return (
            (limits.max_circuits is None or bin_.circuits < limits.max_circuits)
            and (limits.max_executions is None or bin_.executions + shots <= limits.max_executions)
            and (
                limits.max_payload_bytes is None
                or bin_.payload_bytes + payload_bytes <= limits.max_payload_bytes
            )
        )

    def _is_full(self, bin_: _Bin) -> bool:
        """Whether nothing more fits for sure: the job needn't wait for the next circuit."""
        limits = self.limits
        return bin_.circuits == limits.max_circuits or bin_.executions == limits.max_executions
