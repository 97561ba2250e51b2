"""Jobs of a desk's earlier processes: as soon as somebody opens their backend they go on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from ray_qjm.backends.desk_ledger import Ledger
from ray_qjm.options import RetryPolicy
from ray_qjm.planning.book import Book
from ray_qjm.planning.quota import WINDOW_S, Cost
from ray_qjm.planning.tickets import FINAL, Ticket

#: A job of an earlier process whose backend nobody opens any more has its slot for so long.
ORPHAN_S = 3600.0

_log = logging.getLogger(__name__)


class Orphans:
    """Those whose backend isn't open yet; in the desk's thread.

    Args:
        book: Restores them.
        ledger: Knows their facts from then on.
        clock: Seconds that go on evenly; by it the desk begins now.
        client_s: A driver takes so long to hear that there is a new desk, and to open its backends there.
    """

    def __init__(self, book: Book, ledger: Ledger, clock: Callable[[], float], client_s: float) -> None:
        self._book = book
        self._ledger = ledger
        self._clock = clock
        self._client_s = client_s
        self._began = clock()
        #: What the journals say of them, and since when that is known.
        self._entries: dict[str, tuple[Mapping[str, Any], float]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Jobs that an earlier process of this desk has sent, or was about to send.

        Args:
            entries: What a journal says of them, by tag; those that are over are left alone.
        """
        now = self._clock()
        for tag, entry in entries.items():
            if entry.get("state") in FINAL or tag in self._book.tickets:
                continue
            cost, retry = Cost(*entry["cost"]), RetryPolicy(**entry["retry"])
            if entry["counter"] not in self._book.counters:
                self._entries.setdefault(tag, (entry, now))
                self._book.hold(tag, cost)
                continue
            self._entries.pop(tag, None)
            ticket = Ticket(tag, entry["counter"], entry["client"], cost, retry, job_id=entry.get("job_id"))
            ticket.past = tuple(entry.get("past") or ())
            ticket.told = entry.get("told") or ""
            self._ledger.know(tag, entry)
            self._book.restore(ticket, now)
            if now - self._began < WINDOW_S:
                self._book.meter.spend_all(now)  # an earlier desk may have sent it just now

    def opened(self, counter: str) -> None:
        """A backend is here: its jobs can be asked about."""
        self.take({tag: entry for tag, (entry, _) in self._entries.items() if entry["counter"] == counter})

    def claim(self, tag: str) -> bool:
        """A driver comes for a job and says itself what is known of it; whether it was one of these."""
        return self._entries.pop(tag, None) is not None

    def look_around(self, now: float) -> None:
        """Those whose backend nobody has opened: others are asked in its place; in the end they are given up."""
        for tag, (entry, since) in list(self._entries.items()):
            if now - since <= self._client_s:
                continue
            # The same backend with other options can be asked about them as well.
            own = entry["counter"].rpartition("-")[0]
            alike = next((name for name in self._book.counters if name.rpartition("-")[0] == own), None)
            if alike is not None:
                self.take({tag: {**entry, "counter": alike}})
            elif now - since > ORPHAN_S:
                _log.warning("ray_qjm: nobody has asked about job %s (%s)", entry.get("job_id"), tag)
                del self._entries[tag]
                self._book.let_go(tag)
