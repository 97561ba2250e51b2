"""What the engine asks of a service: one small protocol, which an adapter for each kind of client keeps.

An adapter lives in the process of its desk. Its methods may block for as long as a network call takes, and are
called from several threads at once, ``submit`` too. None of them retries: what an error means is for
``classify`` to say and for the desk to act on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from qiskit import QuantumCircuit

from ray_qjm.options import Limits
from ray_qjm.planning.errands import Seen
from ray_qjm.planning.verdicts import Verdict


@dataclass(frozen=True)
class Submission:
    """One job, ready to be sent.

    Attributes:
        circuits: Compiled for the backend.
        shots: Of each circuit; all equal unless ``Adapter.mixed``.
        tag: To be found by, should the reply be lost.
        memory: Whether single shots are wanted.
        seed: For a simulator behind the service; ``None``: it takes none.
    """

    circuits: Sequence[QuantumCircuit]
    shots: Sequence[int]
    tag: str
    memory: bool = False
    seed: int | None = None


@dataclass(frozen=True)
class Answer:
    """What a job gave for one of its circuits.

    Attributes:
        counts: Hexadecimal outcome to number of shots; bit i is clbit i. ``None``: it has none.
        memory: Outcomes in shot order, if they were asked for.
        seed: Seed of the simulator, if the backend tells one.
        error: Why there are no counts; beside counts: why there are no single shots.
        bits: How many bits its outcomes were written with; ``None``: they were numbers.
    """

    counts: Mapping[str, int] | None = None
    memory: Sequence[str] | None = None
    seed: int | None = None
    error: str | None = None
    bits: int | None = None


@dataclass(frozen=True)
class Facts:
    """What the driver and its workers have to know of a backend that lives elsewhere.

    Attributes:
        name: Its own name.
        target: Qiskit's ``Target``; ``None``: circuits go as they are.
        limits: Of one job, as the backend tells them.
        mixed: Whether a job may hold circuits with different numbers of shots.
        samples: Whether circuits travel as PUBs: then loose clbits get a register for the way.
        memory: Whether single shots can be had.
        stages: Transpiler stages of the provider's own, by their names in ``generate_preset_pass_manager``.
        tagged: Whether jobs can be found by their tag after a lost reply.
        recalled: Whether a job can be had by its id from another process.
        squeezed: Whether circuits are compressed one by one on the way, which ``max_payload_bytes`` counts.
        job_s: Estimated QPU seconds of a job, whatever is in it; 0 where nothing is known.
        execution_s: And of each execution.
    """

    name: str
    target: Any = None
    limits: Limits = field(default_factory=Limits)
    mixed: bool = False
    samples: bool = False
    memory: bool = True
    stages: Mapping[str, str] = field(default_factory=dict)
    tagged: bool = False
    recalled: bool = False
    squeezed: bool = False
    job_s: float = 0.0
    execution_s: float = 0.0


@runtime_checkable
class Adapter(Protocol):
    """One backend of a service, in the process of its desk.

    Methods may block for as long as a network call takes, and are called from several threads at once. None of
    them retries. Two more are called where they are there: ``rest()`` when no task uses the backend for now, and
    ``close()`` when the desk ends.
    """

    def facts(self) -> Facts:
        """What others have to know of the backend."""

    def submit(self, job: Submission) -> str:
        """Create a job and return its id. Sends one request that creates one, whatever happens to it."""

    def find(self, tag: str) -> list[str] | None:
        """Ids of all jobs with a tag, the oldest first; ``None``: the service can't be asked."""

    def status(self, job_ids: Sequence[str]) -> Mapping[str, Seen]:
        """How jobs are, in as few requests as there can be; those that the service doesn't know may be left out."""

    def fetch(self, job_id: str) -> Any:
        """The result of a job that is done, picklable: an ``Answer`` a circuit, in the order of the submission.

        With ``Facts.samples`` it is what ``sampler.bits_of`` makes of a ``PrimitiveResult``.

        Raises:
            JobGoneError: It can't be had any more; after any other error it is asked for again.
        """

    def forget(self, job_id: str) -> None:
        """Nothing more is wanted of a job: its result is stored, or it has none."""

    def cancel(self, job_id: str) -> None:
        """Ask the service to cancel a job; whether it has is for ``status`` to say."""

    def classify(self, error: BaseException) -> Verdict:
        """What an error of ``submit`` means. Nothing that it doesn't know may be retried for ever."""


class JobGoneError(Exception):
    """A job can't be had any more: the process that submitted it has died, and the client can't look it up."""


@dataclass(frozen=True)
class FetchFailed:
    """Why the result of a job couldn't be had.

    Attributes:
        reason: In the client's words.
        final: Whether asking again is of no use.
    """

    reason: str
    final: bool
