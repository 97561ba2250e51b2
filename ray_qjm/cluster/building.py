"""Circuits of a chunk, built and compiled; and rows, packed. What every way of running a chunk shares."""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import cloudpickle
import pyarrow as pa

from ray_qjm.backends.local import Ready, failed_row
from ray_qjm.backends.registry import check_loaded, check_placed
from ray_qjm.circuits.compile import Compiler, check_runnable
from ray_qjm.circuits.fingerprint import try_fingerprint
from ray_qjm.circuits.payload import decode
from ray_qjm.cluster.messages import Payload, TaskSetup
from ray_qjm.errors import SourceError
from ray_qjm.options import TranspileOptions
from ray_qjm.planning.events import Chunk, Failure
from ray_qjm.planning.seeds import transpiler_seed
from ray_qjm.results.counts import Row, pack

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


class Builder:
    """Builds and compiles the circuits of one task for one backend.

    Args:
        setup: The task's.
        backend: Position in ``setup.backends``.

    Raises:
        Exception: Whatever making the backend or its pass manager raises.
    """

    def __init__(self, setup: TaskSetup, backend: int) -> None:
        self.setup = setup
        self.name, self.spec, load = setup.backends[backend]
        transpile = self.spec.transpile or setup.transpile
        self.made, self._compiler = _make(
            load, f"factory of {self.name}", transpile, transpiler_seed(setup.seed)
        )
        check_placed(self.made, f"factory of {self.name}", self.spec)
        self._template: Any = None
        # A template's circuits are known by its values: those needn't be looked at one by one.
        source = setup.source
        self._marking = setup.store is not None and (source is None or source.template is None)
        #: Fingerprints of the circuits that were built since ``begin``.
        self.marks: dict[int, int] = {}
        #: Seconds that were spent in each stage since ``begin``.
        self.spent: defaultdict[str, float] = defaultdict(float)

    def begin(self) -> None:
        """Another chunk: forget marks and seconds of the one before."""
        self.marks.clear()
        self.spent.clear()

    def ready(self, chunk: Chunk, payload: Payload | None) -> Iterator[Ready | Row]:
        """The circuits of a chunk, compiled; a row in place of one that can't be.

        Args:
            chunk: Which circuits.
            payload: They themselves, unless the task's source builds them.

        Raises:
            SourceError: The source gives nothing on this worker.
        """
        circuits, spent, clock = self._circuits(chunk, payload), self.spent, time.perf_counter
        while True:
            begun = clock()
            found = next(circuits, None)
            built = clock()
            spent["build"] += built - begun
            if found is None:
                return
            ready = self._prepare(*found)
            spent["transpile"] += clock() - built
            yield ready

    def _circuits(self, chunk: Chunk, payload: Payload | None) -> Iterator[tuple[int, Any]]:
        """Index and circuit, or the exception that stands for it."""
        if payload is not None:
            items = decode(payload.data)
            yield from enumerate(items[chunk.start - payload.start : chunk.stop - payload.start], chunk.start)
            return
        source = self.setup.source
        assert source is not None  # a chunk has a payload unless its source is here
        if source.template is not None:
            yield from ((index, None) for index in range(chunk.start, chunk.stop))
            return
        for index in range(chunk.start, chunk.stop):
            try:
                yield index, source.build(index, self.setup.seed)
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
                    self.marks[index] = try_fingerprint(circuit)
                compiled = self._compiler.compile(circuit)
                stage = "run"
                check_runnable(compiled)
        except Exception as error:
            return self._failed(index, stage, error, circuit)
        return Ready(index, compiled, self.setup.shots_of(index), circuit.name, circuit.metadata)

    def _bound(self, index: int) -> Any:
        """Circuit ``index`` from the compiled template; its failure is every circuit's."""
        source = self.setup.source
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
            self.name,
            self.setup.shots_of(index),
            name=getattr(circuit, "name", None),
            metadata=getattr(circuit, "metadata", None),
        )

    def columns(self, chunk: Chunk, payload: Payload | None) -> Mapping[str, Sequence[object]]:
        """The source's columns for the circuits of a chunk."""
        if payload is not None:
            return {
                name: values[chunk.start - payload.start : chunk.stop - payload.start]
                for name, values in payload.columns.items()
            }
        assert self.setup.source is not None
        return self.setup.source.columns(chunk.start, chunk.stop)

    def pack(
        self, rows: Sequence[Row], columns: Mapping[str, Sequence[object]], first: int
    ) -> list[pa.RecordBatch]:
        """All rows, a batch for each run of consecutive circuits.

        Args:
            rows: In ascending order.
            columns: The source's, of the circuits from ``first`` on.
            first: Where the columns begin.

        Raises:
            BackendResultError: A row can't be true.
        """
        batches = []
        for group in contiguous(rows):
            start, stop = group[0].circuit - first, group[-1].circuit + 1 - first
            extra = {name: values[start:stop] for name, values in columns.items()}
            batches.append(
                pack(group, memory=self.setup.memory, extra=extra, extra_types=self.setup.column_types)
            )
        return batches


def contiguous(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Rows in runs of consecutive circuits: a deferred one leaves a hole."""
    start = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or rows[i].circuit != rows[i - 1].circuit + 1:
            yield rows[start:i]
            start = i


def failures_of(rows: Sequence[Row], status: str = "failed") -> tuple[Failure, ...]:
    """Why rows have no counts, or not all, neighbours of one reason joined."""
    found: list[Failure] = []
    for row in rows:
        if row.status != status:
            continue
        failure = Failure(
            row.circuit, row.circuit + 1, row.error_type or "", row.error or "", row.stage or "", status
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
