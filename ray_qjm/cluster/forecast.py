"""What a task would take at its backends: circuits looked at, services asked for their limits, nothing submitted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_qjm.backends.registry import Choice
from ray_qjm.backends.sampler import with_loose_register
from ray_qjm.backends.shadow import Shadow
from ray_qjm.circuits.compile import Compiler
from ray_qjm.circuits.payload import packed_bytes
from ray_qjm.circuits.source import DriverSource, WorkerSource
from ray_qjm.cluster.messages import TaskSetup
from ray_qjm.cluster.services import Service
from ray_qjm.errors import InvalidInputError
from ray_qjm.options import RunOptions
from ray_qjm.planning.plan import BackendPlan, plan_backend
from ray_qjm.planning.ranges import Ranges
from ray_qjm.planning.seeds import transpiler_seed
from ray_qjm.results.objects import Objects
from ray_qjm.results.store import look

#: Circuits that are built and compiled to learn their size, spread over the task.
SAMPLE = 32


def forecast(
    source: WorkerSource | DriverSource,
    setup: TaskSetup,
    choices: Sequence[Choice],
    services: Mapping[int, Service],
    options: RunOptions,
    store: str | os.PathLike[str] | None,
) -> tuple[int, list[BackendPlan], list[str]]:
    """Plan each backend's share by weight.

    Returns:
        How many circuits there are to run, a plan a backend, and what was found out on the way.

    Raises:
        InvalidInputError: How many circuits there are isn't known.
    """
    if source.count is None:
        raise InvalidInputError("how many circuits there are isn't known before they are read. Pass count=.")
    rows, notes = _missing(source.count, store)
    shots = np.full(len(rows), setup.shots) if isinstance(setup.shots, int) else setup.shots[rows]
    circuits = _sample(source, setup, rows)
    if not circuits and len(rows):
        notes.append(f"{source.kind} can't be looked at before it is run: sizes are unknown.")
    plans = []
    weights = np.cumsum([0.0, *(choice.spec.weight for choice in choices)])
    cuts = np.round(weights / weights[-1] * len(rows)).astype(np.int64)
    for at, choice in enumerate(choices):
        share = shots[cuts[at] : cuts[at + 1]]
        service = services.get(at)
        if service is None:
            plans.append(BackendPlan(choice.name, len(share)))
            continue
        size, failed = _mean_bytes(service, setup, options, circuits)
        if failed:
            notes.append(
                f"of {len(circuits)} circuits that were compiled for {choice.name}, {len(failed)} failed: {failed[0]}"
            )
        plans.append(
            plan_backend(
                choice.name,
                share,
                limits=service.limits,
                quota=choice.spec.quota,
                mixed=service.facts.mixed,
                circuit_bytes=size,
                costs=(service.facts.job_s, service.facts.execution_s),
                budget=options.budget,
            )
        )
    return len(rows), plans, notes


def _missing(count: int, store: str | os.PathLike[str] | None) -> tuple[NDArray[np.int64], list[str]]:
    """The circuits that have no rows, and what to say about the others."""
    have = Ranges()
    if store is not None:
        objects = Objects(store, make=False)
        have = Ranges(item[:2] for item in look(objects).taken)
    missing = [np.arange(start, stop) for start, stop in have.rest(0, count)]
    rows = np.concatenate(missing) if missing else np.empty(0, np.int64)
    done = count - len(rows)
    return rows, [f"{done:,} of {count:,} circuits have their rows in the store already."] if done else []


def _sample(source: WorkerSource | DriverSource, setup: TaskSetup, rows: NDArray[np.int64]) -> list[Any]:
    """Some circuits, as far as they can be had without using them up."""
    at = rows[np.unique(np.linspace(0, len(rows) - 1, SAMPLE).astype(np.int64))] if len(rows) else rows
    found: list[Any] = []
    for row in at.tolist():
        if isinstance(source, WorkerSource):
            try:
                found.append(source.build(row, setup.seed))
            except Exception as error:
                found.append(error)
        elif source.circuits is not None:
            found.append(source.circuits[row])
    return found


def _mean_bytes(
    service: Service, setup: TaskSetup, options: RunOptions, circuits: Sequence[Any]
) -> tuple[float | None, list[str]]:
    """Mean size of some circuits as they would be sent, and why others can't be."""
    transpile = service.choice.spec.transpile or options.transpile
    compiler = Compiler(Shadow(service.facts), transpile, transpiler_seed(setup.seed))
    sizes: list[int] = []
    failed: list[str] = []
    for circuit in circuits:
        try:
            if isinstance(circuit, Exception):
                raise circuit
            compiled = compiler.compile(circuit)
            if service.facts.samples:
                compiled = with_loose_register(compiled)
            sizes.append(packed_bytes(compiled, squeezed=service.facts.squeezed))
        except Exception as error:
            failed.append(f"{type(error).__name__}: {error}")
    return (sum(sizes) / len(sizes) if sizes else None), failed
