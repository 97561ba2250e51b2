"""What a desk tells and writes down of its jobs: the same facts, for clients, their stores and its own journal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import astuple
from typing import Any

from ray_qjm.backends.desk_clients import Clients
from ray_qjm.backends.desk_messages import Told
from ray_qjm.backends.desk_unclaimed import Unclaimed
from ray_qjm.backends.journals import Journal, Writer
from ray_qjm.planning.errands import Beside
from ray_qjm.planning.quota import Cost
from ray_qjm.planning.tickets import FINAL, Ticket

#: The journal's entry of what was spent in all.
SPENT = "#spent"


class Ledger:
    """See the module's docstring; in the desk's thread, in which the writer tells what became of entries.

    Args:
        journal: The desk's own.
        writer: Writes to it and to stores.
        clients: Who is told.
        spent: What the journal says was spent in all.
        unclaimed: Keeps the ends of jobs that nobody asks for any more, and that their store takes to be running.
    """

    def __init__(
        self, journal: Journal, writer: Writer, clients: Clients, spent: Cost, unclaimed: Unclaimed
    ) -> None:
        self._journal = journal
        self._writer = writer
        self._clients = clients
        self._spent = spent
        self._unclaimed = unclaimed
        #: Ends, by tag, that the store of their task hasn't taken yet or couldn't take; and which of these jobs nobody
        #: asks for any more.
        self._ends: dict[str, Mapping[str, Any]] = {}
        self._dropped: set[str] = set()
        self._facts: dict[str, Mapping[str, Any]] = {}
        self._times: dict[str, dict[str, float]] = {}

    def know(self, tag: str, facts: Mapping[str, Any]) -> None:
        """Facts of a job that stand in each of its entries: which circuits, of which task."""
        self._facts[tag] = facts
        self._dropped.discard(tag)

    def submitted(self, tag: str) -> None:
        """The service has just taken a job."""
        self._times.setdefault(tag, {})["submitted"] = time.time()

    def drop(self, tag: str) -> None:
        """Nobody asks for a job any more; as long as its task's store lacks its end, that isn't forgotten.

        The store says that the job is open, and whoever reads that brings it: it would be charged once more.
        """
        self.leave(tag)
        end = self._ends.get(tag)
        if end is None:
            self._writer.put({"tag": tag, "gone": True}, [self._journal])
        else:
            self._dropped.add(tag)
            self._unclaimed.keep(end)

    def leave(self, tag: str) -> None:
        """Whoever may ask for a job isn't here: what the journal says of it stays."""
        self._facts.pop(tag, None)
        self._times.pop(tag, None)

    def spend(self, spent: Cost) -> None:
        """Write what was spent in all, if that has changed.

        Before the end of a job is written: should this process die between the two, it is counted twice rather than
        not at all.
        """
        if spent != self._spent:
            self._spent = spent
            self._writer.put({"tag": SPENT, "cost": spent.plain()}, [self._journal])

    def tell(self, ticket: Ticket) -> None:
        """Say how a job is now."""
        times = self._times.setdefault(ticket.tag, {})
        times |= {name: float(ticket.facts[name]) for name in ("started", "ended") if ticket.facts.get(name)}
        if ticket.state in FINAL:
            times.setdefault("ended", time.time())
            self._write_end(ticket)
        elif ticket.state != "queued" or ticket.attempts or ticket.past:
            self.write(ticket)
        told = Told(
            ticket.tag,
            ticket.state,
            ticket.job_id,
            ticket.attempts,
            ticket.verdict,
            dict(times),
            {key: value for key, value in ticket.facts.items() if key not in ("started", "ended")},
        )
        self._clients.say(ticket.client, told)

    def tell_beside(self, job: Beside) -> None:
        """A job that doesn't count: it was paid all the same, and its task says so, now and when it is resumed."""
        note = self._facts.get(job.tag)
        if note is None or "runs" not in note:
            return  # all that it was beside is forgotten
        times = dict(self._times.get(job.tag, {}))
        if not job.twin:
            self._times.pop(job.tag, None)  # the next attempt has its own
        times |= {name: float(job.facts[name]) for name in ("started", "ended") if job.facts.get(name)}
        times.setdefault("ended", time.time())
        tag, usage_s = f"{job.tag}~{job.job_id or job.attempt}", job.facts.get("usage_s")
        entry = {
            **{
                name: note[name] for name in ("task", "backend", "runs", "attempt", "session") if name in note
            },
            "tag": tag,
            "beside": True,
            "cost": job.cost.plain(),
            "state": job.state,
            "job_id": job.job_id,
            "usage_s": usage_s,
            "reason": str(job.verdict),
            **times,
        }
        self._writer.put(entry, self._stores(job.client))
        facts = {"usage_s": usage_s, "runs": note["runs"]}
        told = Told(tag, job.state, job.job_id, job.attempt, job.verdict, times, facts)
        self._clients.say(job.client, told)

    def entry(self, ticket: Ticket) -> dict[str, Any]:
        """What the journals say of a job: enough to go on with it."""
        return {
            **self._facts.get(ticket.tag, {}),
            "tag": ticket.tag,
            "counter": ticket.counter,
            "client": ticket.client,
            "told": ticket.told,
            "cost": ticket.cost.plain(),
            "retry": vars(ticket.retry),
            "state": ticket.state,
            "job_id": ticket.job_id,
            "past": list(ticket.past),
            "usage_s": ticket.facts.get("usage_s"),
            "reason": None if ticket.verdict is None else str(ticket.verdict),
            "verdict": None if ticket.verdict is None else list(astuple(ticket.verdict)),
            **self._times.get(ticket.tag, {}),
        }

    def write(self, ticket: Ticket, then: Callable[[str | None], None] | None = None, **more: Any) -> None:
        """Write an entry to the desk's journal and to the store of its task, if that has one.

        Args:
            ticket: Of the job.
            then: Is told ``None`` once that is done, or why it can't be.
            more: Further facts, for this entry only.
        """
        self._writer.put(self.entry(ticket) | more, [self._journal, *self._stores(ticket.client)], then)

    def _write_end(self, ticket: Ticket) -> None:
        entry = self.entry(ticket)
        self._writer.put(entry, [self._journal])
        for store in self._stores(ticket.client):
            self._ends[ticket.tag] = entry
            self._writer.put(entry, [store], lambda problem: self._stored(entry, problem))

    def _stored(self, end: Mapping[str, Any], problem: str | None) -> None:
        tag = end["tag"]
        if problem is None and self._ends.get(tag) is end:
            del self._ends[tag]
            if tag in self._dropped:
                self._dropped.remove(tag)
                self._unclaimed.drop(tag)
                self.drop(tag)

    def _stores(self, client: str) -> list[Journal]:
        """The store of a task, if it is here and has one."""
        known = self._clients.get(client)
        return [] if known is None or known.journal is None else [known.journal]
