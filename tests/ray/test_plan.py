"""``ray_qjm.plan`` asks for limits and looks at circuits; it submits nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qiskit import QuantumCircuit
from qiskit.primitives import StatevectorSampler

import ray_qjm
from ray_qjm import BackendSpec, Budget, Limits, Quota, RunOptions
from ray_qjm.errors import InvalidInputError, PartialResultWarning, StoreInUseError, StoreMismatchError
from tests.backends.strange import Strange
from tests.ray.circuits_for_tests import binary, coin

pytestmark = pytest.mark.usefixtures("shared_ray")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_QJM_STATE", str(tmp_path / "state"))


def service(**more: Any) -> BackendSpec:
    return BackendSpec(Strange(max_circuits=3), name="plan strange", **more)


class Waits:
    """Circuits that aren't built before a file is there, but for the first few."""

    def __init__(self, go: Path, but: int = 0) -> None:
        self.go, self.but = go, but

    def __call__(self, index: int) -> QuantumCircuit:
        while index >= self.but and not self.go.exists():
            time.sleep(0.05)
        return binary(index)


def test_jobs_are_cut_by_the_limits_of_the_backend_and_of_the_user() -> None:
    plan = ray_qjm.plan(binary, service(limits=Limits(max_executions=200)), count=10, shots=100)
    (backend,) = plan.backends
    assert (backend.jobs, backend.circuits_a_job, backend.limit) == (5, 2, "executions")
    assert backend.payload_bytes is not None and backend.payload_bytes > 1000
    assert plan.jobs == 5 and "plan strange" in str(plan)


def test_backends_share_by_weight_and_workers_have_no_jobs() -> None:
    plan = ray_qjm.plan([binary(i) for i in range(8)], ["aer", service(weight=3.0)], shots=10)
    assert [(b.name, b.circuits, b.jobs) for b in plan.backends] == [("aer", 2, None), ("plan strange", 6, 2)]


def test_circuits_that_fail_to_build_are_told() -> None:
    def broken(index: int) -> Any:
        raise FileNotFoundError("no calibration")

    plan = ray_qjm.plan(broken, service(), count=100)
    assert "FileNotFoundError: no calibration" in str(plan)


def test_iterables_are_left_alone() -> None:
    circuits: Iterator[Any] = (binary(i) for i in range(10))
    plan = ray_qjm.plan(circuits, service(), count=10)
    assert plan.backends[0].payload_bytes is None and "can't be looked at" in str(plan)
    assert len(list(circuits)) == 10
    with pytest.raises(InvalidInputError, match="Pass count="):
        ray_qjm.plan(iter([binary(1)]), service())


def test_what_a_store_has_is_left_out(tmp_path: Path) -> None:
    call: dict[str, Any] = {"count": 20, "seed": 1, "shots": 10, "store": tmp_path / "s", "version": "1"}
    go = tmp_path / "go"
    first = ray_qjm.submit(Waits(go, but=4), "aer", options=RunOptions(cancel_grace_s=0.1), **call)
    next(first.stream())
    first.cancel()
    done = first.wait(60).done
    go.touch()
    plan = ray_qjm.plan(Waits(go), service(), **call)
    assert 0 < done < 20
    assert plan.circuits == 20 - done and f"{done} of 20 circuits have their rows" in str(plan)


def test_backends_of_one_account_are_planned_together() -> None:
    quota = Quota(jobs_per_minute=5, budget=Budget(jobs=10))
    both = [
        BackendSpec(Strange(max_circuits=2), name=f"plan {x}", account="plan two", quota=quota) for x in "ab"
    ]
    plan = ray_qjm.plan(binary, both, count=40, shots=10, options=RunOptions(budget=Budget(jobs=15)))
    assert [(b.jobs, b.submission_s) for b in plan.backends] == [(10, 180.0), (10, 180.0)]
    assert [(b.whose, b.what, b.budget, b.needed) for b in plan.beyond] == [
        ("the task", "jobs", 15, 20),
        ("account 'plan two' (plan a, plan b)", "jobs", 10, 20),
    ]
    assert "account 'plan two' (plan a, plan b): its 20 jobs share 5 a minute." in str(plan)


def test_what_failed_and_will_be_run_again_is_planned_with_what_was_spent(tmp_path: Path) -> None:
    call: dict[str, Any] = {"count": 9, "seed": 1, "shots": 10, "store": tmp_path / "s", "version": "1"}
    with pytest.warns(PartialResultWarning):
        ray_qjm.run(binary, service(), progress=False, options=RunOptions(budget=Budget(jobs=1)), **call)
    again: dict[str, Any] = call | {"options": RunOptions(budget=Budget(jobs=2))}
    plan = ray_qjm.plan(binary, service(), **again)
    assert (plan.circuits, plan.jobs, plan.beyond) == (0, 0, ())
    assert plan.notes == (
        "9 of 9 circuits have their rows in the store already, 6 of them without all their counts.",
    )
    plan = ray_qjm.plan(binary, service(), retry_failed=True, **again)
    assert (plan.circuits, plan.jobs) == (6, 2)
    assert [str(b) for b in plan.beyond] == ["Beyond the budget of the task: 2 jobs needed, 1 left of 2."]
    with pytest.warns(PartialResultWarning):
        result = ray_qjm.run(binary, service(), retry_failed=True, progress=False, **again)
    assert len(result.jobs) == 2 and sum(row.status == "done" for row in result) == 6


