"""Rows of a task that runs: taken in as they come, and given at the end to each circuit that has none."""

from __future__ import annotations

from ray_qjm.cluster.collector import Collector
from ray_qjm.cluster.messages import Outcome
from ray_qjm.cluster.part_writer import within
from ray_qjm.cluster.resume import Resumed
from ray_qjm.errors import JobNotCancelledError
from ray_qjm.planning.events import Chunk, Failure, Returned
from ray_qjm.planning.ranges import Ranges
from ray_qjm.results.report import FailureLog, FailureRange, clipped


class TaskRows:
    """Brings rows to the collector, and knows what is wrong with those that have no counts.

    One thread, the coordinator's, calls what changes something; any thread may read.

    Args:
        collector: Where rows go.
        resumed: What an earlier session of the task has left.

    Attributes:
        cancelled: How many circuits were given rows because they were not run.
    """

    def __init__(self, collector: Collector, resumed: Resumed | None) -> None:
        self.cancelled = 0
        self._collector = collector
        self._retried = () if resumed is None else resumed.retried
        self._failures = FailureLog(() if resumed is None else resumed.failures)
        #: Circuits whose jobs may go on though the task was cancelled.
        self._not_cancelled: list[Returned] = []

    def take(self, chunk: Chunk, outcome: Outcome, job: int | None) -> int:
        """Take the rows of a chunk; return how many they are.

        Args:
            chunk: Which.
            outcome: Its.
            job: See ``Collector.take``.
        """
        rows = self._collector.take(outcome, job)
        self._not_cancelled += [
            item for item in outcome.returned if item.error_type == JobNotCancelledError.__name__
        ]
        self._failures.add(*within(outcome.failures, chunk.start, chunk.stop))
        return rows

    def fail(self, failure: Failure, backend: str | None = None) -> None:
        """Give circuits rows that say why they have no counts."""
        self._collector.fail(failure, backend)
        self._failures.add(*within([failure], failure.start, failure.stop))

    def fill_up(self, total: int, why: str) -> tuple[int, int]:
        """Give a row to every circuit that has none, so that the result is whole.

        Args:
            total: Circuits of the task.
            why: Why they were not run.

        Returns:
            How many of them have counts, and how many failed, in an earlier session: they were to be run again.
        """
        done = failed = 0
        for start, stop in self._collector.missing(total):
            retried = clipped(self._retried, start, stop)
            self._failures.add(*retried)
            there = sum(item.stop - item.start for item in retried)
            lost = sum(item.stop - item.start for item in retried if item.status == "failed")
            done += there - lost
            failed += lost
            self.cancelled += stop - start - there
            told = [item for item in self._not_cancelled if item.start < stop and start < item.stop]
            for item in told:
                self._collector.cancel(max(item.start, start), min(item.stop, stop), item.error)
            for first, last in Ranges((item.start, item.stop) for item in told).rest(start, stop):
                self._collector.cancel(first, last, why)
        return done, failed

    def failures(self) -> tuple[list[FailureRange], int]:
        """Ranges of failed circuits so far, and how many circuits failed beyond those that are listed."""
        return self._failures.ranges()
