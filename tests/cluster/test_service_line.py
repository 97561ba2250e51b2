"""A line of work without Ray: whatever breaks, every chunk has one answer."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from ray_qjm.backends.base import FetchFailed
from ray_qjm.backends.desk_messages import Told
from ray_qjm.cluster import line_rows, service_line
from ray_qjm.cluster.line_jobs import LineSetup, OpenJob
from ray_qjm.cluster.line_purse import LinePurse
from ray_qjm.cluster.messages import Outcome
from ray_qjm.cluster.service_line import ServiceLine
from ray_qjm.cluster.service_work import Prepared
from ray_qjm.errors import TaskCancelledError
from ray_qjm.options import Budget, Limits, RetryPolicy
from ray_qjm.planning.assembly import Assembly
from ray_qjm.planning.events import Chunk, Wants
from ray_qjm.planning.orders import Run
from ray_qjm.planning.quota import Cost, Purse
from ray_qjm.planning.verdicts import Verdict
from ray_qjm.results.jobs import Job


class Reference:
    """As Ray's, with a value that is there, or never will be."""

    def __init__(self, value: Any = None, *, there: bool = True) -> None:
        self._future: Future[Any] = Future()
        if there:
            self._future.set_result(value)

    def future(self) -> Future[Any]:
        """See Ray."""
        return self._future


class Scene:
    """A line, what it was asked for, and what it said."""

    def __init__(self, budget: Budget | None = None, lost: Any = "fail", ahead: int = 2) -> None:
        self.jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.cancelled: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.told: list[Any] = []
        self.answers: queue.SimpleQueue[tuple[Chunk, Any]] = queue.SimpleQueue()
        self.fetched: Any = (None, "raw")
        self.collected = True
        self.wholes: list[Any] = []
        self.preparing: list[Any] = []
        self.hold_back = False
        self.purse = Purse(budget)
        link: Any = SimpleNamespace(
            enqueue=self.jobs.put,
            send=lambda: None,
            fetch=lambda tag: tuple(map(Reference, self.fetched)),
            cancel=lambda tags, verdict: self.cancelled.put((list(tags), verdict)),
            withdraw=lambda tags, verdict: None,
            forget=lambda tags: None,
            close=lambda: None,
        )
        tasks: Any = SimpleNamespace(prepare=self._prepare, collect=self._collect, cancel=lambda: None)
        retry = RetryPolicy(lost=lost)
        setup = LineSetup(0, "svc", "svc", "acc", "t-e1-k-0", "t", 1, retry, None, False, 0, True, ahead)
        assembly = Assembly(Limits(max_circuits=4), mixed=False, shots_of=lambda index: 10)
        purse = LinePurse(self.purse, threading.Lock(), (0.0, 0.0))
        self.line = ServiceLine(setup, assembly, link, tasks, purse, self.told.append)

    def start(self, start: int, stop: int) -> None:
        """Give it a chunk."""
        chunk = Chunk(start, stop)
        self.line.start(chunk, None, lambda answer: self.answers.put((chunk, answer)))

    def say(self, tag: str, state: str, job_id: str | None = "job-1", **more: Any) -> None:
        """News of the desk."""
        fields = {"attempts": 1, "verdict": None, "times": {}, "facts": {}, **more}
        self.line.heard([Told(tag, state, job_id, **fields)])

    def settled(self) -> None:
        """All that the line was told so far is done."""
        done = threading.Event()
        self.line._queue.put(done.set)
        assert done.wait(20)

    def answer(self) -> tuple[Chunk, Any]:
        """The next answer to a chunk."""
        return self.answers.get(timeout=20)

    def _prepare(self, chunk: Chunk, payload: Any, done: Any) -> None:
        def now() -> None:
            sizes = dict.fromkeys(range(chunk.start, chunk.stop), 0)
            done(Prepared(sizes, 100, 0.0, 0.1), "data", "sheet")

        if self.hold_back:
            self.preparing.append(now)
        else:
            now()

    def _collect(self, *given: Any) -> Any:
        *_, done = given
        wholes = given[3]
        self.wholes += wholes
        if self.collected:
            done([Outcome(done=len(whole.chunk)) for whole in wholes])
        return Reference({})


@pytest.fixture
def scene() -> Iterator[Scene]:
    found = Scene()
    yield found
    if found.line._thread.is_alive():
        found.line.close()


def test_what_is_heard_before_anybody_listens_isnt_lost(scene: Scene) -> None:
    """The desk may answer for adopted jobs while the task is still being put together."""
    scene.line.adopt(OpenJob("old", (Run(0, 4, 10),), ((0, 4),), "job-1", (), {}))
    scene.say("old", "done")
    assert scene.told == []
    scene.line.begin()
    scene.jobs.get(timeout=20)
    scene.start(0, 4)
    assert scene.answer() == (Chunk(0, 4), Outcome(done=4))
    assert any(isinstance(news, Wants) for news in scene.told)


