"""Jobs of the service: accepted, waiting, running, ended; and the seconds they cost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from tests.ibm import running
from tests.ibm.journal import Journal
from tests.ibm.running import Submission
from tests.ibm.script import Ending, Picker, Script

NEXT_STATES = {"Queued": {"Running", "Cancelled"}, "Running": {"Completed", "Failed", "Cancelled"}}
PENDING = tuple(NEXT_STATES)

MAX_TAGS, MAX_TAG = 8, 86  # the client leaves it to the service to check them

FAILURES: dict[str, tuple[int | None, str]] = {
    "failed": (None, "the job failed because a circuit is broken"),
    "cancelled": (None, "Cancelled by the service"),
    "too_long": (1305, "Ran too long"),
}


class RefusedError(Exception):
    """The service says no: an HTTP status, IBM's code and a message."""

    def __init__(self, status: int, code: int, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s


def now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass
class Job:
    """One job. `submission` is forgotten when it has ended; `body` is what its client sent."""

    id: str
    number: int
    instance: str
    asked: dict[str, Any]
    body: bytes
    submission: Submission | None
    circuits: list[dict[str, Any]]
    ending: Ending | None
    ready_at: float
    created: datetime = field(default_factory=now)
    started: datetime | None = None
    finished: datetime | None = None
    state: str = "Queued"
    code: int | None = None
    reason: str | None = None
    result: str = ""
    seconds: float = 0.0

    @property
    def backend(self) -> str:
        return str(self.asked["backend"])

    @property
    def tags(self) -> list[str]:
        return list(self.asked.get("tags") or [])

    @property
    def executions(self) -> int:
        return sum(circuit["executions"] for circuit in self.circuits)


class JobBook:
    """All jobs. One thread starts them, in the order in which they came; each runs in a thread of its own."""

    def __init__(self, journal: Journal, script: Script) -> None:
        self._journal = journal
        self._changed = threading.Condition(threading.RLock())
        self._closed = False
        self._ids = 0
        self._posts: list[float] = []
        self.jobs: dict[str, Job] = {}
        self.sessions: dict[str, dict[str, Any]] = {}
        self.runs: Counter[str] = Counter()
        self.peak_pending = 0
        self.peak_running = 0
        self.violations: list[dict[str, Any]] = []
        self.script = script
        self._endings = Picker(script.seed, script.endings)
        threading.Thread(target=self._start_jobs, daemon=True).start()

    def use(self, script: Script, *, endings: bool) -> None:
        """Go on by another script; `endings`: begin to count jobs for them anew."""
        with self._changed:
            self.script = script
            if endings:
                self._endings = Picker(script.seed, script.endings)
            self._changed.notify_all()

    def close(self) -> None:
        """Start nothing more, and let threads that wait end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def pending(self, instance: str | None = None, backend: str | None = None) -> list[Job]:
        """Jobs that wait or run."""
        with self._changed:
            return [
                job
                for job in self.jobs.values()
                if job.state in PENDING
                and (instance is None or job.instance == instance)
                and (backend is None or job.backend == backend)
            ]

    def consumed(self, instance: str) -> float:
        """Seconds that this instance's jobs have cost."""
        with self._changed:
            return sum(job.seconds for job in self.jobs.values() if job.instance == instance)

    def over_limit(self, instance: str) -> bool:
        limit = self.script.usage_limit_s
        return limit is not None and self.consumed(instance) >= limit

    def new_id(self, letter: str) -> str:
        with self._changed:
            self._ids += 1
            return f"{letter}{self._ids:06d}loop"

    # Acceptance

    def check_rate(self) -> None:
        """Count a POST to `/jobs`; refuse it if there were too many lately."""
        with self._changed:
            script, moment = self.script, time.monotonic()
            if script.rate_posts is None:
                return
            self._posts = [then for then in self._posts if then > moment - script.rate_window_s]
            if len(self._posts) >= script.rate_posts:
                text = f"Too many requests: the limit is {script.rate_posts} per {script.rate_window_s} s"
                raise RefusedError(429, 1202, text, script.rate_retry_after_s)
            self._posts.append(moment)

    def accept(self, instance: str, asked: dict[str, Any], body: bytes, submission: Submission) -> Job:
        """Make a job, or refuse it. The program's parameters must not be among what was `asked` for."""
        with self._changed:
            script = self.script
            circuits = [
                {
                    "name": pub.circuit.name,
                    "marker": pub.metadata.get(script.marker),
                    "shots": pub.shots,
                    "executions": pub.executions,
                }
                for pub in submission.pubs
            ]
            self._check_limits(len(body), len(circuits), submission.executions)
            if script.pending_cap is not None and len(self.pending(instance)) >= script.pending_cap:
                raise RefusedError(400, 3458, script.pending_text.format(cap=script.pending_cap))
            if script.usage_policy == "refuse" and self.over_limit(instance):
                raise RefusedError(409, 4317, "Usage exceeds instance limit")
            tags = list(asked.get("tags") or [])
            if len(tags) > MAX_TAGS or any(len(tag) > MAX_TAG for tag in tags):
                raise RefusedError(400, 1204, f"A job has at most {MAX_TAGS} tags of {MAX_TAG} characters")
            names = {circuit["name"] for circuit in circuits}
            names |= {str(circuit["marker"]) for circuit in circuits if circuit["marker"] is not None}
            job = Job(
                id=self.new_id("d"),
                number=len(self.jobs),
                instance=instance,
                asked=asked,
                body=body,
                submission=submission,
                circuits=circuits,
                ending=self._endings.ending(names, tags),
                ready_at=time.monotonic() + script.queue_s,
            )
            self.jobs[job.id] = job
            self.peak_pending = max(self.peak_pending, len(self.pending()))
            self._journal.add(
                "accepted",
                job=job.id,
                program=asked["program_id"],
                backend=job.backend,
                instance=instance,
                tags=tags,
                session=asked.get("session_id"),
                private=bool(asked.get("private")),
                cost=asked.get("cost"),
                bytes=len(body),
                pubs=len(circuits),
                executions=job.executions,
                circuits=circuits,
            )
            self._changed.notify_all()
            return job

    def _check_limits(self, size: int, circuits: int, executions: int) -> None:
        script = self.script
        for what, value, limit, status, code in (
            ("payload_bytes", size, script.max_payload_bytes, 413, 1500),
            ("circuits", circuits, script.max_circuits, 400, 1002),
            ("executions", executions, script.max_executions, 400, 1002),
        ):
            if limit is not None and value > limit:
                violation = {"what": what, "value": value, "limit": limit}
                self.violations.append(violation)
                self._journal.add("violation", **violation)
                if script.refuse_above_limits:
                    raise RefusedError(status, code, f"The job has {value} {what}, the limit is {limit}")

    # Life

    def cancel(self, job: Job, reason: str = "Cancelled by the user") -> None:
        with self._changed:
            if job.state not in PENDING:
                raise RefusedError(409, 1300, f"Job {job.id} is in the state {job.state}: can't be cancelled")
            self._move(job, "Cancelled", None, reason)

    def _start_jobs(self) -> None:
        with self._changed:
            while not self._closed:
                wait = 0.5
                if not self.script.hold_queue:
                    busy = Counter(job.backend for job in self.jobs.values() if job.state == "Running")
                    waiting = [job for job in self.jobs.values() if job.state == "Queued"]
                    broke = {name for name in self.script.instances if self.over_limit(name)}
                    moment = time.monotonic()
                    for job in waiting:
                        if job.ready_at > moment:
                            wait = min(wait, job.ready_at - moment)
                        elif job.instance not in broke and busy[job.backend] < self.script.max_running:
                            busy[job.backend] += 1
                            self.peak_running = max(self.peak_running, busy[job.backend])
                            self._move(job, "Running")
                            threading.Thread(target=self._work, args=(job,), daemon=True).start()
                self._changed.wait(wait)

    def _work(self, job: Job) -> None:
        script, began = self.script, time.monotonic()
        end = job.ending.end if job.ending is not None else ""
        result = trouble = ""
        submission = job.submission
        if end not in (*FAILURES, "never", "no_result") and submission is not None:
            only = len(submission.pubs) // 2 if end == "fewer_results" else None
            seed = script.seed + job.number
            try:
                result = running.run(submission, seed=seed, shortcut=script.shortcut, began=now(), only=only)
            except Exception as error:  # a circuit that Aer can't run, or a mistake of this service
                end, trouble = "failed", repr(error)
                self._journal.add("broken", job=job.id, error=trouble)
        if end == "half_result":
            result = result[: len(result) // 2]
        with self._changed:
            left = began + script.run_s - time.monotonic()
            self._changed.wait_for(lambda: self._over(job), max(0.0, left))
            self._wait_while(job, lambda: self.script.hold_running or end == "never")
            if job.state != "Running" or self._closed:
                return
            job.result = result
            cost = job.asked.get("cost")
            seconds = script.usage_s_per_job + job.executions * script.usage_s_per_execution
            if end not in FAILURES and cost is not None and seconds > cost:
                end = "too_long"
            if end in FAILURES:
                code, reason = FAILURES[end]
                reason = trouble or reason
                given = job.ending
                if given is not None:
                    code = code if given.code is None else given.code
                    reason = reason if given.reason is None else given.reason
                self._move(job, "Failed" if end == "failed" else "Cancelled", code, reason)
            else:
                self._move(job, "Completed")

    def _over(self, job: Job) -> bool:
        return self._closed or job.state != "Running"

    def _wait_while(self, job: Job, held: Callable[[], bool]) -> None:
        self._changed.wait_for(lambda: self._over(job) or not held())

    def _move(self, job: Job, state: str, code: int | None = None, reason: str | None = None) -> None:
        if state not in NEXT_STATES[job.state]:
            raise AssertionError(f"{job.id} can't go from {job.state} to {state}")
        self._journal.add("state", job=job.id, before=job.state, state=state, code=code, reason=reason)
        job.state, job.code, job.reason = state, code, reason
        if state == "Running":
            job.started = now()
            self.runs.update(str(c["name"] if c["marker"] is None else c["marker"]) for c in job.circuits)
        else:
            job.finished = now()
            job.submission = None
            if job.started is not None:
                job.seconds = self.script.usage_s_per_job + job.executions * self.script.usage_s_per_execution
        self._changed.notify_all()
