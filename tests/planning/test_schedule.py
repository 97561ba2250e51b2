"""The task's state machine, driven by a simulated world in which anything comes back in any order."""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ray_qjm.errors import InvalidTransitionError
from ray_qjm.planning.chunks import ChunkSizer
from ray_qjm.planning.events import (
    Action,
    Cancel,
    Chunk,
    Crashed,
    Deferred,
    Dropped,
    Event,
    Failure,
    Finish,
    Gate,
    Shortened,
    Slots,
    Start,
    Stop,
    Stored,
    WriteFailed,
)
from ray_qjm.planning.ranges import Ranges
from ray_qjm.planning.schedule import MAX_DEATHS, TRANSITIONS, BackendState, Schedule

PACE_S = 0.01


def make(
    total: int | None,
    *,
    backends: int = 1,
    most: int | None = None,
    max_failures: int = 1000,
    crash_retries: int = 2,
    prefetch: int = 2,
    max_in_flight: int | None = None,
    kept: Iterable[tuple[int, int]] = (),
) -> Schedule:
    return Schedule(
        total,
        [BackendState(ChunkSizer(1.5, most)) for _ in range(backends)],
        max_failures=max_failures,
        crash_retries=crash_retries,
        prefetch=prefetch,
        max_in_flight=max_in_flight,
        kept=Ranges(kept),
    )


@dataclass
class Circuits:
    """What circuits do when they run; those not named here are done."""

    killers: frozenset[int] = frozenset()
    failing: Mapping[int, str] = field(default_factory=dict)  # to the error's type
    memory: Mapping[int, int] = field(default_factory=dict)  # bytes beyond those that a chunk has anyway

    def run(self, chunk: Chunk) -> Stored | Crashed:
        deferred = [i for i in range(chunk.start, chunk.stop) if self.memory.get(i, 0) > chunk.memory]
        ran = [i for i in range(chunk.start, chunk.stop) if i not in set(deferred)]
        if self.killers.intersection(ran):
            return Crashed(chunk, "WorkerDiedError", "its worker died")
        failures = [
            Failure(i, i + 1, self.failing[i], f"circuit {i}", "run") for i in ran if i in self.failing
        ]
        return Stored(
            chunk,
            seconds=len(ran) * PACE_S,
            done=len(ran) - len(failures),
            failures=tuple(failures),
            deferred=tuple(
                Deferred(group[0], group[-1] + 1, max(self.memory[i] for i in group))
                for group in neighbours(deferred)
            ),
        )


def neighbours(numbers: Iterable[int]) -> list[list[int]]:
    """Runs of consecutive numbers."""
    return [
        [number for _, number in group]
        for _, group in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    ]


