"""The outcomes of many circuits as Arrow's lists, checked as whole columns.

What these functions refuse, with a ``ValueError``, ``row.fault`` can tell of a single row: asking it of
every row is slow.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ray_qjm.results.columns import lists
from ray_qjm.results.row import MAX_COUNT, Row
from ray_qjm.results.schema import MAX_NARROW_CLBITS, WITH_COUNTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class _Values(dict[str, int]):
    """Outcomes as numbers, each text read once: circuits of one batch mostly share them."""

    def __missing__(self, key: str) -> int:
        value = self[key] = int(key, 16)
        return value


def measured(rows: Sequence[Row]) -> dict[str, pa.Array[Any]]:
    """The columns ``shots``, ``outcomes``, ``outcomes_wide`` and ``counts``."""
    have = np.array([row.counts is not None for row in rows], dtype=np.bool_)
    wide = _wide(rows) & have
    lengths = np.array([len(row.counts or ()) for row in rows], dtype=np.int64)
    counts = np.array(
        list(chain.from_iterable(row.counts.values() for row in rows if row.counts)) or np.empty(0, np.int64)
    )
    if counts.dtype.kind not in "iu" or (len(counts) and not 0 <= counts.min() <= counts.max() <= MAX_COUNT):
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
        "outcomes": lists(pa.array(outcomes), np.where(wide, 0, lengths), have & ~wide),
        "outcomes_wide": lists(pa.array(wide_outcomes, pa.binary()), np.where(wide, lengths, 0), wide),
        "counts": lists(pa.array(counts.astype(np.int32)), lengths, have),
    }


def in_shot_order(rows: Sequence[Row]) -> dict[str, pa.Array[Any]]:
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
        "memory": lists(pa.array(shots), np.where(wide, 0, lengths), have & ~wide),
        "memory_wide": lists(pa.array(wide_shots, pa.binary()), np.where(wide, lengths, 0), wide),
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


def _wide(rows: Sequence[Row]) -> NDArray[np.bool_]:
    return np.array([(row.clbits or 0) > MAX_NARROW_CLBITS for row in rows], dtype=np.bool_)


def _size(row: Row) -> int:
    return ((row.clbits or 0) + 7) // 8


def _sums(values: NDArray[Any], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum of each row's values; ``add.reduceat`` would give an empty row its neighbour's."""
    ends = np.concatenate(([0], np.cumsum(lengths)))
    running = np.concatenate(([0], np.cumsum(values, dtype=np.int64)))
    return np.asarray(running[ends[1:]] - running[ends[:-1]], dtype=np.int64)
