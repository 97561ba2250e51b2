"""A million circuits at a service in virtual time, against the least time that any client could take.

Book, packer, assembly and polling are those of a real task; latencies, journals and workers are
``tests.services.simulation``'s. Nothing of this machine is in these figures: they are the same everywhere.
"""

from __future__ import annotations

import heapq
import math
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ray_qjm.cluster.services import POLLS_S
from ray_qjm.options import Limits, Quota
from ray_qjm.planning.orders import Order
from ray_qjm.planning.quota import WINDOW_S
from tests.services.judging import by_chance, judge_all
from tests.services.scripted import Fault, Job, Script, ScriptedService
from tests.services.simulation import Delays, Simulation, Work

SHOTS = 1024
#: Seconds a job and seconds an execution, as IBM counts its usage (shots of short circuits).
JOB_S, EXECUTION_S = 2.0, 250e-6
#: Seconds in the service's queue.
QUEUE_S = (60.0, 600.0)
#: Circuits that workers compile as one chunk, and how long that takes them; two chunks at once are 2,000 a second,
#: what ten cores do.
CHUNK, PREPARE_S = 500, 0.5
#: Bytes of a circuit, where they count: 10 to 200 kB, as evenly in orders of magnitude.
BYTES = (10_000, 200_000)
_SIZES = 4096
#: Seconds that a 429 asks to wait.
THROTTLED_S = 30.0


@dataclass(frozen=True)
class Account:
    """What a service allows, and how quick it is.

    Attributes:
        name: What binds.
        pending: Jobs that may be submitted and not ended.
        parallel: Jobs that run at once.
        execution_s: Seconds an execution.
        max_executions: Of one job.
        max_payload_bytes: Of one job; circuits weigh ``BYTES`` then.
        per_minute: Jobs that may be made in any minute.
    """

    name: str
    pending: int = 3
    parallel: int = 1
    execution_s: float = EXECUTION_S
    max_executions: int = 10_000_000
    max_payload_bytes: int | None = None
    per_minute: int = 5

    @property
    def limits(self) -> Limits:
        """Of one job."""
        return Limits(max_executions=self.max_executions, max_payload_bytes=self.max_payload_bytes)

    def run_s(self, executions: int) -> float:
        """How long a job runs."""
        return JOB_S + self.execution_s * executions


ACCOUNTS = (
    Account("one QPU"),
    Account("slots: 3 at once", parallel=3),
    Account("slots: quick QPU", execution_s=1e-6),
    Account("rate: 200 at once", pending=200, parallel=200),
    Account("bytes: 300 MB, 3 at once", parallel=3, max_payload_bytes=300_000_000),
)


@dataclass(frozen=True)
class Outcome:
    """One run.

    Attributes:
        slots: Share of the time in which all slots were full, see ``slots_full``; ``None``: they never were.
        fill: How full jobs were by their tightest limit: mean.
        least: And the least full of them, the last one left out.
        jobs: Jobs at the service.
        total_s: From the first circuit to the last row.
        minimum_s: See ``minimum``.
        any_s: See ``minimum``: with more jobs than are needed.
        refused: Submissions that the service refused.
        polls: Requests that asked how jobs are.
        wall_s: Seconds that the simulation took.
    """

    slots: float | None
    fill: float
    least: float
    jobs: int
    total_s: float
    minimum_s: float
    any_s: float
    refused: int
    polls: int
    wall_s: float

    @property
    def ratio(self) -> float:
        """Total time to the least possible."""
        return self.total_s / self.minimum_s


