"""Chunks become jobs, jobs become rows: halved, given back, adopted, and each shot counted once."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_qjm.errors import InvalidTransitionError
from ray_qjm.options import Limits
from ray_qjm.planning.assembly import (
    BREAKS_AFTER,
    FRESH,
    PROBES,
    Act,
    Assembly,
    Close,
    Collect,
    Lack,
    Submit,
    Whole,
)
from ray_qjm.planning.events import Chunk
from ray_qjm.planning.orders import Order, Run
from ray_qjm.planning.verdicts import Verdict, What


def verdict(what: What) -> Verdict:
    """Of an error that means this."""
    return Verdict(what, "ServiceError", f"it said {what}")


class Desk:
    """Takes what an assembly wants done; knows which shots were counted."""

    def __init__(self, assembly: Assembly, shots: Mapping[int, int] | int = 100) -> None:
        self.assembly = assembly
        self.shots = shots
        self.orders: deque[Order] = deque()
        self.results: dict[int, Order] = {}
        self.counted: Counter[int] = Counter()
        self.lacks: dict[int, Lack] = {}
        self.wholes: list[Whole] = []
        self.closed = 0

    def take(self, acts: Iterable[Act]) -> None:
        """Do what is asked."""
        for act in acts:
            match act:
                case Submit(order):
                    assert order.number not in self.results
                    self.orders.append(order)
                case Collect(order, wholes):
                    if order is not None:
                        self.results[order.number] = order
                    for whole in wholes:
                        self.count(whole)
                case Close():
                    self.closed += 1

    def count(self, whole: Whole) -> None:
        """Rows of a chunk."""
        assert whole.chunk not in [each.chunk for each in self.wholes]
        assert len(set(whole.orders)) == len(whole.orders)
        self.wholes.append(whole)
        for number in whole.orders:
            for run in self.results[number].runs:
                for circuit in range(max(run.start, whole.chunk.start), min(run.stop, whole.chunk.stop)):
                    self.counted[circuit] += run.shots
        for lack in whole.lacks:
            for circuit in range(lack.start, lack.stop):
                assert circuit not in self.lacks
                self.lacks[circuit] = lack

    def prepare(self, start: int, stop: int, sizes: Mapping[int, int] | None = None) -> None:
        """A chunk comes in."""
        known = dict.fromkeys(range(start, stop), 1) if sizes is None else sizes
        self.take(self.assembly.prepared(Chunk(start, stop), known))

    def done(self, order: Order) -> None:
        """A job has its result."""
        self.take(self.assembly.done(order.number))

    def failed(self, order: Order, what: What) -> None:
        """A job has none."""
        self.take(self.assembly.failed(order.number, verdict(what)))

    def run(self, broken: Iterable[int] = ()) -> int:
        """All jobs run, the oldest first; those with a broken circuit fail. How many there were."""
        bad, jobs = set(broken), 0
        self.take(self.assembly.flush())
        while self.orders:
            order = self.orders.popleft()
            jobs += 1
            if any(circuit in bad for run in order.runs for circuit in range(run.start, run.stop)):
                self.failed(order, "split job")
            else:
                self.done(order)
        return jobs


def desk(limits: Limits | None = None, shots: int = 100) -> Desk:
    """For a task whose circuits have so many shots each."""
    limits = Limits(max_circuits=10) if limits is None else limits
    return Desk(Assembly(limits, mixed=False, shots_of=lambda circuit: shots), shots)


def test_jobs_span_chunks_and_a_chunk_is_whole_with_its_last_cell() -> None:
    scene = desk()
    for start in range(0, 30, 4):
        scene.prepare(start, min(start + 4, 30))
    first, second, third = scene.orders
    scene.done(second)
    assert [whole.chunk for whole in scene.wholes] == [Chunk(12, 16), Chunk(16, 20)]
    scene.done(first)
    assert [whole.chunk.start for whole in scene.wholes] == [12, 16, 0, 4, 8]
    assert scene.wholes[-1].orders == (second.number, first.number)
    scene.done(third)
    assert scene.counted == {circuit: 100 for circuit in range(30)} and scene.lacks == {}


def test_chunk_without_a_circuit_that_can_be_submitted_is_whole_at_once() -> None:
    scene = desk()
    scene.prepare(0, 5, {})
    assert [whole.chunk for whole in scene.wholes] == [Chunk(0, 5)]


def test_circuit_larger_than_a_job_may_be_says_both_numbers() -> None:
    scene = desk(Limits(max_payload_bytes=10))
    scene.prepare(0, 3, {0: 5, 1: 11, 2: 5})
    scene.run()
    assert list(scene.lacks) == [1] and set(scene.counted) == {0, 2}
    assert "11 bytes" in str(scene.lacks[1].verdict) and "10" in str(scene.lacks[1].verdict)
    assert not scene.lacks[1].elsewhere


@given(st.integers(1, 300), st.sets(st.integers(0, 299), max_size=2))
def test_halving_finds_exactly_the_broken_circuits(count: int, broken: set[int]) -> None:
    scene = desk(Limits(max_circuits=128))
    for start in range(0, count, 50):
        scene.prepare(start, min(start + 50, count))
    scene.run(broken)
    assert set(scene.lacks) == {circuit for circuit in broken if circuit < count}
    # What failed before anything had succeeded may be the backend's fault.
    first = min(set(range(count)) - broken, default=count)
    assert all(not lack.elsewhere for circuit, lack in scene.lacks.items() if circuit > first)
    assert scene.counted == {circuit: 100 for circuit in range(count) if circuit not in broken}


def test_one_broken_circuit_among_ten_thousand_does_not_break_the_backend() -> None:
    for broken in (0, 4999, 9999):
        scene = desk(Limits(max_circuits=10_000))
        scene.prepare(0, 10_000)
        assert scene.run([broken]) <= 2 * 14 + 1
        assert set(scene.lacks) == {broken} and not scene.closed


def test_one_broken_circuit_in_every_job_does_not_break_the_backend() -> None:
    scene = desk(Limits(max_circuits=1000))
    scene.prepare(0, 20_000)
    broken = range(500, 20_000, 1000)
    scene.run(broken)
    assert set(scene.lacks) == set(broken) and not scene.closed


@pytest.mark.parametrize(
    ("most", "count", "broken"),
    [(20, 400, range(40, 48)), (500, 500, range(100, 110)), (1, 100, range(44, 49))],
)
def test_broken_circuits_side_by_side_do_not_break_the_backend(most: int, count: int, broken: range) -> None:
    scene = desk(Limits(max_circuits=most))
    for start in range(0, count, 20):
        scene.prepare(start, start + 20)
    scene.run(broken)
    assert set(scene.lacks) == set(broken) and not scene.closed
    assert all(lack.verdict.what == "split job" for lack in scene.lacks.values())


def test_circuits_that_never_ran_are_told_that_the_backend_was_closed() -> None:
    scene = desk(Limits(max_circuits=100))
    scene.prepare(0, 100)
    scene.run(range(100))
    assert scene.closed == 1
    last = scene.lacks[50].verdict
    assert last.error_type == "BackendClosedError" and "jobs failed one after the other" in last.reason
    assert scene.lacks[0].verdict.what == "split job"


@given(st.sets(st.integers(0, 15), min_size=1, max_size=3))
def test_one_circuit_that_always_has_too_many_shots_costs_the_others_nothing(greedy: set[int]) -> None:
    scene = desk(Limits(max_circuits=16))
    scene.prepare(0, 16)
    jobs = 0
    while scene.orders:
        order, jobs = scene.orders.popleft(), jobs + 1
        if any(circuit in greedy for run in order.runs for circuit in range(run.start, run.stop)):
            scene.failed(order, "split shots")
        else:
            scene.done(order)
        assert jobs < 500
    assert set(scene.lacks) == greedy and not scene.closed
    assert scene.counted == {circuit: 100 for circuit in range(16) if circuit not in greedy}


@pytest.mark.parametrize("count", [1, 9, 500, 10_000])
def test_a_backend_that_fails_everything_is_closed_after_few_jobs(count: int) -> None:
    scene = desk(Limits(max_circuits=500))
    scene.prepare(0, count)
    jobs = scene.run(range(count))
    # What was handed in before is under way: it fails too, and isn't halved any more.
    assert jobs <= 2 * BREAKS_AFTER + PROBES + -(-count // 500)
    assert set(scene.lacks) == set(range(count)) and len(scene.wholes) == 1


def test_a_closed_backend_takes_nothing_more_and_gives_back_what_waits() -> None:
    scene = desk()
    scene.prepare(0, 13)
    scene.failed(scene.orders[0], "no credit")
    assert scene.closed == 1 and len(scene.orders) == 1
    assert set(scene.lacks) == set(range(13)) and all(lack.elsewhere for lack in scene.lacks.values())
    scene.prepare(20, 25)
    assert scene.assembly.waiting == 0 and len(scene.orders) == 1
    assert set(scene.lacks) == {*range(13), *range(20, 25)}


@pytest.mark.parametrize(
    ("what", "elsewhere"), [("elsewhere", True), ("no credit", True), ("cancelled", True), ("give up", False)]
)
def test_a_verdict_says_whether_another_backend_may_try(what: What, elsewhere: bool) -> None:
    scene = desk()
    scene.prepare(0, 10)
    scene.failed(scene.orders[0], what)
    assert all(lack.elsewhere == elsewhere and lack.verdict.what == what for lack in scene.lacks.values())
    assert set(scene.lacks) == set(range(10))


def test_circuits_with_some_of_their_shots_are_for_no_other_backend() -> None:
    scene = desk(Limits(max_shots=60))
    scene.prepare(0, 3)
    scene.take(scene.assembly.flush())
    full, rest = sorted(scene.orders, key=lambda order: -order.executions)
    scene.done(full)
    scene.failed(rest, "elsewhere")
    assert scene.counted == {0: 60, 1: 60, 2: 60}
    assert [lack.elsewhere for lack in scene.lacks.values()] == [False] * 3


def test_shots_are_cut_in_half_until_the_service_takes_them() -> None:
    scene = desk(Limits(max_circuits=4), shots=1001)
    scene.prepare(0, 4)
    while scene.orders:
        order = scene.orders.popleft()
        if order.runs[0].shots > 300:
            scene.failed(order, "split shots")
        else:
            scene.done(order)
    assert scene.counted == {circuit: 1001 for circuit in range(4)}


def test_no_two_slices_of_a_circuit_have_one_number() -> None:
    scene = desk(Limits(max_shots=300), shots=1000)
    scene.prepare(0, 4)
    scene.take(scene.assembly.flush())
    seen: set[tuple[int, int]] = set()
    while scene.orders:
        order = scene.orders.popleft()
        if order.runs[0].shots > 80:
            scene.failed(order, "split shots")
        else:
            for run in order.runs:
                for circuit in range(run.start, run.stop):
                    assert (circuit, run.slice_) not in seen
                    seen.add((circuit, run.slice_))
            scene.done(order)
    assert scene.counted == {circuit: 1000 for circuit in range(4)}


def test_a_single_shot_that_is_too_many_is_given_up() -> None:
    scene = desk(shots=1)
    scene.prepare(0, 1)
    scene.take(scene.assembly.flush())
    scene.failed(scene.orders[0], "split shots")
    assert list(scene.lacks) == [0]


def test_a_job_ends_once() -> None:
    scene = desk()
    scene.prepare(0, 10)
    scene.done(scene.orders[0])
    with pytest.raises(InvalidTransitionError, match="job number 1"):
        scene.done(scene.orders[0])


# Jobs of earlier sessions.


def test_adopted_circuits_are_not_packed_again() -> None:
    scene = desk()
    order = scene.assembly.adopt([Run(2, 6, 100)])
    scene.prepare(0, 8)
    scene.take(scene.assembly.flush())
    assert [run for each in scene.orders for run in each.runs] == [Run(0, 2, 100), Run(6, 8, 100)]
    scene.done(order)
    scene.run()
    assert scene.counted == {circuit: 100 for circuit in range(8)}


def test_a_circuit_of_which_some_slices_are_adopted_gets_the_rest_of_its_shots() -> None:
    scene = desk(Limits(max_shots=40))
    order = scene.assembly.adopt([Run(0, 3, 40, 1)])
    scene.prepare(0, 3)
    scene.take(scene.assembly.flush())
    assert {(run.shots, run.slice_) for each in scene.orders for run in each.runs} == {
        (shots, FRESH + number + 2 * circuit) for circuit in range(3) for number, shots in enumerate((40, 20))
    }
    scene.done(order)
    scene.run()
    assert scene.counted == {circuit: 100 for circuit in range(3)}


@pytest.mark.parametrize("first", ["chunk", "result"])
def test_an_adopted_result_may_come_before_its_chunks(first: str) -> None:
    scene = desk()
    order = scene.assembly.adopt([Run(0, 10, 100)])
    scene.prepare(0, 5)
    if first == "chunk":
        scene.prepare(5, 10)
    scene.done(order)
    if first == "result":
        scene.prepare(5, 10)
    assert len(scene.wholes) == 2 and not scene.orders
    assert scene.counted == {circuit: 100 for circuit in range(10)}


def test_an_adopted_job_that_failed_before_its_chunks_came_is_packed_anew() -> None:
    scene = desk()
    order = scene.assembly.adopt([Run(0, 10, 100)])
    scene.prepare(0, 4)
    scene.failed(order, "split job")
    assert sum(each.circuits for each in scene.orders) == 2  # one half first
    scene.prepare(4, 10)
    scene.run()
    assert scene.counted == {circuit: 100 for circuit in range(10)} and scene.lacks == {}


def test_rows_that_are_stored_are_not_run_again_when_an_adopted_job_fails() -> None:
    scene = desk()
    order = scene.assembly.adopt([Run(0, 10, 100)])
    scene.prepare(6, 10)  # the others have their rows
    scene.failed(order, "split job")
    scene.run()
    assert set(scene.counted) == {6, 7, 8, 9}


def test_an_adopted_job_that_never_arrived_is_packed_under_todays_limits() -> None:
    scene = desk(Limits(max_circuits=3))
    order = scene.assembly.adopt([Run(0, 8, 100)])
    scene.prepare(0, 8)
    scene.failed(order, "again")
    assert [each.circuits for each in scene.orders] == [3, 3, 2]
    scene.run()
    assert scene.counted == {circuit: 100 for circuit in range(8)} and scene.lacks == {}


def test_absent_adopted_jobs_say_nothing_about_the_backend() -> None:
    scene = desk()
    orders = [scene.assembly.adopt([Run(at, at + 1, 100)]) for at in range(2 * BREAKS_AFTER)]
    scene.prepare(0, 2 * BREAKS_AFTER)
    for order in orders:
        scene.failed(order, "again")
    scene.run()
    assert scene.closed == 0 and len(scene.counted) == 2 * BREAKS_AFTER


runs = st.lists(st.tuples(st.integers(0, 29), st.integers(1, 10), st.integers(0, 2)), max_size=4)
whats: list[What | None] = [
    None,
    None,
    None,
    "split job",
    "split shots",
    "give up",
    "elsewhere",
    "again",
    "cancelled",
]


@given(
    adopted=runs,
    limits=st.builds(
        Limits, max_circuits=st.none() | st.integers(1, 9), max_shots=st.none() | st.integers(20, 120)
    ),
    mixed=st.booleans(),
    shots=st.lists(st.integers(1, 150), min_size=1, max_size=3),
    chunk=st.integers(1, 9),
    chance=st.randoms(use_true_random=False),
)
def test_whatever_becomes_of_jobs_each_circuit_has_its_shots_or_a_reason(
    adopted: list[tuple[int, int, int]],
    limits: Limits,
    mixed: bool,
    shots: list[int],
    chunk: int,
    chance: random.Random,
) -> None:
    count = 30
    of = {circuit: shots[circuit % len(shots)] for circuit in range(count)}
    scene = Desk(Assembly(limits, mixed=mixed, shots_of=of.__getitem__), of)
    taken: set[int] = set()
    for start, length, slice_ in adopted:
        stop = min(start + length, count)
        if taken.isdisjoint(range(start, stop)) and len({of[circuit] for circuit in range(start, stop)}) == 1:
            taken |= set(range(start, stop))
            part = max(1, of[start] // (slice_ + 1))
            scene.orders.append(scene.assembly.adopt([Run(start, stop, part, slice_)]))
    starts = chance.sample(range(0, count, chunk), -(-count // chunk))
    jobs = 0
    while starts or scene.orders or scene.assembly.waiting:
        if starts and chance.random() < 0.5:
            start = starts.pop()
            scene.prepare(start, min(start + chunk, count))
        elif scene.orders:
            order = scene.orders.popleft()
            what = chance.choice(whats) if jobs < 60 else None
            jobs += 1
            if what is None:
                scene.done(order)
            else:
                scene.failed(order, what)
        elif not starts:
            scene.take(scene.assembly.flush())
    assert len(scene.wholes) == -(-count // chunk) and scene.assembly.orders == {}
    for circuit in range(count):
        assert scene.counted[circuit] == of[circuit] or (
            scene.counted[circuit] < of[circuit] and circuit in scene.lacks
        )
        lack = scene.lacks.get(circuit)
        assert lack is None or not lack.elsewhere or scene.counted[circuit] == 0
