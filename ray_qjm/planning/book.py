"""The desk of a service: which job goes when, and what is asked about it. No clock, no I/O: ``now`` comes in.

Events are methods; what has to be done about them is gathered and taken with ``actions``. All jobs of one account
are in one book, whichever of its backends, tasks and drivers they are of, so that one ``Meter`` sees them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from ray_qjm.errors import JobCancelledError, JobFailedError
from ray_qjm.options import Quota
from ray_qjm.planning.account import Account
from ray_qjm.planning.errands import Errand, Poll, Seen, Send
from ray_qjm.planning.polling import Counter
from ray_qjm.planning.quota import Cost
from ray_qjm.planning.retries import Retries, late, tried
from ray_qjm.planning.tickets import FINAL, NOBODY, Ticket
from ray_qjm.planning.verdicts import TRANSIENT, Verdict, gone, lost, no_credit, timed_out

#: After so many polls in a row without an answer people are told.
SILENT_POLLS = 3
#: How often an answer that doesn't know a job is believed only after so many times.
MISSES = 5


class Book:
    """See the module's docstring.

    Args:
        quota: Of the account.
        polls: For each backend of the account the least and the most seconds between two polls.
        jitter: See ``Retries``.
    """

    def __init__(
        self, quota: Quota, polls: Mapping[str, tuple[float, float]], *, jitter: Callable[[], float]
    ) -> None:
        self._account = account = Account(quota, polls)
        self._retries = Retries(jitter)
        self._leaving: dict[str, Ticket] = {}
        # For whoever asks how things stand.
        self.tickets, self.meter = account.tickets, account.meter
        self.purse, self.tally, self.counters = account.purse, account.tally, account.counters

    def add_counter(self, name: str, polls: tuple[float, float]) -> None:
        """One more backend of the account."""
        self._account.counters.setdefault(name, Counter(*polls))

    def actions(self) -> list[Errand]:
        """What has to be done now; each is given once."""
        found, self._account.errands = self._account.errands, []
        return found

    def at_service(self) -> list[Ticket]:
        """Jobs that may be at the service."""
        return list(self._account.there.values())

    # From clients.

    def enqueue(self, ticket: Ticket) -> None:
        """A job that may be submitted, once there is a permit; one that is known is told of again."""
        if ticket.tag in self.tickets:
            self._account.changed(ticket)
        else:
            self._account.enqueue(ticket)

    def recall(self, ticket: Ticket) -> None:
        """A job that was over in an earlier life, and whose client may not know."""
        assert ticket.state in FINAL
        self.tickets[ticket.tag] = ticket
        self._account.changed(ticket)

    def hand_over(self, tag: str, client: str) -> None:
        """A job that is known is another client's from now on: its task goes on in another process."""
        ticket = self.tickets[tag]
        for twin in self.at_service():
            if twin.client == NOBODY and twin.tag.startswith(f"{tag}~"):
                twin.told = client
        if ticket.client != client:
            self._account.give(ticket, client)

    def restore(self, ticket: Ticket, now: float) -> None:
        """A job of an earlier life: it may be at the service, and keeps its slot until one knows.

        With a job id it is polled, without one it is looked for. Proven absent it is refused, unless somebody has
        set ``resend`` by then.
        """
        if ticket.tag in self.tickets:
            return
        ticket.resend = False
        # Of one with an id nobody knows any more whether a reply was lost, and it has a twin.
        ticket.search.begin(now if ticket.job_id is None else now + ticket.retry.lost_grace_s)
        self._account.restore(ticket, now)
        if ticket.client == NOBODY:
            ticket.search.at = math.inf  # a look-up would find the job that is kept
            self.cancel(ticket.tag, Verdict("cancelled", "TwinJob", "its twin is kept"), now)

    def hold(self, tag: str, cost: Cost) -> None:
        """A job of an earlier life that can't be asked about yet has its slot and its reservation all the same."""
        self.meter.hold(tag)
        self.purse.reserve(tag, cost)

    def let_go(self, tag: str) -> None:
        """Nobody has come to ask about such a job: it is taken to be over, and to have cost what was reserved."""
        self.meter.release(tag)
        self.purse.settle(tag)

    def cancel(self, tag: str, verdict: Verdict, now: float) -> None:
        """Somebody doesn't want a job any more."""
        ticket = self.tickets.get(tag)
        if ticket is None or ticket.state in FINAL or ticket.unwanted is not None:
            return
        ticket.unwanted = verdict
        if ticket.state == "queued":
            self._account.waiting.remove(ticket)
            self._account.end(ticket, "cancel", verdict, now, Cost())
        elif ticket.state in ("submitted", "running"):
            self._account.revoke(ticket)

    def forget(self, tag: str) -> None:
        """The client has what it wanted of a job that is over."""
        ticket = self.tickets.get(tag)
        if ticket is not None and ticket.state in FINAL:
            del self.tickets[tag]
            if ticket.search.awaited:
                self._leaving[tag] = ticket  # until it is known whether it has a twin

    # Time.

    def step(self, now: float, *, may_send: bool) -> None:
        """Do what is due.

        Args:
            now: Seconds of any clock that goes on evenly.
            may_send: Whether this process may submit: another one may be about to take its place.
        """
        for ticket in self.at_service():
            if ticket.search.at <= now:
                self._account.search(ticket, now)
            elif ticket.timeout_s is not None and ticket.timeout_at <= now and ticket.unwanted is None:
                self.cancel(ticket.tag, timed_out(ticket.job_id, ticket.timeout_s), now)
            elif ticket.state == "cancelling" and ticket.not_before <= now:
                self._account.revoke_again(ticket)
        for name, counter in self._account.counters.items():
            if counter.poll_at() <= now:
                counter.polling = True
                self._account.errands.append(Poll(name, tuple(counter.tags)))
        waiting = self._account.waiting
        while may_send and self.meter.free_at(now) <= now and (ready := waiting.take(now)) is not None:
            self._permit(ready, now)

    def wake_at(self, now: float) -> float:
        """When ``step`` has something to do next, should nothing happen before; ``inf``: nothing."""
        times = [counter.poll_at() for counter in self._account.counters.values()]
        for ticket in self._account.there.values():
            times.append(ticket.search.at)
            if ticket.timeout_s is not None:
                times.append(ticket.timeout_at)
            if ticket.state == "cancelling":
                times.append(ticket.not_before)
        times.append(self._account.waiting.next_at(now, self.meter.free_at(now)))
        return min(times, default=math.inf)

    # Answers.

    def intended(self, tag: str, now: float) -> None:
        """The intent is safe."""
        ticket = self.tickets.get(tag)
        if ticket is None or ticket.state != "intended":
            return  # an earlier submission of it, taken for absent, was accepted after all
        if ticket.unwanted is not None:
            self._account.end(ticket, "cancel", ticket.unwanted, now, Cost())
            return
        ticket.attempts += 1
        ticket.sends += 1
        ticket.first_at = now if ticket.first_at is None else ticket.first_at
        self._account.errands.append(Send(tag))

    def unwritten(self, tag: str, verdict: Verdict, now: float) -> None:
        """The intent can't be made safe, for a reason that may pass: nothing is sent."""
        ticket = self.tickets.get(tag)
        if ticket is not None and ticket.state == "intended":
            ticket.attempts += 1
            ticket.first_at = now if ticket.first_at is None else ticket.first_at
            self._again_or_refuse(ticket, verdict, now, Cost())

    def held(self, tag: str, now: float, verdict: Verdict | None = None, *, sends: int | None = None) -> None:
        """A job was not sent after all.

        Args:
            tag: Of the job.
            now: When.
            verdict: Why it never will be, if so.
            sends: As for ``rejected``.
        """
        ticket = self.tickets.get(tag)
        if ticket is None or (sends is not None and sends != ticket.sends):
            return
        if ticket.state != "intended" and not (ticket.state == "unknown" and sends is not None):
            return
        if ticket.unwanted is not None or verdict is not None:
            what = "cancel" if ticket.unwanted else "refuse"
            self._account.end(ticket, what, ticket.unwanted or verdict, now, Cost())
        else:
            ticket.attempts = max(0, ticket.attempts - 1)
            self._account.requeue(ticket, now + self._retries.delay_s(ticket), now, Cost())

    def accepted(self, tag: str, job_id: str, now: float) -> None:
        """The service has taken a job; the reply may come late, when something else was done about it."""
        ticket = self.tickets.get(tag)
        if ticket is not None:
            self._account.accept(ticket, job_id, now)

    def rejected(self, tag: str, verdict: Verdict, now: float, *, sends: int | None = None) -> None:
        """A submission ended with an error.

        Args:
            tag: Of the job.
            verdict: What the error means.
            now: When.
            sends: The ticket's ``sends`` at that submission, where the answer may come late: what it says of an
                earlier one says nothing about the last.
        """
        ticket = self.tickets.get(tag)
        if ticket is None or (sends is not None and sends != ticket.sends):
            return
        if ticket.state == "unknown" and verdict.what == "unknown":
            return
        if ticket.state not in ("intended", "unknown"):
            return  # it was found since
        ticket.sent_at = now
        ticket.verdict = verdict
        self.tally.refused[ticket.counter, verdict.what] += 1
        if verdict.what == "unknown":
            ticket.move("lose")
            ticket.search.begin(now)
            self._account.changed(ticket)
            return  # its token is held: the request may still be on its way
        self._again_or_refuse(ticket, verdict, now, Cost())

    def found(self, tag: str, job_ids: Sequence[str] | None, now: float, *, asked: int | None = None) -> None:
        """The jobs with a tag, all of them, the oldest first; ``None``: the service can't be asked.

        Args:
            tag: Of the jobs.
            job_ids: Theirs.
            now: When the answer came.
            asked: As for ``Search.answered``: an answer to an earlier question tells of jobs, and doesn't say that
                there are no others.
        """
        ticket = self.tickets.get(tag) or self._leaving.get(tag)
        if ticket is None:
            return
        for job_id in job_ids or ():
            self._account.accept(ticket, job_id, now)
        if not ticket.search.answered(asked):
            return
        self._leaving.pop(tag, None)
        if ticket.state != "unknown":
            return
        sent_at = now if ticket.sent_at is None else ticket.sent_at
        if not ticket.search.proves_absence(now, sent_at + ticket.retry.lost_grace_s):
            return
        if job_ids is None and ticket.retry.lost == "fail":
            self._account.end(ticket, "give up", lost(ticket.verdict), now)
            return
        # Absent; or nobody can tell, and the user wants it run again all the same: then it may have cost.
        cost = Cost() if job_ids is not None else None
        verdict = ticket.verdict or lost(None)
        if cost is None and ticket.unwanted is None and ticket.resend:
            self._account.tell_beside(ticket, "lost", verdict)
        self._again_or_refuse(ticket, Verdict("again", verdict.error_type, verdict.reason), now, cost)

    def look_failed(self, tag: str, now: float, *, asked: int | None = None) -> None:
        """The service didn't answer when asked for a tag: it is asked again; ``asked`` as for ``found``."""
        ticket = self.tickets.get(tag) or self._leaving.get(tag)
        if ticket is None or not ticket.search.answered(asked):
            return
        self._leaving.pop(tag, None)
        if ticket.state == "unknown" and late(ticket, now):
            self._account.end(ticket, "give up", lost(ticket.verdict), now)
        elif ticket.state not in FINAL:
            ticket.search.failed(now)

    def polled(
        self, counter_name: str, seen: Mapping[str, Seen] | None, now: float, *, why_not: str = ""
    ) -> None:
        """What a backend says of its jobs, by tag; ``None``: it didn't answer, and why not."""
        counter = self._account.counters[counter_name]
        counter.answered(now, well=seen is not None)
        if seen is None and counter.in_a_row == SILENT_POLLS:
            for tag in counter.tags:
                self.tickets[tag].facts["trouble"] = f"it can't be asked how it is ({why_not})"
                self._account.changed(self.tickets[tag])
        for tag, said in (seen or {}).items():
            ticket = self.tickets.get(tag)
            if ticket is not None and tag in counter.tags:
                self._take_in(ticket, said, now)

    def revoked(self, tag: str, ok: bool, now: float) -> None:
        """The service was asked to cancel; whether it has is for the next poll to say."""
        ticket = self.tickets.get(tag)
        if ticket is not None and ticket.state == "cancelling":
            ticket.not_before = math.inf if ok else now + self._retries.delay_s(ticket, ticket.revokes)
            self._account.counters[ticket.counter].polled_at = -math.inf

    # Within.

    def _permit(self, ticket: Ticket, now: float) -> None:
        why_not = self.purse.why_not(ticket.cost)
        if why_not is not None:
            self.tally.refused[ticket.counter, "no credit"] += 1
            self._account.end(ticket, "refuse", no_credit(why_not), now)
        else:
            self._account.permit(ticket)

    def _again_or_refuse(self, ticket: Ticket, verdict: Verdict, now: float, cost: Cost | None) -> None:
        """The service has no such job: another try, or none any more; ``cost`` as in ``Account.end``."""
        why_not = self._retries.after_refusal(ticket, verdict, now)
        if why_not is not None:
            self._account.end(ticket, "cancel" if ticket.unwanted else "refuse", why_not, now, cost)
            return
        delay = verdict.retry_after_s
        if verdict.what == "wait":
            # Full or throttled: whoever else asks now would hear the same.
            waiting = self._account.waiting
            ticket.attempts -= 1
            waiting.refusals += 1
            if delay is None:
                waiting.full(now + self._retries.delay_s(ticket, waiting.refusals))
            else:
                # A service that says "at once" is given time all the same.
                waiting.throttled(now + max(delay, self._retries.delay_s(ticket, 1)))
            delay = 0.0
        else:
            delay = self._retries.delay_s(ticket) if delay is None else delay
            counter = self._account.counters[ticket.counter]
            counter.paused_until = max(counter.paused_until, now + delay)
        self._account.requeue(ticket, now + delay, now, cost)

    def _take_in(self, ticket: Ticket, said: Seen, now: float) -> None:
        if said.state is None:
            ticket.misses += 1
            accepted_at = now if ticket.accepted_at is None else ticket.accepted_at
            if ticket.misses >= MISSES and now - accepted_at >= ticket.retry.lost_grace_s:
                self._vanished(ticket, said.verdict or gone(ticket.job_id), now)
            return
        ticket.misses = 0
        before = dict(ticket.facts)
        ticket.facts.pop("trouble", None)
        ticket.facts.update({key: value for key, value in said.facts.items() if value is not None})
        if said.usage_s is not None:
            ticket.facts["usage_s"] = said.usage_s
        if said.state == "lost":
            self._vanished(ticket, said.verdict or gone(ticket.job_id), now)
        elif said.state == "done":
            self._over(ticket, "finish", None, now)
        elif said.state == "failed":
            verdict = said.verdict or Verdict(
                "split job", JobFailedError.__name__, "it failed, without a reason"
            )
            if verdict.what in TRANSIENT and ticket.unwanted is None:
                self._try_again(ticket, verdict, now)
            else:
                self._over(ticket, "fail", ticket.unwanted or verdict, now)
        elif said.state == "cancelled":
            if ticket.state == "cancelling":
                self._over(ticket, "end", ticket.unwanted, now)
            else:
                verdict = said.verdict or Verdict(
                    "again", JobCancelledError.__name__, "the service cancelled it"
                )
                self._try_again(ticket, verdict, now, "cancelled")
        elif said.state == "running" and ticket.state == "submitted":
            ticket.move("run")
            self._account.changed(ticket)
        elif ticket.facts != before:
            self._account.changed(ticket)

    def _vanished(self, ticket: Ticket, verdict: Verdict, now: float) -> None:
        """A job was accepted, and nobody will ever know what became of it."""
        if ticket.retry.lost == "resubmit" and ticket.unwanted is None:
            self._try_again(ticket, Verdict("again", verdict.error_type, verdict.reason), now, "lost")
        else:
            self._account.end(ticket, "give up", ticket.unwanted or verdict, now)

    def _try_again(self, ticket: Ticket, verdict: Verdict, now: float, state: str = "failed") -> None:
        """A job is over without a result; its usage was spent."""
        verdict = tried(verdict)
        why_not = self._retries.after_failure(ticket, verdict, now)
        if why_not is not None:
            self._over(ticket, "fail", why_not, now)
            return
        self._account.counters[ticket.counter].ended(now)
        ticket.verdict = verdict
        self._account.tell_beside(ticket, state, verdict)
        delay = self._retries.delay_s(ticket) if verdict.retry_after_s is None else verdict.retry_after_s
        self._account.requeue(ticket, now + delay, now, self._account.billed(ticket))

    def _over(self, ticket: Ticket, what: str, verdict: Verdict | None, now: float) -> None:
        self._account.counters[ticket.counter].ended(now)
        self._account.end(ticket, what, verdict, now, self._account.billed(ticket))
