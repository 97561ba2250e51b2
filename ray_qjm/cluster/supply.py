"""What chunks need of a source that only the driver can read: read when one asks, held until its rows are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from ray_qjm.circuits.source import DriverSource
from ray_qjm.cluster.feeder import Feeder, Reading
from ray_qjm.cluster.held import HeldPayloads
from ray_qjm.cluster.messages import Payload
from ray_qjm.cluster.resume import Resumed
from ray_qjm.errors import SourceError
from ray_qjm.planning.events import Chunk, Failure


class Supply:
    """Knows which chunks wait for the feeder; used by the coordinator's thread only.

    Args:
        feed: The source; ``None``: workers build circuits themselves, and nothing is read here.
        held: Circuits that were read and have no row yet.
        put: Puts a payload into the object store.
        told: Called from the feeder's thread for each chunk that was asked for; its reading has to be given to
            ``take``.
        resumed: What an earlier session of the task has left.
    """

    def __init__(
        self,
        feed: DriverSource | None,
        held: HeldPayloads,
        *,
        put: Callable[[Payload], Any],
        told: Callable[[Chunk, Reading], None],
        resumed: Resumed | None,
    ) -> None:
        self._feed = feed
        self._held = held
        self._asked: set[Chunk] = set()
        self._compares = resumed is not None
        self._rest: Chunk | None = None
        self._feeder: Feeder | None = None
        if feed is not None:
            before = () if resumed is None else (resumed.marks, resumed.inputs, resumed.kept)
            self._feeder = Feeder(feed, put, told, *before)

    def ask(self, chunk: Chunk) -> bool:
        """Have a chunk's circuits read, unless they needn't be; return whether it has to wait for them."""
        if self._feeder is None or self._held.of(chunk) is not None:
            return False
        self._read(self._feeder, chunk)
        return True

    def payload(self, chunk: Chunk) -> Any:
        """The reference to a chunk's circuits; ``None`` where workers build them."""
        held = self._held.of(chunk)
        return None if held is None else held.reference

    def awaits(self, chunk: Chunk) -> bool:
        """Whether a chunk's reading is still of use: none is, once the task was cancelled."""
        return chunk in self._asked

    def take(self, chunk: Chunk, reading: Reading) -> Chunk:
        """Take in what was read for a chunk; return what of it there is."""
        self._asked.remove(chunk)
        if reading.circuits == 0:
            return replace(chunk, stop=chunk.start)
        got = replace(chunk, stop=min(chunk.stop, chunk.start + reading.circuits))
        self._held.add(got.start, got.stop, reading.reference, reading.seconds)
        return got

    def reads_for(self) -> set[int]:
        """Backends of which chunks are being read."""
        return {chunk.backend for chunk in self._asked}

    def taken_s(self, chunk: Chunk, seconds: float) -> float:
        """How long a chunk took: a slow generator makes small chunks as a slow simulation does."""
        held = self._held.of(chunk)
        return seconds if held is None else max(seconds, held.read_s)

    def release(self, chunk: Chunk, rows: int) -> None:
        """So many circuits of a chunk have their rows now."""
        self._held.release(chunk, rows)

    # Its end.

    def compare_rest(self, total: int) -> None:
        """Have circuits behind the last that ran compared with those of earlier sessions, if there were any."""
        if self._compares and self._feeder is not None and self._rest is None:
            self._rest = Chunk(total, total)
            self._read(self._feeder, self._rest)

    def rest_unread(self) -> bool:
        """Whether ``compare_rest`` has something to do still."""
        return self._rest in self._asked

    def lacking(self, total: int) -> Failure | None:
        """Circuits that the source has promised, and ended without, after so many."""
        if self._feed is None or self._feed.count is None or self._feed.count <= total:
            return None
        reason = f"{self._feed.kind} ended after {total} circuits; count is {self._feed.count}"
        return Failure(total, self._feed.count, SourceError.__name__, reason, stage="build")

    def stop(self) -> None:
        """Read nothing any more; see ``Feeder.stop``."""
        if self._feeder is not None:
            self._feeder.stop()

    def drop(self) -> Iterator[Chunk]:
        """Chunks that were to be read and won't be, each forgotten as it is told."""
        for chunk in tuple(self._asked):
            self._asked.remove(chunk)
            if chunk != self._rest:
                yield chunk

    def clear(self) -> None:
        """Hold nothing any more."""
        self._held.clear()

    def _read(self, feeder: Feeder, chunk: Chunk) -> None:
        self._asked.add(chunk)
        feeder.ask(chunk)
