"""Slots, tokens and budgets, as a service would count them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_qjm.options import Budget, Quota
from ray_qjm.planning.quota import WINDOW_S, Cost, Meter, Purse

#: For each job: how long after the last one it is asked for, how long its request takes, how long it runs.
jobs = st.lists(st.tuples(st.floats(0, 30), st.floats(0, 20), st.floats(0, 300)), min_size=1, max_size=40)


@given(jobs, st.integers(1, 4), st.none() | st.floats(0.2, 6.0), st.booleans())
def test_a_service_never_sees_more_than_the_quota(
    jobs: Sequence[tuple[float, float, float]], max_pending: int, rate: float | None, restarted: bool
) -> None:
    """A request may arrive at any moment until its call ends; here the first of a pair early, the other late."""
    meter = Meter(Quota(max_pending, rate))
    if restarted:
        meter.spend_all(0.0)
    arrivals: list[float] = []
    ends: list[tuple[float, str]] = []  # of jobs
    sent: list[tuple[float, str]] = []  # of calls
    now = 0.0
    for number, (pause, takes, runs) in enumerate(jobs):
        now += pause
        while True:
            for at, key in sorted(sent):
                if at <= now:
                    meter.sent(key, at)
                    sent.remove((at, key))
            for at, key in sorted(ends):
                if at <= now:
                    meter.release(key)
                    ends.remove((at, key))
            if meter.free_at(now) <= now:
                break
            times = [at for at, _ in (*sent, *ends) if at > now]
            now = min([*times, max(meter.free_at(now), math.nextafter(now, math.inf))])
        key = f"job {number}"
        meter.take(key)
        assert meter.pending <= max_pending
        arrivals.append(now if number % 2 else now + takes)
        sent.append((now + takes, key))
        ends.append((now + takes + runs, key))
    if rate is not None:
        window, most = (WINDOW_S, math.floor(rate)) if rate >= 1 else (WINDOW_S / rate, 1)
        arrivals.sort()
        for first, last in zip(arrivals, arrivals[most:], strict=False):
            assert last - first >= window - 1e-6
        assert not restarted or arrivals[0] >= window


def test_a_slot_is_free_when_a_job_is_over_and_not_before() -> None:
    meter = Meter(Quota(2))
    meter.take("a")
    meter.hold("b")
    assert meter.free_at(5.0) == math.inf
    meter.sent("a", 6.0)
    assert meter.free_at(6.0) == math.inf
    meter.release("b")
    assert meter.free_at(7.0) == 7.0


def test_a_request_on_its_way_holds_its_token() -> None:
    meter = Meter(Quota(9, 1))
    meter.take("a")
    assert meter.free_at(1000.0) == math.inf
    meter.sent("a", 1000.0)
    assert meter.free_at(1000.0) == 1060.0


def test_releasing_twice_frees_one_slot() -> None:
    meter = Meter(Quota(1))
    meter.take("a")
    meter.release("a")
    meter.release("a")
    meter.take("b")
    assert meter.pending == 1


amounts = st.tuples(st.integers(0, 2), st.integers(0, 50), st.floats(0, 5))


@given(st.lists(st.tuples(amounts, amounts, st.booleans()), max_size=30))
def test_what_is_spent_and_reserved_stays_within_the_budget(
    costs: Sequence[tuple[tuple[int, int, float], tuple[int, int, float], bool]],
) -> None:
    purse = Purse(Budget(jobs=10, executions=300, qpu_seconds=20.0))
    under_way: dict[str, Cost] = {}
    for number, (reserve, bill, ends) in enumerate(costs):
        cost = Cost(*reserve)
        if purse.why_not(cost) is None:
            purse.reserve(f"{number}", cost)
            under_way[f"{number}"] = cost
        if ends and under_way:
            key, reserved = under_way.popitem()
            jobs, executions, seconds = bill
            billed = Cost(
                min(jobs, reserved.jobs),
                min(executions, reserved.executions),
                min(seconds, reserved.qpu_seconds),
            )
            purse.settle(key, billed)
        used = purse.used
        assert used.jobs <= 10 and used.executions <= 300 and used.qpu_seconds <= 20.0 + 1e-9


def test_a_job_is_settled_once() -> None:
    purse = Purse(Budget(jobs=2))
    purse.reserve("a", Cost(1))
    purse.settle("a")
    purse.settle("a")
    assert purse.spent == Cost(1)


@pytest.mark.parametrize(
    ("name", "cost"), [("jobs", Cost(2)), ("executions", Cost(1, 11)), ("qpu_seconds", Cost(1, 1, 6))]
)
def test_a_refusal_says_the_number_and_the_limit(name: str, cost: Cost) -> None:
    why = Purse(Budget(jobs=1, executions=10, qpu_seconds=5)).why_not(cost)
    assert why is not None and name in why and "are the budget" in why
