"""What counts of a store, whatever was killed, torn, left over or written late."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ray_qjm import TaskResult, attach
from ray_qjm.errors import (
    InvalidInputError,
    StoreDamagedError,
    StoreInUseError,
    StoreMismatchError,
    StoreTakenError,
)
from ray_qjm.results import compaction, lease
from ray_qjm.results import objects as objects_module
from ray_qjm.results.compaction import compact
from ray_qjm.results.lease import beat_name, end_name, epoch_name
from ray_qjm.results.objects import Objects
from ray_qjm.results.records import EndRecord, Owner, pack_epoch, read_beat, read_epoch, read_task
from ray_qjm.results.store import Opened, look, take
from ray_qjm.results.winners import PartName, winners
from tests.results.stores import COUNT, TASK, end, marks_of, taken_by, write
from tests.storing import rows_of


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.02)
    monkeypatch.setattr(lease, "LEASE_S", 0.3)
    monkeypatch.setattr(lease, "_LOOK_S", 0.01)


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(tmp_path / "store")


def left(objects: Objects) -> set[str]:
    """All files."""
    assert objects.directory is not None
    return {
        path.relative_to(objects.directory).as_posix()
        for path in objects.directory.rglob("*")
        if path.is_file()
    }


def killed(opened: Opened) -> None:
    """End the owner as SIGKILL does: nothing more is written, and it is known to be dead."""
    opened.lease.stop()


def held_up(objects: Objects) -> Opened:
    """An owner that has given its first sign of life and gives no other."""
    opened = taken_by(objects)
    until = time.monotonic() + 10
    while objects.read(beat_name(opened.record.epoch)) is None:
        assert time.monotonic() < until
        time.sleep(0.005)
    return opened


# One process after the other.


def test_rows_of_a_killed_process_are_kept(objects: Objects) -> None:
    first = taken_by(objects)
    write(objects, 1, 0, 10, mark=1)
    killed(first)
    second = taken_by(objects)
    assert second.record.epoch == 2
    part = write(objects, 2, 10, COUNT, mark=2)
    end(second, [part])
    assert marks_of(objects) == dict.fromkeys(range(10), 1) | dict.fromkeys(range(10, COUNT), 2)
    assert attach(objects.root).status().state == "done"


def test_what_comes_late_doesnt_count(objects: Objects) -> None:
    first = taken_by(objects)
    write(objects, 1, 0, 10, mark=1)
    killed(first)
    second = taken_by(objects)
    write(objects, 1, 10, 20, mark=1)  # by workers that outlived their driver
    write(objects, 1, 0, 9, mark=1)
    assert marks_of(objects) == dict.fromkeys(range(10), 1)
    end(second, [write(objects, 2, 10, COUNT, mark=2)])
    write(objects, 1, 20, 30, mark=1)
    write(objects, 2, 0, 5, mark=2)
    assert marks_of(objects) == dict.fromkeys(range(10), 1) | dict.fromkeys(range(10, COUNT), 2)
    third = taken_by(objects)
    third.give_back()
    assert {name for name in left(objects) if name.startswith("parts/")} == {
        "parts/1/0-10.parquet",
        f"parts/2/10-{COUNT}.parquet",
    }


def test_a_process_that_was_only_slow_is_told(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[BaseException] = []
    monkeypatch.setattr(lease, "BEAT_S", 3600.0)  # it is stopped, say
    first = held_up(objects)
    first.lease.report(dict, told.append, lambda: None)
    write(objects, 1, 0, 10, mark=1)
    second = taken_by(objects)  # after LEASE_S without a sign of life
    first.lease._beat()
    assert [type(error) for error in told] == [StoreTakenError]
    with pytest.raises(StoreTakenError, match="another process has taken over"):
        end(first, [PartName(1, 0, 10)])
    assert objects.read(end_name(1)) is None
    end(second, [write(objects, 2, 10, COUNT, mark=2)])
    assert len(marks_of(objects)) == COUNT


def test_a_process_that_lives_is_not_taken_over(objects: Objects) -> None:
    first = taken_by(objects)
    with pytest.raises(StoreInUseError, match=rf"process {first.record.owner.pid} on .*attach"):
        taken_by(objects)
    assert left(objects) == {"task.json", epoch_name(1), beat_name(1)}
    killed(first)


def test_a_process_on_another_machine_is_given_its_time(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it lives can only be told by what it writes; its clock doesn't matter."""
    first = taken_by(objects)
    killed(first)
    elsewhere = replace(first.record, owner=Owner("far", 1, "other/pid:[1]/1/1", "x"), began=1e12)
    objects.replace(epoch_name(1), pack_epoch(elsewhere))
    assert not lease.is_dead(elsewhere.owner)
    stop = threading.Event()

    def live() -> None:
        number = 100
        while not stop.wait(0.02):
            number += 1
            objects.replace(beat_name(1), f"{number}".encode())

    thread = threading.Thread(target=live)
    thread.start()
    with pytest.raises(StoreInUseError, match="process 1 on far"):
        taken_by(objects)
    stop.set()
    thread.join()
    second = taken_by(objects)
    assert second.record.epoch == 2
    killed(second)


