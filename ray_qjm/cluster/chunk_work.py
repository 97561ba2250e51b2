"""What a worker does with one chunk: build, transpile, simulate and pack, in one go. Plain Python, no Ray."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

from ray_qjm.backends.local import LocalBackend, Ready, checked
from ray_qjm.backends.memory import FREE_BYTES, simulation_bytes
from ray_qjm.backends.registry import check_options
from ray_qjm.cluster.building import Builder, failures_of
from ray_qjm.cluster.messages import Outcome, Payload, TaskSetup, write_batches
from ray_qjm.cluster.part_writer import PartWriter
from ray_qjm.errors import (
    BackendLoadError,
    BackendResultError,
    UnsupportedCircuitError,
)
from ray_qjm.planning.events import Chunk, Deferred
from ray_qjm.planning.seeds import simulator_base
from ray_qjm.results.counts import Row

#: Circuits of a chunk that are built, compiled and simulated at once. Few that are alive make Python's garbage
#: collector cheap: random circuits of 5 qubits took 2 % less CPU by 125 than by 500, and 3 % more by 32, where
#: what a call of the simulator costs begins to show.
AT_ONCE = 125


class ChunkWorker:
    """Runs chunks of one task on one backend; made once in a worker process.

    Args:
        setup: The task's.
        backend: Position in ``setup.backends``.

    Raises:
        BackendLoadError: The backend can't be made here, or lacks what the task asks of it.
        StoreError: The store can't be reached from here, or is another one.
    """

    def __init__(self, setup: TaskSetup, backend: int) -> None:
        name, spec, _ = setup.backends[backend]
        self._spec = spec
        try:
            self._builder = Builder(setup, backend)
            made = self._builder.made
            check_options(made, name, spec.run_options, memory=setup.memory)
        except Exception as error:
            raise BackendLoadError(
                f"backend {name} can't be used: {type(error).__name__}: {error}"
            ) from error
        # Aer logs each circuit that it can't run; the reason stands in the circuit's row.
        logging.getLogger("qiskit_aer").setLevel(logging.CRITICAL)
        run_options = dict(spec.run_options)
        if not dict(made.options).get("max_parallel_threads", 1):
            # Aer's 0 takes all cores, those of the other workers too. What the user set stays.
            run_options.setdefault("max_parallel_threads", max(1, int(spec.resources.num_cpus)))
        self._backend = LocalBackend(
            made, name=name, run_options=run_options, memory=setup.memory, base=simulator_base(setup.seed)
        )
        self._writer = None if setup.store is None else PartWriter(setup.store)

    def run(self, chunk: Chunk, payload: Payload | None, largest: int | None) -> Outcome:
        """Run a chunk.

        Args:
            chunk: Which circuits.
            payload: They themselves, unless the task's source builds them.
            largest: Most bytes that any node could reserve; ``None`` if unknown.

        Raises:
            SourceError: The source gives nothing on this worker.
            StoreError: The rows can't be written.
        """
        started, begun = time.time(), time.perf_counter()
        self._builder.begin()
        allowed = chunk.memory or self._spec.resources.memory_bytes or FREE_BYTES
        rows: list[Row] = []
        deferred: list[Deferred] = []
        circuits = self._builder.ready(chunk, payload)
        for _ in range(0, len(chunk), AT_ONCE):
            rows += self._rows(islice(circuits, AT_ONCE), allowed, largest, deferred)
        packing = time.perf_counter()
        rows.sort(key=lambda row: row.circuit)
        columns = self._builder.columns(chunk, payload)
        try:
            batches = self._builder.pack(rows, columns, chunk.start)
        except BackendResultError:
            rows = checked(rows)
            batches = self._builder.pack(rows, columns, chunk.start)
        data = write_batches(batches) if self._writer is None else b""
        packed = time.perf_counter()
        stages = {**self._builder.spent, "pack": packed - packing}
        outcome = Outcome(
            data=data,
            done=sum(row.counts is not None for row in rows),
            failures=failures_of(rows),
            deferred=_joined(deferred),
            seconds=time.perf_counter() - begun,
            started=started,
            shots=int(sum(row.shots or 0 for row in rows)),
            stages=stages,
            size=len(data),
        )
        if self._writer is None:
            return outcome
        outcome = self._writer.write(chunk, self._backend.name, batches, self._builder.marks, outcome)
        ended = time.perf_counter()
        return replace(outcome, seconds=ended - begun, stages={**stages, "write": ended - packed})

    def _rows(
        self, circuits: Iterable[Ready | Row], allowed: int, largest: int | None, deferred: list[Deferred]
    ) -> list[Row]:
        """Run some circuits; those that need more memory than is allowed go into ``deferred``."""
        rows: list[Row] = []
        ready: list[Ready] = []
        for prepared in circuits:
            if isinstance(prepared, Row):
                rows.append(prepared)
                continue
            needed = simulation_bytes(self._backend.backend, self._backend.run_options, prepared.circuit)
            if needed <= allowed:
                ready.append(prepared)
            elif largest is not None and needed > largest:
                rows.append(self._backend.failed(prepared, _too_large(needed, largest)))
            else:
                deferred.append(Deferred(prepared.index, prepared.index + 1, needed))
        begun = time.perf_counter()
        rows += self._backend.run(ready)
        self._builder.spent["run"] += time.perf_counter() - begun
        return rows


def _joined(deferred: Sequence[Deferred]) -> tuple[Deferred, ...]:
    found: list[Deferred] = []
    for item in deferred:
        if found and found[-1].stop == item.start:
            found[-1] = Deferred(found[-1].start, item.stop, max(found[-1].memory, item.memory))
        else:
            found.append(item)
    return tuple(found)


def _too_large(needed: int, largest: int) -> UnsupportedCircuitError:
    return UnsupportedCircuitError(
        f"simulating it takes {_gib(needed)}, and the largest node has {_gib(largest)} for Ray tasks. "
        "Use another method (matrix_product_state, stabilizer) or a larger node."
    )


def _gib(size: int) -> str:
    # From some thousand qubits on the number is no float any more.
    return f"{size / 2**30:.1f} GiB" if size < 2**70 else f"2^{size.bit_length() - 1} bytes"
