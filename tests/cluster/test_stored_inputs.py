"""Circuits of an iterable, kept until they have their rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from qiskit import QuantumCircuit

from ray_qjm.cluster.stored_inputs import StoredInputs
from ray_qjm.planning.ranges import Ranges
from ray_qjm.results.objects import Objects


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(tmp_path / "s")


EPOCH = 3


def named(start: int, stop: int, word: str = "c") -> list[QuantumCircuit | Exception]:
    return [QuantumCircuit(1, name=f"{word}{i}") for i in range(start, stop)]


def names(items: list[QuantumCircuit | Exception]) -> list[str]:
    return [item.name if isinstance(item, QuantumCircuit) else str(item) for item in items]


def left(objects: Objects) -> list[str]:
    return [entry.name for entry in objects.entries("inputs")]


def test_what_was_read_goes_before_what_is_given_now(objects: Objects) -> None:
    StoredInputs(objects, EPOCH, Ranges()).exchange(10, 20, named(10, 20))
    assert left(objects) == ["inputs/3/10-20.qpy"]
    later = StoredInputs(objects, 4, Ranges([(0, 12)]))
    assert left(objects) == ["inputs/4/12-20.qpy"]
    assert names(later.exchange(12, 25, named(12, 25, "new"))) == [
        *(f"c{i}" for i in range(12, 20)),
        *(f"new{i}" for i in range(20, 25)),
    ]
    assert left(objects) == ["inputs/4/12-20.qpy", "inputs/4/20-25.qpy"]


def test_an_iterable_that_has_become_shorter_is_made_up(objects: Objects) -> None:
    StoredInputs(objects, EPOCH, Ranges()).exchange(0, 6, named(0, 6))
    again = StoredInputs(objects, EPOCH, Ranges())
    assert names(again.exchange(0, 4, named(0, 2))) == ["c0", "c1", "c2", "c3"]
    assert names(again.exchange(4, 8, [])) == ["c4", "c5"]
    assert names(again.exchange(8, 12, [])) == []


def test_rows_free_their_circuits(objects: Objects) -> None:
    inputs = StoredInputs(objects, EPOCH, Ranges())
    inputs.exchange(0, 4, named(0, 4))
    inputs.exchange(4, 8, named(4, 8))
    covered = Ranges([(0, 3)])
    inputs.drop(covered)
    assert left(objects) == ["inputs/3/0-4.qpy", "inputs/3/4-8.qpy"]
    covered.add(3, 5)
    inputs.drop(covered)
    assert left(objects) == ["inputs/3/4-8.qpy"]
    StoredInputs(objects, EPOCH, Ranges([(0, 8)]))
    assert left(objects) == []


def test_what_qpy_cant_keep_is_left_out(objects: Objects) -> None:
    """A delay in nanoseconds would come back as another; an exception is no circuit."""
    delayed = QuantumCircuit(1, name="delayed")
    delayed.delay(100, 0, unit="ns")
    items = [*named(0, 2), delayed, *named(3, 5), ValueError("no"), *named(6, 7)]
    assert names(StoredInputs(objects, EPOCH, Ranges()).exchange(0, 7, items)) == names(items)
    assert left(objects) == ["inputs/3/0-2.qpy", "inputs/3/3-5.qpy", "inputs/3/6-7.qpy"]


def test_torn_ones_have_to_be_given_again(objects: Objects) -> None:
    objects.create("inputs/2/0-4.qpy", b"QISKIT")
    objects.create("inputs/notes.txt", b"mine")
    again = StoredInputs(objects, EPOCH, Ranges())
    assert names(again.exchange(0, 4, named(0, 4, "new"))) == [f"new{i}" for i in range(4)]
    again.drop(Ranges([(0, 4)]))
    assert left(objects) == ["inputs/notes.txt"]


def test_a_process_that_was_taken_over_removes_only_its_own(objects: Objects) -> None:
    old = StoredInputs(objects, 3, Ranges())
    old.exchange(0, 4, named(0, 4))
    new = StoredInputs(objects, 4, Ranges())
    old.drop(Ranges([(0, 4)]))  # its worker reports late, and that doesn't count
    assert left(objects) == ["inputs/4/0-4.qpy"]
    assert names(new.exchange(0, 4, named(0, 4, "new"))) == ["c0", "c1", "c2", "c3"]
