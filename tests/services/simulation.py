"""Whole tasks in virtual time: drivers, a desk, services and crashes, one event after the other in one thread.

``planning.assembly`` and ``planning.book`` decide as they do in earnest; what surrounds them there (Ray, threads,
journals, workers) is a few lines each here, with latencies. Circuits are row numbers with shots and sizes: a million
of them take seconds.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ray_qjm.backends.desk import CLIENT_S
from ray_qjm.options import Quota, RetryPolicy
from ray_qjm.planning.ranges import Ranges
from tests.services.scripted import Script, ScriptedService
from tests.services.simulated_desk import SimulatedDesk
from tests.services.simulated_driver import SimulatedDriver

#: No run of a test has more steps; one that does goes round in circles.
MOST_STEPS = 2_000_000


@dataclass
class Work:
    """One task and its store, which outlives its drivers.

    Attributes:
        name: Of the task.
        count: Circuits.
        shots_of: Shots of a circuit.
        size_of: Bytes of a circuit.
        chunk: Circuits that are prepared together.
        retry: See ``RetryPolicy``.
        timeout_s: Of one job.
        mixed: Whether a job may hold circuits with different numbers of shots.
        rows: Shots that have been counted, by circuit; what is here is safe.
        reasons: Why a circuit has no counts, or not all.
        stored: Circuits with rows.
        journal: What the store's journal says of jobs, by tag.
        epoch: Which of its drivers counts.
        complaints: What must not happen.
    """

    name: str
    count: int
    shots_of: Callable[[int], int] = lambda circuit: 100
    size_of: Callable[[int], int] = lambda circuit: 0
    chunk: int = 10
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout_s: float | None = None
    mixed: bool = False
    rows: dict[int, int] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    stored: Ranges = field(default_factory=Ranges)
    journal: dict[str, dict[str, Any]] = field(default_factory=dict)
    epoch: int = 0
    complaints: list[str] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether every circuit has its row."""
        return self.stored.count(0, self.count) == self.count


@dataclass(frozen=True)
class Delays:
    """Seconds that things take, ``latency_s`` from half to once and a half by chance.

    Attributes:
        latency_s: A request to the service and back.
        write_s: Writing a batch into one journal.
        prepare_s: Building and compiling a chunk.
        restart_s: From a crash to the next life.
    """

    latency_s: float = 0.2
    write_s: float = 0.01
    prepare_s: float = 0.5
    restart_s: float = 5.0


Crash = Literal["desk", "driver"]


class Simulation:
    """See the module's docstring.

    Args:
        works: The tasks.
        scripts: How each backend behaves.
        quota: Of the account, which all backends share.
        delays: How long things take.
        polls: The least and the most seconds between two polls.
        seed: Of latencies and jitter.
        crashes: What dies before the step with a number.
    """

    def __init__(
        self,
        works: list[Work],
        scripts: Mapping[str, Script],
        quota: Quota,
        *,
        delays: Delays | None = None,
        polls: tuple[float, float] = (1.0, 60.0),
        seed: int = 0,
        crashes: Mapping[int, Crash] | None = None,
    ) -> None:
        self.now = 0.0
        self.steps = 0
        self.random = random.Random(seed)
        self.delays = Delays() if delays is None else delays
        self.quota = quota
        self.polls = polls
        self.works = works
        self.services = {name: ScriptedService(lambda: self.now, script) for name, script in scripts.items()}
        self.journal: dict[str, dict[str, Any]] = {}
        self._crashes = dict(crashes or {})
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._ties = itertools.count()
        self.desk: SimulatedDesk | None = SimulatedDesk(self, {})
        self.drivers: dict[str, SimulatedDriver] = {}
        for work in works:
            self._start(work)

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        """Call something later."""
        heapq.heappush(self._events, (self.now + seconds, next(self._ties), call))

    def on_desk(self, seconds: float, call: Callable[[SimulatedDesk], None]) -> None:
        """Call the desk later; if there is none then, nobody hears it."""

        def later() -> None:
            if self.desk is not None:
                call(self.desk)

        self.after(seconds, later)

    def latency(self) -> float:
        """How long a request takes this time."""
        return self.delays.latency_s * (0.5 + self.random.random())

    def run(
        self, *, until_s: float = 1e8, at: Mapping[int, Callable[[], object]] | None = None
    ) -> Simulation:
        """Go on until every task has its rows and the desk nothing to do.

        Args:
            until_s: It must have ended by then.
            at: Called before the step with a number.
        """
        for number in itertools.count(self.steps):
            if self.over or not self._events:
                break
            assert number < MOST_STEPS and self.now < until_s, f"no end in sight: {self.story()}"
            self.steps = number + 1
            if at is not None and number in at:
                at[number]()
            self._crash(self._crashes.pop(number, None))
            self.now, _, call = heapq.heappop(self._events)
            call()
        assert self.over, f"nothing happens any more: {self.story()}"
        return self

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return all(work.done for work in self.works) and self.desk is not None and not self.desk.book.tickets

    def story(self) -> str:
        """Where it stands, for messages."""
        tickets = [] if self.desk is None else list(self.desk.book.tickets.values())
        rows = {work.name: list(work.stored) for work in self.works}
        return f"{self.now:g} s, {self.steps} steps, rows {rows}, tickets {tickets[:5]}"

    def task(self, session: str) -> Work:
        """Whose session it is."""
        return next(work for work in self.works if work.name == session.partition("#")[0])

    def _start(self, work: Work) -> None:
        work.epoch += 1
        self.drivers[work.name] = SimulatedDriver(self, work)

    def _crash(self, what: Crash | None) -> None:
        if what == "desk" and self.desk is not None:
            self.desk.alive = False
            self.desk = None
            self.after(self.delays.restart_s, self._restart)
        if what == "driver":
            work = self.works[self.random.randrange(len(self.works))]
            driver = self.drivers[work.name]
            if not driver.alive or work.done:
                return
            driver.alive = False
            self.after(self.delays.restart_s, lambda: self._start(work))
            self.on_desk(CLIENT_S, lambda desk: desk.gone(driver.session))

    def _restart(self) -> None:
        self.desk = SimulatedDesk(self, self.journal)
        for driver in self.drivers.values():
            if driver.alive:
                self.after(self.latency(), driver.hello)
