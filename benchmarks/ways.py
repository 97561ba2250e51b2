"""The ways to do the work of ``workload.py`` that ``peers.py`` compares.

Each is used in a Python process of its own: ``start()`` (set-up and a small warm-up, not in the hot time),
``run(count)``, ``stop()``. Their libraries are imported in ``start()``, so that no way pays for another's.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.pool import Pool
from multiprocessing.synchronize import Barrier
from typing import Any, ClassVar, NamedTuple

from benchmarks import workload
from benchmarks.workload import Counts, Range

# One process a core is the sharing of the work: no library may start threads or pools of its own besides.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "QISKIT_PARALLEL": "FALSE",
}


class Outcome(NamedTuple):
    circuits: int
    shots: int  # all counts added up
    seconds: float  # checking the counts is not in it


class Way(ABC):
    name: ClassVar[str]
    env: ClassVar[Mapping[str, str]] = ONE_THREAD

    def __init__(self, shots: int, processes: int) -> None:
        self.shots = shots
        self.processes = processes

    @abstractmethod
    def start(self) -> None:
        """Set up, and let every process run its first circuits."""

    @abstractmethod
    def run(self, count: int) -> Outcome:
        """All counts of ``count`` circuits, in order, in this process."""

    @abstractmethod
    def stop(self) -> None:
        """End all processes."""

    def timed(self, work: Callable[[], list[Counts]]) -> Outcome:
        begin = time.perf_counter()
        results = work()
        seconds = time.perf_counter() - begin
        return Outcome(*workload.check(results, self.shots), seconds)

    def pieces(self, count: int) -> list[Range]:
        return workload.pieces(count, workload.piece_size(count, self.processes))


def _join_pool(shots: int, everyone: Barrier) -> None:
    workload.warm_up(shots)
    everyone.wait()


class SpawnPool(Way):
    """The ideal: no engine at all, only the fused function and a pipe for the counts."""

    name = "pool"
    pool: Pool

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        everyone = context.Barrier(self.processes + 1)
        self.pool = context.Pool(self.processes, _join_pool, (self.shots, everyone))
        everyone.wait(timeout=300)

    def run(self, count: int) -> Outcome:
        return self.timed(lambda: self._all(count))

    def _all(self, count: int) -> list[Counts]:
        results: list[Counts] = []
        for part in self.pool.imap(partial(workload.simulate, shots=self.shots), self.pieces(count)):
            results += part
        return results

    def stop(self) -> None:
        self.pool.close()
        self.pool.join()


class Dask(Way):
    name = "dask"

    def start(self) -> None:
        from distributed import Client, LocalCluster

        self.cluster = LocalCluster(
            n_workers=self.processes,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=logging.ERROR,
        )
        self.client = Client(self.cluster)
        self.client.wait_for_workers(self.processes)
        self.client.run(workload.warm_up, self.shots)

    def run(self, count: int) -> Outcome:
        return self.timed(lambda: self._all(count))

    def _all(self, count: int) -> list[Counts]:
        futures = self.client.map(workload.simulate, self.pieces(count), shots=self.shots, pure=False)
        return [counts for part in self.client.gather(futures) for counts in part]

    def stop(self) -> None:
        self.client.close()
        self.cluster.close()


def _start_ray(processes: int) -> Any:
    import ray

    ray.init(
        num_cpus=processes,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        configure_logging=True,
    )
    return ray


def _map_batch(batch: dict[str, Any], shots: int) -> dict[str, Any]:
    """A row an outcome list: a dict would become an Arrow struct with a field for every key there is."""
    ids = batch["id"]
    parts = workload.simulate((int(ids[0]), int(ids[-1]) + 1), shots)
    return {
        "id": ids,
        "outcomes": [list(counts) for counts in parts],
        "counts": [list(counts.values()) for counts in parts],
    }


class RayData(Way):
    name = "ray data"

    def start(self) -> None:
        self.ray = _start_ray(self.processes)
        import ray.data

        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        self._all(80 * self.processes)

    def run(self, count: int) -> Outcome:
        return self.timed(lambda: self._all(count))

    def _all(self, count: int) -> list[Counts]:
        size = workload.piece_size(count, self.processes)
        blocks = len(workload.pieces(count, size))
        data = self.ray.data.range(count, override_num_blocks=blocks).map_batches(
            _map_batch, batch_size=None, fn_kwargs={"shots": self.shots}, zero_copy_batch=True
        )
        results: dict[int, Counts] = {}
        for batch in data.iter_batches(batch_size=None, batch_format="pyarrow"):
            columns = (batch[name].to_pylist() for name in ("id", "outcomes", "counts"))
            for index, outcomes, counts in zip(*columns, strict=True):
                results[index] = dict(zip(outcomes, counts, strict=True))
        return [results[index] for index in range(count)]

    def stop(self) -> None:
        self.ray.shutdown()


class PlainLoop(Way):
    """What one writes first. Qiskit and Aer may use all cores in their own ways."""

    name = "plain loop"
    env: ClassVar[Mapping[str, str]] = {}

    def start(self) -> None:
        from qiskit_aer import AerSimulator

        self.simulator = AerSimulator()
        self._all(20)

    def run(self, count: int) -> Outcome:
        return self.timed(lambda: self._all(count))

    def _all(self, count: int) -> list[Counts]:
        from qiskit import transpile

        circuits = [workload.circuit(index) for index in range(count)]
        compiled = transpile(
            circuits, self.simulator, optimization_level=workload.LEVEL, seed_transpiler=workload.SEED
        )
        job = self.simulator.run(compiled, shots=self.shots, seed_simulator=workload.SEED)
        counts = job.result().get_counts()
        return counts if isinstance(counts, list) else [counts]

    def stop(self) -> None:
        pass


class RayQjm(Way):
    """Ours, with all that it does besides: the live bar, the states, the Arrow table."""

    name = "ray_qjm"
    env: ClassVar[Mapping[str, str]] = {}  # what it needs it has to see to itself

    def start(self) -> None:
        self.ray = _start_ray(self.processes)
        self._run(200 * self.processes)

    def _run(self, count: int) -> Any:
        import ray_qjm
        from ray_qjm import RunOptions, TranspileOptions

        result = ray_qjm.run(
            workload.circuit,
            backends=["aer"],
            count=count,
            shots=self.shots,
            seed=workload.SEED,
            options=RunOptions(transpile=TranspileOptions(level=workload.LEVEL)),
        )
        if len(result) != count or result.table.num_rows != count:
            raise AssertionError(f"{len(result)} rows for {count} circuits")
        return result

    def run(self, count: int) -> Outcome:
        begin = time.perf_counter()
        result = self._run(count)
        seconds = time.perf_counter() - begin
        parts = (result.get_counts(index) for index in range(count))
        return Outcome(*workload.check(parts, self.shots), seconds)

    def stop(self) -> None:
        self.ray.shutdown()


WAYS: dict[str, type[Way]] = {way.name: way for way in (SpawnPool, RayQjm, Dask, RayData, PlainLoop)}


def processes() -> int:
    return os.cpu_count() or 1
