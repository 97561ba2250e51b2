"""A task in a store: what stands there, and how one process after the other goes on with it.

::

    task.json                        what the task is
    shots.npy                        the shots of each circuit, where they differ
    epochs/<e>.json                  a process took the store; names what counts of everything before it
    beats/<e>.json                   its signs of life
    ends/<e>.json                    the epoch ended in good order; names all rows that count
    jobs/<e>.parquet                 the table of jobs then
    parts/<e>/<start>-<stop>.parquet the rows, written by workers
    inputs/<e>/<start>-<stop>.qpy    circuits of an iterable that were read and have no rows yet

Parts are written whole, once, under the epoch of whoever started them. Whatever a killed process's workers
write late stands under an old epoch, isn't named in the newest record, and so doesn't exist.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ray_qjm.errors import StoreDamagedError, StoreMismatchError
from ray_qjm.planning.ranges import Ranges
from ray_qjm.results.jobs import JobLog
from ray_qjm.results.lease import (
    Lease,
    beat_name,
    cancel_name,
    end_name,
    epoch_name,
    this_process,
    wait_for_owner,
)
from ray_qjm.results.objects import Objects
from ray_qjm.results.part_files import Head, PartReader, TornPartError, verify
from ray_qjm.results.records import (
    EndRecord,
    EpochRecord,
    Owner,
    TaskRecord,
    pack_end,
    pack_epoch,
    pack_task,
    read_end,
    read_epoch,
    read_task,
)
from ray_qjm.results.schema import JOBS_SCHEMA
from ray_qjm.results.winners import PartName, Taken, winners

TASK = "task.json"
#: The shots of each circuit, where they differ: a NumPy array.
SHOTS = "shots.npy"
#: What only its owner and the owner's workers write; ``submissions/`` is the desks'.
FOLDERS = ("epochs", "ends", "beats", "cancels", "inputs", "jobs", "parts")

#: Parts that are read at once when a store is taken: an object store answers after milliseconds.
_AT_ONCE = 16


@dataclass(frozen=True)
class Look:
    """What stands in a store now.

    Attributes:
        task: What the task is; ``None``: there is none yet.
        record: Of the newest epoch.
        end: Of its end, if it has ended in good order.
        parts: All parts of that epoch, and of any later one; empty if it has ended.
        newest: The highest number of an epoch of which anything is there, readable or not.
    """

    task: TaskRecord | None
    record: EpochRecord | None
    end: EndRecord | None
    parts: Sequence[PartName]
    newest: int

    @property
    def taken(self) -> list[Taken]:
        """The rows that count."""
        if self.end is not None:
            return list(self.end.taken)
        return winners(self.parts, () if self.record is None else self.record.accepted)

    @property
    def total(self) -> int | None:
        """Circuits of the task; ``None`` if it isn't known."""
        if self.end is not None and self.end.total is not None:
            return self.end.total
        return None if self.record is None else self.record.total


def look(objects: Objects) -> Look:
    """See what stands in a store, whoever may be writing.

    Raises:
        StoreDamagedError: Rows are there and nothing that says of what; or a newer version of this package wrote them.
    """
    with _named(objects):
        task, record, end, numbers = _records(objects)
    parts = [] if end is not None else _parts_since(objects, 0 if record is None else record.epoch)
    if task is None and parts:
        raise StoreDamagedError(
            f"store {objects.place} has {len(parts)} parts, and neither {TASK} nor a record of an epoch can be read: "
            "what they are of isn't known. Move it away, or give another store."
        )
    return Look(task, record, end, parts, max([*numbers, *(part.epoch for part in parts)], default=0))


@contextmanager
def _named(objects: Objects) -> Iterator[None]:
    """Say of what is wrong with a record in which store it is."""
    try:
        yield
    except StoreDamagedError as error:
        raise StoreDamagedError(f"{objects.place}: {error}") from None


