"""The desk of a service: which job goes when, and what is asked about it. No clock, no I/O: ``now`` comes in.

Events are methods; what has to be done about them is gathered and taken with ``actions``. All jobs of one account
are in one book, whichever of its backends, tasks and drivers they are of, so that one ``Meter`` sees them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ray_qjm.errors import (
    JobAbsentError,
    JobCancelledError,
    JobFailedError,
    JobLostError,
    JobTimeoutError,
)
from ray_qjm.options import Quota
from ray_qjm.planning.errands import Beside, Changed, Errand, Intend, Look, Poll, Revoke, Seen, Send
from ray_qjm.planning.polling import Counter
from ray_qjm.planning.quota import Cost, Meter, Purse
from ray_qjm.planning.tally import Tally
from ray_qjm.planning.tickets import FINAL, Ticket
from ray_qjm.planning.verdicts import TRANSIENT, Verdict, no_credit
from ray_qjm.planning.waiting import Waiting

#: Seconds between two look-ups of a tag: doubled from the first on.
LOOK_S = (1.0, 15.0)
#: Whose jobs nobody waits for: twins.
NOBODY = ""
#: After so many polls in a row without an answer people are told.
SILENT_POLLS = 3
#: How often an answer that doesn't know a job is believed only after so many times.
MISSES = 5


class Book:
    """See the module's docstring.

    Args:
        quota: Of the account.
        polls: For each backend of the account the least and the most seconds between two polls.
        jitter: Gives a random number in [0, 1) a call: clients that were refused together don't come back
            together.
    """

    def __init__(
        self, quota: Quota, polls: Mapping[str, tuple[float, float]], *, jitter: Callable[[], float]
    ) -> None:
        self.meter = Meter(quota)
        self.purse = Purse(quota.budget)
        self.tally = Tally()
        self.tickets: dict[str, Ticket] = {}
        #: Those of them that are ``AT_SERVICE``: of all others no time matters but that of the next permit.
        self._there: dict[str, Ticket] = {}
        self._counters = {name: Counter(*pair) for name, pair in polls.items()}
        self._jitter = jitter
        self._waiting = Waiting(
            lambda ticket: max(ticket.not_before, self._counters[ticket.counter].paused_until)
        )
        self._leaving: dict[str, Ticket] = {}
        self._actions: list[Errand] = []
        self._misses: dict[str, int] = {}

    def add_counter(self, name: str, polls: tuple[float, float]) -> None:
        """One more backend of the account."""
        self._counters.setdefault(name, Counter(*polls))

    def actions(self) -> list[Errand]:
        """What has to be done now; each is given once."""
        found, self._actions = self._actions, []
        return found

    # From clients.

    def enqueue(self, ticket: Ticket) -> None:
        """A job that may be submitted, once there is a permit; one that is known is told of again."""
        if ticket.tag in self.tickets:
            self._actions.append(Changed(ticket.tag))
            return
        self.tickets[ticket.tag] = ticket
        self._waiting.add(ticket)

    def recall(self, ticket: Ticket) -> None:
        """A job that was over in an earlier life, and whose client may not know."""
        assert ticket.state in FINAL
        self.tickets[ticket.tag] = ticket
        self._actions.append(Changed(ticket.tag))

    def hand_over(self, tag: str, client: str) -> None:
        """A job that is known is another client's from now on: its task goes on in another process."""
        ticket = self.tickets[tag]
        for twin in self.at_service():
            if twin.client == NOBODY and twin.tag.startswith(f"{tag}~"):
                twin.told = client
        if ticket.client == client:
            return
        if ticket.state == "queued":
            self._waiting.remove(ticket)
            ticket.client = client
            self._waiting.add(ticket)
        else:
            ticket.client = client

    def restore(self, ticket: Ticket, now: float) -> None:
        """A job of an earlier life: it may be at the service, and keeps its slot until one knows.

        With a job id it is polled, without one it is looked for. Proven absent it is refused, unless somebody has
        set ``resend`` by then.
        """
        if ticket.tag in self.tickets:
            return
        self.tickets[ticket.tag] = self._there[ticket.tag] = ticket
        self.purse.reserve(ticket.tag, ticket.cost)
        ticket.first_at = ticket.sent_at = now
        ticket.resend = False
        if ticket.job_id is None:
            ticket.state, ticket.look_at = "unknown", now
            self.meter.take(ticket.tag)  # the request may still be on its way
        else:
            self.meter.hold(ticket.tag)
            ticket.state, ticket.accepted_at = "submitted", now
            # Nobody knows any more whether a reply was lost, and the job has a twin.
            ticket.look_at = now + ticket.retry.lost_grace_s
            self._counters[ticket.counter].accepted(ticket.tag, now)
        self._actions.append(Changed(ticket.tag))
        if ticket.client == NOBODY:
            ticket.look_at = math.inf  # a look-up would find the job that is kept
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
            self._waiting.remove(ticket)
            self._end(ticket, "cancel", verdict, Cost())
        elif ticket.state in ("submitted", "running"):
            self._revoke(ticket, now)

    def forget(self, tag: str) -> None:
        """The client has what it wanted of a job that is over."""
        ticket = self.tickets.get(tag)
        if ticket is not None and ticket.state in FINAL:
            del self.tickets[tag]
            if ticket.looking:
                self._leaving[tag] = ticket  # until it is known whether it has a twin

    # Time.

    def step(self, now: float, *, may_send: bool) -> None:
        """Do what is due.

        Args:
            now: Seconds of any clock that goes on evenly.
            may_send: Whether this process may submit: another one may be about to take its place.
        """
        for ticket in self.at_service():
            if ticket.look_at <= now:
                self._look(ticket, now)
            elif ticket.timeout_s is not None and ticket.unwanted is None:
                self._check_time(ticket, now)
            elif ticket.state == "cancelling" and ticket.not_before <= now:
                self._revoke_again(ticket, now)
        for name, counter in self._counters.items():
            if self._poll_at(counter) <= now:
                counter.polling = True
                self._actions.append(Poll(name, tuple(counter.tags)))
        while may_send and self.meter.free_at(now) <= now and (ready := self._waiting.take(now)) is not None:
            self._permit(ready, now)

    def wake_at(self, now: float) -> float:
        """When ``step`` has something to do next, should nothing happen before; ``inf``: nothing."""
        times = [self._poll_at(counter) for counter in self._counters.values()]
        for ticket in self._there.values():
            times.append(ticket.look_at)
            if ticket.state == "cancelling":
                times.append(ticket.not_before)
            if (
                ticket.timeout_s is not None
                and ticket.accepted_at is not None
                and ticket.state in ("submitted", "running")
            ):
                times.append(ticket.accepted_at + ticket.timeout_s)
        times.append(self._waiting.next_at(now, self.meter.free_at(now)))
        return min(times, default=math.inf)

    # Answers.

    def intended(self, tag: str, now: float) -> None:
        """The intent is safe."""
        ticket = self.tickets.get(tag)
        if ticket is None or ticket.state != "intended":
            return  # an earlier submission of it, taken for absent, was accepted after all
        if ticket.unwanted is not None:
            self.meter.sent(tag, now)
            self._end(ticket, "cancel", ticket.unwanted, Cost())
            return
        ticket.attempts += 1
        ticket.sends += 1
        ticket.first_at = now if ticket.first_at is None else ticket.first_at
        self._actions.append(Send(tag))

    def unwritten(self, tag: str, verdict: Verdict, now: float) -> None:
        """The intent can't be made safe, for a reason that may pass: nothing is sent."""
        ticket = self.tickets.get(tag)
        if ticket is not None and ticket.state == "intended":
            self.meter.sent(tag, now)
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
        self.meter.sent(tag, now)
        if ticket.unwanted is not None or verdict is not None:
            self._end(ticket, "cancel" if ticket.unwanted else "refuse", ticket.unwanted or verdict, Cost())
        else:
            ticket.attempts = max(0, ticket.attempts - 1)
            self._requeue(ticket, now + self._delay(ticket))

    def accepted(self, tag: str, job_id: str, now: float) -> None:
        """The service has taken a job; the reply may come late, when something else was done about it."""
        ticket = self.tickets.get(tag)
        if ticket is not None:
            self._accept(ticket, job_id, now)

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
            ticket.looks, ticket.look_at = 0, now
            self._actions.append(Changed(tag))
            return  # its token is held: the request may still be on its way
        self.meter.sent(tag, now)
        self._again_or_refuse(ticket, verdict, now, Cost())

    def found(self, tag: str, job_ids: Sequence[str] | None, now: float, *, asked: int | None = None) -> None:
        """The jobs with a tag, all of them, the oldest first; ``None``: the service can't be asked.

        Args:
            tag: Of the jobs.
            job_ids: Theirs.
            now: When the answer came.
            asked: The ticket's ``asks`` at the question, where an answer may come after the next question: it tells
                of jobs, and doesn't say that there are no others.
        """
        ticket = self.tickets.get(tag) or self._leaving.get(tag)
        if ticket is None:
            return
        for job_id in job_ids or ():
            self._accept(ticket, job_id, now)
        if asked is not None and asked != ticket.asks:
            return
        ticket.looking = False
        self._leaving.pop(tag, None)
        if ticket.state != "unknown":
            return
        over_at = (now if ticket.sent_at is None else ticket.sent_at) + ticket.retry.lost_grace_s
        # The answer is as old as the question: a job may have landed while it was on its way.
        if ticket.looked_at < over_at:
            ticket.looks += 1
            wait = min(LOOK_S[1], LOOK_S[0] * 2 ** min(ticket.looks - 1, 16))
            # Once more at the very end of the grace: what is absent then is proven absent.
            ticket.look_at = max(now, min(now + wait, over_at))
            return
        self.meter.sent(tag, now)
        if job_ids is None and ticket.retry.lost == "fail":
            self._end(ticket, "give up", _lost(ticket))
        else:
            # Absent; or nobody can tell, and the user wants it run again all the same: then it may have cost.
            cost = Cost() if job_ids is not None else None
            if cost is None and ticket.unwanted is None and ticket.resend:
                self._beside(ticket, "lost", ticket.verdict or _lost(ticket))
            if ticket.unwanted is not None:
                self._end(ticket, "cancel", ticket.unwanted, cost)
            else:
                verdict = ticket.verdict or _lost(ticket)
                self._again_or_refuse(ticket, Verdict("again", verdict.error_type, verdict.reason), now, cost)

    def look_failed(self, tag: str, now: float, *, asked: int | None = None) -> None:
        """The service didn't answer when asked for a tag: it is asked again; ``asked`` as for ``found``."""
        ticket = self.tickets.get(tag) or self._leaving.get(tag)
        if ticket is None or (asked is not None and asked != ticket.asks):
            return
        self._leaving.pop(tag, None)
        ticket.looking = False
        if ticket.state not in FINAL:
            if ticket.state == "unknown" and _since(ticket.first_at, now) >= ticket.retry.give_up_s:
                self.meter.sent(tag, now)
                self._end(ticket, "give up", _lost(ticket))
                return
            ticket.looks += 1
            ticket.look_at = now + min(LOOK_S[1], LOOK_S[0] * 2 ** min(ticket.looks, 8))

    def polled(
        self, counter_name: str, seen: Mapping[str, Seen] | None, now: float, *, why_not: str = ""
    ) -> None:
        """What a backend says of its jobs, by tag; ``None``: it didn't answer, and why not."""
        counter = self._counters[counter_name]
        counter.answered(now, well=seen is not None)
        if seen is None and counter.in_a_row == SILENT_POLLS:
            for tag in counter.tags:
                self.tickets[tag].facts["trouble"] = f"it can't be asked how it is ({why_not})"
                self._actions.append(Changed(tag))
        for tag, said in (seen or {}).items():
            ticket = self.tickets.get(tag)
            if ticket is not None and tag in counter.tags:
                self._take_in(ticket, said, now)

    def revoked(self, tag: str, ok: bool, now: float) -> None:
        """The service was asked to cancel; whether it has is for the next poll to say."""
        ticket = self.tickets.get(tag)
        if ticket is not None and ticket.state == "cancelling":
            ticket.not_before = math.inf if ok else now + self._delay(ticket, ticket.revokes)
            self._counters[ticket.counter].polled_at = -math.inf

    # Within.

    def _permit(self, ticket: Ticket, now: float) -> None:
        why_not = self.purse.why_not(ticket.cost)
        if why_not is not None:
            self.tally.refused[ticket.counter, "no credit"] += 1
            self._end(ticket, "refuse", no_credit(why_not))
            return
        self.meter.take(ticket.tag)
        self.purse.reserve(ticket.tag, ticket.cost)
        ticket.move("permit")
        self._there[ticket.tag] = ticket
        self._actions.append(Intend(ticket.tag))

    def _look(self, ticket: Ticket, now: float) -> None:
        ticket.look_at = math.inf  # until the answer is there
        ticket.looked_at, ticket.looking = now, True
        ticket.asks += 1
        self._actions.append(Look(ticket.tag))

    def _accept(self, ticket: Ticket, job_id: str, now: float) -> None:
        tag = ticket.tag
        if ticket.job_id == job_id or job_id in ticket.past:
            return
        if ticket.state not in ("queued", "intended", "unknown"):
            self._add_twin(ticket, job_id, now)
            return
        if ticket.state == "queued":  # proven absent, as it seemed, and to be sent again
            self._waiting.remove(ticket)
            self._there[tag] = ticket
            self.meter.hold(tag)
            self.purse.reserve(tag, ticket.cost)
        self.meter.sent(tag, now)
        ticket.sent_at = ticket.accepted_at = now
        ticket.job_id = job_id
        # One that was lost before may have landed twice: it is looked for once more when that would show.
        lost = ticket.state != "intended" or ticket.looks
        ticket.look_at = now + ticket.retry.lost_grace_s if lost else math.inf
        ticket.move("accept")
        self._counters[ticket.counter].accepted(tag, now)
        self._waiting.refusals = 0
        self._actions.append(Changed(tag))
        if ticket.unwanted is not None:
            self._revoke(ticket, now)

    def _again_or_refuse(self, ticket: Ticket, verdict: Verdict, now: float, cost: Cost | None) -> None:
        """The service has no such job: another try, or none any more; ``cost`` as in ``_end``."""
        if verdict.what not in TRANSIENT or ticket.unwanted is not None:
            self._end(ticket, "cancel" if ticket.unwanted else "refuse", ticket.unwanted or verdict, cost)
            return
        if not ticket.resend:
            absent = f"it never reached the service ({verdict.reason.rstrip('.')})"
            self._end(ticket, "refuse", Verdict("again", JobAbsentError.__name__, absent), cost)
            return
        enough = _enough(ticket, verdict, now)
        if enough is not None:
            self._end(ticket, "refuse", enough, cost)
            return
        delay = verdict.retry_after_s
        if verdict.what == "wait":
            # Full or throttled: whoever else asks now would hear the same.
            ticket.attempts -= 1
            self._waiting.refusals += 1
            if delay is None:
                self._waiting.full(now + self._delay(ticket, self._waiting.refusals))
            else:
                # A service that says "at once" is given time all the same.
                self._waiting.throttled(now + max(delay, self._delay(ticket, 1)))
            delay = 0.0
        else:
            delay = self._delay(ticket) if delay is None else delay
            counter = self._counters[ticket.counter]
            counter.paused_until = max(counter.paused_until, now + delay)
        self.purse.settle(ticket.tag, cost)
        self._requeue(ticket, now + delay)

    def _requeue(self, ticket: Ticket, at: float) -> None:
        self._leave(ticket)
        self.purse.settle(ticket.tag, Cost())
        ticket.move("requeue")
        ticket.not_before = at
        if ticket.job_id is not None:
            ticket.past += (ticket.job_id,)
        ticket.job_id = ticket.accepted_at = None
        ticket.look_at = math.inf
        ticket.facts.clear()  # of a job that is over
        self._waiting.add(ticket, first=True)
        self._actions.append(Changed(ticket.tag))

    def _delay(self, ticket: Ticket, tries: int | None = None) -> float:
        """Seconds before the next attempt: doubled each time, half of it by chance."""
        tries = ticket.attempts if tries is None else tries
        wait = ticket.retry.wait_s * 2 ** min(max(tries - 1, 0), 32)
        return float(min(ticket.retry.max_wait_s, wait) * (0.5 + 0.5 * self._jitter()))

    def _take_in(self, ticket: Ticket, said: Seen, now: float) -> None:
        if said.state is None:
            misses = self._misses[ticket.tag] = self._misses.get(ticket.tag, 0) + 1
            if misses >= MISSES and _since(ticket.accepted_at, now) >= ticket.retry.lost_grace_s:
                self._vanished(ticket, said.verdict or _gone(ticket), now)
            return
        self._misses.pop(ticket.tag, None)
        before = dict(ticket.facts)
        ticket.facts.pop("trouble", None)
        ticket.facts.update({key: value for key, value in said.facts.items() if value is not None})
        if said.usage_s is not None:
            ticket.facts["usage_s"] = said.usage_s
        if said.state == "lost":
            self._vanished(ticket, said.verdict or _gone(ticket), now)
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
            self._actions.append(Changed(ticket.tag))
        elif ticket.facts != before:
            self._actions.append(Changed(ticket.tag))

    def _vanished(self, ticket: Ticket, verdict: Verdict, now: float) -> None:
        """A job was accepted, and nobody will ever know what became of it."""
        if ticket.retry.lost == "resubmit" and ticket.unwanted is None:
            self._try_again(ticket, Verdict("again", verdict.error_type, verdict.reason), now, "lost")
        else:
            self._end(ticket, "give up", ticket.unwanted or verdict)

    def _beside(self, ticket: Ticket, state: str, verdict: Verdict, *, client: str | None = None) -> None:
        tag, twin = ticket.tag.partition("~")[0], client is not None
        self._actions.append(
            Beside(
                tag,
                ticket.client if client is None else client,
                ticket.job_id,
                state,
                verdict,
                ticket.attempts,
                self._billed(ticket),
                dict(ticket.facts),
                twin,
            )
        )

    def _try_again(self, ticket: Ticket, verdict: Verdict, now: float, state: str = "failed") -> None:
        """A job is over without a result; its usage was spent."""
        self._counters[ticket.counter].ended(now)
        if verdict.what not in TRANSIENT:
            self._end(ticket, "fail", verdict, self._billed(ticket))
            return
        # Whatever it failed of, it has been tried.
        verdict = replace(verdict, what="again")
        enough = _enough(ticket, verdict, now) if ticket.resend else verdict
        if enough is not None:
            self._end(ticket, "fail", enough, self._billed(ticket))
            return
        ticket.verdict = verdict
        self._beside(ticket, state, verdict)
        self.purse.settle(ticket.tag, self._billed(ticket))
        delay = self._delay(ticket) if verdict.retry_after_s is None else verdict.retry_after_s
        self._requeue(ticket, now + delay)

    def _over(self, ticket: Ticket, what: str, verdict: Verdict | None, now: float) -> None:
        self._counters[ticket.counter].ended(now)
        self._end(ticket, what, verdict, self._billed(ticket))

    def _billed(self, ticket: Ticket) -> Cost:
        usage = ticket.facts.get("usage_s")
        cost = ticket.cost
        return cost if usage is None else Cost(cost.jobs, cost.executions, usage)

    def _end(self, ticket: Ticket, what: str, verdict: Verdict | None, cost: Cost | None = None) -> None:
        self._leave(ticket)
        self.purse.settle(ticket.tag, cost)
        ticket.move(what)
        ticket.verdict = verdict
        self._misses.pop(ticket.tag, None)
        if ticket.client != NOBODY:
            self.tally.over[ticket.counter, ticket.state] += 1
        elif ticket.told:
            self._beside(ticket, ticket.state, verdict or _gone(ticket), client=ticket.told)
        if ticket.look_at < math.inf and ticket.job_id is not None:
            self._look(ticket, ticket.looked_at)
        ticket.look_at = math.inf
        self._actions.append(Changed(ticket.tag))

    def _add_twin(self, ticket: Ticket, job_id: str, now: float) -> None:
        """One submission made two jobs: the second is cancelled, and takes a slot and costs until it is."""
        tag = f"{ticket.tag}~{job_id}"
        ticket.past += (job_id,)
        self._actions.append(Changed(ticket.tag))
        reason = f"the service has job {job_id} beside {ticket.job_id} for one submission"
        twin = Ticket(tag, ticket.counter, NOBODY, ticket.cost, ticket.retry, job_id=job_id)
        twin.told, twin.attempts = ticket.client, ticket.attempts
        twin.state, twin.first_at, twin.accepted_at = "submitted", now, now
        twin.look_at = math.inf
        twin.unwanted = Verdict("cancelled", "TwinJob", reason)
        self.tickets[tag] = self._there[tag] = twin
        self.meter.hold(tag)
        self.purse.reserve(tag, twin.cost)
        self._counters[twin.counter].accepted(tag, now)
        self._revoke(twin, now)

    def _leave(self, ticket: Ticket) -> None:
        if ticket.job_id is not None:
            self._waiting.place_came_free()
        self.meter.release(ticket.tag)
        self._there.pop(ticket.tag, None)
        self._counters[ticket.counter].tags.pop(ticket.tag, None)

    def _revoke(self, ticket: Ticket, now: float) -> None:
        ticket.move("cancel")
        self._actions.append(Changed(ticket.tag))
        self._revoke_again(ticket, now)

    def _revoke_again(self, ticket: Ticket, now: float) -> None:
        assert ticket.job_id is not None
        ticket.not_before = math.inf  # until the answer is there
        ticket.revokes += 1
        self._actions.append(Revoke(ticket.tag, ticket.job_id))

    def _check_time(self, ticket: Ticket, now: float) -> None:
        if ticket.state not in ("submitted", "running") or ticket.accepted_at is None:
            return
        if now - ticket.accepted_at >= (ticket.timeout_s or math.inf):
            reason = f"job {ticket.job_id} was not done after {ticket.timeout_s:g} s (job_timeout_s)"
            self.cancel(ticket.tag, Verdict("elsewhere", JobTimeoutError.__name__, reason), now)

    def _poll_at(self, counter: Counter) -> float:
        if counter.polling or not counter.tags:
            return math.inf
        oldest = self.tickets[next(iter(counter.tags))].accepted_at
        return counter.poll_at(counter.polled_at if oldest is None else oldest)

    def at_service(self) -> list[Ticket]:
        """Jobs that may be at the service."""
        return list(self._there.values())


def _since(at: float | None, now: float) -> float:
    return 0.0 if at is None else now - at


def _enough(ticket: Ticket, verdict: Verdict, now: float) -> Verdict | None:
    """Why a job isn't tried again, for a reason that may pass; ``None``: it is."""
    late = _since(ticket.first_at, now) >= ticket.retry.give_up_s
    # A service that is full has tried nothing.
    if not late and (verdict.what == "wait" or ticket.attempts < ticket.retry.attempts):
        return None
    tried = f"{verdict.reason.rstrip('.')}; tried {max(ticket.sends, ticket.attempts)} times"
    return Verdict("elsewhere", verdict.error_type, tried)


def _lost(ticket: Ticket) -> Verdict:
    said = "" if ticket.verdict is None else f" ({ticket.verdict.reason.rstrip('.')})"
    return Verdict(
        "give up",
        JobLostError.__name__,
        f"no reply came to its submission{said}, and the service can't be asked for it: it may have run, and may be "
        "billed. RetryPolicy(lost='resubmit') runs such circuits again.",
    )


def _gone(ticket: Ticket) -> Verdict:
    return Verdict("give up", JobLostError.__name__, f"the service doesn't know job {ticket.job_id} any more")
