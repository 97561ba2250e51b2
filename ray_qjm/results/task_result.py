"""What a task gives back: one row a circuit, whichever backend ran it."""

from __future__ import annotations

import operator
import os
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import pyarrow as pa
import pyarrow.compute as pc

from ray_qjm.errors import AmbiguousCircuitError, InvalidInputError, UnknownCircuitError
from ray_qjm.results import export, html, observables, plots
from ray_qjm.results.compaction import compact
from ray_qjm.results.report import lines, merge, ranges
from ray_qjm.results.rows import HeldRows, Rows
from ray_qjm.results.schema import JOBS_SCHEMA, STATUSES, TABLE_INFO
from ray_qjm.results.stored_rows import StoredRows
from ray_qjm.results.views import CircuitResult
from ray_qjm.results.watch import StoredTask

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy as np
    import pandas as pd
    import polars as pl
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from qiskit.primitives import PrimitiveResult
    from qiskit.result import Result


class TaskResult:
    """The counts of a task's circuits.

    Row i is circuit i. Failed circuits are rows too: they have null counts and a reason.

    Args:
        batches: Record batches of ``counts.schema``, each of contiguous circuits, in any order; or the rows
            of a store.
        jobs: Table of ``counts.JOBS_SCHEMA``; rows of a store know it themselves.
        info: Facts on the task, which become metadata of the table.
        circuits: The circuits themselves, where the driver had them: ``get_counts(circuit)`` knows
            them by identity.

    Raises:
        InvalidInputError: Rows are missing, or stand twice.
    """

    def __init__(
        self,
        batches: Rows | Iterable[pa.RecordBatch],
        *,
        jobs: pa.Table | None = None,
        info: Mapping[str, str],
        circuits: Sequence[object] | None = None,
    ) -> None:
        self._rows = batches if isinstance(batches, Rows) else HeldRows(batches)
        self._count = self._rows.count
        self._jobs = JOBS_SCHEMA.empty_table() if jobs is None else jobs
        self._circuits = circuits
        self.info = {**TABLE_INFO, **info}

    @classmethod
    def open(cls, store: str | os.PathLike[str]) -> TaskResult:
        """The result of a stored task, as far as it is there. Rows are read as they are asked for; Ray isn't needed.

        Circuits that haven't been run have the status ``"cancelled"``.

        Args:
            store: The directory or URI that was given to ``run``.

        Raises:
            InvalidInputError: It holds no task.
            StoreError: It can't be read; so does any reading later.
        """
        task = StoredTask(store)
        return cls(task.rows(), info=task.info)

    def compact(self) -> None:
        """Join the files of a stored result into few large ones, and drop rows that were replaced by later ones.

        Killed at any moment it leaves every row readable; calling it again goes on.

        Raises:
            InvalidInputError: The result is in memory.
            StoreInUseError: The task is being run, or compacted by another process.
            StoreError: The store is damaged, or doesn't take the files.
        """
        if not isinstance(self._rows, StoredRows):
            raise InvalidInputError("this result is in memory: there are no files to join.")
        compact(self._rows.objects)
        self._rows = StoredTask(self._rows.objects.root).rows()

    @cached_property
    def jobs(self) -> pa.Table:
        """What was submitted where, and how it ended: a row a job."""
        if isinstance(self._rows, StoredRows):
            return self._rows.jobs_table()
        return self._jobs

    def __len__(self) -> int:
        """Number of circuits, failed ones included."""
        return self._count

    @overload
    def __getitem__(self, index: slice) -> list[CircuitResult]: ...
    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> CircuitResult: ...
    def __getitem__(self, index: int | np.integer[Any] | slice) -> CircuitResult | list[CircuitResult]:
        """One row, or those of a slice; negative numbers count from the end.

        Raises:
            IndexError: There is no such row.
        """
        if isinstance(index, slice):
            return [self._row(i) for i in range(*index.indices(self._count))]
        try:
            number = operator.index(index)
        except TypeError:
            raise InvalidInputError(
                f"a row is asked for by number, not by {type(index).__name__}; names go to get_counts(name)."
            ) from None
        return self._row(number)

    def __iter__(self) -> Iterator[CircuitResult]:
        """All rows, in order."""
        for part in self._rows:
            for row in range(part.stop - part.start):
                yield CircuitResult(part, row)

    def iter_batches(self) -> Iterator[pa.RecordBatch]:
        """The table in record batches of a few hundred or thousand circuits each, in order.

        A result that was opened from a store holds one of them at a time: it may be larger than memory.
        """
        for part in self._rows:
            yield part.batch

    def files(self) -> list[str]:
        """The Parquet files of a stored result: every circuit that was run stands in just one of them.

        Paths on a local disk, else URIs, for DuckDB, Polars and the like. The column ``job`` holds ids of jobs;
        circuits that were not run have no row.

        Raises:
            InvalidInputError: The result is in memory; or a file holds circuits that were run again later:
                ``compact`` mends that.
        """
        return self._rows.files()

    @cached_property
    def table(self) -> pa.Table:
        """Everything as one Arrow table, joined without copying.

        Its metadata tells schema version, bit order, an SQL recipe, and the task's own facts.
        """
        return self._rows.table().replace_schema_metadata(self.info)

    @overload
    def get_counts(self, circuit: None = None) -> list[dict[str, int]]: ...
    @overload
    def get_counts(self, circuit: object) -> dict[str, int]: ...
    def get_counts(self, circuit: object = None) -> dict[str, int] | list[dict[str, int]]:
        """Counts by bit string: the dictionary that Qiskit's ``Result.get_counts`` gives.

        Registers are separated by spaces, the last one first. Qiskit cuts the string of all clbits
        by the *sizes* of the registers, whichever clbits they hold. So with aliased registers the
        pieces are not the registers' values, though no bit is lost; and with loose clbits beside
        registers the lowest clbits are missing from the text. There, where several outcomes
        share a text, Qiskit gives the count of the last one; this gives their sum.
        ``result[i].int_counts()`` and the table have every clbit.

        Args:
            circuit: Row number, a unique name, or a circuit of the list that was run (by identity,
                else by its name). ``None``: all of them, as a list.

        Raises:
            CircuitFailedError: The circuit, or one of all, has no counts.
            AmbiguousCircuitError: Several rows have this name, or are this circuit.
            UnknownCircuitError: No row is.
            IndexError: There is no such row number.
        """
        if circuit is None:
            return [row.counts() for row in self]
        return self.find(circuit).counts()

    def find(self, circuit: object) -> CircuitResult:
        """The row of a circuit; ``circuit``, and what is raised, as for ``get_counts``."""
        if isinstance(circuit, str):
            return self._named(circuit, f"name {circuit!r}")
        if hasattr(circuit, "__index__"):
            return self._row(operator.index(circuit))
        name = getattr(circuit, "name", None)
        if not isinstance(name, str):
            raise InvalidInputError(
                f"a circuit is asked for by number, name or QuantumCircuit, not by {type(circuit).__name__}."
            )
        rows = self._by_identity.get(id(circuit))
        if rows is None:
            return self._named(name, f"circuit {name!r}")
        if len(rows) > 1:
            raise AmbiguousCircuitError(f"circuit {name!r}", rows)
        return self._row(rows[0])

    def jobs_of(self, circuit: object) -> pa.Table:
        """The jobs in which a circuit was run: rows of ``jobs``; ``circuit`` as for ``get_counts``."""
        return self.jobs.take(pa.array(self.find(circuit).jobs, pa.int32()))

    def get_memory(self, circuit: object) -> list[str]:
        """The bit string of every shot, in shot order; ``circuit`` as for ``get_counts``.

        Raises:
            InvalidInputError: The task didn't keep the shots: run with ``memory=True``.
            CircuitFailedError: The circuit has none.
        """
        return self.find(circuit).memory()

    def expectation(self, observable: Any) -> NDArray[np.float64]:
        """Expectation value of a diagonal observable for every circuit.

        Args:
            observable: A string of ``I`` and ``Z``, clbit 0 the last letter as in Qiskit; a list of
                clbits, for their parity; a mapping from either to its coefficient, for their sum; or
                a diagonal ``Pauli`` or ``SparsePauliOp``. Clbits beyond a string are left out.

        Returns:
            Float64 of shape ``(len(self),)``; NaN where a circuit has no counts.

        Raises:
            InvalidInputError: The observable is not diagonal, or a circuit lacks one of its clbits.
        """
        return observables.expectation(self._rows, observable)

    def to_long(self, columns: Sequence[str] = ()) -> pa.Table:
        """One row an outcome: circuit, outcome, count, and ``columns`` of the table after circuit.

        Failed circuits are left out. Where some circuit has more than 64 clbits there is another
        column, ``outcome_wide``, which holds its outcomes.
        """
        return export.to_long(self, columns)

    def to_pandas(self) -> pd.DataFrame:
        """The table as a DataFrame; integers are nullable ones, repeating texts categories."""
        return export.to_pandas(self.table)

    def to_polars(self) -> pl.DataFrame:
        """The table as a Polars DataFrame, outcomes and counts shared with it."""
        return export.to_polars(self.table)

    def to_ray_dataset(self) -> Any:
        """The table as a Ray dataset, a block a part; Ray has to run."""
        return export.to_ray_dataset(self.table)

    def to_qiskit(self) -> Result:
        """Everything as one ``qiskit.result.Result``, whose experiments are the rows.

        A failed circuit is an experiment without success; Qiskit raises when its counts are asked
        for. Circuits without a name of their own are called ``row-<n>``.
        """
        return export.to_qiskit(self)

    def to_primitive_result(self) -> PrimitiveResult[Any]:
        """Everything as samplers give it: a PUB result a circuit, a ``BitArray`` a register.

        Each register has its own clbits' values, aliased or not. Loose clbits are dropped, as all
        samplers do. Without ``memory=True`` the shots stand in order of outcome.

        Raises:
            CircuitFailedError: A circuit has no counts; PUB results can't say so.
        """
        return export.to_primitive_result(self)

    def plot_counts(self, circuit: object, *, max_bars: int = 32, ax: Axes | None = None) -> Axes:
        """Draw the counts of one circuit; see ``plots.plot_counts``."""
        return plots.plot_counts(self.find(circuit), max_bars=max_bars, ax=ax)

    def plot_outcomes(self, *, max_outcomes: int = 32, ax: Axes | None = None) -> Axes:
        """Draw how often each outcome came, over all circuits; see ``plots.plot_outcomes``."""
        return plots.plot_outcomes(self, max_outcomes=max_outcomes, ax=ax)

    def plot_expectation(
        self, observable: Any, x: str = "circuit", y: str | None = None, *, ax: Axes | None = None
    ) -> Axes:
        """Draw an expectation value over one column of the table or two; see ``plots.plot_expectation``."""
        return plots.plot_expectation(self, observable, x, y, ax=ax)

    @cached_property
    def failures(self) -> pa.Table:
        """The rows without all their counts: circuit, status, stage, error_type, error, backend."""
        table = self._columns(["circuit", "status", "stage", "error_type", "error", "backend"])
        return table.filter(pc.field("status") != "done")

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of the table; of a stored result the others aren't read."""
        return self._columns([name]).column(0)

    def _columns(self, names: Sequence[str]) -> pa.Table:
        """Some columns, without reading the others."""
        return self.table.select(list(names)) if "table" in vars(self) else self._rows.table(names)

    @property
    def job_ids(self) -> list[str]:
        """The provider's names of the jobs, in order of the table of jobs."""
        return [job for job in self.jobs.column("job_id").to_pylist() if job is not None]

    def report(self) -> str:
        """What was done and what failed, a line for each run of circuits with one reason."""
        done = self._count - self.failures.num_rows
        return "\n".join(lines(merge(ranges(self.failures)), done, self._count))

    def __repr__(self) -> str:
        states = ", ".join(f"{count} {status}" for status, count in self.status_counts.items())
        return f"<TaskResult: {self._count} circuits ({states or 'none'}), {len(self.job_ids)} jobs>"

    def _repr_html_(self) -> str:
        return html.render(self)

    @cached_property
    def status_counts(self) -> dict[str, int]:
        """How many circuits are done, partial, failed and cancelled; what there is none of is left out."""
        column = self.column("status").cast(pa.string())
        found = {item["values"]: item["counts"] for item in column.value_counts().to_pylist()}
        return {status: found[status] for status in STATUSES if status in found}

    def _row(self, number: int) -> CircuitResult:
        index = number + self._count if number < 0 else number
        if not 0 <= index < self._count:
            span = f"there are circuits 0 to {self._count - 1}" if self._count else "there are no circuits"
            raise IndexError(f"no circuit {number}: {span}.")
        part = self._rows.part_at(index)
        return CircuitResult(part, index - part.start)

    def _named(self, name: str, what: str) -> CircuitResult:
        rows = self._by_name.get(name)
        if rows is None:
            raise UnknownCircuitError(
                f"no row is {what}: ask by row number. (Names that Qiskit gives by itself, such as "
                "circuit-12, are not kept: every process counts anew.)"
            )
        if isinstance(rows, list):
            raise AmbiguousCircuitError(what, rows)
        return self._row(rows)

    @cached_property
    def _by_identity(self) -> dict[int, list[int]]:
        # The sequence keeps the circuits alive, so that no id is taken over by another object.
        found: dict[int, list[int]] = {}
        for row, circuit in enumerate(() if self._circuits is None else self._circuits):
            found.setdefault(id(circuit), []).append(row)
        return found

    @cached_property
    def _by_name(self) -> dict[str, int | list[int]]:
        found: dict[str, int | list[int]] = {}
        for part in self._rows:
            column = part.raw.column("name")
            if column.null_count == len(column):
                continue
            for row, name in enumerate(column.to_pylist(), part.start):
                if name is None:
                    continue
                before = found.setdefault(name, row)
                if before is not row and before != row:
                    found[name] = [*before, row] if isinstance(before, list) else [before, row]
        return found