class World:
    """All that surrounds a schedule. It keeps books of its own, and holds each action against them."""

    def __init__(self, schedule: Schedule, circuits: Circuits, true_total: int) -> None:
        self.schedule = schedule
        self.circuits = circuits
        self.true_total = true_total
        self.feeding = schedule.total is None
        self.in_flight: list[Chunk] = []
        self.unread: set[Chunk] = set()
        self.rows: dict[int, str] = {}
        self.kept = {i for start, stop in schedule.kept for i in range(start, stop)}
        self.crashes_alone: Counter[int] = Counter()
        self.crashes: Counter[int] = Counter()
        self.deaths: Counter[int] = Counter()  # of workers of a backend
        self.returns: Counter[int] = Counter()  # of its chunks
        self.attempts: list[Chunk] = []
        self.taken = 0  # circuits that some chunk has had
        self.open = True
        self.cancelled = False
        self.stops: list[str] = []
        self.finishes = 0
        self.streak: tuple[str, int] = ("", 0)
        self.peak_slots = 0
        self.owed: dict[int, int] = {}  # circuit that waits for memory, to its backend

    def handle(self, event: Event) -> list[Action]:
        """Pass an event on, and check what follows."""
        stop_due = self._expect(event)
        actions = self.schedule.handle(event)
        for action in actions:
            match action:
                case Start():
                    self._start(action.chunk)
                case WriteFailed():
                    self._write_failed(action, event)
                case Stop():
                    assert stop_due, f"stopped without reason: {action.reason}"
                    stop_due = False
                    self.cancelled = True
                    self.stops.append(action.reason)
                case Finish():
                    self.finishes += 1
                    assert not self.in_flight
        assert not stop_due, f"not stopped at {self.streak}, max_failures {self.schedule.max_failures}"
        assert [type(a) for a in actions].count(Finish) == 0 or isinstance(actions[-1], Finish)
        self.check()
        return actions

    def complete(self, chunk: Chunk) -> list[Action]:
        """Run a chunk to its end, good or bad, or read it if it isn't read yet."""
        return self.handle(Dropped(chunk)) if self._cut(chunk) else self.handle(self._next(chunk))

    def crash(self, chunk: Chunk) -> list[Action]:
        """Kill its worker, whatever its circuits are."""
        if chunk in self.unread:
            return self.complete(chunk)
        return self.handle(Crashed(chunk, "WorkerDiedError", "killed"))

    def drain(self, pick: Callable[[Sequence[Chunk]], Chunk] = lambda chunks: chunks[0]) -> None:
        """Let everything come back until the task ends."""
        steps = 0
        while not self.finishes:
            self.complete(pick(self.in_flight))
            steps += 1
            assert steps < 50 * (self.true_total + 10), "the task doesn't end"
        self.check_end()

    # What the books say.

    def _cut(self, chunk: Chunk) -> bool:
        return self.cancelled and chunk in self.unread

    def _next(self, chunk: Chunk) -> Event:
        if chunk in self.unread:
            self.unread.remove(chunk)
            if chunk.stop > self.true_total:
                return Shortened(chunk, max(chunk.start, self.true_total))
        return self.circuits.run(chunk)

    def _expect(self, event: Event) -> bool:
        """Enter an event into the books; whether it must stop the task."""
        match event:
            case Slots():
                self.peak_slots = max(self.peak_slots, event.slots)
            case Gate():
                self.open = event.open
            case Cancel():
                self.cancelled = True
            case Dropped():
                self._gone(event.chunk)
            case Shortened():
                self._gone(event.chunk)
                if event.total > event.chunk.start:
                    shorter = replace(event.chunk, stop=event.total)
                    self.in_flight.append(shorter)
                    self.attempts[self.attempts.index(event.chunk)] = shorter
                self.taken = min(self.taken, event.total)
            case Crashed():
                self._gone(event.chunk)
                self.deaths[event.chunk.backend] += 1
                for circuit in range(event.chunk.start, event.chunk.stop):
                    self.crashes[circuit] += 1
                    self.crashes_alone[circuit] += len(event.chunk) == 1
                given_up = self.crashes_alone[event.chunk.start] > self.schedule.crash_retries
                if len(event.chunk) == 1 and given_up and not self.cancelled:
                    return self._fail(event.error_type)
                none_returned = self.returns[event.chunk.backend] == 0
                return not self.cancelled and none_returned and self.deaths[event.chunk.backend] >= MAX_DEATHS
            case Stored():
                self.returns[event.chunk.backend] += 1
                return self._stored(event)
        return False

    def _stored(self, event: Stored) -> bool:
        chunk = event.chunk
        self._gone(chunk)
        waiting = {i for d in event.deferred for i in range(d.start, d.stop)}
        failed = {f.start: f.error_type for f in event.failures}
        for circuit in range(chunk.start, chunk.stop):
            if circuit in waiting:
                self.owed[circuit] = chunk.backend
                continue
            assert circuit not in self.rows, f"circuit {circuit} has two rows"
            self.rows[circuit] = failed.get(circuit, "done")
        if event.done:
            self.streak = ("", 0)
            return False
        # No short cut: each failure counts, also those behind the one that stops the task.
        return any([not self.cancelled and self._fail(error) for error in failed.values()])

    def _fail(self, error_type: str) -> bool:
        before, circuits = self.streak
        self.streak = (error_type, circuits + 1 if error_type == before else 1)
        return self.streak[1] >= self.schedule.max_failures

    def _gone(self, chunk: Chunk) -> None:
        self.in_flight.remove(chunk)
        self.unread.discard(chunk)

    def _start(self, chunk: Chunk) -> None:
        assert not self.cancelled and self.open
        assert chunk.start < chunk.stop
        taken = {i for other in self.in_flight for i in range(other.start, other.stop)}
        assert taken.isdisjoint(range(chunk.start, chunk.stop)), f"{chunk} is in flight twice"
        for have in (self.rows.keys(), self.kept):
            assert have.isdisjoint(range(chunk.start, chunk.stop)), f"{chunk} has rows already"
        if chunk.start >= self.taken:
            assert self.kept.issuperset(range(self.taken, chunk.start)), f"{chunk} left some out"
            assert chunk.attempt == 0 and chunk.memory == 0
            self.taken = chunk.stop
            if self.feeding:
                self.unread.add(chunk)
        else:
            assert chunk.stop <= self.taken
        self.in_flight.append(chunk)
        self.attempts.append(chunk)
        here = sum(other.backend == chunk.backend for other in self.in_flight)
        room = self.schedule.prefetch * self.schedule.backends[chunk.backend].slots
        if chunk.memory:
            for circuit in range(chunk.start, chunk.stop):
                assert self.owed[circuit] == chunk.backend, f"{chunk} left the backend that deferred it"
        else:
            assert here <= room, f"{here} chunks on backend {chunk.backend}, which has room for {room}"
        limit = self.schedule.max_in_flight
        assert limit is None or len(self.in_flight) <= limit

    def _write_failed(self, action: WriteFailed, event: Event) -> None:
        failure = action.failure
        assert isinstance(event, Crashed)
        assert (failure.start, failure.stop) == (event.chunk.start, event.chunk.stop)
        assert failure.stop - failure.start == 1 and failure.start not in self.rows
        assert (action.backend, action.attempt) == (event.chunk.backend, event.chunk.attempt)
        assert (failure.error_type, failure.error) == (event.error_type, event.error)
        assert self.crashes_alone[failure.start] == self.schedule.crash_retries + 1
        self.rows[failure.start] = failure.error_type

    def check(self) -> None:
        """What holds after each event."""
        schedule = self.schedule
        assert sorted(schedule.started, key=lambda c: c.start) == sorted(
            self.in_flight, key=lambda c: c.start
        )
        assert schedule.cancelling == self.cancelled
        assert schedule.finished == bool(self.finishes) and self.finishes <= 1
        assert len(self.stops) <= 1
        done = sum(kind == "done" for kind in self.rows.values())
        assert (schedule.done, schedule.failed) == (done, len(self.rows) - done)
        assert schedule.done == sum(b.done for b in schedule.backends)
        assert schedule.failed == sum(b.failed for b in schedule.backends)
        for number, backend in enumerate(schedule.backends):
            mine = [chunk for chunk in self.in_flight if chunk.backend == number]
            assert backend.in_flight == len(mine)
            assert backend.circuits_in_flight == sum(map(len, mine))
        # Nothing is lost and nothing doubled: each circuit taken has its row, is in flight, or waits.
        waiting = [*schedule._again, *(chunk for b in schedule.backends for chunk in b.reserved)]
        places = [i for chunk in (*self.in_flight, *waiting) for i in range(chunk.start, chunk.stop)]
        if not self.feeding:
            places += self.rows
            assert len(places) == len(set(places))
            assert self.cancelled or set(places) == set(range(self.taken)) - self.kept
        self._check_work_conserved(waiting)
        self._check_memory(waiting)
        self._check_crashes()

    def _check_work_conserved(self, waiting: Sequence[Chunk]) -> None:
        schedule = self.schedule
        limit = schedule.max_in_flight
        room = any(b.in_flight < schedule.prefetch * b.slots for b in schedule.backends)
        if self.open and not self.cancelled and room and (limit is None or len(self.in_flight) < limit):
            # Chunks that wait for memory take half of a backend's room only.
            assert not schedule._again, "room, and work that waits"
            for b in schedule.backends:
                if b.in_flight < schedule.prefetch * b.slots:
                    assert not b.reserved or b.reserving >= max(1, b.slots)
            assert schedule.total is not None
            assert self.kept.issuperset(range(self.taken, schedule.total))

    def _check_memory(self, waiting: Sequence[Chunk]) -> None:
        if len(self.schedule.backends) == 1:
            # All that is held came out of what may be in flight at once.
            most = self.schedule.backends[0].sizer._most
            held = sum(map(len, (*self.in_flight, *waiting)))
            assert held <= self.schedule.prefetch * self.peak_slots * most

    def _check_crashes(self) -> None:
        retries = self.schedule.crash_retries
        most = max(b.sizer._most for b in self.schedule.backends)
        # Twice whole, once at each halving, then alone.
        bound = 2 + math.ceil(math.log2(most)) + retries + 1
        if not self.cancelled:
            assert all(number <= retries + 1 for number in self.crashes_alone.values())
            assert all(number <= bound for number in self.crashes.values())

    def check_end(self) -> None:
        assert self.finishes == 1 and not self.in_flight and not self.schedule._again
        assert self.rows.keys() <= set(range(self.true_total))
        if not self.cancelled:
            assert self.rows.keys() == set(range(self.true_total)) - self.kept
            assert self.schedule.total == self.true_total
        for circuit, kind in self.rows.items():
            if kind == "done":
                assert circuit not in self.circuits.failing and circuit not in self.circuits.killers
        for event in (Slots(0, 5), Gate(False), Gate(True), Cancel()):
            assert self.schedule.handle(event) == []


