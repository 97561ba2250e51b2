"""The protocol of a store on every kind of it: processes that race, take over, end and compact."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from obstore.store import MemoryStore

from ray_qjm import TaskResult, attach
from ray_qjm.errors import StoreInUseError, StoreTakenError
from ray_qjm.results import lease, objects
from ray_qjm.results.objects import Objects
from ray_qjm.results.store import Opened
from tests.results.stores import COUNT, end, marks_of, taken_by, write

PROCESSES = 6


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.05)
    monkeypatch.setattr(lease, "LEASE_S", 2.0)


@pytest.fixture(params=["disk", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Objects:
    """An empty store of each kind."""
    if request.param == "disk":
        return Objects(tmp_path / "store")
    if request.param == "memory":
        one = MemoryStore()
        monkeypatch.setattr(objects, "from_url", lambda url: one)
        return Objects("s3://in-memory/prefix")
    bucket = request.getfixturevalue("s3_bucket")
    return Objects(f"s3://{bucket}/{request.node.name.partition('[')[0]}")


def raced(act: Callable[[], Any]) -> list[Any]:
    """What each of several gets that do it at once: a value, or the error."""
    together = Barrier(PROCESSES)

    def one(_: int) -> Any:
        together.wait()
        try:
            return act()
        except (StoreInUseError, StoreTakenError) as error:
            return error

    with ThreadPoolExecutor(PROCESSES) as pool:
        return list(pool.map(one, range(PROCESSES)))


def test_of_many_processes_one_gets_the_store(store: Objects) -> None:
    for epoch in (1, 2, 3):
        found = raced(lambda: taken_by(store))
        (opened,) = [item for item in found if isinstance(item, Opened)]
        assert sum(isinstance(item, StoreInUseError) for item in found) == PROCESSES - 1
        assert opened.record.epoch == epoch
        write(store, epoch, 10 * epoch - 10, 10 * epoch, mark=epoch)
        opened.lease.stop()  # killed
    assert marks_of(store) == {i: i // 10 + 1 for i in range(30)}


def test_of_two_that_write_one_part_one_is_there(store: Objects) -> None:
    opened = taken_by(store)
    marks = iter(range(1, 100))
    raced(lambda: write(store, 1, 0, 10, mark=next(marks)))
    (mark,) = set(marks_of(store).values())
    assert mark in range(1, PROCESSES + 1)
    opened.lease.stop()


def test_a_task_from_beginning_to_end(store: Objects) -> None:
    first = taken_by(store)
    write(store, 1, 0, 10, mark=1)
    assert attach(store.root).status().state == "running"
    first.lease.stop()
    assert attach(store.root).status().state == "interrupted"
    second = taken_by(store)
    write(store, 1, 10, 20, mark=1)  # late
    end(second, [write(store, 2, i, i + 10, mark=2) for i in range(10, COUNT, 10)])
    assert marks_of(store) == dict.fromkeys(range(10), 1) | dict.fromkeys(range(10, COUNT), 2)
    result = TaskResult.open(store.root)
    assert result.get_counts(9) == {"0": 1} and result.get_counts(10) == {"0": 2}
    table = result.table
    result.compact()
    assert len(result.files()) == 1 and result.table.num_rows == table.num_rows
    assert marks_of(store) == dict.fromkeys(range(10), 1) | dict.fromkeys(range(10, COUNT), 2)
    names = {entry.name.partition("/")[0] for entry in store.entries("")}
    assert names == {"task.json", "epochs", "ends", "jobs", "parts"}
    assert len(store.entries("parts")) == 1
