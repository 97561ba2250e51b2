"""What a store costs while a task runs, and how fast a large one opens.

First the same random circuits with and without a store on this disk, interleaved: ratios of circuits/s, set-up
excluded (from the first circuit done to the end). Then a store of a million rows, written without simulating:
seconds to take it over, to open it, for single circuits near both ends and at random, for the whole table, and
to compact it.

Usage: python -m benchmarks.stored [--rounds 5] [--count 8000] [--rows 1000000]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

import ray_qjm
from ray_qjm import TaskResult, TaskStatus
from ray_qjm.results.counts import Row, pack
from ray_qjm.results.jobs import Job
from ray_qjm.results.objects import Objects
from ray_qjm.results.part_files import encode
from ray_qjm.results.records import EndRecord, TaskRecord
from ray_qjm.results.store import take
from ray_qjm.results.winners import PartName, Taken

from .million import circuit

#: Rows of a part, as a chunk of 1.5 s has them.
PART = 400


def rate(count: int, store: Path | None) -> float:
    """Circuits a second, from the first that is done."""
    first: list[tuple[float, int]] = []

    def tell(status: TaskStatus) -> None:
        if status.done and not first:
            first.append((time.perf_counter(), status.done))

    ray_qjm.run(circuit, count=count, shots=1024, seed=7, store=store, progress=tell)
    begun, done = first[0]
    return (count - done) / (time.perf_counter() - begun)


def compare(rounds: int, count: int, folder: Path) -> None:
    rate(200, None)  # Ray and its workers start
    ratios = []
    for number in range(rounds):
        both: dict[bool, float] = {}
        for stored in (number % 2 == 0, number % 2 == 1):
            both[stored] = rate(count, folder / f"s{number}" if stored else None)
        ratios.append(both[True] / both[False])
        print(
            f"round {number + 1}: {both[True]:.0f} with, {both[False]:.0f} without: {ratios[-1]:.3f}",
            flush=True,
        )
    if ratios:
        print(
            f"with a store / without: {statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})"
        )


def fill(objects: Objects, rows: int) -> None:
    """A finished task of so many rows."""
    task = TaskRecord("t1", 7, {"count": rows, "shots": 1024, "memory": False}, {}, {}, time.time())
    opened = take(objects, task, ["aer"], rows)
    rng = np.random.default_rng(7)
    made = []
    for i in range(PART):
        outcomes, counts = rng.permutation(32)[:6], rng.integers(1, 300, 6)
        made.append(
            Row(
                i,
                backend="aer",
                clbits=5,
                registers='[["c",[0,1,2,3,4]]]',
                shots_requested=1024,
                seed=int(rng.integers(2**50)),
                counts={hex(int(key)): int(n) for key, n in zip(outcomes, counts, strict=True)},
            )
        )
    batch = pack(made)
    taken = []
    for start in range(0, rows, PART):
        stop = min(start + PART, rows)
        part = batch.slice(0, stop - start).set_column(
            0, batch.schema.field(0), pa.array(np.arange(start, stop))
        )
        job = Job(
            f"t1-{start}-{stop}", "aer", start, stop, 0, "done", None, 1.0, 1.0, 2.0, stop - start, 1024, 1.5
        )
        name = PartName(1, start, stop)
        marks = rng.integers(1, 2**63, stop - start).astype(np.uint64)
        objects.create(name.path, encode(part, fingerprints=marks, jobs=[job]))
        opened.jobs.add(job)
        taken.append(Taken(start, stop, name))
    opened.finish(EndRecord(1, "done", None, 2.0, taken, rows))


def timed(what: str, act: Callable[[], Any]) -> Any:
    begun = time.perf_counter()
    answer = act()
    memory = psutil.Process().memory_info().rss / 2**20
    print(f"{what}: {1000 * (time.perf_counter() - begun):.1f} ms, process {memory:.0f} MB", flush=True)
    return answer


def large(rows: int, folder: Path) -> None:
    objects = Objects(folder / "large")
    fill(objects, rows)
    size = sum(path.stat().st_size for path in (folder / "large").rglob("*") if path.is_file())
    print(f"{rows} rows in {-(-rows // PART)} parts, {size / 2**20:.0f} MB")
    read(folder / "large", rows)
    opened = timed("take over (every part verified)", lambda: take(objects, None, (), None))
    timed("give back", opened.give_back)
    timed("compact", TaskResult.open(folder / "large").compact)
    read(folder / "large", rows)


def read(store: Path, rows: int) -> None:
    result = timed("open", lambda: TaskResult.open(store))
    timed("get_counts of one near the beginning", lambda: result.get_counts(10))
    timed("get_counts of one near the end", lambda: result.get_counts(rows - 10))
    draw = np.random.default_rng(1).integers(0, rows, 100).tolist()
    timed("get_counts of 100 at random", lambda: [result.get_counts(row) for row in draw])
    timed("table", lambda: result.table.num_rows)
    print(f"{len(result.files())} files")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=8000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        large(arguments.rows, Path(folder))
        compare(arguments.rounds, arguments.count, Path(folder))


if __name__ == "__main__":
    main()
