"""What workers do for a service: circuits made ready to be submitted, and results made rows. Plain Python, no Ray."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from ray_qjm.backends.answers import Registers, check_bits, counted
from ray_qjm.backends.base import Answer
from ray_qjm.backends.local import checked, failed_row
from ray_qjm.backends.pub_bits import decode
from ray_qjm.backends.sampler import with_loose_register
from ray_qjm.backends.shadow import Shadow
from ray_qjm.circuits.payload import encode, packed_bytes
from ray_qjm.cluster.building import Builder, failures_of
from ray_qjm.cluster.messages import Outcome, Payload, TaskSetup, write_batches
from ray_qjm.cluster.part_writer import PartWriter
from ray_qjm.errors import BackendLoadError, BackendResultError, RayQjmError
from ray_qjm.planning.assembly import Lack, Whole
from ray_qjm.planning.events import Chunk, Returned
from ray_qjm.planning.orders import Order
from ray_qjm.results.counts import Row, job_names
from ray_qjm.results.jobs import Job


@dataclass(frozen=True)
class Prepared:
    """What the driver is told of a chunk that can be submitted.

    Attributes:
        sizes: Bytes of each circuit that can be, by row number; 0 where no limit is set on them.
        total_bytes: Of all circuits as they lie in Ray's object store.
        started: When it began, seconds since the epoch.
        seconds: How long it took.
        stages: See ``Outcome``.
    """

    sizes: Mapping[int, int]
    total_bytes: int
    started: float
    seconds: float
    stages: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Sheet:
    """What makes rows of a chunk's results.

    Attributes:
        chunk: Which.
        rows: One a circuit, in order: all but the counts; finished where the circuit failed already.
        columns: The source's.
        marks: Fingerprints, where they are known.
        prepared: What was told of it.
    """

    chunk: Chunk
    rows: Sequence[Row]
    columns: Mapping[str, Sequence[object]]
    marks: Mapping[int, int]
    prepared: Prepared


@dataclass(frozen=True)
class Result:
    """A job's result, with what is needed to read it.

    Attributes:
        order: What was submitted.
        job_id: As the provider calls it.
        raw: As the adapter fetched it.
    """

    order: Order
    job_id: str
    raw: Any


#: Answers for circuits of a chunk that isn't whole yet: row number to (slice, answer, job id).
Answers = dict[int, list[tuple[int, Answer, str]]]


class ServiceWorker:
    """Prepares chunks of one task for one service, and makes rows of its results; made once in a worker process.

    Args:
        setup: The task's.
        backend: Position in ``setup.backends``; its loader gives a ``Shadow``.

    Raises:
        BackendLoadError: Nothing can be compiled for it.
        StoreError: The store can't be reached from here, or is another one.
    """

    def __init__(self, setup: TaskSetup, backend: int) -> None:
        name, spec, _ = setup.backends[backend]
        try:
            self._builder = Builder(setup, backend)
        except Exception as error:
            raise BackendLoadError(
                f"backend {name} can't be compiled for: {type(error).__name__}: {error}"
            ) from error
        made = self._builder.made
        assert isinstance(made, Shadow)
        self._facts = made.facts
        self._weighing = spec.limits.within(made.facts.limits).max_payload_bytes is not None
        self._name = name
        self._registers = Registers()
        self._writer = None if setup.store is None else PartWriter(setup.store)

    def prepare(self, chunk: Chunk, payload: Payload | None) -> tuple[Prepared, bytes, Sheet]:
        """Build and compile a chunk.

        Returns:
            What the driver is told; the circuits, as ``circuits.payload`` encodes them, an ``Exception`` where
            one can't be submitted; and what makes rows of their results.

        Raises:
            SourceError: The source gives nothing on this worker.
        """
        started, begun = time.time(), time.perf_counter()
        self._builder.begin()
        rows: list[Row] = []
        items: list[Any] = []
        sizes: dict[int, int] = {}
        for ready in self._builder.ready(chunk, payload):
            if isinstance(ready, Row):
                rows.append(ready)
                items.append(ValueError(ready.error))
                continue
            circuit = ready.circuit
            rows.append(
                Row(
                    ready.index,
                    backend=self._name,
                    clbits=circuit.num_clbits,
                    registers=self._registers.of(circuit),
                    shots_requested=ready.shots,
                    name=ready.name,
                    metadata=ready.metadata,
                )
            )
            circuit = with_loose_register(circuit) if self._facts.samples else circuit
            items.append(circuit)
            sizes[ready.index] = packed_bytes(circuit, squeezed=self._facts.squeezed) if self._weighing else 0
        data = encode(items)
        seconds, spent = time.perf_counter() - begun, self._builder.spent
        prepared = Prepared(
            sizes, len(data), started, seconds, {**spent, "encode": seconds - sum(spent.values())}
        )
        columns = dict(self._builder.columns(chunk, payload))
        return prepared, data, Sheet(chunk, rows, columns, dict(self._builder.marks), prepared)

    def collect(
        self,
        result: Result | None,
        wholes: Sequence[Whole],
        sheets: Sequence[Sheet],
        before: Sequence[Answers],
        jobs: Sequence[Job],
    ) -> tuple[list[Outcome], Answers]:
        """Make rows of what a job has given.

        Args:
            result: Of the job; ``None``: what came before is all that there is.
            wholes: Chunks that are over with it.
            sheets: Of those chunks, and of all others that the job has circuits of.
            before: Answers for circuits of these chunks that came earlier.
            jobs: Those that ran them.

        Returns:
            An outcome for each whole chunk; and the answers for circuits of the others.
        """
        rows = {row.circuit: row for sheet in sheets for row in sheet.rows}
        mine: Answers = {}
        if result is not None:
            for circuit, slice_, answer in _read(result, rows, samples=self._facts.samples):
                mine.setdefault(circuit, []).append((slice_, answer, result.job_id))
        by_start = {sheet.chunk.start: sheet for sheet in sheets}
        known = {job.job_id: job for job in jobs if job.job_id is not None}
        outcomes = []
        for whole in wholes:
            sheet = by_start[whole.chunk.start]
            # Each job's answers once: those of its other chunks are for them to take.
            answers = {
                circuit: [item for source in (*before, mine) for item in source.get(circuit, ())]
                for circuit in range(sheet.chunk.start, sheet.chunk.stop)
            }
            outcomes.append(self._outcome(whole, sheet, answers, known))
        over = {circuit for whole in wholes for circuit in range(whole.chunk.start, whole.chunk.stop)}
        return outcomes, {circuit: found for circuit, found in mine.items() if circuit not in over}

    def _outcome(self, whole: Whole, sheet: Sheet, answers: Answers, jobs: Mapping[str, Job]) -> Outcome:
        begun = time.perf_counter()
        lacks = _by_circuit(whole.lacks)
        returned: list[Returned] = []
        rows: list[Row] = []
        names: dict[int, list[str]] = {}
        for row in sheet.rows:
            lack = lacks.get(row.circuit)
            found = sorted(answers.get(row.circuit, ()), key=lambda item: item[0])
            if row.status == "failed":
                rows.append(row)
            elif found:
                names[row.circuit] = list(dict.fromkeys(job for _, _, job in found))
                given = [answer for _, answer, _ in found]
                rows.append(_filled(row, given, lack, memory=self._builder.setup.memory))
            elif lack is not None and lack.elsewhere:
                verdict, circuit = lack.verdict, row.circuit
                stage = "finish" if verdict.accepted else "submit"
                returned.append(Returned(circuit, circuit + 1, verdict.error_type, verdict.reason, stage))
            else:
                rows.append(_lacking(row, lack))
        batches = self._pack(rows, sheet)
        outcome = Outcome(
            done=sum(row.counts is not None for row in rows),
            failures=failures_of(rows),
            partial=failures_of(rows, "partial"),
            returned=_joined(returned),
            noted=True,
            seconds=sheet.prepared.seconds,
            started=sheet.prepared.started,
            shots=int(sum(row.shots or 0 for row in rows)),
        )
        named = [_with_names(batch, names) for batch in batches]
        if self._writer is None:
            data, packed = write_batches(named), time.perf_counter()
            return replace(outcome, data=data, size=len(data), stages={"pack": packed - begun})
        used = [jobs[job] for job in dict.fromkeys(job for ids in names.values() for job in ids)]
        packed = time.perf_counter()
        outcome = self._writer.write_named(named, used, sheet.marks, outcome)
        return replace(outcome, stages={"pack": packed - begun, "write": time.perf_counter() - packed})

    def _pack(self, rows: list[Row], sheet: Sheet) -> list[pa.RecordBatch]:
        try:
            return self._builder.pack(rows, sheet.columns, sheet.chunk.start)
        except BackendResultError:
            rows[:] = checked(rows)
            return self._builder.pack(rows, sheet.columns, sheet.chunk.start)


@dataclass
class _Sum:
    counts: dict[str, int] = field(default_factory=dict)
    memory: list[str] = field(default_factory=list)


def _read(result: Result, rows: Mapping[int, Row], *, samples: bool) -> list[tuple[int, int, Answer]]:
    """Circuit, slice and answer, in the order of the submission; circuits that have their rows already are left out."""
    cells = [(circuit, run.slice_) for run in result.order.runs for circuit in range(run.start, run.stop)]
    raw = result.raw
    try:
        if isinstance(raw, Exception):
            raise raw
        if len(raw) != len(cells):
            raise BackendResultError(f"{len(raw)} results came for {len(cells)} circuits")
        # Of a job of an earlier session some circuits may have their rows already.
        wanted = [at for at, (circuit, _) in enumerate(cells) if circuit in rows]
        cells, raw = [cells[at] for at in wanted], [raw[at] for at in wanted]
        if samples:
            own = [rows[circuit] for circuit, _ in cells]
            raw = decode(
                raw, [json.loads(row.registers or "[]") for row in own], [row.clbits or 0 for row in own]
            )
    except Exception as error:  # whatever a strange answer makes of it
        reason = str(error) if isinstance(error, RayQjmError) else f"{type(error).__name__}: {error}"
        raw = [Answer(error=reason)] * len(cells)
    return [(circuit, slice_, answer) for (circuit, slice_), answer in zip(cells, raw, strict=True)]


def _filled(row: Row, answers: Sequence[Answer], lack: Lack | None, *, memory: bool) -> Row:
    """A row with the counts of all slices of its shots."""
    good = [answer for answer in answers if answer.counts is not None]
    bad = next((answer.error for answer in answers if answer.counts is None and answer.error), None)
    try:
        if not good:
            raise BackendResultError(bad or f"{row.backend} gave no counts")
        for answer in good:
            check_bits(row, answer)
        row = counted(row, _added(good), memory=memory)
    except BackendResultError as error:
        return _failed(row, "run", type(error).__name__, str(error))
    if (row.shots or 0) < row.shots_requested:
        if lack is not None:
            row.error_type, row.error = lack.verdict.error_type, f"{row.error}: {lack.verdict.reason}"
        elif bad is not None:
            row.error = f"{row.error}: {bad}"
    return row


def _added(answers: Sequence[Answer]) -> Answer:
    if len(answers) == 1:
        return answers[0]
    total = _Sum()
    for answer in answers:
        for outcome, count in (answer.counts or {}).items():
            total.counts[outcome] = total.counts.get(outcome, 0) + count
        total.memory += answer.memory or ()
    whole = all(answer.memory is not None for answer in answers)
    # Of a whole memory there is no error.
    why_not = next((answer.error for answer in answers if answer.error), None)
    return Answer(total.counts, total.memory if whole else None, error=why_not)


def _lacking(row: Row, lack: Lack | None) -> Row:
    if lack is None:  # a job without an answer for it: ``_read`` has said so
        return _failed(row, "run", BackendResultError.__name__, f"{row.backend} gave no counts")
    return _failed(row, "run", lack.verdict.error_type, lack.verdict.reason)


def _failed(row: Row, stage: str, error_type: str, error: str) -> Row:
    failed = failed_row(
        row.circuit,
        stage,
        BackendResultError(error),
        row.backend,
        row.shots_requested,
        name=row.name,
        metadata=row.metadata,
    )
    failed.error_type = error_type
    return failed


def _by_circuit(lacks: Sequence[Lack]) -> dict[int, Lack]:
    return {circuit: lack for lack in lacks for circuit in range(lack.start, lack.stop)}


def _joined(returned: Sequence[Returned]) -> tuple[Returned, ...]:
    found: list[Returned] = []
    for item in returned:
        last = found[-1] if found else None
        if (
            last is not None
            and last.stop == item.start
            and replace(last, start=item.start, stop=item.stop) == item
        ):
            found[-1] = replace(last, stop=item.stop)
        else:
            found.append(item)
    return tuple(found)


def _with_names(batch: pa.RecordBatch, names: Mapping[int, Sequence[str]]) -> pa.RecordBatch:
    circuits = batch.column("circuit").to_pylist()
    return batch.append_column("job", job_names([names.get(circuit, ()) for circuit in circuits]))
