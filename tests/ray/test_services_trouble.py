"""What goes wrong at services, and what a task makes of it."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import ray

import ray_qjm
from ray_qjm import Budget, Limits, Quota, RetryPolicy
from ray_qjm.cluster import service_line
from ray_qjm.errors import BackendLoadError, InvalidInputError, PartialResultWarning, StoreTakenError
from ray_qjm.planning.assembly import PROBES
from tests.services.hosted import Connect, Plain, marked
from tests.services.scene import RETRY, Scene, check_counts, check_once, options, run, submit
from tests.services.scripted import Fault

FINE = Fault()


def first(fault: Fault) -> Any:
    return lambda number: FINE if number else fault


@pytest.mark.parametrize(
    "fault",
    [
        Fault(jobs=0, reply="drop"),
        Fault(reply="drop"),
        Fault(reply="502"),
        Fault(jobs=0, reply="502"),
        Fault(lands_s=0.3, reply="drop"),
        Fault(lands_s=0.5, reply="502"),
        Fault(code=1006),
    ],
    ids=str,
)
def test_a_lost_reply_is_looked_up_not_submitted_again(services: Scene, fault: Fault) -> None:
    services.begin(faults=first(fault))
    result = run(services.spec(limits=Limits(max_circuits=5)), 10)
    check_counts(result)
    story = services.service.story()
    check_once(story, 10)
    assert len(story.jobs) == 2
    assert sorted(result.jobs.column("job_id").to_pylist()) == ["job-0", "job-1"]


def test_a_twin_is_cancelled_and_told(services: Scene) -> None:
    services.begin(faults=first(Fault(jobs=2, reply="drop")), run_s=lambda job: 1.0, parallel=1)
    task = submit(services.spec(), 6)
    result = task.result(timeout=60)
    check_counts(result)
    story = services.service.story()
    check_once(story, 6)
    assert [(job.state, job.twin) for job in story.jobs] == [("done", False), ("cancelled", True)]
    jobs = {job["job_id"]: job for job in result.jobs.to_pylist()}
    assert jobs["job-0"]["state"] == "done"
    assert jobs["job-1"]["state"] == "cancelled" and "beside job-0" in jobs["job-1"]["reason"]


def test_attempts_that_failed_stand_in_the_table_of_jobs(services: Scene) -> None:
    services.begin(fails=lambda number: "Error code: 1000" if number < 2 else None)
    result = run(services.spec(), 4)
    check_counts(result)
    check_once(services.service.story(), 4)
    jobs = result.jobs.to_pylist()
    assert [(job["job_id"], job["state"], job["attempt"]) for job in jobs] == [
        ("job-0", "failed", 0), ("job-1", "failed", 1), ("job-2", "done", 2)
    ]  # fmt: skip
    assert "Error code: 1000" in jobs[0]["reason"]
    assert all(job["usage_s"] == pytest.approx(2.01) for job in jobs)
    assert result.table.column("jobs").to_pylist() == [[2]] * 4


def test_a_broken_circuit_is_found_and_fails_alone(services: Scene) -> None:
    services.begin(broken={"c11"})
    with pytest.warns(PartialResultWarning):
        result = run(services.spec(limits=Limits(max_circuits=16)), 32)
    check_counts(result, but=[11])
    assert result[11].status == "failed" and "a circuit can't be run" in str(result[11].error)
    assert services.service.story().shots_run == {f"c{i}": 10 for i in range(32) if i != 11}
    # 16, 8, 4, 2, 1 and their other halves.
    assert len(services.service.story().jobs) == 2 + 8


def test_a_backend_that_fails_everything_is_closed_after_few_jobs(services: Scene) -> None:
    services.begin(fails=lambda number: "Error: out of order")
    with pytest.warns(PartialResultWarning):
        task = submit(services.spec(limits=Limits(max_circuits=4)), 200)
        result = task.result(timeout=100)
    assert result.status_counts == {"failed": 200}
    assert all("out of order" in str(row.error) for row in result)
    # Each circuit of the first few jobs alone, then probes, of which each may be a job of four.
    assert len(services.service.story().jobs) <= 20 + 4 * PROBES
    assert "out of order" in str(task.status().backends[0].closed)


@pytest.mark.parametrize("how", ["dies", "rejects", "no credit"])
def test_what_one_service_wont_run_another_one_does(services: Scene, how: str) -> None:
    scripts: dict[str, dict[str, Any]] = {
        "dies": {"fails": lambda number: "Error: out of order"},
        "rejects": {"faults": lambda number: Fault(code=1004)},
        "no credit": {"credit_s": 3.0},
    }
    services.begin(**scripts[how])
    limits = Limits(max_circuits=40)  # halved to single circuits a job would fail for its circuit's sake
    result = run([services.spec(limits=limits), services.spec(at=1, account="b", limits=limits)], 200)
    check_counts(result)
    ran = services.service.story().shots_run + services.services[1].story().shots_run
    assert ran == Counter({f"c{index}": 10 for index in range(200)})
    if how != "no credit":
        assert set(result.table.column("backend").to_pylist()) == {"service1"}


def test_a_simulator_takes_what_a_service_has_no_budget_for(services: Scene) -> None:
    spec = services.spec(limits=Limits(max_circuits=4), quota=Quota(budget=Budget(jobs=2)))
    result = run([spec, "aer"], 60, options=options(max_chunk=4))
    check_counts(result)
    assert len(services.service.story().jobs) == 2
    assert Counter(result.table.column("backend").to_pylist()) == {"service": 8, "aer": 52}


def test_two_services_share_a_task(services: Scene) -> None:
    """How much each takes goes by how quick it is; weights decide where both have room (``planning``)."""
    for service in services.services:
        service.change(run_s=lambda job: 0.3)
    limits, quota = Limits(max_circuits=4), Quota(max_pending=2)
    specs = [
        services.spec(limits=limits, quota=quota, weight=4.0),
        services.spec(at=1, account="b", limits=limits, quota=quota),
    ]
    result = run(specs, 64, options=options(max_chunk=4))
    check_counts(result)
    used = Counter(result.table.column("backend").to_pylist())
    assert min(used["service"], used["service1"]) > 0
    stories = [service.story() for service in services.services]
    assert stories[0].shots_run + stories[1].shots_run == {f"c{index}": 10 for index in range(64)}
    assert all(story.highest_pending <= 2 and story.refused == {} for story in stories)


def test_budget_of_a_task_ends_it_with_words_and_more_goes_on_with_it(services: Scene, tmp_path: Any) -> None:
    spec = services.spec(limits=Limits(max_circuits=4))
    store = tmp_path / "store"
    few = options(budget=Budget(jobs=3))
    with pytest.warns(PartialResultWarning):
        task = submit(spec, 20, store=store, options=few)
        result = task.result(timeout=60)
    assert result.status_counts == {"done": 12, "failed": 8}
    assert "failed to submit. Reason: NoCreditError: no credit left: 3 jobs are the budget" in str(
        task.report()
    )
    assert len(services.service.story().jobs) == 3
    # What was spent is spent, whoever asks.
    with pytest.warns(PartialResultWarning):
        again = run(spec, 20, store=store, options=few, retry_failed=True)
    assert again.status_counts == {"done": 12, "failed": 8}
    assert len(services.service.story().jobs) == 3
    whole = run(spec, 20, store=store, options=options(budget=Budget(jobs=5)), retry_failed=True)
    check_counts(whole)
    check_once(services.service.story(), 20)
    assert len(services.service.story().jobs) == 5
    assert whole.jobs.num_rows == 5


def test_attempts_count_for_the_budget_of_a_task(services: Scene) -> None:
    services.begin(fails=lambda number: "Error code: 1000")
    slow = RetryPolicy(wait_s=0.6, lost_grace_s=0.5)
    with pytest.warns(PartialResultWarning):
        result = run(services.spec(), 4, options=options(budget=Budget(jobs=2), retry=slow))
    assert {row.error_type for row in result} == {"NoCreditError"}
    assert len(services.service.story().jobs) == 2


def test_budget_of_an_account_is_counted_over_tasks_and_restarts(services: Scene) -> None:
    spec = services.spec(limits=Limits(max_circuits=4), quota=Quota(budget=Budget(jobs=4)))
    check_counts(run(spec, 8))
    ray.kill(ray.get_actor(f"{_desk(services)}", "ray_qjm"), no_restart=True)
    with pytest.warns(PartialResultWarning):
        result = run(spec, 20)
    assert result.status_counts == {"done": 8, "failed": 12}
    assert len(services.service.story().jobs) == 4
    assert {row.error_type for row in result if row.status == "failed"} == {"NoCreditError"}


def _desk(services: Scene) -> str:
    from ray_qjm.cluster.backend_actor import desk_name

    return desk_name(services.account)


def test_cancel_cancels_what_is_pending_and_keeps_what_is_done(services: Scene) -> None:
    services.begin(pending=3, parallel=1, run_s=lambda job: 0.05 if job.number < 2 else 3600.0)
    task = submit(services.spec(limits=Limits(max_circuits=4)), 60)
    services.service.until(lambda story: story.pending == 3 and len(story.jobs) == 5)
    task.cancel()
    task.wait(30)
    result = task.result(partial=True)
    story = services.service.story()
    assert story.open == [] and len(story.jobs) == 5
    done = {name for job in story.jobs if job.state == "done" for part in job.parts for name in part.circuits}
    assert {f"c{row.circuit}" for row in result if row.status == "done"} == done and len(done) == 8
    assert set(result.status_counts) == {"done", "cancelled"}


@pytest.mark.parametrize("lost", [False, True], ids=["stopped", "store taken"])
def test_jobs_that_are_left_at_the_service_are_there_for_the_next_call(
    services: Scene, tmp_path: Path, lost: bool
) -> None:
    services.begin(pending=3, parallel=9, run_s=lambda job: 0.05 if job.number < 2 else 3600.0)
    spec, store = services.spec(limits=Limits(max_circuits=4)), tmp_path / "store"
    task = submit(spec, 60, store=store)
    services.service.until(lambda story: len(story.open) == 3 and len(task.job_ids) == 5)
    if lost:
        run_of: Any = task._run
        run_of._lose(StoreTakenError("another process has it"))
    else:
        task.cancel(keep_jobs=True)
    assert task.wait(30).state == ("failed" if lost else "cancelled")
    story = services.service.story()
    assert story.pending == 3 and len(story.jobs) == 5
    left = {job.job_id for job in story.open}
    for seen in (task, ray_qjm.attach(store)):
        assert {job["job_id"] for job in seen.jobs.to_pylist() if job["ended"] is None} == left
    services.service.change(run_s=lambda job: 0.05)
    services.service.go_on(3600.0)
    check_counts(run(spec, 60, store=store))
    check_once(services.service.story(), 60)
    assert len(services.service.story().jobs) == 15


def test_a_job_that_is_being_submitted_is_left_once_its_id_is_known(services: Scene, tmp_path: Path) -> None:
    services.begin(faults=first(Fault(takes_s=1.5)), run_s=lambda job: 3600.0)
    task = submit(services.spec(limits=Limits(max_circuits=2), quota=Quota(max_pending=1)), 4, store=tmp_path)
    services.service.until(lambda story: story.pending == 1)
    task.cancel(keep_jobs=True)
    assert task.wait(30).state == "cancelled"
    assert task.job_ids == ["job-0"] and len(services.service.story().open) == 1
    services.service.change(run_s=lambda job: 0.05)
    services.service.go_on(3600.0)
    check_counts(
        run(services.spec(limits=Limits(max_circuits=2), quota=Quota(max_pending=1)), 4, store=tmp_path)
    )
    check_once(services.service.story(), 4)


def test_a_job_that_was_left_before_its_id_was_known_is_found_again(services: Scene, tmp_path: Path) -> None:
    """Somebody asked twice that the task end at once."""
    services.begin(faults=first(Fault(takes_s=6.0)), run_s=lambda job: 3600.0)
    spec = services.spec(limits=Limits(max_circuits=2), quota=Quota(max_pending=1))
    task = submit(spec, 4, store=tmp_path)
    services.service.until(lambda story: story.pending == 1)
    task.cancel(keep_jobs=True)
    task.cancel(force=True)
    assert task.wait(30).state == "cancelled" and task.job_ids == []
    services.service.change(run_s=lambda job: 0.05)
    services.service.go_on(3600.0)
    check_counts(run(spec, 4, store=tmp_path))
    check_once(services.service.story(), 4)


def test_jobs_that_only_their_desk_knows_are_cancelled_all_the_same(services: Scene, tmp_path: Path) -> None:
    services.begin(run_s=lambda job: 3600.0)
    task = submit(services.spec(connect=Plain(services.service.where)), 4, store=tmp_path / "store")
    services.service.until(lambda story: story.pending == 1)
    task.cancel(keep_jobs=True)
    assert task.wait(30).state == "cancelled"
    assert [job.state for job in services.service.story().jobs] == ["cancelled"]


def test_jobs_cant_be_kept_without_a_store(services: Scene) -> None:
    task = submit(services.spec(), 4)
    with pytest.raises(InvalidInputError, match="keep_jobs is for a task with a store"):
        task.cancel(keep_jobs=True)
    check_counts(task.result(timeout=30))


def test_cancel_while_a_job_is_being_submitted(services: Scene) -> None:
    """Its reply takes long: the job is cancelled once it is there."""
    services.begin(faults=first(Fault(takes_s=1.5)), run_s=lambda job: 3600.0)
    task = submit(services.spec(), 4)
    services.service.until(lambda story: story.pending == 1)
    task.cancel()
    task.wait(30)
    assert [job.state for job in services.service.story().jobs] == ["cancelled"]
    assert task.result(partial=True).status_counts == {"cancelled": 4}


def test_a_service_that_doesnt_cancel_in_time_is_told_of(
    services: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_line, "SERVICE_GRACE_S", 0.5)
    services.begin(cancels=lambda number: "ignored", run_s=lambda job: 3600.0)
    task = submit(services.spec(), 4)
    services.service.until(lambda story: story.pending == 1)
    task.cancel()
    task.wait(30)
    (job,) = task.result(partial=True).jobs.to_pylist()
    assert job["state"] == "cancelling" and "it may still run, and be billed" in job["reason"]


def test_time_is_up(services: Scene) -> None:
    services.begin(run_s=lambda job: 3600.0)
    task = submit(services.spec(), 4, options=options(timeout_s=1.0))
    task.wait(30)
    assert services.service.story().open == []
    assert task.result(partial=True).status_counts == {"cancelled": 4}


def test_cancel_ends_what_hangs_while_it_is_prepared(services: Scene) -> None:
    task = submit(services.spec(), 4, circuits=hangs, options=options(cancel_grace_s=0.5))
    task.cancel()
    task.wait(30)
    assert services.service.story().jobs == []


def hangs(index: int) -> Any:
    threading.Event().wait()


def test_cancel_ends_though_results_cant_be_had(services: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_line, "SERVICE_GRACE_S", 0.5)
    monkeypatch.setattr(service_line, "RESULTS_GRACE_S", 0.5)
    services.begin(asks=lambda kind, number: kind != "fetch")
    task = submit(services.spec(), 4)
    services.service.until(lambda story: any(request.kind == "fetch" for request in story.requests))
    task.cancel()
    task.wait(30)


def test_a_result_that_cant_be_had_at_first_is_asked_for_again(services: Scene) -> None:
    services.begin(asks=lambda kind, number: number >= 2)
    check_counts(run(services.spec(), 4))
    check_once(services.service.story(), 4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"connect": "refused"}, "can't be used.*PermissionError: no such token"),
        ({"connect": "strange"}, "made a int; it should make a BackendV2"),
    ],
)
def test_a_backend_that_cant_be_reached_says_why(services: Scene, given: Any, message: str) -> None:
    where = services.service.where
    made: Any = Connect(where, refuses="no such token") if given["connect"] == "refused" else strange
    with pytest.raises(BackendLoadError, match=message):
        run(services.spec(connect=made), 4)
    assert services.service.story().requests == []


def strange() -> int:
    return 3


@pytest.mark.parametrize(
    ("more", "budget", "message"),
    [
        ({"limits": Limits(max_payload_bytes=10)}, None, "max_payload_bytes of service is 10"),
        ({"quota": Quota(budget=Budget(executions=5))}, None, "budget of service is 5 executions"),
        ({}, Budget(executions=5), "budget of the task is 5 executions"),
        (
            {"job_s": 2.0},
            Budget(qpu_seconds=1.0),
            "the budget of the task is 1 qpu_seconds, and the smallest job",
        ),
    ],
)
def test_what_no_job_can_satisfy_is_refused(services: Scene, more: Any, budget: Any, message: str) -> None:
    connect = Connect(services.service.where, job_s=more.pop("job_s", 0.0))
    with pytest.raises(InvalidInputError, match=message):
        run(services.spec(connect=connect, **more), 4, options=options(budget=budget))
    assert services.service.story().requests == []


def test_contradictory_quotas_of_one_account_are_refused(services: Scene) -> None:
    specs = [services.spec(quota=Quota(max_pending=1)), services.spec(at=1, quota=Quota(max_pending=2))]
    with pytest.raises(InvalidInputError, match=r"share account .* and have the quotas"):
        run(specs, 4)


def test_a_source_without_end_that_waits_for_its_results_gets_them(services: Scene) -> None:
    """What isn't full goes all the same, when nothing comes for a while."""
    with submit(
        services.spec(limits=Limits(max_circuits=3)), 9, circuits=(marked(i) for i in range(9))
    ) as task:
        check_counts(task.result(timeout=60))
    check_once(services.service.story(), 9)
    assert RETRY.wait_s < 1
