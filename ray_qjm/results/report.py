"""What went wrong, in lines that people read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# A report is read on a screen: what a task of a million different failures says beyond it stands in
# ``TaskResult.failures``.
MAX_LINES = 100
_MAX_REASON = 400
#: Ranges that are kept for the report of a running task; the result's own has all.
MAX_RANGES = 10_000
_REASON = ("status", "stage", "error_type", "error")


@dataclass(frozen=True)
class FailureRange:
    """Contiguous circuits ``[start, stop)`` that have no counts, or not all, for one reason."""

    start: int
    stop: int
    status: str
    error_type: str | None
    error: str | None
    stage: str | None = None


def ranges(failures: pa.Table) -> Iterator[FailureRange]:
    """Runs of equal neighbours in a table such as ``TaskResult.failures``; ``merge`` joins what is left.

    Goes by whole columns: a million rows that were cancelled for one reason are one range.
    """
    for batch in failures.select(["circuit", *_REASON]).to_batches():
        if not batch.num_rows:
            continue
        circuits = batch.column("circuit").to_numpy()
        new = np.diff(circuits, prepend=circuits[:1]) != 1
        for name in _REASON:
            column = batch.column(name)
            column = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
            codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
            new[1:] |= codes[1:] != codes[:-1]
        starts = np.flatnonzero(new)
        last = circuits[np.append(starts[1:], len(new))[: len(starts)] - 1]
        for row, stop in zip(batch.take(pa.array(starts)).to_pylist(), last.tolist(), strict=True):
            yield FailureRange(row.pop("circuit"), stop + 1, **row)


def merge(ranges: Iterable[FailureRange]) -> list[FailureRange]:
    """Join neighbours that have the same status, stage and reason; the answer ascends."""
    merged: list[FailureRange] = []
    for item in sorted(ranges, key=lambda item: item.start):
        last = merged[-1] if merged else None
        if last is not None and last.stop == item.start and _reason(last) == _reason(item):
            merged[-1] = replace(last, stop=item.stop)
        else:
            merged.append(item)
    return merged


class FailureLog:
    """What has failed so far in a task that runs. One thread adds, any thread may read.

    Args:
        before: What had failed in earlier sessions.
    """

    def __init__(self, before: Iterable[FailureRange] = ()) -> None:
        self._ranges: list[FailureRange] = []
        self._listing = True
        self._unlisted = 0
        self.add(*before)

    def add(self, *items: FailureRange) -> None:
        """Note ranges; once there are too many that can't be joined, only how many circuits they have."""
        for item in items:
            self._add(item)

    def _add(self, item: FailureRange) -> None:
        if len(self._ranges) >= MAX_RANGES:
            self._ranges = merge(self._ranges)
            # If joining neighbours doesn't help, trying again each time would only cost.
            self._listing = len(self._ranges) < MAX_RANGES // 2
        if self._listing:
            self._ranges.append(item)
        else:
            self._unlisted += item.stop - item.start

    def ranges(self) -> tuple[list[FailureRange], int]:
        """Ranges of failed circuits, and how many circuits failed beyond those that are listed."""
        return merge(list(self._ranges)), self._unlisted


def clipped(failures: Iterable[FailureRange], start: int, stop: int) -> list[FailureRange]:
    """What of some failures concerns the circuits ``[start, stop)``."""
    return [
        replace(item, start=max(item.start, start), stop=min(item.stop, stop))
        for item in failures
        if item.start < stop and start < item.stop
    ]


def lines(
    ranges: Sequence[FailureRange], done: int, total: int, *, max_lines: int | None = MAX_LINES
) -> list[str]:
    """The report: one line a range, and at the end what was done.

    Args:
        ranges: As ``merge`` gives them.
        done: Circuits with all their counts.
        total: Circuits of the task.
        max_lines: Ranges beyond it are only counted; ``None`` shows all.

    >>> failures = [FailureRange(200, 300, "failed", "TypeError", "no gate", stage="transpile")]
    >>> for line in lines(failures, 900, 1000):
    ...     print(line)
    circuits 200-299 failed to transpile. Reason: TypeError: no gate
    900 of 1000 circuits done, 100 failed.
    """
    shown = ranges if max_lines is None else ranges[:max_lines]
    text = [_line(item) for item in shown]
    if left := ranges[len(shown) :]:
        circuits = sum(item.stop - item.start for item in left)
        text.append(f"... and {circuits} more circuits in {len(left)} ranges; see the table of failures.")
    sums: dict[str, int] = {}
    for item in ranges:
        sums[item.status] = sums.get(item.status, 0) + item.stop - item.start
    rest = "".join(f", {count} {status}" for status, count in sums.items())
    text.append(f"{done} of {total} circuits done{rest}.")
    return text


def _reason(item: FailureRange) -> tuple[str | None, ...]:
    return item.status, item.stage, item.error_type, item.error


def _line(item: FailureRange) -> str:
    one = item.stop - item.start == 1
    who = f"circuit {item.start}" if one else f"circuits {item.start}-{item.stop - 1}"
    what = {"partial": "partly done"}.get(item.status, item.status)
    if item.status == "failed" and item.stage is not None:
        what = f"failed to {item.stage}"
    parts = [part for part in (item.error_type, " ".join((item.error or "").split())) if part]
    if not parts:
        return f"{who} {what}."
    reason = ": ".join(parts)
    if len(reason) > _MAX_REASON:
        reason = reason[: _MAX_REASON - 3] + "..."
    return f"{who} {what}. Reason: {reason}"
