"""Stores that fill up, turn read-only, answer errors, and clocks that jump."""

from __future__ import annotations

import functools
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import ray_qjm
from ray_qjm import TaskStatus
from ray_qjm.cluster import resume
from ray_qjm.errors import StoreUnavailableError
from ray_qjm.results import lease
from ray_qjm.results.objects import Objects
from tests.faults.driver import COUNT, call
from tests.storing import check_store, rows_of

Resumed = Callable[..., None]


def mount(folder: Path, options: str) -> None:
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True, capture_output=True
    )


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True, capture_output=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mount(folder, "size=200k")
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("mounting isn't allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def impatient(monkeypatch: pytest.MonkeyPatch, retry_s: float) -> None:
    monkeypatch.setattr(resume, "Objects", functools.partial(Objects, retry_s=retry_s))


def test_a_full_disk(small_disk: Path, resumed: Resumed, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch, 1.0)
    with pytest.raises(
        StoreUnavailableError, match=r"tried for 1 s: .*No space left.*run the same call again"
    ):
        ray_qjm.run(**call(store=small_disk / "s"), progress=False)
    monkeypatch.undo()
    done = ray_qjm.attach(small_disk / "s").status().done
    assert 0 < done < COUNT
    remount(small_disk, "size=20m")
    resumed(small_disk / "s")


def test_a_disk_that_is_read_only_for_a_while(small_disk: Path, undisturbed: pa.Table) -> None:
    """The task waits and goes on by itself."""
    remount(small_disk, "size=20m")
    reached = threading.Event()

    def tell(status: TaskStatus) -> None:
        if status.done > 30:
            reached.set()

    task = ray_qjm.submit(**call(store=small_disk / "s"), progress=tell)
    assert reached.wait(60)
    remount(small_disk, "ro")
    assert not task.done()
    before = task.status().done
    time.sleep(2)  # what was being written then has failed a few times by now
    assert not task.done() and task.status().done <= before + 10
    remount(small_disk, "rw")
    assert rows_of(task.result(timeout=120)).equals(undisturbed)
    check_store(small_disk / "s", COUNT)


class Flaky(Objects):
    """One of seven operations fails, after it was done or instead of it, and all are slow."""

    def _tried(self, what: str, operation: Callable[[], Any]) -> Any:
        draw = random.Random()

        def flaky() -> Any:
            time.sleep(draw.random() * 0.01)
            if draw.random() < 0.08:
                raise OSError(5, "injected: Input/output error")
            answer = operation()
            if draw.random() < 0.08:
                raise OSError(5, "injected: the answer was lost")
            return answer

        return super()._tried(what, flaky)


def test_a_store_that_answers_errors(
    tmp_path: Path, undisturbed: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "Objects", Flaky)
    result = ray_qjm.run(**call(store=tmp_path / "s"), progress=False)
    monkeypatch.undo()
    assert rows_of(ray_qjm.TaskResult.open(tmp_path / "s")).equals(undisturbed)
    assert len(result) == COUNT
    check_store(tmp_path / "s", COUNT)


def test_a_store_that_goes_away(tmp_path: Path, resumed: Resumed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory is gone, as when a network disk is unmounted; later it is back."""
    impatient(monkeypatch, 1.0)
    reached = threading.Event()

    def tell(status: TaskStatus) -> None:
        if status.done > 30:
            reached.set()

    task = ray_qjm.submit(**call(store=tmp_path / "s"), progress=tell)
    assert reached.wait(60)
    (tmp_path / "s").rename(tmp_path / "away")
    with pytest.raises(StoreUnavailableError, match="run the same call again"):
        task.result(timeout=120)
    monkeypatch.undo()
    if (tmp_path / "s").exists():
        subprocess.run(["rm", "-r", str(tmp_path / "s")], check=True)
    (tmp_path / "away").rename(tmp_path / "s")
    resumed(tmp_path / "s")


def test_a_disk_that_is_unmounted(
    small_disk: Path, resumed: Resumed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its empty mount point takes whatever is written: that must not pass for the store."""
    remount(small_disk, "size=20m")
    reached = threading.Event()

    def tell(status: TaskStatus) -> None:
        if status.done > 30:
            reached.set()

    task = ray_qjm.submit(**call(store=small_disk), progress=tell)
    assert reached.wait(60)
    mount(small_disk, "size=20m")  # over it: what was there is hidden
    with pytest.raises(StoreUnavailableError, match=r"epochs/1.json is gone from store .* unmounted"):
        task.result(timeout=120)
    assert not list(small_disk.rglob("ends/*.json"))
    subprocess.run(["umount", str(small_disk)], check=True)
    resumed(small_disk)


def test_clocks_that_jump(tmp_path: Path, undisturbed: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times in the table are wrong then; nothing else may be."""
    monkeypatch.setattr(lease, "BEAT_S", 0.1)
    real, draw = time.time, random.Random(3)
    monkeypatch.setattr(time, "time", lambda: real() + draw.uniform(-1e6, 1e6))
    result = ray_qjm.run(**call(store=tmp_path / "s"), progress=False)
    again = ray_qjm.run(**call(store=tmp_path / "s"), progress=False)
    monkeypatch.undo()
    assert rows_of(result).equals(undisturbed) and rows_of(again).equals(undisturbed)
    check_store(tmp_path / "s", COUNT)


def test_files_stay_private(small_disk: Path) -> None:
    """Whatever the umask of the workers is."""
    remount(small_disk, "size=20m")
    ray_qjm.run(**call(store=small_disk / "s"), progress=False)
    for path in (small_disk / "s").rglob("*"):
        assert not os.stat(path).st_mode & 0o077, path
