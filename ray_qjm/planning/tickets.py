"""One job at a service, from the queue before it to its end: states, and what may change them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from ray_qjm.errors import InvalidTransitionError
from ray_qjm.options import RetryPolicy
from ray_qjm.planning.quota import Cost
from ray_qjm.planning.search import Search
from ray_qjm.planning.verdicts import Verdict

TicketState = Literal[
    "queued",  # waits for a permit; the service knows nothing of it
    "intended",  # has a permit; its intent is being written, or it is being sent
    "unknown",  # sent, and no reply: accepted or not
    "submitted",  # accepted; waits in the service's queue
    "running",  # as the service says
    "cancelling",  # asked to be cancelled; the service hasn't said yet
    "done",
    "failed",  # accepted, and ended without a result
    "cancelled",
    "refused",  # not accepted, or never sent
    "lost",  # nobody can tell whether it was accepted
]

#: A job that is in one of these is at the service, as far as one knows: it has a slot and a reservation.
AT_SERVICE: frozenset[TicketState] = frozenset({"intended", "unknown", "submitted", "running", "cancelling"})
FINAL: frozenset[TicketState] = frozenset({"done", "failed", "cancelled", "refused", "lost"})

#: Whose jobs nobody waits for: twins.
NOBODY = ""

#: (state, what happened) -> new state. What isn't listed raises InvalidTransitionError.
TRANSITIONS: dict[tuple[TicketState, str], TicketState] = {
    ("queued", "permit"): "intended",
    ("queued", "refuse"): "refused",  # no budget, or not in time
    ("queued", "cancel"): "cancelled",
    ("queued", "accept"): "submitted",  # sent before, taken for absent, and it landed after all
    ("intended", "accept"): "submitted",
    ("intended", "lose"): "unknown",
    ("intended", "requeue"): "queued",  # the service will take it later, or it was held back
    ("intended", "refuse"): "refused",
    ("intended", "cancel"): "cancelled",  # held back before it was sent
    ("unknown", "accept"): "submitted",  # found by its tag, or the reply came late
    ("unknown", "requeue"): "queued",  # proven absent
    ("unknown", "refuse"): "refused",
    ("unknown", "cancel"): "cancelled",  # proven absent, and not wanted any more
    ("unknown", "give up"): "lost",
    ("submitted", "run"): "running",
    ("submitted", "finish"): "done",
    ("submitted", "fail"): "failed",
    ("submitted", "end"): "cancelled",
    ("submitted", "requeue"): "queued",  # it ended without a result, for a reason that may pass
    ("submitted", "cancel"): "cancelling",
    ("submitted", "give up"): "lost",  # the service doesn't know it any more
    ("running", "finish"): "done",
    ("running", "fail"): "failed",
    ("running", "end"): "cancelled",
    ("running", "requeue"): "queued",
    ("running", "cancel"): "cancelling",
    ("running", "give up"): "lost",
    ("cancelling", "finish"): "done",  # too late to cancel: the result is kept
    ("cancelling", "fail"): "failed",
    ("cancelling", "end"): "cancelled",
    ("cancelling", "give up"): "lost",
}


@dataclass(slots=True)
class Ticket:
    """A job, as the desk of a service keeps it.

    Attributes:
        tag: Travels with the job; no other job anywhere has it.
        counter: Which of the desk's backends.
        client: Whose it is.
        told: Of a twin: whose the job is that it is beside.
        cost: What is reserved for it.
        retry: See ``RetryPolicy``.
        timeout_s: See ``RunOptions.job_timeout_s``.
        state: See ``TRANSITIONS``.
        attempts: How often it was sent.
        first_at: When it was first sent.
        sent_at: The last moment at which it can have been sent.
        accepted_at: When it was accepted.
        not_before: When it may be sent again.
        search: For jobs with its tag.
        misses: How often in a row the service didn't know it when asked how it is.
        revokes: How often the service was asked to cancel it.
        sends: How often it was sent, those included that the service was too full for.
        resend: Whether it can be sent again: an earlier process has sent it, and nobody has brought its circuits.
        job_id: As the service calls it.
        past: Ids of other jobs with its tag: earlier ones, which ended without a result, and twins.
        unwanted: Somebody asked to cancel it, or it ran out of time: why.
        verdict: Why it ended as it did.
        facts: What the service last said of it: ``position``, ``eta_s``, ``started``, ``usage_s``.
    """

    tag: str
    counter: str
    client: str
    cost: Cost
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout_s: float | None = None
    state: TicketState = "queued"
    attempts: int = 0
    first_at: float | None = None
    sent_at: float | None = None
    accepted_at: float | None = None
    not_before: float = 0.0
    search: Search = field(default_factory=Search)
    misses: int = 0
    revokes: int = 0
    sends: int = 0
    resend: bool = True
    job_id: str | None = None
    past: tuple[str, ...] = ()
    told: str = ""
    unwanted: Verdict | None = None
    verdict: Verdict | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def timeout_at(self) -> float:
        """When it is cancelled since it takes too long; infinite: it isn't."""
        if self.timeout_s is None or self.accepted_at is None or self.state not in ("submitted", "running"):
            return math.inf
        return self.accepted_at + self.timeout_s

    def move(self, what: str) -> None:
        """Take a step of ``TRANSITIONS``.

        Raises:
            InvalidTransitionError: There is no such step.
        """
        try:
            self.state = TRANSITIONS[self.state, what]
        except KeyError:
            raise InvalidTransitionError(
                f"{what!r} can't happen to job {self.tag} while it is {self.state!r}."
            ) from None
