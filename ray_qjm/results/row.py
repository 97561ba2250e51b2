"""What is known of one circuit, before it becomes a row of Arrow's columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray_qjm.results.schema import WITH_COUNTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_COUNT = 2**31 - 1


@dataclass(slots=True)
class Row:
    """What is known of one circuit when its job has ended.

    Attributes:
        circuit: Row number.
        status: ``"done"``, ``"partial"`` (fewer shots than asked for, or no single shots though asked
            for), ``"failed"`` or ``"cancelled"``; the last two have no counts.
        backend: Name of the backend that ran it.
        clbits: Number of classical bits, loose ones included.
        registers: JSON ``[["a",[0,1]],["b",[2,3,4]]]``: the clbits of each register, lowest first.
        shots_requested: Shots asked for.
        shots: Shots run; ``None`` takes the sum of the counts.
        seed: Seed of the simulator, if the backend tells one.
        counts: Hexadecimal outcome (``"0x3"``; bit i is clbit i) to number of shots, as
            ``Result.data(i)["counts"]``.
        memory: Outcomes in shot order, as ``Result.data(i)["memory"]``.
        name: The circuit's name; automatic ones (``circuit-12``) become null.
        metadata: The circuit's own.
        stage: Where it failed: ``"build"``, ``"transpile"`` or ``"run"``.
        error_type: Name of the exception's type.
        error: Its message.
    """

    circuit: int
    status: str = "done"
    backend: str | None = None
    clbits: int | None = None
    registers: str | None = None
    shots_requested: int = 0
    shots: int | None = None
    seed: int | None = None
    counts: Mapping[str, int] | None = None
    memory: Sequence[str] | None = None
    name: str | None = None
    metadata: Mapping[Any, Any] | None = None
    stage: str | None = None
    error_type: str | None = None
    error: str | None = None


def fault(row: Row) -> str | None:
    """Why a row's counts can't be true, or ``None``. ``pack`` raises it; collectors ask before.

    A backend that answers with too few shots, or with bits that the circuit doesn't have, must not
    cost the other circuits of its job their counts.
    """
    if row.counts is None:
        return f"status {row.status!r} without counts" if row.status in WITH_COUNTS else None
    if row.status not in WITH_COUNTS:
        return f"status {row.status!r} with counts"
    if row.clbits is None:
        return "counts without a number of clbits"
    if not all(0 <= count <= MAX_COUNT and count == int(count) for count in row.counts.values()):
        return f"a count is no whole number from 0 to {MAX_COUNT}"
    total = sum(row.counts.values())
    if row.shots is not None and total != row.shots:
        return f"counts add up to {total} shots, not to {row.shots}"
    try:
        values = {int(key, 16) for key in row.counts}
        values.update(int(key, 16) for key in row.memory or ())
    except ValueError as error:
        return f"an outcome is no hexadecimal number: {error}"
    if any(value < 0 or value >> row.clbits for value in values):
        return f"an outcome has more bits than the circuit's {row.clbits}"
    if len({int(key, 16) for key in row.counts}) < len(row.counts):
        return "an outcome stands twice among the counts"
    if row.memory is not None and len(row.memory) != total:
        return f"{len(row.memory)} shots in memory, {total} in counts"
    return None
