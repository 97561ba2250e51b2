"""An account at a service: its jobs, and what each of them takes. No clock, no I/O: ``now`` comes in.

What happens to a job changes several things at once: its state, its slot and token, what is reserved for it, whether it
is polled, what its client hears. Here that is one step each, with what follows from it (a second job for one submission
is a twin, and cancelled); why it is taken is for ``planning.book`` to say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ray_qjm.options import Quota
from ray_qjm.planning.errands import Beside, Changed, Errand, Intend, Look, Revoke
from ray_qjm.planning.polling import Counter
from ray_qjm.planning.quota import Cost, Meter, Purse
from ray_qjm.planning.tally import Tally
from ray_qjm.planning.tickets import NOBODY, Ticket
from ray_qjm.planning.verdicts import Verdict, gone
from ray_qjm.planning.waiting import Waiting


class Account:
    """See the module's docstring.

    Args:
        quota: Of the account.
        polls: For each of its backends the least and the most seconds between two polls.

    Attributes:
        meter: Slots and tokens.
        purse: What was spent and is reserved.
        tally: What was done, for people.
        tickets: All jobs by tag.
        there: Those of them that are ``AT_SERVICE``: of all others no time matters but that of the next permit.
        waiting: Those of them that are queued.
        counters: Its backends.
        errands: What has to be done about all this, in the order in which it came up.
    """

    def __init__(self, quota: Quota, polls: Mapping[str, tuple[float, float]]) -> None:
        self.meter = Meter(quota)
        self.purse = Purse(quota.budget)
        self.tally = Tally()
        self.tickets: dict[str, Ticket] = {}
        self.there: dict[str, Ticket] = {}
        self.counters = {name: Counter(*pair) for name, pair in polls.items()}
        self.waiting = Waiting(
            lambda ticket: max(ticket.not_before, self.counters[ticket.counter].paused_until)
        )
        self.errands: list[Errand] = []

    # Into the account.

    def enqueue(self, ticket: Ticket) -> None:
        """A job waits for a permit."""
        self.tickets[ticket.tag] = ticket
        self.waiting.add(ticket)

    def restore(self, ticket: Ticket, now: float) -> None:
        """A job may be at the service since an earlier life: with an id it is there, without one nobody knows."""
        self.tickets[ticket.tag] = self.there[ticket.tag] = ticket
        self.purse.reserve(ticket.tag, ticket.cost)
        ticket.first_at = ticket.sent_at = now
        if ticket.job_id is None:
            ticket.state = "unknown"
            self.meter.take(ticket.tag)  # the request may still be on its way
        else:
            ticket.state, ticket.accepted_at = "submitted", now
            self.meter.hold(ticket.tag)
            self.counters[ticket.counter].accepted(ticket.tag, now)
        self.changed(ticket)

    def give(self, ticket: Ticket, client: str) -> None:
        """A job is another client's from now on."""
        if ticket.state == "queued":
            self.waiting.remove(ticket)
            ticket.client = client
            self.waiting.add(ticket)
        else:
            ticket.client = client

    # On the way.

    def permit(self, ticket: Ticket) -> None:
        """A job that waited may go: it has slot, token and reservation from here on."""
        self.meter.take(ticket.tag)
        self.purse.reserve(ticket.tag, ticket.cost)
        ticket.move("permit")
        self.there[ticket.tag] = ticket
        self.errands.append(Intend(ticket.tag))

    def accept(self, ticket: Ticket, job_id: str, now: float) -> None:
        """The service has a job for a ticket: the one that counts, or a twin of it; one that is known is no news."""
        tag = ticket.tag
        if ticket.job_id == job_id or job_id in ticket.past:
            return
        if ticket.state not in ("queued", "intended", "unknown"):
            self._add_twin(ticket, job_id, now)
            return
        if ticket.state == "queued":  # proven absent, as it seemed, and to be sent again
            self.waiting.remove(ticket)
            self.there[tag] = ticket
            self.meter.hold(tag)
            self.purse.reserve(tag, ticket.cost)
        self.meter.sent(tag, now)
        ticket.sent_at = ticket.accepted_at = now
        ticket.job_id = job_id
        # One that was lost before may have landed twice: it is looked for once more when that would show.
        was_lost = ticket.state != "intended" or ticket.search.blanks
        ticket.search.at = now + ticket.retry.lost_grace_s if was_lost else math.inf
        ticket.move("accept")
        self.counters[ticket.counter].accepted(tag, now)
        self.waiting.refusals = 0
        self.changed(ticket)
        if ticket.unwanted is not None:
            self.revoke(ticket)

    def search(self, ticket: Ticket, now: float) -> None:
        """The service is asked for a job by its tag."""
        ticket.search.ask(now)
        self.errands.append(Look(ticket.tag))

    def revoke(self, ticket: Ticket) -> None:
        """The service is asked to cancel a job that it has."""
        ticket.move("cancel")
        self.changed(ticket)
        self.revoke_again(ticket)

    def revoke_again(self, ticket: Ticket) -> None:
        """It is asked once more: the last time it refused."""
        assert ticket.job_id is not None
        ticket.not_before = math.inf  # until the answer is there
        ticket.revokes += 1
        self.errands.append(Revoke(ticket.tag, ticket.job_id))

    def changed(self, ticket: Ticket) -> None:
        """There is news of a job."""
        self.errands.append(Changed(ticket.tag))

    # Out of it.

    def requeue(self, ticket: Ticket, at: float, now: float, cost: Cost | None) -> None:
        """A job waits once more.

        Args:
            ticket: Of the job.
            at: From when on it may be sent.
            now: The time.
            cost: What the attempt cost, as in ``Purse.settle``.
        """
        self._leave(ticket, now)
        self.purse.settle(ticket.tag, cost)
        ticket.move("requeue")
        ticket.not_before = at
        if ticket.job_id is not None:
            ticket.past += (ticket.job_id,)
        ticket.job_id = ticket.accepted_at = None
        ticket.search.at = math.inf
        ticket.misses = 0
        ticket.facts.clear()  # of a job that is over
        self.waiting.add(ticket, first=True)
        self.changed(ticket)

    def end(
        self, ticket: Ticket, what: str, verdict: Verdict | None, now: float, cost: Cost | None = None
    ) -> None:
        """A job is over.

        Args:
            ticket: Of the job.
            what: How, as in ``TRANSITIONS``.
            verdict: Why, if not well.
            now: When.
            cost: What it cost, as in ``Purse.settle``.
        """
        self._leave(ticket, now)
        self.purse.settle(ticket.tag, cost)
        ticket.move(what)
        ticket.verdict = verdict
        ticket.misses = 0
        if ticket.client != NOBODY:
            self.tally.over[ticket.counter, ticket.state] += 1
        elif ticket.told:
            self.tell_beside(ticket, ticket.state, verdict or gone(ticket.job_id), client=ticket.told)
        if ticket.search.at < math.inf and ticket.job_id is not None:
            self.search(ticket, ticket.search.asked_at)
        ticket.search.at = math.inf
        self.changed(ticket)

    def billed(self, ticket: Ticket) -> Cost:
        """What a job that has run cost: as the service says, or as was reserved."""
        usage = ticket.facts.get("usage_s")
        cost = ticket.cost
        return cost if usage is None else Cost(cost.jobs, cost.executions, usage)

    def tell_beside(self, ticket: Ticket, state: str, verdict: Verdict, *, client: str | None = None) -> None:
        """A job is over that isn't the one which counts: an attempt, or a twin, which belongs beside ``client``'s."""
        tag, twin = ticket.tag.partition("~")[0], client is not None
        self.errands.append(
            Beside(
                tag,
                ticket.client if client is None else client,
                ticket.job_id,
                state,
                verdict,
                ticket.attempts,
                self.billed(ticket),
                dict(ticket.facts),
                twin,
            )
        )

    def _leave(self, ticket: Ticket, now: float) -> None:
        if ticket.job_id is not None:
            self.waiting.place_came_free()
        self.meter.sent(ticket.tag, now)  # whatever became of the request, it is under way no more
        self.meter.release(ticket.tag)
        self.there.pop(ticket.tag, None)
        self.counters[ticket.counter].tags.pop(ticket.tag, None)

    def _add_twin(self, ticket: Ticket, job_id: str, now: float) -> None:
        """One submission made two jobs: the second is cancelled, and takes a slot and costs until it is."""
        tag = f"{ticket.tag}~{job_id}"
        ticket.past += (job_id,)
        self.changed(ticket)
        reason = f"the service has job {job_id} beside {ticket.job_id} for one submission"
        twin = Ticket(tag, ticket.counter, NOBODY, ticket.cost, ticket.retry, job_id=job_id)
        twin.told, twin.attempts = ticket.client, ticket.attempts
        twin.state, twin.first_at, twin.accepted_at = "submitted", now, now
        twin.unwanted = Verdict("cancelled", "TwinJob", reason)
        self.tickets[tag] = self.there[tag] = twin
        self.meter.hold(tag)
        self.purse.reserve(tag, twin.cost)
        self.counters[twin.counter].accepted(tag, now)
        self.revoke(twin)
