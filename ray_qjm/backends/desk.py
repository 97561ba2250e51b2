"""The desk of an account: submits its jobs, one process for all tasks and drivers. Plain Python, no Ray.

``planning.book`` decides; ``Errands`` do what it wants. One thread talks to the book, through one queue of calls;
provider's clients are called from others, so that one that hangs holds up nothing else.
"""

from __future__ import annotations

import logging
import queue
import random
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ray_qjm.backends.base import Adapter, FetchFailed
from ray_qjm.backends.calls import Calls
from ray_qjm.backends.desk_adapters import Adapters
from ray_qjm.backends.desk_clients import Clients
from ray_qjm.backends.desk_errands import Errands, Fence, NoFence
from ray_qjm.backends.desk_ledger import SPENT, Ledger
from ray_qjm.backends.desk_messages import Client, Request, Told
from ray_qjm.backends.desk_orphans import Orphans
from ray_qjm.backends.desk_unclaimed import Unclaimed
from ray_qjm.backends.journals import Journal, Writer
from ray_qjm.options import Quota
from ray_qjm.planning.book import Book
from ray_qjm.planning.errands import Beside, Changed, Errand
from ray_qjm.planning.quota import Cost
from ray_qjm.planning.tickets import FINAL, NOBODY, Ticket
from ray_qjm.planning.verdicts import Verdict

#: A driver that asked for nothing in so many seconds is dead: nothing more is submitted for it.
CLIENT_S = 60.0
#: The thread looks around so often, whatever happens.
LOOK_AROUND_S = 5.0

_log = logging.getLogger(__name__)


