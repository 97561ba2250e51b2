"""What is planned is what the packer makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_qjm.options import Budget, Limits, Quota
from ray_qjm.planning.packing import Packer
from ray_qjm.planning.plan import Account, BackendPlan, beyond_budgets, plan_backend, under_quotas
from ray_qjm.planning.quota import Cost

NOTHING = Cost()
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
        "mixed": False,
        "circuit_bytes": None,
        "costs": (0.0, 0.0),
        "account": "lab",
    }
    return plan_backend("torino", np.asarray(shots, np.int64), **(given_ | more))


def account(
    spent: Cost = NOTHING, budget: Budget | None = None, rate: float | None = None
) -> dict[str, Account]:
    return {"lab": Account("the lab", Quota(jobs_per_minute=rate, budget=budget), spent)}


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
    plan = planned([1] * jobs, limits=Limits(max_circuits=1))
    assert [p.submission_s for p in under_quotas([plan], account(rate=rate))] == [seconds]


def test_backends_of_one_account_share_its_minutes_and_others_do_not() -> None:
    plans = [planned([1] * 10, limits=Limits(max_circuits=1), account=key) for key in ("lab", "lab", "other")]
    workers = BackendPlan("aer", 10)
    accounts = {**account(rate=5), "other": Account("the other", Quota(jobs_per_minute=5))}
    found = under_quotas([*plans, workers], accounts)
    assert [p.submission_s for p in found] == [180.0, 180.0, 60.0, None]


def test_seconds_are_those_of_jobs_and_executions() -> None:
    plan = planned([1000] * 10, limits=Limits(max_circuits=5), costs=(2.0, 250e-6))
    assert plan.qpu_s == pytest.approx(2 * 2.0 + 10_000 * 250e-6)
    assert planned([1000]).qpu_s is None


@pytest.mark.parametrize(
    ("own", "of_lab", "spent", "said"),
    [
        (Budget(jobs=7), None, NOTHING, ["of the task: 8 jobs needed, 7 allowed."]),
        (
            Budget(jobs=7),
            Budget(jobs=5, executions=3999),
            NOTHING,
            [
                "of the task: 8 jobs needed, 7 allowed.",
                "of the lab: 8 jobs needed, 5 allowed.",
                "of the lab: 4,000 executions needed, 3,999 allowed.",
            ],
        ),
        (Budget(jobs=9), None, Cost(2), ["of the task: 8 jobs needed, 7 left of 9."]),
        (Budget(jobs=9), None, Cost(12), ["of the task: 8 jobs needed, 0 left of 9."]),
        (None, Budget(qpu_seconds=30.0), Cost(1, 10, 10.5), ["of the lab: 20 QPU seconds needed, 19.5 left of 30."]),
        (Budget(jobs=8), Budget(executions=4000), NOTHING, []),
    ],
)  # fmt: skip
def test_budgets_hold_for_all_backends_together(
    own: Budget | None, of_lab: Budget | None, spent: Cost, said: list[str]
) -> None:
    plans = [planned([100] * 20, limits=Limits(max_circuits=5), costs=(2.5, 0.0)) for _ in range(2)]
    found = beyond_budgets([*plans, BackendPlan("aer", 9)], account(spent, of_lab), own, spent)
    assert [str(each) for each in found] == [f"Beyond the budget {line}" for line in said]


def test_what_is_spent_already_is_no_fault_of_a_task_that_needs_nothing() -> None:
    assert beyond_budgets([planned([])], account(Cost(9), Budget(jobs=5)), Budget(jobs=5), Cost(9)) == []


def test_nothing_to_run_takes_nothing() -> None:
    plan = planned(np.empty(0, np.int64))
    assert (plan.jobs, plan.circuits, plan.executions) == (0, 0, 0)
    assert [p.submission_s for p in under_quotas([plan], account(rate=5))] == [0.0]
