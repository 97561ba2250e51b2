"""Where a task stands, as plain values: what ``Task.status()`` gives and what progress shows."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from textwrap import shorten
from typing import Any, Literal

from ray_qjm.planning.schedule import Schedule

TaskState = Literal["running", "cancelling", "done", "cancelled", "failed", "interrupted"]

#: Seconds over which the rate is taken: long enough to be steady over chunks of 1-2 s, short enough to follow.
RATE_WINDOW_S = 20.0
#: Less than so many seconds make no rate.
LEAST_S = 0.5


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """What one backend has done in a task.

    Attributes:
        name: The backend.
        done: Circuits with counts.
        failed: Circuits without.
        running: Circuits in the chunks that are submitted to it.
        jobs_running: Those chunks.
        jobs_done: Chunks that came back.
        jobs_failed: Chunks whose worker process died.
        pending: Of a service: jobs that were submitted and haven't ended; ``None`` for a simulator on workers.
        queued: Jobs that wait for a permit.
        position: Of the foremost job in the service's queue, where it tells.
        eta_s: Seconds until that one begins, where the service tells.
        closed: Why it takes nothing more.
        trouble: Why one of its jobs doesn't get on just now: it is refused for a while, or can't be asked.
    """

    name: str
    done: int
    failed: int
    running: int
    jobs_running: int
    jobs_done: int
    jobs_failed: int
    pending: int | None = None
    queued: int | None = None
    position: int | None = None
    eta_s: float | None = None
    closed: str | None = None
    trouble: str | None = None

    def words(self) -> str:
        """What a service does just now, for people.

        >>> BackendStatus("torino", 0, 0, 300, 1, 0, 0, pending=3, queued=2, position=17, eta_s=540).words()
        '3 jobs pending, 2 queued here, position 17, starts in about 9 min'
        """
        if self.pending is None:
            return ""
        found = [f"{self.pending} job{'s' * (self.pending != 1)} pending"]
        found += [f"{self.queued} queued here"] if self.queued else []
        found += place_words(self.position, self.eta_s)
        found += [f"trouble: {shorten(self.trouble, 80)}"] if self.trouble else []
        found += [f"closed ({self.closed.partition(':')[0]})"] if self.closed else []
        return ", ".join(found)


def place_words(position: int | None, eta_s: float | None) -> list[str]:
    """Where a job stands in a service's queue, as far as it tells."""
    found = [] if position is None else [f"position {position}"]
    return found + ([f"starts in about {_about(eta_s)}"] if eta_s else [])


