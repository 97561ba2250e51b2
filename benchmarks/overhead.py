"""What the engine itself costs: empty chunks through coordinator and Ray workers, nothing simulated.

Each chunk is one circuit; its Ray task does nothing but send back a row without counts. Everything else is
as in a real task: schedule, submission, callback, part, job record, status.

Usage: python -m benchmarks.overhead [--chunks 100000]
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from itertools import pairwise
from typing import Any

import psutil
import pyarrow as pa
import ray
from rich.console import Console
from rich.table import Table

from ray_qjm.cluster.blanks import Blanks
from ray_qjm.cluster.collector import MemoryCollector
from ray_qjm.cluster.coordinator import Coordinator
from ray_qjm.cluster.held import HeldPayloads
from ray_qjm.cluster.launcher import Launchers
from ray_qjm.cluster.messages import Outcome, Payload, TaskSetup
from ray_qjm.options import BackendSpec, RunOptions, TranspileOptions
from ray_qjm.planning.chunks import ChunkSizer
from ray_qjm.planning.events import Chunk
from ray_qjm.planning.schedule import BackendState, Schedule
from ray_qjm.planning.status import TaskStatus
from ray_qjm.results.counts import Row, pack

TENTHS = 10


@ray.remote(max_retries=0)
def empty(start: int, stop: int) -> Outcome:
    """One row, no work."""
    batch = pack(
        [Row(start, backend="nothing", clbits=1, registers="[]", counts={"0x0": 1}, shots_requested=1)]
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return Outcome(data=sink.getvalue().to_pybytes(), done=stop - start)


def cpus() -> int:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(resources["CPU"])


class EmptyLauncher:
    """As ``RayLauncher``, with Ray tasks that do nothing."""

    def slots(self) -> list[int]:
        return [cpus()]

    def start(self, chunk: Chunk, payload: Any, done: Callable[[Outcome | BaseException], None]) -> None:
        def call_back(future: Future[Outcome]) -> None:
            error = future.exception()
            done(future.result() if error is None else error)

        # One name for all, as RayLauncher has few: Ray keeps 50 kB for each.
        named = empty.options(name="simulate nothing", num_cpus=1)
        named.remote(chunk.start, chunk.stop).future().add_done_callback(call_back)

    def put(self, payload: Payload) -> Any:
        raise AssertionError("no payloads here")

    def cancel(self) -> None:
        raise AssertionError("nothing is cancelled here")


def measure(chunks: int) -> tuple[list[float], list[float]]:
    """Milliseconds a chunk, and the driver's memory in MB at the end, for each tenth of the chunks."""
    marks: list[tuple[float, float]] = []
    process = psutil.Process()

    def observe(status: TaskStatus) -> None:
        if status.done * TENTHS >= chunks * (len(marks) + 1):
            marks.append((time.perf_counter(), process.memory_info().rss / 2**20))

    setup = TaskSetup(None, [("nothing", BackendSpec("aer"), dict)], TranspileOptions(), 1, 1, False, {})
    held = HeldPayloads()
    coordinator = Coordinator(
        task_id="overhead",
        name=None,
        schedule=Schedule(chunks, [BackendState(ChunkSizer(1.5, most=1))]),
        launcher=Launchers(EmptyLauncher(), {}),
        setup=setup,
        feed=None,
        options=RunOptions(),
        collector=MemoryCollector(Blanks(setup, None, held), limit=64, on_gate=lambda open_: None),
        held=held,
        observe=observe,
    )
    begin = time.perf_counter()
    coordinator.start()
    coordinator.ended.wait()
    if coordinator.error is not None:
        raise coordinator.error
    times = [begin, *(at for at, _ in marks)]
    steps = [1000 * (b - a) / (chunks / TENTHS) for a, b in pairwise(times)]
    return steps, [memory for _, memory in marks]


@ray.remote(max_retries=0)
def nothing() -> None:
    """What Ray itself takes for a task."""


def floor(tasks: int, in_flight: int) -> float:
    """Milliseconds a Ray task that does nothing, with as many in flight as a task of ours has."""
    waiting: list[Any] = []
    begin = time.perf_counter()
    for _ in range(tasks):
        if len(waiting) == in_flight:
            _, waiting = ray.wait(waiting, num_returns=1)
        waiting.append(nothing.remote())
    ray.get(waiting)
    return 1000 * (time.perf_counter() - begin) / tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--chunks", type=int, default=100_000)
    arguments = parser.parse_args()
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    measure(1000)  # workers start, functions travel
    in_flight = 2 * cpus()
    before = floor(5000, in_flight)
    steps, memory = measure(arguments.chunks)
    after = floor(5000, in_flight)
    ray.shutdown()
    table = Table(title=f"{arguments.chunks} empty chunks, milliseconds a chunk by tenth")
    for tenth in range(TENTHS):
        table.add_column(str(tenth + 1), justify="right")
    table.add_row(*(f"{step:.2f}" for step in steps))
    table.add_row(*(f"{value:.0f} MB" for value in memory))
    Console().print(table)
    print(f"a Ray task that does nothing: {before:.2f} ms before, {after:.2f} ms after")
    print(
        f"mean {sum(steps) / len(steps):.3f} ms a chunk, last tenth / first tenth {steps[-1] / steps[0]:.2f}"
    )


if __name__ == "__main__":
    main()
