"""What a desk owes to jobs of an earlier process of it, and to drivers that died."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from qiskit import QuantumCircuit
from qiskit.providers.basic_provider import BasicSimulator

from ray_qjm.backends import desk_orphans, desk_unclaimed
from ray_qjm.backends.base import FetchFailed, Submission
from ray_qjm.backends.desk import CLIENT_S, Desk
from ray_qjm.backends.desk_messages import Client, Request
from ray_qjm.backends.run_api import RunAdapter
from ray_qjm.options import Budget, Quota, RetryPolicy
from ray_qjm.planning.quota import Cost
from ray_qjm.planning.verdicts import Verdict
from tests.backends.test_desk import POLLS, RETRY, Memory, Reader, Scene, request
from tests.services.adapter import ScriptedAdapter
from tests.services.scripted import Fault, Script, ScriptedService

UNWANTED = Verdict("cancelled", "TaskCancelledError", "not wanted")


class Numbered(BasicSimulator):  # type: ignore[misc]
    """Its jobs are called 1, 2, ... in each process."""

    number = 0

    def run(self, circuits: Any, **options: Any) -> Any:
        job = super().run(circuits, **options)
        self.number += 1
        job._job_id = str(self.number)
        return job


def flip(tag: str, one: bool, **facts: Any) -> Request:
    circuit = QuantumCircuit(1, 1)
    if one:
        circuit.x(0)
    circuit.measure(0, 0)
    make: Any = {"make": lambda: Submission([circuit], [10], tag)}
    return Request(tag, "a", Cost(1, 10), RETRY, note={"runs": [[0, 1, 10, 0]]}, **make | facts)


def until(what: Any) -> None:
    watch = time.monotonic() + 30
    while not what():
        assert time.monotonic() < watch
        time.sleep(0.005)


def test_equal_ids_of_two_processes_are_not_taken_for_one_job() -> None:
    journal = Memory()
    first = Desk(Quota(), journal)
    first.open("a", lambda: RunAdapter(Numbered(), {}), POLLS)
    client = Reader(first, "s")
    first.enqueue("s", [flip("zero", False)])
    told = client.end("zero")
    assert first.fetch("zero")[0].counts == {"0x0": 10}
    first.close()

    second = Desk(Quota(), journal, before=journal.known())
    second.open("a", lambda: RunAdapter(Numbered(), {}), POLLS)
    client = Reader(second, "s")
    second.enqueue("s", [flip("zero", False, make=None, job_id=told.job_id), flip("one", True)])
    client.end("one")
    client.end("zero")
    found = second.fetch("zero")
    second.close()

    assert isinstance(found, FetchFailed) and found.final


def test_a_result_waits_for_a_driver_that_is_started_again() -> None:
    store = Memory()
    desk = Desk(Quota(), Memory(), client_s=0.3, look_around_s=0.02)
    desk.open("a", lambda: RunAdapter(BasicSimulator(), {}), POLLS)
    desk.hello(Client("s1", journal=store))
    desk.enqueue("s1", [flip("t", True)])
    until(lambda: store.known().get("t", {}).get("state") == "done")
    until(lambda: not desk.state()["jobs"])
    assert not desk.idle()

    client = Reader(desk, "s2", journal=store)
    desk.enqueue("s2", [flip("t", True, make=None, job_id=store.known()["t"]["job_id"])])
    assert client.end("t").state == "done"
    assert desk.fetch("t")[0].counts == {"0x1": 10}
    desk.forget(["t"])
    desk.bye("s2")
    until(desk.idle)
    desk.close()


def test_slots_and_budget_of_a_backend_that_is_not_open_yet_are_not_free() -> None:
    service = ScriptedService(time.monotonic, Script(run_s=lambda job: 60.0, pending=99))
    adapter, journal = ScriptedAdapter(service), Memory()
    quota = Quota(max_pending=3, budget=Budget(jobs=4))
    desk = Desk(quota, journal)
    desk.open("b", lambda: adapter, POLLS)
    client = Reader(desk, "of b")
    desk.enqueue("of b", [replace(request(f"b{number}"), counter="b") for number in range(3)])
    for number in range(3):
        client.state(f"b{number}", "submitted")
    desk.close()

    desk = Desk(quota, journal, before=journal.known())
    assert desk.take_quota(Quota(max_pending=9)) == quota
    desk.open("a", lambda: adapter, POLLS)
    client = Reader(desk, "of a")
    desk.enqueue("of a", [request(f"a{number}") for number in range(3)])
    until(lambda: desk.state()["jobs"].get("queued") == 3)
    assert desk.state()["pending"] == 3 and service.highest_pending == 3

    # Its backend is opened: two jobs end, of which the budget lets one follow.
    desk.open("b", lambda: adapter, POLLS)
    Reader(desk, "of b again")
    desk.cancel(["b0", "b1"], UNWANTED)
    client.state("a0", "submitted")
    assert client.end("a1").state == client.end("a2").state == "refused"
    desk.close()
    assert len(service.jobs) == 4 and service.highest_pending == 3


def test_the_same_backend_with_other_options_asks_about_jobs_of_an_earlier_process() -> None:
    scene, journal = Scene(Script(run_s=lambda job: 0.3)), Memory()
    desk = Desk(Quota(), journal)
    desk.open("svc-111", lambda: scene.adapter, POLLS)
    client = Reader(desk, "task", journal=Memory())
    desk.enqueue("task", [replace(request("t"), counter="svc-111")])
    client.state("t", "submitted")
    desk.close()

    desk = Desk(Quota(), journal, before=journal.known(), client_s=0.05, look_around_s=0.01)
    desk.open("svc-222", lambda: scene.adapter, POLLS)
    until(lambda: desk.state()["pending"] == 0)
    desk.close()
    assert scene.jobs() == 1


def test_a_job_that_ended_while_its_driver_was_dead_is_charged_once() -> None:
    scene, journal, store = Scene(Script(run_s=lambda job: 0.05)), Memory(), Memory()
    quota = Quota(budget=Budget(jobs=2))
    with scene.desk(journal, quota, client_s=0.2, look_around_s=0.02) as desk:
        desk.hello(Client("s1", journal=store))
        desk.enqueue("s1", [request("t")])
        until(lambda: store.known().get("t", {}).get("state") == "done" and not desk.state()["jobs"])
    with scene.desk(journal, quota, journal.known()) as desk:
        client = Reader(desk, "s2", journal=store)
        desk.enqueue("s2", [request("t", make=None, job_id=store.known()["t"]["job_id"])])
        client.end("t")
        assert desk.state()["spent"]["jobs"] == 1
        desk.enqueue("s2", [request("u")])
        assert client.end("u").state == "done"


def test_a_late_answer_to_one_look_up_is_no_answer_to_the_next() -> None:
    script = Script(
        run_s=lambda job: 0.5,
        faults=lambda number: Fault(jobs=1, lands_s=0.3, reply="drop") if number == 0 else Fault(),
    )
    service = ScriptedService(time.monotonic, script)
    late, told = threading.Event(), threading.Event()

    class Slow(ScriptedAdapter):
        looks = 0

        def find(self, tag: str) -> list[str] | None:
            self.looks += 1
            number, found = self.looks, service.find(tag)
            if number == 1:
                assert late.wait(30)  # longer than ``call_s``
                told.set()
            elif number == 2:
                late.set()
                assert told.wait(30)
                time.sleep(0.2)  # the late one comes first
            return found

    retry = RetryPolicy(wait_s=0.01, max_wait_s=0.05, lost_grace_s=0.5, call_s=1.0)
    desk = Desk(Quota(), Memory())
    desk.open("a", lambda: Slow(service), POLLS)
    client = Reader(desk)
    desk.enqueue("task", [request("t", retry=retry)])
    assert client.end("t").state == "done"
    desk.close()
    assert len(service.jobs) == 1


def test_a_job_whose_circuits_went_while_its_intent_was_written_is_told_and_not_stuck() -> None:
    """Its first attempt failed; its driver is replaced by one that has a job id, and no circuits."""
    script = Script(run_s=lambda job: 0.02, fails=lambda number: "Error code: 1000" if number == 0 else None)
    stuck, go_on = threading.Event(), threading.Event()

    class Slow(Memory):
        intents = 0

        def write(self, entries: Any) -> None:
            self.intents += any(entry.get("state") == "intended" for entry in entries)
            if self.intents == 2 and not stuck.is_set():
                stuck.set()
                assert go_on.wait(30)
            super().write(entries)

    scene = Scene(script)
    with scene.desk(Slow()) as desk:
        Reader(desk)
        desk.enqueue("task", [request("t")])
        assert stuck.wait(30)
        client = Reader(desk, "task 2")
        desk.enqueue("task 2", [request("t", make=None, job_id="job-0")])
        client.state("t", "intended")
        go_on.set()
        verdict = client.end("t").verdict
        assert verdict is not None and verdict.what == "again"


def test_a_driver_that_introduces_itself_again_does_not_take_the_circuits_away() -> None:
    script = Script(run_s=lambda job: 0.02, fails=lambda number: "Error code: 1000" if number == 0 else None)
    scene = Scene(script)
    slow = replace(RETRY, wait_s=0.3, max_wait_s=0.3)
    with scene.desk(Memory()) as desk:
        client = Reader(desk)
        desk.enqueue("task", [request("t", retry=slow)])
        client.until(lambda told: told.tag == "t" and told.state == "queued")
        desk.enqueue("task", [request("t", make=None, job_id="job-0", retry=slow)])
        assert client.end("t").state == "done"
    assert scene.jobs() == 2


def test_circuits_that_come_too_late_to_be_sent_are_not_taken_for_sent() -> None:
    scene, asked = Scene(tagged=False), []
    retry = RetryPolicy(wait_s=0.01, lost_grace_s=5.0, call_s=0.5)
    wanted = request("t", retry=retry)

    def make() -> Submission:
        asked.append(1)
        if len(asked) == 1:
            time.sleep(0.8)  # longer than ``call_s``
        assert wanted.make is not None
        return wanted.make()

    with scene.desk(Memory()) as desk:
        client = Reader(desk)
        desk.enqueue("task", [replace(wanted, make=make)])
        assert client.end("t").state == "done"
        assert desk.state()["spent"]["jobs"] == 1
    assert scene.jobs() == 1


def test_a_service_that_says_at_once_is_not_asked_in_a_loop() -> None:
    script = Script(pending=99, faults=lambda number: Fault(jobs=0, throttled_s=0.0))
    scene = Scene(script)
    with scene.desk(Memory()) as desk:
        client = Reader(desk)
        desk.enqueue("task", [request("t", retry=RetryPolicy(wait_s=0.2, max_wait_s=1.0, give_up_s=1.0))])
        client.end("t")
        assert desk.counts["sent"] <= 11


def test_a_store_that_hangs_holds_up_no_other_task() -> None:
    scene, go_on = Scene(), threading.Event()

    class Hanging(Memory):
        def write(self, entries: Any) -> None:
            assert go_on.wait(30)
            super().write(entries)

    with scene.desk(Memory(), Quota(max_pending=2)) as desk:
        hung = Reader(desk, "hung", journal=Hanging())
        desk.enqueue("hung", [request("x")])
        until(lambda: desk.state()["jobs"].get("intended") == 1)
        other = Reader(desk, "other", journal=Memory())
        desk.enqueue("other", [request("y")])
        assert other.end("y").state == "done"
        go_on.set()
        assert hung.end("x").state == "done"


def test_a_twin_that_outlives_a_desk_is_told_to_its_task() -> None:
    script = Script(
        parallel=2,
        run_s=lambda job: 0.5,
        faults=lambda number: Fault(jobs=2, reply="drop"),
        cancels=lambda number: "ignored",
    )
    scene, journal, store = Scene(script), Memory(), Memory()
    with scene.desk(journal) as desk:
        client = Reader(desk, "s1", journal=store)
        desk.enqueue("s1", [request("t")])
        client.state("t", "submitted")
        until(lambda: any("~" in tag for tag in journal.known()))
    with scene.desk(journal, before=journal.known()) as desk:
        client = Reader(desk, "s2", journal=store)
        desk.enqueue("s2", [request("t", make=None, job_id="job-0")])
        twin = client.until(lambda told: told.tag.startswith("t~"))
        client.end("t")
    assert twin.job_id == "job-1" and store.known()["t~job-1"]["beside"]


def test_job_objects_of_attempts_that_failed_are_dropped() -> None:
    class Flaky(BasicSimulator):  # type: ignore[misc]
        number = 0

        def run(self, circuits: Any, **options: Any) -> Any:
            job = super().run(circuits, **options)
            self.number += 1
            if self.number % 2:
                job.result()

                def broken() -> Any:
                    raise ConnectionError("the machine was reset")

                job.result = broken
            return job

    adapter = RunAdapter(Flaky(), {})
    desk = Desk(Quota(), Memory())
    desk.open("a", lambda: adapter, POLLS)
    client = Reader(desk)
    for number in range(4):
        desk.enqueue("task", [flip(f"t{number}", True)])
        client.end(f"t{number}")
        desk.forget([f"t{number}"])
    until(lambda: not desk.state()["jobs"])
    desk.close()
    assert not adapter._jobs._jobs and not adapter._sent


def test_a_slot_that_nobody_asks_about_is_given_up_and_what_it_cost_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene, journal = Scene(Script(run_s=lambda job: 60.0)), Memory()
    quota = Quota(max_pending=1, budget=Budget(jobs=2))
    with scene.desk(journal, quota) as desk:
        client = Reader(desk, journal=Memory())
        desk.enqueue("task", [request("t")])
        client.state("t", "submitted")
    monkeypatch.setattr(desk_orphans, "ORPHAN_S", 0.2)
    desk = Desk(quota, journal, before=journal.known(), client_s=0.05, look_around_s=0.01)
    assert desk.state()["pending"] == 1
    until(lambda: desk.state()["pending"] == 0)
    assert desk.state()["spent"]["jobs"] == 1 and desk.idle()
    desk.close()


def test_a_result_that_nobody_comes_for_is_dropped_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_unclaimed, "KEEP_S", 0.2)
    adapter = RunAdapter(BasicSimulator(), {})
    desk = Desk(Quota(), Memory(), client_s=0.1, look_around_s=0.02)
    desk.open("a", lambda: adapter, POLLS)
    desk.hello(Client("s1", journal=Memory()))
    desk.enqueue("s1", [flip("t", True)])
    until(lambda: desk.counts["sent"] == 1)
    until(desk.idle)
    desk.close()
    assert not adapter._jobs._jobs


def test_a_result_that_cannot_be_dropped_does_not_keep_the_others() -> None:
    """An adapter's ``forget`` raises, for the first of three results for which nobody came in time."""
    adapter, asked, later = RunAdapter(BasicSimulator(), {}), [], [0.0]
    drop = adapter.forget

    def forget(job_id: str) -> None:
        asked.append(job_id)
        if len(asked) == 1:
            raise ConnectionError("the machine was reset")
        drop(job_id)

    adapter.forget = forget  # type: ignore[method-assign]
    desk = Desk(Quota(), Memory(), clock=lambda: time.monotonic() + later[0], look_around_s=0.02)
    desk.open("a", lambda: adapter, POLLS)
    client = Reader(desk, "s1", journal=Memory())
    desk.enqueue("s1", [flip(f"t{number}", True) for number in range(3)])
    jobs = {client.end(f"t{number}").job_id for number in range(3)}
    later[0] = 2 * CLIENT_S
    until(lambda: not desk.state()["jobs"])
    assert not asked and not desk.idle()
    later[0] = 2 * desk_unclaimed.KEEP_S
    until(desk.idle)
    desk.close()
    assert len(asked) == 3 and set(asked) == jobs


