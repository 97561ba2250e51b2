"""Workers that sleep in place of building, compiling and simulating; ``benchmarks.scale`` counts on them.

Light on purpose: many processes import this, and Qiskit and Arrow in each would take more than the machine has.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ray_qjm.planning.events import Chunk

if TYPE_CHECKING:
    from ray_qjm.cluster.messages import Outcome

#: Seconds that a circuit takes: 300 a second and core, as random circuits of 5 qubits do on Aer.
CIRCUIT_S = 1 / 300
#: Bytes of a circuit's row in a store, so that metrics have something to add.
ROW_BYTES = 200


def outcome(start: int, stop: int, begun: float) -> Outcome:
    """What a worker tells of a chunk whose rows it has written into the store."""
    from ray_qjm.cluster.messages import Outcome

    circuits, seconds = stop - start, (stop - start) * CIRCUIT_S
    stages = {"build": seconds / 4, "transpile": seconds / 2, "run": seconds / 4}
    return Outcome(
        stored=((start, stop),),
        done=circuits,
        seconds=seconds,
        started=begun,
        shots=1024 * circuits,
        stages=stages,
        size=ROW_BYTES * circuits,
    )


class Told:
    """Becomes an ``Outcome`` where it is unpickled, in the driver; the worker needs no such class."""

    def __init__(self, start: int, stop: int, begun: float) -> None:
        self._told = (start, stop, begun)

    def __reduce__(self) -> tuple[Callable[..., Outcome], tuple[int, int, float]]:
        return outcome, self._told


def sleep(task: str, setup: Sequence[Any], chunk: Chunk, payload: object, largest: int | None) -> Told:
    """In place of ``workers._run_chunk``."""
    begun = time.time()
    time.sleep(len(chunk) * CIRCUIT_S)
    return Told(chunk.start, chunk.stop, begun)


class Sleepers:
    """Workers of no process: a launcher that says that a chunk is done when its time has come.

    As many chunks as there are workers are at work, the others wait in order, as inside Ray.

    Args:
        workers: How many.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Chunk, Callable[[Any], None]]] = deque()
        self._working: list[tuple[float, int, float, Chunk, Callable[[Any], None]]] = []
        self._number = 0
        self._most = 0
        threading.Thread(target=self._run, name="sleepers", daemon=True).start()

    @property
    def most(self) -> int:
        """Most chunks that were pending at once."""
        return self._most

    def slots(self) -> list[int]:
        """See ``Launcher``."""
        return [self._workers]

    def start(self, chunk: Chunk, payload: object, done: Callable[[Any], None]) -> None:
        """See ``Launcher``."""
        with self._changed:
            self._waiting.append((chunk, done))
            self._most = max(self._most, len(self._waiting) + len(self._working))
            self._begin()
            self._changed.notify()

    def put(self, payload: object) -> object:
        """See ``Launcher``."""
        return payload

    def cancel(self) -> None:
        """See ``Launcher``: what sleeps, sleeps on."""

    def _begin(self) -> None:
        while self._waiting and len(self._working) < self._workers:
            chunk, done = self._waiting.popleft()
            due = time.monotonic() + len(chunk) * CIRCUIT_S
            heapq.heappush(self._working, (due, self._number, time.time(), chunk, done))
            self._number += 1

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._working or self._working[0][0] > time.monotonic():
                    self._changed.wait(
                        None if not self._working else max(0.0, self._working[0][0] - time.monotonic())
                    )
                _, _, begun, chunk, done = heapq.heappop(self._working)
                self._begin()
            done(outcome(chunk.start, chunk.stop, begun))
