"""Rows out of Qiskit's own results, as a collector makes them, and results out of rows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from qiskit import ClassicalRegister, QuantumCircuit
from qiskit_aer import AerSimulator

from ray_qjm.results import TaskResult
from ray_qjm.results.counts import JOBS_SCHEMA, Row, pack, with_jobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qiskit.result import Result

SIMULATOR = AerSimulator(max_parallel_threads=1)


def simulate(circuits: Sequence[QuantumCircuit], shots: int = 50, memory: bool = False) -> Result:
    return SIMULATOR.run(list(circuits), shots=shots, seed_simulator=11, memory=memory).result()


def registers_of(circuit: QuantumCircuit) -> str:
    return json.dumps(
        [[register.name, [circuit.find_bit(bit).index for bit in register]] for register in circuit.cregs]
    )


def seed_of(ran: Result, index: int) -> int:
    """Aer 0.17 calls it ``seed``, 0.18 ``seed_simulator``."""
    told = ran.results[index].to_dict()
    seed: int = told["seed_simulator"] if "seed_simulator" in told else told["seed"]
    return seed


def rows_of(circuits: Sequence[QuantumCircuit], ran: Result, memory: bool = False) -> list[Row]:
    return [
        Row(
            index,
            backend="aer_simulator",
            clbits=circuit.num_clbits,
            registers=registers_of(circuit),
            shots_requested=ran.results[index].shots,
            shots=ran.results[index].shots,
            seed=seed_of(ran, index),
            counts=ran.data(index)["counts"],
            memory=ran.data(index)["memory"] if memory else None,
            name=circuit.name,
            metadata=circuit.metadata,
        )
        for index, circuit in enumerate(circuits)
    ]


def result_of(
    rows: Sequence[Row], *, part: int = 3, circuits: Sequence[Any] | None = None, **packing: Any
) -> TaskResult:
    """A result of parts of ``part`` rows, handed over from the last to the first."""
    extra = packing.pop("extra", {})
    batches = []
    for start in range(0, len(rows), part):
        stop = min(start + part, len(rows))
        values = {name: column[start:stop] for name, column in extra.items()}
        batches.append(with_jobs(pack(rows[start:stop], extra=values, **packing), [start // part]))
    jobs = pa.Table.from_pylist(
        [
            {"job_id": f"job-{index}", "backend": "aer_simulator", "start": start, "stop": start + part}
            for index, start in enumerate(range(0, len(rows), part))
        ],
        schema=JOBS_SCHEMA,
    )
    return TaskResult(batches[::-1], jobs=jobs, info={"task_id": "t1"}, circuits=circuits)


def wide_circuit(clbits: int, measured: Sequence[int]) -> QuantumCircuit:
    """Few qubits, many clbits; the clbits of ``measured`` hold fair coins of one qubit each."""
    circuit = QuantumCircuit(len(measured))
    circuit.add_register(ClassicalRegister(clbits, "c"))
    circuit.h(range(len(measured)))
    circuit.measure(range(len(measured)), list(measured))
    return circuit


def failed(
    circuit: int,
    error: str = "no such gate",
    status: str = "failed",
    kind: str = "TypeError",
    stage: str | None = None,
) -> Row:
    return Row(circuit, status=status, shots_requested=50, stage=stage, error_type=kind, error=error)
