"""Any ``BaseSamplerV2`` as a service: PUBs go in, a ``PrimitiveResult`` comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit.circuit import ClassicalRegister

from ray_qjm.backends.base import Answer, Facts, Submission
from ray_qjm.backends.codes import judge, words
from ray_qjm.backends.held_jobs import HeldJobs
from ray_qjm.options import Limits
from ray_qjm.planning.errands import Seen
from ray_qjm.planning.verdicts import Verdict

#: Loose clbits travel in a register of this name: samplers drop those that are in none.
LOOSE = "ray_qjm_loose"

#: What ``fetch`` gives for a circuit: for each register its packed bits, uint8 of shape ``(shots, bytes)``,
#: big-endian, and how many bits it has.
PubBits = dict[str, tuple[NDArray[np.uint8], int]]


class SamplerAdapter:
    """Speaks to a sampler through Qiskit's own interface, which knows no tags.

    Args:
        sampler: A ``BaseSamplerV2``.
        name: What the backend is called.
        mixed: Whether its jobs may hold PUBs with different numbers of shots.
    """

    def __init__(self, sampler: Any, name: str, *, mixed: bool = True) -> None:
        self._sampler = sampler
        self._name = name
        self._mixed = mixed
        self._jobs = HeldJobs(name, None)

    def facts(self) -> Facts:
        """See ``Adapter``."""
        backend = backend_of(self._sampler)
        return Facts(
            name=self._name,
            target=getattr(backend, "target", None),
            limits=Limits(),
            mixed=self._mixed,
            samples=True,
        )

    def submit(self, job: Submission) -> str:
        """See ``Adapter``."""
        return self._jobs.add(self._sampler.run(pubs(job), shots=None if self._mixed else job.shots[0]))

    def find(self, tag: str) -> list[str] | None:
        """See ``Adapter``."""
        return None

    def status(self, job_ids: Sequence[str]) -> Mapping[str, Seen]:
        """See ``Adapter``; a request a job, as there is no other way.

        Raises:
            Exception: Of the network, if nothing can be asked at all.
        """
        return self._jobs.ask(job_ids, self._seen)

    def fetch(self, job_id: str) -> list[PubBits]:
        """See ``Adapter``: the bits of each circuit, in the order of the submission."""
        return bits_of(self._jobs.get(job_id).result())

    def forget(self, job_id: str) -> None:
        """See ``Adapter``."""
        self._jobs.drop(job_id)

    def cancel(self, job_id: str) -> None:
        """See ``Adapter``."""
        self._jobs.get(job_id).cancel()

    def classify(self, error: BaseException) -> Verdict:
        """See ``Adapter``; what isn't known may be a broken circuit's fault: the job is halved."""
        return judge(error, "split job")

    def _seen(self, job_id: str, job: Any, state: str) -> Seen:
        if state != "failed":
            return Seen(state)
        try:
            job.result()
        except Exception as error:
            verdict = self.classify(error)
            what = "again" if verdict.what == "unknown" else verdict.what
            return Seen("failed", Verdict(what, type(error).__name__, words(error)))
        return Seen("done")


def backend_of(sampler: Any) -> Any:
    """The backend behind a sampler, where it tells; ``None`` for one that simulates by itself."""
    for name in ("backend", "_backend"):
        found = getattr(sampler, name, None)
        if found is not None:
            return found() if callable(found) else found
    return None


def pubs(job: Submission) -> list[tuple[Any, ...]]:
    """A job as PUBs; shots stand in each."""
    return [(circuit, None, shots) for circuit, shots in zip(job.circuits, job.shots, strict=True)]


def with_loose_register(circuit: QuantumCircuit) -> QuantumCircuit:
    """A circuit whose loose clbits are in a register, for the way; the same one if it has none."""
    loose = [bit for bit in circuit.clbits if not circuit.find_bit(bit).registers]
    if not loose:
        return circuit
    packed = circuit.copy()
    packed.add_register(ClassicalRegister(bits=loose, name=LOOSE))
    return packed


def bits_of(result: Any) -> list[PubBits]:
    """The bits of a ``PrimitiveResult``, as arrays that any process can load.

    Raises:
        TypeError: It is none, or not a sampler's.
    """
    found: list[PubBits] = []
    for pub in result:
        data = pub.data
        found.append({str(name): (bits.array, int(bits.num_bits)) for name, bits in data.items()})
    return found


def decode(
    raw: Sequence[PubBits], registers: Sequence[Sequence[tuple[str, Sequence[int]]]], clbits: Sequence[int]
) -> list[Answer]:
    """Counts and shots out of the bits of registers, for a whole job at once.

    Registers are joined by clbit, never one behind the other: they may overlap, and stand in any order.

    Args:
        raw: As ``fetch`` gives it.
        registers: Of each circuit: name and clbits, the lowest bit first, as the column ``registers``.
        clbits: Of each circuit.
    """
    answers: list[Answer | None] = [None] * len(raw)
    alike: dict[tuple[Any, ...], list[int]] = {}
    for i, (pub, known, width) in enumerate(zip(raw, registers, clbits, strict=True)):
        places = {name: tuple(bits) for name, bits in known}
        if LOOSE in pub:
            named = {bit for bits in places.values() for bit in bits}
            places[LOOSE] = tuple(bit for bit in range(width) if bit not in named)
        missing = sorted(set(pub) - set(places))
        if not pub or missing:
            answers[i] = Answer(error=f"the result has registers {sorted(pub)}, the circuit {sorted(places)}")
            continue
        shots = next(iter(pub.values()))[0].shape[0]
        key = (width, shots, tuple(sorted((name, places[name]) for name in pub)))
        alike.setdefault(key, []).append(i)
    for (width, _, places_), rows in alike.items():
        values = _joined([raw[i] for i in rows], places_, width)
        for i, row in zip(rows, values, strict=True):
            answers[i] = _counts(row)
    return [answer or Answer(error="no answer") for answer in answers]


def _joined(
    group: Sequence[PubBits], places: Sequence[tuple[str, tuple[int, ...]]], width: int
) -> NDArray[Any]:
    """Outcomes as whole numbers, of shape ``(circuits, shots)``: uint64, or Python's own above 64 clbits."""
    kind: Any = np.uint64 if width <= 64 else object
    total: NDArray[Any] | None = None
    for name, bits in places:
        packed = np.stack([pub[name][0] for pub in group])  # (circuits, shots, bytes)
        values = _numbers(packed, kind)
        if bits == tuple(range(bits[0], bits[0] + len(bits))):
            part = values << kind(bits[0]) if kind is np.uint64 else values * (1 << bits[0])
        else:
            part = np.zeros_like(values)
            one = np.uint64(1) if kind is np.uint64 else 1
            for at, bit in enumerate(bits):
                shift_down, shift_up = (np.uint64(at), np.uint64(bit)) if kind is np.uint64 else (at, bit)
                part |= ((values >> shift_down) & one) << shift_up
        total = part if total is None else total | part
    assert total is not None
    return total


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
