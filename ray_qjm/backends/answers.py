"""What backends answer, made equal: an ``Answer`` a circuit, and a row of the result out of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

from qiskit import QuantumCircuit

from ray_qjm.backends.base import Answer
from ray_qjm.errors import BackendResultError
from ray_qjm.results.counts import Row

#: Texts of registers that are kept: most tasks have a handful.
MAX_KEPT = 1000


class Registers:
    """The registers of circuits as the result's column tells them; equal ones are made once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], str] = {}

    def of(self, circuit: QuantumCircuit) -> str:
        """The text for a circuit, see ``Row.registers``."""
        find = circuit.find_bit
        key = tuple([(register.name, *[find(bit).index for bit in register]) for register in circuit.cregs])
        text = self._known.get(key)
        if text is None:
            if len(self._known) >= MAX_KEPT:  # automatic names count on and on: c0, c1, ...
                self._known.clear()
            text = self._known[key] = json.dumps([[name, bits] for name, *bits in key], separators=(",", ":"))
        return text


def read_answer(answer: Any, name: str, *, memory: bool) -> Answer:
    """What Qiskit's ``Result`` says of one circuit.

    Args:
        answer: An ``ExperimentResult``.
        name: Of the backend, for messages.
        memory: Whether single shots were asked for. Those that aren't all there are left out, with the reason.

    Raises:
        BackendResultError: It has no counts, or single shots that contradict them.
    """
    status = str(getattr(answer, "status", None) or "")
    if not answer.success:
        raise BackendResultError(status or f"{name} says that it failed, without a reason")
    counts = getattr(answer.data, "counts", None)
    if not counts:
        raise BackendResultError(f"{name} gave no counts (status {status!r})")
    shots = getattr(answer.data, "memory", None) if memory else None
    bits, odd = None, [*_not_hex(counts), *_not_hex(() if shots is None else shots)]
    if odd or set(map(type, counts.values())) != {int}:
        # Qiskit's Result takes bit strings too, and some backends give them, or numbers.
        known = {outcome: _hex(outcome, name) for outcome in odd}
        bits, counts = _bits(odd, name), _as_hex(counts, known, name)
        shots = None if shots is None else [known.get(shot, shot) for shot in shots]
    lacks = None
    if shots is not None:
        shots = list(shots)
        lacks = _lacks(shots, counts, name)
    return Answer(counts, None if lacks else shots, told_seed(answer), lacks, bits)


def counted(row: Row, answer: Answer, *, seed: int | None = None, memory: bool = False) -> Row:
    """A row with the counts of an answer filled in.

    Args:
        row: All else that is known of the circuit; it is changed and returned.
        answer: For all its shots.
        seed: Of the simulator; ``None``: as the answer tells.
        memory: Whether single shots are wanted too: a row that lacks them is partial, and says so.

    Raises:
        BackendResultError: There are none, or more than were asked for.
    """
    if answer.counts is None:
        raise BackendResultError(answer.error or f"{row.backend} gave no counts")
    check_bits(row, answer)
    shots = sum(answer.counts.values())
    if shots > row.shots_requested:
        raise BackendResultError(f"{row.backend} gave {shots} shots, {row.shots_requested} were asked for")
    row.shots = shots
    row.seed = answer.seed if seed is None else seed
    row.counts = answer.counts
    row.memory = answer.memory
    lacks = []
    if memory and answer.memory is None:
        lacks.append(
            answer.error or f"{row.backend} gave counts and no single shots, which memory=True asks for"
        )
    if shots < row.shots_requested:
        lacks.append(f"{row.backend} gave {shots} of {row.shots_requested} shots")
    if lacks:
        row.status = "partial"
        row.error_type = BackendResultError.__name__
        row.error = "; ".join(lacks)
    return row


