"""What a job manager says of stored runs, without Ray: names, ids, stores that are none, and long lists of jobs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from ray_qjm import JobManager, TaskStatus, attach, errors
from ray_qjm.errors import InvalidInputError, StoreDamagedError, UnknownRunError
from ray_qjm.frontends.run_status import SHOWN, ManagerStatus, RunStatus
from ray_qjm.planning.status import BackendStatus
from ray_qjm.results.jobs import Job, JobLog
from ray_qjm.results.objects import Objects
from ray_qjm.results.store import take
from ray_qjm.results.submissions import SubmissionLog
from tests.results.stores import COUNT, TASK, end, write


def stored(
    folder: Path | str, task_id: str, name: str, tags: list[str] | None = None, *, whole: bool = True
) -> str:
    """A run of 40 circuits, half of them done if it isn't whole."""
    info = {"name": name, "tags": json.dumps(tags or [])}
    opened = take(Objects(folder), replace(TASK, task_id=task_id, info=info), ["aer"], COUNT)
    part = write(opened.objects, 1, 0, COUNT if whole else 20, mark=5, failed=() if whole else (3, 4))
    if whole:
        end(opened, [part])
    else:
        opened.lease.stop()  # its process is gone
    return str(folder)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two runs of one name, one that was interrupted, and other things that lie there."""
    stored(tmp_path / "20260101-000000-a", "aaaa0000", "bell", ["night"])
    stored(tmp_path / "20260102-000000-b", "bbbb0000", "bell")
    stored(tmp_path / "20260103-000000-c", "cccc0000", "cut off", ["night", "x"], whole=False)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("buy milk")
    (tmp_path / "readme").write_text("")
    return tmp_path


def newer(root: Path) -> str:
    """A run that a newer version has stored."""
    folder = root / "20260104-000000-d"
    folder.mkdir()
    (folder / "task.json").write_text('{"format":2,"digest":"","body":{}}')
    return str(folder)


def test_stored_runs_are_listed_and_filtered(root: Path) -> None:
    jm = JobManager(root)
    assert [task.id for task in jm.runs()] == ["aaaa0000", "bbbb0000", "cccc0000"]
    assert [task.id for task in jm.runs(name="bell")] == ["aaaa0000", "bbbb0000"]
    assert [task.id for task in jm.runs(tag="night")] == ["aaaa0000", "cccc0000"]
    assert [task.id for task in jm.runs(name="bell", tag="night")] == ["aaaa0000"]
    assert len(jm) == 0
    assert "no run yet" in str(jm.status()) and "3 are stored below" in " ".join(str(jm.status()).split())
    assert jm.report().splitlines()[0] == "0 runs, 0 jobs"


@pytest.mark.parametrize(
    "named",
    [
        lambda root: "cccc0000",
        lambda root: "cut off",
        lambda root: "20260103-000000-c",
        lambda root: root / "20260103-000000-c",
        lambda root: str(root / "20260103-000000-c"),
        lambda root: (root / "20260103-000000-c").as_uri(),
    ],
)
def test_an_interrupted_run_is_retrieved_with_all_that_there_is(
    root: Path, named: Callable[[Path], str]
) -> None:
    jm = JobManager(root)
    task = jm.retrieve(named(root))
    assert task.id == "cccc0000" and jm.retrieve(named(root)) is task and jm.retrieve("cccc0000") is task
    assert jm.result(partial=True).status_counts == {"done": 18, "failed": 2, "cancelled": 20}
    with pytest.warns(errors.PartialResultWarning, match="was interrupted"):
        (result,) = jm.results().values()
    assert result.status_counts == {"done": 18, "failed": 2, "cancelled": 20}
    with pytest.raises(errors.TaskFailedError, match="was interrupted"):
        jm.result()
    assert jm.status().counts == {"done": 1}
    assert "interrupted, 20/40 circuits (50%), 2 failed, 1 job" in jm.report(detailed=False)
    assert "circuits 3-4 failed to run. Reason: WorkerDiedError: killed" in jm.report()


def test_a_relative_name_is_a_directory_if_no_run_has_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert JobManager().retrieve("20260101-000000-a").id == "aaaa0000"
    assert JobManager(".").retrieve("bbbb0000").store == str(root / "20260102-000000-b")


def test_a_run_that_nobody_knows(root: Path) -> None:
    message = r"no run is 'dddd': looked among the runs, 0 of this manager and 3 stored below /.*Give the"
    with pytest.raises(UnknownRunError, match=message):
        JobManager(root).retrieve("dddd")
    with pytest.raises(
        UnknownRunError, match=r"looked among the runs, 0 of this manager\. JobManager\(root=.*"
    ):
        JobManager().retrieve("dddd")
    with pytest.raises(UnknownRunError, match="2 runs are called 'bell': ask by id, aaaa0000, bbbb0000"):
        JobManager(root).retrieve("bell")
    jm = JobManager(root)
    jm.retrieve("aaaa0000")
    with pytest.raises(UnknownRunError, match=r"has no run 'bbbb0000'; it has aaaa0000 'bell'.*retrieve\(id"):
        jm.report("bbbb0000")


def test_a_store_that_is_none(root: Path) -> None:
    jm = JobManager(root)
    with pytest.raises(InvalidInputError, match=r"store /.*/notes holds no task"):
        jm.retrieve(root / "notes")
    with pytest.raises(InvalidInputError, match="isn't there: there is no such directory"):
        jm.retrieve(str(root / "nothing"))
    with pytest.raises(InvalidInputError, match="Give a directory or a URI"):
        jm.retrieve(7)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="scheme 'ftp'"):
        JobManager("ftp://host/runs")
    assert len(jm) == 0


def test_a_store_of_a_newer_version_is_told_and_hides_no_other(root: Path) -> None:
    folder = newer(root)
    jm = JobManager(root)
    with pytest.raises(StoreDamagedError, match=r"20260104-000000-d: the store has format 2.*upgrade it"):
        jm.retrieve(folder)
    assert jm.retrieve("aaaa0000").name == "bell"
    with pytest.raises(UnknownRunError, match=r"\(1 more there can't be read: .*format 2"):
        jm.retrieve("dddd")
    with pytest.warns(RuntimeWarning, match="a run can't be read: .*format 2"):
        assert len(jm.runs()) == 3


def test_a_run_that_can_be_read_no_more_spoils_no_status(root: Path) -> None:
    jm = JobManager(root)
    jm.retrieve("aaaa0000")
    jm.retrieve("bbbb0000")
    for record in (root / "20260101-000000-a" / "epochs").iterdir():
        record.write_text('{"format":2,"digest":"","body":{}}')
    status = jm.status()
    assert [run.task.task_id for run in status.runs] == ["bbbb0000"]
    assert "run aaaa0000 can't be read" in str(status) and "bbbb0000" in jm.report()
    with pytest.warns(errors.PartialResultWarning, match="run aaaa0000 'bell': .*format 2"):
        assert list(jm.results()) == ["bbbb0000"]


def test_jobs_that_a_store_tells_of_before_their_rows_came(root: Path) -> None:
    folder = root / "20260103-000000-c"
    common = {
        "backend": "torino",
        "attempt": 0,
        "session": 1,
        "cost": [1, 200, 2.0],
        "usage_s": None,
        "reason": None,
    }
    SubmissionLog(Objects(folder), "submissions/000000001/desk").write(
        [
            {
                **common,
                "tag": "a",
                "runs": [[20, 30, 5, 0]],
                "state": "running",
                "job_id": "d1",
                "submitted": 5.0,
            },
            {**common, "tag": "b", "runs": [[30, 40, 5, 0]], "state": "failed", "job_id": "d2", "ended": 9.0},
            {**common, "tag": "c", "runs": [[30, 35, 5, 0]], "state": "intended", "job_id": None},
            {"tag": "#spent", "through": 0, "cost": [0, 0, 0.0]},
        ]
    )
    jobs = {job["job_id"]: job for job in attach(folder).jobs.to_pylist()}
    assert {job_id: job["state"] for job_id, job in jobs.items()} == {
        "t1-0-20-5": "done", "d1": "running", "d2": "failed"
    }  # fmt: skip
    assert jobs["d1"]["ended"] is None and (jobs["d1"]["start"], jobs["d1"]["stop"]) == (20, 30)
    assert attach(folder).job_ids == ["t1-0-20-5", "d1", "d2"]


def of_jobs(*states: str) -> pa.Table:
    log = JobLog()
    for at, state in enumerate(states):
        over = None if state in ("running", "queued") else 2.0
        name = None if state == "queued" else f"t-{at}"
        reason = "RuntimeError: [red]no such\nqubit" if state == "failed" else None
        log.add(Job(name, "aer", at, at + 1, 0, state, reason, 1.0, 1.0, over, 1, 10, over))
    return log.table()


def status_of(jobs: pa.Table, state: str, running: int = 0, *, elsewhere: bool = False) -> ManagerStatus:
    backend = BackendStatus("aer", 0, 0, 0, running, 0, 0)
    task = TaskStatus("t", "a run", state, 100, 60, 1, 0, 1.0, None, (backend,))  # type: ignore[arg-type]
    return ManagerStatus((RunStatus(task, jobs, ("night",), elsewhere=elsewhere),))


def test_of_many_jobs_those_are_shown_that_are_not_done() -> None:
    jobs = of_jobs(*["done"] * 60, "failed", "running", "queued")
    text = str(status_of(jobs, "running"))
    shown = [
        line.split()[0] for line in text.splitlines() if line.startswith(" t-") or "not submitted" in line
    ]
    assert shown == ["t-61", "not", "t-60", *(f"t-{at}" for at in range(SHOWN - 3))]
    assert "... and 43 more jobs" in text
    assert text.startswith("1 run, 63 jobs: 1 queued, 1 running, 60 done, 1 failed\n")
    assert "RuntimeError: [red]no such qubit" in text
    assert status_of(jobs, "running").jobs.column("run").to_pylist() == ["t"] * 63


def test_chunks_of_another_process_are_counted_while_it_runs() -> None:
    jobs = of_jobs("done", "done")
    status = status_of(jobs, "running", running=4, elsewhere=True)
    assert status.counts == {"running": 4, "done": 2}
    assert "... and 4 running or queued, which only the process" in str(status)
    assert status_of(jobs, "interrupted", running=4, elsewhere=True).counts == {"done": 2}
    assert status_of(jobs, "running", running=4).counts == {"done": 2}  # all that there are are listed


def test_runs_in_a_bucket(s3_bucket: str) -> None:
    root = f"s3://{s3_bucket}/runs"
    stored(f"{root}/20260101-000000-a", "aaaa0000", "bell", ["night"])
    jm = JobManager(root)
    assert [task.id for task in jm.runs(tag="night")] == ["aaaa0000"]
    task = jm.retrieve("aaaa0000")
    assert task.store == f"{root}/20260101-000000-a" and jm.result().status_counts == {"done": COUNT}
    task.relabel(name="bell 2")
    assert JobManager().retrieve(f"{root}/20260101-000000-a").name == "bell 2"
