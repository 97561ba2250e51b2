"""Backends of other packages, as they come, through ``ray_qjm.run``: as objects, from the actor, on workers."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from qiskit import QuantumCircuit

import ray_qjm
from ray_qjm import BackendSpec, TaskResult
from ray_qjm.errors import BackendLoadError, InvalidInputError, PartialResultWarning
from ray_qjm.options import Limits
from tests.providers.known import CIRCUITS, COUNT, PROVIDERS, SHOTS, Provider, circuit

if not any(provider.installed for provider in PROVIDERS):
    pytest.skip("none is installed: make test-providers", allow_module_level=True)

#: Row of the circuit that a provider refuses.
BAD = 5
#: Circuits of a job at most, where the user says so.
MOST = 10


def at_actor(provider: Provider) -> BackendSpec:
    return BackendSpec(provider.make, name=provider.name, placement="actor", limits=Limits(max_circuits=MOST))


def on_workers(provider: Provider) -> BackendSpec:
    return BackendSpec(provider.make, name=provider.name, placement="workers")


PLACES = pytest.mark.parametrize("place", [at_actor, on_workers])


def run(backend: Any, circuits: Any = circuit, **options: Any) -> TaskResult:
    return ray_qjm.run(
        circuits, backend, **{"count": COUNT, "shots": SHOTS, "seed": 7, "progress": False, **options}
    )


def with_bad_one(provider: Provider, index: int) -> QuantumCircuit:
    return provider.refused() if index == BAD else circuit(index)


def check_counts(result: TaskResult, rows: set[int], status: str = "done") -> None:
    """Each row has the outcomes of its circuit, all of its shots, and says so."""
    for index in rows:
        counts = result.get_counts(index)
        assert set(counts) == CIRCUITS[index % len(CIRCUITS)][1], (
            index
        )  # half a Bell pair: once in 2**63 runs
        assert sum(counts.values()) == SHOTS
    column = dict(zip(range(COUNT), result.table["status"].to_pylist(), strict=True))
    assert {column[index] for index in rows} == {status}
    shots = result.table["shots"].to_pylist()
    assert {shots[index] for index in rows} == {SHOTS}


def check_jobs(result: TaskResult, most: int | None) -> None:
    """No job is larger than allowed, all are done, and each circuit was run by one."""
    circuits = result.jobs["circuits"].to_pylist()
    assert set(result.jobs["state"].to_pylist()) == {"done"}
    assert sum(circuits) == COUNT
    assert most is None or max(circuits) <= most
    assert result.jobs["shots"].to_pylist() == [number * SHOTS for number in circuits]
    assert len(set(result.jobs["job_id"].to_pylist())) == len(circuits)
    assert {len(jobs) for jobs in result.table["jobs"].to_pylist()} == {1}


def test_object_as_it_is_goes_through_its_desk(provider: Provider) -> None:
    backend = provider.make()
    if provider.broken is None:
        result = run(backend)
        check_counts(result, {*range(COUNT)})
        check_jobs(result, provider.most)
        assert set(result.table["backend"].to_pylist()) == {backend.name}
    else:
        with pytest.raises(InvalidInputError, match=rf"{provider.broken}.*BackendSpec\(factory"):
            run(backend)


def test_factory_at_the_actor_keeps_to_the_limits(provider: Provider) -> None:
    result = run(at_actor(provider))
    check_counts(result, {*range(COUNT)})
    check_jobs(result, min(MOST, provider.most or MOST))
    assert set(result.table["backend"].to_pylist()) == {provider.name}


def test_factory_on_workers(provider: Provider) -> None:
    result = run(on_workers(provider))
    check_counts(result, {*range(COUNT)})


def test_factory_that_says_no_placement_is_told_to(provider: Provider) -> None:
    with pytest.raises(BackendLoadError, match="placement='workers'"):
        run(BackendSpec(provider.make, name=provider.name))


@PLACES
def test_circuit_that_is_refused_fails_alone(provider: Provider, place: Any) -> None:
    with pytest.warns(PartialResultWarning, match=f"1 of {COUNT} circuits"):
        result = run(place(provider), partial(with_bad_one, provider))
    check_counts(result, {*range(COUNT)} - {BAD})
    failed = result[BAD]
    # Refused before any other job has succeeded, it might be the service's fault as well.
    assert failed.status == "failed" and failed.stage in ("run", "submit")
    assert provider.reason in str(failed.error)
    assert result.failures.num_rows == 1


@PLACES
def test_single_shots(provider: Provider, place: Any) -> None:
    if provider.memory is None:
        with pytest.raises((InvalidInputError, BackendLoadError), match="no option 'memory'"):
            run(place(provider), memory=True)
        return
    result = run(place(provider), memory=True)
    check_counts(result, {*range(COUNT)}, "done" if provider.memory else "partial")
    for index in range(4):
        if provider.memory:
            shots = result.get_memory(index)
            assert {shot: shots.count(shot) for shot in shots} == result.get_counts(index)
        else:
            assert result.table["memory"][index].as_py() is None
            assert "no single shots" in str(result[index].error)


@PLACES
def test_seed_gives_the_same_counts_again(provider: Provider, place: Any) -> None:
    """However they were cut into jobs: one circuit a job, where the backend's ways with lists aren't known."""
    found = []
    for _ in range(2):
        spec = place(provider)
        if spec.placement == "actor":
            spec = BackendSpec(
                provider.make, name=provider.name, placement="actor", limits=Limits(max_circuits=1)
            )
        result = run(spec)
        check_counts(result, {*range(COUNT)})
        found.append([result.get_counts(index) for index in range(COUNT)])
        if not provider.seeded:
            assert set(result.table["seed"].to_pylist()) == {None}
            return
    assert found[0] == found[1]
    bells = [tuple(sorted(counts.items())) for counts in found[0][:: len(CIRCUITS)]]
    assert len(set(bells)) > 1  # equal circuits, other seeds
