"""How many workers one coordinator keeps busy: workers sleep, all else is as in a task with a store.

Three parts, chosen with ``--only``:

``engine``   ``submit`` with workers of no process (``sleepers.Sleepers``): what the coordinator itself can do, and
             where it saturates. Chunks are as short as is needed to ask so many of it.
``ray``      ``submit`` on a real Ray whose worker processes sleep: what is left of that when Ray's submissions and
             replies go through the same process, and its daemons and workers share its cores. 250 processes of Ray's
             that do nothing take two cores, so there are 64, with chunks of 250 ms down to 16 ms: to the driver they
             are as 16 times as many with chunks of 250 ms.
``pending``  memory of a chunk that waits, inside the coordinator and inside Ray, by how many wait.

For each number of workers: chunks/s that they could do (workers / seconds of a chunk), chunks/s that came back from a
tenth to nine tenths of the task, the share of the workers' time that was used, the driver's CPU a chunk, its memory at
a tenth and at the end, and what a finished chunk leaves there.

Usage: python -m benchmarks.scale [--only engine ray pending] [--seconds 20] [--engine 1:0.25 4:0.25 ...]
                                   [--ray 1:0.25 ...] [--in-flight 1000 4000 16000]
"""

from __future__ import annotations

import argparse
import gc
import logging
import math
import os
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from qiskit import QuantumCircuit
from rich.console import Console
from rich.table import Table

import ray_qjm
from ray_qjm import RunOptions
from ray_qjm.cluster import start as starting
from ray_qjm.cluster import workers as real_workers
from ray_qjm.cluster.launcher import Done
from ray_qjm.cluster.workers import RayLauncher
from ray_qjm.planning import chunks
from ray_qjm.planning.events import Chunk

from .sleepers import CIRCUIT_S, Sleepers, sleep

MB = 2**20
PARTS = ["engine", "ray", "pending"]
ENGINE = ["1:0.25", "4:0.25", "16:0.25", "64:0.25", "256:0.25", "256:0.0625", "256:0.03"]
RAY = ["1:0.25", "4:0.25", "16:0.25", "64:0.25", "64:0.125", "64:0.0625", "16:0.0156"]


def circuit(index: int) -> QuantumCircuit:
    """Never called: the workers sleep."""
    raise AssertionError(f"circuit {index} was built")


@dataclass(frozen=True)
class Mark:
    """Where a task and its driver stand."""

    at: float
    circuits: int
    chunks: int
    cpu_s: float
    rss: int


def mark(status: ray_qjm.TaskStatus) -> Mark:
    process = psutil.Process()
    cpu = process.cpu_times()
    done = sum(backend.jobs_done for backend in status.backends)
    return Mark(time.perf_counter(), status.done, done, cpu.user + cpu.system, process.memory_info().rss)


def drive(count: int, chunk_s: float, folder: Path | None) -> tuple[Mark, Mark]:
    """Run a task of sleeping workers; where it stood at a tenth and at nine tenths."""
    marks: list[Mark] = []

    def observe(status: ray_qjm.TaskStatus) -> None:
        if len(marks) < 2 and status.done >= count * (0.1, 0.9)[len(marks)]:
            marks.append(mark(status))

    # As many chunks as are asked for, though the engine would make fewer and longer ones of them.
    unlimited = in_place_of(chunks, "A_SECOND", math.inf)
    with unlimited, tempfile.TemporaryDirectory(dir=folder) as store:
        task = ray_qjm.submit(
            circuit,
            count=count,
            store=Path(store) / "task",
            progress=observe,
            options=RunOptions(chunk_s=chunk_s, max_chunk=10**9),
        )
        status = task.wait(3600)
        if status.state != "done" or status.done != count:
            raise SystemExit(f"the task ended as {status}")
    return marks[0], marks[1]