def stray_events(chunk: Chunk) -> list[Event]:
    return [
        Stored(chunk, 1.0, len(chunk)),
        Crashed(chunk, "E", "e"),
        Dropped(chunk),
        Shortened(chunk, chunk.start),
        Shortened(chunk, chunk.stop - 1),
    ]


TOTALS = st.integers(0, 120)


class AnyOrder(RuleBasedStateMachine):
    """Everything that can happen to a task, in any order; the world checks each step."""

    world: World

    @initialize(
        total=TOTALS,
        known=st.booleans(),
        backends=st.integers(1, 3),
        most=st.integers(1, 20),
        max_failures=st.sampled_from([1, 2, 5, 1000]),
        crash_retries=st.integers(0, 3),
        prefetch=st.integers(1, 3),
        max_in_flight=st.none() | st.integers(1, 8),
        killers=st.frozensets(st.integers(0, 120), max_size=4),
        failing=st.dictionaries(st.integers(0, 120), st.sampled_from(["A", "B"]), max_size=30),
        memory=st.dictionaries(st.integers(0, 120), st.integers(1, 3), max_size=20),
        kept=st.lists(st.tuples(st.integers(0, 120), st.integers(0, 120)), max_size=4),
    )
    def begin(
        self,
        total: int,
        known: bool,
        backends: int,
        most: int,
        max_failures: int,
        crash_retries: int,
        prefetch: int,
        max_in_flight: int | None,
        killers: frozenset[int],
        failing: dict[int, str],
        memory: dict[int, int],
        kept: list[tuple[int, int]],
    ) -> None:
        schedule = make(
            total if known else None,
            backends=backends,
            most=most,
            max_failures=max_failures,
            crash_retries=crash_retries,
            prefetch=prefetch,
            max_in_flight=max_in_flight,
            kept=[(start, min(stop, total)) for start, stop in kept],
        )
        self.world = World(schedule, Circuits(killers, failing, memory), total)

    def running(self) -> bool:
        return bool(self.world.in_flight)

    @rule(backend=st.integers(0, 2), slots=st.integers(0, 4))
    def change_slots(self, backend: int, slots: int) -> None:
        self.world.handle(Slots(backend % len(self.world.schedule.backends), slots))

    @precondition(running)
    @rule(which=st.integers(0, 100))
    def complete(self, which: int) -> None:
        self.world.complete(self.world.in_flight[which % len(self.world.in_flight)])

    @precondition(running)
    @rule(picks=st.lists(st.integers(0, 100), min_size=1, max_size=30))
    def complete_many(self, picks: list[int]) -> None:
        for which in picks:
            if self.world.in_flight:
                self.complete(which)

    @precondition(running)
    @rule(which=st.integers(0, 100))
    def crash(self, which: int) -> None:
        self.world.crash(self.world.in_flight[which % len(self.world.in_flight)])

    @rule(open_=st.booleans())
    def gate(self, open_: bool) -> None:
        self.world.handle(Gate(open_))

    @precondition(lambda self: self.world.schedule.next_index > 40)
    @rule()
    def cancel(self) -> None:
        self.world.handle(Cancel())

    @precondition(lambda self: self.world.cancelled and self.world.in_flight)
    @rule(which=st.integers(0, 100))
    def drop(self, which: int) -> None:
        self.world.handle(Dropped(self.world.in_flight[which % len(self.world.in_flight)]))

    @rule(which=st.integers(0, 100), change=st.sampled_from(["stop", "attempt", "memory", "backend", "none"]))
    def stray(self, which: int, change: str) -> None:
        """An event about a chunk that isn't in flight is refused, and changes nothing."""
        chunks = self.world.in_flight
        chunk = chunks[which % len(chunks)] if chunks and change != "none" else Chunk(10**6, 10**6 + 4)
        if change != "none" and chunks:
            chunk = replace(chunk, **{change: getattr(chunk, change) + 1})
        before = repr(self.world.schedule)
        for event in stray_events(chunk):
            with pytest.raises(InvalidTransitionError):
                self.world.schedule.handle(event)
        assert repr(self.world.schedule) == before

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        if not hasattr(self, "world") or self.world.finishes:
            return
        self.world.handle(Gate(True))
        for backend in range(len(self.world.schedule.backends)):
            if not self.world.finishes:
                self.world.handle(Slots(backend, 2))
        if not self.world.finishes:
            self.world.drain()
        self.world.check_end()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(
    total=TOTALS,
    most=st.integers(1, 40),
    killers=st.frozensets(st.integers(0, 119), max_size=6),
    crash_retries=st.integers(0, 3),
    known=st.booleans(),
    data=st.data(),
)
def test_circuit_that_kills_its_worker_stands_alone_at_last(
    total: int, most: int, killers: frozenset[int], crash_retries: int, known: bool, data: st.DataObject
) -> None:
    """Whatever comes back first: the killers have no counts, and all their neighbours have."""
    world = World(
        make(total if known else None, most=most, crash_retries=crash_retries), Circuits(killers), total
    )
    world.handle(Slots(0, 2))
    if not world.finishes:
        world.drain(lambda chunks: data.draw(st.sampled_from(chunks)))
    here = {circuit for circuit in killers if circuit < total}
    assert {circuit for circuit, kind in world.rows.items() if kind == "WorkerDiedError"} == here
    assert world.schedule.done == total - len(here)
    for circuit in here:
        alone = [c for c in world.attempts if (c.start, c.stop) == (circuit, circuit + 1)]
        assert [chunk.attempt for chunk in alone] == list(range(crash_retries + 1))


