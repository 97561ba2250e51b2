"""The desk with its threads, a scripted service, and journals on a disk; it dies and comes back."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ray_qjm.backends.base import Answer, Submission
from ray_qjm.backends.desk import Desk
from ray_qjm.backends.desk_messages import Client, Request, Told
from ray_qjm.options import Budget, Quota, RetryPolicy
from ray_qjm.planning.quota import Cost
from ray_qjm.planning.tickets import FINAL
from ray_qjm.planning.verdicts import Verdict
from ray_qjm.results.objects import Objects
from ray_qjm.results.submissions import SubmissionLog, submissions
from tests.services.adapter import ScriptedAdapter, outcome
from tests.services.scripted import Fault, Script, ScriptedService

#: Times are short: nothing here waits for a clock but the service and the policy.
RETRY = RetryPolicy(wait_s=0.01, max_wait_s=0.05, lost_grace_s=0.3, call_s=20.0)
POLLS = (0.005, 0.05)


class Memory:
    """A journal; it can be made to fail."""

    def __init__(self) -> None:
        self.entries: list[Any] = []
        self.error: Exception | None = None

    def write(self, entries: Sequence[Any]) -> None:
        """Keep entries."""
        if self.error is not None:
            raise self.error
        self.entries += entries

    def known(self) -> dict[str, dict[str, Any]]:
        """What they say in all."""
        found: dict[str, dict[str, Any]] = {}
        for entry in self.entries:
            if entry.get("gone"):
                found.pop(entry["tag"], None)
            else:
                found.setdefault(entry["tag"], {}).update(entry)
        return found


class Scene:
    """A service, and the desks that talk to it one after the other."""

    def __init__(self, script: Script | None = None, *, tagged: bool = True) -> None:
        script = Script(run_s=lambda job: 0.01) if script is None else script
        self.service = ScriptedService(time.monotonic, script)
        self.adapter = ScriptedAdapter(self.service, tagged=tagged, wait=self._hang)
        self.hung = threading.Event()
        self.let_go = threading.Event()

    def _hang(self, seconds: float) -> None:
        """A reply that takes long comes when the test says so."""
        self.hung.set()
        assert self.let_go.wait(30)

    @contextmanager
    def desk(
        self, journal: Any, quota: Quota | None = None, before: Any = None, **seconds: Any
    ) -> Iterator[Desk]:
        """A desk with the one backend."""
        desk = Desk(Quota() if quota is None else quota, journal, before=before, **seconds)
        try:
            desk.open("a", lambda: self.adapter, POLLS)
            yield desk
        finally:
            desk.close()

    def jobs(self) -> int:
        """How many jobs the service has made."""
        return len(self.service.jobs)


def request(tag: str, circuits: int = 2, *, retry: RetryPolicy = RETRY, **facts: Any) -> Request:
    """A job of circuits ``<tag>.0``, ``<tag>.1``, ..."""
    names = [SimpleNamespace(name=f"{tag}.{number}") for number in range(circuits)]
    make: Any = {"make": lambda: Submission(names, [10] * circuits, tag)}
    return Request(
        tag, "a", Cost(1, 10 * circuits), retry, note={"runs": [[0, circuits, 10, 0]]}, **make | facts
    )


class Reader:
    """A client that reads what becomes of its jobs."""

    def __init__(self, desk: Desk, name: str = "task", **facts: Any) -> None:
        self.name = name
        self.seen: list[Told] = []
        self._desk = desk
        self._after = 0
        desk.hello(Client(name, **facts))

    def until(self, what: Callable[[Told], bool], within_s: float = 30.0) -> Told:
        """The first event of a kind, new or old."""
        over = time.monotonic() + within_s
        while True:
            for told in self.seen:
                if what(told):
                    return told
            assert time.monotonic() < over, f"not told; told were {self.seen}"
            answer = self._desk.events(self.name, self._after, 1.0)
            assert answer is not None
            self._after, found = answer
            self.seen += found

    def end(self, tag: str) -> Told:
        """What became of a job."""
        return self.until(lambda told: told.tag == tag and told.state in FINAL)

    def state(self, tag: str, state: str) -> Told:
        """When a job was in a state."""
        return self.until(lambda told: told.tag == tag and told.state == state)


def test_jobs_of_a_client_are_run_once_and_their_results_fetched() -> None:
    scene = Scene()
    with scene.desk(Memory()) as desk:
        client = Reader(desk)
        desk.enqueue("task", [request(f"x{number}") for number in range(8)])
        for number in range(8):
            told = client.end(f"x{number}")
            assert told.state == "done" and told.job_id is not None and told.verdict is None
            assert desk.fetch(told.tag) == [Answer({outcome(f"{told.tag}.{i}"): 10}) for i in range(2)]
        assert scene.service.highest_pending <= 3
        desk.forget([f"x{number}" for number in range(8)])
        desk.bye("task")
    assert desk.idle() and scene.jobs() == 8 and scene.service.refused == {}


def test_a_job_that_comes_before_its_backend_is_taken_when_it_is_brought_again() -> None:
    """A desk was restarted, and its driver sent a job before it knew: the desk's thread died of it."""
    scene = Scene()
    desk = Desk(Quota(), Memory())
    try:
        client = Reader(desk)
        desk.enqueue("task", [request("x")])
        desk.open("a", lambda: scene.adapter, POLLS)
        desk.enqueue("task", [request("x"), request("y")])
        assert client.end("x").state == client.end("y").state == "done"
    finally:
        desk.close()
    assert scene.jobs() == 2


