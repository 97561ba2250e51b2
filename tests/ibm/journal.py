"""What happened, in order; tests read it and wait for it."""

from __future__ import annotations

import threading
import time
from typing import Any


class Journal:
    """Events, each a dictionary with `kind`, its number `n`, and `t`, seconds since the service began."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._events: list[dict[str, Any]] = []
        self._grew = threading.Condition()

    def add(self, kind: str, **fields: Any) -> None:
        """Write an event."""
        with self._grew:
            now = round(time.monotonic() - self._began, 6)
            self._events.append({"n": len(self._events), "t": now, "kind": kind, **fields})
            self._grew.notify_all()

    def since(self, number: int, timeout_s: float = 0.0) -> list[dict[str, Any]]:
        """The events from this number on; waits for one if there is none yet."""
        with self._grew:
            self._grew.wait_for(lambda: len(self._events) > number, timeout_s)
            return self._events[number:]
