"""A few circuits of a task, looked at before it runs: how large they are, and which can't be sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_qjm.backends.sampler import with_loose_register
from ray_qjm.backends.shadow import Shadow
from ray_qjm.circuits.compile import Compiler
from ray_qjm.circuits.payload import packed_bytes
from ray_qjm.circuits.source import DriverSource, WorkerSource
from ray_qjm.cluster.messages import TaskSetup
from ray_qjm.cluster.services import Service
from ray_qjm.options import RunOptions
from ray_qjm.planning.seeds import transpiler_seed

#: Circuits that are built and compiled, spread over the task.
SIZE = 32


@dataclass(frozen=True)
class Compiled:
    """What a sample says of a backend.

    Attributes:
        mean_bytes: Mean size of the circuits that can be sent; ``None`` if unknown.
        notes: Which can't, and why.
        at: Positions of the sample among all circuits, ascending.
        fine: Whether each can be sent, as far as one knows.
    """

    mean_bytes: float | None
    notes: tuple[str, ...]
    at: NDArray[np.int64]
    fine: NDArray[np.bool_]

    def sendable(self, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether circuits can be sent: each is taken to be as the nearest one of the sample is."""
        if not len(self.at):
            return np.ones(len(positions), np.bool_)
        return self.fine[np.searchsorted((self.at[1:] + self.at[:-1] + 1) // 2, positions, side="right")]


class Sample:
    """Some circuits, as far as they can be had without using them up.

    Args:
        source: Of circuits.
        setup: Of the task.
        rows: The circuits that would be submitted.
    """

    def __init__(
        self, source: WorkerSource | DriverSource, setup: TaskSetup, rows: NDArray[np.int64]
    ) -> None:
        self._source = source
        self._setup = setup
        self._left = len(rows)
        # One at random of each of so many parts: circuits may alternate. The same ones in each call.
        edges = np.linspace(0, len(rows), min(SIZE, len(rows)) + 1)
        steps = np.diff(edges) * np.random.default_rng(0).random(len(edges) - 1)
        self._at = np.minimum(edges[:-1] + steps, len(rows) - 1).astype(np.int64)
        self._circuits: list[Any] = []
        if isinstance(source, WorkerSource):
            self._circuits = [_built(source, row, setup.seed) for row in rows[self._at].tolist()]
        elif source.circuits is not None:
            self._circuits = [source.circuits[row] for row in rows[self._at].tolist()]
        else:
            self._at = self._at[:0]
        self._failed = [circuit for circuit in self._circuits if isinstance(circuit, Exception)]

    def notes(self) -> list[str]:
        """What can't be looked at, in words."""
        if self._left and not self._circuits:
            return [f"{self._source.kind} can't be looked at before it is run: sizes are unknown."]
        if not self._failed:
            return []
        why = f"{type(self._failed[0]).__name__}: {self._failed[0]}"
        if self._none_was_built:
            return [f"None of {self._whole()} could be built here, where sizes are looked at: {why}"]
        return [f"{len(self._failed)} of {self._whole()} couldn't be built and aren't planned: {why}"]

    def compiled(self, service: Service, options: RunOptions) -> Compiled:
        """Compile it for a service."""
        transpile = service.choice.spec.transpile or options.transpile
        compiler = Compiler(Shadow(service.facts), transpile, transpiler_seed(self._setup.seed))
        most = service.limits.max_payload_bytes
        sizes: list[int] = []
        large: list[int] = []
        failed: list[str] = []
        fine: list[bool] = []
        for circuit in self._circuits:
            if isinstance(circuit, Exception):
                # Where none can be built here, workers may have what it takes.
                fine.append(self._none_was_built)
                continue
            try:
                size = _size(compiler, circuit, service)
            except Exception as error:
                failed.append(f"{type(error).__name__}: {error}")
                fine.append(False)
                continue
            fine.append(most is None or size <= most)
            (sizes if fine[-1] else large).append(size)
        return Compiled(
            sum(sizes) / len(sizes) if sizes else None,
            tuple(self._told(service, failed, large)),
            self._at,
            np.array(fine, np.bool_),
        )

    @property
    def _none_was_built(self) -> bool:
        return len(self._failed) == len(self._circuits)

    def _whole(self) -> str:
        """What the sample is."""
        number = len(self._circuits)
        return f"{number:,} circuits" if number == self._left else f"a sample of {number:,} circuits"

    def _told(self, service: Service, failed: Sequence[str], large: Sequence[int]) -> list[str]:
        name, found = service.choice.name, []
        if failed:
            found.append(
                f"{len(failed)} of {self._whole()} couldn't be compiled for {name} and aren't planned: {failed[0]}"
            )
        if large:
            found.append(
                f"{len(large)} of {self._whole()} take up to {max(large):,} bytes, and a job on {name} may have "
                f"{service.limits.max_payload_bytes:,}: they can't be sent and aren't planned."
            )
        return found


def _built(source: WorkerSource, row: int, seed: int) -> Any:
    """A circuit, or why there is none."""
    try:
        return source.build(row, seed)
    except Exception as error:
        return error


def _size(compiler: Compiler, circuit: Any, service: Service) -> int:
    """Bytes of a circuit as it would be sent."""
    compiled = compiler.compile(circuit)
    if service.facts.samples:
        compiled = with_loose_register(compiled)
    return packed_bytes(compiled, squeezed=service.facts.squeezed)
