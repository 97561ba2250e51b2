"""Many small parts made few large ones."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import pyarrow as pa

from ray_qjm.results.counts import jobs_named
from ray_qjm.results.joining import first_circuit
from ray_qjm.results.objects import Objects
from ray_qjm.results.part_files import Head, decode, encode, fingerprints_of, own_columns
from ray_qjm.results.report import clipped, merge
from ray_qjm.results.store import Opened, take
from ray_qjm.results.winners import PartName, Taken

#: A file has so many rows, or bytes in memory, at most; it is written whole, from memory.
MOST_ROWS = 2**18
MOST_BYTES = 2**27
#: Parts that are held while their rows are gathered.
_KEPT = 4


def compact(objects: Objects) -> None:
    """Join the parts of a stored task into large ones, and remove what doesn't count any more.

    Killed at any moment it leaves the rows as they were: the new parts count only once all are written and
    named, and the old ones are removed only then.

    Raises:
        StoreInUseError: Another process runs the task, or does the same.
        StoreError: The store is damaged, or doesn't take the new parts.
    """
    opened = take(objects, None, (), None)
    with opened.given_back_if_it_fails():
        taken = [_written(opened, group) for group in _groups(opened)]
    opened.give_back(taken)


def _groups(opened: Opened) -> Iterator[list[tuple[Taken, Head, pa.RecordBatch]]]:
    """The rows that count, in runs of contiguous circuits that fit into one file."""
    group: list[tuple[Taken, Head, pa.RecordBatch]] = []
    rows = size = 0
    last: OrderedDict[PartName, tuple[Head, pa.RecordBatch]] = OrderedDict()
    for item in opened.record.accepted:
        # Rows that were replaced lie between others of a large part: it is read once for all.
        if item.part not in last:
            data = opened.objects.read(item.part.path)
            assert data is not None  # verified when the store was taken, and it is ours since
            last[item.part] = decode(data)
            while len(last) > _KEPT:
                last.popitem(last=False)
        last.move_to_end(item.part)
        head, whole = last[item.part]
        batch = whole.slice(item.start - item.part.start, item.stop - item.start)
        full = rows + batch.num_rows > MOST_ROWS or size + batch.nbytes > MOST_BYTES
        if group and (full or group[-1][0].stop != item.start):
            yield group
            group, rows, size = [], 0, 0
        group.append((item, head, batch))
        rows, size = rows + batch.num_rows, size + batch.nbytes
    if group:
        yield group


def _written(opened: Opened, group: Sequence[tuple[Taken, Head, pa.RecordBatch]]) -> Taken:
    """One part for a run; the one that is there if it is one already."""
    first = group[0][0]
    if len(group) == 1 and (first.start, first.stop) == (first.part.start, first.part.stop):
        return first
    table = pa.Table.from_batches([batch for _, _, batch in group]).unify_dictionaries().combine_chunks()
    (batch,) = table.to_batches()
    ids = jobs_named(batch.column("job"))
    jobs = {(job.backend, job.job_id): job for _, head, _ in group for job in head.jobs if job.job_id in ids}
    failures = [
        failure for item, head, _ in group for failure in clipped(head.failures, item.start, item.stop)
    ]
    start = first_circuit(batch)
    name = PartName(opened.record.epoch, start, start + batch.num_rows)
    opened.objects.create(
        name.path,
        encode(
            own_columns(batch),
            fingerprints=fingerprints_of(batch),
            jobs=list(jobs.values()),
            job_ids=batch.column("job"),
            failures=merge(failures),
        ),
    )
    return Taken(name.start, name.stop, name)
