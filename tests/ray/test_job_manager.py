"""A job manager's whole life: in the words of those who asked for it, over several runs, processes and services."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from qiskit import QuantumCircuit
from qiskit_aer import AerSimulator

from ray_qjm import Budget, JobManager, Limits, Quota, RunOptions, TaskStatus
from ray_qjm.errors import (
    AmbiguousCircuitError,
    InvalidInputError,
    PartialResultWarning,
    StoreError,
    TaskCancelledError,
    UnknownRunError,
    WaitTimeoutError,
)
from tests.ray.circuits_for_tests import binary, coin
from tests.services.hosted import marked
from tests.services.scene import Scene, check_counts, options

ROOT = Path(__file__).resolve().parents[2]


class Held:
    """A progress callable that lets a test wait until so many circuits are done."""

    def __init__(self, done: int) -> None:
        self._least = done
        self._reached = threading.Event()

    def __call__(self, status: TaskStatus) -> None:
        if status.done >= self._least:
            self._reached.set()

    def wait(self) -> None:
        assert self._reached.wait(60)


def test_a_run_in_the_words_of_the_request() -> None:
    jm = JobManager()
    circuits = [binary(index) for index in range(40)]
    task = jm.run(circuits, backend=AerSimulator(), shots=10)
    result = jm.result()
    assert [int(next(iter(counts)), 2) for counts in result.get_counts()] == list(range(40))
    status = jm.status()
    assert status.counts == {"done": len(jm.job_ids)}
    assert jm.job_ids == task.job_ids == result.job_ids
    assert all(job in str(status) for job in jm.job_ids)
    assert str(status).startswith(f"1 run, {len(jm.job_ids)} jobs: {len(jm.job_ids)} done\n")
    assert "40 of 40 circuits done." in jm.report()
    job = result.jobs_of(circuits[17]).to_pylist()
    assert len(job) == 1 and job[0]["start"] <= 17 < job[0]["stop"]
    assert job[0]["job_id"] in jm.job_ids


def test_each_job_of_a_running_run_is_told_and_cancelling_one_leaves_the_others() -> None:
    jm = JobManager()
    held = Held(50)
    long = jm.run(coin, backend="aer", count=200_000, shots=10, name="long", progress=held)
    held.wait()
    status = jm.status("long")
    (run,) = status.runs
    jobs = run.jobs.to_pylist()
    running = [job for job in jobs if job["state"] == "running"]
    assert 0 < len(running) <= run.counts["running"]
    assert all(job["ended"] is None and job["job_id"].startswith(long.id) for job in running)
    done = [job for job in jobs if job["state"] == "done"]
    assert sum(job["circuits"] for job in done) >= 50
    assert len({job["job_id"] for job in jobs}) == len(jobs)
    assert "running" in jm.report(detailed=False)

    short = jm.run([binary(3)], shots=10, name="short")
    with pytest.raises(WaitTimeoutError, match=f"1 of 2 runs go on: {long.id} 'long'"):
        short.wait(60)
        jm.wait(timeout=0.01)
    with pytest.raises(UnknownRunError, match=f"2 runs: say which one.*{long.id} 'long', {short.id} 'short'"):
        jm.result()
    jm.cancel("long")
    jm.wait(60)
    with pytest.raises(TaskCancelledError):
        jm.result("long")
    assert f"circuits done, {long.status().cancelled} cancelled." in jm.report("long")
    assert jm.result("short").get_counts(0) == {"00000011": 10}
    with pytest.warns(PartialResultWarning, match="'long': the task was cancelled"):
        results = jm.results()
    assert list(results) == [long.id, short.id]
    assert results[long.id].status_counts["done"] >= 50
    states = {run.task.name: set(run.counts) for run in jm.status().runs}
    assert states["short"] == {"done"} and "running" not in states["long"]


def test_circuits_of_one_name_keep_their_own_counts() -> None:
    circuits = [binary(index) for index in range(30)]
    for circuit in circuits:
        circuit.name = "same"
    jm = JobManager()
    jm.run(circuits, backend="aer", shots=10)
    result = jm.result()
    for index, circuit in enumerate(circuits):
        assert result.get_counts(circuit) == result.get_counts(index) == {f"{index:08b}": 10}
    with pytest.raises(AmbiguousCircuitError, match="30 circuits"):
        result.get_counts("same")
    with pytest.raises(AmbiguousCircuitError, match="30 circuits"):
        result.jobs_of("same")


def some_fail(index: int) -> QuantumCircuit:
    if 4 <= index < 8:
        raise FileNotFoundError("no calibration")
    return binary(index)


def test_what_fails_in_one_run_takes_nothing_from_the_rest() -> None:
    def broken() -> Iterator[QuantumCircuit]:
        yield binary(0)
        raise OSError("the disk is gone")

    jm = JobManager()
    partly = jm.run(some_fail, count=20, shots=10, name="partly")
    ended = jm.run(broken(), shots=10, name="ended")
    whole = jm.run([binary(1)], shots=10, name="whole", backends=["aer"])
    with pytest.warns(PartialResultWarning) as caught:
        results = jm.results(timeout=60)
    assert {Path(str(warning.filename)).name for warning in caught} == {Path(__file__).name}
    told = " ".join(str(warning.message) for warning in caught)
    assert "4 of 20 circuits have no counts" in told and "the disk is gone" in told
    assert set(results) == {partly.id, ended.id, whole.id}
    assert results[partly.id].status_counts == {"done": 16, "failed": 4}
    assert results[whole.id].get_counts(0) == {"00000001": 10}
    report = jm.report()
    assert "circuits 4-7 failed to build. Reason: FileNotFoundError: no calibration" in report
    assert "20 circuits (100%), 4 failed" in jm.report("partly", detailed=False)


ELSEWHERE = """
import json, sys, time
from ray_qjm import JobManager
root, id = sys.argv[1:]
jm = JobManager(root)
assert [(task.id, task.name, task.tags) for task in jm.runs(tag="night")] == [(id, "coins", ["night"])]
task = jm.retrieve(id)
until = time.monotonic() + 60
while not (status := jm.status()).counts.get("running"):  # its driver gives a sign of life every 5 s
    assert time.monotonic() < until, status
    time.sleep(0.1)
