"""What a line of work at a service keeps of its chunks and jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ray_qjm.backends.desk_messages import Told
from ray_qjm.cluster.messages import Outcome
from ray_qjm.options import RetryPolicy
from ray_qjm.planning.events import Chunk
from ray_qjm.planning.orders import Order, Run
from ray_qjm.planning.status import place_words
from ray_qjm.planning.tickets import FINAL
from ray_qjm.results.jobs import Job

#: Full jobs that wait for a permit at the desk, so that a slot which comes free is filled at once.
AHEAD = 2


@dataclass(slots=True)
class Piece:
    """A chunk that is being worked on; its references keep circuits and sheet in Ray's object store."""

    chunk: Chunk
    done: Callable[[Outcome | BaseException], None]
    data: Any = None
    total_bytes: int = 0
    sheet: Any = None


@dataclass(frozen=True, slots=True)
class Spell:
    """Seconds that a chunk or a job of a service has spent in some stages, and bytes of circuits: for metrics."""

    backend: int
    stages: Mapping[str, float]
    size: int = 0


@dataclass(slots=True)
class Sent:
    """A job that was handed to the desk."""

    order: Order
    tag: str
    state: str = "queued"
    #: When it was handed over, seconds since the epoch; ``None``: by an earlier session.
    handed: float | None = None
    job: Job | None = None
    #: Its result: a reference, or why there is none.
    raw: Any = None
    answers: Any = None
    #: Whether ``answers`` is there: its result was fetched and read.
    read: bool = False
    fetches: int = 0
    #: When a fetch of it first failed.
    fetched_at: float | None = None
    #: As the service calls it, once that is known.
    job_id: str | None = None
    position: int | None = None
    eta_s: float | None = None
    #: Why it doesn't get on just now.
    trouble: str | None = None
    #: What was last told of it.
    told: Told | None = None
    #: Chunks that have circuits in it and aren't stored yet.
    chunks: set[int] = field(default_factory=set)
    #: Circuits of a job of an earlier session that have no rows: they come in as chunks while it runs.
    awaited: list[tuple[int, int]] = field(default_factory=list)
    #: What was told of its end before they had.
    news: Told | None = None
    #: Whether an earlier session has it in the table of jobs.
    noted: bool = False


@dataclass(frozen=True)
class OpenJob:
    """A job of an earlier session of the task that may be at its service.

    Attributes:
        tag: Its own.
        runs: All that it runs.
        awaited: The circuits of these that have no rows, as ranges.
        job_id: As the service calls it, if known.
        past: Ids of other jobs with its tag, which ended without a result.
        note: What its journal said of it.
        noted: Whether it is in the store's table of jobs.
    """

    tag: str
    runs: tuple[Run, ...]
    awaited: tuple[tuple[int, int], ...]
    job_id: str | None
    past: tuple[str, ...]
    note: Mapping[str, Any]
    noted: bool = False


@dataclass(frozen=True)
class LineSetup:
    """What a line has to know of its task and backend.

    Attributes:
        backend: Position in the task's list.
        name: Of the backend.
        counter: What the desk calls it.
        account: Whose quota it uses.
        prefix: Leads the tags of its jobs: unique for each session of a task.
        task_id: Of the task.
        session: Number of this session of it.
        retry: See ``RetryPolicy``.
        job_timeout_s: See ``RunOptions``.
        memory: Whether single shots are wanted.
        base: The task's ``simulator_base``.
        recalled: Whether another process can have a job by its id.
        ahead: Jobs that may wait for a permit.
    """

    backend: int
    name: str
    counter: str
    account: str
    prefix: str
    task_id: str
    session: int
    retry: RetryPolicy
    job_timeout_s: float | None
    memory: bool
    base: int
    recalled: bool
    ahead: int = AHEAD


def job_row(backend: str, order: Order, news: Told, usage: float | None, tag: str | None = None) -> Job:
    """A job that is over, for the table of jobs."""
    times = news.times
    started, ended = times.get("started"), times.get("ended", time.time())
    begun = started if started is not None else times.get("submitted")
    return Job(
        job_id=news.job_id or tag or news.tag,
        backend=backend,
        start=order.start,
        stop=order.stop,
        attempt=order.attempt + max(0, news.attempts - 1),
        state=news.state,
        reason=None if news.verdict is None else str(news.verdict),
        submitted=times.get("submitted"),
        started=started,
        ended=ended,
        circuits=order.circuits,
        shots=order.executions,
        seconds=None if begun is None else max(0.0, ended - begun),
        usage_s=usage,
    )


def open_row(backend: str, sent: Sent) -> Job:
    """A job that the table of jobs may not have yet, as far as it is known."""
    if sent.job is not None:
        return sent.job
    told = sent.told or Told(sent.tag, sent.state, None, 0, None, {}, {})
    row = job_row(backend, sent.order, told, None)._replace(job_id=told.job_id, state=sent.state)
    if sent.state in FINAL:
        return row
    place = ", ".join(place_words(sent.position, sent.eta_s))
    return row._replace(reason=sent.trouble or place or None, ended=None, seconds=None)


def stages_of(job: Job, handed: float | None) -> dict[str, float]:
    """Seconds in each stage of a job that was done: waiting for a permit, in the service's queue, and running.

    By the clocks of the driver, the desk and the service, which may differ by a little. Where the service doesn't tell
    when it began, running includes its queue.
    """
    begun = job.submitted if job.started is None else job.started
    spans = {
        "permit": (handed, job.submitted),
        "queue": (job.submitted, job.started),
        "run": (begun, job.ended),
    }
    return {
        stage: max(0.0, end - start)
        for stage, (start, end) in spans.items()
        if start is not None and end is not None
    }


def overlap(order: Order, chunk: Chunk) -> bool:
    """Whether a job has circuits of a chunk."""
    return any(run.start < chunk.stop and chunk.start < run.stop for run in order.runs)
