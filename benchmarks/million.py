"""The full million on this machine, really run once: speed and memory over time, and what the table weighs.

A line a minute: circuits done, circuits/s since the last line, memory of the driver (resident, and the result's
rows in it) and of all processes below it, Ray's object store included. Memory is resident
set size; for Ray's workers and daemons it is the proportional share (PSS) where the kernel tells it, because
all of them map the same object store.

Usage: python -m benchmarks.million [--count 1000000] [--shots 1024] [--every 60] [--json million.json]
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from qiskit import QuantumCircuit
from qiskit.circuit.random import random_circuit

import ray_qjm

MB = 2**20


def circuit(index: int, rng: np.random.Generator) -> QuantumCircuit:
    return random_circuit(5, 5, measure=True, seed=int(rng.integers(2**32)))


def memory_of(process: psutil.Process) -> int:
    """Bytes, 0 if the process has just ended."""
    try:
        info = process.memory_full_info()
        return int(getattr(info, "pss", info.rss))
    except psutil.Error:
        return 0


def sample(task: ray_qjm.Task, last: dict[str, Any] | None) -> dict[str, Any]:
    run: Any = task._run  # no public way is as light
    driver = psutil.Process()
    below = driver.children(recursive=True)
    status = task.status()
    found: dict[str, Any] = {
        "elapsed_s": round(status.elapsed_s, 1),
        "done": status.done,
        "driver_mb": round(driver.memory_info().rss / MB),
        "rows_mb": round(sum(batch.nbytes for batch in run._collector._parts.batches()) / MB),
        "others_mb": round(sum(memory_of(process) for process in below) / MB),
        "processes": len(below),
        "system_mb": round((psutil.virtual_memory().total - psutil.virtual_memory().available) / MB),
    }
    before = last or {"done": 0, "elapsed_s": 0.0}
    passed = found["elapsed_s"] - before["elapsed_s"]
    found["rate"] = round((found["done"] - before["done"]) / passed, 1) if passed > 0 else None
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--shots", type=int, default=1024)
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two lines")
    parser.add_argument("--json", type=Path, help="write all lines into this file")
    arguments = parser.parse_args()

    begin = time.perf_counter()
    task = ray_qjm.submit(circuit, backends=["aer"], count=arguments.count, shots=arguments.shots, seed=7)
    samples: list[dict[str, Any]] = []
    ended = threading.Event()

    def wait() -> None:
        task.wait()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    while True:
        over = ended.wait(arguments.every)
        samples.append(sample(task, samples[-1] if samples else None))
        print(json.dumps(samples[-1]), flush=True)
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(samples), encoding="utf-8")
        if over:
            break
    seconds = time.perf_counter() - begin

    result = task.result()
    begin = time.perf_counter()
    table = result.table  # as the README's first program does, on the same circuits
    joined = time.perf_counter() - begin
    outcomes = table.column("counts").combine_chunks()
    number = (
        len(outcomes.flatten())
        if not isinstance(outcomes, pa.ChunkedArray)
        else sum(map(len, outcomes.chunks))
    )
    lists = sum(table.column(name).nbytes for name in ("outcomes", "counts"))
    print(
        f"{len(result)} circuits in {seconds:.0f} s: {len(result) / seconds:.1f} circuits/s, set-up included"
    )
    print(
        f"table: {table.nbytes / MB:.0f} MB in {table.column('circuit').num_chunks} parts, joined in {joined:.2f} s"
    )
    print(f"{number} outcomes, {lists / number:.2f} bytes an outcome for outcomes and counts,")
    print(f"{(table.nbytes - lists) / len(result):.1f} bytes a circuit for the rest")
    for row in (10, len(result) // 2, len(result) - 10):
        begin = time.perf_counter()
        for near in range(row, row + 10):
            result.get_counts(near)
        print(f"get_counts near row {row}: {(time.perf_counter() - begin) / 10 * 1e6:.0f} us")
    print(result.report())
    print(repr(result))
    print(result.get_counts(min(421, len(result) - 1)))
    print(table.slice(0, 3).to_pandas().T.to_string(max_colwidth=60))


if __name__ == "__main__":
    main()
