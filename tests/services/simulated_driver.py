"""A driver of ``tests.services.simulation``: cuts its task into chunks and stores the rows, through assemblies."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ray_qjm.planning.adopting import Past, adoptable
from ray_qjm.planning.assembly import Act, Assembly, Close, Collect, Submit, Whole
from ray_qjm.planning.events import Chunk
from ray_qjm.planning.orders import Order
from ray_qjm.planning.quota import Cost
from ray_qjm.planning.ranges import Ranges
from ray_qjm.planning.tickets import FINAL
from ray_qjm.planning.verdicts import Verdict
from tests.services.scripted import Job
from tests.services.simulated_desk import Wish

if TYPE_CHECKING:
    from tests.services.simulation import Simulation, Work

#: Full jobs that wait at the desk: one is there when a slot comes free, with the next behind it.
AHEAD = 2
#: Chunks that are prepared at once, for each backend.
AT_ONCE = 2
CANCELLED = Verdict("cancelled", "TaskCancelledError", "the task was cancelled")
#: Where a range of circuits was tried already.
Tried = frozenset[str]


class SimulatedDriver:
    """One process that works on a task; the next one takes up what the store's journal tells.

    Args:
        world: Where it is.
        work: The task, of which it has just begun an epoch.
    """

    def __init__(self, world: Simulation, work: Work) -> None:
        self.alive = True
        self.session = f"{work.name}#{work.epoch}"
        self.orders: list[Order] = []
        self._world = world
        self._work = work
        self._cancelled = False
        self._assemblies = {
            name: Assembly(service.script.limits, mixed=work.mixed, shots_of=work.shots_of)
            for name, service in world.services.items()
        }
        self._wishes: dict[str, tuple[Wish, int]] = {}
        self._queued: dict[str, set[str]] = {name: set() for name in world.services}
        self._fetching: set[str] = set()
        self._results: dict[str, dict[int, tuple[str, Order]]] = {name: {} for name in world.services}
        self._preparing = dict.fromkeys(world.services, 0)
        self._tried: dict[tuple[str, int], Tried] = {}
        self._todo: dict[str | None, deque[tuple[int, int, Tried]]] = {
            name: deque() for name in (None, *world.services)
        }
        self._adopt()
        world.after(world.latency(), self.hello)

    def hello(self) -> None:
        """Tell the desk what is under way, be it a new one or this driver."""
        desk = self._world.desk
        if not self.alive or desk is None:
            return  # the next desk will be told
        desk.orphans({tag: entry for tag, entry in self._work.journal.items() if tag in self._wishes})
        for wish, _ in list(self._wishes.values()):
            desk.enqueue(wish)
        self._go_on()

    def cancel(self) -> None:
        """The user wants no more of it."""
        self._cancelled = True
        for queue in self._todo.values():
            while queue:
                start, stop, _ = queue.popleft()
                self._store({}, [(start, stop, CANCELLED)], start, stop)
        for name, assembly in self._assemblies.items():
            self._act(name, assembly.flush())
        for tag in list(self._wishes):
            self._cancel(tag, CANCELLED)
        self._go_on()

    def told(self, tag: str, state: str, job_id: str | None, verdict: Verdict | None) -> None:
        """What became of a job."""
        if not self.alive:
            return
        if tag not in self._wishes:
            if not any(tag == held for jobs in self._results.values() for held, _ in jobs.values()):
                self._forget(tag)
            return
        wish, number = self._wishes[tag]
        if state != "queued":
            self._queued[wish.counter].discard(tag)
        if state == "done":
            if tag not in self._fetching:
                self._fetching.add(tag)
                self._world.after(self._world.latency(), lambda: self._fetch(tag, job_id or ""))
        elif state in FINAL:
            del self._wishes[tag]
            assert verdict is not None, f"{tag} is {state}, and nobody says why"
            self._act(wish.counter, self._assemblies[wish.counter].failed(number, verdict))
            self._forget(tag)
        self._go_on()

    # Within.

    def _adopt(self) -> None:
        """Jobs of earlier sessions that may have counts; their circuits come in as chunks of their backend."""
        work = self._work
        claimed = {name: Ranges() for name in self._world.services}
        past = [
            Past(tag, entry["counter"], session_of(tag), entry["runs"], sent=entry["job_id"] is not None)
            for tag, entry in work.journal.items()
            if entry["state"] not in FINAL or entry["state"] in ("done", "lost")
        ]
        for tag in adoptable(past, work.shots_of):
            entry = work.journal[tag]
            runs = entry["runs"]
            if all(work.stored.count(run.start, run.stop) == run.circuits for run in runs):
                continue
            order = self._assemblies[entry["counter"]].adopt(runs)
            wish = Wish(
                tag, entry["counter"], self.session, entry["cost"], work.retry, runs, sendable=False,
                timeout_s=work.timeout_s, job_id=entry["job_id"], past=entry["past"],
            )  # fmt: skip
            self._wishes[tag] = (wish, order.number)
            for run in runs:
                claimed[wish.counter].add(run.start, run.stop)
        every = Ranges()
        for name, ranges in claimed.items():
            for start, stop in ranges:
                every.add(start, stop)
                self._plan(name, work.stored.rest(start, stop))
        for start, stop in every.rest(0, work.count):
            self._plan(None, work.stored.rest(start, stop))

    def _plan(self, name: str | None, ranges: Iterable[tuple[int, int]], tried: Tried = frozenset()) -> None:
        step = self._work.chunk
        for start, stop in ranges:
            self._todo[name].extend((at, min(at + step, stop), tried) for at in range(start, stop, step))

    def _next(self, name: str) -> tuple[int, int, Tried] | None:
        for queue in (self._todo[name], self._todo[None]):
            for item in queue:
                if name not in item[2]:
                    queue.remove(item)
                    return item
        return None

    def _go_on(self) -> None:
        """Prepare what the desk will soon want; send what isn't full when nothing more comes."""
        for name, assembly in self._assemblies.items():
            # A backend that takes no more hands its chunks on; those with adopted jobs have to come in all the same.
            while len(self._queued[name]) < AHEAD and self._preparing[name] < AT_ONCE:
                item = self._next(name)
                if item is None:
                    break
                self._preparing[name] += 1
                self._tried[name, item[0]] = item[2] | {name}
                chunk = Chunk(item[0], item[1])
                self._world.after(self._world.delays.prepare_s, lambda n=name, c=chunk: self._prepared(n, c))  # type: ignore[misc]
            if (
                not self._preparing[name]
                and assembly.waiting
                and not self._todo[name]
                and not self._todo[None]
            ):
                self._act(name, assembly.flush())

    def _prepared(self, name: str, chunk: Chunk) -> None:
        if not self.alive:
            return
        self._preparing[name] -= 1
        sizes = {circuit: self._work.size_of(circuit) for circuit in range(chunk.start, chunk.stop)}
        assembly = self._assemblies[name]
        self._act(name, assembly.prepared(chunk, sizes))
        if self._cancelled:
            self._act(name, assembly.flush())
        self._go_on()

    def _fetch(self, tag: str, job_id: str) -> None:
        if not self.alive:
            return
        wish, number = self._wishes[tag]
        try:
            job = self._world.services[wish.counter].fetch(job_id)
        except Exception:
            self._world.after(1.0, lambda: self._fetch(tag, job_id))
            return
        self._check(wish, job)
        del self._wishes[tag]
        self._fetching.discard(tag)
        self._act(wish.counter, self._assemblies[wish.counter].done(number), tag)
        self._go_on()

    def _act(self, name: str, acts: Iterable[Act], tag: str = "") -> None:
        for act in acts:
            match act:
                case Submit(order):
                    self._submit(name, order)
                case Collect(order, wholes):
                    if order is not None:
                        self._results[name][order.number] = (tag, order)
                    for whole in wholes:
                        self._rows(name, whole)
                    self._let_go(name)
                case Close(verdict):
                    for open_, (wish, _) in list(self._wishes.items()):
                        if wish.counter == name:
                            self._cancel(open_, Verdict("cancelled", verdict.error_type, verdict.reason))

    def _submit(self, name: str, order: Order) -> None:
        self.orders.append(order)
        if self._cancelled:
            self._act(name, self._assemblies[name].failed(order.number, CANCELLED))
            return
        tag = f"{self.session}.{name}.{order.number}"
        usage = 2.0 + 250e-6 * order.executions
        wish = Wish(
            tag, name, self.session, Cost(1, order.executions, usage), self._work.retry, order.runs,
            order.payload_bytes, self._work.timeout_s,
        )  # fmt: skip
        self._wishes[tag] = (wish, order.number)
        self._queued[name].add(tag)
        self._world.on_desk(
            self._world.latency() / 2, lambda desk: desk.enqueue(wish) if self.alive else None
        )

    def _rows(self, name: str, whole: Whole) -> None:
        shots: dict[int, int] = {}
        chunk = whole.chunk
        for number in whole.orders:
            for run in self._results[name][number][1].runs:
                for circuit in range(max(run.start, chunk.start), min(run.stop, chunk.stop)):
                    shots[circuit] = shots.get(circuit, 0) + run.shots
        tried = self._tried.pop((name, chunk.start))
        others = [
            other for other, each in self._assemblies.items() if each.closed is None and other not in tried
        ]
        reasons = [(lack.start, lack.stop, lack.verdict) for lack in whole.lacks]
        if others and not self._cancelled:
            elsewhere = [(lack.start, lack.stop) for lack in whole.lacks if lack.elsewhere]
            self._plan(None, elsewhere, tried)
            reasons = [(lack.start, lack.stop, lack.verdict) for lack in whole.lacks if not lack.elsewhere]
            left = Ranges(elsewhere).rest(chunk.start, chunk.stop)
        else:
            left = [(chunk.start, chunk.stop)]
        for start, stop in left:
            self._store(shots, reasons, start, stop)

    def _store(
        self, shots: dict[int, int], reasons: Iterable[tuple[int, int, Verdict]], start: int, stop: int
    ) -> None:
        work = self._work
        if work.stored.within(start, stop):
            work.complaints.append(f"rows of circuits {start}-{stop} are made twice")
        for circuit in range(start, stop):
            work.rows[circuit] = shots.get(circuit, 0)
        for first, last, verdict in reasons:
            for circuit in range(max(first, start), min(last, stop)):
                work.reasons[circuit] = str(verdict)
        work.stored.add(start, stop)

    def _let_go(self, name: str) -> None:
        """Jobs whose circuits all have their rows are forgotten."""
        for number, (tag, order) in list(self._results[name].items()):
            if all(self._work.stored.count(run.start, run.stop) == run.circuits for run in order.runs):
                del self._results[name][number]
                self._forget(tag)

    def _forget(self, tag: str) -> None:
        self._world.on_desk(self._world.latency() / 2, lambda desk: desk.forget(tag))

    def _cancel(self, tag: str, verdict: Verdict) -> None:
        self._world.on_desk(self._world.latency() / 2, lambda desk: desk.cancel(tag, verdict))

    def _check(self, wish: Wish, job: Job) -> None:
        """A result is of the job that was ordered."""
        asked = [(range(run.start, run.stop), run.shots) for run in wish.runs]
        if [tuple(part) for part in job.parts] != asked or job.tag != wish.tag:
            self._work.complaints.append(f"{wish.tag} got {job.tag}: {job.parts}")


def session_of(tag: str) -> int:
    """The number of the session that made a job."""
    return int(tag.partition("#")[2].partition(".")[0])