def test_signs_of_life_carry_the_status(objects: Objects) -> None:
    opened = taken_by(objects)
    opened.lease.report(lambda: {"a": 1}, lambda error: None, lambda: None)
    told: Mapping[str, Any] = {}
    until = time.monotonic() + 30
    while told != {"a": 1} and time.monotonic() < until:
        beat = read_beat(objects.read(beat_name(1)))
        told = {} if beat is None else beat.status
    assert told == {"a": 1}
    killed(opened)


# What a power cut leaves.


@pytest.mark.parametrize("damage", [b"", b"PAR1", None, "half"])
def test_a_torn_part_is_run_again(objects: Objects, damage: bytes | str | None) -> None:
    first = taken_by(objects)
    write(objects, 1, 0, 10, mark=1)
    torn = write(objects, 1, 10, 20, mark=1)
    whole = objects.read(torn.path)
    assert whole is not None
    if damage is None:
        objects.remove([torn.path])
    else:
        objects.replace(torn.path, whole[: len(whole) // 2] if isinstance(damage, str) else damage)
    killed(first)
    second = taken_by(objects)
    assert [item[:2] for item in second.record.accepted] == [(0, 10)]
    assert torn.path not in left(objects)
    end(second, [write(objects, 2, 10, COUNT, mark=2)])
    assert marks_of(objects)[15] == 2


def test_a_part_that_is_torn_later_says_so_and_is_run_again(objects: Objects) -> None:
    opened = taken_by(objects)
    parts = [write(objects, 1, 0, 10, mark=1), write(objects, 1, 10, COUNT, mark=1)]
    end(opened, parts)
    result = TaskResult.open(objects.root)
    whole = objects.read(parts[1].path)
    assert whole is not None
    objects.replace(parts[1].path, whole[:-100])
    assert result.get_counts(3) == {"0": 1}
    with pytest.raises(
        StoreDamagedError, match=rf"1/10-{COUNT}.parquet .* is damaged: .* runs circuits 10-39 anew"
    ):
        result.get_counts(12)
    objects.remove([parts[1].path])
    with pytest.raises(StoreDamagedError, match=r"is gone from store .* open it again"):
        TaskResult.open(objects.root).get_counts(12)
    again = taken_by(objects)
    assert [item[:2] for item in again.record.accepted] == [(0, 10)]
    killed(again)


def test_behind_a_torn_part_another_of_the_same_circuits_comes_in(objects: Objects) -> None:
    """A chunk that was written, whose worker died, and that was run again in halves."""
    opened = taken_by(objects)
    whole = write(objects, 1, 0, 10, mark=1)
    write(objects, 1, 0, 5, mark=2)
    objects.replace(whole.path, b"torn")
    killed(opened)
    again = taken_by(objects)
    assert [item[:2] for item in again.record.accepted] == [(0, 5)]
    killed(again)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"format":1,"digest":"0","body":{}}', b"\0" * 500])
def test_torn_records_are_absent(objects: Objects, damage: bytes) -> None:
    """Of the task, of the newest epoch and of its end: what stands in the parts is kept."""
    first = taken_by(objects)
    write(objects, 1, 0, 10, mark=1)
    killed(first)
    second = taken_by(objects)
    end(second, [write(objects, 2, 10, 20, mark=2)])
    for name in ("task.json", epoch_name(2), end_name(2)):
        objects.replace(name, damage)
        assert marks_of(objects) == dict.fromkeys(range(10), 1) | dict.fromkeys(range(10, 20), 2), name
        again = taken_by(objects)
        assert again.record.task == TASK
        assert {item[:2] for item in again.record.accepted} == {(0, 10), (10, 20)}
        again.give_back()
        assert read_task(objects.read("task.json")) == TASK
    last = take(objects, None, (), None)
    assert last.record.task == TASK
    killed(last)


def test_an_empty_task_file_of_a_new_store_is_none(objects: Objects) -> None:
    objects.create("task.json", b"")
    opened = taken_by(objects)
    assert opened.record.epoch == 1 and objects.read("task.json") != b""
    killed(opened)


def test_parts_of_nothing_are_not_guessed_at(objects: Objects) -> None:
    opened = taken_by(objects)
    write(objects, 1, 0, 10, mark=1)
    killed(opened)
    for name in ("task.json", epoch_name(1)):
        objects.replace(name, b"")
    for ask in (lambda: taken_by(objects), lambda: attach(objects.root)):
        with pytest.raises(StoreDamagedError, match=r"has 1 parts, and neither task\.json nor"):
            ask()
    assert "parts/1/0-10.parquet" in left(objects)


def test_leftovers_go_and_strangers_stay(objects: Objects) -> None:
    opened = taken_by(objects)
    write(objects, 1, 0, 10, mark=1)
    killed(opened)
    ours = ["parts/1/10-20.parquet#1", "epochs/2.json#12", "task.json#3"]
    strangers = ["notes.txt", "parts/1/readme", "mine/draft#1", "parts/1/5-3.parquet", "epochs/x.json"]
    for name in [*ours, *strangers]:
        path = Path(objects.address(name))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"...")
    again = taken_by(objects)
    assert left(objects) >= set(strangers) and not left(objects) & set(ours)
    killed(again)