def test_chunk_is_tried_again_whole_and_then_in_halves() -> None:
    schedule = make(4)
    (start,) = one_chunk(schedule, 4)
    again = started(schedule.handle(Crashed(start, "E", "e")))
    assert again == [Chunk(0, 4, attempt=1)]
    assert started(schedule.handle(Crashed(again[0], "E", "e"))) == [
        Chunk(0, 2, attempt=1),
        Chunk(2, 4, attempt=1),
    ]
    assert started(schedule.handle(Crashed(Chunk(0, 2, attempt=1), "E", "e"))) == [Chunk(0, 1)]
    assert schedule.backends[0].crashes == 3


def one_chunk(schedule: Schedule, size: int) -> list[Chunk]:
    """Start one chunk of ``size``: one slot, whose tail would be cut finer, is told the pace first."""
    schedule.prefetch = 2
    schedule.total = None
    schedule.max_in_flight = 1
    chunks = started(schedule.handle(Slots(0, 1)))
    schedule.total, schedule.max_in_flight = size, None
    assert [len(chunk) for chunk in chunks] == [size]
    return chunks


def started(actions: Iterable[Action]) -> list[Chunk]:
    return [action.chunk for action in actions if isinstance(action, Start)]


def test_crash_of_the_first_try_alone_changes_nothing_in_the_counts() -> None:
    world = World(make(50), Circuits(), 50)
    first = started(world.handle(Slots(0, 2)))[0]
    world.crash(first)
    world.drain()
    assert world.schedule.done == 50 and world.schedule.backends[0].crashes == 1