def test_what_an_account_has_spent_counts() -> None:
    def spec() -> BackendSpec:
        return service(account="plan spent", quota=Quota(budget=Budget(jobs=3)))

    ray_qjm.run(binary, spec(), count=6, progress=False)
    plan = ray_qjm.plan(binary, spec(), count=6)
    assert [str(b) for b in plan.beyond] == [
        "Beyond the budget of account 'plan spent' (plan strange): 2 jobs needed, 1 left of 3."
    ]


def test_a_store_is_refused_as_a_run_refuses_it(tmp_path: Path) -> None:
    call: dict[str, Any] = {"seed": 1, "shots": 10, "store": tmp_path / "s", "version": "1"}
    ray_qjm.run(binary, "aer", count=6, progress=False, **call)
    files = sorted(tmp_path.rglob("*"))
    others: list[tuple[Any, dict[str, Any]]] = [
        (binary, {"count": 7}),
        (binary, {"count": 6, "shots": 99}),
        (binary, {"count": 6, "seed": 2}),
        (lambda index: binary(index + 1), {"count": 6}),
    ]
    for circuits, more in others:
        with pytest.raises(StoreMismatchError) as planned:
            ray_qjm.plan(circuits, service(), **(call | more))
        assert sorted(tmp_path.rglob("*")) == files
        with pytest.raises(StoreMismatchError) as ran:
            ray_qjm.run(circuits, service(), progress=False, **(call | more))
        assert planned.value.field == ran.value.field
        files = sorted(tmp_path.rglob("*"))


def test_other_circuits_of_a_list_are_refused(tmp_path: Path) -> None:
    call: dict[str, Any] = {"seed": 1, "shots": 10, "store": tmp_path / "s"}
    ray_qjm.run([binary(i) for i in range(6)], "aer", progress=False, **call)
    with pytest.raises(StoreMismatchError, match="circuit 3 of list"):
        ray_qjm.plan([binary(i if i != 3 else 9) for i in range(6)], service(), **call)


def test_a_store_that_another_process_runs_is_refused(tmp_path: Path) -> None:
    call: dict[str, Any] = {"count": 4, "seed": 1, "shots": 10, "store": tmp_path / "s", "version": "1"}
    task = ray_qjm.submit(Waits(tmp_path / "go"), "aer", **call)
    with pytest.raises(StoreInUseError):
        ray_qjm.plan(Waits(tmp_path / "go"), service(), **call)
    (tmp_path / "go").touch()
    assert task.wait(60).state == "done"


def test_a_directory_to_come_is_no_error_and_is_not_made(tmp_path: Path) -> None:
    call: dict[str, Any] = {"count": 4, "version": "1"}
    assert ray_qjm.plan(binary, service(), store=tmp_path / "a" / "b", **call).circuits == 4
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for plan_or_run in (ray_qjm.plan, ray_qjm.run):
        with pytest.raises(InvalidInputError, match="can't be made"):
            plan_or_run(binary, service(), store=tmp_path / "file" / "s", **call)


def test_circuits_that_are_too_large_are_told_and_not_planned() -> None:
    def odd_are_large(index: int) -> QuantumCircuit:
        circuit = binary(index)
        circuit.metadata = {"note": "x" * 5000 * (index % 2)}
        return circuit

    spec = service(limits=Limits(max_payload_bytes=4000))
    plan = ray_qjm.plan(odd_are_large, spec, count=20, shots=10)
    assert (plan.circuits, plan.backends[0].circuits) == (20, 10)
    assert "10 of 20 circuits take up to" in plan.notes[0] and "may have 4,000" in plan.notes[0]
    with pytest.warns(PartialResultWarning, match="10 of 20"):
        result = ray_qjm.run(odd_are_large, spec, count=20, shots=10, progress=False)
    assert len(result.jobs) == plan.jobs
    # A sample doesn't take every other circuit only.
    plan = ray_qjm.plan(odd_are_large, spec, count=32 * 40, shots=10)
    assert 300 < plan.backends[0].circuits < 980 and "of a sample of 32 circuits" in plan.notes[0]


def test_circuits_that_do_not_compile_are_told_and_not_planned() -> None:
    plan = ray_qjm.plan(lambda index: coin(index) if index == 4 else binary(index), service(), count=6)
    assert [(b.circuits, b.jobs) for b in plan.backends] == [(5, 2)]
    assert "1 of 6 circuits couldn't be compiled for plan strange" in plan.notes[0]


def test_a_sampler_without_a_target_is_planned_too() -> None:
    plan = ray_qjm.plan(binary, StatevectorSampler(), count=7, shots=10)
    assert [(b.circuits, b.jobs) for b in plan.backends] == [(7, 1)]


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ({"limits": Limits(max_payload_bytes=50)}, {}, "max_payload_bytes of plan strange is 50"),
        ({}, {"budget": Budget(executions=99)}, "budget of the task is 99 executions"),
        ({"quota": Quota(budget=Budget(executions=99))}, {}, "budget of plan strange is 99 executions"),
    ],
)
def test_what_no_circuit_can_satisfy_is_refused(spec: Any, options: Any, message: str) -> None:
    for call in (ray_qjm.plan, ray_qjm.run):
        with pytest.raises(InvalidInputError, match=message):
            call(binary, service(**spec), count=10, shots=100, options=RunOptions(**options), progress=False)


def test_two_quotas_of_one_account_are_refused() -> None:
    first = service(account="plan lab", quota=Quota(max_pending=2))
    second = BackendSpec(Strange(), name="other", account="plan lab", quota=Quota(max_pending=3))
    with pytest.raises(InvalidInputError, match="share account 'plan lab'"):
        ray_qjm.plan(binary, [first, second], count=10)