def test_a_line_that_breaks_answers_each_chunk_once(scene: Scene) -> None:
    scene.line.begin()
    scene.start(0, 4)
    scene.jobs.get(timeout=20)
    scene.hold_back = True
    scene.start(4, 6)
    scene.line.withdraw(0, 0)  # what was put before is done now, or soon
    while not scene.preparing:
        pass
    scene.line.heard([None])  # type: ignore[list-item]
    answers = dict([scene.answer(), scene.answer()])
    assert set(answers) == {Chunk(0, 4), Chunk(4, 6)}
    assert all("AttributeError" in str(answer.fatal) for answer in answers.values())
    scene.preparing.pop()()
    scene.say("t-e1-k-0-1", "done")
    scene.start(8, 9)
    chunk, answer = scene.answer()
    assert chunk == Chunk(8, 9) and answer.fatal is not None
    assert scene.answers.empty()


def test_a_cancelled_task_waits_for_no_chunks_that_wont_come(scene: Scene) -> None:
    """An adopted job is done, and half of its circuits will never be asked for."""
    scene.line.adopt(OpenJob("old", (Run(0, 4, 10),), ((0, 4),), "job-1", (), {}))
    scene.line.begin()
    scene.start(0, 2)
    scene.say("old", "done")
    scene.line.stop()
    assert scene.answer() == (Chunk(0, 2), Outcome(done=2))


def test_circuits_that_failed_elsewise_arent_waited_for(scene: Scene) -> None:
    scene.line.adopt(OpenJob("old", (Run(0, 4, 10),), ((0, 4),), "job-1", (), {}))
    scene.line.begin()
    scene.start(0, 3)
    scene.say("old", "done")
    scene.line.withdraw(3, 4)
    assert scene.answer() == (Chunk(0, 3), Outcome(done=3))


def test_results_that_never_come_dont_keep_a_task_from_ending(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_line, "RESULTS_GRACE_S", 0.1)
    scene.collected = False
    scene.line.begin()
    scene.start(0, 4)
    scene.jobs.get(timeout=20)
    scene.say("t-e1-k-0-1", "done")
    scene.line.abandon()
    chunk, answer = scene.answer()
    assert chunk == Chunk(0, 4) and "couldn't be had in time" in str(answer)


def test_a_second_signal_doesnt_wait_for_the_id_of_a_job_that_is_left(scene: Scene) -> None:
    scene.line.begin()
    scene.start(0, 4)
    tag = scene.jobs.get(timeout=20).tag
    scene.say(tag, "intended", None)
    scene.line.leave()
    scene.settled()
    assert scene.answers.empty()  # its reply is on its way
    scene.line.abandon()
    chunk, answer = scene.answer()
    assert chunk == Chunk(0, 4) and isinstance(answer, TaskCancelledError)
    assert [(job.job_id, job.state) for job in scene.line.open_jobs()] == [(None, "intended")]
    assert scene.cancelled.empty() and not any(isinstance(news, Job) for news in scene.told)


@pytest.mark.parametrize(("lost", "jobs"), [("fail", 1), ("resubmit", 2)])
def test_a_result_that_nobody_can_have_any_more(lost: str, jobs: int) -> None:
    scene = Scene(lost=lost)
    scene.fetched = (FetchFailed("the process has ended", final=True), None)
    scene.line.begin()
    scene.start(0, 4)
    scene.jobs.get(timeout=20)
    scene.say("t-e1-k-0-1", "done")
    if lost == "resubmit":
        again = scene.jobs.get(timeout=20)
        scene.fetched = (None, "raw")
        scene.say(again.tag, "done", "job-2")
    assert scene.answer()[0] == Chunk(0, 4)
    scene.line.close()


def test_an_attempt_that_goes_beyond_the_budget_is_the_last() -> None:
    scene = Scene(Budget(jobs=1))
    scene.line.begin()
    scene.start(0, 4)
    scene.jobs.get(timeout=20)
    verdict = Verdict("again", "ServiceError", "try again")
    scene.say("t-e1-k-0-1~job-1", "failed", verdict=verdict, facts={"runs": [[0, 4, 10, 0]], "usage_s": 3.0})
    tags, why = scene.cancelled.get(timeout=20)
    assert tags == ["t-e1-k-0-1"] and why.what == "no credit"
    assert scene.purse.spent == Cost(1, 40, 3.0)
    assert [news.job_id for news in scene.told if isinstance(news, Job)] == ["job-1"]
    scene.line.close()


