"""How a worker's rows get into the store of a task."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from ray_qjm.circuits.identity import digest
from ray_qjm.cluster.messages import Outcome, StoreSetup, job_id, waiting
from ray_qjm.errors import StoreDamagedError, StoreUnavailableError
from ray_qjm.planning.events import Chunk, Failure
from ray_qjm.results.counts import jobs_named
from ray_qjm.results.jobs import Job
from ray_qjm.results.joining import first_circuit
from ray_qjm.results.lease import epoch_name
from ray_qjm.results.part_files import Head, TornPartError, encode, verify
from ray_qjm.results.report import FailureRange, clipped
from ray_qjm.results.winners import PartName


class PartWriter:
    """Writes parts under the epoch of the driver that asked for them.

    Args:
        setup: The store.

    Raises:
        StoreUnavailableError: It can't be reached from here, or another store is here.
    """

    def __init__(self, setup: StoreSetup) -> None:
        self._objects = setup.objects
        self._task_id = setup.task_id
        self._epoch = setup.epoch
        # A directory of this node's own would take the rows, and nobody would ever find them.
        if digest(self._objects.read(epoch_name(setup.epoch)) or b"") != setup.record:
            raise StoreUnavailableError(
                f"store {self._objects.place} isn't the driver's on a worker: {epoch_name(setup.epoch)} isn't there, "
                "or is another one. Give a store that every node sees under this name, such as s3://bucket/prefix."
            )

    def write(
        self,
        chunk: Chunk,
        backend: str,
        batches: Sequence[pa.RecordBatch],
        marks: Mapping[int, int],
        outcome: Outcome,
    ) -> Outcome:
        """Write the rows of a chunk, a part for each run of consecutive circuits.

        Args:
            chunk: Which.
            backend: What ran it.
            batches: The rows, all columns but ``jobs``.
            marks: Fingerprints of its circuits, where they are known.
            outcome: What became of it.

        Returns:
            The outcome, as it is told by what stands in the store now.
        """
        job = Job(
            job_id=job_id(self._task_id, chunk, self._epoch),
            backend=backend,
            start=chunk.start,
            stop=chunk.stop,
            attempt=chunk.attempt,
            state="done",
            reason=waiting(outcome.deferred),
            submitted=None,  # the driver knows
            started=outcome.started,
            ended=time.time(),
            circuits=len(chunk),
            shots=outcome.shots,
            seconds=outcome.seconds,
        )
        return self._write_all([(batch, [job], None) for batch in batches], marks, outcome)

    def write_named(
        self,
        batches: Sequence[pa.RecordBatch],
        jobs: Sequence[Job],
        marks: Mapping[int, int],
        outcome: Outcome,
    ) -> Outcome:
        """As ``write``, of rows that say which jobs they have.

        Args:
            batches: The rows, all columns but ``jobs``, and ``job`` as ``results.counts.job_names`` makes it.
            jobs: All that are named.
            marks: As for ``write``.
            outcome: As for ``write``.
        """
        rows = []
        for batch in batches:
            names = batch.column("job")
            here = jobs_named(names)
            rows.append((batch.drop_columns(["job"]), [job for job in jobs if job.job_id in here], names))
        return self._write_all(rows, marks, outcome)

    def _write_all(
        self,
        rows: Sequence[tuple[pa.RecordBatch, Sequence[Job], pa.Array[Any] | None]],
        marks: Mapping[int, int],
        outcome: Outcome,
    ) -> Outcome:
        stored: list[tuple[int, int]] = []
        failures: list[Failure] = []
        size = 0
        for batch, jobs, names in rows:
            start = first_circuit(batch)
            told = within([*outcome.failures, *outcome.partial], start, start + batch.num_rows)
            head, written = self._write(batch, jobs, names, marks, told)
            size += written
            stored.append((head.start, head.stop))
            failures += told_failures(head)
        failed = sum(failure.stop - failure.start for failure in failures)
        circuits = sum(stop - start for start, stop in stored)
        return replace(
            outcome, stored=tuple(stored), failures=tuple(failures), done=circuits - failed, size=size
        )

    def _write(
        self,
        batch: pa.RecordBatch,
        jobs: Sequence[Job],
        names: pa.Array[Any] | None,
        marks: Mapping[int, int],
        failures: Sequence[FailureRange],
    ) -> tuple[Head, int]:
        """Write a part; what is in it now, and its bytes."""
        start = first_circuit(batch)
        stop = start + batch.num_rows
        name = PartName(self._epoch, start, stop).path
        fingerprints = np.array([marks.get(index, 0) for index in range(start, stop)], np.uint64)
        data = encode(batch, fingerprints=fingerprints, jobs=jobs, job_ids=names, failures=failures)
        for _ in range(2):
            if self._objects.create(name, data):
                return Head(start, stop, tuple(jobs), tuple(failures)), len(data)
            # An earlier try wrote it and died before it could tell: it is as good, and counts from now on.
            try:
                found = self._objects.read(name)
                if found is not None:
                    return verify(found)[0], len(found)
            except TornPartError:
                self._objects.remove([name])
        raise StoreDamagedError(f"{name} in store {self._objects.place} is torn again and again.")


def within(failures: Sequence[Failure], start: int, stop: int) -> list[FailureRange]:
    """Failures of the circuits ``[start, stop)``, as they are kept."""
    kept = [FailureRange(f.start, f.stop, f.status, f.error_type, f.error, f.stage or None) for f in failures]
    return clipped(kept, start, stop)


def told_failures(head: Head) -> list[Failure]:
    """A part's failures, as the schedule is told of them."""
    return [
        Failure(f.start, f.stop, f.error_type or "", f.error or "", f.stage or "", f.status)
        for f in head.failures
        if f.status == "failed"
    ]