def _about(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """Where a task stands.

    Attributes:
        task_id: Its id.
        name: What the user called it.
        state: ``"running"``, ``"cancelling"``, ``"done"``, ``"cancelled"`` or ``"failed"``; of a stored
            task also ``"interrupted"``: its process has died, and the same call goes on with it.
        total: Circuits of the task; ``None`` while a source of unknown length goes on.
        done: Circuits with counts.
        failed: Circuits without, for a reason of their own.
        cancelled: Circuits that were not run because the task ended.
        elapsed_s: Seconds since it began.
        rate: Circuits a second of late; ``None`` at the beginning.
        backends: One entry a backend.
    """

    task_id: str
    name: str | None
    state: TaskState
    total: int | None
    done: int
    failed: int
    cancelled: int
    elapsed_s: float
    rate: float | None
    backends: tuple[BackendStatus, ...]

    @property
    def running(self) -> int:
        """Circuits in chunks that are submitted."""
        return sum(backend.running for backend in self.backends)

    @property
    def waiting(self) -> int | None:
        """Circuits in no chunk yet, ``None`` if unknown."""
        if self.total is None:
            return None
        return max(0, self.total - self.done - self.failed - self.cancelled - self.running)

    @property
    def jobs(self) -> dict[str, int]:
        """Chunks by state: running, done and failed."""
        return {
            "running": sum(backend.jobs_running for backend in self.backends),
            "done": sum(backend.jobs_done for backend in self.backends),
            "failed": sum(backend.jobs_failed for backend in self.backends),
        }

    @property
    def eta_s(self) -> float | None:
        """Seconds to go at the present rate, ``None`` if unknown."""
        if self.total is None or not self.rate:
            return None
        return (self.total - self.done - self.failed - self.cancelled) / self.rate

    def plain(self) -> dict[str, Any]:
        """As JSON values, for ``of_plain``."""
        return asdict(self)

    @classmethod
    def of_plain(cls, values: Mapping[str, Any]) -> TaskStatus:
        """What ``plain`` gave."""
        backends = tuple(BackendStatus(**backend) for backend in values["backends"])
        return cls(**{**values, "backends": backends})

    def lines(self) -> list[str]:
        """A few lines for people."""
        called = f" {self.name!r}" if self.name else ""
        of = "" if self.total is None else f" of {self.total:,}"
        states = [f"{self.done:,}{of} circuits done", f"{self.failed:,} failed"]
        states += [f"{self.running:,} running"] if self.running else []
        states += [f"{self.waiting:,} waiting"] if self.waiting else []
        states += [f"{self.cancelled:,} cancelled"] if self.cancelled else []
        jobs = ", ".join(f"{count:,} {state}" for state, count in self.jobs.items())
        rate = "" if self.rate is None else f", {self.rate:,.0f} circuits/s"
        text = [f"task {self.task_id}{called}: {self.state} after {self.elapsed_s:.1f} s{rate}"]
        text += [f"  circuits: {', '.join(states)}", f"  jobs: {jobs}"]
        if len(self.backends) > 1 or any(b.pending is not None for b in self.backends):
            text += [
                f"  {b.name}: {b.done:,} done, {b.failed:,} failed, {b.running:,} running"
                + (f"; {words}" if (words := b.words()) else "")
                for b in self.backends
            ]
        return text

    def __str__(self) -> str:
        """The lines, joined."""
        return "\n".join(self.lines())

    def __repr__(self) -> str:
        """The lines, for a REPL."""
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


@dataclass(slots=True)
class Pace:
    """Circuits a second of late; ``now`` comes in.

    >>> pace = Pace()
    >>> pace.add(0.0, 0); pace.add(2.0, 100)
    >>> pace.rate
    50.0
    """

    _points: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, now: float, finished: int) -> None:
        """Note how many circuits are finished at ``now``, in seconds of a monotonic clock."""
        self._points.append((now, finished))
        while len(self._points) > 2 and now - self._points[1][0] >= RATE_WINDOW_S:
            self._points.popleft()

    @property
    def rate(self) -> float | None:
        """Circuits a second over the last ``RATE_WINDOW_S``, ``None`` before anything is known."""
        if len(self._points) < 2:
            return None
        (begin, before), (end, after) = self._points[0], self._points[-1]
        # A job's circuits land all at once: that says nothing about their pace.
        return (after - before) / (end - begin) if end - begin >= LEAST_S else None


def snapshot(
    schedule: Schedule,
    names: Sequence[str],
    *,
    task_id: str,
    name: str | None,
    state: TaskState,
    cancelled: int,
    elapsed_s: float,
    rate: float | None,
    services: Mapping[int, Mapping[str, Any]] | None = None,
) -> TaskStatus:
    """Take down where the schedule stands.

    Args:
        schedule: It.
        names: Of the backends.
        task_id: See ``TaskStatus``, and so the others.
        name: See there.
        state: See there.
        cancelled: See there.
        elapsed_s: See there.
        rate: See there.
        services: By position what a service's line says: ``pending``, ``queued``, ``position``, ``eta_s``, ``trouble``.
    """
    backends = tuple(
        BackendStatus(
            name=backend_name,
            done=backend.done,
            failed=backend.failed,
            running=backend.circuits_in_flight,
            jobs_running=backend.in_flight,
            jobs_done=backend.chunks,
            jobs_failed=backend.crashes,
            closed=None if backend.closed is None else ": ".join(backend.closed),
            **(services or {}).get(at, {}),
        )
        for at, (backend_name, backend) in enumerate(zip(names, schedule.backends, strict=True))
    )
    return TaskStatus(
        task_id=task_id,
        name=name,
        state=state,
        total=schedule.total,
        done=schedule.done,
        failed=schedule.failed,
        cancelled=cancelled,
        elapsed_s=elapsed_s,
        rate=rate,
        backends=backends,
    )
