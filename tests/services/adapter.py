"""The scripted service behind the protocol of adapters, for the desk and its threads."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

from ray_qjm.backends.base import Answer, Facts, Submission
from ray_qjm.backends.codes import judge
from ray_qjm.planning.errands import Seen
from ray_qjm.planning.verdicts import Verdict
from tests.services.scripted import Part, ScriptedService


class ScriptedAdapter:
    """See the module's docstring; circuits are any objects with a ``name``.

    Args:
        service: Behind it.
        tagged: Whether the service can be asked for a tag.
        mixed: Whether a job may hold circuits with different numbers of shots.
        size: Bytes of a circuit.
        wait: Called with the seconds that a reply takes.
    """

    def __init__(
        self,
        service: ScriptedService,
        *,
        tagged: bool = True,
        mixed: bool = False,
        size: Callable[[str], int] = lambda name: 0,
        wait: Callable[[float], object] = lambda seconds: None,
    ) -> None:
        self.service = service
        self._tagged = tagged
        self._mixed = mixed
        self._size = size
        self._wait = wait

    def facts(self) -> Facts:
        """What others have to know of the backend."""
        limits = self.service.script.limits
        return Facts("scripted", limits=limits, mixed=self._mixed, tagged=self._tagged, recalled=True)

    def submit(self, job: Submission) -> str:
        """Create a job."""
        parts = [
            Part([circuit.name for circuit, _ in group], shots)
            for shots, group in itertools.groupby(
                zip(job.circuits, job.shots, strict=True), key=lambda pair: pair[1]
            )
        ]
        size = sum(self._size(circuit.name) for circuit in job.circuits)
        answer, takes_s = self.service.submit(job.tag, parts, size)
        if takes_s:
            self._wait(takes_s)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def find(self, tag: str) -> list[str] | None:
        """Ids of all jobs with a tag."""
        return self.service.find(tag) if self._tagged else None

    def status(self, job_ids: Sequence[str]) -> Mapping[str, Seen]:
        """How jobs are."""
        return self.service.status(job_ids)

    def fetch(self, job_id: str) -> list[Answer]:
        """Counts that tell the circuit and its shots: all its shots are one outcome, see ``outcome``."""
        job = self.service.fetch(job_id)
        return [Answer({outcome(str(name)): part.shots}) for part in job.parts for name in part.circuits]

    def forget(self, job_id: str) -> None:
        """Nothing is kept here."""

    def cancel(self, job_id: str) -> None:
        """Ask the service to cancel a job."""
        self.service.cancel(job_id)

    def cost_s(self, job: Submission) -> float:
        """Seconds as the service bills them, unless its script says otherwise."""
        return 2.0 + 250e-6 * sum(job.shots)

    def classify(self, error: BaseException) -> Verdict:
        """What an error means."""
        return judge(error, "unknown")


def outcome(name: str) -> str:
    """The one outcome of a circuit, by its name."""
    return hex(sum(name.encode()) % 1024)
