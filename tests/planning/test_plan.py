"""What is planned is what the packer makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_qjm.options import Budget, Limits, Quota
from ray_qjm.planning.packing import Packer
from ray_qjm.planning.plan import BackendPlan, plan_backend

maybe = st.none() | st.integers(1, 400)
limits = st.builds(
    Limits,
    max_circuits=maybe,
    max_shots=maybe,
    max_executions=maybe,
    max_payload_bytes=st.none() | st.integers(10, 400),
)


def planned(shots: Any, **more: Any) -> BackendPlan:
    given_: dict[str, Any] = {
        "limits": Limits(),
        "quota": Quota(),
        "mixed": False,
        "circuit_bytes": None,
        "costs": (0.0, 0.0),
        "budget": None,
    }
    return plan_backend("torino", np.asarray(shots), **(given_ | more))


@given(st.lists(st.sampled_from([1, 7, 50, 300]), max_size=60), limits)
def test_as_many_jobs_are_planned_as_are_packed(shots: list[int], limits: Limits) -> None:
    packer = Packer(limits, mixed=False)
    orders = [order for circuit, number in enumerate(shots) for order in packer.add(circuit, number, 10)]
    orders += packer.flush()
    plan = planned(np.array(shots, np.int64), limits=limits, circuit_bytes=10.0)
    assert plan.jobs == len(orders)
    assert plan.circuits_a_job == max((order.circuits for order in orders), default=0)
    assert plan.executions_a_job == max((order.executions for order in orders), default=0)


@pytest.mark.parametrize(
    ("limits", "binds"),
    [
        (Limits(), None),
        (Limits(max_circuits=5), "circuits"),
        (Limits(max_circuits=5, max_executions=400), "executions"),
        (Limits(max_circuits=5, max_payload_bytes=30), "payload bytes"),
        (Limits(max_shots=30), "shots"),
        (Limits(max_circuits=100), None),
    ],
)
def test_the_limit_that_binds_is_named(limits: Limits, binds: str | None) -> None:
    assert planned([100] * 20, limits=limits, circuit_bytes=10.0).limit == binds


@pytest.mark.parametrize(
    ("rate", "jobs", "seconds"), [(None, 50, 0.0), (5, 5, 0.0), (5, 6, 60.0), (5, 11, 120.0), (0.5, 3, 240.0)]
)
def test_jobs_wait_for_the_minute(rate: float | None, jobs: int, seconds: float) -> None:
    plan = planned([1] * jobs, limits=Limits(max_circuits=1), quota=Quota(jobs_per_minute=rate))
    assert plan.submission_s == seconds


def test_seconds_are_those_of_jobs_and_executions() -> None:
    plan = planned([1000] * 10, limits=Limits(max_circuits=5), costs=(2.0, 250e-6))
    assert plan.qpu_s == pytest.approx(2 * 2.0 + 10_000 * 250e-6)
    assert planned([1000]).qpu_s is None


@pytest.mark.parametrize(
    ("own", "account", "said"),
    [
        (Budget(jobs=3), None, "4 jobs of 3"),
        (None, Budget(executions=100), "2,000 executions of 100"),
        (Budget(jobs=4), Budget(executions=2000), None),
    ],
)
def test_a_budget_that_is_too_small_is_told(own: Any, account: Any, said: str | None) -> None:
    plan = planned([100] * 20, limits=Limits(max_circuits=5), budget=own, quota=Quota(budget=account))
    assert plan.budget == said


def test_nothing_to_run_takes_nothing() -> None:
    plan = planned(np.empty(0, np.int64))
    assert (plan.jobs, plan.circuits, plan.submission_s) == (0, 0, 0.0)