def _records(
    objects: Objects,
) -> tuple[TaskRecord | None, EpochRecord | None, EndRecord | None, list[int]]:
    numbers = sorted((_number(entry.name) for entry in objects.entries("epochs")), reverse=True)
    record = end = None
    for number in numbers:
        record = read_epoch(objects.read(epoch_name(number)))
        if record is not None:
            end = read_end(objects.read(end_name(number)))
            break
    task = record.task if record is not None else read_task(objects.read(TASK))
    return task, record, end, numbers


def peek(
    objects: Objects, wanted: TaskRecord
) -> tuple[Look, list[Taken], dict[PartName, Head], dict[PartName, NDArray[np.uint64]]] | None:
    """What ``take`` would find, with nothing changed: rows that count, the heads and fingerprints of their parts.

    ``None``: there is no task yet.

    Raises:
        StoreMismatchError: The store holds another task.
        StoreInUseError: Another process runs it.
        StoreDamagedError: It can't be told what the store holds.
    """
    seen = look(objects)
    if seen.task is None:
        return None
    _check_same(objects, seen.task, wanted)
    if seen.record is not None and seen.end is None:
        wait_for_owner(objects, seen.record)
        seen = look(objects)  # meanwhile it may have ended
    return (seen, *_verified(objects, seen))


@dataclass
class Opened:
    """A store that this process has taken.

    Attributes:
        objects: The store.
        record: Of this process's epoch.
        lease: Its signs of life.
        before: What stood there before.
        jobs: Those of earlier sessions; this one's are added.
        heads: Of the parts that are accepted.
        marks: Their circuits' fingerprints, 0 where unknown.
    """

    objects: Objects
    record: EpochRecord
    lease: Lease
    before: Look
    jobs: JobLog
    heads: Mapping[PartName, Head]
    marks: Mapping[PartName, NDArray[np.uint64]]

    def finish(self, end: EndRecord) -> None:
        """End the epoch in good order, with all that isn't named removed.

        Raises:
            StoreTakenError: Another process has taken the store; this one's rows of late don't count.
        """
        epoch = self.record.epoch
        self.lease.check()
        self.objects.replace(_jobs_name(epoch), _pack_jobs(self.jobs.table()))
        self.objects.create(end_name(epoch), pack_end(end))
        # Only what nobody can have taken for a row that counts is removed: another process that took over while
        # this one was held up may have named what this one doesn't.
        self.lease.check()
        self.sweep(end.taken)
        tables = [entry.name for entry in self.objects.entries("jobs")]
        self.objects.remove([name for name in tables if _number(name) < epoch])
        self.lease.stop()
        self.objects.remove([beat_name(epoch), cancel_name(epoch)])

    def give_back(self, taken: Sequence[Taken] | None = None) -> None:
        """End the epoch without having run anything: the task is as far as it was.

        Args:
            taken: The rows that count from now on; ``None``: the same parts as before.
        """
        old, total = self.before.end, self.record.total
        whole = total is not None and not Ranges(item[:2] for item in self.record.accepted).rest(0, total)
        state = "done" if whole else "interrupted" if old is None else old.state
        end = EndRecord(
            epoch=self.record.epoch,
            state=state,
            error=None if whole or old is None else old.error,
            ended=time.time(),
            taken=self.record.accepted if taken is None else taken,
            total=total,
            # Without one it is made from the rows.
            status=old.status if old is not None and old.state == state else {},
        )
        try:
            self.finish(end)
        finally:
            self.lease.stop()

    @contextmanager
    def given_back_if_it_fails(self) -> Iterator[None]:
        """Give the store back if what is done within raises."""
        try:
            yield
        except BaseException:
            self.give_back()
            raise

    def sweep(self, taken: Sequence[Taken]) -> None:
        """Remove parts that don't count, of this epoch and earlier ones, and what earlier owners said."""
        epoch = self.record.epoch
        named = {item.part for item in taken}
        stale = [
            part.path for part in _parts_since(self.objects, 0) if part not in named and part.epoch <= epoch
        ]
        for folder in ("beats", "cancels"):
            names = [entry.name for entry in self.objects.entries(folder)]
            stale += [name for name in names if _number(name) < epoch]
        self.objects.remove(stale)