def test_a_newer_format_is_refused(objects: Objects) -> None:
    opened = taken_by(objects)
    killed(opened)
    objects.replace(epoch_name(1), b'{"format":2,"digest":"","body":{}}')
    for ask in (lambda: taken_by(objects), lambda: attach(objects.root)):
        with pytest.raises(
            StoreDamagedError, match="format 2, and this version of ray_qjm reads up to 1: upgrade"
        ):
            ask()


def test_a_task_of_a_newer_format_is_not_taken(objects: Objects) -> None:
    opened = taken_by(objects)
    end(opened, [write(objects, 1, 0, COUNT, mark=1)])
    objects.replace("task.json", b'{"format":2,"digest":"","body":{}}')
    before = left(objects)
    with pytest.raises(StoreDamagedError, match=f"^{objects.place}: .*format 2, and this version"):
        taken_by(objects)
    assert left(objects) == before


def test_of_another_source_what_differs_is_told(objects: Objects) -> None:
    told = {"kind": "callable", "digest": "ab"}
    stored, given = ({**TASK.identity, "source": {**told, **more}} for more in ({}, {"digest": "cd"}))
    end(take(objects, replace(TASK, identity=stored), ["aer"], COUNT), [])
    with pytest.raises(StoreMismatchError, match="with source digest 'ab'; this call has digest 'cd'"):
        take(objects, replace(TASK, identity=given), ["aer"], COUNT)


def test_another_task_takes_nothing(objects: Objects) -> None:
    opened = taken_by(objects)
    end(opened, [write(objects, 1, 0, COUNT, mark=1)])
    before = left(objects)
    other = replace(TASK, identity={**TASK.identity, "shots": 6})
    with pytest.raises(StoreMismatchError, match="holds task t1 with shots 5; this call has 6"):
        take(objects, other, ["aer"], COUNT)
    assert left(objects) == before


