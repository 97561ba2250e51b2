"""What chunks get of a source that only the driver can read, without Ray."""

from __future__ import annotations

import queue
from typing import Any

from qiskit import QuantumCircuit

from ray_qjm.circuits.source import DriverSource
from ray_qjm.circuits.sources import make_source
from ray_qjm.cluster.feeder import Reading
from ray_qjm.cluster.held import HeldPayloads
from ray_qjm.cluster.messages import Payload
from ray_qjm.cluster.supply import Supply
from ray_qjm.errors import SourceError
from ray_qjm.planning.events import Chunk


class Scene:
    """A supply of three circuits of which five are promised, and what its feeder has told."""

    def __init__(self, *, fed: bool = True) -> None:
        self.told: queue.SimpleQueue[tuple[Chunk, Reading]] = queue.SimpleQueue()
        self.held = HeldPayloads()
        source = make_source((QuantumCircuit(1) for _ in range(3)), 5)
        assert isinstance(source, DriverSource)
        self.supply = Supply(
            source if fed else None, self.held, put=put, told=lambda *told: self.told.put(told), resumed=None
        )

    def take(self, chunk: Chunk) -> Chunk:
        """Wait for a chunk's reading, and take it in."""
        asked, reading = self.told.get(timeout=20)
        assert asked == chunk and reading.error is None and self.supply.awaits(chunk)
        return self.supply.take(chunk, reading)


def put(payload: Payload) -> Any:
    return f"from {payload.start}"


def test_a_chunk_waits_for_its_circuits_and_its_halves_find_them() -> None:
    scene = Scene()
    supply, chunk = scene.supply, Chunk(0, 2, backend=1)
    assert supply.ask(chunk) and supply.reads_for() == {1}
    assert scene.take(chunk) == chunk and supply.reads_for() == set()
    assert supply.payload(chunk) == "from 0"
    half = Chunk(1, 2, backend=1, attempt=1)
    assert not supply.ask(half) and supply.payload(half) == "from 0"
    supply.release(Chunk(0, 1), 1)
    assert supply.payload(half) == "from 0"
    supply.release(half, 1)
    assert supply.payload(half) is None
    supply.stop()


def test_a_source_that_ends_gives_what_it_has_and_its_promise_is_told() -> None:
    scene = Scene()
    supply = scene.supply
    assert supply.ask(Chunk(0, 2)) and scene.take(Chunk(0, 2)) == Chunk(0, 2)
    assert supply.ask(Chunk(2, 4)) and scene.take(Chunk(2, 4)) == Chunk(2, 3)
    assert supply.ask(Chunk(3, 5)) and len(scene.take(Chunk(3, 5))) == 0
    assert supply.payload(Chunk(3, 5)) is None
    lacking = supply.lacking(3)
    assert lacking is not None and (lacking.start, lacking.stop) == (3, 5)
    assert (
        lacking.error_type == SourceError.__name__ and "ended after 3 circuits; count is 5" in lacking.error
    )
    assert supply.lacking(5) is None


def test_what_is_read_after_the_task_was_cancelled_is_of_no_use() -> None:
    scene = Scene()
    supply, chunk = scene.supply, Chunk(0, 2)
    assert supply.ask(chunk)
    scene.told.get(timeout=20)
    supply.stop()
    assert [*supply.drop()] == [chunk]
    assert not supply.awaits(chunk) and supply.reads_for() == set()


def test_where_workers_build_circuits_no_chunk_waits() -> None:
    supply = Scene(fed=False).supply
    assert not supply.ask(Chunk(0, 2)) and supply.payload(Chunk(0, 2)) is None
    supply.compare_rest(2)
    assert not supply.rest_unread() and supply.lacking(2) is None
    assert supply.taken_s(Chunk(0, 2), 0.5) == 0.5