class Full(Memory):
    """A store that takes everything but how jobs end."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answers = threading.Event(), threading.Event()
        self.answers.set()
        self.full = True

    def write(self, entries: Any) -> None:
        if any(entry.get("state") == "done" for entry in entries):
            self.asked.set()
            assert self.answers.wait(30)
            if self.full:
                raise OSError("no space left on device")
        super().write(entries)


def test_a_job_whose_end_is_missing_in_the_store_of_its_task_is_charged_once() -> None:
    """Its driver died, the desk went on; the store took the job's id, and was full when the job ended."""
    scene, journal, store = Scene(Script(run_s=lambda job: 0.05)), Memory(), Full()
    quota = Quota(budget=Budget(jobs=2))
    with scene.desk(journal, quota, client_s=0.2, look_around_s=0.02) as desk:
        desk.hello(Client("s1", journal=store))
        desk.enqueue("s1", [request("t")])
        until(lambda: journal.known().get("t", {}).get("state") == "done" and not desk.state()["jobs"])
    with scene.desk(journal, quota, journal.known()) as desk:
        client = Reader(desk, "s2", journal=store, open_=store.known())
        desk.enqueue("s2", [request("t", make=None, job_id=store.known()["t"]["job_id"])])
        client.end("t")
        assert desk.state()["spent"]["jobs"] == 1