@pytest.mark.parametrize(
    "fault",
    [Fault(jobs=0, reply="drop"), Fault(reply="drop"), Fault(reply="502"), Fault(lands_s=0.1, reply="drop")],
)
def test_a_lost_reply_costs_no_second_job(fault: Fault) -> None:
    scene = Scene(Script(run_s=lambda job: 0.01, faults=lambda number: Fault() if number else fault))
    with scene.desk(Memory()) as desk:
        client = Reader(desk)
        desk.enqueue("task", [request("x")])
        assert client.end("x").state == "done"
    assert scene.jobs() == 1 and scene.service.shots_run() == {"x.0": 10, "x.1": 10}


def test_a_twin_is_cancelled() -> None:
    script = Script(run_s=lambda job: 0.2, faults=lambda number: Fault(jobs=2, reply="drop"))
    scene = Scene(script)
    with scene.desk(Memory()) as desk:
        client = Reader(desk)
        desk.enqueue("task", [request("x")])
        assert client.end("x").state == "done"
    assert [job.state for job in scene.service.jobs.values()] == ["done", "cancelled"]


def test_without_tags_a_lost_job_fails_with_a_reason() -> None:
    scene = Scene(Script(faults=lambda number: Fault(reply="drop")), tagged=False)
    with scene.desk(Memory()) as desk:
        client = Reader(desk)
        desk.enqueue("task", [request("x")])
        told = client.end("x")
    assert told.state == "lost" and "resubmit" in str(told.verdict) and scene.jobs() == 1


def test_an_intent_that_cannot_be_written_is_not_sent_and_harms_no_other_task() -> None:
    scene, full = Scene(), Memory()
    full.error = OSError("no space left on device")
    with scene.desk(Memory()) as desk:
        unlucky = Reader(desk, "unlucky", journal=full)
        other = Reader(desk, "other", journal=Memory())
        desk.enqueue("unlucky", [request("x")])
        desk.enqueue("other", [request("y")])
        assert "no space left" in str(unlucky.end("x").verdict)
        assert other.end("y").state == "done"
    assert [job.tag for job in scene.service.jobs.values()] == ["y"]


def test_a_driver_whose_store_has_another_owner_submits_nothing() -> None:
    scene = Scene()
    with scene.desk(Memory()) as desk:
        client = Reader(desk, may_send=lambda: False)
        desk.enqueue("task", [request("x")])
        assert client.end("x").verdict == Verdict(
            "again", "DriverGone", "its task goes on in another process, or its driver died"
        )
    assert scene.jobs() == 0


def test_a_call_that_hangs_is_looked_up_and_a_late_answer_harms_nothing() -> None:
    script = Script(run_s=lambda job: 0.01, faults=lambda number: Fault() if number else Fault(takes_s=1.0))
    scene = Scene(script)
    with scene.desk(Memory()) as desk:
        client = Reader(desk)
        desk.enqueue("task", [request("x", retry=RetryPolicy(call_s=0.1, lost_grace_s=0.3))])
        assert scene.hung.wait(30)
        assert client.end("x").state == "done"
        scene.let_go.set()
        desk.enqueue("task", [request("y")])
        assert client.end("y").state == "done"
    assert scene.jobs() == 2


