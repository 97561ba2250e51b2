"""Under `ray job submit`, with a real job server: stopped in the middle, and submitted again."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

import ray_qjm
from ray_qjm import TaskResult
from ray_qjm.errors import RayQjmError
from tests.cli.conftest import write_circuits

ROOT = Path(__file__).resolve().parents[2]
COUNT = 150
OVER = (JobStatus.STOPPED, JobStatus.SUCCEEDED, JobStatus.FAILED)


@pytest.fixture(scope="module")
def client(shared_ray: None) -> Iterator[JobSubmissionClient]:
    """Of a job server in processes of its own; the tests' Ray has turned on tokens in this one, if Ray has them."""
    # In a place of its own: no other Ray of this machine joins it by accident, and its jobs join no other.
    folder = tempfile.mkdtemp(prefix="ray-")
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as found:
            ports.append(found.getsockname()[1])
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port=0"),
            *("--num-cpus=2", f"--temp-dir={folder}", "--disable-usage-stats", "--include-dashboard=true"),
            f"--ray-client-server-port={ports[1]}",
            *(f"--dashboard-port={ports[0]}", "--dashboard-agent-listen-port=0"),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield _connected(f"http://127.0.0.1:{ports[0]}", server)
    finally:
        server.terminate()  # ends what it has started, too
        server.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def _connected(address: str, server: subprocess.Popen[bytes]) -> JobSubmissionClient:
    end = time.monotonic() + 120
    while True:
        try:
            return JobSubmissionClient(address)
        except ConnectionError:
            assert server.poll() is None and time.monotonic() < end, "the job server didn't start"
            time.sleep(0.5)


def until(true: Callable[[], bool], within: float = 120) -> None:
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end, "it didn't happen"
        time.sleep(0.2)


def done(store: Path) -> int:
    try:
        return TaskResult.open(store).status_counts.get("done", 0)
    except RayQjmError:
        return 0


def test_a_job_that_is_stopped_is_resumed_by_the_same_job(
    client: JobSubmissionClient, tmp_path: Path
) -> None:
    """SIGTERM in the middle: what is done is stored, in the 3 s that Ray leaves; the rest is run by the second job."""
    (tmp_path / "here").mkdir()
    write_circuits(tmp_path / "here", tmp_path / "go")
    store = tmp_path / "store"
    line = f"run circuits.py:slow --count {COUNT} --shots 10 --max-chunk 5 --store {store}"
    job: dict[str, Any] = {
        "entrypoint": f"{sys.executable} -m ray_qjm {line}",
        "runtime_env": {"working_dir": str(tmp_path / "here")},  # shipped: no node need see the folder
    }
    first = client.submit_job(**job)
    until(lambda: done(store) >= 20 or client.get_job_status(first) in OVER)
    assert client.stop_job(first), client.get_job_logs(first)
    until(lambda: client.get_job_status(first) in OVER)
    assert client.get_job_status(first) == JobStatus.STOPPED
    kept = done(store)
    logs = client.get_job_logs(first)
    assert 20 <= kept < COUNT, logs
    assert ray_qjm.attach(store).status().state == "cancelled", logs  # in good order, not killed
    assert f"stopped by SIGTERM: {kept} of {COUNT} circuits are done and stored in {store}" in logs
    before = {job["job_id"] for job in TaskResult.open(store).jobs.to_pylist()}

    (tmp_path / "go").touch()
    second = client.submit_job(**job)
    until(lambda: client.get_job_status(second) in OVER)
    logs = f"{client.get_job_info(second).message}\n{client.get_job_logs(second)}"
    assert client.get_job_status(second) == JobStatus.SUCCEEDED, logs
    assert f"{COUNT} of {COUNT} circuits done." in logs
    result = TaskResult.open(store)
    jobs = [job for job in result.jobs.to_pylist() if job["state"] == "done"]
    assert sum(job["circuits"] for job in jobs) == COUNT
    assert sum(job["circuits"] for job in jobs if job["job_id"] not in before) == COUNT - kept
    assert result.get_counts() == [{f"{index:08b}": 10} for index in range(COUNT)]


def test_a_relative_store_is_refused_there(client: JobSubmissionClient) -> None:
    """The job's directory is one of Ray's, and goes."""
    line = "run tests.ray.circuits_for_tests:coin --count 3 --store results"
    job = client.submit_job(entrypoint=f"{sys.executable} -m ray_qjm {line}")
    until(lambda: client.get_job_status(job) in OVER)
    assert client.get_job_status(job) == JobStatus.FAILED
    assert "store 'results' is relative, and under `ray job submit`" in client.get_job_logs(job)
    assert "exit code 2" in str(client.get_job_info(job).message)
