"""What samplers answer: bits register by register, made counts by clbit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_qjm.backends.base import Answer
from ray_qjm.errors import BackendResultError

#: Loose clbits travel in a register of this name, or one that begins so: samplers drop those that are in none.
LOOSE = "ray_qjm_loose"

#: What ``fetch`` gives for a circuit: for each register its packed bits, uint8 of shape ``(shots, bytes)``,
#: big-endian, and how many bits it has.
PubBits = dict[str, tuple[NDArray[np.uint8], int]]
#: Registers by name, and which clbits they hold, the lowest bit first.
Places = tuple[tuple[str, tuple[int, ...]], ...]


def bits_of(result: Any) -> list[PubBits | Answer]:
    """The bits of a ``PrimitiveResult``, as arrays that any process can load; what isn't bits, as an error.

    Raises:
        TypeError: It is no such result.
    """
    return [_bits_of(pub) for pub in result]


def _bits_of(pub: Any) -> PubBits | Answer:
    try:
        data = dict(pub.data.items())
    except Exception as error:
        return Answer(error=f"the result is no sampler's: {type(error).__name__}: {error}")
    found: PubBits = {}
    for name, bits in data.items():
        try:
            array, size = np.asarray(bits.array), int(bits.num_bits)
        except Exception:
            return Answer(
                error=f"register {str(name)!r} holds a {type(bits).__name__} in the result, not bits"
            )
        if array.ndim > 2 and math.prod(array.shape[:-2]) == 1:  # an array of one circuit
            array = array.reshape(array.shape[-2:])
        found[str(name)] = (array, size)
    return found


def decode(
    raw: Sequence[PubBits | Answer],
    registers: Sequence[Sequence[tuple[str, Sequence[int]]]],
    clbits: Sequence[int],
) -> list[Answer]:
    """Counts and shots out of the bits of registers, for a whole job at once.

    Registers are joined by clbit, never one behind the other: they may overlap, and stand in any order.

    Args:
        raw: As ``fetch`` gives it.
        registers: Of each circuit: name and clbits, the lowest bit first, as the column ``registers``.
        clbits: Of each circuit.

    Returns:
        An answer a circuit; one whose bits can't be its own has an error, whatever the others have.
    """
    answers: list[Answer] = [Answer(error="no answer")] * len(raw)
    alike: dict[tuple[int, int, Places], list[int]] = {}
    for i, (pub, known, width) in enumerate(zip(raw, registers, clbits, strict=True)):
        if isinstance(pub, Answer):
            answers[i] = pub
            continue
        try:
            places, shots = _places(pub, known, width), _shots(pub)
        except BackendResultError as error:
            answers[i] = Answer(error=str(error))
            continue
        alike.setdefault((width, shots, places), []).append(i)
    for (width, _, places), rows in alike.items():
        for i, answer in zip(rows, _answers([raw[i] for i in rows], places, width), strict=True):
            answers[i] = answer
    return answers


def _places(pub: PubBits, known: Sequence[tuple[str, Sequence[int]]], width: int) -> Places:
    """Name and clbits of each register that a result has.

    Raises:
        BackendResultError: They aren't those of the circuit.
    """
    # Registers without bits say nothing, and not all samplers tell of them.
    places = {name: tuple(bits) for name, bits in known if bits}
    given = {name: size for name, (_, size) in pub.items() if size}
    in_registers = {bit for bits in places.values() for bit in bits}
    loose = tuple(bit for bit in range(width) if bit not in in_registers)
    if loose:
        own = {name for name, _ in known}
        places[next((name for name in given if name.startswith(LOOSE) and name not in own), LOOSE)] = loose
    there = {bit for name in given for bit in places.get(name, ())}
    if not given or set(given) - set(places) or len(there) < width:
        raise BackendResultError(f"the result has registers {sorted(given)}, the circuit {sorted(places)}")
    for name, size in given.items():
        if size != len(places[name]):
            raise BackendResultError(
                f"register {name!r} has {size} bits in the result, and {len(places[name])} in the circuit"
            )
    return tuple(sorted((name, places[name]) for name in given))


def _shots(pub: PubBits) -> int:
    """How many shots a result has.

    Raises:
        BackendResultError: Its arrays aren't those of one circuit, or their lengths differ.
    """
    found = set()
    for name, (array, size) in pub.items():
        if size == 0:
            continue
        if array.ndim != 2 or array.shape[1] != -(-size // 8) or array.dtype != np.uint8:
            raise BackendResultError(
                f"register {name!r} has {array.dtype} of shape {array.shape} in the result, and bytes of shape (shots, "
                f"{-(-size // 8)}) hold {size} bits"
            )
        found.add(array.shape[0])
    if len(found) > 1:
        raise BackendResultError(
            f"the registers of the result have different numbers of shots: {sorted(found)}"
        )
    return int(found.pop())


def _answers(group: Sequence[Any], places: Places, width: int) -> Iterator[Answer]:
    """What circuits with equal registers and shots have given; one that can't be read spoils no other."""
    try:
        values = [*_joined(group, places, width)]
    except Exception as error:
        if len(group) > 1:
            for pub in group:
                yield from _answers([pub], places, width)
            return
        own = isinstance(error, BackendResultError)
        yield Answer(error=str(error) if own else f"{type(error).__name__}: {error}")
        return
    yield from map(_counts, values)


def _joined(group: Sequence[PubBits], places: Places, width: int) -> NDArray[Any]:
    """Outcomes as whole numbers, of shape ``(circuits, shots)``: uint64, or Python's own above 64 clbits.

    Raises:
        BackendResultError: A register has more bits than it has.
    """
    kind: Any = np.uint64 if width <= 64 else int
    parts: list[NDArray[Any]] = []
    for name, bits in places:
        packed = np.stack([pub[name][0] for pub in group])  # (circuits, shots, bytes)
        values = _numbers(packed, object if kind is int else kind)
        size = len(bits)
        if size % 8 and (values >> kind(size)).any():
            raise BackendResultError(f"register {name!r} has an outcome of more than its {size} bits")
        if bits == tuple(range(bits[0], bits[0] + size)):
            part = values << kind(bits[0])
        else:
            part = np.zeros_like(values)
            for at, bit in enumerate(bits):
                part |= ((values >> kind(at)) & kind(1)) << kind(bit)
        parts.append(part)
    return reduce(np.bitwise_or, parts)


def _numbers(packed: NDArray[np.uint8], kind: Any) -> NDArray[Any]:
    """Big-endian bytes along the last axis, as numbers."""
    if kind is object:
        flat = packed.reshape(-1, packed.shape[-1])
        numbers = np.array([int.from_bytes(row.tobytes(), "big") for row in flat], dtype=object)
        return numbers.reshape(packed.shape[:-1])
    padded = np.zeros((*packed.shape[:-1], 8), np.uint8)
    padded[..., 8 - packed.shape[-1] :] = packed
    return padded.view(">u8")[..., 0].astype(np.uint64)


def _counts(values: NDArray[Any]) -> Answer:
    outcomes, counts = np.unique(values, return_counts=True)
    return Answer(
        {hex(outcome): count for outcome, count in zip(outcomes.tolist(), counts.tolist(), strict=True)},
        _Shots(values),
    )


class _Shots(Sequence[str]):
    """Outcomes in shot order, written out only if somebody wants them."""

    def __init__(self, values: NDArray[Any]) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [hex(value) for value in self._values[at].tolist()]
        return hex(int(self._values[at]))