told = {"state": status.runs[0].task.state, "counts": status.counts}
told["done"] = jm.result(partial=True).status_counts["done"]
assert JobManager().retrieve(task.store).id == id
jm.cancel()
jm.wait(60)
told["end"] = task.status().state
import ray
told["ray"] = ray.is_initialized()
print(json.dumps(told))
"""


class Gate:
    """Circuits that can't be built from the 60th on until a file is there."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self, index: int) -> QuantumCircuit:
        while index >= 60 and not self.file.exists():
            time.sleep(0.05)
        return binary(index)


def test_another_process_finds_a_run_by_its_id_reads_it_and_cancels_it(tmp_path: Path) -> None:
    root, gate = tmp_path / "runs", Gate(tmp_path / "open")
    jm = JobManager(root)
    held = Held(30)
    arguments: dict[str, Any] = {
        "circuits": gate, "version": "1", "count": 600, "shots": 10, "name": "coins", "tags": ["night"],
        "options": RunOptions(max_chunk=10, cancel_grace_s=0.2),
    }  # fmt: skip
    task = jm.run(**arguments, progress=held)
    held.wait()
    other = jm.run([binary(5)], store=tmp_path / "elsewhere", shots=10)
    script = [sys.executable, "-c", ELSEWHERE, str(root), task.id]
    out = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert out.returncode == 0, out.stderr
    told = json.loads(out.stdout)
    assert told["state"] == "running" and told["done"] >= 30 and told["counts"]["running"] >= 1
    assert told["end"] == "cancelled" and not told["ray"]
    assert task.wait(60).state == "cancelled"
    assert jm.result(other).get_counts(0) == {"00000101": 10}  # it cancelled only what it had retrieved

    # The same call with the same store goes on, whoever stopped it; a name that it changes is the last word.
    again = JobManager(root)
    before = again.retrieve(task.id)
    done = before.status().done
    assert 30 <= done < 600
    gate.file.touch()
    result = again.run(**{**arguments, "name": "coins again", "tags": ()}, store=before.store).result(
        timeout=120
    )
    assert result.status_counts == {"done": 600}
    assert (
        sum(job["circuits"] for job in result.jobs.to_pylist() if job["job_id"].endswith("-e2")) == 600 - done
    )
    assert len(again) == 1 and again.result().info["name"] == "coins again"
    late = JobManager(root).retrieve("coins again")
    assert (late.id, late.tags, late.status().name) == (task.id, ["night"], "coins again")
    assert late.result().get_counts(599) == result.get_counts(599) == {f"{599 % 256:08b}": 10}
    assert late.result().info == result.info