def test_one_that_ends_while_another_takes_over_loses_nothing(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was held up, so that the other looked on for long enough, and has a part that it wasn't told of."""
    monkeypatch.setattr(lease, "BEAT_S", 3600.0)
    first = held_up(objects)
    told = write(objects, 1, 0, 10, mark=1)
    write(objects, 1, 10, 20, mark=1)
    original = Objects.create

    def ended_just_before(self: Objects, name: str, data: bytes) -> bool:
        if name == epoch_name(2):
            monkeypatch.setattr(Objects, "create", original)
            end(first, [told], state="cancelled")
        return original(self, name, data)

    monkeypatch.setattr(Objects, "create", ended_just_before)
    second = taken_by(objects)
    assert second.record.epoch == 3 and [item[:2] for item in second.record.accepted] == [(0, 10)]
    end(second, [write(objects, 3, 10, COUNT, mark=3)])
    assert marks_of(objects) == dict.fromkeys(range(10), 1) | dict.fromkeys(range(10, COUNT), 3)


@pytest.mark.parametrize("damage", [b"", b"PAR1xx"])
def test_a_torn_table_of_jobs_is_made_again(objects: Objects, damage: bytes) -> None:
    opened = taken_by(objects)
    end(opened, [write(objects, 1, 0, COUNT, mark=1)])
    jobs = TaskResult.open(objects.root).jobs
    objects.replace("jobs/1.parquet", damage)
    assert TaskResult.open(objects.root).jobs.equals(jobs)
    taken_by(objects).give_back()
    assert TaskResult.open(objects.root).jobs.equals(jobs)


def test_a_stream_waits_for_rows_that_may_be_run_again(objects: Objects) -> None:
    opened = taken_by(objects)
    end(opened, [write(objects, 1, 0, 10, mark=1, failed=(3,))])
    second = taken_by(objects)
    stream = attach(objects.root).stream()
    seen = [batch for _, batch in zip(range(2), stream, strict=False)]
    assert [c for batch in seen for c in batch.column("circuit").to_pylist()] == [0, 1, 2, *range(4, 10)]
    end(second, [write(objects, 2, 3, 4, mark=2), write(objects, 2, 10, COUNT, mark=2)])
    rest = [row for batch in stream for row in batch.select(["circuit", "shots"]).to_pylist()]
    assert {row["circuit"]: row["shots"] for row in rest} == dict.fromkeys([3, *range(10, COUNT)], 2)


# Files.


def test_compaction_joins_all_and_loses_nothing(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "MOST_ROWS", 16)
    opened = taken_by(objects)
    parts = [write(objects, 1, i, i + 4, mark=i + 1, failed=(9,) if i == 8 else ()) for i in range(0, 36, 4)]
    end(opened, parts, state="cancelled")
    result = TaskResult.open(objects.root)
    table, jobs, report = rows_of(result), result.jobs, result.report()
    result.compact()
    assert [Path(name).stem for name in result.files()] == ["0-16", "16-32", "32-36"]
    for found in (result, TaskResult.open(objects.root)):
        assert rows_of(found).equals(table) and found.jobs.equals(jobs) and found.report() == report
        assert found.get_counts(35) == {"0": 33}
    assert attach(objects.root).status().state == "cancelled"
    assert {name for name in left(objects) if name.startswith("parts")} == {
        "parts/2/0-16.parquet",
        "parts/2/16-32.parquet",
        "parts/1/32-36.parquet",  # alone as it was
    }
    again = taken_by(objects)
    assert again.marks[PartName(2, 0, 16)].tolist() == list(range(1, 17))
    again.give_back()
    assert TaskResult.open(objects.root).jobs.equals(jobs)


@pytest.mark.parametrize("survives", range(8))
def test_compaction_may_be_killed_anywhere(
    objects: Objects, monkeypatch: pytest.MonkeyPatch, survives: int
) -> None:
    """After any number of the objects that it writes or removes."""
    monkeypatch.setattr(compaction, "MOST_ROWS", 20)
    opened = taken_by(objects)
    end(opened, [write(objects, 1, i, i + 5, mark=i + 1) for i in range(0, COUNT, 5)])
    before = marks_of(objects)
    acts = 0

    class Killed(BaseException):
        pass

    def counted(name: str) -> None:
        original = getattr(Objects, name)

        def act(self: Objects, *arguments: Any) -> Any:
            nonlocal acts
            if "beats" not in str(arguments[0]):
                acts += 1
                if acts > survives:
                    raise Killed
            return original(self, *arguments)

        monkeypatch.setattr(Objects, name, act)

    for name in ("create", "replace", "remove"):
        counted(name)
    held = set(lease._held_here)
    with suppress(Killed):
        compact(objects)
    monkeypatch.undo()
    lease._held_here.intersection_update(held)  # the process is dead
    assert marks_of(objects) == before
    compact(objects)
    assert marks_of(objects) == before
    assert len(TaskResult.open(objects.root).files()) <= 3


def test_overlapping_parts_are_no_files_until_they_are_compacted(objects: Objects) -> None:
    opened = taken_by(objects)
    parts = [write(objects, 1, 0, 10, mark=1), write(objects, 1, 5, COUNT, mark=2)]
    end(opened, parts)
    assert marks_of(objects) == dict.fromkeys(range(5), 1) | dict.fromkeys(range(5, COUNT), 2)
    result = TaskResult.open(objects.root)
    with pytest.raises(
        InvalidInputError, match=r"of parts/1/0-10.parquet only the circuits 0-4 count.*compact"
    ):
        result.files()
    result.compact()
    assert len(result.files()) == 1 and len(marks_of(objects)) == COUNT


def test_a_result_that_was_opened_before_says_that_files_have_moved(objects: Objects) -> None:
    opened = taken_by(objects)
    end(opened, [write(objects, 1, i, i + 10, mark=1) for i in range(0, COUNT, 10)])
    old = TaskResult.open(objects.root)
    TaskResult.open(objects.root).compact()
    with pytest.raises(StoreDamagedError, match="compacted since this result was opened, open it again"):
        old.get_counts(3)


def test_a_large_file_that_is_gone_is_told_at_once(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reader holds the footer, and asks for more only then."""
    monkeypatch.setattr(objects_module, "_WHOLE", 10)
    opened = taken_by(objects)
    part = write(objects, 1, 0, COUNT, mark=1)
    end(opened, [part])
    result = TaskResult.open(objects.root)
    rows: Any = result._rows
    rows._files[part] = rows._open(part)
    objects.remove([part.path])
    begun = time.monotonic()
    with pytest.raises(StoreDamagedError, match="is gone"):
        result.get_counts(5)
    assert time.monotonic() - begun < objects.retry_s / 2


def test_many_rows_are_read_a_group_at_a_time(objects: Objects) -> None:
    """Of a file larger than what is read at once, only some bytes."""
    opened = take(objects, replace(TASK, identity={**TASK.identity, "count": 20_000}), ["aer"], 20_000)
    part = write(objects, 1, 0, 20_000, mark=3)
    opened.finish(EndRecord(1, "done", None, 2.0, winners([part]), 20_000))
    size = len(objects.read(part.path) or b"")
    read: list[int] = []
    original = Objects.read_range

    def noted(self: Objects, name: str, start: int, stop: int) -> bytes:
        read.append(stop - start)
        return original(self, name, start, stop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects_module, "_WHOLE", 1000)
        patch.setattr(Objects, "read_range", noted)
        result = TaskResult.open(objects.root)
        assert result.get_counts(19_999) == {"0": 3} == result.get_counts(-5)
        assert 0 < sum(read) < size / 2
        assert sum(batch.num_rows for batch in result.iter_batches()) == 20_000


# Any order.


class AnyOrder(RuleBasedStateMachine):
    """Processes that take the store, write, die, end, compact; workers that write late; parts that are torn.

    The model is what the rule says: a take-over fixes what counts of the past; of the epoch that goes on the
    longer part wins; whatever else is written doesn't exist.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.objects = Objects(self.folder / "store")
        self.opened: Opened | None = None
        self.before: dict[int, int] = {}
        self.parts: dict[PartName, int] = {}
        self.epoch = 0
        self.mark = 0
        self.ended = True
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(compaction, "MOST_ROWS", 16)

    def teardown(self) -> None:
        if self.opened is not None:
            self.opened.lease.stop()
        self.patch.undo()
        shutil.rmtree(self.folder)

    def model(self) -> dict[int, int]:
        now = dict(self.before)
        for name in sorted(self.parts, key=lambda name: (name.stop - name.start, -name.start)):
            now.update(dict.fromkeys(range(name.start, name.stop), self.parts[name]))
        return now

    @initialize()
    def begin(self) -> None:
        self.take_over()

    @precondition(lambda self: self.opened is None)
    @rule()
    def take_over(self) -> None:
        self.before, self.parts = self.model(), {}
        self.opened = taken_by(self.objects)
        self.epoch = self.opened.record.epoch
        self.ended = False

    @precondition(lambda self: self.opened is not None)
    @rule(start=st.integers(0, COUNT - 1), length=st.integers(1, 12))
    def worker_writes(self, start: int, length: int) -> None:
        self.mark += 1
        name = PartName(self.epoch, start, min(COUNT, start + length))
        if name not in self.parts:
            write(self.objects, *name, mark=self.mark)
            self.parts[name] = self.mark

    @precondition(lambda self: self.epoch > 1)
    @rule(start=st.integers(0, COUNT - 1), length=st.integers(1, 12), back=st.integers(1, 3))
    def worker_of_a_dead_driver_writes(self, start: int, length: int, back: int) -> None:
        self.mark += 1
        epoch = max(1, self.epoch - back)
        name = PartName(epoch, start, min(COUNT, start + length))
        if epoch < self.epoch and self.objects.read(name.path) is None:
            write(self.objects, *name, mark=self.mark)

    @precondition(lambda self: self.opened is None and self.ended)
    @rule(start=st.integers(0, COUNT - 1), length=st.integers(1, 12))
    def worker_writes_after_the_end(self, start: int, length: int) -> None:
        self.mark += 1
        name = PartName(self.epoch, start, min(COUNT, start + length))
        if self.objects.read(name.path) is None:
            write(self.objects, *name, mark=self.mark)

    @precondition(lambda self: self.opened is not None)
    @rule()
    def driver_dies(self) -> None:
        assert self.opened is not None
        killed(self.opened)
        self.opened = None

    @precondition(lambda self: self.opened is not None)
    @rule()
    def driver_ends(self) -> None:
        assert self.opened is not None
        end(self.opened, list(self.parts))
        self.opened, self.ended = None, True
        # What an end names is fixed.
        self.before, self.parts = self.model(), {}

    @precondition(lambda self: self.opened is None)
    @rule()
    def compacts(self) -> None:
        self.before, self.parts = self.model(), {}
        compact(self.objects)
        self.epoch += 1
        self.ended = True
        stale = {name for name in left(self.objects) if name.startswith("parts/")}
        assert stale == {item.part.path for item in look(self.objects).taken}

    @precondition(lambda self: self.parts and self.opened is None and not self.ended)
    @rule(data=st.data())
    def power_cut_tears_a_part(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.parts)))
        whole = self.objects.read(name.path)
        assert whole is not None
        self.objects.replace(name.path, whole[: data.draw(st.integers(0, len(whole) - 1))])
        del self.parts[name]
        self.take_over()

    @invariant()
    def every_row_is_the_one_that_counts(self) -> None:
        if self.epoch:
            assert marks_of(self.objects) == self.model()

    @invariant()
    def records_are_readable(self) -> None:
        if self.epoch:
            assert read_epoch(self.objects.read(epoch_name(self.epoch))) is not None


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