def forgotten(desk: Desk, store: Full, *, late: bool = False) -> None:
    """A client has stored a job's rows and forgets it; ``late``: before the store says that it can't take its end."""
    if late:
        store.answers.clear()
    client = Reader(desk, "s1", journal=store)
    desk.enqueue("s1", [request("t")])
    client.end("t")
    assert store.asked.wait(30)
    desk.forget(["t"])
    until(lambda: not desk.state()["jobs"])


def joins_again(desk: Desk, store: Full, spent: int) -> None:
    """By the store the job still runs; another is run, and that one isn't taken up."""
    open_ = {tag: entry for tag, entry in store.known().items() if tag == "t"}
    assert open_["t"]["state"] in ("submitted", "running")
    client = Reader(desk, f"s{spent}", journal=Memory(), open_=open_)
    desk.enqueue(client.name, [request(f"then {spent}")])
    client.end(f"then {spent}")
    state = desk.state()
    assert (state["jobs"], state["spent"]["jobs"]) == ({"done": 1}, spent)
    desk.forget([f"then {spent}"])


@pytest.mark.parametrize("late", [False, True])
def test_a_job_that_is_forgotten_is_charged_once_though_the_store_of_its_task_missed_its_end(
    late: bool,
) -> None:
    scene, journal, store = Scene(), Memory(), Full()
    with scene.desk(journal) as desk:
        forgotten(desk, store, late=late)
        joins_again(desk, store, 2)
        store.answers.set()
        joins_again(desk, store, 3)
    with scene.desk(journal, before=journal.known()) as desk:
        joins_again(desk, store, 4)
    assert scene.jobs() == 4


