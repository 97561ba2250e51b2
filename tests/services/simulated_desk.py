"""The desk of ``tests.services.simulation``: a book and what ``backends.desk`` does around it, without threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray_qjm.backends.codes import judge
from ray_qjm.backends.desk import CLIENT_S
from ray_qjm.backends.desk_ledger import SPENT
from ray_qjm.options import RetryPolicy
from ray_qjm.planning.book import Book
from ray_qjm.planning.errands import Errand, Intend, Look, Poll, Revoke, Seen, Send
from ray_qjm.planning.orders import Run
from ray_qjm.planning.quota import Cost
from ray_qjm.planning.tickets import AT_SERVICE, FINAL, NOBODY, Ticket
from ray_qjm.planning.verdicts import Verdict
from tests.services.scripted import Part

if TYPE_CHECKING:
    from tests.services.simulation import Simulation


@dataclass(frozen=True)
class Wish:
    """A job that a driver wants; ``sendable``: it has its circuits."""

    tag: str
    counter: str
    client: str
    cost: Cost
    retry: RetryPolicy
    runs: tuple[Run, ...]
    payload_bytes: int = 0
    timeout_s: float | None = None
    sendable: bool = True
    job_id: str | None = None
    past: tuple[str, ...] = ()


class SimulatedDesk:
    """See the module's docstring.

    Args:
        world: Where it is.
        before: What the journal knows.
    """

    def __init__(self, world: Simulation, before: Mapping[str, Mapping[str, Any]]) -> None:
        self.alive = True
        self._world = world
        self._wishes: dict[str, Wish] = {}
        self._runs: dict[str, tuple[Run, ...]] = {}
        self._wake = 0
        self.book = Book(world.quota, dict.fromkeys(world.services, world.polls), jitter=world.random.random)
        self.book.purse.spent = Cost(*before.get(SPENT, {}).get("cost", ()))
        self._spent = self.book.purse.spent
        self._over = {tag: entry for tag, entry in before.items() if entry.get("state") in FINAL}
        if before:
            self.book.meter.spend_all(world.now)
        self.orphans(before)

    # For drivers.

    def orphans(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Jobs that an earlier desk has sent, or was about to send."""
        for tag, entry in entries.items():
            if tag == SPENT or entry["state"] in FINAL:
                continue
            ticket = Ticket(tag, entry["counter"], entry["client"], entry["cost"], entry["retry"])
            ticket.job_id, ticket.past = entry["job_id"], entry["past"]
            if "runs" in entry:
                self._runs[tag] = entry["runs"]
            self.book.restore(ticket, self._world.now)
        self._go_on()

    def enqueue(self, wish: Wish) -> None:
        """A job to be submitted, or to be watched."""
        self._wishes[wish.tag] = wish
        self._runs[wish.tag] = wish.runs
        known = self.book.tickets.get(wish.tag)
        over = self._over.pop(wish.tag, None)
        ticket = Ticket(wish.tag, wish.counter, wish.client, wish.cost, wish.retry, wish.timeout_s)
        ticket.job_id, ticket.past = wish.job_id, wish.past
        if known is not None:
            self.book.hand_over(wish.tag, wish.client)
            known.resend, known.timeout_s = wish.sendable, wish.timeout_s
        if known is None and over is not None and (over["job_id"] is not None or over["state"] == "lost"):
            ticket.state, ticket.job_id, ticket.verdict = over["state"], over["job_id"], over["verdict"]
            self.book.recall(ticket)
        elif known is None and (not wish.sendable or wish.job_id is not None):
            self.book.restore(ticket, self._world.now)
            ticket.resend = wish.sendable
            self._note(ticket)
        else:
            self.book.enqueue(ticket)
        self._go_on()

    def cancel(self, tag: str, verdict: Verdict) -> None:
        """A job isn't wanted any more."""
        self.book.cancel(tag, verdict, self._world.now)
        self._go_on()

    def forget(self, tag: str) -> None:
        """A driver has all that it wanted of a job."""
        self.book.forget(tag)
        if tag not in self.book.tickets:
            self._wishes.pop(tag, None)
            self._runs.pop(tag, None)
            self._write({"tag": tag, "gone": True}, None)

    def gone(self, session: str) -> None:
        """A driver was silent for too long."""
        verdict = Verdict("again", "DriverGone", "the driver of its task is gone")
        for ticket in list(self.book.tickets.values()):
            if ticket.client == session and ticket.state == "queued":
                self.book.cancel(ticket.tag, verdict, self._world.now)
        self._go_on()
        for ticket in list(self.book.tickets.values()):
            if ticket.client == session and ticket.state in FINAL:
                self._over[ticket.tag] = self._entry(ticket)
                self.forget(ticket.tag)

    # Errands.

    def _go_on(self) -> None:
        world = self._world
        self.book.step(world.now, may_send=True)
        while actions := self.book.actions():
            for errand in actions:
                self._perform(errand)
        there = {tag for tag, ticket in self.book.tickets.items() if ticket.state in AT_SERVICE}
        assert {ticket.tag for ticket in self.book.at_service()} == there
        self._wake += 1
        number, at = self._wake, self.book.wake_at(world.now)
        if at < math.inf:
            world.after(
                max(0.0, at - world.now),
                lambda: self._go_on() if self.alive and number == self._wake else None,
            )

    def _tell_book(self, seconds: float, call: Callable[[float], None]) -> None:
        """The book is told something after some seconds, if the desk is alive then."""

        def told() -> None:
            if self.alive:
                call(self._world.now)
                self._go_on()

        self._world.after(seconds, told)

    def _perform(self, errand: Errand) -> None:
        book = self.book
        match errand:
            case Intend(tag):
                wish, ticket = self._wishes.get(tag), book.tickets[tag]
                if wish is None or not wish.sendable:
                    verdict = Verdict("again", "JobAbsentError", "it never reached the service")
                    self._tell_book(0.0, lambda now: book.held(tag, now, verdict))
                else:
                    self._note(ticket, lambda: self._tell_book(0.0, lambda now: book.intended(tag, now)))
            case Send(tag):
                self._send(book.tickets[tag], self._wishes[tag])
            case Look(tag):
                service = self._world.services[book.tickets[tag].counter]
                self._ask(
                    lambda: service.find(tag.partition("~")[0]),
                    lambda found, now: (
                        book.look_failed(tag, now) if found is None else book.found(tag, found, now)
                    ),
                )
            case Poll(counter, tags):
                self._poll(counter, {tag: book.tickets[tag].job_id or "" for tag in tags})
            case Revoke(tag, job_id):
                service = self._world.services[book.tickets[tag].counter]

                def revoke() -> bool:
                    service.cancel(job_id)
                    return True

                self._ask(revoke, lambda ok, now: book.revoked(tag, ok is not None, now))
            case _ if errand.tag in book.tickets:
                self._tell(book.tickets[errand.tag])

    def _ask(self, call: Callable[[], Any], then: Callable[[Any, float], None]) -> None:
        """A request that changes nothing: it arrives after half of its time; ``None``: it failed."""
        there = self._world.latency() / 2

        def arrives() -> None:
            try:
                answer = call()
            except Exception:
                answer = None
            self._tell_book(self._world.latency() / 2, lambda now: then(answer, now))

        self._world.after(there, arrives)

    def _poll(self, counter: str, jobs: Mapping[str, str]) -> None:
        def then(said: Mapping[str, Seen] | None, now: float) -> None:
            if said is None:
                self.book.polled(counter, None, now)
                return
            known = {tag: ticket.job_id for tag in jobs if (ticket := self.book.tickets.get(tag)) is not None}
            mine = {tag: said.get(job, Seen(None)) for tag, job in jobs.items() if known.get(tag) == job}
            self.book.polled(counter, mine, now)

        self._ask(lambda: self._world.services[counter].status(list(jobs.values())), then)

    def _send(self, ticket: Ticket, wish: Wish) -> None:
        world, tag, sends = self._world, ticket.tag, ticket.sends
        epoch = int(ticket.client.partition("#")[2])
        if world.task(ticket.client).epoch != epoch:
            verdict = Verdict("again", "DriverGone", "its task goes on in another process")
            self._tell_book(0.0, lambda now: self.book.held(tag, now, verdict))
            return

        def lands() -> None:  # whether the desk lives or not
            parts = [Part(range(run.start, run.stop), run.shots) for run in wish.runs]
            answer, takes_s = world.services[wish.counter].submit(tag, parts, wish.payload_bytes)
            takes_s += world.latency() / 2

            def reply(now: float) -> None:
                if isinstance(answer, str):
                    self.book.accepted(tag, answer, now)
                else:
                    self.book.rejected(tag, judge(answer, "unknown"), now, sends=sends)

            if takes_s > wish.retry.call_s:
                late = Verdict("unknown", "TimeoutError", "no answer")
                self._tell_book(
                    wish.retry.call_s, lambda now: self.book.rejected(tag, late, now, sends=sends)
                )
            self._tell_book(takes_s, reply)

        world.after(world.latency() / 2, lands)

    # What is told and written.

    def _tell(self, ticket: Ticket) -> None:
        spent = self.book.purse.spent
        if spent != self._spent:
            self._spent = spent
            self._write({"tag": SPENT, "cost": (spent.jobs, spent.executions, spent.qpu_seconds)}, None)
        if ticket.state != "queued" or ticket.attempts or ticket.past:
            self._note(ticket)
        if ticket.client == NOBODY:
            if ticket.state in FINAL:
                self.forget(ticket.tag)
            return
        driver = self._world.drivers[self._world.task(ticket.client).name]

        def tell(state: str = ticket.state, job_id: str | None = ticket.job_id) -> None:
            if self.alive and driver.session == ticket.client:
                driver.told(ticket.tag, state, job_id, ticket.verdict)

        self._world.after(self._world.latency() / 2, tell)
        if ticket.state in FINAL and driver.session != ticket.client:
            self._world.on_desk(CLIENT_S, lambda desk: desk.gone(ticket.client))

    def _note(self, ticket: Ticket, then: Callable[[], object] | None = None) -> None:
        store = None if ticket.client == NOBODY else self._world.task(ticket.client).journal
        self._write(self._entry(ticket), store, then)

    def _entry(self, ticket: Ticket) -> dict[str, Any]:
        names = ("tag", "counter", "client", "cost", "retry", "state", "job_id", "past", "verdict")
        runs = self._runs.get(ticket.tag)
        return {name: getattr(ticket, name) for name in names} | ({} if runs is None else {"runs": runs})

    def _write(
        self,
        entry: dict[str, Any],
        store: dict[str, dict[str, Any]] | None,
        then: Callable[[], object] | None = None,
    ) -> None:
        """Into the desk's journal, then into the store's; a crash may come between."""
        world = self._world

        def put(journal: dict[str, dict[str, Any]], then: Callable[[], object]) -> None:
            if not self.alive:
                return
            if entry.get("gone"):
                journal.pop(entry["tag"], None)
            else:
                journal.setdefault(entry["tag"], {}).update(entry)
            then()

        def second() -> None:
            if store is None:
                if then is not None:
                    then()
                return
            world.after(world.delays.write_s, lambda: put(store, then or (lambda: None)))

        world.after(world.delays.write_s, lambda: put(world.journal, second))
