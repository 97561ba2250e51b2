"""A driver that tests kill: runs circuits with a store, and says how many are done."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit.random import random_circuit

import ray_qjm
from ray_qjm import RunOptions, TaskStatus

COUNT = 240


def slow_one(index: int, rng: np.random.Generator) -> QuantumCircuit:
    """A circuit that takes its time, so that there is something to kill."""
    time.sleep(0.01)
    return random_circuit(4, 3, measure=True, seed=int(rng.integers(2**32)))


def call(**more: Any) -> dict[str, Any]:
    """The arguments of the task that all tests here run."""
    return {
        "circuits": slow_one,
        "count": COUNT,
        "shots": 50,
        "seed": 7,
        "options": RunOptions(max_chunk=5, cancel_grace_s=2.0),
        **more,
    }


def tell(status: TaskStatus) -> None:
    print("done", status.done, flush=True)


def main() -> None:
    try:
        result = ray_qjm.run(**call(store=sys.argv[1]), progress=tell)
    except ray_qjm.errors.TaskInterrupted as interrupted:
        print("interrupted", interrupted, flush=True)
        return
    print("finished", len(result), flush=True)


if __name__ == "__main__":
    main()
