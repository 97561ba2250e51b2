"""Bits by register made counts by clbit, and what becomes of bits that can't be a circuit's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Clbit, Qubit
from qiskit.primitives import BitArray, DataBin, SamplerPubResult, StatevectorSampler

from ray_qjm.backends.base import Answer
from ray_qjm.backends.pub_bits import LOOSE, PubBits, bits_of, decode
from ray_qjm.backends.sampler import with_loose_register

#: Of a circuit: its registers by name with their clbits, and how many clbits it has.
Layout = tuple[list[tuple[str, list[int]]], int]
TWO: Layout = ([("a", [0, 1]), ("b", [2, 3, 4])], 5)


def pub(shots: int = 10, **registers: tuple[int, int]) -> PubBits:
    """Bits of so many equal shots; of each register the value and the number of bits."""
    found = {}
    for name, (value, size) in registers.items():
        found[name] = (np.array([[*value.to_bytes(-(-size // 8), "big")]] * shots, np.uint8), size)
    return found


def one(given: Any, layout: Layout = TWO) -> Answer:
    """What a circuit of this layout has, between two that are as they should be."""
    good = pub(a=(1, 2), b=(4, 3))
    before, found, after = decode(
        [good, given, good], [TWO[0], layout[0], TWO[0]], [TWO[1], layout[1], TWO[1]]
    )
    assert before.counts == after.counts == {"0x11": 10}
    return found


def test_registers_are_joined_by_clbit() -> None:
    assert one(pub(a=(1, 2), b=(4, 3))).counts == {"0x11": 10}
    assert one(pub(b=(4, 3), a=(1, 2)), ([("b", [4, 0, 1]), ("a", [3, 2])], 5)).counts == {"0xa": 10}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (pub(a=(1, 2)), "the result has registers ['a'], the circuit ['a', 'b']"),
        (pub(a=(1, 2), c=(4, 3)), "the result has registers ['a', 'c'], the circuit ['a', 'b']"),
        (pub(a=(1, 2), b=(4, 3), c=(1, 1)), "registers ['a', 'b', 'c'], the circuit ['a', 'b']"),
        ({}, "the result has registers [], the circuit ['a', 'b']"),
        (pub(a=(1, 2), b=(4, 8)), "register 'b' has 8 bits in the result, and 3 in the circuit"),
        (pub(a=(1, 1), b=(4, 3)), "register 'a' has 1 bits in the result, and 2 in the circuit"),
        (pub(a=(1, 2), b=(9, 3)), "register 'b' has an outcome of more than its 3 bits"),
        ({**pub(a=(1, 2)), **pub(9, b=(4, 3))}, "different numbers of shots: [9, 10]"),
        ({**pub(a=(1, 2)), "b": (np.zeros((10, 2), np.uint8), 3)}, "register 'b' has uint8 of shape (10, 2)"),
        ({**pub(a=(1, 2)), "b": (np.zeros(10, np.uint8), 3)}, "register 'b' has uint8 of shape (10,)"),
        ({**pub(a=(1, 2)), "b": (np.zeros((2, 5, 1), np.uint8), 3)}, "of shape (2, 5, 1)"),
        ({**pub(a=(1, 2)), "b": (np.zeros((10, 1)), 3)}, "register 'b' has float64 of shape (10, 1)"),
        (Answer(error="as it was told"), "as it was told"),
    ],
)
def test_bits_that_cannot_be_a_circuits_own_fail_it_alone(given: Any, told: str) -> None:
    found = one(given)
    assert found.counts is None and told in str(found.error)


@pytest.mark.parametrize("empty", [{}, {"e": (np.zeros((10, 0), np.uint8), 0)}])
def test_registers_without_bits_say_nothing(empty: Any) -> None:
    layout: Layout = ([("e", []), ("m", [0, 1])], 2)
    assert one({**empty, **pub(m=(2, 2))}, layout).counts == {"0x2": 10}


def test_register_whose_bits_others_have_may_be_missing() -> None:
    layout: Layout = ([("f", [0, 1, 2]), ("alias", [2, 0])], 3)
    assert one(pub(f=(5, 3)), layout).counts == {"0x5": 10}
    assert one(pub(alias=(3, 2)), layout).counts is None


def test_wide_outcomes_have_no_more_bits_than_they_have_either() -> None:
    layout: Layout = ([("w", [*range(70)])], 70)
    assert one(pub(w=(1 << 69, 70)), layout).counts == {hex(1 << 69): 10}
    assert "more than its 70 bits" in str(one(pub(w=(1 << 70, 70)), layout).error)


def test_an_array_of_one_circuit_is_one_circuit() -> None:
    bits = {"a": BitArray(np.full((1, 10, 1), 1, np.uint8), 2), "b": BitArray.from_counts({"100": 10})}
    (found,) = bits_of([SamplerPubResult(DataBin(**bits))])
    assert one(found).counts == {"0x11": 10}


@pytest.mark.parametrize("taken", ["clbits", "qubits", "both"])
def test_loose_clbits_get_a_register_whose_name_is_free(taken: str) -> None:
    circuit = QuantumCircuit([Qubit(), Qubit()], [Clbit()])
    if taken != "qubits":
        circuit.add_register(ClassicalRegister(1, LOOSE))
    else:
        circuit.add_register(ClassicalRegister(1, "c"))
    if taken != "clbits":
        circuit.add_register(QuantumRegister(1, f"{LOOSE}_0" if taken == "both" else LOOSE))
    circuit.x(0)
    circuit.measure([0, 1], [0, 1])
    registers = [(register.name, [1]) for register in circuit.cregs]
    sent = with_loose_register(circuit)
    found = bits_of(StatevectorSampler().run([sent], shots=10).result())
    assert len(sent.cregs) == 2
    assert [answer.counts for answer in decode(found, [registers], [2])] == [{"0x1": 10}]
