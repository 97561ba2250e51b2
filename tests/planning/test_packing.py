"""Circuits become jobs within the limits, as full as can be, each shot once."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ray_qjm.options import Limits
from ray_qjm.planning.orders import Order, Run, joined, slices
from ray_qjm.planning.packing import Packer

limits = st.builds(
    Limits,
    max_circuits=st.none() | st.integers(1, 20),
    max_shots=st.none() | st.integers(1, 500),
    max_executions=st.none() | st.integers(1, 3000),
    max_payload_bytes=st.none() | st.integers(10, 100),
)
circuits = st.lists(st.tuples(st.sampled_from([1, 50, 100, 333, 1000]), st.integers(0, 10)), max_size=40)
orders = st.lists(
    st.builds(
        lambda start, count, shots, slice_: Run(start, start + count, shots, slice_),
        st.integers(0, 50),
        st.integers(1, 9),
        st.integers(1, 100),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=6,
).map(lambda runs: Order(1, tuple(runs)))


def packed(packer: Packer, circuits: list[tuple[int, int]]) -> list[Order]:
    """All jobs of some circuits, given as shots and bytes."""
    found: list[Order] = []
    for circuit, (shots, size) in enumerate(circuits):
        found += packer.add(circuit, shots, size)
    return found + packer.flush()


def cells(runs: tuple[Run, ...]) -> Counter[tuple[int, int, int]]:
    """How often each slice of each circuit occurs, with its shots."""
    return Counter((circuit, run.slice_, run.shots) for run in runs for circuit in range(run.start, run.stop))


@given(limits, circuits, st.booleans())
def test_every_shot_is_in_one_job_and_no_job_exceeds_a_limit(
    limits: Limits, circuits: list[tuple[int, int]], mixed: bool
) -> None:
    found = packed(Packer(limits, mixed=mixed), circuits)
    all_cells = sum((cells(order.runs) for order in found), Counter[tuple[int, int, int]]())
    assert set(all_cells.values()) <= {1}
    shots: Counter[int] = Counter()
    for circuit, _, part in all_cells:
        shots[circuit] += part
    assert shots == {circuit: shots for circuit, (shots, _) in enumerate(circuits)}
    for order in found:
        assert limits.max_circuits is None or order.circuits <= limits.max_circuits
        assert limits.max_executions is None or order.executions <= limits.max_executions
        assert limits.max_payload_bytes is None or order.payload_bytes <= limits.max_payload_bytes
        assert limits.max_shots is None or all(run.shots <= limits.max_shots for run in order.runs)
        assert mixed or len({run.shots for run in order.runs}) == 1
        assert order.payload_bytes == sum(circuits[circuit][1] for circuit, _, _ in cells(order.runs))
    assert len({order.number for order in found}) == len(found)


@given(st.integers(1, 300), st.integers(1, 400), st.integers(1, 50))
def test_jobs_of_equal_circuits_are_full_but_the_last(count: int, most: int, shots: int) -> None:
    found = packed(Packer(Limits(max_executions=most * shots), mixed=False), [(shots, 1)] * count)
    assert [order.circuits for order in found[:-1]] == [most] * (len(found) - 1)


def test_a_full_job_goes_without_waiting_for_the_next_circuit() -> None:
    packer = Packer(Limits(max_circuits=2), mixed=False)
    assert [len(list(packer.add(circuit, 10, 0))) for circuit in range(4)] == [0, 1, 0, 1]
    assert packer.waiting == 0 and packer.flush() == []


def test_numbers_of_shots_are_kept_apart_unless_a_job_may_mix_them() -> None:
    circuits = [(10, 0), (20, 0)] * 3
    assert len(packed(Packer(Limits(max_circuits=3), mixed=False), circuits)) == 2
    assert len(packed(Packer(Limits(max_circuits=6), mixed=True), circuits)) == 1


def test_neighbours_of_one_slice_are_one_run_however_many_slices_there_are() -> None:
    order, rest = packed(Packer(Limits(max_shots=100), mixed=False), [(250, 0)] * 10)
    assert order.runs == (Run(0, 10, 100, 0), Run(0, 10, 100, 1))
    assert rest.runs == (Run(0, 10, 50, 2),)


def test_shots_that_were_had_before_leave_numbers_of_slices_free() -> None:
    packer = Packer(Limits(max_shots=100), mixed=False)
    (order,) = (*packer.add(3, 200, 0, 7), *packer.flush())
    assert order.runs == (Run(3, 4, 100, 7), Run(3, 4, 100, 8))


@given(orders)
def test_halves_have_all_cells_of_a_job_once(order: Order) -> None:
    first, second = order.halves()
    assert cells(first) + cells(second) == cells(order.runs)
    sizes = [sum(run.circuits for run in half) for half in (first, second)]
    assert sizes == [order.circuits // 2, order.circuits - order.circuits // 2]


@given(orders)
def test_joined_runs_have_the_same_cells(order: Order) -> None:
    assert cells(joined(order.runs)) == cells(order.runs)


@given(st.integers(1, 10_000), st.none() | st.integers(1, 700))
def test_slices_add_up_and_are_full_but_the_last(shots: int, most: int | None) -> None:
    found = slices(shots, most)
    assert sum(found) == shots
    assert set(found[:-1]) <= {most} and 0 < found[-1] <= (most or shots)
