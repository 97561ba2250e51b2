"""Stores of a few rows, made without Ray."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc

from ray_qjm.results.counts import Row, pack
from ray_qjm.results.jobs import Job
from ray_qjm.results.objects import Objects
from ray_qjm.results.part_files import encode
from ray_qjm.results.records import EndRecord, TaskRecord
from ray_qjm.results.report import FailureRange
from ray_qjm.results.store import Opened, heads_of, take
from ray_qjm.results.watch import StoredTask
from ray_qjm.results.winners import PartName, winners

COUNT = 40
TASK = TaskRecord(
    task_id="t1",
    seed=7,
    identity={"count": COUNT, "shots": 5, "memory": False, "source": {"kind": "circuits"}},
    column_types={},
    info={"name": "a few"},
    created=1.0,
)


def taken_by(objects: Objects) -> Opened:
    """The store, taken by this process."""
    return take(objects, TASK, ["aer"], COUNT)


def part(start: int, stop: int, mark: int, failed: tuple[int, ...] = ()) -> bytes:
    """Rows whose shots tell who wrote them."""
    rows = [
        Row(i, "failed", stage="run", error_type="WorkerDiedError", error="killed")
        if i in failed
        else Row(i, backend="aer", clbits=1, registers="[]", shots=mark, counts={"0x0": mark})
        for i in range(start, stop)
    ]
    name = f"t1-{start}-{stop}-{mark}"
    job = Job(name, "aer", start, stop, 0, "done", None, None, 1.0, 2.0 + mark, stop - start, mark, 0.5)
    return encode(
        pack(rows),
        fingerprints=np.arange(start + 1, stop + 1, dtype=np.uint64),
        jobs=[job],
        failures=[FailureRange(i, i + 1, "failed", "WorkerDiedError", "killed", "run") for i in failed],
    )


def write(
    objects: Objects, epoch: int, start: int, stop: int, mark: int, failed: tuple[int, ...] = ()
) -> PartName:
    """What a worker does under an epoch."""
    name = PartName(epoch, start, stop)
    objects.create(name.path, part(start, stop, mark, failed))
    return name


def end(opened: Opened, parts: list[PartName], state: str = "done") -> None:
    """End an epoch as a driver does."""
    for head in heads_of(opened.objects, parts).values():
        opened.jobs.add(head.jobs[0])
    taken = winners(parts, opened.record.accepted)
    opened.finish(EndRecord(opened.record.epoch, state, None, 2.0, taken, COUNT))


def marks_of(objects: Objects) -> dict[int, int | None]:
    """Who wrote each circuit's row that counts; ``None``: it failed."""
    rows = StoredTask(objects.root).rows()
    table = rows.table(["circuit", "status", "shots"])
    found = table.filter(pc.field("status") != "cancelled").to_pylist()
    assert len(table) == COUNT and table.column("circuit").to_pylist() == list(range(COUNT))
    return {row["circuit"]: row["shots"] for row in found}