@pytest.mark.parametrize("restarted", [False, True])
def test_a_session_that_brings_a_forgotten_job_hears_how_it_ended_and_is_not_charged(restarted: bool) -> None:
    """Its circuits failed, say, and are wanted again: the store takes the job to be running."""
    scene, journal, store = Scene(), Memory(), Full()

    def resume(desk: Desk) -> None:
        store.full = False
        client = Reader(desk, "s2", journal=store, open_=store.known())
        desk.enqueue("s2", [request("t", make=None, job_id="job-0")])
        assert client.end("t").state == "done"
        assert desk.state()["spent"]["jobs"] == 1
        until(lambda: store.known()["t"]["state"] == "done")
        desk.forget(["t"])
        until(lambda: "t" not in journal.known())

    with scene.desk(journal) as desk:
        forgotten(desk, store)
        if not restarted:
            resume(desk)
    if restarted:
        with scene.desk(journal, before=journal.known()) as desk:
            resume(desk)


def test_a_forgotten_job_leaves_the_journal_once_the_store_of_its_task_has_its_end() -> None:
    scene, journal, store = Scene(), Memory(), Full()
    with scene.desk(journal) as desk:
        forgotten(desk, store, late=True)
        assert journal.known()["t"]["state"] == "done"
        store.full = False
        store.answers.set()
        until(lambda: "t" not in journal.known())
        assert store.known()["t"]["state"] == "done"
