"""The counts of circuits, packed into Arrow columns.

A batch is packed at once with NumPy: Arrow's own conversion of nested Python lists, row by row,
costs several times as much as the rest together.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ray_qjm.errors import BackendResultError, InvalidInputError
from ray_qjm.results.columns import coded, dictionary, texts
from ray_qjm.results.metadata import to_json
from ray_qjm.results.outcomes import in_shot_order, measured
from ray_qjm.results.row import Row, fault
from ray_qjm.results.schema import EXTRA_TYPES, JOBS_SCHEMA, STAGES, STATUSES, schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = [
    "JOBS_SCHEMA",
    "Row",
    "blank",
    "fault",
    "job_names",
    "jobs_named",
    "pack",
    "schema",
    "with_jobs",
    "with_named_jobs",
]

# Qiskit numbers unnamed circuits per process: on many workers such a name names many circuits.
_AUTOMATIC_NAME = re.compile(r"circuit-\d+(-\d+)*")
# A message stands in every blank row; at 2**31 bytes the offsets of a column of strings end.
_MAX_REPEATED_BYTES = 2**28
#: Between the ids of jobs in one text.
_BETWEEN_JOBS = "\n"
_JOBS = schema().field("jobs")
_JOBS_PLACE = schema().get_field_index("jobs")


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
    columns: dict[str, pa.Array[Any]] = {
        "circuit": pa.array([row.circuit for row in rows], pa.int64()),
        "name": texts([_own_name(row.name) for row in rows]),
        "status": coded([row.status for row in rows], STATUSES),
        "stage": coded([row.stage for row in rows], STAGES),
        "error_type": dictionary([row.error_type for row in rows], pa.int16()),
        "error": texts([row.error for row in rows]),
        "backend": dictionary([row.backend for row in rows], pa.int16()),
        "clbits": pa.array([row.clbits for row in rows], pa.int32()),
        "registers": dictionary([row.registers for row in rows], pa.int32()),
        "shots_requested": pa.array([row.shots_requested for row in rows], pa.int64()),
        "seed": pa.array([row.seed for row in rows], pa.uint64()),
        "metadata": pa.array([to_json(row.metadata) for row in rows], pa.string()),
    }
    try:
        columns.update(measured(rows))
        if memory:
            columns.update(in_shot_order(rows))
    except (ValueError, OverflowError, TypeError) as error:
        raise _complaint(rows) or error from error
    columns.update(
        _further({**dict.fromkeys(extra_types or {}, ()), **(extra or {})}, extra_types, len(rows))
    )
    packed = pa.schema([field for field in target if field.name != "jobs"])
    return pa.RecordBatch.from_arrays([columns[field.name] for field in packed], schema=packed)


def blank(
    start: int,
    stop: int,
    *,
    status: str,
    error_type: str | None,
    error: str | None,
    stage: str | None = None,
    backend: str | None = None,
    shots_requested: int | NDArray[np.int64],
    memory: bool = False,
    extra: Mapping[str, Sequence[object]] | None = None,
    extra_types: Mapping[str, str] | None = None,
) -> pa.RecordBatch:
    """Rows without counts for the circuits ``[start, stop)``, all for one reason.

    Args:
        start: First circuit.
        stop: One past the last.
        status: ``"failed"`` or ``"cancelled"``.
        error_type: Name of the exception's type.
        error: Its message; cut where so many copies of it would take more than 256 MiB.
        stage: Where they failed.
        backend: Name of the backend that they were meant for.
        shots_requested: Of each circuit: an int, or int64 of shape ``(stop - start,)``.
        memory: As for ``pack``.
        extra: Values of further columns, one a row; a column without values is null.
        extra_types: As for ``pack``.

    Returns:
        A batch of ``stop - start`` rows with the schema that ``pack`` gives.

    Raises:
        BackendResultError: The status is one of circuits that have counts.
        InvalidInputError: A further column lacks a type, or values or shots have another length.

    >>> batch = blank(5, 8, status="cancelled", error_type=None, error=None, shots_requested=100)
    >>> batch.column("circuit").to_pylist(), batch.column("counts").null_count
    ([5, 6, 7], 3)
    """
    rows = stop - start
    row = Row(
        start,
        status,
        backend,
        stage=stage,
        error_type=error_type,
        error=None if error is None else _cut(error, _MAX_REPEATED_BYTES // max(rows, 1)),
    )
    nothing = {name: [None] for name in extra_types or {}}
    one = pack([row], memory=memory, extra=nothing, extra_types=extra_types)
    batch = one.take(pa.array(np.zeros(rows, np.int64)))
    shots = np.full(rows, shots_requested) if np.ndim(shots_requested) == 0 else shots_requested
    own: dict[str, Any] = {"circuit": np.arange(start, stop), "shots_requested": shots}
    columns = _further(own, dict.fromkeys(own, "int64"), rows) | _further(extra or {}, extra_types, rows)
    for name, column in columns.items():
        batch = batch.set_column(batch.schema.get_field_index(name), batch.schema.field(name), column)
    return batch


def with_jobs(batch: pa.RecordBatch, jobs: Sequence[int]) -> pa.RecordBatch:
    """Add the column ``jobs``, with the same rows of the table of jobs for each circuit."""
    offsets = np.arange(batch.num_rows + 1, dtype=np.int64) * len(jobs)
    values = np.tile(np.asarray(jobs, dtype=np.int32), batch.num_rows)
    column = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values))
    return batch.add_column(_JOBS_PLACE, _JOBS, column)


def with_named_jobs(batch: pa.RecordBatch, known: Mapping[tuple[str | None, str], int]) -> pa.RecordBatch:
    """Put the column ``jobs`` in place of the column ``job``, which names the jobs of each circuit.

    Args:
        batch: Rows; ``job`` is a dictionary column, see ``job_names``.
        known: Row of the table of jobs, as ``JobLog.places``; jobs that aren't there are left out.
    """
    place = batch.schema.get_field_index("job")
    names, backends = batch.column(place), batch.column("backend")
    texts = [*names.dictionary.to_pylist(), None]
    kinds = [*backends.dictionary.to_pylist(), None]
    # Rows are many, and pairs of a backend and names few.
    codes = names.indices.fill_null(len(texts) - 1).to_numpy().astype(np.int64) * len(kinds)
    codes += backends.indices.fill_null(len(kinds) - 1).to_numpy()
    pairs, of_row = np.unique(codes, return_inverse=True)
    found = []
    for pair in pairs.tolist():
        text, backend = texts[pair // len(kinds)], kinds[pair % len(kinds)]
        keys = [(backend, job) for job in (text or "").split(_BETWEEN_JOBS)]
        found.append([known[key] for key in keys if key in known])
    column = pa.array(found, _JOBS.type).take(pa.array(of_row.reshape(-1)))
    return batch.remove_column(place).add_column(_JOBS_PLACE, _JOBS, column)


def job_names(jobs: Sequence[Sequence[str]]) -> pa.Array[Any]:
    """The column ``job`` of a batch: for each circuit the ids of its jobs, as one text."""
    return dictionary([_BETWEEN_JOBS.join(ids) or None for ids in jobs], pa.int32())


def jobs_named(names: pa.Array[Any]) -> set[str]:
    """The ids of jobs in a column ``job``."""
    return {job for text in names.unique().to_pylist() if text for job in text.split(_BETWEEN_JOBS)}


def _further(
    values: Mapping[str, Sequence[object]], types: Mapping[str, str] | None, rows: int
) -> dict[str, pa.Array[Any]]:
    """Columns out of whole columns of values, each as long as the batch."""
    types = types or {}
    if untyped := sorted(set(values) - set(types)):
        raise InvalidInputError(f"columns without a type: {', '.join(untyped)}.")
    for name, column in values.items():
        if len(column) != rows:
            raise InvalidInputError(f"column {name!r} has {len(column)} values for {rows} circuits.")
    return {name: pa.array(column, EXTRA_TYPES[types[name]]) for name, column in values.items()}


def _complaint(rows: Iterable[Row]) -> BackendResultError | None:
    for row in rows:
        if (reason := fault(row)) is not None:
            return BackendResultError(f"circuit {row.circuit} on {row.backend or 'its backend'}: {reason}.")
    return None


def _cut(text: str, size: int) -> str:
    """The text, shortened to a size in bytes."""
    data = text.encode("utf-8", "backslashreplace")
    return data.decode() if len(data) <= size else data[: max(size - 3, 0)].decode("utf-8", "ignore") + "..."


def _own_name(name: str | None) -> str | None:
    return None if name is None or _AUTOMATIC_NAME.fullmatch(name) else name