def test_circuits_that_come_when_their_call_is_long_late_are_not_sent_by_it() -> None:
    """The call hung before it sent anything: the job was absent, and sent again by another call."""
    scene = Scene()
    hung, let_go = threading.Event(), threading.Event()
    calls: list[None] = []

    def make() -> Submission:
        calls.append(None)
        if len(calls) == 1:
            hung.set()
            assert let_go.wait(30)
        return Submission([SimpleNamespace(name="c")], [10], "x")

    with scene.desk(Memory()) as desk:
        client = Reader(desk)
        desk.enqueue("task", [request("x", make=make, retry=RetryPolicy(call_s=0.1, lost_grace_s=0.1))])
        assert hung.wait(30)
        assert client.end("x").state == "done"
        let_go.set()
        desk.enqueue("task", [request("y")])
        assert client.end("y").state == "done"
    assert sorted(job.tag for job in scene.service.jobs.values()) == ["x", "y"]


def test_cancelled_jobs_end_whether_they_are_queued_or_running() -> None:
    scene = Scene(Script(run_s=lambda job: 1000.0))
    verdict = Verdict("cancelled", "TaskCancelledError", "the user has cancelled it")
    with scene.desk(Memory(), Quota(max_pending=1)) as desk:
        client = Reader(desk)
        desk.enqueue("task", [request("x"), request("y")])
        client.state("x", "submitted")
        desk.cancel(["x", "y"], verdict)
        assert {client.end(tag).verdict for tag in "xy"} == {verdict}
    assert scene.service.pending == 0 and scene.jobs() == 1


@pytest.mark.parametrize("when", ["running", "done, untold", "lost"])
def test_a_desk_that_died_is_followed_by_one_that_submits_nothing_twice(tmp_path: Path, when: str) -> None:
    """The driver lives, and hands everything that it waits for to the new desk as if it had never been sent."""
    fault = Fault(reply="drop") if when == "lost" else Fault()
    scene = Scene(Script(run_s=lambda job: 0.05, faults=lambda number: fault))
    objects, store = Objects(tmp_path), Memory()
    with scene.desk(SubmissionLog(objects, "desk/1")) as desk:
        client = Reader(desk, journal=store)
        desk.enqueue("task", [request("x"), request("y")])
        for tag in "xy":
            if when == "done, untold":
                client.end(tag)
            else:
                client.state(tag, "unknown" if when == "lost" else "submitted")
    before = submissions(objects, "desk")
    assert set(before) >= {"x", "y"}
    with scene.desk(SubmissionLog(objects, "desk/2"), before=before) as desk:
        client = Reader(desk, journal=store)
        desk.enqueue("task", [request("x"), request("y")])
        for tag in "xy":
            assert client.end(tag).state == "done"
            assert len(desk.fetch(tag)) == 2
        desk.forget(["x", "y"])
    assert scene.jobs() == 2
    assert {entry["runs"][0][1] for entry in store.known().values()} == {2}
    assert "x" not in submissions(objects, "desk")


def test_a_driver_that_died_is_followed_by_one_that_adopts_its_jobs(tmp_path: Path) -> None:
    """The desk is gone too, with its journal: the store's knows which jobs there are."""
    scene = Scene(Script(run_s=lambda job: 0.05))
    objects = Objects(tmp_path)
    with scene.desk(Memory()) as desk:
        client = Reader(desk, "session 1", journal=SubmissionLog(objects, "jobs/1"))
        desk.enqueue("session 1", [request("x"), request("y")])
        client.state("x", "submitted")
        client.state("y", "submitted")
    entries = submissions(objects, "jobs")
    assert {entry["state"] for entry in entries.values()} <= {"submitted", "running", "done"}
    assert all(entry["runs"] == [[0, 2, 10, 0]] for entry in entries.values())
    with scene.desk(Memory()) as desk:
        client = Reader(desk, "session 2", open_=entries)
        adopted = [request(tag, make=None, job_id=entry["job_id"]) for tag, entry in entries.items()]
        desk.enqueue("session 2", adopted)
        assert {client.end(tag).state for tag in "xy"} == {"done"}
    assert scene.jobs() == 2


def test_an_intent_whose_job_never_arrived_is_told_for_packing_again() -> None:
    scene = Scene()
    with scene.desk(Memory()) as desk:
        client = Reader(desk)
        desk.enqueue("task", [request("x", make=None)])
        told = client.end("x")
    assert told.verdict is not None and told.verdict.what == "again" and scene.jobs() == 0


