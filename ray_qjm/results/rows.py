"""Where a result's rows are: in memory, or in a store from which they are read when they are asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ray_qjm.errors import InvalidInputError
from ray_qjm.results.joining import first_circuit
from ray_qjm.results.schema import schema
from ray_qjm.results.views import Part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class Rows(ABC):
    """The rows ``0`` to ``count - 1``, each once.

    Attributes:
        count: Number of circuits.
    """

    count: int

    @abstractmethod
    def part_at(self, row: int) -> Part:
        """The part that holds a row, ``0 <= row < count``."""

    @abstractmethod
    def __iter__(self) -> Iterator[Part]:
        """All parts in ascending order, no more than one of them held here at a time."""

    @abstractmethod
    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows, of all columns or of some."""

    @abstractmethod
    def files(self) -> list[str]:
        """The Parquet files that hold each row once.

        Raises:
            InvalidInputError: There are no files, or they hold more than that.
        """


class HeldRows(Rows):
    """Rows in memory.

    Args:
        batches: Record batches of ``schema``, each of contiguous circuits, in any order.

    Raises:
        InvalidInputError: Rows are missing, or stand twice.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._parts: list[Part] = []
        stop = 0
        for batch in sorted((batch for batch in batches if batch.num_rows), key=first_circuit):
            start = first_circuit(batch)
            if start != stop:
                what = f"rows {stop}-{start - 1} are missing" if start > stop else f"row {start} stands twice"
                raise InvalidInputError(f"{what}: the parts don't make up one result.")
            if not (np.diff(batch.column("circuit").to_numpy()) == 1).all():
                raise InvalidInputError(f"the part that begins with circuit {start} is not contiguous.")
            self._parts.append(Part(batch, start))
            stop = start + batch.num_rows
        self._starts = [part.start for part in self._parts]
        self.count = stop

    def part_at(self, row: int) -> Part:
        """See ``Rows.part_at``."""
        return self._parts[bisect_right(self._starts, row) - 1]

    def __iter__(self) -> Iterator[Part]:
        """See ``Rows.__iter__``."""
        return iter(self._parts)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """See ``Rows.table``; joined without copying."""
        return joined_table((part.batch for part in self._parts), columns)

    def files(self) -> list[str]:
        """There are none."""
        raise InvalidInputError(
            "this result is in memory and has no files: run with store=..., or write result.table with "
            "pyarrow.parquet.write_table."
        )


def joined_table(batches: Iterable[pa.RecordBatch], columns: Sequence[str] | None) -> pa.Table:
    """Batches as one table, with dictionaries that hold for all of it."""
    found = [batch if columns is None else batch.select(list(columns)) for batch in batches]
    empty = schema()
    if not found and columns is not None:
        empty = pa.schema([empty.field(name) for name in columns])
    # Every part has its own dictionaries; Polars and Parquet want one a column.
    return pa.Table.from_batches(found, None if found else empty).unify_dictionaries()
