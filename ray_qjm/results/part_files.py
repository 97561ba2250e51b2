"""A part of a stored result: one Parquet object, which any Parquet reader opens.

It holds the rows of contiguous circuits, each with its fingerprint and job, and in its metadata what became of
them, so that a report needs no rows. A part is written whole, once, and carries checksums: a torn one is absent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
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
        job: The job that ran them.
        failures: Those without all their counts, with the reasons.
    """

    start: int
    stop: int
    job: Job
    failures: tuple[FailureRange, ...]


class TornPartError(ValueError):
    """The bytes are no whole part: the writer was killed, or the disk lost some."""


def encode(
    batch: pa.RecordBatch, fingerprints: NDArray[np.uint64] | None, job: Job, failures: Sequence[FailureRange]
) -> bytes:
    """A part as the bytes of a Parquet file.

    Args:
        batch: Rows of contiguous circuits, all columns but ``jobs``.
        fingerprints: Of the circuits: uint64 of shape ``(rows,)``; ``None`` where they are unknown.
        job: The job that ran them.
        failures: Those of its circuits that failed.
    """
    start = batch.column("circuit")[0].as_py()
    marks = pa.nulls(batch.num_rows, pa.uint64()) if fingerprints is None else pa.array(fingerprints)
    jobs = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(batch.num_rows, np.int32)), pa.array([job.job_id])
    )
    table = pa.Table.from_batches([batch]).append_column(_JOB, jobs).append_column(_FINGERPRINT, marks)
    head = {
        "format": FORMAT,
        "start": start,
        "stop": start + batch.num_rows,
        "job": job._asdict(),
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
        job = Job(**found["job"])
        failures = tuple(FailureRange(**failure) for failure in found["failures"])
        return Head(found["start"], found["stop"], job, failures)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise TornPartError(f"no metadata of a part ({type(error).__name__}: {error}).") from error


def decode(data: bytes) -> tuple[Head, pa.RecordBatch, NDArray[np.uint64] | None]:
    """What ``encode`` was given, with its checksums verified.

    Returns:
        The head; the rows, all columns but ``jobs``; the fingerprints, ``None`` if they are unknown.

    Raises:
        TornPartError: The bytes are no whole part.
    """
    _check_seal(data)
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        head = head_of(file.metadata)
        table = file.read().replace_schema_metadata(None)
        # One batch, and dictionaries that hold for all of it.
        batches = table.unify_dictionaries().combine_chunks().to_batches()
    except (pa.ArrowException, OSError) as error:
        raise TornPartError(f"no whole Parquet file ({type(error).__name__}: {error}).") from error
    rows = sum(batch.num_rows for batch in batches)
    if len(batches) != 1 or rows != head.stop - head.start:
        raise TornPartError(f"{rows} rows for the circuits {head.start}-{head.stop - 1}.")
    (batch,) = batches
    marks = batch.column(_FINGERPRINT)
    fingerprints = None if marks.null_count else marks.to_numpy()
    return head, batch.drop_columns([_JOB, _FINGERPRINT]), fingerprints
