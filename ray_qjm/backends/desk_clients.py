"""The clients of a desk: who is there, and what each has yet to hear."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from ray_qjm.backends.desk_messages import Client, Told


@dataclass(slots=True)
class _Known:
    client: Client
    seen: float
    number: int = 0
    events: list[tuple[int, Told]] = field(default_factory=list)


class Clients:
    """Tasks by name; from any thread.

    Args:
        clock: Seconds that go on evenly.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._changed = threading.Condition()

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def __len__(self) -> int:
        return len(self._known)

    def get(self, name: str) -> Client | None:
        """The client of a name, if it is there."""
        known = self._known.get(name)
        return None if known is None else known.client

    def hello(self, client: Client) -> None:
        """One is there, perhaps again."""
        with self._changed:
            known = self._known.setdefault(client.name, _Known(client, 0.0))
            known.seen = self._clock()

    def say(self, name: str, told: Told) -> None:
        """Something happened to a job of a client, if it is there."""
        with self._changed:
            known = self._known.get(name)
            if known is not None:
                known.number += 1
                known.events.append((known.number, told))
                self._changed.notify_all()

    def events(self, name: str, after: int, timeout: float) -> tuple[int, list[Told]] | None:
        """What a client was told since event number ``after``; waits for something to tell.

        Returns:
            The number to ask after next time, and what there is; ``None``: no such client has said hello.
        """
        with self._changed:
            known = self._known.get(name)
            if known is None:
                return None
            known.seen = self._clock()
            known.events = [item for item in known.events if item[0] > after]
            if not known.events:
                self._changed.wait_for(lambda: known.events or name not in self._known, timeout)
            if name not in self._known:
                return None
            known.seen = self._clock()
            return known.number, [told for _, told in known.events]

    def leave(self, name: str) -> Client | None:
        """One has nothing more to ask."""
        with self._changed:
            known = self._known.pop(name, None)
            self._changed.notify_all()
        return None if known is None else known.client

    def leave_silent(self, since: float) -> list[Client]:
        """Those of which nothing was heard since a time: they are dead."""
        with self._changed:
            silent = [known.client for known in self._known.values() if known.seen < since]
            for client in silent:
                del self._known[client.name]
        return silent
