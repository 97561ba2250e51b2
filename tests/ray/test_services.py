"""Whole tasks at a service behind a queue: jobs within its limits, counts as its circuits say, quotas kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ray_qjm
from ray_qjm import Limits, Quota
from ray_qjm.errors import InvalidInputError, PartialResultWarning
from tests.services.hosted import Connect, Plain, expected
from tests.services.scene import Scene, check_counts, check_once, options, run, submit

ROOT = Path(__file__).resolve().parents[2]


def test_jobs_are_full_and_each_circuit_runs_once(services: Scene) -> None:
    services.begin(limits=Limits(max_circuits=7))
    connect = Connect(services.service.where, Limits(max_circuits=7))
    result = run(services.spec(connect=connect), 40)
    check_counts(result)
    story = services.service.story()
    check_once(story, 40)
    assert sorted(job.circuits for job in story.jobs) == [5, 7, 7, 7, 7, 7]
    jobs = result.jobs.to_pylist()
    assert {job["job_id"] for job in jobs} == {job.job_id for job in story.jobs}
    assert all(job["state"] == "done" and job["shots"] == job["circuits"] * 10 for job in jobs)
    assert sum(job["usage_s"] for job in jobs) == pytest.approx(sum(job.usage_s for job in story.jobs))


def test_a_backend_that_knows_only_run_is_used_as_it_is(services: Scene) -> None:
    result = run(_plain(services), 20, memory=True)
    check_counts(result)
    assert result.get_memory(3) == ["000011"] * 10
    check_once(services.service.story(), 20)


def _plain(services: Scene, **more: Any) -> ray_qjm.BackendSpec:
    return services.spec(connect=Plain(services.service.where, 6), **more)


def test_shots_beyond_the_limit_are_cut_and_added_up(services: Scene) -> None:
    services.begin(limits=Limits(max_shots=60))
    result = run(services.spec(limits=Limits(max_shots=60)), 5, shots=150)
    check_counts(result, 150)
    check_once(services.service.story(), 5, 150)
    jobs = result.jobs.to_pylist()
    for row in result.table.select(["jobs", "shots", "status"]).to_pylist():
        assert row["shots"] == 150 and row["status"] == "done"
        assert len(set(row["jobs"])) >= 2 and max(row["jobs"]) < len(jobs)
    assert sum(job["shots"] for job in jobs) == 5 * 150


@pytest.mark.parametrize("mixed", [True, False])
def test_circuits_of_equal_shots_are_together_where_jobs_cant_mix_them(services: Scene, mixed: bool) -> None:
    shots = np.array([(5, 8, 11)[index % 3] for index in range(18)])
    result = run(services.spec(connect=Connect(services.service.where, mixed=mixed)), 18, shots=shots)
    assert [result.get_counts(i) for i in range(18)] == [expected(i, int(shots[i])) for i in range(18)]
    story = services.service.story()
    assert story.shots_run == {f"c{i}": int(shots[i]) for i in range(18)}
    kinds = [{part.shots for part in job.parts} for job in story.jobs]
    assert any(len(kind) > 1 for kind in kinds) == mixed


limits = st.builds(
    Limits,
    max_circuits=st.none() | st.integers(1, 9),
    max_shots=st.none() | st.integers(3, 12),
    max_executions=st.none() | st.integers(10, 60),
    max_payload_bytes=st.none() | st.integers(2500, 9000),
)


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limits)
def test_every_job_is_within_the_limits(services: Scene, limits: Limits) -> None:
    services.begin(limits=limits)
    result = run(services.spec(limits=limits), 14)
    story = services.service.story()
    assert story.violations == [] and story.refused == {}
    check_counts(result)
    check_once(story, 14)


def test_what_no_job_may_hold_fails_alone(services: Scene) -> None:
    """A circuit that is too large for the payload of one job, among others that aren't."""
    services.begin(limits=Limits(max_payload_bytes=3000))
    with pytest.warns(PartialResultWarning):
        result = run(services.spec(limits=Limits(max_payload_bytes=3000)), 8, circuits=one_is_large)
    assert [row.status for row in result] == ["done"] * 5 + ["failed"] + ["done"] * 2
    assert "bytes, and a job may have 3000" in str(result[5].error)


