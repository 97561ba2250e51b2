"""What went wrong, in lines that people read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# A report is read on a screen: what a task of a million different failures says beyond it stands in
# ``TaskResult.failures``.
MAX_LINES = 100
_MAX_REASON = 400


@dataclass(frozen=True)
class FailureRange:
    """Contiguous circuits ``[start, stop)`` that have no counts, or not all, for one reason."""

    start: int
    stop: int
    status: str
    error_type: str | None
    error: str | None


def merge(ranges: Iterable[FailureRange]) -> list[FailureRange]:
    """Join neighbours that have the same status and reason; the answer ascends."""
    merged: list[FailureRange] = []
    for item in sorted(ranges, key=lambda item: item.start):
        last = merged[-1] if merged else None
        if last is not None and last.stop == item.start and _reason(last) == _reason(item):
            merged[-1] = replace(last, stop=item.stop)
        else:
            merged.append(item)
    return merged


def lines(
    ranges: Sequence[FailureRange], done: int, total: int, *, max_lines: int | None = MAX_LINES
) -> list[str]:
    """The report: one line a range, and at the end what was done.

    Args:
        ranges: As ``merge`` gives them.
        done: Circuits with all their counts.
        total: Circuits of the task.
        max_lines: Ranges beyond it are only counted; ``None`` shows all.

    >>> for line in lines([FailureRange(200, 300, "failed", "TypeError", "no gate")], 900, 1000):
    ...     print(line)
    circuits 200-299 failed. Reason: TypeError: no gate
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


def _reason(item: FailureRange) -> tuple[str, str | None, str | None]:
    return item.status, item.error_type, item.error


def _line(item: FailureRange) -> str:
    one = item.stop - item.start == 1
    who = f"circuit {item.start}" if one else f"circuits {item.start}-{item.stop - 1}"
    what = {"partial": "partly done", "cancelled": "cancelled"}.get(item.status, item.status)
    parts = [part for part in (item.error_type, " ".join((item.error or "").split())) if part]
    if not parts:
        return f"{who} {what}."
    reason = ": ".join(parts)
    if len(reason) > _MAX_REASON:
        reason = reason[: _MAX_REASON - 3] + "..."
    return f"{who} {what}. Reason: {reason}"
