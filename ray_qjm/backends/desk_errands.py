"""The errands of a desk: what its book wants of services and journals is asked for, and the answers are told to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from ray_qjm.backends.calls import Calls
from ray_qjm.backends.codes import words
from ray_qjm.backends.desk_adapters import Adapters
from ray_qjm.backends.desk_clients import Clients
from ray_qjm.backends.desk_ledger import Ledger
from ray_qjm.backends.desk_messages import Request
from ray_qjm.errors import StoreUnavailableError
from ray_qjm.planning.book import Book
from ray_qjm.planning.errands import Intend, Look, Poll, Revoke, Seen, Send
from ray_qjm.planning.verdicts import Verdict, absent

#: Deadline of a call that asks, where no ticket says another.
ASK_S = 120.0


class Fence(Protocol):
    """Whether this process is still the one that may submit."""

    def holds(self) -> bool:
        """For at least as long as one submission takes."""


class NoFence:
    """For a desk that can't have a twin."""

    def holds(self) -> bool:
        """Always."""
        return True


class Errands:
    """Runs errands; in the desk's thread, in which answers are told as well.

    Args:
        book: Is told the answers.
        adapters: Of its backends.
        requests: What clients want submitted, by tag; not changed here.
        clients: Say whether their jobs are still wanted.
        ledger: Writes down what is about to be sent.
        fence: Whether this process may submit.
        calls: Call the providers' clients.
        clock: Seconds that go on evenly.
        tell: Runs a function in the desk's thread.
    """

    def __init__(
        self,
        book: Book,
        *,
        adapters: Adapters,
        requests: Mapping[str, Request],
        clients: Clients,
        ledger: Ledger,
        fence: Fence,
        calls: Calls,
        clock: Callable[[], float],
        tell: Callable[[Callable[[], object]], None],
    ) -> None:
        self.counts = {"sent": 0, "polls": 0, "looks": 0}
        self._book = book
        self._adapters = adapters
        self._requests = requests
        self._clients = clients
        self._ledger = ledger
        self._fence = fence
        self._calls = calls
        self._clock = clock
        self._tell = tell

    def run(self, errand: Intend | Send | Look | Poll | Revoke) -> None:
        """Do as the book wants; returns at once."""
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

    def _intend(self, tag: str) -> None:
        ticket, request = self._book.tickets[tag], self._requests.get(tag)
        if request is None or request.make is None:
            verdict = absent()
            self._tell(lambda: self._book.held(tag, self._clock(), verdict))
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
                return absent()
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
            self._tell(lambda: self._count(ticket.counter, again=sends > 1))
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


class _NotAskedError(Exception):
    """Whether a job is still wanted can't be found out."""

    def __init__(self, why: Exception) -> None:
        super().__init__(f"{type(why).__name__}: {words(why)}")
