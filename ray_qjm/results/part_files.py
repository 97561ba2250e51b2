"""A part of a stored result: one Parquet object, which any Parquet reader opens.

It holds the rows of contiguous circuits, each with its fingerprint and the id of its job, and in its metadata
the jobs and what became of the circuits, so that a report needs no rows. A part is written whole, once, and
carries checksums: a torn one is absent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ray_qjm.results.jobs import Job
from ray_qjm.results.report import FailureRange

#: Version of this layout; a reader refuses a newer one.
FORMAT = 1

_KEY = b"ray_qjm"
# Parquet's checksums guard pages, not the headers between them nor the footer: of a zeroed byte there other rows
# may come. So the metadata holds a digest of the whole object, taken with zeros in its place.
_SEAL = b'"digest":"'
_NO_DIGEST = "0" * 32
_JOB, _FINGERPRINT = "job", "fingerprint"

#: Rows of a row group: what reading one circuit has to read and decode.
ROW_GROUP = 1024

#: Good compression at little time: a chunk of 300 circuits takes a millisecond.
_COMPRESSION = "zstd"


class Head(NamedTuple):
    """What a part says of itself, without its rows.

    Attributes:
        start: First circuit.
        stop: One past the last.
        jobs: Those that ran them.
        failures: Circuits without all their counts, with the reasons.
    """

    start: int
    stop: int
    jobs: tuple[Job, ...]
    failures: tuple[FailureRange, ...]


class TornPartError(ValueError):
    """The bytes are no whole part: the writer was killed, or the disk lost some."""


def encode(
    batch: pa.RecordBatch,
    *,
    fingerprints: NDArray[np.uint64] | None = None,
    jobs: Sequence[Job] = (),
    job_ids: pa.Array[Any] | None = None,
    failures: Sequence[FailureRange] = (),
) -> bytes:
    """A part as the bytes of a Parquet file.

    Args:
        batch: Rows of contiguous circuits, all columns but ``jobs``.
        fingerprints: Of the circuits: uint64 of shape ``(rows,)``, 0 where unknown; ``None``: all are.
        jobs: Those that ran them.
        job_ids: Each row's, as strings; ``None``: all rows have the first of ``jobs``, or none if there are none.
        failures: Those of its circuits that failed.
    """
    start = batch.column("circuit")[0].as_py()
    if fingerprints is None:
        fingerprints = np.zeros(batch.num_rows, np.uint64)
    marks = pa.array(fingerprints, mask=fingerprints == 0)
    if job_ids is None:
        known = pa.array([job.job_id for job in jobs[:1]], pa.string())
        codes = np.zeros(batch.num_rows, np.int32)
        job_ids = pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes == len(known)), known)
    table = pa.Table.from_batches([batch]).append_column(_JOB, job_ids).append_column(_FINGERPRINT, marks)
    head = {
        "format": FORMAT,
        "start": start,
        "stop": start + batch.num_rows,
        "jobs": jobs,
        "failures": [vars(failure) for failure in failures],
        "digest": _NO_DIGEST,
    }
    table = table.replace_schema_metadata({_KEY: json.dumps(head, separators=(",", ":"))})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=ROW_GROUP, compression=_COMPRESSION, write_page_checksum=True)
    return _sealed(sink.getvalue().to_pybytes())


def _sealed(data: bytes) -> bytes:
    """The bytes with their own digest in place of the zeros that stand for it."""
    before, _, after = data.rpartition(_NO_DIGEST.encode())
    return before + _digest(data) + after


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=len(_NO_DIGEST) // 2).hexdigest().encode()


def _check_seal(data: bytes) -> None:
    start = data.rfind(_SEAL) + len(_SEAL)
    stop = start + len(_NO_DIGEST)
    if start < len(_SEAL) or data[start:stop] != _digest(data[:start] + _NO_DIGEST.encode() + data[stop:]):
        raise TornPartError("the bytes aren't those that were written: their digest is another.")


def head_of(metadata: Any) -> Head:
    """What stands in the metadata of a part.

    Args:
        metadata: ``pyarrow.parquet.FileMetaData``.

    Raises:
        TornPartError: It isn't the metadata of a part.
    """
    try:
        found = json.loads(metadata.metadata[_KEY])
        if found["format"] > FORMAT:
            raise TornPartError(f"the part has format {found['format']}; this version reads up to {FORMAT}.")
        jobs = tuple(Job(*job) for job in found["jobs"])
        failures = tuple(FailureRange(**failure) for failure in found["failures"])
        return Head(found["start"], found["stop"], jobs, failures)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise TornPartError(f"no metadata of a part ({type(error).__name__}: {error}).") from error


class PartReader:
    """A part, read row group by row group.

    Args:
        file: A Parquet file, open.

    Raises:
        TornPartError: It is no part; the methods too.
    """

    def __init__(self, file: Any) -> None:
        with _parsing():
            self._file = pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=True)
        self.head = head_of(self._file.metadata)

    def group(self, number: int) -> pa.RecordBatch:
        """The rows of a group, ``ROW_GROUP`` of them but for the last; ``job`` holds the ids of jobs."""
        with _parsing():
            return _one_batch(self._file.read_row_group(number))

    def rows(self, columns: Sequence[str] | None = None) -> pa.RecordBatch:
        """As ``group``, of all groups; some columns, or all."""
        with _parsing():
            return _one_batch(self._file.read(columns=None if columns is None else list(columns)))


def decode(data: bytes) -> tuple[Head, pa.RecordBatch]:
    """What ``encode`` was given, with its checksums verified.

    Returns:
        The head; the rows, with the columns ``job`` and ``fingerprint``, without ``jobs``.

    Raises:
        TornPartError: The bytes are no whole part.
    """
    head, reader = _verified(data)
    batch = reader.rows()
    if batch.num_rows != head.stop - head.start:
        raise TornPartError(f"{batch.num_rows} rows for the circuits {head.start}-{head.stop - 1}.")
    return head, batch


def verify(data: bytes) -> tuple[Head, NDArray[np.uint64]]:
    """The head and the fingerprints of a part: uint64 of shape ``(rows,)``, 0 where unknown.

    Raises:
        TornPartError: The bytes are no whole part.
    """
    head, reader = _verified(data)
    return head, fingerprints_of(reader.rows([_FINGERPRINT]))


def fingerprints_of(batch: pa.RecordBatch) -> NDArray[np.uint64]:
    """The fingerprints that ``encode`` was given: 0 where unknown."""
    marks: NDArray[np.uint64] = batch.column(_FINGERPRINT).fill_null(0).to_numpy(zero_copy_only=False)
    return marks


def own_columns(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows as they were before ``encode``."""
    return batch.drop_columns([name for name in (_JOB, _FINGERPRINT) if name in batch.schema.names])


def _verified(data: bytes) -> tuple[Head, PartReader]:
    _check_seal(data)
    reader = PartReader(pa.BufferReader(data))
    return reader.head, reader


@contextmanager
def _parsing() -> Iterator[None]:
    """Tell what the bytes lack from what the disk or the network does, which has a number."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        raise TornPartError(f"no whole Parquet file ({type(error).__name__}: {error}).") from error


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    # One batch, and dictionaries that hold for all of it.
    table = table.replace_schema_metadata(None).unify_dictionaries().combine_chunks()
    batches = table.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