@pytest.mark.parametrize("crash_retries", [0, 1, 2])
def test_circuit_cut_out_for_its_memory_has_all_its_tries(crash_retries: int) -> None:
    """A chunk crashes, is tried again and defers circuit 3, which then kills each of its workers."""
    schedule = make(4, crash_retries=crash_retries)
    (chunk,) = one_chunk(schedule, 4)
    if crash_retries:
        (chunk,) = started(schedule.handle(Crashed(chunk, "E", "e")))
        assert chunk.attempt == 1
    (alone,) = started(schedule.handle(Stored(chunk, 1.0, 3, deferred=(Deferred(3, 4, 100),))))
    tries = 0
    while True:
        tries += 1
        actions = schedule.handle(Crashed(alone, "WorkerDiedError", "killed"))
        if not started(actions):
            break
        (alone,) = started(actions)
        assert alone.memory == 100
    assert tries == crash_retries + 1
    failure = Failure(3, 4, "WorkerDiedError", "killed", "run")
    assert actions == [WriteFailed(failure, 0, crash_retries), Finish()]


def test_circuit_that_stood_alone_already_keeps_count_of_its_tries() -> None:
    schedule = make(1, crash_retries=1)
    (chunk,) = started(schedule.handle(Slots(0, 1)))
    (chunk,) = started(schedule.handle(Crashed(chunk, "E", "e")))
    (chunk,) = started(schedule.handle(Stored(chunk, 0.0, 0, deferred=(Deferred(0, 1, 100),))))
    assert chunk == Chunk(0, 1, attempt=1, memory=100)
    assert isinstance(schedule.handle(Crashed(chunk, "E", "e"))[0], WriteFailed)


# Beginning and end.


@pytest.mark.parametrize("event", [Slots(0, 0), Slots(0, 3), Gate(True), Gate(False), Cancel()])
def test_task_without_circuits_finishes_at_the_first_event(event: Event) -> None:
    schedule = make(0)
    assert not schedule.finished
    assert schedule.handle(event) == [Finish()]
    assert schedule.finished


def test_source_without_circuits_finishes_when_it_is_read() -> None:
    schedule = make(None)
    chunks = started(schedule.handle(Slots(0, 1)))
    assert len(chunks) == 2
    assert schedule.handle(Shortened(chunks[0], 0)) == []
    assert schedule.handle(Shortened(chunks[1], chunks[1].start)) == [Finish()]
    assert schedule.total == 0


def test_nothing_starts_without_slots() -> None:
    schedule = make(10)
    assert schedule.handle(Gate(True)) == []
    assert schedule.handle(Slots(0, 0)) == []
    assert len(started(schedule.handle(Slots(0, 1)))) == 2


