"""The table of jobs: what was submitted where, and how it ended."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from datetime import datetime, timezone

import pyarrow as pa

from ray_qjm.results.schema import JOBS_SCHEMA


@dataclass(frozen=True, slots=True)
class Job:
    """One submission; times are seconds since the epoch. See ``JOBS_SCHEMA``."""

    job_id: str
    backend: str
    start: int
    stop: int
    attempt: int
    state: str
    reason: str | None
    submitted: float
    started: float | None
    ended: float
    circuits: int
    shots: int | None
    seconds: float | None


class JobLog:
    """Jobs in the order in which they ended; a row's number is what the column ``jobs`` holds."""

    def __init__(self) -> None:
        self._rows: list[tuple[object, ...]] = []

    def add(self, job: Job) -> int:
        """Note a job and return its row."""
        self._rows.append(astuple(job))
        return len(self._rows) - 1

    def table(self) -> pa.Table:
        """All jobs so far, as ``JOBS_SCHEMA``."""
        rows = list(self._rows)  # a snapshot: another thread may add
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(JOBS_SCHEMA)
        arrays = []
        for field, values in zip(JOBS_SCHEMA, columns, strict=True):
            if pa.types.is_timestamp(field.type):
                values = tuple(_time(value) for value in values)
            arrays.append(pa.array(values, field.type))
        return pa.Table.from_arrays(arrays, schema=JOBS_SCHEMA)


def _time(seconds: object) -> datetime | None:
    return datetime.fromtimestamp(seconds, timezone.utc) if isinstance(seconds, float) else None
