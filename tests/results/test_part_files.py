"""A part comes back as it was, or is told to be torn; other tools read it too."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_qjm.results.counts import Row, pack
from ray_qjm.results.jobs import Job
from ray_qjm.results.part_files import (
    ROW_GROUP,
    Head,
    PartReader,
    TornPartError,
    decode,
    encode,
    fingerprints_of,
    head_of,
    own_columns,
    verify,
)
from ray_qjm.results.report import FailureRange

JOB = Job("t1-100-103", "aer", 100, 103, 0, "done", None, 1.5, 2.5, 3.5, 3, 2048, 0.75)
FAILED = FailureRange(101, 102, "failed", "ValueError", "no such angle \u2205", "build")


def rows(start: int = 100, count: int = 3, memory: bool = False) -> pa.RecordBatch:
    found = []
    for i in range(start, start + count):
        if i == 101:
            found.append(
                Row(i, "failed", stage="build", error_type="ValueError", error="no such angle \u2205")
            )
            continue
        counts = {hex(i % 30): 3, hex(31): 5}
        shots = [*[hex(i % 30)] * 3, *[hex(31)] * 5]
        found.append(
            Row(
                i,
                backend="aer",
                clbits=5,
                registers='[["c",[0,1,2,3,4]]]',
                counts=counts,
                shots_requested=8,
                memory=shots if memory else None,
                seed=2**63 + i,
                metadata={"i": i},
            )
        )
    return pack(found, memory=memory, extra={"t": [0.5] * count}, extra_types={"t": "float64"})


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("count", [1, 3, 3 * ROW_GROUP + 7])
def test_part_comes_back_as_it_was(count: int, memory: bool) -> None:
    batch = rows(count=count, memory=memory)
    marks = np.arange(count, dtype=np.uint64) + np.uint64(2**63)
    head, stored = decode(encode(batch, fingerprints=marks, jobs=[JOB], failures=[FAILED]))
    assert head == Head(100, 100 + count, (JOB,), (FAILED,))
    assert stored.column("job").to_pylist() == ["t1-100-103"] * count
    again = own_columns(stored)
    assert again.schema.equals(batch.schema)
    assert pa.Table.from_batches([again]).equals(pa.Table.from_batches([batch]))
    assert (fingerprints_of(stored) == marks).all()


def test_what_is_unknown_stays_unknown() -> None:
    """Fingerprints of circuits that couldn't be built, jobs of those that never were in one."""
    marks = np.array([7, 0, 9], np.uint64)
    head, stored = decode(encode(rows(), fingerprints=marks))
    assert fingerprints_of(stored).tolist() == [7, 0, 9]
    assert stored.column("fingerprint").to_pylist() == [7, None, 9]
    assert stored.column("job").to_pylist() == [None] * 3 and head.jobs == ()
    assert verify(encode(rows()))[1].tolist() == [0, 0, 0]


def test_rows_of_several_jobs() -> None:
    other = JOB._replace(job_id="t1-other")
    ids = pa.array(["t1-other", None, JOB.job_id])
    head, stored = decode(encode(rows(), jobs=[JOB, other], job_ids=ids))
    assert stored.column("job").to_pylist() == ["t1-other", None, JOB.job_id]
    assert head.jobs == (JOB, other)


def test_a_group_is_read_without_the_others() -> None:
    reader = PartReader(io.BytesIO(encode(rows(count=2 * ROW_GROUP + 5))))
    assert [reader.group(i).num_rows for i in range(3)] == [ROW_GROUP, ROW_GROUP, 5]
    assert reader.group(2).column("circuit")[0].as_py() == 100 + 2 * ROW_GROUP
    assert reader.rows(["shots"]).schema.names == ["shots"]


def test_head_is_read_without_the_rows() -> None:
    data = encode(rows(count=5000), jobs=[JOB], failures=[FAILED])
    assert head_of(pq.read_metadata(io.BytesIO(data))) == Head(100, 5100, (JOB,), (FAILED,))


@settings(max_examples=200)
@given(st.data())
def test_torn_parts_are_never_taken_for_whole(data: st.DataObject) -> None:
    """Cut short, or with some bytes zeroed or flipped, as after a power cut or a failing disk."""
    whole = encode(
        rows(count=300), fingerprints=np.arange(300, dtype=np.uint64), jobs=[JOB], failures=[FAILED]
    )
    decode(whole)
    kind = data.draw(st.sampled_from(["cut", "zeroed", "flipped"]))
    at = data.draw(st.integers(0, len(whole) - 1))
    torn = bytearray(whole)
    if kind == "cut":
        del torn[at:]
    elif kind == "zeroed":
        size = data.draw(st.integers(1, 4096))
        torn[at : at + size] = bytes(len(torn[at : at + size]))
    else:
        torn[at] ^= data.draw(st.integers(1, 255))
    if torn == whole:  # zeros where there were zeros
        return
    with pytest.raises(TornPartError):
        decode(bytes(torn))


@pytest.mark.parametrize("data", [b"", b"PAR1", b"x" * 100])
def test_other_bytes_are_no_part(data: bytes) -> None:
    with pytest.raises(TornPartError):
        decode(data)


def test_a_parquet_file_of_someone_else_is_no_part() -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"circuit": [1]}), sink)
    with pytest.raises(TornPartError):
        decode(sink.getvalue())
    with pytest.raises(TornPartError, match="no metadata of a part"):
        head_of(pq.read_metadata(sink))


def test_duckdb_and_polars_read_it(tmp_path: Path) -> None:
    import duckdb
    import polars as pl

    path = tmp_path / "100-103.parquet"
    path.write_bytes(encode(rows(), fingerprints=np.arange(3, dtype=np.uint64), jobs=[JOB]))
    sql = f"SELECT circuit, job, list_sum(counts) AS n FROM '{path}' ORDER BY circuit"
    assert duckdb.execute(sql).fetchall() == [
        (100, "t1-100-103", 8),
        (101, "t1-100-103", None),
        (102, "t1-100-103", 8),
    ]
    assert pl.read_parquet(path)["status"].to_list() == ["done", "failed", "done"]
