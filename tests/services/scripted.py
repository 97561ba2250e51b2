"""A service that does what a script says: the other side of every promise about jobs, on a clock that is given.

Its state is worked out when somebody asks: nothing runs between two requests. It sees what the engine can't know
(when a request really landed, which shots really ran), so that tests judge by it and not by what the engine believes.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

from ray_qjm.backends.codes import judge
from ray_qjm.options import Limits
from ray_qjm.planning.errands import Seen
from ray_qjm.planning.quota import WINDOW_S
from ray_qjm.planning.verdicts import Verdict

State = Literal["submitted", "running", "done", "failed", "cancelled"]
OVER: frozenset[State] = frozenset({"done", "failed", "cancelled"})


class ServiceError(Exception):
    """An answer that isn't 200, as the clients of services raise it."""

    def __init__(self, status: int, text: str, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self._given = status, text, retry_after_s
        headers = {} if retry_after_s is None else {"Retry-After": f"{retry_after_s:g}"}
        self.response = SimpleNamespace(status_code=status, headers=headers)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._given


class Part(NamedTuple):
    """Circuits of a job, by row number (then a ``range`` will do) or by name, and the shots of each."""

    circuits: Sequence[Hashable]
    shots: int


class Fault(NamedTuple):
    """What goes wrong with one submission.

    Attributes:
        jobs: How many jobs it makes: 0, 1, or 2 for a twin.
        lands_s: When it makes them, seconds after the reply.
        reply: ``"id"``, or what comes in its place.
        takes_s: Seconds until then.
        code: IBM's code of an error with which it is refused.
        throttled_s: It is refused with HTTP 429, and this many seconds to wait.
    """

    jobs: int = 1
    lands_s: float = 0.0
    reply: Literal["id", "drop", "502"] = "id"
    takes_s: float = 0.0
    code: int | None = None
    throttled_s: float | None = None


class Request(NamedTuple):
    """One request as the service has seen it."""

    at: float
    kind: str
    what: str
    outcome: str


@dataclass(slots=True)
class Job:
    """One job as the service has it."""

    number: int
    job_id: str
    tag: str
    parts: tuple[Part, ...]
    made_at: float
    twin: bool
    state: State = "submitted"
    started_at: float | None = None
    ended_at: float | None = None
    error: str | None = None
    usage_s: float = 0.0

    @property
    def circuits(self) -> int:
        """Circuits, each slice counted."""
        return sum(len(part.circuits) for part in self.parts)

    @property
    def executions(self) -> int:
        """Circuits times shots."""
        return sum(len(part.circuits) * part.shots for part in self.parts)


@dataclass
class Script:
    """How a service behaves.

    Attributes:
        limits: Of one job.
        pending: Jobs that may be submitted or running.
        per_minute: Jobs that may be made in any 60 s.
        parallel: Jobs that run at once.
        queue_s: Seconds that a job, by its number, waits before it may run; none overtakes another.
        run_s: Seconds that it runs.
        faults: Of a submission, by its number from 0.
        fails: Why the job with a number fails in the end, for instance ``"Error code: 1000"``; ``None``: it doesn't.
        broken: Circuits whose jobs fail, so that they have to be found.
        cancels: What becomes of a request to cancel, by its number: ``"works"``, ``"fails"``, or ``"ignored"``.
        asks: Whether a request that asks (``"find"``, ``"status"``, ``"fetch"``), by its number, is answered.
        usage_s: What a job is billed.
        credit_s: What may be billed in all.
    """

    limits: Limits = field(default_factory=Limits)
    pending: int = 3
    per_minute: int | None = None
    parallel: int = 1
    queue_s: Callable[[int], float] = lambda number: 0.0
    run_s: Callable[[Job], float] = lambda job: 10.0
    faults: Callable[[int], Fault] = lambda number: Fault()
    fails: Callable[[int], str | None] = lambda number: None
    broken: Collection[Hashable] = frozenset()
    cancels: Callable[[int], Literal["works", "fails", "ignored"]] = lambda number: "works"
    asks: Callable[[str, int], bool] = lambda kind, number: True
    usage_s: Callable[[Job], float] = lambda job: 2.0 + 250e-6 * job.executions
    credit_s: float | None = None


class ScriptedService:
    """See the module's docstring. From any thread.

    Args:
        now: The clock.
        script: How it behaves.
    """

    def __init__(self, now: Callable[[], float], script: Script | None = None) -> None:
        self.script = Script() if script is None else script
        self.jobs: dict[str, Job] = {}
        self.requests: list[Request] = []
        self.violations: list[str] = []
        self.refused: Counter[str] = Counter()
        self.highest_pending = 0
        self.usage_s = 0.0
        self._now = now
        self._lock = threading.RLock()
        self._numbers: Counter[str] = Counter()
        self._landing: list[tuple[float, int, Callable[[float], object]]] = []
        self._ties = itertools.count()
        self._waiting: deque[Job] = deque()
        self._running: list[tuple[float, int, Job]] = []
        self._free_at = [0.0] * self.script.parallel
        self._started_at = 0.0
        self._made: deque[float] = deque()
        self._by_tag: dict[str, list[Job]] = {}

    # Requests.

    def submit(
        self, tag: str, parts: Sequence[Part], payload_bytes: int = 0
    ) -> tuple[str | Exception, float]:
        """The request that makes a job: what comes of it, and after how many seconds more."""
        with self._lock:
            now = self._advance()
            number = self._count("submit")
            fault = self.script.faults(number)
            answer: str | Exception = ""
            why: Exception | None = None
            if fault.throttled_s is not None:
                why = ServiceError(429, "Throttled: others have used up the rate", fault.throttled_s)
            elif fault.code is None and fault.jobs and fault.lands_s == 0:
                why = self._why_not(parts, payload_bytes, now)
            elif fault.code is not None:
                why = ServiceError(400, f"Failed to run program: refused. Error code: {fault.code}.")
            if why is not None:
                answer = why
                self.refused[str(why)] += 1
            elif fault.jobs and fault.lands_s == 0:
                answer = self._make(tag, tuple(parts), fault.jobs, now).job_id
            elif fault.jobs:
                at = now + fault.lands_s

                def land(then: float) -> None:
                    # Refused where nobody hears it: as if it had never landed.
                    if self._why_not(parts, payload_bytes, then) is None:
                        self._make(tag, tuple(parts), fault.jobs, then)

                heapq.heappush(self._landing, (at, next(self._ties), land))
            if fault.reply == "drop" or (fault.reply == "id" and not answer):
                answer = ConnectionError("Connection aborted: no reply")
            elif fault.reply == "502":
                answer = ServiceError(502, "Bad gateway")
            self._note("submit", tag, str(answer))
            return answer, fault.takes_s

    def find(self, tag: str) -> list[str]:
        """Ids of the jobs with a tag, the oldest first."""
        with self._lock:
            self._ask("find", tag)
            return [job.job_id for job in self._by_tag.get(tag, [])]

    def status(self, job_ids: Sequence[str]) -> dict[str, Seen]:
        """How jobs are."""
        with self._lock:
            self._ask("status", ",".join(job_ids))
            return {job_id: _seen(self.jobs[job_id]) for job_id in job_ids if job_id in self.jobs}

    def fetch(self, job_id: str) -> Job:
        """A job that is done."""
        with self._lock:
            self._ask("fetch", job_id)
            if self.jobs[job_id].state != "done":
                raise ServiceError(404, f"job {job_id} has no result")
            return self.jobs[job_id]

    def cancel(self, job_id: str) -> None:
        """Cancel a job that isn't over."""
        with self._lock:
            now = self._advance()
            job, what = self.jobs[job_id], self.script.cancels(self._count("cancel"))
            works = what == "works" and job.state not in OVER
            self._note("cancel", job_id, what if works else f"{what}, {job.state}")
            if what == "fails" or (what == "works" and not works):
                raise ServiceError(500 if what == "fails" else 400, f"job {job_id} can't be cancelled")
            if not works:
                return
            if job.state == "running":
                self._running = [entry for entry in self._running if entry[2] is not job]
                heapq.heapify(self._running)
                heapq.heappush(self._free_at, now)
            else:
                self._waiting.remove(job)
            job.state, job.ended_at = "cancelled", now

    # What tests ask.

    @property
    def pending(self) -> int:
        """Jobs that are submitted or running now."""
        with self._lock:
            self._advance()
            return len(self._waiting) + len(self._running)

    def shots_run(self) -> Counter[Hashable]:
        """Shots of each circuit in jobs that ran to their end, twins left out."""
        with self._lock:
            self._advance()
            found: Counter[Hashable] = Counter()
            for job in self.jobs.values():
                if job.state == "done" and not job.twin:
                    for part in job.parts:
                        for circuit in part.circuits:
                            found[circuit] += part.shots
            return found

    def full_share(self) -> float:
        """Share of the time from when the slots were first full to the last job made in which they were full."""
        with self._lock:
            now = self._advance()
            steps: list[tuple[float, int]] = []
            for job in self.jobs.values():
                steps += [(job.made_at, 1), (now if job.ended_at is None else job.ended_at, -1)]
            steps.sort()
            last = max(job.made_at for job in self.jobs.values())
            pending, since, first, full = 0, 0.0, None, 0.0
            for at, step in steps:
                if first is not None and pending >= self.script.pending:
                    full += max(0.0, min(at, last) - since)
                pending, since = pending + step, at
                if first is None and pending >= self.script.pending:
                    first = at
            return 1.0 if first is None or first >= last else full / (last - first)

    # Within.

    def _count(self, kind: str) -> int:
        self._numbers[kind] += 1
        return self._numbers[kind] - 1

    def _note(self, kind: str, what: str, outcome: str) -> None:
        self.requests.append(Request(self._now(), kind, what, outcome))

    def _ask(self, kind: str, what: str) -> None:
        self._advance()
        answered = self.script.asks(kind, self._count(kind))
        self._note(kind, what, "answered" if answered else "502")
        if not answered:
            raise ServiceError(502, "Bad gateway")

    def _why_not(self, parts: Sequence[Part], payload_bytes: int, now: float) -> Exception | None:
        """Why a job is refused: for its size, the credit, the rate or the pending cap."""
        script, limits = self.script, self.script.limits
        circuits = sum(len(part.circuits) for part in parts)
        sizes: Mapping[str, tuple[int, int | None, int]] = {
            "circuits": (circuits, limits.max_circuits, 1102),
            "shots": (max(part.shots for part in parts), limits.max_shots, 1103),
            "executions": (
                sum(len(part.circuits) * part.shots for part in parts),
                limits.max_executions,
                1102,
            ),
            "bytes": (payload_bytes, limits.max_payload_bytes, 1102),
        }
        for name, (value, most, code) in sizes.items():
            if most is not None and value > most:
                self.violations.append(f"{value} {name} in one job, limit {most}")
                return ServiceError(400, f"Failed to run program: {value} {name}. Error code: {code}.")
        if script.credit_s is not None and self.usage_s >= script.credit_s:
            return ServiceError(409, "Usage exceeds instance limit")
        while self._made and self._made[0] + WINDOW_S <= now:
            self._made.popleft()
        if script.per_minute is not None and len(self._made) >= script.per_minute:
            return ServiceError(429, "Too many requests", self._made[0] + WINDOW_S - now)
        self._made.append(now)
        if len(self._waiting) + len(self._running) >= script.pending:
            text = f"Reached maximum number ({script.pending}) of concurrent jobs, Error code: 3458."
            return ServiceError(400, text)
        return None

    def _make(self, tag: str, parts: tuple[Part, ...], count: int, now: float) -> Job:
        made = [
            Job(number, f"job-{number}", tag, parts, now, twin=nth > 0)
            for nth, number in enumerate(range(len(self.jobs), len(self.jobs) + count))
        ]
        for job in made:
            self.jobs[job.job_id] = job
            self._waiting.append(job)
            self._by_tag.setdefault(tag, []).append(job)
        own = [job for job in (*self._waiting, *(entry[2] for entry in self._running)) if not job.twin]
        self.highest_pending = max(self.highest_pending, len(own))
        return made[0]

    def _advance(self) -> float:
        """Work out what has happened until now, in its order."""
        now = self._now()
        while True:
            ends = self._running[0][0] if self._running else float("inf")
            lands = self._landing[0][0] if self._landing else float("inf")
            starts = float("inf")
            if self._waiting and self._free_at:
                first = self._waiting[0]
                ready_at = first.made_at + self.script.queue_s(first.number)
                starts = max(self._free_at[0], ready_at, self._started_at)
            at = min(ends, lands, starts)
            if at > now:
                return now
            if at == ends:
                self._end(heapq.heappop(self._running)[2], at)
            elif at == lands:
                heapq.heappop(self._landing)[2](at)
            else:
                heapq.heappop(self._free_at)
                job = self._waiting.popleft()
                job.state, job.started_at = "running", at
                self._started_at = at
                heapq.heappush(self._running, (at + self.script.run_s(job), job.number, job))

    def _end(self, job: Job, at: float) -> None:
        heapq.heappush(self._free_at, at)
        broken = [name for name in self.script.broken if any(name in part.circuits for part in job.parts)]
        job.error = "Error: a circuit can't be run" if broken else self.script.fails(job.number)
        job.state, job.ended_at = "done" if job.error is None else "failed", at
        job.usage_s = self.script.usage_s(job)
        self.usage_s += job.usage_s


def _seen(job: Job) -> Seen:
    verdict: Verdict | None = None
    if job.error is not None:
        verdict = judge(ServiceError(200, job.error), "split job")
    facts: dict[str, Any] = {"started": job.started_at, "ended": job.ended_at}
    return Seen(job.state, verdict, job.usage_s if job.state in OVER else None, facts)
