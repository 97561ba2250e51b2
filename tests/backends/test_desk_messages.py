"""Messages of drivers that come early, late, in another order, or from nobody; and what is told beside jobs."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ray_qjm.backends.base import FetchFailed, JobGoneError
from ray_qjm.backends.desk import Desk
from ray_qjm.backends.desk_messages import Client
from ray_qjm.errors import BackendResultError
from ray_qjm.options import Quota, RetryPolicy
from ray_qjm.planning.verdicts import Verdict
from tests.backends.test_desk import POLLS, RETRY, Memory, Reader, Scene, request
from tests.services.scripted import Fault, Script

UNWANTED = Verdict("cancelled", "TaskCancelledError", "the user has cancelled it")


def test_jobs_that_come_before_their_backend_and_client_are_brought_again() -> None:
    """Ray delivers calls to a desk that was restarted before its driver has noticed."""
    scene = Scene()
    desk = Desk(Quota(), Memory())
    try:
        desk.enqueue("task", [request("x")])
        desk.hello(Client("task"))
        desk.enqueue("task", [request("x")])
        desk.open("a", lambda: scene.adapter, POLLS)
        client = Reader(desk)
        desk.enqueue("task", [request("x")])
        assert client.end("x").state == "done"
    finally:
        desk.close()
    assert scene.jobs() == 1


def test_a_cancel_that_overtakes_its_job_is_remembered() -> None:
    scene = Scene()
    with scene.desk(Memory()) as desk:
        client = Reader(desk)
        desk.cancel(["x"], UNWANTED)
        desk.enqueue("task", [request("x"), request("y")])
        assert client.end("x").verdict == UNWANTED
        assert client.end("y").state == "done"
    assert [job.tag for job in scene.service.jobs.values()] == ["y"]


@pytest.mark.parametrize("journal", [None, Memory()])
def test_what_a_client_leaves_behind_is_cancelled_unless_a_store_knows_it(journal: Any) -> None:
    scene = Scene(Script(run_s=lambda job: 1000.0))
    with scene.desk(Memory(), Quota(max_pending=1)) as desk:
        client = Reader(desk, journal=journal)
        other = Reader(desk, "other")
        desk.enqueue("task", [request("x"), request("z")])
        client.state("x", "submitted")
        desk.bye("task")
        desk.enqueue("other", [request("y")])
        if journal is None:
            other.state("y", "submitted")
            assert [job.state for job in scene.service.jobs.values()] == ["cancelled", "submitted"] or [
                job.state for job in scene.service.jobs.values()
            ] == ["cancelled", "running"]
            return
        desk.cancel(["y"], UNWANTED)
        other.end("y")
        assert desk.state()["jobs"].get("queued", 0) == 0
    assert scene.service.pending == 1 and scene.jobs() == 1


def test_a_fetch_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, let_go = Scene(), threading.Event()
    monkeypatch.setattr(scene.adapter, "fetch", lambda job_id: let_go.wait(30))
    with scene.desk(Memory()) as desk:
        client = Reader(desk)
        desk.enqueue("task", [request("x", retry=RetryPolicy(**{**vars(RETRY), "call_s": 0.2}))])
        client.end("x")
        assert desk.fetch("x") == FetchFailed("no answer after 0.2 s", final=False)
        let_go.set()


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (BackendResultError("half of it is missing"), True),
        (TypeError("None is no list"), True),
        (AttributeError("no array"), True),
        (JobGoneError("its process has ended"), True),
        (ValueError("a page"), False),
        (KeyError("results"), False),
        (ConnectionError("cut"), False),
        (PermissionError("401"), False),
    ],
)
def test_a_result_that_cannot_be_read_is_not_asked_for_again(
    error: Exception, final: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(job_id: str) -> Any:
        raise error

    scene = Scene()
    monkeypatch.setattr(scene.adapter, "fetch", fetch)
    with scene.desk(Memory()) as desk:
        client = Reader(desk)
        desk.enqueue("task", [request("x")])
        client.end("x")
        found = desk.fetch("x")
    assert isinstance(found, FetchFailed) and found.final == final
    assert str(error) in found.reason
    unreadable = final and not isinstance(error, JobGoneError)
    assert found.reason.endswith("; asking again gives the same") == unreadable


def test_a_store_that_cannot_be_read_before_a_submission_is_no_fault_of_its_circuits() -> None:
    def may_send() -> bool:
        raise OSError("the disk is gone")

    scene = Scene()
    with scene.desk(Memory()) as desk:
        client = Reader(desk, may_send=may_send)
        desk.enqueue("task", [request("x")])
        verdict = client.end("x").verdict
    assert verdict is not None and verdict.what == "elsewhere" and "the disk is gone" in verdict.reason
    assert verdict.error_type == "StoreUnavailableError" and "tried 8 times" in verdict.reason
    assert scene.jobs() == 0


def test_attempts_that_failed_are_told_and_written_down() -> None:
    scene = Scene(
        Script(run_s=lambda job: 0.01, fails=lambda number: "Error code: 1000" if number == 0 else None)
    )
    store = Memory()
    with scene.desk(Memory()) as desk:
        client = Reader(desk, journal=store)
        desk.enqueue("task", [request("x")])
        beside = client.end("x~job-0")
        assert client.end("x").job_id == "job-1"
    assert (beside.state, beside.attempts, beside.facts["runs"]) == ("failed", 1, [[0, 2, 10, 0]])
    entry = store.known()["x~job-0"]
    assert entry["beside"] and entry["usage_s"] == beside.facts["usage_s"] == pytest.approx(2.005)


def test_a_twin_is_told() -> None:
    script = Script(run_s=lambda job: 0.3, faults=lambda number: Fault(jobs=2, reply="drop"))
    scene = Scene(script)
    with scene.desk(Memory()) as desk:
        client = Reader(desk)
        desk.enqueue("task", [request("x")])
        told = client.end("x~job-1")
        assert told.state == "cancelled" and "beside job-0" in str(told.verdict)
        assert client.end("x").job_id == "job-0"


@pytest.mark.parametrize("lost", ["fail", "resubmit"])
def test_a_job_that_nobody_can_ask_for_any_more(lost: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray_qjm.planning.errands import Seen

    scene = Scene()
    gone = Verdict("give up", "JobLostError", "the process that submitted it has ended")
    real = scene.adapter.status

    def status(job_ids: Any) -> Any:
        return {**real(job_ids), **({"job-0": Seen("lost", gone)} if "job-0" in job_ids else {})}

    monkeypatch.setattr(scene.adapter, "status", status)
    with scene.desk(Memory()) as desk:
        client = Reader(desk)
        desk.enqueue("task", [request("x", retry=RetryPolicy(**{**vars(RETRY), "lost": lost}))])
        told = client.end("x")
        if lost == "fail":
            assert told.state == "lost" and told.verdict == gone
        else:
            assert told.state == "done" and told.job_id == "job-1"
            assert client.end("x~job-0").state == "lost"
