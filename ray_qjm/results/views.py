"""Reading single rows: the way back from Arrow's columns to Qiskit's words."""

from __future__ import annotations

import json
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from ray_qjm.errors import CircuitFailedError, InvalidInputError
from ray_qjm.results.schema import MAX_NARROW_CLBITS, WITH_COUNTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

Registers = tuple[tuple[str, tuple[int, ...]], ...]


@lru_cache(maxsize=4096)
def parse_registers(text: str | None) -> Registers:
    """The registers of a row: name and clbits of each."""
    return tuple((name, tuple(clbits)) for name, clbits in json.loads(text or "[]"))


@lru_cache(maxsize=4096)
def formatter(clbits: int, registers: str | None) -> Callable[[int], str]:
    """The text that Qiskit's ``Result.get_counts`` gives an outcome.

    Qiskit cuts the whole bit string from the left by the sizes of the registers, last register
    first, and never asks which clbits a register has. With aliased registers the pieces run out
    early; where loose clbits make the string longer than the registers, its right end is dropped.
    """
    sizes = [len(bits) for _, bits in reversed(parse_registers(registers))]
    template = f"0{clbits}b" if clbits else "b"
    if not sizes:
        return lambda value: format(value, template)
    cuts = []
    start = 0
    for size in sizes:
        cuts.append(slice(start, start + size))
        start += size

    def text(value: int) -> str:
        bits = format(value, template)
        return " ".join([bits[cut] for cut in cuts])

    return text


class Part:
    """A record batch of contiguous circuits, read through NumPy views of its buffers.

    Asking Arrow for one row costs some ten scalars of a microsecond each; the views cost nothing
    until they are needed, and copy nothing.

    Args:
        batch: All columns of the schema; or all but ``jobs``, with ``complete``.
        start: Its first circuit.
        complete: Adds the column ``jobs``, which takes another look into a store.

    Attributes:
        raw: The batch as it was given.
        start: Its first circuit.
    """

    def __init__(
        self,
        batch: pa.RecordBatch,
        start: int,
        complete: Callable[[pa.RecordBatch], pa.RecordBatch] | None = None,
    ) -> None:
        self.raw = batch
        self._complete = complete
        self.start = start

    @cached_property
    def batch(self) -> pa.RecordBatch:
        """All columns of the schema."""
        return self.raw if self._complete is None else self._complete(self.raw)

    @property
    def stop(self) -> int:
        """One past the last circuit."""
        rows: int = self.raw.num_rows
        return self.start + rows

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        names: list[str] = self.raw.schema.names
        return names if self._complete is None else [*names, "jobs"]

    def has(self, column: str, row: int) -> bool:
        """Whether a row has a value in a column, and there is such a column."""
        return column in self.names and bool(self.raw.column(column)[row].is_valid)

    def value(self, column: str, row: int) -> Any:
        """One value of a column."""
        batch = self.batch if column == "jobs" else self.raw
        return batch.column(column)[row].as_py()

    @cached_property
    def have_counts(self) -> NDArray[np.bool_]:
        """Which rows have counts."""
        return self._numpy(self.raw.column("counts").is_valid())

    @cached_property
    def wide(self) -> NDArray[np.bool_]:
        """Which rows have their outcomes in the wide column."""
        return self._numpy(self.raw.column("outcomes_wide").is_valid())

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Where each row's counts begin, and the end."""
        return self._numpy(self.raw.column("counts").offsets)

    @cached_property
    def counts(self) -> NDArray[np.int32]:
        """All counts of all rows."""
        return self._numpy(self.raw.column("counts").values)

    def numbers(self, column: str, row: int) -> Sequence[int]:
        """The outcomes (or with ``"memory"`` the shots) of a row, as numbers."""
        if (self.value("clbits", row) or 0) > MAX_NARROW_CLBITS:
            items = self.raw.column(f"{column}_wide")[row].as_py()
            return [int.from_bytes(item, "big") for item in items]
        offsets, values = self._narrow[column]
        numbers: list[int] = values[offsets[row] : offsets[row + 1]].tolist()
        return numbers

    @cached_property
    def _narrow(self) -> dict[str, tuple[NDArray[np.int64], NDArray[np.uint64]]]:
        return {
            name: (self._numpy(self.raw.column(name).offsets), self._numpy(self.raw.column(name).values))
            for name in ("outcomes", "memory")
            if name in self.raw.schema.names
        }

    @staticmethod
    def _numpy(array: pa.Array[Any]) -> NDArray[Any]:
        values: NDArray[Any] = array.to_numpy(zero_copy_only=False)
        return values


