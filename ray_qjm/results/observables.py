"""Expectation values of diagonal observables, straight from the columns.

A product of Pauli Z is the parity of some clbits, so it is integer arithmetic on the whole column;
going through dictionaries of bit strings takes some fifty times as long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ray_qjm.errors import InvalidInputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ray_qjm.results.views import Part

_USAGE = (
    'give a string of I and Z such as "ZIZ" (clbit 0 is the last letter), a list of clbits whose parity '
    "is meant, or a mapping from either to its coefficient"
)


def terms(observable: Any) -> list[tuple[int, float]]:
    """The observable as a sum: the mask of clbits of each product of Z, and its coefficient.

    Raises:
        InvalidInputError: It is not diagonal, or nothing that is understood.

    >>> terms({"ZZ": 0.5, "IZ": -1})
    [(3, 0.5), (1, -1.0)]
    """
    if isinstance(observable, Mapping):
        return [(_mask(term), _real(factor)) for term, factor in observable.items()]
    if hasattr(observable, "paulis") and hasattr(observable, "to_list"):  # Qiskit's SparsePauliOp
        return [(_mask(label), _real(factor)) for label, factor in observable.to_list()]
    if hasattr(observable, "to_label"):  # Qiskit's Pauli
        return [(_mask(observable.to_label()), 1.0)]
    return [(_mask(observable), 1.0)]


def expectation(parts: Iterable[Part], observable: Any) -> NDArray[np.float64]:
    """Expectation value of each circuit, NaN for those without counts; see ``TaskResult.expectation``."""
    wanted = terms(observable)
    union = 0
    for mask, _ in wanted:
        union |= mask
    values = [_of_part(part, wanted, union.bit_length()) for part in parts]
    return np.concatenate(values) if values else np.empty(0)


def _of_part(part: Part, wanted: Sequence[tuple[int, float]], bits: int) -> NDArray[np.float64]:
    clbits = part.raw.column("clbits").fill_null(0).to_numpy(zero_copy_only=False)
    narrow = part.have_counts & (clbits < bits)
    if narrow.any():
        row = int(np.flatnonzero(narrow)[0])
        raise InvalidInputError(
            f"the observable needs clbit {bits - 1}, circuit {part.start + row} has {clbits[row]} clbits."
        )
    offsets = part.offsets
    lengths = np.diff(offsets)
    # A sliced batch shares its parent's values.
    counts = part.counts[offsets[0] : offsets[-1]].astype(np.int64)
    shots = _sums(counts, lengths).astype(np.float64)
    total = np.zeros(len(lengths))
    is_wide = np.repeat(part.wide, lengths)
    narrow_values = part.raw.column("outcomes").flatten().to_numpy(zero_copy_only=False)
    wide_values = _wide_values(part)
    for mask, factor in wanted:
        odd = np.empty(len(counts), np.bool_)
        odd[~is_wide] = _parity(narrow_values, mask)
        odd[is_wide] = _wide_parity(wide_values, mask)
        total += factor * _sums(np.where(odd, -counts, counts), lengths)
    with np.errstate(divide="ignore", invalid="ignore"):  # no shots, no value: 0 / 0 is NaN
        return np.asarray(total / np.where(part.have_counts, shots, np.nan), dtype=np.float64)


def _parity(values: NDArray[np.uint64], mask: int) -> NDArray[np.bool_]:
    # NumPy has bitwise_count only since 2.0; folding halves gives the parity in six steps.
    folded = values & np.uint64(mask & (2**64 - 1))
    for shift in (32, 16, 8, 4, 2, 1):
        folded ^= folded >> np.uint64(shift)
    return (folded & np.uint64(1)).astype(np.bool_)


def _wide_values(part: Part) -> list[int]:
    if not part.wide.any():
        return []
    values = part.raw.column("outcomes_wide").flatten().to_pylist()
    return [int.from_bytes(value, "big") for value in values]


def _wide_parity(values: Sequence[int], mask: int) -> NDArray[np.bool_]:
    return np.array([bin(value & mask).count("1") & 1 for value in values], dtype=np.bool_)


def _sums(values: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    ends = np.concatenate(([0], np.cumsum(lengths)))
    running = np.concatenate(([0], np.cumsum(values)))
    return np.asarray(running[ends[1:]] - running[ends[:-1]], dtype=np.int64)


def _mask(term: Any) -> int:
    if isinstance(term, str):
        if not term or set(term) - {"I", "Z"}:
            raise InvalidInputError(f"observable {term!r} is not diagonal or not one: {_USAGE}.")
        return sum(1 << bit for bit, letter in enumerate(reversed(term)) if letter == "Z")
    if not isinstance(term, Iterable):
        raise InvalidInputError(f"observable of type {type(term).__name__}: {_USAGE}.")
    mask = 0
    for clbit in term:
        if not hasattr(clbit, "__index__") or clbit < 0:
            raise InvalidInputError(f"clbit {clbit!r} in an observable: {_USAGE}.")
        bit = 1 << int(clbit)
        if mask & bit:
            raise InvalidInputError(f"clbit {clbit} stands twice in an observable; Z Z is the identity.")
        mask |= bit
    return mask


def _real(factor: Any) -> float:
    value = complex(factor)
    if value.imag:
        raise InvalidInputError(f"coefficient {factor!r} of an observable is not real.")
    return value.real
