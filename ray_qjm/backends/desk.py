"""The desk of an account: submits its jobs, one process for all tasks and drivers. Plain Python, no Ray.

``planning.book`` decides; here its errands are run. One thread talks to the book, through one queue of calls;
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
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ray_qjm.backends.base import Adapter, FetchFailed, JobGoneError
from ray_qjm.backends.calls import Calls
from ray_qjm.backends.codes import words
from ray_qjm.backends.desk_clients import Clients
from ray_qjm.backends.desk_ledger import SPENT, Ledger
from ray_qjm.backends.desk_messages import Client, Request, Told
from ray_qjm.backends.journals import Journal, Writer
from ray_qjm.errors import BackendResultError, JobAbsentError, StoreUnavailableError
from ray_qjm.options import Quota, RetryPolicy
from ray_qjm.planning.book import Book
from ray_qjm.planning.errands import Beside, Changed, Errand, Intend, Look, Poll, Revoke, Seen, Send
from ray_qjm.planning.quota import WINDOW_S, Cost
from ray_qjm.planning.tickets import FINAL, NOBODY, Ticket
from ray_qjm.planning.verdicts import Verdict

#: A driver that asked for nothing in so many seconds is dead: nothing more is submitted for it.
CLIENT_S = 60.0
#: The thread looks around so often, whatever happens.
LOOK_AROUND_S = 5.0
#: Results of a task with a store are kept for so long for a driver that died: it may be started again.
KEEP_S = 86_400.0
#: A job of an earlier process whose backend nobody opens any more has its slot for so long.
ORPHAN_S = 3600.0
#: Deadline of a call that asks, where no ticket says another.
ASK_S = 120.0
#: Why a job of an earlier session isn't submitted again here: its circuits are somewhere else by now.
ABSENT = JobAbsentError.__name__

_log = logging.getLogger(__name__)


class Fence(Protocol):
    """Whether this process is still the one that may submit."""

    def holds(self) -> bool:
        """For at least as long as one submission takes."""


class NoFence:
    """For a desk that can't have a twin."""

    def holds(self) -> bool:
        """Always."""
        return True