def test_source_that_ends_within_a_chunk_shortens_it() -> None:
    schedule = make(None)
    first, second = started(schedule.handle(Slots(0, 1)))
    assert schedule.handle(Shortened(first, 3)) == []
    assert schedule.started == (Chunk(0, 3), second)
    assert schedule.backends[0].circuits_in_flight == 7
    with pytest.raises(InvalidTransitionError, match="isn't in flight"):
        schedule.handle(Stored(first, 1.0, 4))
    assert schedule.handle(Shortened(second, 4)) == []
    assert schedule.total == schedule.next_index == 3
    assert schedule.handle(Stored(Chunk(0, 3), 1.0, 3)) == [Finish()]


@pytest.mark.parametrize("total", [4, 5, 100])
def test_total_that_shortens_nothing_is_refused(total: int) -> None:
    """It would move the next circuit on, and leave a gap behind."""
    schedule = make(None)
    first = started(schedule.handle(Slots(0, 1)))[0]
    with pytest.raises(InvalidTransitionError, match=r"can't be shortened by a total of"):
        schedule.handle(Shortened(first, total))
    assert schedule.total is None and schedule.next_index == 8


def test_stray_event_tells_what_is_in_flight() -> None:
    schedule = make(100)
    first = started(schedule.handle(Slots(0, 1)))[0]
    with pytest.raises(InvalidTransitionError, match=r"'store' of .*stop=9.* under its start: .*stop=4"):
        schedule.handle(Stored(replace(first, stop=9), 1.0, 9))


def test_chunk_that_came_back_does_not_come_back_again() -> None:
    schedule = make(100)
    first = started(schedule.handle(Slots(0, 1)))[0]
    schedule.handle(Stored(first, 1.0, 4))
    for event in stray_events(first):
        with pytest.raises(InvalidTransitionError):
            schedule.handle(event)
    assert (schedule.done, schedule.backends[0].crashes) == (4, 0)


def test_end_states_of_a_chunk_have_no_way_out() -> None:
    assert {state for state, _ in TRANSITIONS} == {"planned", "started"}
    assert set(TRANSITIONS.values()) - {"planned", "started"} == {"stored", "failed", "cancelled"}


# Gate, cancel and stop.


def test_closed_gate_holds_back_new_chunks_and_lets_running_ones_end() -> None:
    schedule = make(100)
    chunks = started(schedule.handle(Slots(0, 1)))
    assert schedule.handle(Gate(False)) == []
    for chunk in chunks:
        assert schedule.handle(Stored(chunk, 1.0, len(chunk))) == []
    assert not schedule.finished
    assert len(started(schedule.handle(Gate(True)))) == 2


def test_cancel_starts_nothing_and_finishes_with_the_last_chunk_in_flight() -> None:
    schedule = make(1000)
    first, second = started(schedule.handle(Slots(0, 1)))
    assert schedule.handle(Cancel()) == []
    assert schedule.handle(Cancel()) == []
    assert schedule.handle(Stored(first, 1.0, 3, deferred=(Deferred(3, 4, 9),))) == []
    assert schedule.handle(Dropped(second)) == [Finish()]
    assert schedule.done == 3


def test_crash_after_cancel_is_no_failure() -> None:
    schedule = make(1, crash_retries=0)
    (only,) = started(schedule.handle(Slots(0, 1)))
    schedule.handle(Cancel())
    assert schedule.handle(Crashed(only, "E", "e")) == [Finish()]
    assert schedule.failed == 0


def test_circuits_that_wait_for_another_try_are_dropped_by_cancel() -> None:
    schedule = make(4)
    (chunk,) = one_chunk(schedule, 4)
    schedule.handle(Gate(False))
    assert schedule.handle(Crashed(chunk, "E", "e")) == []
    assert not schedule.finished
    assert schedule.handle(Cancel()) == [Finish()]


def fail(chunk: Chunk, error_type: str, done: int = 0) -> Stored:
    failure = Failure(chunk.start + done, chunk.stop, error_type, f"reason of {chunk.start}")
    return Stored(chunk, 1.0, done, (failure,))


def test_one_reason_that_fails_everything_stops_the_task() -> None:
    schedule = make(1000, max_failures=8)
    first, second = started(schedule.handle(Slots(0, 1)))
    assert not any(isinstance(a, Stop) for a in schedule.handle(fail(first, "A")))
    (stop,) = schedule.handle(fail(second, "A"))
    assert isinstance(stop, Stop)
    assert stop.reason == (
        "8 circuits in a row failed with A and none succeeded between them; max_failures is 8. "
        "The last reason: reason of 4."
    )
    assert schedule.cancelling


def test_stop_with_nothing_in_flight_finishes_too() -> None:
    schedule = make(1, max_failures=1)
    (only,) = started(schedule.handle(Slots(0, 1)))
    stop, finish = schedule.handle(fail(only, "A"))
    assert isinstance(stop, Stop) and finish == Finish()