def take(objects: Objects, wanted: TaskRecord | None, backends: Sequence[str], total: int | None) -> Opened:
    """Take a store, to go on with its task or to begin it.

    Args:
        objects: The store.
        wanted: What the task should be; ``None``: whatever it is.
        backends: Names of those that it will run on; empty: nothing will be run.
        total: Circuits of the task, as far as known.

    Raises:
        StoreMismatchError: The store holds another task.
        StoreInUseError: Another process runs it.
        StoreDamagedError: It can't be told what the store holds.
    """
    with _named(objects):
        stored = read_task(objects.read(TASK))
    with this_process() as owner:
        record, seen, heads, marks = _epoch(objects, owner, wanted, backends, total)
        lease = Lease(objects, record)
    opened = Opened(objects, record, lease, seen, JobLog(), heads, marks)
    try:
        opened.jobs = _jobs_and(objects, heads)
        if stored is None:
            objects.replace(TASK, pack_task(record.task))
        objects.sweep(FOLDERS)
        opened.sweep(opened.record.accepted)
    except BaseException:
        opened.lease.stop()
        raise
    return opened


def _epoch(
    objects: Objects, owner: Owner, wanted: TaskRecord | None, backends: Sequence[str], total: int | None
) -> tuple[EpochRecord, Look, dict[PartName, Head], dict[PartName, NDArray[np.uint64]]]:
    """Make the record of the next epoch, once the last one is over."""
    waited = 0
    while True:
        seen = look(objects)
        task = seen.task or wanted
        if task is None:
            raise StoreDamagedError(f"store {objects.place} holds no task: {TASK} isn't there.")
        if wanted is not None:
            _check_same(objects, task, wanted)
        if seen.record is not None and seen.end is None and seen.record.epoch != waited:
            wait_for_owner(objects, seen.record)
            waited = seen.record.epoch
            continue  # meanwhile it may have ended, or another process may have been faster
        while True:
            taken, heads, marks = _verified(objects, seen)
            record = EpochRecord(
                epoch=seen.newest + 1,
                owner=owner,
                began=time.time(),
                task=task,
                backends=backends or (() if seen.record is None else seen.record.backends),
                accepted=taken,
                total=seen.total if total is None else total,
            )
            if not objects.create(epoch_name(record.epoch), pack_epoch(record)):
                break
            # One that was only held up may have ended meanwhile, and removed parts that this has named.
            late = (
                None
                if seen.record is None or seen.end is not None
                else read_end(objects.read(end_name(seen.record.epoch)))
            )
            if late is None:
                return record, seen, heads, marks
            seen = replace(seen, end=late, parts=[], newest=record.epoch)


def _check_same(objects: Objects, stored: TaskRecord, given: TaskRecord) -> None:
    """Make sure that a call means the task of the store.

    Raises:
        StoreMismatchError: It doesn't.
    """
    for name, now in {**given.identity}.items():
        before = stored.seed if name == "seed" else stored.identity.get(name)
        if json.dumps(before, sort_keys=True) != json.dumps(now, sort_keys=True):
            raise StoreMismatchError(
                name,
                before,
                now,
                f"store {objects.place} holds task {stored.task_id} with {name} {_shown(before, now)}; this call has "
                f"{_shown(now, before)}. Give what it was to go on with that task, or another store for a new one.",
            )


def jobs_of(objects: Objects, seen: Look) -> JobLog:
    """The jobs of a task: those of its newest table, and those of parts that have come since."""
    table = None if seen.end is None else _unpack_jobs(objects.read(_jobs_name(seen.end.epoch)))
    if table is not None:
        return JobLog(table)
    return _jobs_and(objects, heads_of(objects, [item.part for item in seen.taken]))