def test_names_and_tags_change_while_it_runs_and_later(tmp_path: Path) -> None:
    jm = JobManager(tmp_path)
    task = jm.run([binary(1)], shots=10, name="first", tags=["a"])
    task.relabel(name="second")
    result = jm.result()
    assert (task.name, task.tags, task.status().name) == ("second", ["a"], "second")
    assert result.info["name"] == "second"
    task.relabel(tags=[*task.tags, "b"])
    assert json.loads(jm.result().info["tags"]) == ["a", "b"]
    assert jm.result().table.equals(result.table)
    # What the script has always said is no new word.
    again = jm.run([binary(1)], shots=10, name="first", tags=["a"], store=task.store)
    assert (again.id, again.name, again.tags) == (task.id, "second", ["a", "b"])
    assert [found.id for found in JobManager(tmp_path).runs(name="second", tag="b")] == [task.id]
    assert JobManager(tmp_path).runs(name="first") == []
    in_memory = JobManager().run([binary(1)], shots=10)
    assert (in_memory.name, in_memory.tags, in_memory.store) == (None, [], None)
    in_memory.relabel(name="later", tags=["c"])
    assert in_memory.result().info["name"] == "later"


def test_jobs_at_a_service_are_told_by_their_ids_here_and_elsewhere(services: Scene, tmp_path: Path) -> None:
    services.begin(pending=2, parallel=1, run_s=lambda job: 3600.0 if job.number else 0.05)
    jm = JobManager(tmp_path)
    spec = services.spec(quota=Quota(max_pending=2), limits=Limits(max_circuits=4))
    task = jm.run(marked, backend=spec, count=20, shots=10, options=options())
    told = services.service.until(lambda story: len(story.jobs) == 3 and story.jobs[1].state == "running")
    assert [job.state for job in told.jobs] == ["done", "running", "submitted"]

    def seen(manager: JobManager) -> dict[str, str]:
        jobs = manager.status().jobs.to_pylist()
        return {job["job_id"]: job["state"] for job in jobs if job["job_id"] is not None}

    expected = {"job-0": "done", "job-1": "running", "job-2": "submitted"}
    wait_until(lambda: seen(jm) == expected, lambda: seen(jm))
    status = jm.status()
    queued = [job for job in status.jobs.to_pylist() if job["state"] == "queued"]
    assert queued and all(job["job_id"] is None and job["circuits"] == 4 for job in queued)
    assert status.counts == {"queued": len(queued), "submitted": 1, "running": 1, "done": 1}
    assert "not submitted yet" in str(status)
    assert sorted(jm.job_ids) == ["job-0", "job-1", "job-2"]

    other = JobManager(tmp_path)
    other.retrieve(task.id)
    wait_until(lambda: seen(other) == expected, lambda: seen(other))
    assert other.result(partial=True).status_counts == {"done": 4, "cancelled": 16}
    jm.cancel()
    jm.wait(60)
    assert services.service.story().open == []
    assert seen(jm) == seen(other) == {"job-0": "done", "job-1": "cancelled", "job-2": "cancelled"}
    assert jm.status().counts == other.status().counts == {"done": 1, "cancelled": 2}


def wait_until(true: Any, what: Any) -> None:
    """Wait for what threads and processes bring about."""
    pause = threading.Event()
    for _ in range(600):
        if true():
            return
        pause.wait(0.05)
    pytest.fail(f"it didn't happen: {what()}")


