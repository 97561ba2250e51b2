"""Sets of circuits as ranges of row numbers: memory by the number of gaps, not of circuits."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Ranges:
    """Merged ranges ``[start, stop)`` of non-negative integers.

    >>> have = Ranges([(0, 10), (20, 30), (10, 12)])
    >>> list(have)
    [(0, 12), (20, 30)]
    >>> have.gap(5), have.gap(15), have.gap(25)
    ((12, 20), (15, 20), (30, None))
    >>> have.count(5, 25)
    12
    """

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for start, stop in ranges:
            self.add(start, stop)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._stops, strict=True))

    def __bool__(self) -> bool:
        return bool(self._starts)

    def add(self, start: int, stop: int) -> None:
        """Add ``[start, stop)``; neighbours and overlaps join, an empty range adds nothing."""
        if start >= stop:
            return
        first = bisect_left(self._stops, start)
        last = bisect_right(self._starts, stop)
        if first < last:
            start = min(start, self._starts[first])
            stop = max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def gap(self, at: int) -> tuple[int, int | None]:
        """The first integer from ``at`` on that isn't in, and where the gap that it is in ends, if it does."""
        i = bisect_right(self._starts, at) - 1
        start = max(at, self._stops[i]) if i >= 0 else at
        return start, self._starts[i + 1] if i + 1 < len(self._starts) else None

    def rest(self, start: int, stop: int) -> list[tuple[int, int]]:
        """What of ``[start, stop)`` is not in, as ranges."""
        found: list[tuple[int, int]] = []
        at = start
        for a, b in self.within(start, stop):
            if at < a:
                found.append((at, a))
            at = b
        return [*found, (at, stop)] if at < stop else found

    def within(self, start: int, stop: int) -> list[tuple[int, int]]:
        """What of ``[start, stop)`` is in, as ranges."""
        first, last = bisect_right(self._stops, start), bisect_left(self._starts, stop)
        ranges = zip(self._starts[first:last], self._stops[first:last], strict=True)
        return [(max(a, start), min(b, stop)) for a, b in ranges]

    def count(self, start: int, stop: int) -> int:
        """How many integers of ``[start, stop)`` are in."""
        return sum(b - a for a, b in self.within(start, stop)) if start < stop else 0
