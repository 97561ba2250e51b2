"""The columns of a result: one row a circuit.

Parallel lists of integers instead of lists of structs: Polars and pandas explode them 5-38 times
faster in the same room, and integers give Pauli-Z parities in SQL. A circuit of up to 64 clbits
has its outcomes in ``outcomes``, a wider one in ``outcomes_wide``: one column that changed its type
from part to part would break concatenation, DuckDB and Polars.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ray_qjm.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

# The order of these is also their code in the dictionary columns, the same in every part.
STATUSES = ("done", "partial", "failed", "cancelled")
# Where a circuit can fail; a job that a service has taken, and that ends there for no circuit's fault, fails to finish.
STAGES = ("build", "transpile", "run", "submit", "finish")
WITH_COUNTS = frozenset({"done", "partial"})
MAX_NARROW_CLBITS = 64

# What stands in every table's metadata beside the task's own facts.
TABLE_INFO: dict[str, str] = {
    "schema_version": "1",
    "bit_order": "clbit i is bit i of an outcome; outcomes_wide is big-endian, so clbit 0 ends it",
    "sql": (
        "SELECT circuit, unnest(outcomes) AS outcome, unnest(counts) AS n FROM result; "
        "the parity of clbits 0 and 2 is bit_count(outcome & 5) % 2"
    ),
}

# 32-bit offsets would break concatenation past 2**31 outcomes: large lists.
_OUTCOMES = pa.large_list(pa.uint64())
_OUTCOMES_WIDE = pa.large_list(pa.binary())
_INT32S = pa.large_list(pa.int32())
_TIME = pa.timestamp("us", tz="UTC")
EXTRA_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
}

_HEAD: list[pa.Field[Any]] = [
    pa.field("circuit", pa.int64(), nullable=False),
    pa.field("name", pa.string()),
    pa.field("status", pa.dictionary(pa.int8(), pa.string())),
    pa.field("stage", pa.dictionary(pa.int8(), pa.string())),
    pa.field("error_type", pa.dictionary(pa.int16(), pa.string())),
    pa.field("error", pa.string()),
    pa.field("backend", pa.dictionary(pa.int16(), pa.string())),
    pa.field("clbits", pa.int32()),
    pa.field("registers", pa.dictionary(pa.int32(), pa.string())),
    pa.field("shots_requested", pa.int64()),
    pa.field("shots", pa.int64()),
    pa.field("seed", pa.uint64()),
    pa.field("jobs", _INT32S),
    pa.field("outcomes", _OUTCOMES),
    pa.field("outcomes_wide", _OUTCOMES_WIDE),
    pa.field("counts", _INT32S),
]
_MEMORY: list[pa.Field[Any]] = [pa.field("memory", _OUTCOMES), pa.field("memory_wide", _OUTCOMES_WIDE)]
_TAIL: list[pa.Field[Any]] = [pa.field("metadata", pa.string())]

# Names no column of the user's may have, those of the memory columns with memory=False too: what
# works without memory must work with it.
OWN_COLUMNS = frozenset(field.name for field in [*_HEAD, *_MEMORY, *_TAIL])

JOBS_SCHEMA = pa.schema(
    [
        pa.field("job_id", pa.string()),
        pa.field("backend", pa.string()),
        pa.field("start", pa.int64()),
        pa.field("stop", pa.int64()),
        pa.field("attempt", pa.int32()),
        pa.field("state", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("submitted", _TIME),
        pa.field("started", _TIME),
        pa.field("ended", _TIME),
        pa.field("circuits", pa.int64()),
        pa.field("shots", pa.int64()),
        pa.field("seconds", pa.float64()),
        pa.field("usage_s", pa.float64()),
    ]
)


def schema(*, memory: bool = False, extra_types: Mapping[str, str] | None = None) -> pa.Schema:
    """The table's schema.

    Args:
        memory: Whether every shot is kept.
        extra_types: Further columns, which stand at the end: name to ``"string"``, ``"int64"``,
            ``"float64"`` or ``"bool"``.

    Raises:
        InvalidInputError: A further column has the name of one of the table's own, or an unknown type.
    """
    fields = [*_HEAD, *(_MEMORY if memory else ()), *_TAIL]
    for name, kind in (extra_types or {}).items():
        if name in OWN_COLUMNS:
            raise InvalidInputError(
                f"column {name!r} is one of the result's own: rename the parameter or column."
            )
        if kind not in EXTRA_TYPES:
            known = ", ".join(EXTRA_TYPES)
            raise InvalidInputError(f"column {name!r} has type {kind!r}; known are {known}.")
        fields.append(pa.field(name, EXTRA_TYPES[kind]))
    return pa.schema(fields)
