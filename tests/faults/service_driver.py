"""A driver of a task at a service, which tests kill; all that it has to know comes through its standard input."""

from __future__ import annotations

import sys
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
from qiskit import QuantumCircuit

import ray_qjm
from ray_qjm import RunOptions, TaskStatus
from ray_qjm.cluster import desk_link, service_line
from ray_qjm.cluster.backend_actor import Patience
from tests.services.hosted import expected, marked
from tests.services.scene import options

SHOTS = 10


@dataclass(frozen=True)
class Errand:
    """What a driver does.

    Attributes:
        backends: As for ``run``.
        count: Circuits.
        store: As for ``run``.
        options: As for ``run``.
        patience: Of the desk, if this driver starts it.
        slow_s: Seconds that a circuit takes to be built.
        plan: Plan it only, and say what is planned.
    """

    backends: Any
    count: int
    store: str | None = None
    options: RunOptions = field(default_factory=options)
    patience: Patience = field(default_factory=Patience)
    slow_s: float = 0.0
    plan: bool = False


@dataclass(frozen=True)
class Slow:
    """Marked circuits that take their time."""

    seconds: float

    def __call__(self, index: int) -> QuantumCircuit:
        """Build one."""
        time.sleep(self.seconds)
        return marked(index)


def tell(status: TaskStatus) -> None:
    print("done", status.done, flush=True)


def main() -> None:
    errand: Errand = cloudpickle.load(sys.stdin.buffer)
    desk_link.PATIENCE = errand.patience
    service_line.RESULTS_GRACE_S = 2.0
    warnings.simplefilter("ignore")
    call: dict[str, Any] = {
        "count": errand.count,
        "shots": SHOTS,
        "seed": 1,
        "store": errand.store,
        "version": None if errand.store is None else "1",
        "progress": tell,
        "options": errand.options,
    }
    if errand.plan:
        print(ray_qjm.plan(Slow(errand.slow_s), errand.backends, **call), flush=True)
        return
    result = ray_qjm.run(Slow(errand.slow_s), errand.backends, **call)
    right = sum(row.status == "done" and row.counts() == expected(row.circuit, SHOTS) for row in result)
    print("right", right, "of", len(result), flush=True)
    for row in result:
        if row.status != "done":
            print("without", row.circuit, row.status, row.error_type, row.error, flush=True)
    jobs = result.jobs.to_pylist()
    print("jobs", len(jobs), len({job["job_id"] for job in jobs}), flush=True)


if __name__ == "__main__":
    main()
