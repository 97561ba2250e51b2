"""``ray_qjm.plan`` asks for limits and looks at circuits; it submits nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qiskit.primitives import StatevectorSampler

import ray_qjm
from ray_qjm import BackendSpec, Budget, Limits, Quota, RunOptions
from ray_qjm.errors import InvalidInputError
from tests.backends.strange import Strange
from tests.ray.circuits_for_tests import binary

pytestmark = pytest.mark.usefixtures("shared_ray")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_QJM_STATE", str(tmp_path / "state"))


def service(**more: Any) -> BackendSpec:
    return BackendSpec(Strange(max_circuits=3), name="plan strange", **more)


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
    call: dict[str, Any] = {"seed": 1, "shots": 10, "store": tmp_path / "s", "version": "1"}
    ray_qjm.run(binary, "aer", count=6, progress=False, **call)
    plan = ray_qjm.plan(binary, service(), count=20, **call)
    assert plan.circuits == 14 and "6 of 20 circuits have their rows" in str(plan)


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
