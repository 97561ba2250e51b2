"""The main job: a few thousand random circuits on Aer, with a live bar, a report and a table.

Usage: python examples/demo.py [count]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from qiskit import QuantumCircuit
from qiskit.circuit.random import random_circuit

import ray_qjm


def circuit(index: int, rng: np.random.Generator) -> QuantumCircuit:
    """Five qubits, five layers of random gates; the same circuit for an index, whichever worker builds it."""
    return random_circuit(5, 5, measure=True, seed=int(rng.integers(2**32)))


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    print(f"Running {count:,} random circuits on Aer; the first seconds go into starting Ray.")
    result = ray_qjm.run(circuit, backends=["aer"], count=count, shots=1024, seed=7)

    print()
    print(result.report())
    print()
    print("result.get_counts(421) =", dict(sorted(result.get_counts(421 % count).items())))
    print()
    print("The first rows of result.table:")
    columns = ["circuit", "status", "backend", "shots", "seed", "outcomes", "counts"]
    print(result.to_pandas()[columns].head().to_string(index=False, max_colwidth=24))

    path = Path("results") / "demo.parquet"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    pq.write_table(result.table, path)
    path.chmod(0o600)
    print()
    print(f"The whole table, {len(result):,} rows: {path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
