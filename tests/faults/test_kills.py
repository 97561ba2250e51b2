"""Processes that are really killed; afterwards the same call goes on, and the rows are those of a calm run."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

import ray_qjm
from ray_qjm import TaskStatus
from ray_qjm.cluster import resume
from ray_qjm.errors import TaskFailedError
from ray_qjm.results.objects import Objects
from tests.faults.conftest import Driver, eventually
from tests.faults.driver import COUNT, call
from tests.storing import check_store, rows_of

Start = Callable[..., Driver]
Resumed = Callable[..., None]


def killed(pid: int) -> None:
    """SIGKILL a process of a cluster, and see that it is dead."""
    process = psutil.Process(pid)
    process.kill()
    eventually(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def test_driver_alone(tmp_path: Path, start: Start, resumed: Resumed, cluster: Any) -> None:
    """Its workers live on in the cluster for a while, and may write late."""
    driver = start(tmp_path / "s", RAY_ADDRESS=cluster.address)
    driver.wait_for(30)
    driver.kill(group=False)
    assert ray_qjm.attach(tmp_path / "s").status().state == "interrupted"
    with pytest.raises(TaskFailedError, match="was interrupted: the process that ran it is gone"):
        ray_qjm.attach(tmp_path / "s").result()
    resumed(tmp_path / "s")


def test_driver_with_its_whole_group(tmp_path: Path, start: Start, resumed: Resumed) -> None:
    driver = start(tmp_path / "s")
    driver.wait_for(30)
    driver.kill(group=True)
    partial = ray_qjm.attach(tmp_path / "s").result(partial=True)
    assert partial.status_counts["done"] >= 25 and len(partial) == COUNT
    resumed(tmp_path / "s")


def test_driver_again_and_again(tmp_path: Path, start: Start, resumed: Resumed) -> None:
    """Each one goes on where the last was killed."""
    done = 0
    for _ in range(2):
        driver = start(tmp_path / "s")
        driver.wait_for(done + 20)
        driver.kill(group=True)
        done = ray_qjm.attach(tmp_path / "s").status().done
        assert done >= 15
    resumed(tmp_path / "s")


def test_driver_of_a_store_on_s3(start: Start, s3_bucket: str, undisturbed: Any) -> None:
    """Its workers find the service as the driver does, by variables of the environment."""
    store = f"s3://{s3_bucket}/a task"
    driver = start(store)
    driver.wait_for(30)
    driver.kill(group=True)
    assert ray_qjm.attach(store).status().state == "interrupted"
    again = start(store)
    assert f"finished {COUNT}" in again.finish()
    result = ray_qjm.TaskResult.open(store)
    assert rows_of(result).equals(undisturbed)
    assert all(name.startswith(f"{store}/parts/") for name in result.files())
    names = [entry.name for entry in Objects(store).entries("parts")]
    assert sorted(f"{store}/{name}" for name in names) == sorted(result.files())


def test_worker_while_it_simulates(tmp_path: Path, start: Start, resumed: Resumed) -> None:
    """The driver lives: it runs the chunk again itself."""
    driver = start(tmp_path / "s")
    driver.wait_for(30)
    workers = driver.below("ray::simulate")
    assert workers
    workers[0].kill()
    workers[0].wait(30)
    assert f"finished {COUNT}" in driver.finish()
    resumed(tmp_path / "s")


def test_worker_between_its_part_and_its_word(
    tmp_path: Path, resumed: Resumed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it wrote counts, and isn't run again."""
    marker = tmp_path / "killed"
    monkeypatch.setattr(resume, "Objects", Marked.at(marker))
    result = ray_qjm.run(**call(store=tmp_path / "s"), progress=False)
    assert marker.exists()
    failed = [job for job in result.jobs.to_pylist() if job["state"] != "done"]
    assert not failed
    assert sum(job["circuits"] for job in result.jobs.to_pylist()) == COUNT
    monkeypatch.undo()
    resumed(tmp_path / "s")


