"""Circuits in the object store that came from the driver's own source, for as long as a chunk may need them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray_qjm.planning.events import Chunk


@dataclass(slots=True)
class Held:
    """The circuits ``[start, stop)``.

    Attributes:
        start: Row of the first.
        stop: One past the last.
        reference: Their payload in the object store.
        left: How many have no row yet.
        read_s: Seconds that the source took for them.
    """

    start: int
    stop: int
    reference: Any
    left: int
    read_s: float


class HeldPayloads:
    """Payloads by the rows that they cover; dropping the reference frees the object store's memory."""

    def __init__(self) -> None:
        self._held: dict[int, Held] = {}

    def add(self, start: int, stop: int, reference: Any, read_s: float) -> Held:
        """Hold a payload until each of its circuits has a row."""
        held = self._held[start] = Held(start, stop, reference, stop - start, read_s)
        return held

    def of(self, chunk: Chunk) -> Held | None:
        """The payload with all circuits of a chunk."""
        held = self._held.get(chunk.start)
        if held is not None and chunk.stop <= held.stop:
            return held
        # A half, or a circuit that waited for memory: few payloads are held, and this is rare. Copied at once,
        # since another thread may ask for the columns of a task that still runs.
        return next(
            (h for h in list(self._held.values()) if h.start <= chunk.start and chunk.stop <= h.stop), None
        )

    def release(self, chunk: Chunk, rows: int) -> None:
        """So many circuits of a chunk have their rows now."""
        held = self.of(chunk)
        if held is not None:
            held.left -= rows
            if held.left <= 0:
                del self._held[held.start]

    def clear(self) -> None:
        """Hold nothing any more."""
        self._held.clear()