def run(account: Account, circuits: int, seed: int, *, faults: bool) -> Outcome:
    """One task in virtual time, judged as the tests judge theirs: every circuit's shots ran and were counted once."""
    script = _script(account, seed, faults=faults)
    work = Work("million", circuits, lambda circuit: SHOTS, _size(account, seed), CHUNK)
    quota = Quota(account.pending, account.per_minute)
    begin = time.perf_counter()
    sim = Simulation(
        [work], {"qpu": script}, quota, delays=Delays(prepare_s=PREPARE_S), polls=POLLS_S, seed=seed
    ).run()
    wall_s = time.perf_counter() - begin
    judge_all(sim)
    if work.reasons:
        raise AssertionError(
            f"{len(work.reasons)} circuits have no counts: {next(iter(work.reasons.items()))}"
        )
    service, orders = sim.services["qpu"], sim.drivers["million"].orders
    fills = sorted(_fill(account.limits, order) for order in orders)
    return Outcome(
        slots_full(service),
        sum(fills) / len(fills),
        fills[min(1, len(fills) - 1)],
        len(service.jobs),
        sim.now,
        *minimum(account, script, circuits, sum(map(work.size_of, range(circuits)))),
        sum(service.refused.values()),
        sum(request.kind == "status" for request in service.requests),
        wall_s,
    )


# The service.


def _script(account: Account, seed: int, *, faults: bool) -> Script:
    least, most = QUEUE_S
    script = Script(
        account.limits,
        pending=account.pending,
        per_minute=account.per_minute,
        parallel=account.parallel,
        queue_s=lambda number: least + (most - least) * _chance(seed, "queue", number),
        run_s=lambda job: account.run_s(job.executions),
    )
    if faults:
        script.faults = lambda number: _fault(seed, number)
        script.fails = lambda number: "Error code: 1000" if by_chance(seed, "fails", number, 4) else None
        script.asks = lambda kind, number: not by_chance(seed, kind, number, 2)
    return script


def _fault(seed: int, number: int) -> Fault:
    """Of 100 submissions 8 get no reply, in one of four ways, and 4 a 429."""
    at = _chance(seed, "submit", number) * 100
    kinds = (
        (3, Fault(reply="drop")),
        (5, Fault(jobs=0, reply="drop")),
        (7, Fault(reply="502")),
        (8, Fault(lands_s=12.0, reply="drop")),
        (12, Fault(throttled_s=THROTTLED_S)),
    )
    return next((fault for bound, fault in kinds if at < bound), Fault())


def _chance(seed: int, kind: str, number: int) -> float:
    """The same number in [0, 1) in every process."""
    return zlib.crc32(f"{seed} {kind} {number}".encode()) / 2**32


def _size(account: Account, seed: int) -> Callable[[int], int]:
    if account.max_payload_bytes is None:
        return lambda circuit: 0
    least, most = BYTES
    sizes = [int(least * (most / least) ** _chance(seed, "size", number)) for number in range(_SIZES)]
    return lambda circuit: sizes[circuit * 2654435761 % 2**32 % _SIZES]


def _fill(limits: Limits, order: Order) -> float:
    pairs = ((order.executions, limits.max_executions), (order.payload_bytes, limits.max_payload_bytes))
    return max(value / most for value, most in pairs if most is not None)


# Slots.


def slots_full(service: ScriptedService) -> float | None:
    """Share of the time in which all slots were full, as the service sees it.

    From the moment at which they first were to the last new chunk (a job that isn't another's second try). Left
    out is what no client could use: while as many jobs were made in the last minute as may be, while a 429 asks
    to wait, and while a submission without a reply is looked for, which never arrived.
    """
    script, jobs = service.script, sorted(service.jobs.values(), key=lambda job: job.made_at)
    first_of: dict[str, Job] = {}
    for job in jobs:
        first_of.setdefault(job.tag, job)
    end = max(job.made_at for job in first_of.values())
    steps = [(job.made_at, 1, 0) for job in jobs]
    steps += [(job.ended_at, -1, 0) for job in jobs if job.ended_at is not None]
    for since, until in (*_throttled(service, jobs), *_looked_for(service)):
        steps += [(since, 0, 1), (until, 0, -1)]
    steps.sort()
    pending = excused = 0
    at, began, full, counted = 0.0, False, 0.0, 0.0
    for then, pending_step, excused_step in steps:
        passed = min(then, end) - min(at, end)
        if began and not excused:
            counted += passed
            full += passed if pending >= script.pending else 0.0
        at, pending, excused = then, pending + pending_step, excused + excused_step
        began = began or pending >= script.pending
    return full / counted if counted else None