def test_jobs_within_a_budget_go_though_the_next_one_doesnt() -> None:
    scene = Scene(Budget(jobs=2))
    scene.line.begin()
    scene.start(0, 12)
    sent = [scene.jobs.get(timeout=20) for _ in range(2)]
    assert len(sent) == 2 and scene.cancelled.empty()
    for number, job in enumerate(sent):
        scene.say(job.tag, "done", f"job-{number}")
    assert scene.answer()[0] == Chunk(0, 12)
    assert scene.cancelled.empty()
    scene.line.close()


def test_a_job_that_is_not_full_goes_when_no_circuit_comes_any_more(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source may be waiting for its results."""
    monkeypatch.setattr(service_line, "LINGER_S", 0.05)
    scene.line.begin()
    scene.start(0, 2)
    assert scene.jobs.get(timeout=20).runs == (Run(0, 2, 10),)


@pytest.mark.parametrize(("most", "more"), [(10**9, True), (150, True), (100, False)])
def test_what_waits_for_a_permit_is_bounded_in_bytes(
    most: int, more: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the job that is next."""
    monkeypatch.setattr(service_line, "PREFETCH_BYTES", most)
    scene = Scene(ahead=10)
    scene.line.begin()
    scene.start(0, 4)
    scene.start(4, 8)
    scene.settled()
    assert scene.jobs.qsize() == 2
    *_, last = (news for news in scene.told if isinstance(news, Wants))
    assert (last.chunks > 0) is more
    scene.line.close()


def lacks(scene: Scene) -> list[tuple[int, int, str, str]]:
    return [
        (lack.start, lack.stop, lack.verdict.error_type, lack.verdict.reason)
        for whole in scene.wholes
        for lack in whole.lacks
    ]


def test_what_is_left_of_a_budget_pays_for_part_of_a_job() -> None:
    scene = Scene(Budget(executions=30))
    scene.line.begin()
    scene.start(0, 4)
    job = scene.jobs.get(timeout=20)
    assert job.runs == (Run(0, 3, 10),) and job.cost == Cost(1, 30)
    scene.say(job.tag, "done")
    assert scene.answer()[0] == Chunk(0, 4)
    ((start, stop, error_type, reason),) = lacks(scene)
    assert (start, stop, error_type) == (3, 4, "NoCreditError") and "30 executions are the budget" in reason
    scene.line.close()


@pytest.mark.parametrize("stopped", [True, False])
def test_a_job_that_the_service_does_not_cancel_is_named(
    stopped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task is cancelled, or the job's time is up: nobody waits for it for ever."""
    monkeypatch.setattr(service_line, "SERVICE_GRACE_S", 0.1)
    scene = Scene()
    scene.line.begin()
    scene.start(0, 4)
    tag = scene.jobs.get(timeout=20).tag
    scene.say(tag, "running", "job-7")
    if stopped:
        scene.line.stop()
        scene.cancelled.get(timeout=20)
    scene.say(tag, "cancelling", "job-7")
    assert scene.answer()[0] == Chunk(0, 4)
    ((_, _, error_type, reason),) = lacks(scene)
    assert error_type == "JobNotCancelledError" and "job job-7 on svc wasn't cancelled within 0.1 s" in reason
    (row,) = [news for news in scene.told if isinstance(news, Job)]
    assert (row.job_id, row.state) == ("job-7", "cancelling")
    scene.line.close()


def test_troubles_of_jobs_at_the_service_are_told(scene: Scene) -> None:
    scene.line.begin()
    scene.start(0, 4)
    tag = scene.jobs.get(timeout=20).tag
    scene.say(tag, "submitted", "job-7", facts={"position": 3})
    scene.settled()
    assert scene.line.stand()["position"] == 3 and scene.line.stand()["trouble"] is None
    scene.say(
        tag, "submitted", "job-7", facts={"trouble": "it can't be asked how it is (ConnectionError: reset)"}
    )
    scene.settled()
    assert "ConnectionError" in scene.line.stand()["trouble"]
    scene.say(tag, "queued", None, verdict=Verdict("wait", "ServiceError", "too many requests"))
    scene.settled()
    assert scene.line.stand()["trouble"] == "ServiceError: too many requests"


def test_a_result_is_asked_for_until_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_rows, "_FETCH_S", (0.001, 0.002))
    scene = Scene()
    scene.fetched = (FetchFailed("ConnectionError: no route", final=False), None)
    asked = threading.Event()
    fetch, number = scene.line._link.fetch, itertools.count()

    def counted(tag: str) -> Any:
        if next(number) == 30:
            asked.set()
        return fetch(tag)

    scene.line._link.fetch = counted  # type: ignore[method-assign]
    scene.line.begin()
    scene.start(0, 4)
    tag = scene.jobs.get(timeout=20).tag
    scene.say(tag, "done")
    assert asked.wait(20)
    scene.fetched = (None, "raw")
    assert scene.answer() == (Chunk(0, 4), Outcome(done=4))
    scene.line.close()
