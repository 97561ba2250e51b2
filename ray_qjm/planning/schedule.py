"""The task's state machine: events in, actions out. It knows neither Ray nor clocks nor files.

A chunk is a contiguous range of circuits. The states of a chunk and what may change them stand in one table,
``TRANSITIONS``. Only chunks that are started, and ranges that wait to be started again, are held here: memory
is bounded by what is in flight, and each event costs O(1).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Literal

from ray_qjm.errors import InvalidTransitionError
from ray_qjm.planning.chunks import ChunkSizer
from ray_qjm.planning.events import (
    Action,
    Cancel,
    Chunk,
    Closed,
    Crashed,
    Drained,
    Dropped,
    Event,
    Failure,
    Finish,
    Gate,
    Paced,
    Shortened,
    Slots,
    Start,
    Stop,
    Stored,
    Wants,
    WriteFailed,
)
from ray_qjm.planning.ranges import Ranges

#: So many worker processes may die before anything came back: a backend or function that kills each process at
#: once would take an hour to fail `max_failures` circuits, one by one.
MAX_DEATHS = 20

State = Literal["planned", "started", "stored", "failed", "cancelled"]

#: (state, what happened) -> new state. What isn't listed raises InvalidTransitionError.
TRANSITIONS: dict[tuple[State, str], State] = {
    ("planned", "start"): "started",
    ("planned", "cancel"): "cancelled",
    ("started", "store"): "stored",
    ("started", "crash"): "planned",  # the same again, or in halves
    ("started", "shorten"): "started",  # the source ended within this range
    ("started", "give up"): "failed",  # a circuit alone in its chunk, after its last try
    ("started", "withdraw"): "cancelled",  # the source ended before this range
    ("started", "drop"): "cancelled",  # cancelled before it ran to its end
}


@dataclass(slots=True)
class BackendState:
    """What the schedule knows of one backend."""

    sizer: ChunkSizer
    slots: int = 0
    in_flight: int = 0
    circuits_in_flight: int = 0
    done: int = 0
    failed: int = 0
    chunks: int = 0
    crashes: int = 0
    #: Circuits that wait for memory to be reserved, one a chunk; and how many such chunks are in flight.
    reserved: deque[Chunk] = field(default_factory=deque)
    reserving: int = 0
    #: Whether it is a service: it says how many chunks it wants, and chunks are in flight until their jobs are over.
    service: bool = False
    weight: float = 1.0
    wants: int = 0
    #: Why it takes nothing more.
    closed: tuple[str, str] | None = None
    #: Whether it was told that there is nothing more for it.
    drained: bool = False


@dataclass(slots=True)
class _Streak:
    """Circuits that failed one after the other with one type of error, none succeeding between them."""

    error_type: str = ""
    error: str = ""
    circuits: int = 0

    def add(self, failure: Failure) -> None:
        if failure.error_type != self.error_type:
            self.error_type, self.circuits = failure.error_type, 0
        self.error = failure.error
        self.circuits += failure.stop - failure.start


@dataclass(slots=True)
class Schedule:
    """Which circuits go where, next. See the module's docstring.

    Args:
        total: Number of circuits, ``None`` while unknown.
        backends: One state for each backend of the task, in the task's order.
        max_failures: See ``RunOptions``.
        crash_retries: See ``RunOptions``.
        prefetch: Chunks in flight a slot: 2 keeps one waiting in Ray's queue while one runs, so that a
            slot never waits for the driver.
        max_in_flight: Most chunks in flight over all backends.
        kept: Circuits that have their rows from an earlier run; they are passed over.
        bound: Chunks that only their backend can have, ascending: jobs of an earlier session are running them.
    """

    total: int | None
    backends: list[BackendState]
    max_failures: int = 1000
    crash_retries: int = 2
    prefetch: int = 2
    max_in_flight: int | None = None
    kept: Ranges = field(default_factory=Ranges)
    bound: deque[Chunk] = field(default_factory=deque)
    next_index: int = 0
    done: int = 0
    failed: int = 0
    cancelling: bool = False
    _again: deque[Chunk] = field(default_factory=deque)
    _started: dict[tuple[int, int], Chunk] = field(default_factory=dict)
    _streak: _Streak = field(default_factory=_Streak)
    _open: bool = True
    _finished: bool = False
    _turn: int = 0

    @property
    def started(self) -> tuple[Chunk, ...]:
        """Chunks in flight, oldest first."""
        return tuple(self._started.values())

    @property
    def finished(self) -> bool:
        """Whether ``Finish`` was told."""
        return self._finished

    def handle(self, *events: Event) -> list[Action]:
        """Take events in and say what to do now.

        Events that come together are given together: of two backends that appear one after the other, the
        first would take all of a small task.

        Raises:
            InvalidTransitionError: An event fits no chunk that is in flight, or its numbers don't add up.
        """
        actions: list[Action] = []
        for event in events:
            self._take(event, actions)
        self._start_what_fits(actions)
        self._finish_if_idle(actions)
        return actions

    def _take(self, event: Event, actions: list[Action]) -> None:
        match event:
            case Slots():
                self.backends[event.backend].slots = event.slots
            case Wants():
                self.backends[event.backend].wants = event.chunks
            case Paced():
                self.backends[event.chunk.backend].sizer.observe(len(event.chunk), event.seconds)
            case Closed():
                self._closed(event, actions)
            case Gate():
                self._open = event.open
            case Cancel():
                self._cancel()
            case Stored():
                self._stored(event, actions)
            case Crashed():
                self._crashed(event, actions)
            case Shortened():
                self._shortened(event)
            case Dropped():
                self._leave(event.chunk, "drop")

    # What happened.

    def _stored(self, event: Stored, actions: list[Action]) -> None:
        chunk = event.chunk
        told = event.done + sum(failure.stop - failure.start for failure in event.failures)
        told += sum(deferred.stop - deferred.start for deferred in event.deferred)
        told += sum(returned.stop - returned.start for returned in event.returned)
        if told != len(chunk):
            raise InvalidTransitionError(f"{chunk} came back with {told} circuits of {len(chunk)}.")
        self._leave(chunk, "store")
        for deferred in event.deferred:
            if self.cancelling:
                continue
            # One by one: each is long, and together they would be one Ray task on one core.
            for circuit in range(deferred.start, deferred.stop):
                alone = replace(_part(chunk, circuit, circuit + 1), memory=deferred.memory)
                self.backends[chunk.backend].reserved.append(alone)
        state = self.backends[chunk.backend]
        state.chunks += 1
        state.done += event.done
        self.done += event.done
        ran = len(chunk) - sum(d.stop - d.start for d in event.deferred)
        if not chunk.memory and not state.service:
            state.sizer.observe(ran, event.seconds)
        if event.done:
            self._streak = _Streak()
        for failure in event.failures:
            self._count_failure(failure, state, actions, mixed=event.done > 0)
        for returned in event.returned:
            if not self.cancelling:
                part = _part(chunk, returned.start, returned.stop)
                again = replace(part, barred=(*chunk.barred, chunk.backend), bound=False)
                self._elsewhere(again, (returned.error_type, returned.error), actions, returned.stage)

    def _elsewhere(
        self, chunk: Chunk, reason: tuple[str, str], actions: list[Action], stage: str = "submit"
    ) -> None:
        """Keep a chunk for another backend, or give it up if there is none."""
        if any(self._may_have(backend, chunk) for backend in range(len(self.backends))):
            self._again.append(chunk)
            return
        self._give_up(chunk, reason, actions, stage)

    def _give_up(
        self, chunk: Chunk, reason: tuple[str, str], actions: list[Action], stage: str = "submit"
    ) -> None:
        failure = Failure(chunk.start, chunk.stop, *reason, stage=stage)
        actions.append(WriteFailed(failure, chunk.backend, chunk.attempt))
        # Not one of the circuits' own: it doesn't count for max_failures.
        self._count_failure(failure, self.backends[chunk.backend], actions, mixed=True)

    def _may_have(self, backend: int, chunk: Chunk) -> bool:
        if chunk.bound:
            return backend == chunk.backend
        return backend not in chunk.barred and self.backends[backend].closed is None

    def _closed(self, event: Closed, actions: list[Action]) -> None:
        state = self.backends[event.backend]
        state.closed = reason = event.error_type, event.error
        if self.cancelling:
            return
        waiting = [*state.reserved, *self._again]
        state.reserved.clear()
        self._again.clear()
        for chunk in waiting:
            if chunk.bound and chunk.backend == event.backend:
                self._start(chunk, actions)
            else:
                self._elsewhere(chunk, reason, actions)
        if any(backend.closed is None for backend in self.backends):
            return
        if self.total is None:
            self._stop(f"no backend takes circuits any more. The last reason: {': '.join(reason)}", actions)
            return
        while self.bound:  # their jobs are at the service all the same
            self._start(self._bound(), actions)
        for start, stop in self.kept.rest(self.next_index, self.total):
            self._give_up(Chunk(start, stop, event.backend), reason, actions)
        self.next_index = self.total

    def _crashed(self, event: Crashed, actions: list[Action]) -> None:
        chunk = event.chunk
        self._require(chunk, "crash")
        state = self.backends[chunk.backend]
        state.crashes += 1
        if self.cancelling:
            self._leave(chunk, "drop")
            return
        retries = self.crash_retries if len(chunk) == 1 else min(1, self.crash_retries)
        if len(chunk) == 1 and chunk.attempt >= retries:
            self._leave(chunk, "give up")
            failure = Failure(chunk.start, chunk.stop, event.error_type, event.error, stage="run")
            actions.append(WriteFailed(failure, chunk.backend, chunk.attempt))
            self._count_failure(failure, state, actions, mixed=False)
            return
        self._leave(chunk, "crash")
        if state.chunks == 0 and state.crashes >= MAX_DEATHS:
            self._stop(
                f"{state.crashes} worker processes died and none came back with a result. "
                f"The last reason: {event.error_type}: {event.error.rstrip('.')}.",
                actions,
            )
            return
        if chunk.attempt < retries:
            again = replace(chunk, attempt=chunk.attempt + 1)
            if chunk.bound and state.closed is not None:
                self._start(again, actions)
            else:
                (state.reserved if chunk.memory else self._again).appendleft(again)
            return
        # A second crash: the halves are not given another try before they are halved in their turn, but a
        # circuit that stands alone is (it may only have been the neighbour of the one that kills).
        middle = (chunk.start + chunk.stop) // 2
        for start, stop in ((middle, chunk.stop), (chunk.start, middle)):
            if chunk.bound and state.closed is not None:
                self._start(_part(chunk, start, stop), actions)
            else:
                self._again.appendleft(_part(chunk, start, stop))

    def _shortened(self, event: Shortened) -> None:
        chunk = event.chunk
        self._require(chunk, "shorten")
        if event.total >= chunk.stop:
            raise InvalidTransitionError(f"{chunk} can't be shortened by a total of {event.total} circuits.")
        self.total = event.total if self.total is None else min(self.total, event.total)
        self.next_index = self.total
        if chunk.start >= event.total:
            self._leave(chunk, "withdraw")
            return
        self.backends[chunk.backend].circuits_in_flight -= chunk.stop - event.total
        self._started[chunk.start, chunk.attempt] = replace(chunk, stop=event.total)

    def _cancel(self) -> None:
        self.cancelling = True
        self._again.clear()
        self.bound.clear()
        for state in self.backends:
            state.reserved.clear()

    def _count_failure(
        self, failure: Failure, state: BackendState, actions: list[Action], *, mixed: bool
    ) -> None:
        circuits = failure.stop - failure.start
        self.failed += circuits
        state.failed += circuits
        if mixed or self.cancelling:
            return
        self._streak.add(failure)
        if self._streak.circuits >= self.max_failures:
            self._stop(
                f"{self._streak.circuits} circuits in a row failed with {self._streak.error_type} and none "
                f"succeeded between them; max_failures is {self.max_failures}. "
                f"The last reason: {self._streak.error.rstrip('.')}.",
                actions,
            )

    def _stop(self, reason: str, actions: list[Action]) -> None:
        actions.append(Stop(reason))
        self._cancel()

    # What follows.

    def _start_what_fits(self, actions: list[Action]) -> None:
        if self.cancelling or not self._open:
            return
        limit = self.max_in_flight
        while limit is None or len(self._started) < limit:
            chunk = next(filter(None, map(self._next_chunk, self._with_room())), None)
            if chunk is None:
                break
            self._turn = chunk.backend + 1
            self._start(chunk, actions)
        for backend, state in enumerate(self.backends):
            if state.wants > 0 and not state.drained:
                state.drained = True
                actions.append(Drained(backend))

    def _with_room(self) -> list[int]:
        """Backends with room for another chunk, the freest first; ties go round, so that each gets its turn."""
        count = len(self.backends)
        free = [i for i in ((self._turn + offset) % count for offset in range(count)) if self._room(i) > 0]
        return sorted(free, key=self._load)

    def _room(self, backend: int) -> int:
        state = self.backends[backend]
        if state.closed is not None:
            return 0
        return state.wants if state.service else self.prefetch * state.slots - state.in_flight

    def _load(self, backend: int) -> float:
        """Who gets the next chunk, of those with room: the lowest."""
        state = self.backends[backend]
        if not state.service:
            return state.in_flight / ((state.in_flight + self._room(backend)) * state.weight)
        # What a service has pending says how long its queue is, not how much it should have: its share does.
        taken = [s.done + s.failed + s.circuits_in_flight for s in self.backends]
        return taken[backend] / (max(1, sum(taken)) * state.weight)

    def _next_chunk(self, backend: int) -> Chunk | None:
        state = self.backends[backend]
        # Chunks that wait for memory inside Ray leave half of the room to others, or a core might idle.
        if state.reserved and state.reserving < max(1, state.slots):
            return state.reserved.popleft()
        for chunk in self._again:
            if self._may_have(backend, chunk):
                self._again.remove(chunk)
                return replace(chunk, backend=backend)
        start, stop = self.kept.gap(self.next_index)
        if self.bound:
            if self.bound[0].start <= start:
                return self._bound()
            stop = self.bound[0].start if stop is None else min(stop, self.bound[0].start)
        left = None if self.total is None else self.total - start - self.kept.count(start, self.total)
        if left is not None and left <= 0:
            return None
        slots = sum(s.slots for s in self.backends)
        wanted = start + state.sizer.size(left, slots)
        self.next_index = wanted if stop is None else min(wanted, stop)
        return Chunk(start, self.next_index, backend)

    def _bound(self) -> Chunk:
        """The next chunk that jobs of an earlier session are running; from now on it is passed over."""
        chunk = self.bound.popleft()
        self.kept.add(chunk.start, chunk.stop)
        return chunk

    def _finish_if_idle(self, actions: list[Action]) -> None:
        if self._finished or self._started or self._again:
            return
        if self.bound or any(backend.reserved for backend in self.backends):
            return
        ended = self.total is not None and self.kept.gap(self.next_index)[0] >= self.total
        if ended or self.cancelling:
            self._finished = True
            actions.append(Finish())

    def _start(self, chunk: Chunk, actions: list[Action]) -> None:
        self._enter(chunk)
        actions.append(Start(chunk))

    def _enter(self, chunk: Chunk) -> None:
        _next_state("planned", "start", chunk)
        key = (chunk.start, chunk.attempt)
        if key in self._started:
            raise InvalidTransitionError(f"{chunk} was started while {self._started[key]} is in flight.")
        self._started[key] = chunk
        state = self.backends[chunk.backend]
        state.in_flight += 1
        state.wants -= state.service
        state.drained = False
        state.reserving += chunk.memory > 0
        state.circuits_in_flight += len(chunk)

    def _require(self, chunk: Chunk, what: str) -> None:
        _next_state("started", what, chunk)
        found = self._started.get((chunk.start, chunk.attempt))
        if found != chunk:
            raise InvalidTransitionError(
                f"{what!r} of {chunk}, which isn't in flight; in flight under its start: {found}."
            )

    def _leave(self, chunk: Chunk, what: str) -> None:
        self._require(chunk, what)
        del self._started[chunk.start, chunk.attempt]
        state = self.backends[chunk.backend]
        state.in_flight -= 1
        state.reserving -= chunk.memory > 0
        state.circuits_in_flight -= len(chunk)


def _part(chunk: Chunk, start: int, stop: int) -> Chunk:
    """Circuits ``[start, stop)`` of a chunk; one that now stands alone has all its tries before it."""
    attempt = 0 if stop - start == 1 < len(chunk) else chunk.attempt
    return replace(chunk, start=start, stop=stop, attempt=attempt)


def _next_state(state: State, what: str, chunk: Chunk) -> State:
    try:
        return TRANSITIONS[state, what]
    except KeyError:
        raise InvalidTransitionError(f"{what!r} can't happen to {chunk} while it is {state!r}.") from None