def _throttled(service: ScriptedService, jobs: Sequence[Job]) -> Iterator[tuple[float, float]]:
    rate = service.script.per_minute
    if rate is not None:
        for earlier, job in zip(jobs, jobs[rate - 1 :], strict=False):
            if earlier.made_at + WINDOW_S > job.made_at:
                yield job.made_at, earlier.made_at + WINDOW_S
    for request in service.requests:
        if request.kind == "submit" and "Throttled" in request.outcome:
            yield request.at, request.at + THROTTLED_S


def _looked_for(service: ScriptedService) -> Iterator[tuple[float, float]]:
    """From each submission without a reply that never arrived to the last look for it."""
    made = {(job.tag, job.made_at) for job in service.jobs.values()}
    lost: dict[str, float] = {}
    looked: dict[str, float] = {}
    for request in service.requests:
        tag = request.what
        if request.kind == "submit":
            if tag in lost and tag in looked:
                yield lost[tag], looked[tag]
            lost.pop(tag, None)
            looked.pop(tag, None)
            if (tag, request.at) not in made and (
                "no reply" in request.outcome or "gateway" in request.outcome
            ):
                lost[tag] = request.at
        elif request.kind == "find" and tag in lost:
            looked[tag] = request.at


# The least time.


def minimum(account: Account, script: Script, circuits: int, payload_bytes: int) -> tuple[float, float]:
    """Seconds that the best client would take: without latency, told of everything at once, all circuits compiled.

    It makes each job in the moment in which rate and slots allow it, which is the best there is, since no job ends
    later for having been made earlier. It is under the service's own rules (its queue, one job after the other on
    each QPU), and a job that fails is made again when it has; lost replies and 429 don't concern it.

    Returns:
        With as few jobs as there can be, cut in the best of three ways (full, and what is left at either end; all
        equal); and with up to three times as many, all equal, if that is less: where slots are idle, smaller jobs
        end sooner, and cost more.
    """
    executions = circuits * SHOTS
    full = account.max_executions // SHOTS * SHOTS
    if account.max_payload_bytes is not None:
        # As if circuits could be cut to fill the last byte.
        full = min(full, math.floor(executions * account.max_payload_bytes / payload_bytes))
    number, left = divmod(executions, full)
    rest = [left] if left else []
    least = number + len(rest)
    few = min(
        _ideal(account, script, cut)
        for cut in ([full] * number + rest, rest + [full] * number, _equal(executions, least))
    )
    many = [_ideal(account, script, _equal(executions, jobs)) for jobs in range(least + 1, 3 * least + 1)]
    return few, min(few, *many)


def _equal(executions: int, jobs: int) -> list[int]:
    return [executions // jobs + (nth < executions % jobs) for nth in range(jobs)]


def _ideal(account: Account, script: Script, cut: Sequence[int]) -> float:
    todo = [(0.0, nth, executions) for nth, executions in enumerate(cut)]
    made: list[float] = []
    pending: list[float] = []  # ends of jobs that have a slot
    running = [0.0] * account.parallel
    started = ended = 0.0
    for number in range(10 * len(cut)):
        if not todo:
            return ended
        ready, nth, executions = heapq.heappop(todo)
        at = max(ready, made[-1] if made else 0.0)
        if number >= account.per_minute:
            at = max(at, made[number - account.per_minute] + WINDOW_S)
        if len(pending) == account.pending:
            at = max(at, heapq.heappop(pending))
        made.append(at)
        started = max(at + script.queue_s(number), started, heapq.heappop(running))
        end = started + account.run_s(executions)
        heapq.heappush(running, end)
        heapq.heappush(pending, end)
        ended = max(ended, end)
        if script.fails(number) is not None:
            heapq.heappush(todo, (end, nth, executions))
    raise AssertionError("all jobs fail")
