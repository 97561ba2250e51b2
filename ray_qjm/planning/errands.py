"""What the desk of a service has to have done for it, and what a service says of a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ray_qjm.planning.quota import Cost
from ray_qjm.planning.verdicts import Verdict


@dataclass(frozen=True, slots=True)
class Intend:
    """Write down that a job is about to be sent, so that it is known after a crash; then call ``intended``."""

    tag: str


@dataclass(frozen=True, slots=True)
class Send:
    """Submit a job; then call ``accepted``, ``rejected`` or ``held``."""

    tag: str


@dataclass(frozen=True, slots=True)
class Look:
    """Ask the service for jobs with this tag; then call ``found``."""

    tag: str


@dataclass(frozen=True, slots=True)
class Poll:
    """Ask a backend how its jobs are; then call ``polled``."""

    counter: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Revoke:
    """Cancel a job at the service; then call ``revoked``."""

    tag: str
    job_id: str


@dataclass(frozen=True, slots=True)
class Changed:
    """A job has another state: write it down and tell its client."""

    tag: str


@dataclass(frozen=True, slots=True)
class Beside:
    """A job is over that isn't the one which counts for its tag: an attempt that is made again, or a twin.

    Attributes:
        tag: Of the submission.
        client: Whose it is.
        job_id: As the service calls it; ``None``: nobody knows whether there was one.
        state: How it ended.
        verdict: Why it doesn't count.
        attempt: Which attempt it was.
        cost: What it cost.
        facts: What the service said of it last.
        twin: Whether the one that counts is another job of the same attempt.
    """

    tag: str
    client: str
    job_id: str | None
    state: str
    verdict: Verdict
    attempt: int
    cost: Cost
    facts: Mapping[str, Any]
    twin: bool = False


Errand = Intend | Send | Look | Poll | Revoke | Changed | Beside


@dataclass(frozen=True, slots=True)
class Seen:
    """What a service says of a job.

    Attributes:
        state: ``"submitted"``, ``"running"``, ``"done"``, ``"failed"`` or ``"cancelled"``; ``"lost"``: nobody will
            ever know; ``None``: the service doesn't know the job, or says something that nobody understands.
        verdict: Why it failed, or why nobody understands it.
        usage_s: QPU seconds that were billed; ``None`` if not told.
        facts: ``position`` and ``eta_s`` in the queue, ``started`` and ``ended`` in seconds since the epoch.
    """

    state: str | None
    verdict: Verdict | None = None
    usage_s: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
