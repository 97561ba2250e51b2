"""What an error of a service means for what is done next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ray_qjm.errors import (
    DeskGoneError,
    JobAbsentError,
    JobLostError,
    JobResultError,
    JobTimeoutError,
    NoCreditError,
    StoreUnavailableError,
)

#: ``wait``: the service is full or throttles, nothing was submitted; the same again later.
#: ``again``: it broke for a reason that may pass, nothing was submitted (or the job is over without result).
#: ``split job``: too large, or one of its circuits is broken: in halves.
#: ``split shots``: too many shots: in slices of half of them.
#: ``elsewhere``: this backend won't take it; another one may.
#: ``no credit``: nothing more can be paid here.
#: ``give up``: no other try will do.
#: ``unknown``: no reply: the job may have been accepted or not.
What = Literal[
    "wait", "again", "split job", "split shots", "elsewhere", "no credit", "give up", "cancelled", "unknown"
]

#: What the same backend is asked again about, with the same job; the rest is for the task to decide.
TRANSIENT: frozenset[What] = frozenset({"wait", "again"})

#: Why a job of an earlier session isn't submitted again here: its circuits are somewhere else by now.
ABSENT = JobAbsentError.__name__

#: Types of errors that tell of drivers, desks and the way to a service, and nothing of whether it works.
NOT_ITS_FAULT = frozenset(
    {
        ABSENT,
        JobLostError.__name__,
        JobResultError.__name__,
        DeskGoneError.__name__,
        StoreUnavailableError.__name__,
        "DriverGone",
    }
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do about an error.

    Attributes:
        what: See ``What``.
        error_type: Name of the error's type, for the rows of its circuits.
        reason: In the provider's words.
        retry_after_s: How long the service asks to wait; ``None`` if it doesn't.
        accepted: Whether the service had taken the job: it may be billed.
    """

    what: What
    error_type: str
    reason: str
    retry_after_s: float | None = None
    accepted: bool = False

    def __str__(self) -> str:
        """For people."""
        return f"{self.error_type}: {self.reason}"


def no_credit(why_not: str) -> Verdict:
    """A job that goes beyond a budget; ``why_not`` as from ``Purse``."""
    return Verdict("no credit", NoCreditError.__name__, f"no credit left: {why_not}")


def absent(why: str = "") -> Verdict:
    """A job that isn't at the service and can't be sent: its circuits are packed anew.

    Args:
        why: It isn't there, if that is known.
    """
    because = f" ({why.rstrip('.')})" if why else ""
    return Verdict("again", ABSENT, f"it never reached the service{because}")


def lost(said: Verdict | None) -> Verdict:
    """A submission without a reply, to a service that can't be asked for it.

    Args:
        said: What came in place of the reply, if anything.
    """
    why = "" if said is None else f" ({said.reason.rstrip('.')})"
    return Verdict(
        "give up",
        JobLostError.__name__,
        f"no reply came to its submission{why}, and the service can't be asked for it: it may have run, and may be "
        "billed. RetryPolicy(lost='resubmit') runs such circuits again.",
    )


def gone(job_id: str | None) -> Verdict:
    """A job that was accepted, and of which the service knows nothing any more."""
    return Verdict("give up", JobLostError.__name__, f"the service doesn't know job {job_id} any more")


def timed_out(job_id: str | None, timeout_s: float) -> Verdict:
    """A job that has had all the time it was given."""
    reason = f"job {job_id} was not done after {timeout_s:g} s (job_timeout_s)"
    return Verdict("elsewhere", JobTimeoutError.__name__, reason)
