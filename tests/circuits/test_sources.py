"""Sources: what is taken for what, when circuits come into being, and what is refused."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from ray_qjm.circuits.source import DriverSource, WorkerSource
from ray_qjm.circuits.sources import CallableSource, GroupSource, IterableSource, ListSource, make_source
from ray_qjm.circuits.sweep import Sweep
from ray_qjm.errors import InvalidInputError


def circuit_of(width: int) -> QuantumCircuit:
    return QuantumCircuit(width, name=f"w{width}")


def circuits_of(*widths: int) -> list[QuantumCircuit]:
    return [circuit_of(width) for width in widths]


def angle_of(circuit: QuantumCircuit | Exception) -> float:
    assert isinstance(circuit, QuantumCircuit)
    return float(circuit.data[0].operation.params[0])


def rotated(angle: float) -> QuantumCircuit:
    circuit = QuantumCircuit(1)
    circuit.rx(angle, 0)
    return circuit


def names_of(items: list[QuantumCircuit | Exception]) -> list[str]:
    return [item.name if isinstance(item, QuantumCircuit) else type(item).__name__ for item in items]


def driver_source(circuits: object, count: Any = None) -> DriverSource:
    source = make_source(circuits, count)
    assert isinstance(source, DriverSource)
    return source


def worker_source(circuits: object, count: Any = None) -> WorkerSource:
    source = make_source(circuits, count)
    assert isinstance(source, WorkerSource)
    return source


class Sized:
    """An iterable with a length that is no sequence; counts what was taken."""

    def __init__(self, circuits: list[QuantumCircuit]) -> None:
        self._circuits = circuits
        self.taken = 0

    def __len__(self) -> int:
        return len(self._circuits)

    def __iter__(self) -> Iterator[QuantumCircuit]:
        for circuit in self._circuits:
            self.taken += 1
            yield circuit


class Builder:
    """Methods to be called, on an object with a state."""

    def __init__(self, extra: int) -> None:
        self.extra = extra

    def build(self, index: int) -> QuantumCircuit:
        return QuantumCircuit(index + self.extra)

    def __call__(self, index: int, rng: np.random.Generator) -> QuantumCircuit:
        return rotated(self.extra + rng.uniform())


class Wide(QuantumCircuit):  # type: ignore[misc]
    """A class that is called: its circuits are its instances."""

    def __init__(self, index: int = 0) -> None:
        super().__init__(index + 1)


# What is taken for what.


def test_kinds_are_told_apart() -> None:
    assert isinstance(make_source(circuits_of(1)), ListSource)
    assert isinstance(make_source(tuple(circuits_of(1))), ListSource)
    assert isinstance(make_source(iter(circuits_of(1))), IterableSource)
    assert isinstance(make_source({"a": circuits_of(1)}), GroupSource)
    assert isinstance(make_source(MappingProxyType({"a": circuits_of(1)})), GroupSource)
    assert isinstance(make_source(circuit_of, 3), CallableSource)


def test_array_of_circuits_is_a_list() -> None:
    array = np.empty(2, dtype=object)
    array[:] = circuits_of(1, 2)
    source = driver_source(array)
    assert source.count == 2
    assert names_of(source.read(9)) == ["w1", "w2"]


def test_source_is_taken_as_it_is() -> None:
    source = ListSource(circuits_of(1, 2))
    assert make_source(source) is source
    assert make_source(source, 2) is source
    with pytest.raises(InvalidInputError, match="has 2 circuits, but count is 3"):
        make_source(source, 3)


def test_old_style_sequence_is_iterated() -> None:
    class Old:
        def __getitem__(self, index: int) -> QuantumCircuit:
            return circuits_of(1, 2)[index]

    source = driver_source(Old())
    assert source.count is None
    assert names_of(source.read(5)) == ["w1", "w2"]


def test_callable_that_can_be_iterated_is_iterated() -> None:
    class Both(Sized):
        def __call__(self, index: int) -> QuantumCircuit:
            raise AssertionError

    assert isinstance(make_source(Both(circuits_of(1))), IterableSource)


@pytest.mark.parametrize(
    ("circuits", "message"),
    [
        (circuit_of(1), r"circuits is one bare QuantumCircuit\. Pass a list: \[circuit\]\."),
        ("a.qpy", r"circuits is a str, 'a\.qpy'\. Files are read by QpyFiles\(paths\)"),
        (b"OPENQASM", r"circuits is a bytes, b'OPENQASM'\. .*qiskit\.qasm3\.loads"),
        (Path("a.qasm"), r"circuits is a \w*Path, \w*Path\('a\.qasm'\)\. Files are read by"),
        (["a.qpy", Path("b.qpy")], r"the list holds 2 strings or paths, no circuits\. Files are read by"),
        (7, r"circuits is an int \('int' object is not iterable\)\. Pass a list or another iterable"),
        (None, r"circuits is a NoneType .*QasmFiles\(paths\)\."),
        (np.array(1), r"circuits is a ndarray \(iteration over a 0-d array\)\. Pass a list"),
    ],
)
def test_what_is_no_source_is_refused(circuits: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make_source(circuits)


def test_long_string_is_quoted_in_part() -> None:
    with pytest.raises(InvalidInputError) as caught:
        make_source("x q[0];\n" * 10_000)
    assert len(str(caught.value)) < 300


# Counts.


@pytest.mark.parametrize("count", [0, -1, 1.0, 2.5, "3", True, np.bool_(True), np.float64(2), [2]])
def test_bad_count_of_a_callable_is_refused(count: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        make_source(circuit_of, count)
    assert str(caught.value) == f"count is {count!r}. Pass a positive integer: the number of circuits."


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_bad_count_of_a_generator_is_refused_before_it_is_advanced(count: Any) -> None:
    taken: list[int] = []

    def generate() -> Iterator[QuantumCircuit]:
        taken.append(1)
        yield circuit_of(1)

    with pytest.raises(InvalidInputError, match="Pass a positive integer"):
        make_source(generate(), count)
    assert taken == []


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint64, np.intc])
def test_numpy_integers_are_counts(kind: Callable[[int], Any]) -> None:
    count = worker_source(circuit_of, kind(3)).count
    assert count == 3
    assert type(count) is int
    assert driver_source(circuits_of(1, 2, 3), kind(3)).count == 3
    assert len(driver_source(iter(circuits_of(1, 2, 3)), kind(2)).read(9)) == 2


def test_callable_without_count_is_refused() -> None:
    with pytest.raises(InvalidInputError) as caught:
        make_source(circuit_of)
    assert str(caught.value) == (
        "callable circuit_of comes without count: how many circuits there are can't be known. "
        "Pass count=, the number of circuits."
    )


@pytest.mark.parametrize(
    "circuits", [circuits_of(1, 2), tuple(circuits_of(1, 2)), {"a": circuits_of(1), "b": circuits_of(2)}]
)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_count_that_is_not_the_length_is_refused(circuits: object, count: int) -> None:
    with pytest.raises(InvalidInputError, match=f"has 2 circuits, but count is {count}. Leave count out."):
        make_source(circuits, count)
    assert make_source(circuits, 2).count == 2


def test_count_must_be_the_length_of_a_sized_iterable() -> None:
    sized = Sized(circuits_of(1, 2))
    assert driver_source(sized).count == 2
    with pytest.raises(InvalidInputError, match=r"iterable \(Sized\) has 2 circuits, but count is 5"):
        make_source(sized, 5)
    assert sized.taken == 0


# Nothing to run.

EMPTY: list[Callable[[], object]] = [
    lambda: [],
    lambda: (),
    lambda: np.array([]),
    lambda: np.empty(0, dtype=object),
    lambda: {},
    lambda: {"a": [], "b": ()},
    lambda: {"a": {}},
    lambda: Sized([]),
    lambda: {}.values(),
]


@pytest.mark.parametrize("make", EMPTY)
def test_empty_sources_have_count_0_and_no_items(make: Callable[[], object]) -> None:
    for count in (None, 0):
        source = driver_source(make(), count)
        assert source.count == 0
        assert source.read(0) == []
        assert source.read(4) == []
        assert source.read(4) == []
        for column in source.columns(0, 0).values():
            assert column == []


@pytest.mark.parametrize("make", EMPTY)
def test_count_of_5_is_not_an_empty_source(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidInputError, match="has 0 circuits, but count is 5"):
        make_source(make(), 5)


def test_empty_generator_ends_at_once() -> None:
    source = driver_source(iter([]))
    assert source.count is None
    assert source.read(3) == []


# Callables.


def with_rng(index: int, rng: np.random.Generator) -> QuantumCircuit:
    return rotated(rng.uniform())


def with_other_name(index: int, generator: np.random.Generator) -> QuantumCircuit:
    return rotated(generator.uniform())


def with_default_rng(index: int, rng: np.random.Generator | None = None) -> QuantumCircuit:
    assert rng is not None
    return rotated(rng.uniform())


def with_keyword_rng(index: int, *, rng: np.random.Generator) -> QuantumCircuit:
    return rotated(rng.uniform())


def with_rng_third(index: int, n: int = 3, rng: np.random.Generator | None = None) -> QuantumCircuit:
    assert n == 3
    assert rng is not None
    return rotated(rng.uniform())


def with_positional_rng(index: int, rng: np.random.Generator | None = None, /) -> QuantumCircuit:
    assert rng is not None
    return rotated(rng.uniform())


def with_rng_behind_n(index: int, n: int, rng: np.random.Generator) -> QuantumCircuit:
    assert n == 3
    return rotated(rng.uniform())


WITH_RNG = [
    with_rng,
    with_other_name,
    with_default_rng,
    with_keyword_rng,
    with_rng_third,
    with_positional_rng,
    functools.partial(with_rng_behind_n, n=3),
    lambda i, rng: rotated(rng.uniform()),
    Builder(0),
    Builder(0).__call__,
]


@pytest.mark.parametrize("f", WITH_RNG)
def test_rng_comes_from_seed_and_index_alone(f: Callable[..., QuantumCircuit]) -> None:
    source = worker_source(f, 6)
    angles = [angle_of(source.build(index, 7)) for index in range(6)]
    assert len(set(angles)) == 6
    # In another order, from another count, again, and after a journey.
    assert [angle_of(source.build(index, 7)) for index in reversed(range(6))] == angles[::-1]
    assert angle_of(worker_source(f, 1000).build(4, 7)) == angles[4]
    shipped = cloudpickle.loads(cloudpickle.dumps(source))
    assert [angle_of(shipped.build(index, 7)) for index in range(6)] == angles
    # All callables here draw one number: they get the same stream.
    expected = np.random.default_rng(np.random.SeedSequence(7, spawn_key=(4,))).uniform()
    assert angles[4] == expected


@given(
    st.tuples(st.integers(0, 2**130), st.integers(0, 10**6)),
    st.tuples(st.integers(0, 2**130), st.integers(0, 10**6)),
)
def test_other_seed_or_index_draws_other_numbers(one: tuple[int, int], other: tuple[int, int]) -> None:
    source = worker_source(with_rng, 10**6 + 1)
    first, second = (angle_of(source.build(index, seed)) for seed, index in (one, other))
    assert (first == second) == (one == other)


def test_rng_of_a_call_is_not_the_one_of_the_call_before() -> None:
    kept: list[np.random.Generator] = []

    def keep(index: int, rng: np.random.Generator) -> QuantumCircuit:
        kept.append(rng)
        return rotated(rng.uniform())

    source = worker_source(keep, 2)
    assert angle_of(source.build(0, 1)) == angle_of(source.build(0, 1))
    assert kept[0] is not kept[1]


def starred(*args: Any) -> QuantumCircuit:
    assert args == (2,)
    return QuantumCircuit(2)


def index_only(index: int, /) -> QuantumCircuit:
    return QuantumCircuit(index)


def with_more(index: int, *args: Any, n: int = 5, **rest: Any) -> QuantumCircuit:
    assert (args, n, rest) == ((), 5, {})
    return QuantumCircuit(index)


def width_plus(index: int, n: int) -> QuantumCircuit:
    return QuantumCircuit(index + n)


@pytest.mark.parametrize(
    ("f", "width"),
    [
        (lambda i, n=5: QuantumCircuit(i + n), 7),
        (lambda i, n=5, m=1: QuantumCircuit(i + n + m), 8),
        (functools.partial(width_plus, n=4), 6),
        (functools.partial(width_plus, 4), 6),
        (starred, 2),
        (index_only, 2),
        (with_more, 2),
        (Builder(3).build, 5),
        (Wide, 3),
        (QuantumCircuit, 2),
        (functools.partial(QuantumCircuit, 1), 1),
    ],
)
def test_callable_is_called_with_the_index_alone(f: Callable[..., QuantumCircuit], width: int) -> None:
    source = worker_source(f, 3)
    assert source.build(2, 0).num_qubits == width
    assert cloudpickle.loads(cloudpickle.dumps(source)).build(2, 0).num_qubits == width


def test_rng_bound_by_the_user_stays() -> None:
    def build(index: int, rng: np.random.Generator) -> QuantumCircuit:
        return rotated(rng.uniform())

    source = worker_source(functools.partial(build, rng=np.random.default_rng(5)), 1)
    assert angle_of(source.build(0, 7)) == np.random.default_rng(5).uniform()


def test_lambda_in_a_loop_keeps_its_default() -> None:
    sources = [worker_source(lambda i, n=n: QuantumCircuit(n), 1) for n in (1, 2, 3)]
    assert [source.build(0, 0).num_qubits for source in sources] == [1, 2, 3]


def test_closure_travels_with_what_it_holds() -> None:
    base = rotated(0.5)

    def build(index: int) -> QuantumCircuit:
        return base.repeat(index + 1)

    shipped = cloudpickle.loads(cloudpickle.dumps(worker_source(build, 2)))
    assert shipped.build(1, 0) == base.repeat(2)
    assert shipped.kind == "callable build"


def test_callable_may_go_on_changing_one_circuit() -> None:
    """A backend may get a whole chunk at once: circuits of one object would all be the last."""
    circuit = QuantumCircuit(1)

    def build(index: int) -> QuantumCircuit:
        circuit.clear()
        circuit.rx(index, 0)
        return circuit

    source = worker_source(build, 3)
    assert [angle_of(item) for item in [source.build(index, 0) for index in range(3)]] == [0, 1, 2]


def generate(index: int) -> Iterator[QuantumCircuit]:
    yield circuit_of(index)


async def later(index: int) -> QuantumCircuit:
    return circuit_of(index)


@pytest.mark.parametrize("f", [generate, later, functools.partial(generate)])
def test_generator_function_is_refused(f: Callable[..., Any]) -> None:
    with pytest.raises(
        InvalidInputError, match=r"is a generator or coroutine function.*Pass the generator itself, f\(\)"
    ):
        make_source(f, 3)


@pytest.mark.parametrize(
    ("f", "shown"),
    [
        (lambda: QuantumCircuit(1), "()"),
        (lambda i, rng, more: QuantumCircuit(1), "(i, rng, more)"),
        (lambda i, a, b: QuantumCircuit(1), "(i, a, b)"),
        (lambda i, *, n: QuantumCircuit(1), "(i, *, n)"),
        (lambda *, rng: QuantumCircuit(1), "(*, rng)"),
        (lambda **rest: QuantumCircuit(1), "(**rest)"),
        (functools.partial(lambda i, a, b, rng: QuantumCircuit(1), b=3), "(i, a, *, b=3, rng)"),
    ],
)
def test_callable_of_another_signature_is_refused(f: Callable[..., QuantumCircuit], shown: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        make_source(f, 1)
    assert f" has the signature {shown}, but is called as f(index) or f(index, rng). " in str(caught.value)
    assert str(caught.value).endswith(" Bind further arguments with functools.partial.")


@pytest.mark.parametrize(
    ("f", "what"),
    [(lambda i: None, "a NoneType"), (lambda i: [circuit_of(1)], "a list"), (lambda i: i, "an int")],
)
def test_callable_that_returns_no_circuit_fails_alone(f: Callable[..., Any], what: str) -> None:
    with pytest.raises(TypeError) as caught:
        worker_source(f, 1).build(0, 0)
    assert str(caught.value) == f"callable <lambda> returned {what}, not a QuantumCircuit"


def test_what_a_callable_raises_comes_through() -> None:
    def build(index: int) -> QuantumCircuit:
        raise KeyError(index)

    with pytest.raises(KeyError, match="5"):
        worker_source(build, 6).build(5, 0)


def test_source_without_template_binds_nothing() -> None:
    source = worker_source(circuit_of, 3)
    assert source.template is None
    assert source.columns(0, 3) == {}
    with pytest.raises(NotImplementedError, match="callable circuit_of has no template"):
        source.bind(0, circuit_of(1))


# Lists.


def test_list_is_read_in_order_and_in_pieces() -> None:
    source = driver_source(circuits_of(1, 2, 3, 4, 5))
    assert [names_of(source.read(n)) for n in (2, 0, 2, 2, 2)] == [["w1", "w2"], [], ["w3", "w4"], ["w5"], []]
    assert source.columns(0, 5) == {}


def test_list_is_as_it_was_when_given() -> None:
    circuits = circuits_of(1, 2)
    source = driver_source(circuits)
    circuits.append(circuit_of(3))
    assert source.count == 2
    assert names_of(source.read(9)) == ["w1", "w2"]


def test_list_keeps_the_objects_for_look_up() -> None:
    circuits = circuits_of(1, 2)
    source = driver_source(circuits)
    assert source.circuits is not None
    assert [a is b for a, b in zip(source.circuits, circuits, strict=True)] == [True, True]


def test_items_that_are_no_circuits_fail_alone() -> None:
    source = driver_source([circuit_of(1), None, "a.qpy", circuit_of(2)])
    items = source.read(9)
    assert names_of(items) == ["w1", "TypeError", "TypeError", "w2"]
    assert [str(item) for item in items[1:3]] == [
        "this item is a NoneType, not a QuantumCircuit",
        "this item is a str, not a QuantumCircuit",
    ]


# Iterables.


def test_generator_is_advanced_by_read_alone() -> None:
    taken: list[int] = []

    def generate() -> Iterator[QuantumCircuit]:
        for index in range(10**9):
            taken.append(index)
            yield circuit_of(index)

    source = driver_source(generate())
    assert source.count is None
    assert source.circuits is None
    assert taken == []
    for n, total in ((3, 3), (0, 3), (1, 4), (5, 9)):
        assert len(source.read(n)) == n
        assert len(taken) == total


def test_count_is_the_most_that_is_taken_from_a_generator() -> None:
    taken: list[int] = []

    def generate() -> Iterator[QuantumCircuit]:
        for index in range(100):
            taken.append(index)
            yield circuit_of(index)

    source = driver_source(generate(), 4)
    assert source.count == 4
    assert [len(source.read(3)) for _ in range(3)] == [3, 1, 0]
    assert len(taken) == 4


def test_generator_shorter_than_count_ends() -> None:
    source = driver_source(iter(circuits_of(1, 2)), 5)
    assert [len(source.read(4)), len(source.read(4))] == [2, 0]


def test_generator_may_go_on_changing_the_circuit_it_yielded() -> None:
    def generate() -> Iterator[QuantumCircuit]:
        circuit = QuantumCircuit(1)
        for index in range(4):
            circuit.clear()
            circuit.rx(index, 0)
            circuit.metadata["index"] = index
            circuit.name = f"c{index}"
            yield circuit

    items = driver_source(generate()).read(9)
    assert [angle_of(item) for item in items] == [0, 1, 2, 3]
    assert names_of(items) == ["c0", "c1", "c2", "c3"]


def test_generator_that_raised_has_ended() -> None:
    def generate() -> Iterator[QuantumCircuit]:
        yield circuit_of(1)
        raise RuntimeError("out of ideas")

    source = driver_source(generate())
    items = source.read(5)
    assert names_of(items) == ["w1", "RuntimeError"]
    assert str(items[1]) == "out of ideas"
    assert source.read(5) == []


def test_iterator_that_raises_once_goes_on() -> None:
    class Stumbling:
        def __init__(self) -> None:
            self.asked = 0

        def __iter__(self) -> Stumbling:
            return self

        def __next__(self) -> QuantumCircuit:
            self.asked += 1
            if self.asked == 2:
                raise ValueError("the second")
            if self.asked == 5:
                raise StopIteration
            return circuit_of(self.asked)

    source = driver_source(Stumbling())
    assert names_of(source.read(2)) == ["w1", "ValueError"]
    assert names_of(source.read(9)) == ["w3", "w4"]


def test_ctrl_c_in_a_generator_is_no_row() -> None:
    def generate() -> Iterator[QuantumCircuit]:
        yield circuit_of(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        driver_source(generate()).read(2)


def test_items_of_a_generator_that_are_no_circuits_fail_alone() -> None:
    source = driver_source(item for item in [3, circuit_of(1), circuit_of])
    items = source.read(9)
    assert names_of(items) == ["TypeError", "w1", "TypeError"]
    assert str(items[0]) == "this item is an int, not a QuantumCircuit"


# Groups.


def groups_read(source: DriverSource, piece: int) -> tuple[list[str], list[object]]:
    """Names and groups of all circuits, read ``piece`` at a time."""
    names: list[str] = []
    groups: list[object] = []
    while items := source.read(piece):
        groups += source.columns(len(names), len(names) + len(items))["group"]
        names += names_of(items)
    return names, groups


@pytest.mark.parametrize("piece", [1, 2, 3, 4, 7, 100])
def test_groups_follow_each_other_and_name_their_rows(piece: int) -> None:
    source = driver_source(
        {
            "none": [],
            "A": circuits_of(1, 2, 3),
            "empty": (),
            "nothing": iter([]),
            "B": (circuit_of(width) for width in (4, 5)),
            "void": {},
            "C": Sized(circuits_of(6)),
            "last": [],
        }
    )
    assert source.column_types == {"group": "string"}
    names, groups = groups_read(source, piece)
    assert names == ["w1", "w2", "w3", "w4", "w5", "w6"]
    assert groups == ["A", "A", "A", "B", "B", "C"]
    assert source.columns(0, 6)["group"] == groups
    assert source.columns(2, 4)["group"] == ["A", "B"]


@given(st.lists(st.integers(0, 4), max_size=6), st.lists(st.integers(1, 5), min_size=1), st.booleans())
def test_groups_of_any_sizes_keep_their_columns(sizes: list[int], pieces: list[int], lazy: bool) -> None:
    expected = [f"g{index}" for index, size in enumerate(sizes) for _ in range(size)]
    groups = {
        f"g{index}": (iter if lazy else list)(circuits_of(*[index] * size))
        for index, size in enumerate(sizes)
    }
    source = driver_source(groups)
    assert source.count == (None if lazy and sizes else len(expected))
    found: list[object] = []
    for piece in [*pieces, 1000]:
        items = source.read(piece)
        found += source.columns(len(found), len(found) + len(items))["group"]
    assert found == expected
    assert source.columns(0, len(found))["group"] == expected


def test_groups_of_lists_are_counted_and_keep_the_objects() -> None:
    a, b = circuits_of(1, 2), circuits_of(3)
    source = driver_source({"a": a, "empty": [], "b": tuple(b)}, 3)
    assert source.count == 3
    assert source.circuits == [*a, *b]
    assert driver_source({"a": a, "b": iter(b)}).circuits is None


def test_group_of_a_generator_is_read_lazily_and_up_to_count() -> None:
    taken: list[int] = []

    def generate() -> Iterator[QuantumCircuit]:
        for index in range(100):
            taken.append(index)
            yield circuit_of(index)

    source = driver_source({"a": circuits_of(1, 2), "b": generate()}, 5)
    assert source.count == 5
    assert taken == []
    _, groups = groups_read(source, 2)
    assert groups == ["a", "a", "b", "b", "b"]
    assert len(taken) == 3


def test_failed_item_keeps_its_group() -> None:
    def generate() -> Iterator[QuantumCircuit]:
        yield circuit_of(1)
        raise ValueError

    names, groups = groups_read(driver_source({"a": generate(), "b": [None, circuit_of(2)]}), 2)
    assert names == ["w1", "ValueError", "TypeError", "w2"]
    assert groups == ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({1: []}, r"group name 1 is an int\. Pass strings: they become a column\."),
        ({None: circuits_of(1)}, r"group name None is a NoneType\. Pass strings"),
        (
            {"a": circuit_of(1)},
            r"group 'a': circuits is one bare QuantumCircuit\. Pass a list: \[circuit\]\.",
        ),
        ({"a": "a.qpy"}, r"group 'a': circuits is a str, 'a\.qpy'\."),
        ({"a": ["a.qpy"]}, r"group 'a': the list holds 1 strings or paths"),
        ({"a": 3}, r"group 'a': circuits is an int"),
        (
            {"a": circuit_of},
            r"group 'a' is a callable circuit_of, and groups are read in the driver\. Pass a",
        ),
    ],
)
def test_bad_groups_are_refused(groups: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make_source(groups)


def test_sweep_is_no_group() -> None:
    circuit = QuantumCircuit(1)
    circuit.rx(Parameter("t"), 0)
    with pytest.raises(InvalidInputError, match=r"group 'a' is a Sweep, .*or run it as a task of its own"):
        make_source({"a": Sweep(circuit, {"t": [1.0]})})


class Pretender:
    """As ``tqdm(generator)``: it has ``__len__``, and calling it fails."""

    def __iter__(self) -> Iterator[QuantumCircuit]:
        return iter([QuantumCircuit(1), QuantumCircuit(2)])

    def __len__(self) -> int:
        raise TypeError("object of type 'generator' has no len()")


def test_length_that_cannot_be_had_is_unknown() -> None:
    source = make_source(Pretender())
    assert source.count is None
    assert isinstance(source, DriverSource)
    assert len(source.read(5)) == 2


class Resuming:
    """An iterator that goes on after its end."""

    def __init__(self) -> None:
        self.calls = 0

    def __iter__(self) -> Resuming:
        return self

    def __next__(self) -> QuantumCircuit:
        self.calls += 1
        if self.calls == 3:
            raise StopIteration
        return QuantumCircuit(1)


def test_iterator_that_goes_on_after_its_end_has_ended() -> None:
    source = make_source(Resuming())
    assert isinstance(source, DriverSource)
    assert len(source.read(5)) == 2
    assert source.read(5) == []
