"""Whether a job that came to nothing is sent again, and after how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ray_qjm.planning.tickets import Ticket
from ray_qjm.planning.verdicts import TRANSIENT, Verdict, absent


class Retries:
    """See the module's docstring.

    Args:
        jitter: Gives a random number in [0, 1) a call: clients that were refused together don't come back
            together.
    """

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter

    def after_refusal(self, ticket: Ticket, verdict: Verdict, now: float) -> Verdict | None:
        """Why a job isn't sent again that the service doesn't have; ``None``: it is.

        Args:
            ticket: Of the job.
            verdict: What the refusal means.
            now: When.
        """
        if ticket.unwanted is not None:
            return ticket.unwanted
        if verdict.what not in TRANSIENT:
            return verdict
        if not ticket.resend:
            return absent(verdict.reason)
        return _enough(ticket, verdict, now)

    def after_failure(self, ticket: Ticket, verdict: Verdict, now: float) -> Verdict | None:
        """Why a job isn't sent again that the service had, and that gave no result; ``None``: it is.

        Args:
            ticket: Of the job.
            verdict: What its end means, as from ``tried``.
            now: When.
        """
        if verdict.what not in TRANSIENT or not ticket.resend:
            return verdict
        return _enough(ticket, verdict, now)

    def delay_s(self, ticket: Ticket, tries: int | None = None) -> float:
        """Seconds before the next attempt: doubled each time, half of it by chance.

        Args:
            ticket: Of the job.
            tries: How many there were, if its attempts aren't what counts.
        """
        tries = ticket.attempts if tries is None else tries
        wait = ticket.retry.wait_s * 2 ** min(max(tries - 1, 0), 32)
        return float(min(ticket.retry.max_wait_s, wait) * (0.5 + 0.5 * self._jitter()))


def tried(verdict: Verdict) -> Verdict:
    """What an error means that ended a job: no service was full for it, so the attempt counts."""
    return replace(verdict, what="again") if verdict.what in TRANSIENT else verdict


def late(ticket: Ticket, now: float) -> bool:
    """Whether all trying has to end: the job was first sent too long ago."""
    return ticket.first_at is not None and now - ticket.first_at >= ticket.retry.give_up_s


def _enough(ticket: Ticket, verdict: Verdict, now: float) -> Verdict | None:
    """Why a job isn't tried again, for a reason that may pass; ``None``: it is."""
    # A service that is full has tried nothing.
    if not late(ticket, now) and (verdict.what == "wait" or ticket.attempts < ticket.retry.attempts):
        return None
    reason = f"{verdict.reason.rstrip('.')}; tried {max(ticket.sends, ticket.attempts)} times"
    return Verdict("elsewhere", verdict.error_type, reason)
