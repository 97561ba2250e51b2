"""What backends answer, made equal: an ``Answer`` a circuit, and a row of the result out of it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
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
        memory: Whether single shots were asked for.

    Raises:
        BackendResultError: It has no counts.
    """
    status = str(getattr(answer, "status", None) or "")
    if not answer.success:
        raise BackendResultError(status or f"{name} says that it failed, without a reason")
    counts = getattr(answer.data, "counts", None)
    if not counts:
        raise BackendResultError(f"{name} gave no counts (status {status!r})")
    shots = getattr(answer.data, "memory", None) if memory else None
    bits = None
    texts = [outcome for outcome in counts if outcome[:2] != "0x"]
    if shots is not None:
        texts += [outcome for outcome in shots if outcome[:2] != "0x"]
    if texts or set(map(type, counts.values())) != {int}:
        # Qiskit's Result takes bit strings too, and some backends give them.
        bits, counts = _bits(texts, name), _as_hex(counts, name)
        shots = None if shots is None else [_hex(shot) for shot in shots]
    return Answer(counts, None if shots is None else list(shots), told_seed(answer), bits=bits)


def counted(row: Row, answer: Answer, *, seed: int | None = None) -> Row:
    """A row with the counts of an answer filled in.

    Args:
        row: All else that is known of the circuit; it is changed and returned.
        answer: For all its shots.
        seed: Of the simulator; ``None``: as the answer tells.

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
    if shots < row.shots_requested:
        row.status = "partial"
        row.error_type = BackendResultError.__name__
        row.error = f"{row.backend} gave {shots} of {row.shots_requested} shots"
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


def _as_hex(counts: Mapping[str, Any], name: str) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for key, count in counts.items():
        if count != int(count):
            raise BackendResultError(f"{name} gave {count} for outcome {key!r}, which is no number of shots")
        found[_hex(key)] = int(count)
    if len(found) < len(counts):
        raise BackendResultError(f"{name} gave an outcome twice")
    return found


def _bits(texts: Sequence[str], name: str) -> int | None:
    """How long bit strings are; ``None`` for binary numbers, which don't tell their leading zeros."""
    lengths = {len(text.replace(" ", "")) for text in texts if not text.startswith("0b")}
    if len(lengths) > 1:
        raise BackendResultError(f"{name} gave outcomes of different lengths")
    return lengths.pop() if lengths else None


def _hex(outcome: str) -> str:
    if outcome.startswith("0x"):
        return outcome
    return hex(int(outcome.replace(" ", "").removeprefix("0b"), 2))
