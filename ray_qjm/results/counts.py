"""The counts of circuits, packed into Arrow columns.

A batch is packed at once with NumPy: Arrow's own conversion of nested Python lists, row by row,
costs several times as much as the rest together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ray_qjm.errors import BackendResultError, InvalidInputError
from ray_qjm.results.metadata import to_json
from ray_qjm.results.schema import JOBS_SCHEMA, MAX_NARROW_CLBITS, STATUSES, WITH_COUNTS, schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["JOBS_SCHEMA", "Row", "fault", "pack", "schema", "with_jobs"]

_MAX_COUNT = 2**31 - 1
# Qiskit numbers unnamed circuits per process: on many workers such a name names many circuits.
_AUTOMATIC_NAME = re.compile(r"circuit-\d+(-\d+)*")
_STATUS_CODES = {status: code for code, status in enumerate(STATUSES)}
_STATUS_VALUES = pa.array(STATUSES, pa.string())


@dataclass(slots=True)
class Row:
    """What is known of one circuit when its job has ended.

    Attributes:
        circuit: Row number.
        status: ``"done"``, ``"partial"`` (fewer shots than asked for), ``"failed"`` or
            ``"cancelled"``; the last two have no counts.
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
    if not all(0 <= count <= _MAX_COUNT and count == int(count) for count in row.counts.values()):
        return f"a count is no whole number from 0 to {_MAX_COUNT}"
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


def pack(
    rows: Sequence[Row],
    *,
    memory: bool = False,
    extra: Mapping[str, Sequence[object]] | None = None,
    extra_types: Mapping[str, str] | None = None,
) -> pa.RecordBatch:
    """Pack circuits into one record batch: every column of the schema but ``jobs``.

    Args:
        rows: In ascending order of circuit.
        memory: Keep the shots one by one.
        extra: Values of further columns, one a row.
        extra_types: Their types, as for ``schema``.

    Returns:
        A batch of ``len(rows)`` rows, outcomes ascending within each.

    Raises:
        BackendResultError: A row's counts can't be true, see ``fault``.
        InvalidInputError: A further column lacks a type, or has another length.
    """
    target = schema(memory=memory, extra_types=extra_types)
    extra = extra or {}
    if untyped := sorted(set(extra) - set(extra_types or ())):
        raise InvalidInputError(f"columns without a type: {', '.join(untyped)}.")
    columns: dict[str, pa.Array[Any]] = {
        "circuit": pa.array([row.circuit for row in rows], pa.int64()),
        "name": _text([_own_name(row.name) for row in rows]),
        "status": pa.DictionaryArray.from_arrays(
            pa.array([_STATUS_CODES[row.status] for row in rows], pa.int8()), _STATUS_VALUES
        ),
        "error_type": _text([row.error_type for row in rows]),
        "error": _text([row.error for row in rows]),
        "backend": _dictionary([row.backend for row in rows], pa.int16()),
        "clbits": pa.array([row.clbits for row in rows], pa.int32()),
        "registers": _dictionary([row.registers for row in rows], pa.int32()),
        "shots_requested": pa.array([row.shots_requested for row in rows], pa.int64()),
        "seed": pa.array([row.seed for row in rows], pa.uint64()),
        "metadata": pa.array([to_json(row.metadata) for row in rows], pa.string()),
    }
    try:
        columns.update(_measured(rows))
        if memory:
            columns.update(_in_shot_order(rows))
    except (ValueError, OverflowError, TypeError) as error:
        raise _complaint(rows) or error from error
    for name in extra_types or {}:
        values = extra.get(name, ())
        if len(values) != len(rows):
            raise InvalidInputError(f"column {name!r} has {len(values)} values for {len(rows)} circuits.")
        columns[name] = pa.array(values, target.field(name).type)
    packed = pa.schema([field for field in target if field.name != "jobs"])
    return pa.RecordBatch.from_arrays([columns[field.name] for field in packed], schema=packed)


def with_jobs(batch: pa.RecordBatch, jobs: Sequence[int]) -> pa.RecordBatch:
    """Add the column ``jobs``, with the same rows of the table of jobs for each circuit."""
    field = schema().field("jobs")
    offsets = np.arange(batch.num_rows + 1, dtype=np.int64) * len(jobs)
    values = np.tile(np.asarray(jobs, dtype=np.int32), batch.num_rows)
    column = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values))
    return batch.add_column(schema().get_field_index("jobs"), field, column)


class _Values(dict[str, int]):
    """Outcomes as numbers, each text read once: circuits of one batch mostly share them."""

    def __missing__(self, key: str) -> int:
        value = self[key] = int(key, 16)
        return value