def check_bits(row: Row, answer: Answer) -> None:
    """Check that outcomes which came as bit strings have a bit for each clbit: else nobody knows which is which.

    Raises:
        BackendResultError: They haven't.
    """
    if answer.bits is not None and answer.bits != row.clbits:
        raise BackendResultError(
            f"{row.backend} gave outcomes of {answer.bits} bits for a circuit of {row.clbits} clbits"
        )


def told_seed(answer: Any) -> int | None:
    """The seed that a simulator says it has used."""
    seed = getattr(answer, "seed_simulator", None)
    if seed is None:
        seed = getattr(answer, "seed", None)
    return int(seed) if isinstance(seed, Integral) and 0 <= int(seed) < 2**64 else None


def seed_option(known: Collection[str], run_options: Mapping[str, Any]) -> str | None:
    """What a backend calls the option for the seed of a simulation.

    Args:
        known: Names of its options.
        run_options: What the user sets: a seed of his own stays.

    Returns:
        The name; ``None``: it has none.
    """
    if "seed_simulator" in known:
        return "seed_simulator"
    return "seed" if "seed" in known and "seed" not in run_options else None


def _not_hex(outcomes: Iterable[Any]) -> list[Any]:
    return [outcome for outcome in outcomes if type(outcome) is not str or outcome[:2] != "0x"]


def _as_hex(counts: Mapping[Any, Any], known: Mapping[Any, str], name: str) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for key, count in counts.items():
        try:
            number = int(count)
        except (OverflowError, TypeError, ValueError):
            number = -1
        if number != count:
            raise BackendResultError(f"{name} gave {count} for outcome {key!r}, which is no number of shots")
        found[known.get(key, key)] = number
    if len(found) < len(counts):
        raise BackendResultError(f"{name} gave an outcome twice")
    return found


def _bits(outcomes: Sequence[Any], name: str) -> int | None:
    """How long bit strings are; ``None`` for numbers, which don't tell their leading zeros."""
    texts = [text.replace(" ", "") for text in outcomes if isinstance(text, str)]
    lengths = {len(text) for text in texts if text[:2].lower() not in ("0x", "0b")}
    if len(lengths) > 1:
        raise BackendResultError(f"{name} gave outcomes of different lengths")
    return lengths.pop() if lengths else None


def _hex(outcome: Any, name: str) -> str:
    """An outcome in the one way of writing it that is used here.

    Raises:
        BackendResultError: It can't be said what it means.
    """
    if not isinstance(outcome, bool | str) and hasattr(outcome, "__index__") and outcome >= 0:
        return hex(outcome)
    text = outcome.replace(" ", "").lower() if isinstance(outcome, str) else ""
    if text.startswith("0x"):
        return text
    digits = text.removeprefix("0b")
    if not digits or set(digits) - {"0", "1"}:
        raise BackendResultError(
            f"{name} gave outcome {outcome!r}, which is no string of bits, hexadecimal number or whole number"
        )
    return hex(int(digits, 2))


def _lacks(shots: Sequence[str], counts: Mapping[str, int], name: str) -> str | None:
    """What is missing from single shots; ``None``: nothing.

    Raises:
        BackendResultError: They contradict the counts: nobody knows which of the two are true.
    """
    told = Counter(shots)
    if told == counts:
        return None
    try:
        values, known = _by_value(told), _by_value(counts)
    except ValueError as error:
        raise BackendResultError(f"{name} gave an outcome that is no hexadecimal number: {error}") from None
    for value, times in values.items():
        if times > known.get(value, 0):
            raise BackendResultError(
                f"{name} contradicts itself: outcome {value:#x} comes {times} times among its single shots and "
                f"{known.get(value, 0)} times in its counts"
            )
    if values == known:
        return None
    return f"{name} gave {len(shots)} single shots, and counts of {sum(counts.values())}"


def _by_value(counts: Mapping[str, int]) -> Counter[int]:
    found: Counter[int] = Counter()
    for outcome, count in counts.items():
        found[int(outcome, 16)] += count
    return found
