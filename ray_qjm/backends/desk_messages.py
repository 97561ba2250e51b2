"""What a desk and its clients say to each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray_qjm.backends.base import Submission
from ray_qjm.backends.journals import Journal
from ray_qjm.options import RetryPolicy
from ray_qjm.planning.quota import Cost
from ray_qjm.planning.verdicts import Verdict


@dataclass(frozen=True)
class Client:
    """A task of some driver, as a client of the desk.

    Attributes:
        name: No other task or session of it has the same.
        journal: Of its store; ``None``: it has none.
        may_send: Whether its driver is still the one whose jobs count; asked just before each submission.
        open_: What its store's journal says of jobs that may be at the service, by tag.
    """

    name: str
    journal: Journal | None = None
    may_send: Callable[[], bool] = field(default=lambda: True)
    open_: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """A job that a client wants submitted.

    Attributes:
        tag: Travels with the job.
        counter: Which backend.
        cost: What to reserve.
        retry: See ``RetryPolicy``.
        timeout_s: See ``RunOptions.job_timeout_s``.
        note: Facts that stand in the journal: which circuits, of which task.
        make: Gives the submission when it is time; ``None``: it was sent before, and won't be again.
        job_id: Of a job that was sent before, if known.
        past: Ids of other jobs with this tag, as the journal tells them.
    """

    tag: str
    counter: str
    cost: Cost
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout_s: float | None = None
    note: Mapping[str, Any] = field(default_factory=dict)
    make: Callable[[], Submission] | None = None
    job_id: str | None = None
    past: Sequence[str] = ()


@dataclass(frozen=True)
class Told:
    """What became of a job, for its client.

    Attributes:
        tag: Which; of a job beside the one that counts (an attempt that failed, a twin) its tag, ``~`` and its id.
        state: See ``planning.tickets``.
        job_id: As the service calls it.
        attempts: How often it was sent.
        verdict: Why it ended, if not well.
        times: ``submitted``, ``started``, ``ended``: seconds since the epoch, as far as known.
        facts: What else the service says: ``position``, ``eta_s``, ``usage_s``; of a job beside also its ``runs``.
    """

    tag: str
    state: str
    job_id: str | None
    attempts: int
    verdict: Verdict | None
    times: Mapping[str, float]
    facts: Mapping[str, Any]