def _jobs_and(objects: Objects, heads: Mapping[PartName, Head]) -> JobLog:
    numbers = sorted((_number(entry.name) for entry in objects.entries("jobs")), reverse=True)
    tables = (_unpack_jobs(objects.read(_jobs_name(number))) for number in numbers)
    log = JobLog(next((table for table in tables if table is not None), None))
    known = set(log.places())
    found = {
        (job.backend, job.job_id): job
        for head in heads.values()
        for job in head.jobs
        if (job.backend, job.job_id) not in known
    }
    for job in sorted(found.values(), key=lambda job: (job.ended or 0.0, job.job_id or "")):
        log.add(job)
    return log


def heads_of(objects: Objects, parts: Sequence[PartName]) -> dict[PartName, Head]:
    """What parts say of themselves; those that can't be read are left out."""

    def head(part: PartName) -> Head | None:
        try:
            return PartReader(objects.reader(part.path)).head
        except (FileNotFoundError, TornPartError):
            return None

    unique = list(dict.fromkeys(parts))
    return {
        part: found for part, found in zip(unique, _mapped(head, unique), strict=True) if found is not None
    }


def _verified(
    objects: Objects, seen: Look
) -> tuple[list[Taken], dict[PartName, Head], dict[PartName, NDArray[np.uint64]]]:
    """The rows that count and are whole, with the heads and fingerprints of their parts."""
    heads: dict[PartName, Head] = {}
    marks: dict[PartName, NDArray[np.uint64]] = {}
    bad: set[PartName] = set()

    def check(part: PartName) -> tuple[Head, NDArray[np.uint64]] | None:
        data = objects.read(part.path)
        try:
            found = None if data is None else verify(data)
        except TornPartError:
            return None
        return found if found is not None and found[0][:2] == (part.start, part.stop) else None

    while True:
        now = replace(seen, parts=[part for part in seen.parts if part not in bad])
        taken = [item for item in now.taken if item.part not in bad]
        new = [part for part in dict.fromkeys(item.part for item in taken) if part not in heads]
        for part, found in zip(new, _mapped(check, new), strict=True):
            if found is None:
                bad.add(part)
            else:
                heads[part], marks[part] = found
        # Where a torn part goes, another one of the same circuits may come in.
        if not bad.intersection(new):
            return taken, heads, marks


def _mapped(function: Callable[[PartName], Any], parts: Sequence[PartName]) -> list[Any]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(function, parts))


def _parts_since(objects: Objects, epoch: int) -> list[PartName]:
    names = (PartName.parse(entry.name) for entry in objects.entries("parts"))
    return [name for name in names if name is not None and name.epoch >= epoch]


def _number(name: str) -> int:
    """The epoch of a record; 0 if it is none of ours."""
    stem = name.rpartition("/")[2].partition(".")[0]
    return int(stem) if stem.isascii() and stem.isdecimal() else 0


def _jobs_name(epoch: int) -> str:
    return f"jobs/{epoch}.parquet"


def _pack_jobs(jobs: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(jobs, sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _unpack_jobs(data: bytes | None) -> pa.Table | None:
    """A table of jobs; ``None`` if it isn't there or is torn."""
    try:
        table = None if data is None else pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError):
        return None
    if table is None:
        return None
    for field in JOBS_SCHEMA:
        if field.name not in table.schema.names:  # written before there was such a column
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.replace_schema_metadata(None).select(JOBS_SCHEMA.names).cast(JOBS_SCHEMA)


def _shown(value: object, other: object) -> str:
    """A value for people; of a mapping what differs from another one."""
    text = repr(value)
    if isinstance(value, Mapping) and isinstance(other, Mapping):
        text = (
            ", ".join(f"{key} {of!r}" for key, of in value.items() if other.get(key) != of) or "nothing of it"
        )
    return text if len(text) <= 200 else f"{text[:200]}..."