def _measured(rows: Sequence[Row]) -> dict[str, pa.Array[Any]]:
    """The columns ``shots``, ``outcomes``, ``outcomes_wide`` and ``counts``."""
    have = np.array([row.counts is not None for row in rows], dtype=np.bool_)
    wide = _wide(rows) & have
    lengths = np.array([len(row.counts or ()) for row in rows], dtype=np.int64)
    counts = np.array(
        list(chain.from_iterable(row.counts.values() for row in rows if row.counts)) or np.empty(0, np.int64)
    )
    if counts.dtype.kind not in "iu" or (len(counts) and not 0 <= counts.min() <= counts.max() <= _MAX_COUNT):
        raise ValueError("counts out of range")

    owner = np.repeat(np.arange(len(rows)), lengths)
    narrow = ~wide[owner]
    keys = chain.from_iterable(row.counts for row, w in zip(rows, wide, strict=True) if row.counts and not w)
    outcomes = np.fromiter(map(_Values().__getitem__, keys), np.uint64)
    order = np.lexsort((outcomes, owner[narrow]))
    outcomes, narrow_owner = outcomes[order], owner[narrow]  # lexsort leaves owners where they are
    counts[narrow] = counts[narrow][order]

    wide_outcomes: list[bytes] = []
    wide_counts: list[int] = []
    for row, w in zip(rows, wide, strict=True):
        if w and row.counts:
            values = sorted((int(key, 16), count) for key, count in row.counts.items())
            if values[-1][0] >> (row.clbits or 0) or len(dict(values)) < len(values):
                raise ValueError("outcomes can't be true")
            wide_outcomes.extend(value.to_bytes(_size(row), "big") for value, _ in values)
            wide_counts.extend(count for _, count in values)
    counts[~narrow] = wide_counts

    shots = _sums(counts, lengths)
    if _suspicious(rows, have, shots, outcomes, narrow_owner):
        raise ValueError("counts can't be true")
    return {
        "shots": pa.array(
            [int(total) if has else row.shots for row, has, total in zip(rows, have, shots, strict=True)],
            pa.int64(),
        ),
        "outcomes": _lists(pa.array(outcomes), np.where(wide, 0, lengths), have & ~wide),
        "outcomes_wide": _lists(pa.array(wide_outcomes, pa.binary()), np.where(wide, lengths, 0), wide),
        "counts": _lists(pa.array(counts.astype(np.int32)), lengths, have),
    }


def _in_shot_order(rows: Sequence[Row]) -> dict[str, pa.Array[Any]]:
    """The columns ``memory`` and ``memory_wide``."""
    have = np.array([row.memory is not None for row in rows], dtype=np.bool_)
    wide = _wide(rows) & have
    lengths = np.array([len(row.memory or ()) for row in rows], dtype=np.int64)
    values = _Values()
    narrow_shots = chain.from_iterable(
        row.memory for row, w in zip(rows, wide, strict=True) if row.memory is not None and not w
    )
    wide_shots = [
        values[shot].to_bytes(_size(row), "big")
        for row, w in zip(rows, wide, strict=True)
        if w
        for shot in row.memory or ()
    ]
    shots = np.fromiter(map(values.__getitem__, narrow_shots), np.uint64)
    if any(row.memory is not None and sum((row.counts or {}).values()) != len(row.memory) for row in rows):
        raise ValueError("memory and counts differ")
    return {
        "memory": _lists(pa.array(shots), np.where(wide, 0, lengths), have & ~wide),
        "memory_wide": _lists(pa.array(wide_shots, pa.binary()), np.where(wide, lengths, 0), wide),
    }


def _suspicious(
    rows: Sequence[Row],
    have: NDArray[np.bool_],
    shots: NDArray[np.int64],
    outcomes: NDArray[np.uint64],
    owner: NDArray[np.int64],
) -> bool:
    """Whether ``fault`` will find something, told from the columns: asking it of every row is slow."""
    for row, has, total in zip(rows, have, shots, strict=True):
        if has != (row.status in WITH_COUNTS):
            return True
        if has and (row.clbits is None or row.shots not in (None, total)):
            return True
    clbits = np.array([row.clbits or 0 for row in rows], np.uint64)[owner]
    short = clbits < MAX_NARROW_CLBITS
    if (outcomes[short] >> clbits[short]).any():
        return True
    return bool(((outcomes[1:] == outcomes[:-1]) & (owner[1:] == owner[:-1])).any())


def _complaint(rows: Iterable[Row]) -> BackendResultError | None:
    for row in rows:
        if (reason := fault(row)) is not None:
            return BackendResultError(f"circuit {row.circuit} on {row.backend or 'its backend'}: {reason}.")
    return None


def _wide(rows: Sequence[Row]) -> NDArray[np.bool_]:
    return np.array([(row.clbits or 0) > MAX_NARROW_CLBITS for row in rows], dtype=np.bool_)


def _size(row: Row) -> int:
    return ((row.clbits or 0) + 7) // 8


def _sums(values: NDArray[Any], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum of each row's values; ``add.reduceat`` would give an empty row its neighbour's."""
    ends = np.concatenate(([0], np.cumsum(lengths)))
    running = np.concatenate(([0], np.cumsum(values, dtype=np.int64)))
    return np.asarray(running[ends[1:]] - running[ends[:-1]], dtype=np.int64)


def _lists(values: pa.Array[Any], lengths: NDArray[np.int64], have: NDArray[np.bool_]) -> pa.Array[Any]:
    offsets = pa.array(np.concatenate(([0], np.cumsum(lengths))).astype(np.int64))
    # No mask where nothing is null: a bitmap for each column would take a byte a circuit.
    return pa.LargeListArray.from_arrays(offsets, values, mask=None if have.all() else pa.array(~have))


def _dictionary(values: Sequence[str | None], index: pa.DataType) -> pa.Array[Any]:
    codes: dict[str, int] = {}
    indices = [None if value is None else codes.setdefault(value, len(codes)) for value in values]
    return pa.DictionaryArray.from_arrays(pa.array(indices, index), _text(list(codes)))


def _text(values: Sequence[str | None]) -> pa.Array[Any]:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:  # lone surrogates, as in a message that quotes a file name
        return pa.array([None if text is None else _clean(text) for text in values], pa.string())


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _own_name(name: str | None) -> str | None:
    return None if name is None or _AUTOMATIC_NAME.fullmatch(name) else name
