"""A result in the words of other libraries; each is imported only when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ray_qjm.results.schema import MAX_NARROW_CLBITS, WITH_COUNTS
from ray_qjm.results.views import parse_registers

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    import polars as pl
    from numpy.typing import NDArray
    from qiskit.primitives import PrimitiveResult
    from qiskit.result import Result
    from qiskit.result.models import ExperimentResult

    from ray_qjm.results.task_result import TaskResult
    from ray_qjm.results.views import CircuitResult


def to_long(result: TaskResult, columns: Sequence[str]) -> pa.Table:
    """One row an outcome; see ``TaskResult.to_long``."""
    table = result.table
    counts = (
        table.column("counts").combine_chunks() if table.num_rows else pa.array([], pa.large_list(pa.int32()))
    )
    if isinstance(counts, pa.ChunkedArray):  # which of the two it is differs between versions of pyarrow
        counts = pa.concat_arrays(counts.chunks)
    lengths = np.diff(counts.offsets.to_numpy())
    parents = pa.array(np.repeat(np.arange(len(lengths)), lengths))
    long = {"circuit": table.column("circuit").take(parents)}
    long.update({name: table.column(name).take(parents) for name in columns})
    wide = table.column("outcomes_wide").is_valid().to_numpy()
    if not wide.any():
        long["outcome"] = _flat(table, "outcomes", pa.uint64())
    else:
        is_wide = np.repeat(wide, lengths)
        long["outcome"] = _flat(table, "outcomes", pa.uint64()).take(_positions(~is_wide))
        long["outcome_wide"] = _flat(table, "outcomes_wide", pa.binary()).take(_positions(is_wide))
    long["count"] = counts.flatten()
    return pa.table(long)


def _flat(table: pa.Table, column: str, kind: pa.DataType) -> pa.ChunkedArray[Any]:
    return pa.chunked_array([chunk.flatten() for chunk in table.column(column).chunks], type=kind)


def _positions(present: NDArray[np.bool_]) -> pa.Array[Any]:
    """Where each row finds its value in the values of the present ones; null for the others."""
    return pa.array(np.cumsum(present) - 1, mask=~present)


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """See ``TaskResult.to_pandas``."""
    import pandas as pd

    # pandas' own integers know no null: one failed circuit would turn shots and seeds into floats,
    # and a float doesn't hold every 64-bit seed.
    integers = {
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
        pa.uint64(): pd.UInt64Dtype(),
    }
    frame: pd.DataFrame = table.to_pandas(types_mapper=integers.get)
    return frame


def to_polars(table: pa.Table) -> pl.DataFrame:
    """See ``TaskResult.to_polars``."""
    import polars as pl

    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # a Series comes of a single array only
    return frame


def to_ray_dataset(table: pa.Table) -> Any:
    """See ``TaskResult.to_ray_dataset``."""
    import ray.data

    # One block a part: Ray Data works on blocks in parallel.
    blocks = [pa.Table.from_batches([batch]) for batch in table.to_batches()]
    return ray.data.from_arrow(blocks or [table])


def to_qiskit(result: TaskResult) -> Result:
    """See ``TaskResult.to_qiskit``."""
    from qiskit.result import Result

    experiments = [_experiment(row) for row in result]
    backends = sorted({row for row in result.column("backend").unique().to_pylist() if row is not None})
    return Result(
        backend_name=", ".join(backends) or None,
        backend_version=None,
        job_id=result.info.get("task_id"),
        success=all(experiment.success for experiment in experiments),
        results=experiments,
        status="COMPLETED" if all(row.success for row in experiments) else "PARTIAL COMPLETED",
    )


def _experiment(row: CircuitResult) -> ExperimentResult:
    from qiskit.result.models import ExperimentResult, ExperimentResultData

    header = {
        # Not circuit-<n>: the user's own circuit of that automatic name would find this row.
        "name": row.name if row.name is not None else f"row-{row.circuit}",
        "memory_slots": row.clbits or 0,
        "creg_sizes": [[name, len(bits)] for name, bits in row.registers.items()],
        "metadata": row.metadata,
    }
    done = row.status in WITH_COUNTS
    data: dict[str, Any] = {}
    if done:
        data["counts"] = {hex(value): count for value, count in row.int_counts().items()}
        if row.has_memory:
            data["memory"] = [hex(value) for value in row.int_memory()]
    return ExperimentResult(
        shots=row.shots or 0,
        success=done,
        data=ExperimentResultData(**data),
        status=row.status.upper() if done else f"{row.status.upper()}: {row.error_type}: {row.error}",
        seed=row.seed,
        header=header,
    )


def to_primitive_result(result: TaskResult) -> PrimitiveResult[Any]:
    """See ``TaskResult.to_primitive_result``."""
    from qiskit.primitives import BitArray, DataBin, PrimitiveResult, SamplerPubResult

    pubs = []
    for row in result:
        bits = _bits(row)
        data = {
            name: BitArray.from_bool_array(bits[:, list(clbits)], order="little")
            if clbits
            else BitArray(np.zeros((len(bits), 0), np.uint8), num_bits=0)
            for name, clbits in parse_registers(row["registers"])
        }
        metadata = {"shots": len(bits), "circuit_metadata": row.metadata}
        pubs.append(SamplerPubResult(DataBin(**data), metadata=metadata))
    return PrimitiveResult(pubs, metadata={"version": 2, "task_id": result.info.get("task_id")})


def _bits(row: CircuitResult) -> NDArray[np.bool_]:
    """Every shot's clbits, shape (shots, clbits).

    All registers are cut from the same shots, so that correlations between them survive. Without
    memory the shots stand in order of outcome: only counts were kept.
    """
    if row.has_memory:
        outcomes, repeats = row.int_memory(), None
    else:
        counts = row.int_counts()
        outcomes, repeats = list(counts), np.fromiter(counts.values(), np.int64, len(counts))
    clbits = row.clbits or 0
    if clbits <= MAX_NARROW_CLBITS:
        numbers = np.array(outcomes, dtype=np.uint64).astype(">u8")
        packed = numbers.view(np.uint8).reshape(len(outcomes), 8)
    else:
        size = (clbits + 7) // 8
        text = b"".join(value.to_bytes(size, "big") for value in outcomes)
        packed = np.frombuffer(text, np.uint8).reshape(len(outcomes), size)
    bits = np.unpackbits(packed, axis=1)[:, ::-1][:, :clbits].astype(np.bool_)
    return bits if repeats is None else np.repeat(bits, repeats, axis=0)