class Desk:
    """See the module's docstring.

    Args:
        quota: Of the account.
        journal: The desk's own, which outlives its process.
        fence: Whether this process may submit.
        before: What the journal knows: its entries by tag.
        clock: Seconds that go on evenly.
        client_s: See ``CLIENT_S``.
        look_around_s: See ``LOOK_AROUND_S``.
        watch: Is told ``state`` so often, in the desk's thread.
    """

    def __init__(
        self,
        quota: Quota,
        journal: Journal,
        fence: Fence | None = None,
        before: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        client_s: float = CLIENT_S,
        look_around_s: float = LOOK_AROUND_S,
        watch: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self._watch = watch
        self._client_s = client_s
        self._look_around_s = look_around_s
        #: Another after each start: numbers of events begin anew then.
        # The time leads it, so that what a later one writes is read after what an earlier one wrote.
        self.incarnation = f"{time.time_ns():020}-{secrets.token_hex(4)}"
        self._clock = clock
        self._began = clock()
        self._fence = NoFence() if fence is None else fence
        self._book = Book(quota, {}, jitter=random.random)
        self._requests: dict[str, Request] = {}
        #: Jobs that aren't wanted any more, and aren't here yet: messages may overtake each other.
        self._unwanted: dict[str, Verdict] = {}
        known = dict(before or {})
        self._book.purse.spent = Cost(*known.pop(SPENT, {}).get("cost", ()))
        self._unclaimed = Unclaimed(known)
        #: Clients whose jobs' results nobody can read once they are gone.
        self._storeless: set[str] = set()
        self._queue: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._adapters = Adapters()
        self._clients = Clients(clock)
        self._calls = Calls(clock, self._queue.put)
        self._writer = Writer(self._queue.put)
        self._ledger = Ledger(journal, self._writer, self._clients, self._book.purse.spent, self._unclaimed)
        self._errands = Errands(
            self._book,
            adapters=self._adapters,
            requests=self._requests,
            clients=self._clients,
            ledger=self._ledger,
            fence=self._fence,
            calls=self._calls,
            clock=clock,
            tell=self._queue.put,
        )
        self.counts = self._errands.counts
        self._orphans = Orphans(self._book, self._ledger, clock, client_s)
        self._orphans.take(known)
        if before:
            self._book.meter.spend_all(clock())
        self._thread = threading.Thread(target=self._run, name="ray_qjm desk", daemon=True)
        self._thread.start()

    # For clients; from any thread.

    @property
    def quota(self) -> Quota:
        """Of the account."""
        return self._book.meter.quota

    def open(self, counter: str, make: Callable[[], Adapter], polls: tuple[float, float]) -> Adapter:
        """Make sure that a backend is here.

        Args:
            counter: What the desk calls it.
            make: Connects to it.
            polls: The least and the most seconds between two polls.

        Raises:
            Exception: Whatever connecting raises.
        """
        return self._adapters.open(
            counter, make, lambda: self._queue.put(lambda: self._opened(counter, polls))
        )

    def hello(self, client: Client) -> None:
        """A client is there, perhaps again."""
        self._clients.hello(client)
        self._queue.put(lambda: self._joined(client))

    def enqueue(self, client: str, requests: Sequence[Request]) -> None:
        """Jobs to be submitted; those that are known are told of again.

        A client that hasn't said hello, to this desk and not to one before it, isn't heard: it will bring them again.
        """
        self._queue.put(lambda: self._enqueue(client, requests))

    def cancel(self, tags: Sequence[str], verdict: Verdict) -> None:
        """Jobs that aren't wanted any more."""
        self._queue.put(lambda: self._cancel(tags, verdict))

    def withdraw(self, tags: Sequence[str], verdict: Verdict) -> None:
        """Jobs that shall not be submitted, if they haven't been."""
        self._queue.put(lambda: self._cancel([tag for tag in tags if self._waits(tag)], verdict))

    def forget(self, tags: Sequence[str]) -> None:
        """Jobs of which the client has all that it wanted: rows are stored, or reasons."""
        self._queue.put(lambda: self._forget(tags))

    def events(self, client: str, after: int, timeout: float) -> tuple[int, list[Told]] | None:
        """What became of a client's jobs since event number ``after``: see ``Clients.events``."""
        return self._clients.events(client, after, timeout)

    def fetch(self, tag: str) -> Any:
        """The result of a job that is done, or ``FetchFailed``; asks the service each time."""
        ticket = self._book.tickets.get(tag)
        if ticket is None or ticket.counter not in self._adapters:
            return FetchFailed("the desk doesn't know the job yet", final=False)
        return self._adapters.fetch(ticket.counter, ticket.job_id or "", ticket.retry.call_s)

    def bye(self, client: str) -> None:
        """A client has nothing more to ask."""
        known = self._clients.leave(client)
        if known is not None:
            self._queue.put(lambda: self._left([known], self._clock()))
        if not self._clients:
            self._adapters.rest()

    def take_quota(self, quota: Quota) -> Quota:
        """Change the quota if nobody uses the present one; return the one that holds."""
        if quota != self.quota and self._unused():
            self._book.meter.change(quota)
            self._book.purse.budget = quota.budget
        return self.quota

    def idle(self) -> bool:
        """Whether there is nobody to work for, nothing under way, and nothing that somebody may come for."""
        return self._unused() and not self._unclaimed.results

    def _unused(self) -> bool:
        return not self._clients and not self._book.tickets and not self._orphans

    def state(self) -> dict[str, Any]:
        """How many jobs are in which state, the quota, what was spent and is left, and a ``Tally``: for people."""
        states: dict[str, int] = {}
        backends = list(self._book.counters)  # at once: the desk's thread may add one
        waiting = dict.fromkeys(backends, 0)
        for ticket in list(self._book.tickets.values()):
            states[ticket.state] = states.get(ticket.state, 0) + 1
            waiting[ticket.counter] = waiting.get(ticket.counter, 0) + (ticket.state == "queued")
        used = self._book.purse.used
        return {
            "jobs": states,
            "pending": self._book.meter.pending,
            "max_pending": self.quota.max_pending,
            "jobs_per_minute": self.quota.jobs_per_minute,
            "budget": None if self.quota.budget is None else dict(vars(self.quota.budget)),
            "backends": sorted(backends),
            "waiting": waiting,
            "spent": {"jobs": used.jobs, "executions": used.executions, "qpu_seconds": used.qpu_seconds},
            "left": self._book.purse.left().limited(),
            **self._book.tally.plain(),
            **self.counts,
        }

    def close(self) -> None:
        """End the threads; jobs at the service stay there."""
        self._queue.put(None)
        self._thread.join(30)
        self._writer.close()
        self._adapters.close()

    # The thread.

    def _run(self) -> None:
        around_at = self._clock() + self._look_around_s
        while True:
            try:
                wake = min(self._book.wake_at(self._clock()), around_at, self._calls.next_due)
                call = self._queue.get(timeout=max(0.0, wake - self._clock()))
            except queue.Empty:
                call = _nothing
            if call is None:
                return
            try:
                call()
                now = self._clock()
                if now >= around_at:
                    around_at = now + self._look_around_s
                    self._look_around(now)
                self._calls.check(now)
                self._book.step(now, may_send=self._fence.holds())
            except Exception:  # a desk that stops would leave paid jobs alone
                _log.exception("ray_qjm desk")
            for errand in self._book.actions():
                try:
                    self._perform(errand)
                except Exception:  # the others are given once only
                    _log.exception("ray_qjm desk")

    def _opened(self, counter: str, polls: tuple[float, float]) -> None:
        self._book.add_counter(counter, polls)
        self._orphans.opened(counter)

    def _joined(self, client: Client) -> None:
        # What its store knows and the desk's own journal doesn't: that lay on a node which is gone. Of a job's end the
        # store may not have heard: it was full, or out of reach.
        self._orphans.take({tag: entry for tag, entry in client.open_.items() if tag not in self._unclaimed})

    def _enqueue(self, client: str, requests: Sequence[Request]) -> None:
        if client not in self._clients:
            return
        for request in requests:
            if request.counter not in self._book.counters:
                # This process has just taken the place of another, and the driver hasn't heard yet: once it has, it
                # brings first its backends, then all its jobs again.
                continue
            known, had = self._book.tickets.get(request.tag), self._requests.get(request.tag)
            if request.make is None and known is not None and had is not None and known.client == client:
                request = replace(request, make=had.make)
            self._requests[request.tag] = request
            self._ledger.know(request.tag, request.note)
            orphan = self._orphans.claim(request.tag)
            if known is not None:
                self._book.hand_over(request.tag, client)
                known.resend = request.make is not None
                known.timeout_s = request.timeout_s
            ticket = Ticket(
                request.tag,
                request.counter,
                client,
                request.cost,
                request.retry,
                request.timeout_s,
                job_id=request.job_id,
                past=tuple(request.past),
            )
            ended = self._unclaimed.claim(ticket)
            if known is None and ended:
                self._book.recall(ticket)
            elif known is None and (request.make is None or request.job_id is not None or orphan):
                self._book.restore(ticket, self._clock())
                ticket.resend = request.make is not None
                self._ledger.write(ticket)
            else:
                self._book.enqueue(ticket)
            unwanted = self._unwanted.pop(request.tag, None)
            if unwanted is not None:
                self._book.cancel(request.tag, unwanted, self._clock())

    def _cancel(self, tags: Sequence[str], verdict: Verdict) -> None:
        for tag in tags:
            if tag in self._book.tickets:
                self._book.cancel(tag, verdict, self._clock())
            else:
                self._unwanted[tag] = verdict

    def _waits(self, tag: str) -> bool:
        ticket = self._book.tickets.get(tag)
        return ticket is None or ticket.state == "queued"

    def _forget(self, tags: Sequence[str]) -> None:
        for tag in tags:
            self._unwanted.pop(tag, None)
            ticket = self._book.tickets.get(tag)
            self._book.forget(tag)
            if tag not in self._book.tickets:
                for over in (ticket, self._unclaimed.drop(tag)):
                    if over is not None:
                        self._forget_at_adapter(over)
                self._requests.pop(tag, None)
                self._ledger.drop(tag)

    def _forget_at_adapter(self, ticket: Ticket) -> None:
        # A twin has a ticket of its own for as long as it lives.
        past = (job_id for job_id in ticket.past if f"{ticket.tag}~{job_id}" not in self._book.tickets)
        for job_id in (ticket.job_id, *past):
            if job_id is not None:
                self._adapters[ticket.counter].forget(job_id)

    def _look_around(self, now: float) -> None:
        """Drivers that have died: what they had not submitted won't be; nobody could read what has no store."""
        dead = self._clients.leave_silent(now - self._client_s)
        self._left(dead, now)
        if dead and not self._clients:
            threading.Thread(target=self._adapters.rest, name="ray_qjm rest", daemon=True).start()
        for ticket in list(self._book.tickets.values()):
            # A client may take a while to hear that there is a new desk.
            if (
                ticket.state not in FINAL
                or ticket.client in self._clients
                or now - self._began <= self._client_s
            ):
                continue
            never = ticket.job_id is None and ticket.state != "lost"
            if ticket.client in self._storeless or never:
                self._forget([ticket.tag])
                continue
            # Its driver may be started again: it isn't charged twice, and may ask for a result that was paid.
            if not self._unclaimed.leave(ticket, self._ledger.entry(ticket), now):
                self._forget_at_adapter(ticket)
            self._book.forget(ticket.tag)
            self._requests.pop(ticket.tag, None)
            self._ledger.leave(ticket.tag)
        for ticket in self._unclaimed.expired(now):
            self._forget_at_adapter(ticket)
        self._orphans.look_around(now)
        if self._watch is not None:
            self._watch(self.state())

    def _left(self, clients: Sequence[Client], now: float) -> None:
        """Nobody will submit anything for them any more, or read what has no store."""
        # Should one have a successor, or come back, what wasn't submitted is packed again.
        verdict = Verdict("again", "DriverGone", "the driver of its task is gone")
        self._storeless |= {client.name for client in clients if client.journal is None}
        for client in clients:
            for ticket in list(self._book.tickets.values()):
                if ticket.client == client.name and (ticket.state == "queued" or client.journal is None):
                    self._book.cancel(ticket.tag, verdict, now)

    # Errands.

    def _perform(self, errand: Errand) -> None:
        match errand:
            case Changed():
                if errand.tag in self._book.tickets:
                    self._tell(self._book.tickets[errand.tag])
            case Beside():
                self._ledger.tell_beside(errand)
            case _:
                self._errands.run(errand)

    def _tell(self, ticket: Ticket) -> None:
        self._ledger.spend(self._book.purse.spent)
        self._ledger.tell(ticket)
        if ticket.client == NOBODY and ticket.state in FINAL:
            self._forget([ticket.tag])


def _nothing() -> None:
    """The time has come."""