@pytest.mark.parametrize("between", ["success", "another reason", "a chunk of both"])
def test_failures_that_are_not_in_a_row_stop_nothing(between: str) -> None:
    schedule = make(10_000, max_failures=8, max_in_flight=1)
    (chunk,) = started(schedule.handle(Slots(0, 1)))
    for turn in range(40):
        if turn % 2 == 0:
            event = fail(replace(chunk), "A")
        elif between == "success":
            event = Stored(chunk, 100.0, len(chunk))
        elif between == "another reason":
            event = fail(chunk, "B")
        else:
            event = fail(chunk, "A", done=1)
        event = replace(event, seconds=len(chunk) * 0.375)  # four circuits a chunk
        (chunk,) = started(schedule.handle(event))
        assert len(chunk) == 4
    assert not schedule.cancelling


def test_crashes_alone_count_as_failures_in_a_row() -> None:
    world = World(make(20, most=1, max_failures=3, crash_retries=0), Circuits(frozenset(range(20))), 20)
    world.handle(Slots(0, 1))
    world.drain()
    assert len(world.stops) == 1 and world.schedule.failed == 3


# Several backends.


def race(schedule: Schedule, paces_s: Sequence[float], slots: Sequence[int]) -> list[float]:
    """Run the task on a clock of its own, and tell when each backend ran dry."""
    queues: list[deque[Chunk]] = [deque() for _ in paces_s]
    free = list(slots)
    running: list[tuple[float, int, Chunk]] = []
    dry = [0.0] * len(paces_s)
    now = 0.0
    count = 0

    def take(actions: Iterable[Action]) -> None:
        nonlocal count
        for chunk in started(actions):
            queues[chunk.backend].append(chunk)
        for backend, queue in enumerate(queues):
            while queue and free[backend]:
                free[backend] -= 1
                chunk = queue.popleft()
                count += 1
                heapq.heappush(running, (now + len(chunk) * paces_s[backend], count, chunk))

    for backend, number in enumerate(slots):
        take(schedule.handle(Slots(backend, number)))
    while running:
        now, _, chunk = heapq.heappop(running)
        free[chunk.backend] += 1
        dry[chunk.backend] = now
        take(schedule.handle(Stored(chunk, len(chunk) * paces_s[chunk.backend], len(chunk))))
    assert schedule.finished
    return dry


@pytest.mark.parametrize("ratio", [1, 3, 10])
def test_backends_share_the_work_by_pulling(ratio: int) -> None:
    schedule = make(50_000, backends=2)
    dry = race(schedule, [PACE_S * ratio, PACE_S], [2, 2])
    slow, fast = (backend.done for backend in schedule.backends)
    assert slow + fast == 50_000
    assert fast / slow == pytest.approx(ratio, rel=0.05)
    assert max(dry) - min(dry) < 2 * 1.5  # a chunk that runs and one that waits


def test_backend_with_more_slots_does_more() -> None:
    schedule = make(50_000, backends=2)
    race(schedule, [PACE_S, PACE_S], [1, 4])
    few, many = (backend.done for backend in schedule.backends)
    assert many / few == pytest.approx(4, rel=0.05)


def test_equal_backends_take_turns() -> None:
    schedule = make(1000, backends=3, max_in_flight=0)
    for backend in range(3):
        assert schedule.handle(Slots(backend, 2)) == []
    schedule.max_in_flight = None
    assert [chunk.backend for chunk in started(schedule.handle(Gate(True)))] == [0, 1, 2] * 4


def test_equally_idle_backends_take_turns_when_few_chunks_may_be_in_flight() -> None:
    schedule = make(1000, backends=2, max_in_flight=1)
    (chunk,) = started(schedule.handle(Slots(0, 1)))
    schedule.handle(Slots(1, 1))
    turns = []
    for _ in range(6):
        (chunk,) = started(schedule.handle(Stored(chunk, 1.0, len(chunk))))
        turns.append(chunk.backend)
    assert turns == [1, 0] * 3


def test_crashed_chunk_goes_where_there_is_room() -> None:
    schedule = make(1000, backends=2, max_in_flight=1)
    (chunk,) = started(schedule.handle(Slots(0, 1)))
    schedule.handle(Slots(1, 1))
    schedule.handle(Slots(0, 0))
    assert started(schedule.handle(Crashed(chunk, "E", "e"))) == [replace(chunk, backend=1, attempt=1)]


def test_deferred_circuit_stays_with_its_backend_and_keeps_its_memory() -> None:
    """What a circuit needs was found out for one backend; another would have to find out anew."""
    schedule = make(1000, backends=2, max_in_flight=1)
    (chunk,) = started(schedule.handle(Slots(0, 1)))
    schedule.handle(Slots(1, 1))
    schedule.handle(Slots(0, 0))
    deferred = Stored(chunk, 1.0, 3, deferred=(Deferred(2, 3, 77),))
    (other,) = started(schedule.handle(deferred))
    assert (other.backend, other.memory) == (1, 0)
    again = schedule.handle(Slots(0, 1), Stored(other, 1.0, len(other)))
    assert started(again) == [Chunk(2, 3, backend=0, memory=77)]