@dataclass(slots=True)
class _Kept:
    """A job that is over, and whose driver is gone."""

    ticket: Ticket
    until: float


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
        self.counts = {"sent": 0, "polls": 0, "looks": 0}
        self._clock = clock
        self._fence = NoFence() if fence is None else fence
        self._adapters: dict[str, Adapter] = {}
        self._opening = threading.Lock()
        self._opening_one: dict[str, threading.Lock] = {}
        self._open: set[str] = set()
        self._began = clock()
        self._book = Book(quota, {}, jitter=random.random)
        self._requests: dict[str, Request] = {}
        #: Jobs that aren't wanted any more, and aren't here yet: messages may overtake each other.
        self._unwanted: dict[str, Verdict] = {}
        self._clients = Clients(clock)
        #: What the journals say of jobs whose backend isn't open yet, and since when that is known.
        self._orphans: dict[str, tuple[Mapping[str, Any], float]] = {}
        known = dict(before or {})
        self._book.purse.spent = Cost(*known.pop(SPENT, {}).get("cost", ()))
        #: Jobs that are over, and of which no client has said that it knows: it may yet ask for them.
        self._over = {tag: entry for tag, entry in known.items() if entry.get("state") in FINAL}
        self._kept: dict[str, _Kept] = {}
        #: Clients whose jobs' results nobody can read once they are gone.
        self._storeless: set[str] = set()
        self._take_orphans(known)
        if before:
            self._book.meter.spend_all(clock())
        self._queue: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._calls = Calls(clock, self._queue.put)
        self._writer = Writer(self._queue.put)
        self._ledger = Ledger(journal, self._writer, self._clients, self._book.purse.spent)
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
        with self._opening:
            mine = self._opening_one.setdefault(counter, threading.Lock())
        with mine:  # one that hangs keeps nobody from the others
            if counter not in self._adapters:
                self._adapters[counter] = make()
                self._queue.put(lambda: self._opened(counter, polls))
            return self._adapters[counter]

    def hello(self, client: Client) -> None:
        """A client is there, perhaps again."""
        self._clients.hello(client)
        # What its store knows and the desk's own journal doesn't: that lay on a node which is gone.
        self._queue.put(lambda: self._take_orphans(client.open_))

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
        adapter, job_id = self._adapters[ticket.counter], ticket.job_id or ""
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def call() -> None:
            try:
                answers.put(adapter.fetch(job_id))
            except BaseException as error:
                reason = f"{type(error).__name__}: {words(error)}"
                unreadable = isinstance(error, AttributeError | BackendResultError | TypeError)
                if unreadable:  # it is there, and is what it is
                    reason += "; asking again gives the same"
                answers.put(FetchFailed(reason, unreadable or isinstance(error, JobGoneError)))

        # A client that hangs is left alone, as in ``Calls``.
        threading.Thread(target=call, name="ray_qjm fetch", daemon=True).start()
        try:
            return answers.get(timeout=ticket.retry.call_s)
        except queue.Empty:
            return FetchFailed(f"no answer after {ticket.retry.call_s:g} s", final=False)

    def bye(self, client: str) -> None:
        """A client has nothing more to ask."""
        known = self._clients.leave(client)
        if known is not None:
            self._queue.put(lambda: self._left([known], self._clock()))
        if not self._clients:
            self._rest()

    def _rest(self) -> None:
        """Nobody uses the backends for now: what is billed by the clock ends."""
        for adapter in list(self._adapters.values()):
            rest = getattr(adapter, "rest", None)
            if rest is None:
                continue
            try:
                rest()
            except Exception as error:
                _log.warning("ray_qjm: %s can't be closed: %s", type(adapter).__name__, words(error))

    def take_quota(self, quota: Quota) -> Quota:
        """Change the quota if nobody uses the present one; return the one that holds."""
        if quota != self.quota and self._unused():
            self._book.meter.change(quota)
            self._book.purse.budget = quota.budget
        return self.quota

    def idle(self) -> bool:
        """Whether there is nobody to work for, nothing under way, and nothing that somebody may come for."""
        return self._unused() and not self._kept

    def _unused(self) -> bool:
        return not self._clients and not self._book.tickets and not self._orphans

    def state(self) -> dict[str, Any]:
        """How many jobs are in which state, the quota, what was spent and is left, and a ``Tally``: for people."""
        states: dict[str, int] = {}
        waiting = dict.fromkeys(self._open.copy(), 0)
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
            "backends": sorted(tuple(self._open)),
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
        for adapter in self._adapters.values():
            close = getattr(adapter, "close", None)
            if close is not None:
                close()

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
        self._open.add(counter)
        self._take_orphans(
            {tag: entry for tag, (entry, _) in self._orphans.items() if entry["counter"] == counter}
        )

    def _take_orphans(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Jobs that an earlier process of this desk has sent, or was about to send."""
        now = self._clock()
        for tag, entry in entries.items():
            if entry.get("state") in FINAL or tag in self._book.tickets:
                continue
            cost, retry = Cost(*entry["cost"]), RetryPolicy(**entry["retry"])
            if entry["counter"] not in self._open:
                self._orphans.setdefault(tag, (entry, now))
                self._book.hold(tag, cost)
                continue
            self._orphans.pop(tag, None)
            ticket = Ticket(tag, entry["counter"], entry["client"], cost, retry, job_id=entry.get("job_id"))
            ticket.past = tuple(entry.get("past") or ())
            ticket.told = entry.get("told") or ""
            self._ledger.know(tag, entry)
            self._book.restore(ticket, now)
            if now - self._began < WINDOW_S:
                self._book.meter.spend_all(now)  # an earlier desk may have sent it just now

    def _enqueue(self, client: str, requests: Sequence[Request]) -> None:
        if client not in self._clients:
            return
        for request in requests:
            if request.counter not in self._open:
                # This process has just taken the place of another, and the driver hasn't heard yet: once it has, it
                # brings first its backends, then all its jobs again.
                continue
            known, had = self._book.tickets.get(request.tag), self._requests.get(request.tag)
            if request.make is None and known is not None and had is not None and known.client == client:
                request = replace(request, make=had.make)
            self._requests[request.tag] = request
            self._ledger.know(request.tag, request.note)
            orphan = self._orphans.pop(request.tag, None)
            if known is not None:
                self._book.hand_over(request.tag, client)
                known.resend = request.make is not None
                known.timeout_s = request.timeout_s
            over = self._over.pop(request.tag, None)
            self._kept.pop(request.tag, None)
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
            if known is None and over is not None and (over["job_id"] is not None or over["state"] == "lost"):
                ticket.state, ticket.job_id = over["state"], over["job_id"]
                ticket.verdict = None if over["verdict"] is None else Verdict(*over["verdict"])
                ticket.facts["usage_s"] = over["usage_s"]
                self._book.recall(ticket)
            elif known is None and (request.make is None or request.job_id is not None or orphan is not None):
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
            if ticket is None and tag in self._kept:
                ticket = self._kept.pop(tag).ticket
            self._book.forget(tag)
            if tag not in self._book.tickets:
                if ticket is not None:
                    self._forget_at_adapter(ticket)
                self._over.pop(tag, None)
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
            threading.Thread(target=self._rest, name="ray_qjm rest", daemon=True).start()
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
            self._over[ticket.tag] = self._ledger.entry(ticket)
            if ticket.state == "done":
                self._kept[ticket.tag] = _Kept(ticket, now + KEEP_S)
            else:
                self._forget_at_adapter(ticket)
            self._book.forget(ticket.tag)
            self._requests.pop(ticket.tag, None)
            self._ledger.leave(ticket.tag)
        for tag in [tag for tag, kept in self._kept.items() if kept.until <= now]:
            self._forget_at_adapter(self._kept.pop(tag).ticket)
        self._look_after_orphans(now)
        if self._watch is not None:
            self._watch(self.state())

    def _look_after_orphans(self, now: float) -> None:
        """Jobs of earlier processes whose backend nobody has opened since."""
        for tag, (entry, since) in list(self._orphans.items()):
            if now - since <= self._client_s:
                continue
            # The same backend with other options can be asked about them as well.
            own = entry["counter"].rpartition("-")[0]
            alike = next((name for name in self._open if name.rpartition("-")[0] == own), None)
            if alike is not None:
                self._take_orphans({tag: {**entry, "counter": alike}})
            elif now - since > ORPHAN_S:
                _log.warning("ray_qjm: nobody has asked about job %s (%s)", entry.get("job_id"), tag)
                del self._orphans[tag]
                self._book.let_go(tag)

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
            case Intend():
                self._intend(errand.tag)
            case Send():
                self._send(errand.tag)
            case Look():
                self._look(errand.tag)
            case Poll():
                self._poll(errand.counter, errand.tags)
            case Revoke():
                self._revoke(errand.tag, errand.job_id)
            case Changed() if errand.tag in self._book.tickets:
                self._tell(self._book.tickets[errand.tag])
            case Beside():
                self._ledger.tell_beside(errand)

    def _intend(self, tag: str) -> None:
        ticket, request = self._book.tickets[tag], self._requests.get(tag)
        if request is None or request.make is None:
            verdict = Verdict("again", ABSENT, "it never reached the service")
            self._queue.put(lambda: self._book.held(tag, self._clock(), verdict))
            return
        self._ledger.write(ticket, lambda problem: self._intended(tag, problem), intended=time.time())

    def _intended(self, tag: str, problem: str | None) -> None:
        if problem is None:
            self._book.intended(tag, self._clock())
        else:
            reason = f"its intent can't be written down ({problem})"
            verdict = Verdict("again", StoreUnavailableError.__name__, reason)
            self._book.unwritten(tag, verdict, self._clock())

    def _send(self, tag: str) -> None:
        ticket = self._book.tickets[tag]
        adapter, sends = self._adapters[ticket.counter], ticket.sends
        request = self._requests.get(tag)
        make = None if request is None else request.make
        late_at = self._clock() + ticket.retry.call_s

        def call() -> str | Verdict | None:
            if make is None:  # whoever has its circuits went while its intent was being written
                return Verdict("again", ABSENT, "it never reached the service")
            try:
                job = make()
            except Exception as error:
                return Verdict("again", type(error).__name__, words(error))
            client = self._clients.get(ticket.client)
            try:
                wanted = client is not None and client.may_send()
            except Exception as error:
                raise _NotAskedError(error) from error
            if not wanted:
                return Verdict(
                    "again", "DriverGone", "its task goes on in another process, or its driver died"
                )
            # As late as can be: what remains is how long the request itself is under way.
            if not self._fence.holds() or self._clock() >= late_at:
                return None
            self.counts["sent"] += 1
            self._queue.put(lambda: self._count(ticket.counter, again=sends > 1))
            return adapter.submit(job)

        def done(answer: str | Verdict | None) -> None:
            if isinstance(answer, str):
                self._ledger.submitted(tag)
                self._book.accepted(tag, answer, self._clock())
            else:
                self._book.held(tag, self._clock(), answer, sends=sends)

        def failed(error: BaseException) -> None:
            if isinstance(error, _NotAskedError):  # nothing was sent, and it is no error of a client's
                verdict = Verdict(
                    "again", StoreUnavailableError.__name__, f"its store doesn't answer ({error})"
                )
            else:
                verdict = adapter.classify(error)
            self._book.rejected(tag, verdict, self._clock(), sends=sends)

        self._calls.start(call, within_s=ticket.retry.call_s, done=done, failed=failed)

    def _count(self, counter: str, *, again: bool) -> None:
        self._book.tally.submitted[counter] += 1
        self._book.tally.retried[counter] += again

    def _look(self, tag: str) -> None:
        ticket = self._book.tickets[tag]
        adapter, asked = self._adapters[ticket.counter], ticket.search.asks
        self.counts["looks"] += 1
        self._calls.start(
            lambda: adapter.find(tag.partition("~")[0]),
            within_s=ticket.retry.call_s,
            done=lambda found: self._book.found(tag, found, self._clock(), asked=asked),
            failed=lambda error: self._book.look_failed(tag, self._clock(), asked=asked),
        )

    def _poll(self, counter: str, tags: Sequence[str]) -> None:
        jobs = {tag: self._book.tickets[tag].job_id or "" for tag in tags}
        adapter = self._adapters[counter]
        self.counts["polls"] += 1

        def call() -> dict[str, Seen]:
            said = adapter.status(list(jobs.values()))
            return {tag: said.get(job_id, Seen(None)) for tag, job_id in jobs.items()}

        def done(seen: Mapping[str, Seen]) -> None:
            # An answer that comes late may speak of a job that was submitted again since.
            now = {tag: ticket.job_id for tag in seen if (ticket := self._book.tickets.get(tag)) is not None}
            mine = {tag: said for tag, said in seen.items() if now.get(tag) == jobs[tag]}
            self._book.polled(counter, mine, self._clock())

        self._calls.start(
            call,
            within_s=ASK_S,
            done=done,
            failed=lambda error: self._book.polled(
                counter, None, self._clock(), why_not=f"{type(error).__name__}: {words(error)}"
            ),
        )

    def _revoke(self, tag: str, job_id: str) -> None:
        adapter = self._adapters[self._book.tickets[tag].counter]
        self._calls.start(
            lambda: adapter.cancel(job_id),
            within_s=ASK_S,
            done=lambda _: self._book.revoked(tag, True, self._clock()),
            # It may just have ended: the next poll tells.
            failed=lambda error: self._book.revoked(tag, False, self._clock()),
        )

    def _tell(self, ticket: Ticket) -> None:
        self._ledger.spend(self._book.purse.spent)
        self._ledger.tell(ticket)
        if ticket.client == NOBODY and ticket.state in FINAL:
            self._forget([ticket.tag])


class _NotAskedError(Exception):
    """Whether a job is still wanted can't be found out."""

    def __init__(self, why: Exception) -> None:
        super().__init__(f"{type(why).__name__}: {words(why)}")


def _nothing() -> None:
    """The time has come."""
