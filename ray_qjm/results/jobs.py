"""The table of jobs: what was submitted where, and how it ended."""

from __future__ import annotations

import threading
from typing import NamedTuple

import pyarrow as pa

from ray_qjm.results.schema import JOBS_SCHEMA

#: Jobs that are kept as Python objects before they become Arrow columns, which take a fifth of the room.
_OPEN = 4096


class Job(NamedTuple):
    """One submission, in the order of ``JOBS_SCHEMA``; times are seconds since the epoch.

    ``usage_s`` are the seconds of QPU that a service billed; ``None`` where it tells none. A job that hasn't ended has
    no ``ended``, and one that hasn't been submitted no ``job_id``.
    """

    job_id: str | None
    backend: str
    start: int
    stop: int
    attempt: int
    state: str
    reason: str | None
    submitted: float | None
    started: float | None
    ended: float | None
    circuits: int
    shots: int | None
    seconds: float | None
    usage_s: float | None = None


#: Row of the table of jobs by backend and id: backends may call their jobs alike.
Places = dict[tuple[str | None, str], int]


class JobLog:
    """Jobs in the order in which they ended; a row's number is what the column ``jobs`` holds.

    One thread adds, any thread may ask for the table.

    Args:
        before: The table of earlier sessions.
    """

    def __init__(self, before: pa.Table | None = None) -> None:
        self._lock = threading.Lock()
        self._closed: list[pa.RecordBatch] = [] if before is None else before.to_batches()
        self._rows = 0 if before is None else before.num_rows
        self._open: list[Job] = []
        self._places: Places = {}
        self._placed = 0

    def add(self, job: Job) -> int:
        """Note a job and return its row."""
        with self._lock:
            if len(self._open) == _OPEN:
                self._closed.append(_columns(self._open))
                self._open = []
            self._open.append(job)
            self._rows += 1
            return self._rows - 1

    def places(self) -> Places:
        """Row of each job by its backend and id, and of the last of an id for rows that don't say their backend."""
        with self._lock:
            if self._placed < self._rows:
                table = self._table().slice(self._placed)
                backends, ids = (table.column(name).to_pylist() for name in ("backend", "job_id"))
                for row, (backend, job) in enumerate(zip(backends, ids, strict=True), self._placed):
                    self._places[backend, job] = self._places[None, job] = row
                self._placed = self._rows
            return self._places

    def table(self) -> pa.Table:
        """All jobs so far, as ``JOBS_SCHEMA``."""
        with self._lock:
            return self._table()

    def _table(self) -> pa.Table:
        return pa.Table.from_batches([*self._closed, _columns(self._open)], JOBS_SCHEMA)


def _columns(jobs: list[Job]) -> pa.RecordBatch:
    columns = zip(*jobs, strict=True) if jobs else ((),) * len(JOBS_SCHEMA)
    arrays = []
    for field, values in zip(JOBS_SCHEMA, columns, strict=True):
        if pa.types.is_timestamp(field.type):
            microseconds = [None if value is None else round(value * 1e6) for value in values]
            arrays.append(pa.array(microseconds, pa.int64()).cast(field.type))
        else:
            arrays.append(pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=JOBS_SCHEMA)
