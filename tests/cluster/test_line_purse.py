"""A line's jobs and the budget that they share with those of other lines."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ray_qjm.backends.desk_messages import Told
from ray_qjm.cluster.line_purse import LinePurse, TooDear
from ray_qjm.options import Budget
from ray_qjm.planning.orders import Order, Run
from ray_qjm.planning.quota import Cost, Purse

ORDER = Order(3, (Run(0, 4, 10),))


def told(state: str, job_id: str | None, **facts: Any) -> Told:
    return Told("t-3", state, job_id, 1, None, {}, facts)


@pytest.mark.parametrize(
    ("budget", "affordable"),
    [
        (Budget(jobs=1), 0),
        (Budget(executions=65), 2),
        (Budget(qpu_seconds=9.5), 1),  # 6 are reserved, a job takes 2, and a circuit 1
    ],
)
def test_what_the_rest_of_a_budget_would_pay_for(budget: Budget, affordable: int) -> None:
    purse, lock = Purse(budget), threading.Lock()
    line, other = (LinePurse(purse, lock, (2.0, 0.1)) for _ in range(2))
    assert other.reserve("a", ORDER) is None
    refused = line.reserve("b", ORDER)
    assert isinstance(refused, TooDear) and refused.affordable == affordable
    assert "are the budget" in refused.why_not and purse.used.jobs == 1


def test_a_job_of_an_earlier_session_is_adopted_beyond_the_budget() -> None:
    purse = Purse(Budget(executions=30))
    LinePurse(purse, threading.Lock(), (0.0, 0.0)).adopt("a", ORDER)
    assert purse.used == Cost(1, 40)


@pytest.mark.parametrize(
    ("news", "cost"),
    [
        (told("done", "d1", usage_s=2.5), Cost(1, 40, 2.5)),
        (told("done", "d1"), Cost(1, 40, 6.0)),
        (told("lost", None), Cost(1, 40, 6.0)),
        (told("cancelled", None), Cost()),
    ],
)
def test_a_job_costs_what_is_told_or_else_what_was_reserved(news: Told, cost: Cost) -> None:
    purse = Purse(Budget(qpu_seconds=10.0))
    line = LinePurse(purse, threading.Lock(), (2.0, 0.1))
    assert line.reserve("t-3", ORDER) is None
    assert line.left() == {"qpu_seconds": 4.0}
    line.settle("t-3", ORDER, news)
    assert purse.spent == purse.used == cost