@contextmanager
def in_place_of(module: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def measured(workers: int, chunk_s: float, seconds: float, ceiling: float, folder: Path | None) -> list[str]:
    """A row of the table: a second to get warm, then so many if no more than ``ceiling`` chunks/s come back."""
    for length in (1.0, seconds):
        circuits = min(workers / chunk_s, ceiling) * length * chunk_s / CIRCUIT_S
        begin, end = drive(max(200, round(circuits)), chunk_s, folder)
    seconds, number = end.at - begin.at, end.chunks - begin.chunks
    cpu = end.cpu_s - begin.cpu_s
    return [
        f"{workers}",
        f"{chunk_s:g}",
        f"{workers / chunk_s:.0f}",
        f"{number / seconds:.0f}",
        f"{(end.circuits - begin.circuits) * CIRCUIT_S / (workers * seconds):.3f}",
        f"{1000 * cpu / number:.2f}",
        f"{cpu / seconds:.2f}",
        f"{begin.rss / MB:.0f} -> {end.rss / MB:.0f}",
        f"{(end.rss - begin.rss) / number:.0f}",
    ]


def table(title: str) -> Table:
    found = Table(title=title)
    names = (
        "workers",
        "s a chunk",
        "could do",
        "chunks/s",
        "used",
        "CPU ms a chunk",
        "cores",
        "MB",
        "B a chunk",
    )
    for name in names:
        found.add_column(name, justify="right")
    return found


def engine(sizes: list[tuple[int, float]], seconds: float, folder: Path | None) -> Table:
    """Without processes for workers; Ray is there and has nothing to do."""
    found = table("one coordinator, workers of no process")
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    for workers, chunk_s in sizes:
        sleepers = Sleepers(workers)
        with in_place_of(starting, "RayLauncher", lambda *_, sleepers=sleepers, **__: sleepers):
            found.add_row(*measured(workers, chunk_s, seconds, 10_000, folder))
        print(".", end="", flush=True, file=sys.stderr)
    ray.shutdown()
    return found


def with_ray(sizes: list[tuple[int, float]], seconds: float, folder: Path | None) -> Table:
    """On processes that Ray starts."""
    found = table("one coordinator, Ray and its worker processes on the same machine")
    for workers, chunk_s in sizes:
        ray.init(
            "local",
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            # All processes at once would time out while they start.
            _system_config={"enable_worker_prestart": False, "worker_maximum_startup_concurrency": workers},
        )
        with in_place_of(real_workers, "_simulate", ray.remote(max_retries=0)(sleep)):
            all_started(workers)
            found.add_row(*measured(workers, chunk_s, seconds, 1000, folder))
        ray.shutdown()
        print(".", end="", flush=True, file=sys.stderr)
    return found


@ray.remote(max_retries=0)
def who(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def all_started(workers: int) -> None:
    """Start the worker processes, a few at a time."""
    for number in [*range(8, workers, 8), workers]:
        pause = 0.5
        while len(set(ray.get([who.remote(pause) for _ in range(number)]))) < number:
            pause *= 2


class Held:
    """Takes chunks and says of none that it is done, until they are cancelled."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self.taken: list[tuple[Chunk, Done]] = []

    def slots(self) -> list[int]:
        return [self._slots]

    def start(self, chunk: Chunk, payload: object, done: Done) -> None:
        self.taken.append((chunk, done))

    def put(self, payload: object) -> object:
        return payload

    def cancel(self) -> None:
        for _, done in self.taken:
            done(RuntimeError("cancelled"))


@ray.remote(max_retries=0)
def forever(*arguments: object) -> None:
    """A worker that doesn't come back."""
    time.sleep(3600)


def waiting(number: int, inside: bool) -> float:
    """Bytes of the driver for each of so many chunks in flight.

    Alone: of Python's objects, since resident memory says nothing where it was used and freed before. With Ray, whose
    memory is not Python's: resident, so the largest number says most.
    """

    class Many(RayLauncher):
        def slots(self) -> list[int]:
            super().slots()
            return [number // 2]

    with (
        in_place_of(starting, "RayLauncher", Many if inside else lambda *_, **__: Held(number // 2)),
        in_place_of(real_workers, "_simulate", forever),
    ):
        gc.collect()
        before = in_use(inside)
        full = threading.Event()
        task = ray_qjm.submit(
            circuit,
            count=100 * number,
            progress=lambda status: full.set() if status.jobs["running"] >= number else None,
        )
        if not full.wait(600):
            raise SystemExit(f"{number} chunks were not in flight within 600 s: {task.status()}")
        gc.collect()
        after = in_use(inside)
        task.cancel(force=True)
        task.wait(600)
    return (after - before) / number


def in_use(resident: bool) -> int:
    return int(psutil.Process().memory_info().rss if resident else tracemalloc.get_traced_memory()[0])


def pending(sizes: list[int]) -> Table:
    """Memory of chunks that wait, by how many wait."""
    found = Table(title="memory of chunks in flight, bytes each")
    for name in ("in flight", "coordinator alone", "with Ray"):
        found.add_column(name, justify="right")
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    waiting(1000, inside=True)  # what the first time takes
    with_ray = [waiting(number, inside=True) for number in sizes]
    tracemalloc.start()
    alone = [waiting(number, inside=False) for number in sizes]
    tracemalloc.stop()
    for number, without, having in zip(sizes, alone, with_ray, strict=True):
        found.add_row(f"{number:,}", f"{without:,.0f}", f"{having:,.0f}")
    ray.shutdown()
    return found


def parsed(sizes: list[str]) -> list[tuple[int, float]]:
    pairs = [size.split(":") for size in sizes]
    return [(int(workers), float(chunk_s)) for workers, chunk_s in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seconds", type=float, default=20, help="of each run, if its workers are kept busy")
    parser.add_argument("--engine", nargs="+", default=ENGINE, help="workers:seconds of a chunk")
    parser.add_argument("--ray", nargs="+", default=RAY, help="worker processes:seconds of a chunk")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1000, 4000, 16000])
    parser.add_argument(
        "--folder", type=Path, help="where stores are made; default: where temporary files are"
    )
    arguments = parser.parse_args()
    for part in arguments.only:
        if part == "engine":
            found = engine(parsed(arguments.engine), arguments.seconds, arguments.folder)
        elif part == "ray":
            found = with_ray(parsed(arguments.ray), arguments.seconds, arguments.folder)
        else:
            found = pending(arguments.in_flight)
        Console(width=120).print(found)


if __name__ == "__main__":
    main()
