"""Reads a source that only the driver can read, in a thread of its own: a chunk when one is wanted."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from ray_qjm.circuits.payload import encode
from ray_qjm.circuits.sources import DriverSource
from ray_qjm.cluster.chunk_work import Payload
from ray_qjm.errors import SourceError
from ray_qjm.planning.schedule import Chunk

#: Told for each chunk: how many circuits there were, and their payload in the object store; or an error.
Told = Callable[[Chunk, int, Any, BaseException | None], None]


class Feeder:
    """Takes from the source just what chunks ask for: there are never more circuits than chunks in flight.

    A thread of its own, because the user's generator may take its time, and the coordinator must not.

    Args:
        source: Where circuits come from.
        put: Puts a payload into the object store.
        told: Called from the feeder's thread for each chunk, in the order in which they were asked for.
    """

    def __init__(self, source: DriverSource, put: Callable[[Payload], Any], told: Told) -> None:
        self._source = source
        self._put = put
        self._told = told
        self._asked: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        # A generator that never answers must not keep the process alive.
        threading.Thread(target=self._read, name="ray_qjm feeder", daemon=True).start()

    def ask(self, chunk: Chunk) -> None:
        """Read the circuits of a chunk; chunks come in their order."""
        self._asked.put(chunk)

    def stop(self) -> None:
        """Read nothing any more."""
        self._asked.put(None)

    def _read(self) -> None:
        while (chunk := self._asked.get()) is not None:
            try:
                items = self._source.read(len(chunk))
                reference = None
                if items:
                    columns = self._source.columns(chunk.start, chunk.start + len(items))
                    reference = self._put(Payload(chunk.start, encode(items), columns))
                self._told(chunk, len(items), reference, None)
                del items, reference
            except Exception as error:
                why = f"{self._source.kind} can't be read on ({type(error).__name__}: {error})."
                broken = error if isinstance(error, SourceError) else SourceError(why)
                self._told(chunk, 0, None, broken)