def test_a_client_that_was_taken_for_dead_gets_its_results_when_it_comes_back() -> None:
    scene = Scene(Script(run_s=lambda job: 0.1))
    with scene.desk(Memory(), client_s=0.05, look_around_s=0.01) as desk:
        client = Reader(desk, journal=Memory())
        desk.enqueue("task", [request("x")])
        client.state("x", "submitted")
        watch = time.monotonic() + 30
        while desk.state()["jobs"]:  # its job has ended, and nobody has come for it
            assert time.monotonic() < watch
            time.sleep(0.005)
        assert desk.events("task", 0, 0.0) is None
        assert not desk.idle()  # somebody may
        client = Reader(desk, journal=Memory())
        desk.enqueue("task", [request("x")])
        assert client.end("x").state == "done"
    assert scene.jobs() == 1


def test_what_was_spent_outlives_the_desk(tmp_path: Path) -> None:
    scene, objects = Scene(), Objects(tmp_path)
    quota = Quota(budget=Budget(jobs=3))
    with scene.desk(SubmissionLog(objects, "desk/1"), quota) as desk:
        client = Reader(desk)
        desk.enqueue("task", [request("x"), request("y")])
        client.end("x")
        client.end("y")
        desk.forget(["x", "y"])
    with scene.desk(SubmissionLog(objects, "desk/2"), quota, submissions(objects, "desk")) as desk:
        client = Reader(desk)
        desk.enqueue("task", [request("v"), request("w")])
        ends = {client.end(tag).state for tag in "vw"}
        assert desk.state()["spent"]["jobs"] == 3
    assert ends == {"done", "refused"} and scene.jobs() == 3


def test_a_new_desk_has_no_tokens_of_the_old_one(tmp_path: Path) -> None:
    scene, objects = Scene(), Objects(tmp_path)
    quota = Quota(jobs_per_minute=2)
    with scene.desk(SubmissionLog(objects, "desk/1"), quota) as desk:
        client = Reader(desk)
        desk.enqueue("task", [request("x")])
        client.end("x")
        desk.forget(["x"])
    with scene.desk(SubmissionLog(objects, "desk/2"), quota, submissions(objects, "desk")) as desk:
        client = Reader(desk)
        desk.enqueue("task", [request("y")])
        desk.cancel(["y"], Verdict("cancelled", "Tired", "of waiting"))
        assert client.end("y").state == "cancelled"  # it had no permit yet
    assert scene.jobs() == 1


def test_a_backend_is_opened_once_however_many_ask_at_once() -> None:
    scene = Scene()
    made: list[None] = []
    with scene.desk(Memory()) as desk:
        gate = threading.Barrier(8)

        def make() -> ScriptedAdapter:
            made.append(None)
            return scene.adapter

        def ask() -> None:
            gate.wait(30)
            desk.open("b", make, POLLS)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert len(made) == 1


def test_a_quota_is_changed_only_while_nobody_uses_it() -> None:
    scene, (one, other) = Scene(), (Quota(max_pending=1), Quota(max_pending=5))
    with scene.desk(Memory(), one) as desk:
        assert desk.take_quota(other) == other
        desk.hello(Client("task"))
        assert desk.take_quota(one) == other
        desk.bye("task")
        assert desk.take_quota(one) == one


def test_whoever_watches_is_told_what_was_sent_refused_and_ended_and_no_word_of_the_service() -> None:
    """Of five jobs one is refused at first, one gets no reply, and two are more than the budget has."""
    script = Script(
        run_s=lambda job: 0.01,
        faults=lambda number: {0: Fault(0, code=3458), 2: Fault(0, reply="drop")}.get(number, Fault()),
    )
    scene, states = Scene(script), queue.SimpleQueue[Any]()
    quota = Quota(max_pending=1, budget=Budget(jobs=3))
    with scene.desk(Memory(), quota, watch=states.put, look_around_s=0.02) as desk:
        client = Reader(desk)
        desk.enqueue("task", [request(f"x{number}") for number in range(5)])
        for number in range(5):
            client.end(f"x{number}")
        state = states.get(timeout=30)
        while sum(state["over"].get("a", {}).values()) < 5:
            state = states.get(timeout=30)
    assert state["submitted"] == {"a": 5} and state["retried"] == {"a": 2}
    assert state["refused"] == {"a": {"wait": 1, "unknown": 1, "no credit": 2}}
    assert state["over"] == {"a": {"done": 3, "refused": 2}}
    assert state["left"] == {"jobs": 0} and state["waiting"] == {"a": 0}
    assert (state["pending"], state["max_pending"]) == (0, 1)
