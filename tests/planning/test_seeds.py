"""Seeds depend on the task's seed and a circuit's index, and on nothing else."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit_aer import AerSimulator

from ray_qjm.planning.seeds import AER_STRIDE, simulator_base, simulator_seed, transpiler_seed

SEEDS = st.integers(0, 2**128)


def coins(number: int) -> list[QuantumCircuit]:
    """The same circuit again and again: 8 fair coins."""
    circuit = QuantumCircuit(8, 8)
    circuit.h(range(8))
    circuit.measure(range(8), range(8))
    return [circuit] * number


def results(circuits: list[QuantumCircuit], seed: int) -> list[Any]:
    result = AerSimulator().run(circuits, shots=200, seed_simulator=seed).result()
    assert result.success
    return list(result.results)


def test_aer_steps_by_the_stride_from_circuit_to_circuit() -> None:
    base = simulator_base(7)
    seeds = [result.seed_simulator for result in results(coins(5), base)]
    assert seeds == [simulator_seed(base, index) for index in range(5)]
    assert [after - before for before, after in pairwise(seeds)] == [AER_STRIDE] * 4 == [2113] * 4


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_chunking_does_not_show_in_the_counts(cut: int) -> None:
    base = simulator_base(11)
    whole = [result.data.counts for result in results(coins(5), simulator_seed(base, 0))]
    parts = [
        result.data.counts
        for start, stop in ((0, cut), (cut, 5))
        for result in results(coins(stop - start), simulator_seed(base, start))
    ]
    assert parts == whole
    assert all(one != other for one, other in pairwise(whole))


def test_aer_takes_the_seed_of_a_circuit_far_out() -> None:
    seed = simulator_seed(2**50 - 1, 10**9)
    (only,) = results(coins(1), seed)
    assert only.seed_simulator == seed


def test_aer_takes_no_seed_beyond_63_bits() -> None:
    assert results(coins(1), 2**63 - 1)[0].seed_simulator == 2**63 - 1
    with pytest.raises(TypeError):
        results(coins(1), 2**63)


@given(SEEDS)
def test_seeds_are_in_their_ranges(seed: int) -> None:
    base = simulator_base(seed)
    assert 0 <= base < 2**50
    assert 0 <= simulator_seed(base, 0) == base
    assert simulator_seed(base, 10**9) < simulator_seed(2**50, 4 * 10**15) < 2**63
    assert 0 <= transpiler_seed(seed) < 2**31


@given(SEEDS)
def test_seeds_are_the_same_each_time(seed: int) -> None:
    assert simulator_base(seed) == simulator_base(seed)
    assert transpiler_seed(seed) == transpiler_seed(seed)
    assert isinstance(simulator_base(seed), int) and isinstance(transpiler_seed(seed), int)


def test_seeds_stay_what_they_were_in_earlier_versions() -> None:
    """A result that was published with its seed can be made again."""
    assert [simulator_base(seed) for seed in (0, 1, 42)] == [
        160832069029576,
        405985505759482,
        487901032541529,
    ]
    assert [transpiler_seed(seed) for seed in (0, 1, 42)] == [1790637272, 1485454133, 1954406354]


def test_neighbouring_tasks_share_no_seed() -> None:
    """If base were the seed itself, task 2113 would repeat task 0 from its second circuit on."""
    circuits = 10**6
    bases = sorted(simulator_base(seed) for seed in range(2000))
    by_rest: dict[int, list[int]] = {}
    for base in bases:
        by_rest.setdefault(base % AER_STRIDE, []).append(base)
    gaps = [after - before for group in by_rest.values() for before, after in pairwise(group)]
    assert len(set(bases)) == 2000
    assert min(gaps) > circuits * AER_STRIDE


def test_transpiling_and_simulating_draw_from_different_streams() -> None:
    assert all(simulator_base(seed) >> 19 != transpiler_seed(seed) for seed in range(1000))
    assert len({transpiler_seed(seed) for seed in range(1000)}) == 1000