def test_a_job_that_is_refused_leaves_no_hole(services: Scene, tmp_path: Path) -> None:
    """The old manager dropped it: look-ups and cancel raised AttributeError, and the set couldn't be retrieved."""
    jm = JobManager(tmp_path)
    spec = services.spec(limits=Limits(max_circuits=4))
    task = jm.run(marked, backend=spec, count=12, shots=10, options=options(budget=Budget(jobs=2)))
    with pytest.warns(PartialResultWarning, match="4 of 12 circuits have no counts"):
        result = jm.result(timeout=60)
    failed = result.failures.column("circuit").to_pylist()
    assert len(failed) == 4
    check_counts(result, but=failed)
    assert result.jobs_of(failed[0]).num_rows == 0
    assert jm.status().counts == {"done": 2} and len(jm.job_ids) == 2
    assert "failed to submit. Reason: NoCreditError" in jm.report()
    jm.cancel()
    late = JobManager(tmp_path)
    assert late.retrieve(late.runs()[0]).id == task.id
    assert late.result(partial=True).failures.equals(result.failures)
    assert late.report() == jm.report()
    with pytest.raises(StoreError, match="nothing to cancel"):
        late.cancel(task.id)
    late.cancel()  # of all those that go on: none does


def test_the_page_of_the_docs_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "how-to" / "job-manager.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, Any] = {}
    out = io.StringIO()
    with redirect_stdout(out):
        for block in blocks:
            exec(block, names)
    told = out.getvalue()
    assert "200 of 200 circuits done." in told and "'short': done, 50/50 circuits (100%)" in told
    assert "entangled" in told.splitlines()[-2] and told.endswith("short, checked ['day']\n")
    assert names["result"].get_counts(17) == names["everything"][names["result"].info["task_id"]].get_counts(
        17
    )


def test_bad_words_are_refused_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jm = JobManager(tmp_path / "runs")
    bad: list[tuple[dict[str, Any], str]] = [
        ({"backend": "aer", "backends": ["aer"]}, "Give one of them"),
        ({"backend": "nobody"}, "nobody"),
        ({"tags": "night"}, "Give several texts"),
        ({"tags": 5}, "Give several texts"),
        ({"name": 5}, "Give a text"),
        ({"shots": 0}, "shots"),
    ]
    for wrong, message in bad:
        with pytest.raises(InvalidInputError, match=message):
            jm.run([binary(1)], **wrong)
    assert len(jm) == 0 and not (tmp_path / "runs").exists()
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(InvalidInputError, match="relative, and under `ray job submit`"):
        JobManager("runs")
    monkeypatch.undo()
    with pytest.raises(InvalidInputError, match="asked for by id or name, not by int"):
        jm.run([binary(1)], shots=10)
        jm.status(7)  # type: ignore[arg-type]


def test_a_copy_of_a_store_is_not_taken_for_it(tmp_path: Path) -> None:
    """Both hold a run of one id; what is asked for by its store comes from there."""
    root = tmp_path / "runs"
    jm = JobManager(root)
    task = jm.run([binary(1)], shots=10, name="one")
    jm.wait(60)
    assert task.store is not None
    copy = shutil.copytree(task.store, root / "zcopy")
    assert jm.retrieve(task.store) is task
    (tmp_path / "link").symlink_to(task.store)
    assert jm.retrieve(tmp_path / "link") is task
    with pytest.raises(UnknownRunError, match=f"has run {task.id} already, of .*zcopy holds a copy"):
        jm.retrieve(copy)
    assert [found.store for found in jm.runs()] == [task.store, str(copy)]
    late = JobManager(root)
    with pytest.raises(UnknownRunError, match=f"2 stores hold run {task.id}.*ask by store.*zcopy"):
        late.retrieve(task.id)
    assert late.retrieve("zcopy").store == str(copy)


def test_a_name_may_have_a_slash(tmp_path: Path) -> None:
    jm = JobManager(tmp_path)
    task = jm.run([binary(1)], shots=10, name="lab/night")
    jm.wait(60)
    assert jm.retrieve("lab/night") is task
    assert JobManager(tmp_path).retrieve("lab/night").id == task.id
    with pytest.raises(InvalidInputError, match="there is no such directory"):
        jm.retrieve("lab/day")
