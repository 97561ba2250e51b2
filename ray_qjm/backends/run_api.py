"""Any provider's ``BackendV2`` as a service: ``run`` gives a ``JobV1``, nothing else is assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray_qjm.backends.answers import read_answer, seed_option
from ray_qjm.backends.base import Answer, Facts, JobGoneError, Submission
from ray_qjm.backends.codes import judge, words
from ray_qjm.backends.headers import placed
from ray_qjm.backends.held_jobs import HeldJobs, judge_submission
from ray_qjm.backends.readings import Readings
from ray_qjm.errors import BackendResultError, JobFailedError
from ray_qjm.options import Limits
from ray_qjm.planning.errands import Seen
from ray_qjm.planning.verdicts import Verdict


@dataclass(frozen=True)
class _Sent:
    """What is remembered of a job that this process has submitted.

    Attributes:
        names: Of its circuits.
        memory: Whether it was asked for single shots.
    """

    names: Sequence[str]
    memory: bool


class _SaidFailedError(BackendResultError):
    """The result itself says that its job has failed, and holds nothing."""


class RunAdapter:
    """Speaks to a backend through Qiskit's own interface.

    Jobs can't be asked for by a tag there. They can be had again in another process where the backend has
    ``retrieve_job``, as many have though no interface says so.

    Args:
        backend: A ``BackendV2``.
        run_options: Further arguments of its ``run``.
        seeds_apart: Whether it makes another seed for each circuit of a list out of the one that it is given.
            Where nobody knows, lists get no seed: equal circuits would have equal counts.
    """

    def __init__(self, backend: Any, run_options: Mapping[str, Any], *, seeds_apart: bool = False) -> None:
        self._backend = backend
        self._name = str(backend.name or type(backend).__name__)
        self._run_options = dict(run_options)
        self._options = set(backend.options)
        self._seed = seed_option(self._options, run_options)
        self._seeds_apart = seeds_apart
        recall = getattr(backend, "retrieve_job", None)
        self._recall = recall if callable(recall) else None
        self._jobs = HeldJobs(self._name, self._recall)
        self._sent: dict[str, _Sent] = {}
        self._readings = Readings()
        #: Results of jobs that were seen to be done, until they are forgotten.
        self._answers: dict[str, list[Answer]] = {}

    def facts(self) -> Facts:
        """See ``Adapter``."""
        most = self._backend.max_circuits
        return Facts(
            name=self._name,
            target=self._backend.target,
            limits=Limits(max_circuits=int(most) if most else None),
            stages=stages_of(self._backend),
            memory="memory" in self._options,
            recalled=self._recall is not None,
        )

    def submit(self, job: Submission) -> str:
        """See ``Adapter``."""
        options = {**self._run_options, "shots": job.shots[0]}
        if job.memory and "memory" in self._options:
            options["memory"] = True
        if self._seed is not None and job.seed is not None and (self._seeds_apart or len(job.circuits) == 1):
            options[self._seed] = job.seed
        job_id = self._jobs.add(self._backend.run(list(job.circuits), **options))
        self._sent[job_id] = _Sent([str(circuit.name) for circuit in job.circuits], job.memory)
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

    def fetch(self, job_id: str) -> list[Answer]:
        """See ``Adapter``: an answer a circuit, in the order of the submission.

        Raises:
            BackendResultError: There are more or fewer than circuits were submitted, or it can't be read for another
                reason, however often it is asked for; before that an ``UnreadResultError``.
            Exception: Whatever the job raises.
        """
        known = self._answers.get(job_id)
        if known is not None:
            return known
        with self._readings.of(job_id):
            return self._result(job_id, self._jobs.get(job_id))

    def forget(self, job_id: str) -> None:
        """See ``Adapter``."""
        self._jobs.drop(job_id)
        self._sent.pop(job_id, None)
        self._answers.pop(job_id, None)
        self._readings.forget(job_id)

    def cancel(self, job_id: str) -> None:
        """See ``Adapter``.

        Raises:
            RuntimeError: The job answers that it isn't cancelled; it may be later.
            Exception: Whatever else it raises.
        """
        try:
            answer = self._jobs.get(job_id).cancel()
        except NotImplementedError:
            return  # it goes on to its end, however often it is asked
        if answer is False:
            raise RuntimeError(f"job {job_id} of {self._name} can't be cancelled now")

    def classify(self, error: BaseException) -> Verdict:
        """See ``Adapter``; what isn't known may be a broken circuit's fault: the job is halved."""
        return judge_submission(error)

    def _seen(self, job_id: str, job: Any, state: str) -> Seen:
        if state in ("done", "failed"):
            return self._ended(job_id, job, state)
        return Seen(state, facts=_queue(job) if state == "submitted" else {})

    def _ended(self, job_id: str, job: Any, state: str) -> Seen:
        """A job that is over: whether it has given anything is for its result to say."""
        try:
            answers = self._result(job_id, job)
        except JobGoneError:
            raise
        except Exception as error:
            # What has come to a good end was paid: it is asked for its result again, and not run again.
            if state == "done" and not isinstance(error, _SaidFailedError):
                return Seen("done")
            return Seen("failed", self._why_failed(job, error))
        # Some call a job failed of which one circuit has: the others have their counts.
        if state == "done" or any(answer.counts is not None for answer in answers):
            self._answers[job_id] = answers
            return Seen("done")
        reason = _told(job) or next((answer.error for answer in answers if answer.error), "it failed")
        return Seen("failed", Verdict("split job", JobFailedError.__name__, reason))

    def _result(self, job_id: str, job: Any) -> list[Answer]:
        result = job.result()
        given = list(getattr(result, "results", None) or ())
        sent = self._sent.get(job_id)
        if sent is None:  # another process has submitted it: nobody here knows what is in it
            return [self._answer(answer, memory=True) for answer in given]
        if len(given) != len(sent.names):
            status = getattr(result, "status", None)
            said = "" if status is None else f" (status {str(status)!r})"
            failed = not given and getattr(result, "success", None) is False
            raise (_SaidFailedError if failed else BackendResultError)(
                f"{self._name} gave {len(given)} results for {len(sent.names)} circuits{said}"
            )
        answers = placed(given, sent.names, self._name)
        return [self._answer(answer, memory=sent.memory) for answer in answers]

    def _answer(self, answer: Any, *, memory: bool) -> Answer:
        try:
            if isinstance(answer, BackendResultError):
                raise answer
            return read_answer(answer, self._name, memory=memory)
        except BackendResultError as error:
            return Answer(error=str(error))
        except Exception as error:  # whatever a strange answer makes of attribute and key look-ups
            return Answer(error=f"{type(error).__name__}: {error}")

    def _why_failed(self, job: Any, error: Exception) -> Verdict:
        """What the error of a job that was accepted means: it is over, and nothing of it is unknown."""
        verdict = judge(error, "split job")
        what = "again" if verdict.what == "unknown" else verdict.what
        return Verdict(what, verdict.error_type, _told(job) or words(error), verdict.retry_after_s)


def stages_of(backend: Any) -> dict[str, str]:
    """Transpiler stages that a provider names for its backend, by argument of ``generate_preset_pass_manager``."""
    found = {}
    for stage in ("translation", "scheduling"):
        name = getattr(backend, f"get_{stage}_stage_plugin", None)
        if callable(name):
            found[f"{stage}_method"] = str(name())
    return found


def _told(job: Any) -> str | None:
    """Why a job failed, if its provider has words for it; none has to."""
    message = getattr(job, "error_message", None)
    try:
        told = message() if callable(message) else message
    except Exception:
        return None
    return str(told) if told else None


def _queue(job: Any) -> dict[str, Any]:
    """Where a job stands in the queue, if its provider tells; none has to."""
    position = getattr(job, "queue_position", None)
    try:
        told = position() if callable(position) else position
    except Exception:
        return {}
    return {"position": told} if isinstance(told, int) else {}
