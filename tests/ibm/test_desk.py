"""A desk over the adapter, and a service that does all it can to lose jobs or to run them twice."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from ray_qjm.backends.base import Submission
from ray_qjm.backends.desk import Desk
from ray_qjm.backends.desk_messages import Client, Request, Told
from ray_qjm.backends.ibm import IbmAdapter
from ray_qjm.options import Quota, RetryPolicy
from ray_qjm.planning.quota import Cost
from ray_qjm.planning.tickets import FINAL, NOBODY
from ray_qjm.planning.verdicts import Verdict
from tests.ibm.script import API_KEY
from tests.ibm.service import IbmService
from tests.ibm.submitting import SUBMIT, adapter, ones

RETRY = RetryPolicy(attempts=20, wait_s=0.05, max_wait_s=0.3, lost_grace_s=1.0, call_s=20.0)
#: What a submission may meet; how many of 100 meet it.
FAULTS: list[tuple[int, dict[str, Any]]] = [
    (12, {"when": "after", "status": 502}),
    (8, {"when": "after", "drop": True}),
    (8, {"when": "late", "delay_s": 0.4}),
    (8, {"status": 502}),
    (8, {"drop": True}),
    (8, {"status": 429, "retry_after_s": 0.2}),
    (5, {"status": 400, "code": 1010}),
    (5, {"when": "after", "html": True}),
]


class Memory:
    """A journal that is kept nowhere."""

    def __init__(self) -> None:
        self.entries: list[Any] = []

    def write(self, entries: Sequence[Any]) -> None:
        self.entries.extend(entries)

    def of(self, tag: str) -> list[Mapping[str, Any]]:
        return [entry for entry in self.entries if entry["tag"] == tag]


@contextmanager
def desk(one: IbmAdapter, quota: Quota | None = None, **given: Any) -> Iterator[tuple[Desk, Memory]]:
    memory = Memory()
    made = Desk(quota or Quota(), memory, **given)
    try:
        made.open("ibm", lambda: one, (0.02, 0.1))
        made.hello(Client("me"))
        yield made, memory
    finally:
        made.close()


def requests(count: int, retry: RetryPolicy = RETRY) -> list[Request]:
    def make(n: int) -> Callable[[], Submission]:
        return lambda: Submission([ones(n % 5, marker=f"c{n}")], [10], f"t-{n}")

    return [Request(f"t-{n}", "ibm", Cost(1, 10, 2.0), retry, make=make(n)) for n in range(count)]


def wait_for(made: Desk, tags: Sequence[str], timeout_s: float = 90.0) -> dict[str, Told]:
    """Wait until all these jobs are over."""
    last: dict[str, Told] = {}
    after, deadline = 0, time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        answer = made.events("me", after, 1.0)
        assert answer is not None
        after, told = answer
        last.update((one.tag, one) for one in told)
        if all(tag in last and last[tag].state in FINAL for tag in tags):
            return last
    raise TimeoutError(f"{made.state()}, {last}")


def wait_until(is_so: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_job_is_done_once_whatever_happens(ibm: IbmService, seed: int) -> None:
    """Twelve jobs, three at a time; half of all submissions go wrong, and some polls, look-ups and cancels."""
    rng = random.Random(seed)
    faults = [
        {"on": SUBMIT, "nth": [n], **fault}
        for n in range(60)
        for fault in rng.choices([*(f for _, f in FAULTS), None], [*(w for w, _ in FAULTS), 38])
        if fault is not None
    ]
    one = adapter()
    ibm.script(
        seed=seed,
        pending_cap=3,
        run_s=0.05,
        endings=[{"end": "cancelled", "nth": [3]}],
        faults=[
            *faults,
            {"on": "GET /jobs", "chance": 0.2, "status": 400},
            {"on": "GET /jobs/{id}", "chance": 0.2, "html": True},
            {"on": "POST /jobs/{id}/cancel", "chance": 0.5, "status": 502},
        ],
    )
    with desk(one, Quota(max_pending=3)) as (made, memory):
        given = requests(12)
        made.enqueue("me", given)
        told = wait_for(made, [request.tag for request in given])
        assert {one.state for one in told.values()} == {"done"}
        ibm.script(faults=[])
        assert {tag: len(made.fetch(tag)) for tag in told} == dict.fromkeys(told, 1)
        # Twins that were cancelled in vain are told of by the next polls.
        wait_until(lambda: not ibm.state()["pending"])
        spent = made.state()["spent"]["jobs"]
        assert made.state()["pending"] == 0
    state = ibm.state()
    assert state["peak_pending"] <= 3
    assert state["violations"] == []
    jobs = [job for job in state["jobs"] if job["state"]["status"] == "Completed"]
    done = Counter(next(tag for tag in job["tags"] if tag.startswith("t-")) for job in jobs)
    assert dict(done) == {request.tag: 1 for request in given}
    assert state["requests"][SUBMIT] > len(given)
    assert spent >= len(given)
    for request in given:
        assert [entry["state"] for entry in memory.of(request.tag)][-1] == "done"
    assert API_KEY not in repr(memory.entries)


def test_a_lost_reply_is_adopted_not_resubmitted(ibm: IbmService) -> None:
    one = adapter()
    ibm.script(faults=[{"on": SUBMIT, "when": "after", "status": 502}])
    with desk(one) as (made, _):
        made.enqueue("me", requests(3))
        told = wait_for(made, ["t-0", "t-1", "t-2"])
        assert [told[f"t-{n}"].attempts for n in range(3)] == [1, 1, 1]
        assert made.state()["spent"]["qpu_seconds"] == 6.0
    assert ibm.state()["requests"][SUBMIT] == 3
    assert ibm.state()["runs"] == {"c0": 1, "c1": 1, "c2": 1}


def test_a_twin_that_lands_after_all_is_cancelled(ibm: IbmService) -> None:
    """A submission lands after the look-ups have given it up for absent, and beside the second one."""
    one = adapter()
    ibm.script(hold_queue=True, faults=[{"on": SUBMIT, "nth": [0], "when": "late", "delay_s": 1.2}])
    retry = RetryPolicy(attempts=3, wait_s=0.05, lost_grace_s=0.8)
    with desk(one) as (made, _):
        made.enqueue("me", requests(1, retry))
        ibm.wait_for(lambda event: event["kind"] == "late")
        wait_until(lambda: sorted(job["status"] for job in ibm.state()["jobs"]) == ["Cancelled", "Queued"])
        ibm.script(hold_queue=False)
        told = wait_for(made, ["t-0"])["t-0"]
        assert (told.state, told.attempts) == ("done", 2)
    assert ibm.state()["runs"] == {"c0": 1}


def test_a_job_of_an_earlier_attempt_is_not_taken_for_a_lost_one(ibm: IbmService) -> None:
    """The first is cancelled by the service; the reply to the second is lost, and both have one tag."""
    one = adapter()
    ibm.script(
        endings=[{"end": "cancelled", "nth": [0]}],
        faults=[{"on": SUBMIT, "nth": [1], "when": "after", "drop": True}],
    )
    with desk(one) as (made, memory):
        made.enqueue("me", requests(1))
        told = wait_for(made, ["t-0"])["t-0"]
        first, second = one.find("t-0") or []
        assert (told.state, told.attempts, told.job_id) == ("done", 2, second)
        assert memory.of("t-0")[-1]["past"] == [first]
    assert sorted(job["status"] for job in ibm.state()["jobs"]) == ["Cancelled", "Completed"]


def test_a_twin_of_an_earlier_desk_is_cancelled(ibm: IbmService) -> None:
    ibm.script(hold_queue=True)
    one = adapter()
    twin = one.submit(Submission([ones(0, marker="c0")], [10], "t-0"))
    entry = {"counter": "ibm", "client": NOBODY, "cost": [1, 10, 2.0], "retry": vars(RETRY)}
    tag = f"t-0~{twin}"
    before = {tag: {"tag": tag, "job_id": twin, "state": "submitted", **entry}}
    with desk(one, before=before) as (made, memory):
        wait_until(lambda: [job["status"] for job in ibm.state()["jobs"]] == ["Cancelled"])
        wait_until(lambda: made.state()["pending"] == 0)
        assert memory.of(tag)[-1] == {"tag": tag, "gone": True}


def test_jobs_of_an_earlier_desk_are_taken_over(ibm: IbmService) -> None:
    """One is known by its id, of one only the intent is known, and one was never sent."""
    ibm.script(hold_queue=True)
    one = adapter()
    known = one.submit(Submission([ones(0, marker="c0")], [10], "t-0"))
    lost = one.submit(Submission([ones(1, marker="c1")], [10], "t-1"))
    retry = RETRY.__class__(**{**vars(RETRY), "lost_grace_s": 0.5})
    entry = {"counter": "ibm", "client": "me", "cost": [1, 10, 2.0], "retry": vars(retry)}
    before = {
        "t-0": {"tag": "t-0", "job_id": known, "state": "submitted", **entry},
        "t-1": {"tag": "t-1", "job_id": None, "state": "intended", **entry},
        "t-2": {"tag": "t-2", "job_id": None, "state": "intended", **entry},
    }
    with desk(adapter(), before=before) as (made, _):
        ibm.script(hold_queue=False)
        told = wait_for(made, list(before))
        assert {tag: (told[tag].state, told[tag].job_id) for tag in ("t-0", "t-1")} == {
            "t-0": ("done", known),
            "t-1": ("done", lost),
        }
        assert told["t-2"].state == "refused"
        assert len(made.fetch("t-1")) == 1
    assert ibm.state()["requests"][SUBMIT] == 2


def test_a_cancelled_task_leaves_nothing_at_the_service(ibm: IbmService) -> None:
    ibm.script(hold_queue=True)
    with desk(adapter(), Quota(max_pending=2)) as (made, _):
        made.enqueue("me", requests(4))
        wait_until(lambda: ibm.state()["pending"] == 2)
        made.cancel([f"t-{n}" for n in range(4)], Verdict("cancelled", "TaskCancelled", "by the user"))
        told = wait_for(made, [f"t-{n}" for n in range(4)])
        assert {one.state for one in told.values()} == {"cancelled"}
    assert {job["status"] for job in ibm.state()["jobs"]} == {"Cancelled"}
    assert len(ibm.state()["jobs"]) == 2


def test_no_more_jobs_a_minute_than_allowed(ibm: IbmService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray_qjm.planning.quota.WINDOW_S", 2.0)
    one = adapter()
    ibm.script(rate_posts=3, rate_window_s=2.0)
    with desk(one, Quota(max_pending=10, jobs_per_minute=3)) as (made, _):
        made.enqueue("me", requests(7))
        told = wait_for(made, [f"t-{n}" for n in range(7)])
        assert {one.state for one in told.values()} == {"done"}
    assert ibm.state()["requests"][SUBMIT] == 7  # none was refused


def test_a_session_is_closed_when_the_last_task_leaves(ibm: IbmService) -> None:
    one = adapter(mode="session")
    with desk(one) as (made, _):
        made.enqueue("me", requests(1))
        wait_for(made, ["t-0"])
        opened = one._mode.get()
        assert opened.details()["accepting_jobs"] is True
        made.hello(Client("somebody else"))
        made.bye("me")
        assert opened.details()["accepting_jobs"] is True
        made.bye("somebody else")
        assert opened.details()["accepting_jobs"] is False
