"""A cluster rehearsed on one machine: a head and two nodes, 20,000 circuits, and a node that dies on the way.

Usage: python -m examples.cluster_demo [count]
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType

import numpy as np
import pyarrow.compute as pc
import ray
from qiskit import QuantumCircuit

import ray_qjm
from examples.machines import Machine, Machines

BITS = 15
SHOTS = 1024


def circuit(index: int) -> QuantumCircuit:
    """Bernstein and Vazirani's, with the row number as its secret: each shot measures just that."""
    made = QuantumCircuit(BITS + 1, BITS)
    made.x(BITS)
    made.h(range(BITS + 1))
    for bit in range(BITS):
        if index >> bit & 1:
            made.cx(bit, BITS)
    made.h(range(BITS))
    made.measure(range(BITS), range(BITS))
    return made


class Misfortune(threading.Thread):
    """Kills a machine once a store has so many rows; looks at it as any other process could.

    Args:
        machine: Which.
        store: Of the task.
        rows: How many.
    """

    def __init__(self, machine: Machine, store: Path, rows: int) -> None:
        super().__init__(name="misfortune", daemon=True)
        self.machine = machine
        self.at = 0.0
        self._store = store
        self._rows = rows
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.3):
            try:
                done = ray_qjm.attach(self._store).result(partial=True).status_counts.get("done", 0)
            except ray_qjm.errors.InvalidInputError:
                continue  # nothing is stored yet
            if done >= self._rows:
                self.at = time.time()
                killed = self.machine.kill()
                print(
                    f"Killed {self.machine.name}: SIGKILL to {killed} processes, {done:,} circuits in the store."
                )
                return

    def leave(self) -> None:
        """Kill nothing any more."""
        self._over.set()
        self.join()


def rehearse(machines: Machines, store: Path, count: int) -> bool:
    """Run circuits on a cluster, kill its last node on the way, and tell whether all is as it should be."""
    os.environ["RAY_ADDRESS"] = machines.address
    misfortune = Misfortune(machines.nodes[-1], store, count // 3)
    misfortune.start()
    try:
        result = ray_qjm.run(circuit, count=count, shots=SHOTS, seed=7, store=store)
    finally:
        misfortune.leave()
        # While the cluster is there: Ray would look for it for a minute, be it only to tell it of an exception.
        ray.shutdown()

    print()
    print(result.report())
    for job in result.jobs.to_pylist():
        if job["state"] != "done":
            late = job["ended"].timestamp() - misfortune.at
            print(
                f"Circuits {job['start']}-{job['stop'] - 1} had to be run again: {job['reason']}, "
                f"told {late:.1f} s after the kill."
            )
    right = right_rows(result)
    print(f"Circuit i measured i, {SHOTS:,} times: {right:,} of {count:,} circuits.")
    print()
    columns = ["circuit", "status", "backend", "shots", "seed", "outcomes", "counts"]
    print(result.to_pandas()[columns].tail().to_string(index=False))
    return right == count and misfortune.at > 0


def right_rows(result: ray_qjm.TaskResult) -> int:
    """How many circuits have the counts that they must have."""
    table = result.table
    single = pc.equal(pc.list_value_length(table["outcomes"]), 1)
    table = table.filter(single)
    outcomes, counts = (pc.list_flatten(table[name]).to_numpy() for name in ("outcomes", "counts"))
    return int(np.sum((outcomes == table["circuit"].to_numpy()) & (counts == SHOTS)))


def interrupt(number: int, frame: FrameType | None) -> None:
    """Take a signal for Ctrl-C: the machines are no children that would end with this process."""
    raise KeyboardInterrupt


def demonstrate(count: int, cpus: int) -> bool:
    """Start a cluster, rehearse on it, and end it whatever happens; tell whether all was as it should be."""
    print("Starting a head and two nodes, as three machines would; token authentication is on.", flush=True)
    with Machines(2, cpus) as machines, tempfile.TemporaryDirectory(prefix="qjm-store-") as folder:
        print(f"  head    {machines.address}, pid {machines.head.process.pid}, no CPUs for circuits")
        for node in machines.nodes:
            print(f"  {node.name}  pid {node.process.pid}, CPUs: {cpus}")
        print(f"  Ray's dashboard: {machines.dashboard} (it asks for what `ray get-auth-token` prints)")
        print(f"Running {count:,} circuits with a store.", flush=True)
        return rehearse(machines, Path(folder) / "store", count)


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    try:
        fine = demonstrate(count, max(1, (os.cpu_count() or 2) // 2))
    except KeyboardInterrupt:
        print("\nStopped. The cluster is gone, and its folders.", file=sys.stderr)
        sys.exit(130)
    print()
    print("The cluster is gone, and its folders.")
    if not fine:
        sys.exit("Not as it should be, see above.")


if __name__ == "__main__":
    main()
