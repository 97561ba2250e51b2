"""What a worker does with one chunk: build, transpile, simulate and pack, in one go. Plain Python, no Ray."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import cloudpickle
import pyarrow as pa

from ray_qjm.backends.local import LocalBackend, Ready, checked, failed_row
from ray_qjm.backends.memory import FREE_BYTES, simulation_bytes
from ray_qjm.backends.registry import check_loaded, check_options
from ray_qjm.circuits.compile import Compiler, check_runnable
from ray_qjm.circuits.fingerprint import try_fingerprint
from ray_qjm.circuits.payload import decode
from ray_qjm.cluster.messages import Outcome, Payload, TaskSetup, write_batches
from ray_qjm.cluster.part_writer import PartWriter
from ray_qjm.errors import (
    BackendLoadError,
    BackendResultError,
    SourceError,
    UnsupportedCircuitError,
)
from ray_qjm.options import TranspileOptions
from ray_qjm.planning.events import Chunk, Deferred, Failure
from ray_qjm.planning.seeds import simulator_base, transpiler_seed
from ray_qjm.results.counts import Row, pack

#: Circuits of a chunk that are built, compiled and simulated at once. Few that are alive make Python's garbage
#: collector cheap: random circuits of 5 qubits took 2 % less CPU by 125 than by 500, and 3 % more by 32, where
#: what a call of the simulator costs begins to show.
AT_ONCE = 125


#: Backends with their pass managers that a process keeps, by what they were made of. Making a pass manager for
#: Aer costs as much as a hundred circuits, and a user may call ``run`` in a loop.
_KEPT = 8
_made: OrderedDict[bytes, tuple[Any, Compiler]] = OrderedDict()


def _make(load: Callable[[], Any], what: str, transpile: TranspileOptions, seed: int) -> tuple[Any, Compiler]:
    """The backend and its compiler, made here or kept from an earlier task."""
    key: bytes = cloudpickle.dumps((load, transpile, seed))
    pair = _made.get(key)
    if pair is None:
        backend = check_loaded(load(), what)
        pair = _made[key] = backend, Compiler(backend, transpile, seed)
        while len(_made) > _KEPT:
            _made.popitem(last=False)
    _made.move_to_end(key)
    return pair


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
        self._setup = setup
        name, spec, load = setup.backends[backend]
        self._spec = spec
        try:
            transpile = spec.transpile or setup.transpile
            made, self._compiler = _make(load, f"factory of {name}", transpile, transpiler_seed(setup.seed))
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
        self._template: Any = None
        self._writer = None if setup.store is None else PartWriter(setup.store)
        # A template's circuits are known by its values: those needn't be looked at one by one.
        source = setup.source
        self._marking = setup.store is not None and (source is None or source.template is None)
        self._marks: dict[int, int] = {}

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
        self._marks.clear()
        allowed = chunk.memory or self._spec.resources.memory_bytes or FREE_BYTES
        rows: list[Row] = []
        deferred: list[Deferred] = []
        circuits = self._circuits(chunk, payload)
        for _ in range(0, len(chunk), AT_ONCE):
            rows += self._rows(islice(circuits, AT_ONCE), allowed, largest, deferred)
        rows.sort(key=lambda row: row.circuit)
        columns = self._columns(chunk, payload)
        try:
            batches = self._pack(rows, columns, chunk.start)
        except BackendResultError:
            rows = checked(rows)
            batches = self._pack(rows, columns, chunk.start)
        outcome = Outcome(
            done=sum(row.counts is not None for row in rows),
            failures=_failures(rows),
            deferred=_joined(deferred),
            seconds=time.perf_counter() - begun,
            started=started,
            shots=int(sum(row.shots or 0 for row in rows)),
        )
        if self._writer is None:
            return replace(outcome, data=write_batches(batches))
        outcome = self._writer.write(chunk, self._backend.name, batches, self._marks, outcome)
        return replace(outcome, seconds=time.perf_counter() - begun)

    def _rows(
        self, circuits: Iterable[tuple[int, Any]], allowed: int, largest: int | None, deferred: list[Deferred]
    ) -> list[Row]:
        """Compile and run some circuits; those that need more memory than is allowed go into ``deferred``."""
        rows: list[Row] = []
        ready: list[Ready] = []
        for index, circuit in circuits:
            prepared = self._prepare(index, circuit)
            if isinstance(prepared, Row):
                rows.append(prepared)
                continue
            needed = simulation_bytes(self._backend.backend, self._backend.run_options, prepared.circuit)
            if needed <= allowed:
                ready.append(prepared)
            elif largest is not None and needed > largest:
                rows.append(self._backend.failed(prepared, _too_large(needed, largest)))
            else:
                deferred.append(Deferred(index, index + 1, needed))
        return rows + self._backend.run(ready)

    def _circuits(self, chunk: Chunk, payload: Payload | None) -> Iterator[tuple[int, Any]]:
        """Index and circuit, or the exception that stands for it."""
        if payload is not None:
            items = decode(payload.data)
            yield from enumerate(items[chunk.start - payload.start : chunk.stop - payload.start], chunk.start)
            return
        source = self._setup.source
        assert source is not None  # a chunk has a payload unless its source is here
        if source.template is not None:
            yield from ((index, None) for index in range(chunk.start, chunk.stop))
            return
        for index in range(chunk.start, chunk.stop):
            try:
                yield index, source.build(index, self._setup.seed)
            except SourceError:
                raise
            except Exception as error:
                yield index, error

    def _prepare(self, index: int, circuit: Any) -> Ready | Row:
        """Compile a circuit; a row if it fails."""
        if isinstance(circuit, Exception):
            return self._failed(index, "build", circuit)
        stage = "transpile"
        try:
            if circuit is None:
                compiled = self._bound(index)
                circuit = compiled
            else:
                if self._marking:
                    self._marks[index] = try_fingerprint(circuit)
                compiled = self._compiler.compile(circuit)
                stage = "run"
                check_runnable(compiled)
        except Exception as error:
            return self._failed(index, stage, error, circuit)
        return Ready(index, compiled, self._setup.shots_of(index), circuit.name, circuit.metadata)

    def _bound(self, index: int) -> Any:
        """Circuit ``index`` from the compiled template; its failure is every circuit's."""
        source = self._setup.source
        assert source is not None
        if self._template is None:
            try:
                self._template = self._compiler.compile(source.template)
            except Exception as error:
                self._template = error
        if isinstance(self._template, Exception):
            raise self._template.with_traceback(None)  # or it grows with each circuit
        bound = source.bind(index, self._template)
        check_runnable(bound)
        return bound

    def _failed(self, index: int, stage: str, error: Exception, circuit: Any = None) -> Row:
        return failed_row(
            index,
            stage,
            error,
            self._backend.name,
            self._setup.shots_of(index),
            name=getattr(circuit, "name", None),
            metadata=getattr(circuit, "metadata", None),
        )

    def _columns(self, chunk: Chunk, payload: Payload | None) -> Mapping[str, Sequence[object]]:
        if payload is not None:
            return {
                name: values[chunk.start - payload.start : chunk.stop - payload.start]
                for name, values in payload.columns.items()
            }
        assert self._setup.source is not None
        return self._setup.source.columns(chunk.start, chunk.stop)

    def _pack(
        self, rows: Sequence[Row], columns: Mapping[str, Sequence[object]], first: int
    ) -> list[pa.RecordBatch]:
        """All rows, a batch for each run of consecutive circuits."""
        batches = []
        for group in _contiguous(rows):
            start, stop = group[0].circuit - first, group[-1].circuit + 1 - first
            extra = {name: values[start:stop] for name, values in columns.items()}
            batches.append(
                pack(group, memory=self._setup.memory, extra=extra, extra_types=self._setup.column_types)
            )
        return batches


def _contiguous(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Rows in runs of consecutive circuits: a deferred one leaves a hole."""
    start = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or rows[i].circuit != rows[i - 1].circuit + 1:
            yield rows[start:i]
            start = i


def _failures(rows: Sequence[Row]) -> tuple[Failure, ...]:
    found: list[Failure] = []
    for row in rows:
        if row.status != "failed":
            continue
        failure = Failure(
            row.circuit, row.circuit + 1, row.error_type or "", row.error or "", row.stage or ""
        )
        last = found[-1] if found else None
        # Equal but for where they begin, and one goes on where the other ends.
        if (
            last is not None
            and last.stop == row.circuit
            and replace(failure, start=last.start) == replace(last, stop=failure.stop)
        ):
            found[-1] = replace(last, stop=failure.stop)
        else:
            found.append(failure)
    return tuple(found)


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
