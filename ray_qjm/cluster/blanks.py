"""Rows for circuits that no worker will answer for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from ray_qjm.circuits.source import DriverSource
from ray_qjm.cluster.held import HeldPayloads
from ray_qjm.cluster.messages import TaskSetup
from ray_qjm.errors import TaskCancelledError
from ray_qjm.planning.events import Chunk, Failure
from ray_qjm.results.counts import blank, with_jobs
from ray_qjm.results.joining import first_circuit


class Blanks:
    """Makes rows without counts that fit a task's others: all columns but ``jobs``.

    Args:
        setup: The task's.
        feed: Its source, where only the driver can read it.
        held: Circuits that were read and have no row yet.
    """

    def __init__(self, setup: TaskSetup, feed: DriverSource | None, held: HeldPayloads) -> None:
        self._setup = setup
        self._feed = feed
        self._held = held

    def failed(self, failure: Failure, backend: str | None = None) -> pa.RecordBatch:
        """Circuits that failed, with the reason."""
        return self._rows(
            failure.start,
            failure.stop,
            status=failure.status,
            error_type=failure.error_type,
            error=failure.error,
            stage=failure.stage or None,
            backend=backend,
        )

    def cancelled(self, start: int, stop: int, why: str) -> pa.RecordBatch:
        """Circuits that were not run."""
        return self._rows(start, stop, status="cancelled", error_type=TaskCancelledError.__name__, error=why)

    def fill(self, batches: Sequence[pa.RecordBatch], total: int | None, why: str) -> list[pa.RecordBatch]:
        """The batches in order, with cancelled rows in the gaps and up to ``total``."""
        filled: list[pa.RecordBatch] = []
        stop = 0
        for batch in sorted(batches, key=first_circuit):
            start = first_circuit(batch)
            if start > stop:
                filled.append(with_jobs(self.cancelled(stop, start, why), []))
            filled.append(batch)
            stop = start + batch.num_rows
        if total is not None and total > stop:
            filled.append(with_jobs(self.cancelled(stop, total, why), []))
        return filled

    def _rows(self, start: int, stop: int, **reason: Any) -> pa.RecordBatch:
        return blank(
            start,
            stop,
            shots_requested=self._setup.shots_in(start, stop),
            memory=self._setup.memory,
            extra=self._columns(start, stop),
            extra_types=self._setup.column_types,
            **reason,
        )

    def _columns(self, start: int, stop: int) -> Mapping[str, Sequence[object]]:
        """The source's columns for circuits that no worker will pack, as far as they are known."""
        if self._setup.source is not None:
            return self._setup.source.columns(start, stop)
        if self._feed is not None and self._held.of(Chunk(start, stop)) is not None:
            return self._feed.columns(start, stop)
        return {}
