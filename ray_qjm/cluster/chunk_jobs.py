"""Chunks as jobs: each that a worker runs is one, and none that it only prepares for a service."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ray_qjm.cluster.collector import Collector
from ray_qjm.cluster.messages import Outcome
from ray_qjm.planning.events import Chunk
from ray_qjm.results.jobs import Job


class ChunkJobs:
    """Tells which run, and notes in the table of jobs how they end.

    One thread, the coordinator's, calls what changes something; any thread may read.

    Args:
        task_id: The task's id; leads its job ids.
        names: Of its backends.
        collector: Names jobs, and has their table.
        is_service: Whether a backend's jobs are those of a line, which are noted as they end.
    """

    def __init__(
        self, task_id: str, names: Sequence[str], collector: Collector, is_service: Callable[[int], bool]
    ) -> None:
        self._task_id = task_id
        self._names = names
        self._collector = collector
        self._is_service = is_service
        self._submitted: dict[Chunk, float] = {}

    def begin(self, chunk: Chunk) -> None:
        """A chunk is submitted."""
        self._submitted[chunk] = time.time()

    def end(self, chunk: Chunk, state: str, reason: str | None, outcome: Outcome | None) -> int | None:
        """A chunk is over; return its row of the table of jobs, if it was a job."""
        submitted = self._submitted.pop(chunk)
        if self._is_service(chunk.backend) or (outcome is not None and outcome.noted):
            return None
        return self._collector.jobs.add(self._row(chunk, submitted, state, reason, outcome, time.time()))

    def running(self) -> list[Job]:
        """Those that haven't ended."""
        # Copied at once: another thread may ask.
        chunks = [item for item in [*self._submitted.items()] if not self._is_service(item[0].backend)]
        return [self._row(chunk, submitted, "running") for chunk, submitted in chunks]

    def _row(
        self,
        chunk: Chunk,
        submitted: float,
        state: str,
        reason: str | None = None,
        outcome: Outcome | None = None,
        ended: float | None = None,
    ) -> Job:
        return Job(
            job_id=self._collector.job_id(self._task_id, chunk),
            backend=self._names[chunk.backend],
            start=chunk.start,
            stop=chunk.stop,
            attempt=chunk.attempt,
            state=state,
            reason=reason,
            submitted=submitted,
            started=None if outcome is None else outcome.started,
            ended=ended,
            circuits=len(chunk),
            shots=None if outcome is None else outcome.shots,
            seconds=None if outcome is None else outcome.seconds,
        )