class CircuitResult:
    """One row of a result. Nothing is read before it is asked for.

    ``result[17]`` prints as::

        CircuitResult(circuit=17, status='done', backend='aer', clbits=2, shots=1024, outcomes=2)
    """

    __slots__ = ("_part", "_row")

    def __init__(self, part: Part, row: int) -> None:
        self._part = part
        self._row = row

    def __getitem__(self, column: str) -> Any:
        """The row's value in any column of the table, such as a sweep's parameter."""
        if column not in self._part.names:
            names = ", ".join(self._part.names)
            raise KeyError(f"no column {column!r}; there are {names}")
        return self._part.value(column, self._row)

    @property
    def circuit(self) -> int:
        """Row number."""
        return self._part.start + self._row

    @property
    def name(self) -> str | None:
        """The circuit's name, unless Qiskit gave it."""
        name: str | None = self["name"]
        return name

    @property
    def status(self) -> str:
        """``"done"``, ``"partial"``, ``"failed"`` or ``"cancelled"``."""
        status: str = self["status"]
        return status

    @property
    def stage(self) -> str | None:
        """``"build"``, ``"transpile"`` or ``"run"``: where it failed, if it did and this is known."""
        stage: str | None = self["stage"]
        return stage

    @property
    def error_type(self) -> str | None:
        """Name of the exception's type, if it failed."""
        kind: str | None = self["error_type"]
        return kind

    @property
    def error(self) -> str | None:
        """The exception's message, if it failed."""
        error: str | None = self["error"]
        return error

    @property
    def backend(self) -> str | None:
        """Name of the backend that ran it."""
        backend: str | None = self["backend"]
        return backend

    @property
    def clbits(self) -> int | None:
        """Number of classical bits, loose ones included."""
        clbits: int | None = self["clbits"]
        return clbits

    @property
    def registers(self) -> dict[str, list[int]]:
        """The clbits of each classical register, lowest first."""
        return {name: list(bits) for name, bits in parse_registers(self["registers"])}

    @property
    def shots_requested(self) -> int:
        """Shots asked for."""
        shots: int = self["shots_requested"]
        return shots

    @property
    def shots(self) -> int | None:
        """Shots run."""
        shots: int | None = self["shots"]
        return shots

    @property
    def seed(self) -> int | None:
        """The simulator's seed, where the backend tells one."""
        seed: int | None = self["seed"]
        return seed

    @property
    def jobs(self) -> list[int]:
        """Its rows of the result's table of jobs."""
        jobs: list[int] = self["jobs"] or []
        return jobs

    @property
    def metadata(self) -> dict[str, Any]:
        """The circuit's own metadata, as it came through JSON."""
        metadata: dict[str, Any] = json.loads(self["metadata"] or "{}")
        return metadata

    def counts(self) -> dict[str, int]:
        """Counts by bit string, as ``TaskResult.get_counts``.

        Raises:
            CircuitFailedError: It has none.
        """
        text = formatter(self.clbits or 0, self["registers"])
        found: dict[str, int] = {}
        for value, count in self.int_counts().items():
            key = text(value)
            # Adds only where Qiskit's text drops a loose clbit; Qiskit lets the last one win.
            found[key] = found.get(key, 0) + count
        return found

    def int_counts(self) -> dict[int, int]:
        """Counts by outcome: bit i of the number is clbit i, whatever the registers.

        Raises:
            CircuitFailedError: It has none.
        """
        part, row = self._part, self._row
        self._check()
        counts: list[int] = part.counts[part.offsets[row] : part.offsets[row + 1]].tolist()
        return dict(zip(part.numbers("outcomes", row), counts, strict=True))

    @property
    def has_memory(self) -> bool:
        """Whether its single shots were kept."""
        return any(self._part.has(name, self._row) for name in ("memory", "memory_wide"))

    def memory(self) -> list[str]:
        """The bit string of every shot, in shot order.

        Raises:
            InvalidInputError: The task didn't keep them.
            CircuitFailedError: It has none.
        """
        text = formatter(self.clbits or 0, self["registers"])
        return [text(value) for value in self.int_memory()]

    def int_memory(self) -> list[int]:
        """The outcome of every shot as a number, in shot order; raises as ``memory``."""
        if "memory" not in self._part.names:
            raise InvalidInputError("the single shots were not kept: run with memory=True.")
        self._check()
        if not self.has_memory:
            raise InvalidInputError(
                f"{self.backend} gave circuit {self.circuit} no single shots, only counts."
            )
        return list(self._part.numbers("memory", self._row))

    def _check(self) -> None:
        if not self._part.have_counts[self._row]:
            raise CircuitFailedError(
                self.circuit, self.status, self.error_type or "Error", self.error or "no reason was recorded"
            )

    def __repr__(self) -> str:
        """The facts on one line."""
        if self.status not in WITH_COUNTS:
            stage = f"stage={self.stage!r}, " if self.stage is not None else ""
            return (
                f"CircuitResult(circuit={self.circuit}, status={self.status!r}, {stage}"
                f"error_type={self.error_type!r}, error={self.error!r})"
            )
        name = f"name={self.name!r}, " if self.name is not None else ""
        outcomes = self._part.offsets[self._row + 1] - self._part.offsets[self._row]
        return (
            f"CircuitResult(circuit={self.circuit}, {name}status={self.status!r}, backend={self.backend!r}, "
            f"clbits={self.clbits}, shots={self.shots}, outcomes={outcomes})"
        )
