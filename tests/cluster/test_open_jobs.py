"""What a task that goes on makes of the jobs of its earlier sessions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ray_qjm.cluster import open_jobs
from ray_qjm.cluster.open_jobs import EarlierJobs, earlier_jobs, settle
from ray_qjm.errors import InvalidInputError
from ray_qjm.planning.events import Chunk
from ray_qjm.planning.quota import Cost
from ray_qjm.planning.ranges import Ranges
from ray_qjm.results.jobs import Job, JobLog
from ray_qjm.results.objects import Objects
from ray_qjm.results.submissions import SUBMISSIONS, SubmissionLog, submissions


def entry(
    tag: str, state: str, job_id: str | None, start: int = 0, stop: int = 4, **more: Any
) -> dict[str, Any]:
    return {
        "tag": tag, "task": "t", "backend": "svc", "runs": [[start, stop, 10, 0]], "attempt": 0, "state": state,
        "job_id": job_id, "session": int(tag[3]), "cost": [1, 40, 2.0], "usage_s": None, "reason": None, **more,
    }  # fmt: skip


def read(
    monkeypatch: pytest.MonkeyPatch, *entries: dict[str, Any], kept: Any = (), backends: Any = ("svc",)
) -> tuple[EarlierJobs, list[str]]:
    monkeypatch.setattr(open_jobs, "submissions", lambda *_: {item["tag"]: item for item in entries})
    log = JobLog()
    opened: Any = SimpleNamespace(objects=SimpleNamespace(place="here"), jobs=log)
    found = earlier_jobs(opened, Ranges(kept), backends, range(len(backends)), lambda circuit: 10)
    return found, log.table().column("job_id").to_pylist()


def test_a_job_with_rows_still_to_come_is_taken_up_and_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its line reserves its cost, and notes it when it ends: not here too."""
    found, noted = read(monkeypatch, entry("t-e1-k-0-1", "done", "job-1"), kept=[(0, 2)])
    (job,) = found.open[0]
    assert job.awaited == ((2, 4),) and not job.noted
    assert found.spent == Cost() and noted == []
    assert list(found.chunks()) == [Chunk(2, 4, 0, bound=True)]


def test_what_has_its_rows_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    found, noted = read(
        monkeypatch,
        entry("t-e1-k-0-1", "done", "job-1", usage_s=5.0),
        entry("t-e1-k-0-2", "running", "job-2"),
        kept=[(0, 4)],
    )
    assert found.open == {} and found.spent == Cost(2, 80, 7.0) and noted == ["job-1"]


def test_attempts_and_twins_are_spent_and_never_taken_up(monkeypatch: pytest.MonkeyPatch) -> None:
    found, noted = read(
        monkeypatch,
        entry("t-e1-k-0-1~job-1", "failed", "job-1", beside=True),
        entry("t-e1-k-0-1~job-3", "done", "job-3", beside=True),
        entry("t-e1-k-0-1", "submitted", "job-2"),
    )
    assert [job.job_id for job in found.open[0]] == ["job-2"]
    assert found.spent == Cost(2, 80, 4.0) and noted == ["job-1", "job-3"]


def test_of_two_sessions_that_name_the_same_circuits_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = read(
        monkeypatch, entry("t-e1-k-0-1", "intended", None), entry("t-e2-k-0-1", "submitted", "job-1", 1, 3)
    )
    assert [job.tag for job in found.open[0]] == ["t-e2-k-0-1"]


def test_jobs_on_a_backend_that_isnt_named_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match=r"1 jobs on backend svc that may be running.*job-1"):
        read(monkeypatch, entry("t-e1-k-0-1", "running", "job-1"), backends=("other",))


def test_one_that_is_in_the_table_already_isnt_noted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        open_jobs, "submissions", lambda *_: {"t-e1-k-0-1": entry("t-e1-k-0-1", "done", "job-1")}
    )
    log = JobLog()
    log.add(Job("job-1", "svc", 0, 4, 0, "done", None, None, None, 1.0, 4, 40, None))
    opened: Any = SimpleNamespace(objects=SimpleNamespace(place="here"), jobs=log)
    found = earlier_jobs(opened, Ranges([(0, 1)]), ["svc"], [0], lambda circuit: 10)
    assert [job.noted for job in found.open[0]] == [True] and log.table().num_rows == 1


def test_of_a_task_that_is_done_the_sum_is_kept(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    SubmissionLog(objects, f"{SUBMISSIONS}/000000001/desk").write(
        [
            entry("t-e1-k-0-1", "done", "job-1", usage_s=5.0),
            entry("t-e1-k-0-1~job-0", "failed", "job-0", beside=True),
            entry("t-e1-k-0-2", "refused", None),
        ]
    )

    settle(objects, 1)

    assert spent_of(objects) == Cost(2, 80, 7.0)
    assert list(submissions(objects, SUBMISSIONS)) == ["#spent"]
    # A later session adds to it, and its own end sums both up.
    SubmissionLog(objects, f"{SUBMISSIONS}/000000002/desk").write([entry("t-e2-k-0-1", "done", "job-2")])
    assert spent_of(objects) == Cost(3, 120, 9.0)
    settle(objects, 2)
    assert spent_of(objects) == Cost(3, 120, 9.0)
    assert list(submissions(objects, SUBMISSIONS)) == ["#spent"]


def test_a_sum_that_was_written_but_whose_jobs_were_not_yet_removed_counts_once(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    log = SubmissionLog(objects, f"{SUBMISSIONS}/000000001/desk")
    jobs = [entry("t-e1-k-0-1", "done", "job-1", usage_s=5.0)]
    log.write(jobs)
    settle(objects, 1)
    log.write(jobs)

    assert spent_of(objects) == Cost(1, 40, 5.0)


def test_where_a_job_may_be_under_way_all_is_kept(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    log = SubmissionLog(objects, f"{SUBMISSIONS}/000000001/desk")
    log.write([entry("t-e1-k-0-1", "done", "job-1"), entry("t-e1-k-0-2", "running", "job-2")])

    settle(objects, 1)

    assert set(submissions(objects, SUBMISSIONS)) == {"t-e1-k-0-1", "t-e1-k-0-2"}


def spent_of(objects: Objects) -> Cost:
    opened: Any = SimpleNamespace(objects=objects, jobs=JobLog())
    return earlier_jobs(opened, Ranges([(0, 100)]), ["svc"], [0], lambda circuit: 10).spent
