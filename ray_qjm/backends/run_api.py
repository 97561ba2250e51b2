"""Any provider's ``BackendV2`` as a service: ``run`` gives a ``JobV1``, nothing else is assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qiskit.providers import JobStatus

from ray_qjm.backends.answers import read_answer
from ray_qjm.backends.base import Answer, Facts, JobGoneError, Submission
from ray_qjm.backends.codes import judge, words
from ray_qjm.backends.held_jobs import HeldJobs
from ray_qjm.errors import BackendResultError
from ray_qjm.options import Limits
from ray_qjm.planning.errands import Seen
from ray_qjm.planning.verdicts import Verdict

_STATES: dict[str, str] = {
    "initializing": "submitted",
    "queued": "submitted",
    "validating": "submitted",
    "running": "running",
    "cancelled": "cancelled",
    "done": "done",
    "error": "failed",
}


class RunAdapter:
    """Speaks to a backend through Qiskit's own interface.

    Jobs can't be asked for by a tag there. They can be had again in another process where the backend has
    ``retrieve_job``, as many have though no interface says so.

    Args:
        backend: A ``BackendV2``.
        run_options: Further arguments of its ``run``.
    """

    def __init__(self, backend: Any, run_options: Mapping[str, Any]) -> None:
        self._backend = backend
        self._run_options = dict(run_options)
        self._options = set(backend.options)
        recall = getattr(backend, "retrieve_job", None)
        self._recall = recall if callable(recall) else None
        self._jobs = HeldJobs(str(backend.name), self._recall)

    def facts(self) -> Facts:
        """See ``Adapter``."""
        most = self._backend.max_circuits
        return Facts(
            name=str(self._backend.name),
            target=self._backend.target,
            limits=Limits(max_circuits=None if most is None else int(most)),
            stages=stages_of(self._backend),
            recalled=self._recall is not None,
        )

    def submit(self, job: Submission) -> str:
        """See ``Adapter``."""
        options = {**self._run_options, "shots": job.shots[0]}
        if job.memory:
            options["memory"] = True
        if job.seed is not None and "seed_simulator" in self._options:
            options["seed_simulator"] = job.seed
        return self._jobs.add(self._backend.run(list(job.circuits), **options))

    def find(self, tag: str) -> list[str] | None:
        """See ``Adapter``."""
        return None

    def status(self, job_ids: Sequence[str]) -> Mapping[str, Seen]:
        """See ``Adapter``; a request a job, as there is no other way."""
        return {job_id: self._seen(job_id) for job_id in job_ids}

    def fetch(self, job_id: str) -> list[Answer]:
        """See ``Adapter``: an answer a circuit, in the order of the submission."""
        result = self._jobs.get(job_id).result()
        answers = []
        for answer in result.results:
            try:
                answers.append(read_answer(answer, str(self._backend.name), memory=True))
            except BackendResultError as error:
                answers.append(Answer(error=str(error)))
            except Exception as error:  # whatever a strange answer makes of attribute and key look-ups
                answers.append(Answer(error=f"{type(error).__name__}: {error}"))
        return answers

    def forget(self, job_id: str) -> None:
        """See ``Adapter``."""
        self._jobs.drop(job_id)

    def cancel(self, job_id: str) -> None:
        """See ``Adapter``."""
        self._jobs.get(job_id).cancel()

    def classify(self, error: BaseException) -> Verdict:
        """See ``Adapter``; what isn't known may be a broken circuit's fault: the job is halved."""
        return judge(error, "split job")

    def _seen(self, job_id: str) -> Seen:
        try:
            job = self._jobs.get(job_id)
        except JobGoneError as error:
            return Seen("lost", Verdict("give up", "JobLostError", str(error)))
        status = job.status()
        state = _STATES.get(status.name.lower() if isinstance(status, JobStatus) else str(status).lower())
        facts = _queue(job) if state == "submitted" else {}
        if state != "failed":
            return Seen(state, facts=facts)
        try:
            result = job.result()
        except Exception as error:
            return Seen("failed", self.classify_failure(job, error))
        # Some call a job failed of which one circuit has: the others have their counts.
        if any(answer.success for answer in result.results):
            return Seen("done")
        return Seen(
            "failed", Verdict("split job", "JobFailedError", str(getattr(result, "status", "it failed")))
        )

    def classify_failure(self, job: Any, error: BaseException) -> Verdict:
        """What the error of a job that was accepted means: it is over, and nothing of it is unknown."""
        told = getattr(job, "error_message", None)
        text = told() if callable(told) else None
        verdict = judge(error, "split job")
        what = "again" if verdict.what == "unknown" else verdict.what
        return Verdict(what, verdict.error_type, str(text) if text else words(error), verdict.retry_after_s)


def stages_of(backend: Any) -> dict[str, str]:
    """Transpiler stages that a provider names for its backend, by argument of ``generate_preset_pass_manager``."""
    found = {}
    for stage in ("translation", "scheduling"):
        name = getattr(backend, f"get_{stage}_stage_plugin", None)
        if callable(name):
            found[f"{stage}_method"] = str(name())
    return found


def _queue(job: Any) -> dict[str, Any]:
    """Where a job stands in the queue, if its provider tells; none has to."""
    position = getattr(job, "queue_position", None)
    try:
        told = position() if callable(position) else position
    except Exception:
        return {}
    return {"position": told} if isinstance(told, int) else {}
