"""Jobs that are over, and of whose end no client has said that it knows, or their store doesn't know.

Their drivers may yet be started again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ray_qjm.planning.tickets import FINAL, Ticket
from ray_qjm.planning.verdicts import Verdict

#: Results of a task with a store are kept for so long for a driver that died: it may be started again.
KEEP_S = 86_400.0


@dataclass(slots=True)
class _Kept:
    """A job with a result that can be fetched in this process."""

    ticket: Ticket
    until: float


class Unclaimed:
    """See the module's docstring; in the desk's thread.

    Args:
        before: What the journal knows, by tag; what isn't over is left alone.
    """

    def __init__(self, before: Mapping[str, Mapping[str, Any]]) -> None:
        self._entries = {tag: entry for tag, entry in before.items() if entry.get("state") in FINAL}
        self._kept: dict[str, _Kept] = {}

    def __contains__(self, tag: str) -> bool:
        """Whether a job is one of these that may have cost."""
        entry = self._entries.get(tag)
        return entry is not None and (entry["job_id"] is not None or entry["state"] == "lost")

    @property
    def results(self) -> int:
        """How many results are kept."""
        return len(self._kept)

    def leave(self, ticket: Ticket, entry: Mapping[str, Any], now: float) -> bool:
        """A job's driver is gone.

        Args:
            ticket: Of the job, which is over.
            entry: What the journals say of it.
            now: When.

        Returns:
            Whether there is a result to keep at its adapter.
        """
        self._entries[ticket.tag] = entry
        if ticket.state == "done":
            self._kept[ticket.tag] = _Kept(ticket, now + KEEP_S)
        return ticket.state == "done"

    def keep(self, entry: Mapping[str, Any]) -> None:
        """How a job ended, whose client knows it and needs no result of it any more.

        Args:
            entry: What the desk's journal says of it.
        """
        self._entries[entry["tag"]] = entry

    def claim(self, ticket: Ticket) -> bool:
        """A driver comes for a job.

        Returns:
            Whether it is over, and may have cost: the ticket says how it ended. A job that was never sent may be now.
        """
        known = ticket.tag in self
        self._kept.pop(ticket.tag, None)
        entry = self._entries.pop(ticket.tag, None)
        if entry is None or not known:
            return False
        ticket.state, ticket.job_id = entry["state"], entry["job_id"]
        ticket.verdict = None if entry["verdict"] is None else Verdict(*entry["verdict"])
        ticket.facts["usage_s"] = entry["usage_s"]
        return True

    def drop(self, tag: str) -> Ticket | None:
        """Nobody will ask for a job any more; its ticket, if its result was kept."""
        self._entries.pop(tag, None)
        kept = self._kept.pop(tag, None)
        return None if kept is None else kept.ticket

    def expired(self, now: float) -> Iterator[Ticket]:
        """Those for whose results nobody has come in time: kept no more once they are given, one by one.

        Should the caller fail at one, the rest are given the next time.
        """
        for tag in [tag for tag, kept in self._kept.items() if kept.until <= now]:
            yield self._kept.pop(tag).ticket