def one_is_large(index: int) -> Any:
    from tests.services.hosted import marked

    circuit = marked(index)
    if index == 5:
        circuit.metadata = {"much": "x" * 5000}
    return circuit


def test_pending_jobs_of_two_tasks_share_one_quota(services: Scene) -> None:
    services.begin(pending=2, parallel=2, run_s=lambda job: 0.15)
    spec = services.spec(quota=Quota(max_pending=2), limits=Limits(max_circuits=4))
    tasks = [submit(spec, 16) for _ in range(2)]
    for task in tasks:
        check_counts(task.result(timeout=60))
    story = services.service.story()
    assert story.refused == {} and story.highest_pending == 2
    assert story.shots_run == {f"c{index}": 20 for index in range(16)}


def test_jobs_of_a_minute_are_counted_over_tasks(services: Scene) -> None:
    services.begin(per_minute=5)
    spec = services.spec(quota=Quota(max_pending=9, jobs_per_minute=5), limits=Limits(max_circuits=2))
    tasks = [submit(spec, 12) for _ in range(2)]
    services.service.until(lambda story: len(story.jobs) == 5)
    services.service.until(lambda story: story.open == [])
    for task in tasks:
        task.cancel()
        task.wait(30)
    story = services.service.story()
    assert len(story.jobs) == 5 and story.refused == {}
    done = sum(task.status().done for task in tasks)
    assert done == 10


OTHER_DRIVER = """
import sys, cloudpickle, ray_qjm
from tests.services.scene import run
spec, count = cloudpickle.loads(sys.stdin.buffer.read())
try:
    result = run(spec, count)
    print("done", result.status_counts["done"])
except ray_qjm.errors.RayQjmError as error:
    print(type(error).__name__, error)
"""


def other_driver(spec: ray_qjm.BackendSpec, count: int) -> subprocess.Popen[bytes]:
    """A driver in a process of its own, on the same Ray."""
    import cloudpickle

    process = subprocess.Popen(
        [sys.executable, "-c", OTHER_DRIVER],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(cloudpickle.dumps((spec, count)))
    process.stdin.close()
    process.stdin = None
    return process


def test_two_drivers_share_quota_and_desk(services: Scene) -> None:
    services.begin(pending=2, parallel=2, per_minute=None, run_s=lambda job: 0.3)
    spec = services.spec(quota=Quota(max_pending=2), limits=Limits(max_circuits=2))
    task = submit(spec, 36)
    other = other_driver(spec, 8)
    check_counts(task.result(timeout=100))
    out, _ = other.communicate(timeout=60)
    assert out.decode().split() == ["done", "8"]
    story = services.service.story()
    assert story.refused == {} and story.highest_pending == 2
    assert story.shots_run == {f"c{index}": 20 if index < 8 else 10 for index in range(36)}
    assert len({sender.pid for sender in story.senders}) == 1


def test_another_quota_for_an_account_in_use_is_refused(services: Scene) -> None:
    services.begin(run_s=lambda job: 3600.0)
    with submit(services.spec(quota=Quota(max_pending=2)), 4) as task:
        services.service.until(lambda story: story.pending == 1)
        with pytest.raises(
            InvalidInputError, match=r"the quota of account .* is .*max_pending=2.*Give the same"
        ):
            run(services.spec(quota=Quota(max_pending=3)), 4)
        task.cancel()
        task.wait(30)
    assert services.service.story().open == []
    # Nobody uses it any more: it may be another one.
    services.begin()
    check_counts(run(services.spec(quota=Quota(max_pending=3)), 4))


def test_options_travel(services: Scene) -> None:
    """A callable backend of a factory's name, jobs that are timed out, and a report that says so."""
    services.begin(run_s=lambda job: 3600.0 if job.number == 0 else 0.05)
    with pytest.warns(PartialResultWarning):
        result = run(services.spec(limits=Limits(max_circuits=4)), 8, options=options(job_timeout_s=1.0))
    failed = [row for row in result if row.status != "done"]
    assert len(failed) == 4 and {row.error_type for row in failed} == {"JobTimeoutError"}
    assert [job.state for job in services.service.story().jobs] == ["cancelled", "done"]