def test_chunk_with_memory_teaches_no_pace() -> None:
    schedule = make(4)
    (chunk,) = one_chunk(schedule, 4)
    (wide,) = started(schedule.handle(Stored(chunk, 0.4, 3, deferred=(Deferred(3, 4, 9),))))
    pace_s = schedule.backends[0].sizer.pace_s
    assert pace_s == pytest.approx(0.4 / 3)
    assert schedule.handle(Stored(wide, 60.0, 1)) == [Finish()]
    assert schedule.backends[0].sizer.pace_s == pace_s


# Size.


def test_million_circuits_are_never_held() -> None:
    schedule = make(1_000_000, prefetch=2)
    waiting = deque(started(schedule.handle(Slots(0, 8))))
    chunks = 0
    while waiting:
        chunk = waiting.popleft()
        waiting.extend(started(schedule.handle(Stored(chunk, len(chunk) * 1e-4, len(chunk)))))
        chunks += 1
        assert len(schedule.started) + len(schedule._again) <= 16
    assert schedule.finished and schedule.done == 1_000_000
    assert chunks < 400


def test_backends_that_appear_together_share_even_a_small_task() -> None:
    schedule = Schedule(8, [BackendState(ChunkSizer(1.5, 1)) for _ in range(2)])
    actions = schedule.handle(Slots(0, 4), Slots(1, 4))
    started = [action.chunk.backend for action in actions if isinstance(action, Start)]
    assert started.count(0) == started.count(1) == 4


def test_chunk_whose_circuits_do_not_add_up_is_refused() -> None:
    schedule = Schedule(4, [BackendState(ChunkSizer(1.5, 4))])
    (start,) = (
        action
        for action in schedule.handle(Slots(0, 1))
        if isinstance(action, Start) and len(action.chunk) > 1
    )
    with pytest.raises(InvalidTransitionError, match="came back with 3 circuits of"):
        schedule.handle(Stored(start.chunk, 1.0, done=3 if len(start.chunk) != 3 else 2))


def test_deferred_range_comes_back_one_by_one_and_leaves_room_for_others() -> None:
    """Together they would be one Ray task on one core; all at once they would fill the room and wait."""
    schedule = make(1000)
    chunks = started(schedule.handle(Slots(0, 2)))
    first = chunks[0]
    deferred = Stored(first, 1.0, 0, deferred=(Deferred(first.start, first.stop, 2**30),))
    more = started(schedule.handle(deferred))
    assert more == [Chunk(0, 1, memory=2**30)]
    more = started(
        schedule.handle(Stored(chunks[1], 1.0, len(chunks[1])), Stored(chunks[2], 1.0, len(chunks[2])))
    )
    assert [chunk.memory for chunk in more] == [2**30, 0]
    done = started(schedule.handle(Stored(Chunk(0, 1, memory=2**30), 9.0, 1)))
    assert [chunk for chunk in done if chunk.memory] == [Chunk(2, 3, memory=2**30)]


def test_processes_that_all_die_stop_the_task_soon() -> None:
    schedule = make(1_000_000)
    waiting = deque(started(schedule.handle(Slots(0, 2))))
    deaths = 0
    while waiting:
        actions = schedule.handle(Crashed(waiting.popleft(), "WorkerDiedError", "segmentation fault"))
        waiting.extend(started(actions))
        deaths += 1
        if stops := [action for action in actions if isinstance(action, Stop)]:
            assert "20 worker processes died and none came back" in stops[0].reason
            break
    assert deaths == 20


def test_what_is_kept_is_passed_over_and_the_tail_is_cut_for_what_is_left() -> None:
    """A resume: circuits 0-899 of 1000 are stored, but for two gaps."""
    world = World(make(1000, kept=[(0, 100), (110, 500), (505, 900)]), Circuits(), 1000)
    first = started(world.handle(Slots(0, 2)))
    assert [(chunk.start, chunk.stop) for chunk in first] == [(100, 104), (104, 108), (108, 110), (500, 504)]
    world.drain()
    assert sorted(world.rows) == [*range(100, 110), *range(500, 505), *range(900, 1000)]
    assert max(len(chunk) for chunk in world.attempts if chunk.start >= 900) <= 50


def test_task_of_which_all_is_kept_ends_at_once() -> None:
    world = World(make(50, kept=[(0, 50)]), Circuits(), 50)
    world.handle(Slots(0, 2))
    assert world.finishes == 1 and not world.attempts
