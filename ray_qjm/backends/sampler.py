"""Any ``BaseSamplerV2`` as a service: PUBs go in, a ``PrimitiveResult`` comes out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit import ClassicalRegister

from ray_qjm.backends.base import Answer, Facts, Submission
from ray_qjm.backends.codes import words
from ray_qjm.backends.held_jobs import HeldJobs, judge_submission
from ray_qjm.backends.pub_bits import LOOSE, PubBits, bits_of
from ray_qjm.backends.readings import Readings
from ray_qjm.errors import BackendResultError, InvalidInputError
from ray_qjm.options import Limits
from ray_qjm.planning.errands import Seen
from ray_qjm.planning.verdicts import Verdict

#: The run option by which a user says whether the PUBs of one job may have different numbers of shots.
MIXED = "mixed_shots"
#: Packages whose samplers refuse such jobs, or are about to; Qiskit's interface has them take such jobs.
UNMIXED = ("qiskit_ibm_runtime", "qiskit_braket_provider")


class SamplerAdapter:
    """Speaks to a sampler through Qiskit's own interface, which knows no tags.

    Args:
        sampler: A ``BaseSamplerV2``.
        name: What the backend is called.
        run_options: Further arguments of its ``run``, and ``MIXED``.

    Raises:
        InvalidInputError: It doesn't know an option.
    """

    def __init__(self, sampler: Any, name: str, run_options: Mapping[str, Any] | None = None) -> None:
        options = dict(run_options or {})
        check_sampler_options(sampler, name, options)
        self._sampler = sampler
        self._name = name
        self._mixed = bool(options.pop(MIXED, takes_mixed(sampler)))
        self._run_options = options
        self._jobs = HeldJobs(name, None)
        self._sizes: dict[str, int] = {}
        self._readings = Readings()

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
        shots = None if self._mixed else job.shots[0]
        job_id = self._jobs.add(self._sampler.run(pubs(job), shots=shots, **self._run_options))
        self._sizes[job_id] = len(job.circuits)
        return job_id

    def find(self, tag: str) -> list[str] | None:
        """See ``Adapter``."""
        return None

    def status(self, job_ids: Sequence[str]) -> Mapping[str, Seen]:
        """See ``Adapter``; a request a job, as there is no other way.

        Raises:
            Exception: Of the network, if nothing can be asked at all.
        """
        return self._jobs.ask(job_ids, self._seen)

    def fetch(self, job_id: str) -> list[PubBits | Answer]:
        """See ``Adapter``: the bits of each circuit, in the order of the submission, or why it has none.

        Raises:
            BackendResultError: It is no sampler's result, or one of more or fewer circuits, however often it is asked
                for; before that an ``UnreadResultError``.
            Exception: Whatever the job raises.
        """
        with self._readings.of(job_id):
            found = bits_of(self._jobs.get(job_id).result())
            size = self._sizes.get(job_id, len(found))
            if len(found) != size:
                raise BackendResultError(f"{self._name} gave {len(found)} results for {size} circuits")
        return found

    def forget(self, job_id: str) -> None:
        """See ``Adapter``."""
        self._jobs.drop(job_id)
        self._sizes.pop(job_id, None)
        self._readings.forget(job_id)

    def cancel(self, job_id: str) -> None:
        """See ``Adapter``."""
        self._jobs.get(job_id).cancel()

    def classify(self, error: BaseException) -> Verdict:
        """See ``Adapter``; what isn't known may be a broken circuit's fault: the job is halved."""
        return judge_submission(error)

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


def takes_mixed(sampler: Any) -> bool:
    """Whether the PUBs of one job may have different numbers of shots, as far as that is known."""
    return not any(kind.__module__.partition(".")[0] in UNMIXED for kind in type(sampler).__mro__)


def check_sampler_options(sampler: Any, name: str, run_options: Mapping[str, Any]) -> None:
    """Check that a sampler's ``run`` takes all that it will be told.

    Raises:
        InvalidInputError: It doesn't; the message lists what it takes.
    """
    try:
        taken = dict(inspect.signature(sampler.run).parameters)
    except (TypeError, ValueError):  # it is written in another language
        taken = {}
    known = {MIXED, *taken} - {"pubs", "shots"}
    unknown = sorted(set(run_options) - known)
    if unknown and not any(each.kind is each.VAR_KEYWORD for each in taken.values()):
        raise InvalidInputError(
            f"run_options of sampler {name} has {', '.join(map(repr, unknown))}, which it doesn't know. "
            f"It knows {', '.join(sorted(known))}; its other options belong into the sampler itself."
        )
    if not isinstance(run_options.get(MIXED, True), bool):
        raise InvalidInputError(
            f"{MIXED} of sampler {name} is {run_options[MIXED]!r}. Give True if one job may hold circuits with "
            "different numbers of shots, False if not."
        )


def pubs(job: Submission) -> list[tuple[Any, ...]]:
    """A job as PUBs; shots stand in each."""
    return [(circuit, None, shots) for circuit, shots in zip(job.circuits, job.shots, strict=True)]


def with_loose_register(circuit: QuantumCircuit) -> QuantumCircuit:
    """A circuit whose loose clbits are in a register, for the way; the same one if it has none."""
    loose = [bit for bit in circuit.clbits if not circuit.find_bit(bit).registers]
    if not loose:
        return circuit
    taken = {register.name for register in (*circuit.qregs, *circuit.cregs)}
    name = (
        LOOSE if LOOSE not in taken else next(f"{LOOSE}_{n}" for n in count() if f"{LOOSE}_{n}" not in taken)
    )
    packed = circuit.copy()
    packed.add_register(ClassicalRegister(bits=loose, name=name))
    return packed