class Marked(Objects):
    """The store of a worker that is killed once, between its part and its word to the driver."""

    marker = ""

    @classmethod
    def at(cls, marker: Path) -> Callable[[Any], Objects]:
        def make(root: Any) -> Objects:
            found = cls(root)
            found.marker = str(marker)
            return found

        return make

    def __reduce__(self) -> tuple[Any, ...]:
        return (_marked, (self.root, self.marker))

    def create(self, name: str, data: bytes) -> bool:
        made = super().create(name, data)
        marker = Path(self.marker)
        if name.startswith("parts/") and name.rpartition("/")[2].startswith("4") and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return made


def _marked(root: str, marker: str) -> Objects:
    return Marked.at(Path(marker))(root)


def test_coordinators_thread(tmp_path: Path, resumed: Resumed) -> None:
    """An exception out of nowhere, as a MemoryError would be."""
    reached = threading.Event()

    def tell(status: TaskStatus) -> None:
        if status.done > 30:
            reached.set()

    task = ray_qjm.submit(**call(store=tmp_path / "s"), progress=tell)
    assert reached.wait(60)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == f"ray_qjm {task.id}"]
    assert thread.ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
    with pytest.raises(TaskFailedError, match="coordinator broke: SystemExit"):
        task.result(timeout=60)
    thread.join(10)
    assert not thread.is_alive()
    resumed(tmp_path / "s")


def test_a_node(tmp_path: Path, start: Start, resumed: Resumed, cluster: Any) -> None:
    """Its raylet and workers: what ran there runs elsewhere, what was written there is kept."""
    node = cluster.add_node(num_cpus=2)
    driver = start(tmp_path / "s", RAY_ADDRESS=cluster.address)
    driver.wait_for(30)
    killed(node.all_processes["raylet"][0].process.pid)
    assert f"finished {COUNT}" in driver.finish()
    resumed(tmp_path / "s")


def test_the_head(tmp_path: Path, start: Start, resumed: Resumed, cluster: Any) -> None:
    """Nothing of Ray is left, and the driver can't go on; the rows are safe."""
    cluster.add_node(num_cpus=2)
    # Seconds until Ray gives a head up; 60 by default.
    driver = start(tmp_path / "s", RAY_ADDRESS=cluster.address, RAY_gcs_rpc_server_reconnect_timeout_s="5")
    driver.wait_for(30)
    head = cluster.head_node
    for name in ("gcs_server", "raylet"):
        killed(head.all_processes[name][0].process.pid)
    driver.finish(200)
    assert driver.process.returncode != 0
    resumed(tmp_path / "s")


def test_ctrl_c_twice(tmp_path: Path, start: Start, resumed: Resumed) -> None:
    driver = start(tmp_path / "s")
    driver.wait_for(30)
    for _ in range(2):
        driver.process.send_signal(signal.SIGINT)
    out = driver.finish()
    assert driver.process.returncode == 0, out
    assert "interrupted" in out and f"of {COUNT} circuits are done" in out
    assert ray_qjm.attach(tmp_path / "s").status().state == "cancelled"
    resumed(tmp_path / "s")


def test_an_answer_that_is_lost(tmp_path: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The object of an outcome is gone before the driver has it: what the worker wrote counts."""
    from ray_qjm.cluster.workers import RayLauncher

    lost: list[Any] = []
    original = RayLauncher.start

    def losing(self: RayLauncher, chunk: Any, payload: Any, done: Any) -> None:
        def told(outcome: Any) -> None:
            if chunk.start % 4 == 0 and chunk.attempt == 0 and not isinstance(outcome, BaseException):
                lost.append(chunk)
                outcome = ray.exceptions.ObjectLostError("0" * 56, b"", "")
            done(outcome)

        original(self, chunk, payload, told)

    monkeypatch.setattr(RayLauncher, "start", losing)
    result = ray_qjm.run(**call(store=tmp_path / "s"), progress=False)
    assert len(lost) > 3
    assert rows_of(result).equals(undisturbed)
    assert sum(job["circuits"] for job in result.jobs.to_pylist()) == COUNT
    check_store(tmp_path / "s", COUNT)
