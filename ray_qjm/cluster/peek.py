"""What a call would find in its store, looked up without taking it: nothing there is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ray_qjm.circuits.source import DriverSource, WorkerSource
from ray_qjm.cluster.kept_rows import compare_some, sort_rows, spot_check
from ray_qjm.cluster.messages import TaskSetup
from ray_qjm.cluster.resume import Durable, wanted_task
from ray_qjm.planning.ranges import Ranges
from ray_qjm.results.jobs import JobLog
from ray_qjm.results.objects import Objects, will_be_made
from ray_qjm.results.store import peek


@dataclass(frozen=True)
class Peeked:
    """A task that stands in a store.

    Attributes:
        objects: The store.
        seed: Of the task.
        total: Circuits of the task; ``None`` if it isn't known yet.
        kept: Circuits that have their rows and won't be run again.
        failed: How many of these have no counts, or not all.
        jobs: What is found out about jobs on the way goes here, and nowhere else.
    """

    objects: Objects
    seed: int
    total: int | None
    kept: Ranges
    failed: int
    jobs: JobLog = field(default_factory=JobLog)


def peek_store(
    durable: Durable,
    source: WorkerSource | DriverSource,
    setup: TaskSetup,
    *,
    seed: int | None,
    info: Mapping[str, str],
) -> Peeked | None:
    """What ``open_store`` would find; ``None`` if the call has no store, or nothing is there yet.

    Args:
        durable: What the call says of its store.
        source: The circuits; nothing is read of an iterable.
        setup: Of the task, as if it began now.
        seed: As the call gives it.
        info: Facts that stand in the result's metadata.

    Raises:
        InvalidInputError: There can't be such a store; or a version is needed.
        StoreError: The store holds another task, belongs to another process, is damaged or doesn't answer.
    """
    if durable.root is None:
        return None
    wanted = wanted_task(durable, source, setup, seed=seed, info=info)
    if will_be_made(durable.root):
        return None
    objects = Objects(durable.root, make=False)
    found = peek(objects, wanted)
    if found is None:
        return None
    seen, accepted, heads, marks = found
    task = seen.task or wanted
    rows = sort_rows(accepted, heads, marks, retry_failed=durable.retry_failed)
    if isinstance(source, WorkerSource):
        spot_check(rows.marks, source, task.seed)
    else:
        compare_some(rows.marks, source)
    failed = sum(failure.stop - failure.start for failure in rows.failures)
    return Peeked(objects, task.seed, seen.total, rows.kept, failed)
