"""What every store must do, on a local disk, in a server's memory and on S3."""

from __future__ import annotations

import pickle
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import obstore
import pytest
from obstore.exceptions import PermissionDeniedError
from obstore.store import MemoryStore

from ray_qjm.errors import InvalidInputError, StoreUnavailableError
from ray_qjm.results import objects
from ray_qjm.results.objects import Entry, Objects, absolute

WRITERS = 8


@pytest.fixture(params=["disk", "memory", "s3"])
def store(request: pytest.FixtureRequest) -> Objects:
    """An empty store of each kind."""
    made: Objects = request.getfixturevalue(f"{request.param}_store")
    return made


@pytest.fixture
def disk_store(tmp_path: Path) -> Objects:
    return Objects(tmp_path / "a store")


@pytest.fixture
def memory_store(monkeypatch: pytest.MonkeyPatch) -> Objects:
    monkeypatch.setattr(objects, "from_url", lambda url: MemoryStore())
    return Objects("s3://in-memory/prefix")


@pytest.fixture
def s3_store(s3_bucket: str, request: pytest.FixtureRequest) -> Objects:
    return Objects(f"s3://{s3_bucket}/{request.node.name.partition('[')[0]}")


def test_what_was_created_is_read_and_listed(store: Objects) -> None:
    assert store.create("parts/1/0-10.parquet", b"abc")
    assert store.create("parts/1/10-20.parquet", b"")
    assert store.create("parts/2/0-10.parquet", b"defg")
    assert store.create("task.json", b"{}")
    assert store.read("parts/2/0-10.parquet") == b"defg"
    assert store.read("parts/1/10-20.parquet") == b""
    assert store.read("parts/3/0-10.parquet") is None
    assert store.read_range("parts/2/0-10.parquet", 1, 3) == b"ef"
    assert store.entries("parts/1") == [Entry("parts/1/0-10.parquet", 3), Entry("parts/1/10-20.parquet", 0)]
    assert [entry.name for entry in store.entries("")] == [
        "parts/1/0-10.parquet",
        "parts/1/10-20.parquet",
        "parts/2/0-10.parquet",
        "task.json",
    ]
    assert store.entries("nothing") == []


def test_second_creation_is_refused_unless_it_says_the_same(store: Objects) -> None:
    assert store.create("epochs/1.json", b"mine")
    assert not store.create("epochs/1.json", b"another's")
    assert store.create("epochs/1.json", b"mine")  # as after an answer that was lost
    assert store.read("epochs/1.json") == b"mine"


def test_one_of_many_writers_wins(store: Objects) -> None:
    start = Barrier(WRITERS)

    def write(writer: int) -> bool:
        start.wait()
        return store.create("epochs/1.json", b"%d" % writer)

    with ThreadPoolExecutor(WRITERS) as pool:
        won = list(pool.map(write, range(WRITERS)))
    assert won.count(True) == 1
    assert store.read("epochs/1.json") == b"%d" % won.index(True)


def test_replacing_writes_the_last(store: Objects) -> None:
    for beat in range(3):
        store.replace("leases/1.json", b"%d" % beat)
    assert store.read("leases/1.json") == b"2"


def test_removing_twice_is_no_error(store: Objects) -> None:
    store.create("parts/1/0-10.parquet", b"abc")
    store.remove(["parts/1/0-10.parquet", "parts/1/never"])
    store.remove(["parts/1/0-10.parquet"])
    assert store.entries("parts") == []


def test_pickled_store_is_the_same_place(disk_store: Objects) -> None:
    disk_store.create("task.json", b"{}")
    again: Objects = pickle.loads(pickle.dumps(disk_store))
    assert again.read("task.json") == b"{}"
    assert again.root == disk_store.root
    assert again.retry_s == disk_store.retry_s


def test_local_files_are_private(disk_store: Objects) -> None:
    disk_store.create("parts/1/0-10.parquet", b"abc")
    disk_store.replace("leases/1.json", b"abc")
    assert disk_store.directory is not None
    for path in [disk_store.directory, *disk_store.directory.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_what_a_killed_writer_left_is_never_listed_and_swept(disk_store: Objects) -> None:
    disk_store.create("parts/1/0-10.parquet", b"abc")
    assert disk_store.directory is not None
    (disk_store.directory / "parts/1/10-20.parquet#1").write_bytes(b"half")
    assert disk_store.entries("parts") == [Entry("parts/1/0-10.parquet", 3)]
    assert disk_store.sweep(["parts"]) == ["parts/1/10-20.parquet#1"]
    assert [path.name for path in disk_store.directory.rglob("*") if path.is_file()] == ["0-10.parquet"]


def test_an_answer_that_was_lost_is_asked_for_again(
    disk_store: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, calls = obstore.put, 0

    def lossy(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        answer = put(*args, **kwargs)
        if calls == 1:
            raise OSError("connection reset")
        return answer

    monkeypatch.setattr(obstore, "put", lossy)
    assert disk_store.create("task.json", b"{}")
    assert calls == 2


def test_errors_that_stay_end_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Objects(tmp_path / "full", retry_s=0.2)

    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(obstore, "put", full)
    with pytest.raises(
        StoreUnavailableError, match=r"can't create task.json.*tried for 0.2 s.*No space left"
    ):
        store.create("task.json", b"{}")


@pytest.mark.parametrize(
    ("root", "reason"),
    [
        ("", "Give a directory"),
        (b"bytes", "Give a directory"),
        (7, "Give a directory"),
        ("http://host/store", "scheme 'http'"),
        ("s3://key:secret@bucket/x", "no credentials"),
        ("s3://bucket/x?token=1", "no credentials"),
    ],
)
def test_roots_that_can_not_be_are_refused(root: Any, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        Objects(root)


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match="can't be made"):
        Objects(tmp_path / "file")


def test_relative_directories_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("results/rb") == (tmp_path / "results/rb").as_uri()


def test_what_no_second_try_mends_is_told_at_once(
    disk_store: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def refused(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        raise PermissionDeniedError("not yours")

    monkeypatch.setattr(obstore, "put", refused)
    with pytest.raises(StoreUnavailableError, match="not yours") as caught:
        disk_store.create("task.json", b"{}")
    assert calls == 1
    assert "tried for" not in str(caught.value)


def test_folders_right_below_the_root(store: Objects) -> None:
    assert store.folders() == []
    for name in ("b/task.json", "a/parts/1/0-10.parquet", "a/task.json", "task.json"):
        store.create(name, b"{}")
    assert store.folders() == ["a", "b"]
