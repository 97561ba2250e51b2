"""Rows in a store, read when they are asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple, TypeVar

import pyarrow as pa
from obstore.exceptions import BaseError

from ray_qjm.errors import InvalidInputError, StoreDamagedError, StoreUnavailableError
from ray_qjm.planning.ranges import Ranges
from ray_qjm.results.counts import with_named_jobs
from ray_qjm.results.jobs import JobLog
from ray_qjm.results.objects import ABSENT, Objects
from ray_qjm.results.part_files import ROW_GROUP, PartReader, TornPartError, own_columns
from ray_qjm.results.rows import Rows, joined_table
from ray_qjm.results.views import Part
from ray_qjm.results.winners import PartName, Taken

#: Row groups that are kept: whoever reads circuit after circuit reads each group once.
_KEPT_GROUPS = 16
#: Open files that are kept: the footer of a large one takes milliseconds to read.
_KEPT_FILES = 16
#: Rows without counts are made so many at a time.
_BLANK = 65536
#: Files that are read at once where all are wanted: an object store answers after milliseconds.
_AT_ONCE = 8

K = TypeVar("K")
V = TypeVar("V")

#: Makes rows for the circuits ``[start, stop)`` of which nothing is stored.
Blank = Callable[[int, int], pa.RecordBatch]


class _Piece(NamedTuple):
    """The rows ``[start, stop)`` stand in a part, or nowhere."""

    start: int
    stop: int
    part: PartName | None


class StoredRows(Rows):
    """Rows of parts in a store; nothing is read before it is asked for.

    Args:
        objects: The store.
        taken: Which part each circuit's row is taken from.
        count: Number of circuits.
        blank: Makes the rows that no part has.
        jobs: Gives the task's jobs.

    Attributes:
        objects: The store.

    Reading raises ``StoreDamagedError`` where a part is gone or torn.
    """

    def __init__(
        self,
        objects: Objects,
        taken: Sequence[Taken],
        count: int,
        *,
        blank: Blank,
        jobs: Callable[[], JobLog],
    ) -> None:
        self.count = count
        self.objects = objects
        self._blank = blank
        self._jobs = jobs
        self._pieces = _pieces(taken, count)
        self._starts = [piece.start for piece in self._pieces]
        self._groups: OrderedDict[tuple[PartName, int], Part] = OrderedDict()
        self._files: OrderedDict[PartName, PartReader] = OrderedDict()

    def part_at(self, row: int) -> Part:
        """See ``Rows.part_at``."""
        piece = self._pieces[bisect_right(self._starts, row) - 1]
        if piece.part is None:
            return Part(self._blank(row, row + 1), row)
        number = (row - piece.part.start) // ROW_GROUP
        return _kept(self._groups, (piece.part, number), _KEPT_GROUPS, lambda key: self._group(*key))

    def __iter__(self) -> Iterator[Part]:
        """See ``Rows.__iter__``."""
        for piece in self._pieces:
            if piece.part is None:
                yield from (Part(self._blank(a, b), a) for a, b in in_pieces(piece.start, piece.stop))
            else:
                yield from self.parts_of(Taken(piece.start, piece.stop, piece.part))

    def parts_of(self, taken: Taken) -> Iterator[Part]:
        """The rows of a range, a row group at a time."""
        first = (taken.start - taken.part.start) // ROW_GROUP
        last = (taken.stop - 1 - taken.part.start) // ROW_GROUP
        for number in range(first, last + 1):
            begin = taken.part.start + number * ROW_GROUP
            start, stop = max(taken.start, begin), min(taken.stop, begin + ROW_GROUP)
            part = self._group(taken.part, number)
            yield self._part(part.raw.slice(start - begin, stop - start), start)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """See ``Rows.table``."""
        files: dict[PartName | int, list[_Piece]] = {}
        for piece in self._pieces:
            if piece.part is None:
                files.update({a: [_Piece(a, b, None)] for a, b in in_pieces(piece.start, piece.stop)})
            else:
                files.setdefault(piece.part, []).append(piece)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = list(
                chain.from_iterable(pool.map(lambda file: self._read(file, columns), files.values()))
            )
        found.sort(key=lambda item: item[0])
        return joined_table((batch for _, batch in found), columns)

    def jobs_table(self) -> pa.Table:
        """The table of jobs that the rows' column ``jobs`` speaks of."""
        return self._jobs().table()

    def files(self) -> list[str]:
        """See ``Rows.files``."""
        for piece in self._pieces:
            if piece.part is not None and (piece.start, piece.stop) != (piece.part.start, piece.part.stop):
                raise InvalidInputError(
                    f"of {piece.part.path} only the circuits {piece.start}-{piece.stop - 1} count: the others were "
                    "run again. Call compact() first."
                )
        return [self.objects.address(piece.part.path) for piece in self._pieces if piece.part is not None]

    def _read(
        self, pieces: Sequence[_Piece], columns: Sequence[str] | None
    ) -> list[tuple[int, pa.RecordBatch]]:
        """The rows of pieces of one part, each with its first circuit; of a part that is read once."""
        first, part = pieces[0], pieces[0].part
        if part is None:
            batch = self._blank(first.start, first.stop)
            return [(first.start, batch if columns is None else batch.select(list(columns)))]
        wanted = None if columns is None else ["job" if name == "jobs" else name for name in columns]
        with self._mending(part):
            whole = self._open(part).rows(wanted)
        if columns is None or "jobs" in columns:
            whole = self._with_jobs(whole)
        whole = own_columns(whole) if columns is None else whole.select(list(columns))
        return [
            (piece.start, whole.slice(piece.start - part.start, piece.stop - piece.start)) for piece in pieces
        ]

    def _group(self, part: PartName, number: int) -> Part:
        with self._mending(part):
            reader = _kept(self._files, part, _KEPT_FILES, self._open)
            return self._part(reader.group(number), part.start + number * ROW_GROUP)

    def _part(self, batch: pa.RecordBatch, start: int) -> Part:
        return Part(batch, start, lambda raw: own_columns(self._with_jobs(raw)))

    def _open(self, part: PartName) -> PartReader:
        with self._mending(part):
            reader = PartReader(self.objects.reader(part.path))
            if (reader.head.start, reader.head.stop) != (part.start, part.stop):
                raise TornPartError(f"it holds the circuits {reader.head.start}-{reader.head.stop - 1}.")
            return reader

    def _with_jobs(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Row numbers of the table of jobs in place of their ids."""
        return with_named_jobs(batch, self._jobs().places())

    @contextmanager
    def _mending(self, part: PartName) -> Iterator[None]:
        """Say what can be done about a part that can't be read."""
        try:
            yield
        except (BaseError, OSError) as error:
            if not isinstance(error, ABSENT):
                raise StoreUnavailableError(
                    f"{part.path} in store {self.objects.place} can't be read ({type(error).__name__}: {error})."
                ) from error
            raise StoreDamagedError(
                f"{part.path} is gone from store {self.objects.place}: if the task was resumed or compacted since this "
                f"result was opened, open it again; else run the same call again, which runs circuits {part.start}-"
                f"{part.stop - 1} anew."
            ) from error
        except TornPartError as error:
            raise StoreDamagedError(
                f"{part.path} in store {self.objects.place} is damaged: {error} Run the same call again, which runs "
                f"circuits {part.start}-{part.stop - 1} anew."
            ) from error


def in_pieces(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Ranges of which rows without counts are made at a time: a task may have any number of them.

    >>> list(in_pieces(5, 65542))
    [(5, 65541), (65541, 65542)]
    """
    return ((at, min(at + _BLANK, stop)) for at in range(start, stop, _BLANK))


def _pieces(taken: Sequence[Taken], count: int) -> list[_Piece]:
    found = [_Piece(start, min(stop, count), part) for start, stop, part in taken if start < count]
    covered = Ranges((piece.start, piece.stop) for piece in found)
    found += [_Piece(start, stop, None) for start, stop in covered.rest(0, count)]
    return sorted(found, key=lambda piece: piece.start)


def _kept(cache: OrderedDict[K, V], key: K, most: int, make: Callable[[K], V]) -> V:
    """A value of a cache of those used last."""
    if key not in cache:
        cache[key] = make(key)
        while len(cache) > most:
            cache.popitem(last=False)
    cache.move_to_end(key)
    return cache[key]
