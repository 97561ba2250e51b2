"""Circuits that several jobs share, without Ray."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from qiskit import QuantumCircuit

from ray_qjm.circuits.payload import encode
from ray_qjm.cluster.pieces import Pieces


@dataclass(frozen=True)
class Reference:
    """As Ray's: ``hex()`` tells it from others."""

    name: str

    def hex(self) -> str:
        """Its name will do."""
        return self.name


class Source:
    """Gives the bytes of references, and counts how often."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.go = threading.Event()
        self.go.set()

    def get(self, reference: Reference) -> bytes:
        """Two circuits."""
        self.asked.append(reference.name)
        assert self.go.wait(30)
        if self.error is not None:
            raise self.error
        return encode([QuantumCircuit(1, name=f"{reference.name}{number}") for number in range(2)])


def test_a_piece_that_many_jobs_share_is_fetched_once() -> None:
    source = Source()
    pieces = Pieces(source.get)
    source.go.clear()
    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(pieces.circuits, Reference("a"), keep=True) for _ in range(8)]
        source.go.set()
        found = [[circuit.name for circuit in future.result()] for future in waiting]
    assert found == [["a0", "a1"]] * 8
    assert source.asked == ["a"]


def test_a_piece_that_one_job_takes_whole_is_not_kept() -> None:
    source = Source()
    pieces = Pieces(source.get)
    for _ in range(2):
        pieces.circuits(Reference("a"), keep=False)
    assert source.asked == ["a", "a"]


def test_pieces_that_were_not_used_for_long_make_room() -> None:
    source = Source()
    size = len(source.get(Reference("a")))
    source.asked.clear()
    pieces = Pieces(source.get, most_bytes=2 * size)
    for name in "abaca":
        pieces.circuits(Reference(name), keep=True)
    assert source.asked == ["a", "b", "c"]
    pieces.circuits(Reference("b"), keep=True)
    assert source.asked == ["a", "b", "c", "b"]


def test_a_piece_larger_than_all_room_is_given_all_the_same() -> None:
    pieces = Pieces(Source().get, most_bytes=1)
    for _ in range(2):
        assert [circuit.name for circuit in pieces.circuits(Reference("a"), keep=True)] == ["a0", "a1"]


def test_a_piece_that_could_not_be_had_is_asked_for_again() -> None:
    source = Source()
    pieces = Pieces(source.get)
    source.error = ConnectionError("the node is gone")
    with pytest.raises(ConnectionError):
        pieces.circuits(Reference("a"), keep=True)
    source.error = None
    assert len(pieces.circuits(Reference("a"), keep=True)) == 2
