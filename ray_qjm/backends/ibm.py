"""IBM Quantum Platform as a service: PUBs go in through ``qiskit-ibm-runtime``, jobs are found again by their tag."""

from __future__ import annotations

import copy
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ray_qjm.backends import ibm_jobs
from ray_qjm.backends.base import Answer, Facts, Submission
from ray_qjm.backends.codes import causes, http_status, judge, words
from ray_qjm.backends.ibm_mode import JobMode, is_closed
from ray_qjm.backends.ibm_place import IbmPlace
from ray_qjm.backends.ibm_session import OVERHEARD, NotSentError, connect
from ray_qjm.backends.pub_bits import PubBits, bits_of
from ray_qjm.backends.readings import Readings
from ray_qjm.backends.run_api import stages_of
from ray_qjm.backends.sampler import pubs
from ray_qjm.errors import BackendResultError
from ray_qjm.options import Limits
from ray_qjm.planning.errands import Seen
from ray_qjm.planning.verdicts import Verdict

#: On every job, beside its own tag: one listing tells how all of them are, whatever else the account runs.
TAG = "ray_qjm"
#: What one request lists at most.
PAGE = 200
#: Pages that are read in search of jobs. Those that are polled are among the newest of ours.
POLL_PAGES, FIND_PAGES = 5, 50
#: Where a job stands in the queue is one more request: not more often than this, one job at a time.
QUEUE_S = 15.0
#: Metrics of jobs that have ended are one request each; the rest of a sweep does without after so long.
METRICS_S = 30.0
#: A job that is said to be done has its result within this time.
RESULT_S = 60.0
#: https://quantum.cloud.ibm.com/docs/guides/job-limits: executions and input of a Sampler job, as of 2026.
LIMITS = Limits(max_executions=10_000_000, max_payload_bytes=300_000_000)
#: ``SamplerV2`` sends circuits in an older format of QPY: a sixth more than they take as we measure them.
SAMPLER_LIMITS = replace(LIMITS, max_payload_bytes=250_000_000)
#: https://quantum.cloud.ibm.com/docs/guides/estimate-job-run-time: about 2 s a job, and for each execution the
#: default repetition delay and the length of the circuit.
JOB_S, REPETITION_S = 2.0, 250e-6
#: Lengths of so many circuits stand for those of a whole job: each takes about a millisecond to work out.
LENGTHS = 10

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConnectIbm:
    """Makes the adapter, in whichever process it is called; picklable, without the API key."""

    place: IbmPlace
    run_options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self) -> IbmAdapter:
        """Connect; raises as ``IbmAdapter`` does."""
        return IbmAdapter(self.place, self.run_options)


class IbmAdapter:
    """See ``Adapter``.

    Args:
        place: Of the backend, and how its jobs are sent.
        run_options: Options of the sampler, on top of the place's.

    Raises:
        BackendLoadError: The backend can't be reached by an account of this process.
    """

    def __init__(self, place: IbmPlace, run_options: Mapping[str, Any] | None = None) -> None:
        self._place = place
        self._to = connect(place, dict(run_options or {}))
        self._mode = JobMode(place, self._to)
        self._circuits: dict[str, int] = {}
        self._readings = Readings()
        self._queue_asked: dict[str, float] = {}

    def facts(self) -> Facts:
        """See ``Adapter``. Both samplers want, or recommend, one number of shots for all PUBs of a job."""
        backend = self._to.backend
        with OVERHEARD:
            return Facts(
                name=str(backend.name),
                target=backend.target,
                limits=LIMITS if self._to.executor else SAMPLER_LIMITS,
                mixed=False,
                samples=True,
                stages=stages_of(backend),
                tagged=True,
                recalled=True,
                squeezed=True,
                job_s=JOB_S,
                execution_s=REPETITION_S,
            )

    def submit(self, job: Submission) -> str:
        """See ``Adapter``; sends one request that creates a job, or none."""
        options = copy.deepcopy(self._to.options)  # other threads have other tags
        options.environment.job_tags = [*(options.environment.job_tags or ()), TAG, job.tag]
        outbox = self._to.outbox
        outbox.begin()
        with OVERHEARD:
            try:
                made = self._to.kind(mode=self._mode.get(), options=options).run(pubs(job))
            except NotSentError:
                raise
            except Exception as error:
                self._mode.failed(error)
                if outbox.posted:
                    raise
                # That the backend isn't there is what the client makes of any request that failed.
                hidden = outbox.trouble if type(error).__name__ == "QiskitBackendNotFoundError" else None
                raise NotSentError("nothing was submitted") from (hidden or error)
        job_id = str(made.job_id())
        self._circuits[job_id] = len(job.circuits)
        return job_id

    def find(self, tag: str) -> list[str] | None:
        """See ``Adapter``; every page that there is."""
        found: dict[str, Mapping[str, Any]] = {}
        with OVERHEARD:
            for page in range(FIND_PAGES):
                # The oldest first: jobs that come meanwhile move none from one page to another.
                jobs = self._to.client.jobs_get(
                    limit=PAGE, skip=page * PAGE, job_tags=[tag], descending=False
                )["jobs"]
                new = [job for job in jobs if job["id"] not in found]
                found.update((job["id"], job) for job in new)
                if len(jobs) < PAGE or not new:
                    break
        return ibm_jobs.oldest_first([*found.values()])

    def status(self, job_ids: Sequence[str]) -> Mapping[str, Seen]:
        """See ``Adapter``: one request for all, and one for each that has ended."""
        until = time.monotonic() + METRICS_S
        found: dict[str, Seen] = {}
        with OVERHEARD:
            told = self._told(job_ids)
            queued = [job_id for job_id in job_ids if _is(told.get(job_id), "QUEUED")]
            asked = self._to_be_asked(queued)
            for job_id in job_ids:
                if job_id not in told:
                    continue
                state = ibm_jobs.state_of(told[job_id])
                ended = state in ibm_jobs.ENDED
                wanted = job_id == asked or (ended and time.monotonic() < until)
                metrics = self._metrics(job_id) if wanted else None
                why = self._why_failed(job_id, told[job_id]) if state == "failed" else ""
                found[job_id] = self._clean_seen(ibm_jobs.seen(told[job_id], metrics, why))
                if state in ("failed", "cancelled"):
                    self._circuits.pop(job_id, None)
        return found

    def fetch(self, job_id: str) -> list[PubBits | Answer]:
        """See ``Adapter``: the bits of each circuit, in the order of the submission, or why it has none.

        Raises:
            BackendResultError: The job has no result, half of one, or none that can be read, however often it is asked
                for; before that an ``UnreadResultError``.
            Exception: Of the client or the network; it doesn't quote the API key.
        """
        with self._to.cleaning(), self._readings.of(job_id):
            return self._whole(job_id)

    def _whole(self, job_id: str) -> list[PubBits | Answer]:
        """A job's result.

        Raises:
            BackendResultError: It isn't all there, or can't be read.
            Exception: Of the client or the network.
        """
        where = f"the result of job {job_id} of {self._place.backend}"
        with OVERHEARD:
            job = self._to.service.job(job_id)
            try:
                result = job.result(timeout=RESULT_S)
                whole = None if result is None or isinstance(result, str | bytes) else bits_of(result)
            except (LookupError, TypeError, AttributeError, ValueError) as error:
                if isinstance(error, json.JSONDecodeError):
                    raise  # a page in place of an answer
                raise BackendResultError(f"{where} can't be read: {type(error).__name__}: {error}") from error
        if whole is None:
            raise BackendResultError(f"{where} is {'missing' if not result else 'not whole'}")
        expected = self._circuits.get(job_id)
        if expected is not None and len(whole) != expected:
            raise BackendResultError(f"{where} holds {len(whole)} circuits, {expected} were submitted")
        self._circuits.pop(job_id, None)
        return whole

    def forget(self, job_id: str) -> None:
        """See ``Adapter``."""
        self._circuits.pop(job_id, None)
        self._readings.forget(job_id)

    def cancel(self, job_id: str) -> None:
        """See ``Adapter``."""
        with OVERHEARD:
            self._to.client.job_cancel(job_id)

    def classify(self, error: BaseException) -> Verdict:
        """See ``Adapter``; what may have been accepted is unknown, whatever the client says about it."""
        if isinstance(error, NotSentError):
            verdict = self._not_sent(error)
        else:
            verdict = judge(error, "unknown")
            if (http_status(error) or 0) >= 500:
                # Codes that say "try again" included: a gateway may have lost the answer to a job that runs.
                verdict = replace(verdict, what="unknown")
        if self._mode.own and is_closed(error):
            verdict = replace(verdict, what="again")
        return replace(verdict, reason=self._to.clean(verdict.reason))

    def rest(self) -> None:
        """Let the batch or session that this adapter has opened take no more jobs; the next job opens another."""
        self._mode.close()

    def close(self) -> None:
        """As ``rest``, for good."""
        self._mode.close()

    def _not_sent(self, error: NotSentError) -> Verdict:
        """Nothing was submitted: a request before it failed, or the client refuses a circuit."""
        cause = error.__cause__
        if cause is None:  # it was held up
            return Verdict("again", type(error).__name__, str(error))
        if type(cause).__name__ == "QiskitBackendNotFoundError":
            return Verdict("elsewhere", type(cause).__name__, words(cause))
        of_the_net = any(_is_of_the_net(one) for one in causes(cause))
        verdict = judge(cause, "again" if of_the_net else "split job")
        if verdict.what == "unknown" or (of_the_net and verdict.what in ("split job", "split shots")):
            return replace(verdict, what="again")
        return verdict

    # Asking.

    def _told(self, job_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """What the service says of jobs, by id; those that it doesn't know are missing."""
        missing = dict.fromkeys(job_ids)
        told: dict[str, Mapping[str, Any]] = {}
        for page in range(POLL_PAGES if len(missing) > 1 else 0):
            jobs = self._to.client.jobs_get(limit=PAGE, skip=page * PAGE, job_tags=[TAG])["jobs"]
            for job in jobs:
                if job["id"] in missing:
                    told[job["id"]] = job
                    del missing[job["id"]]
            if not missing or len(jobs) < PAGE:
                break
        for job_id in missing:  # old ones, those whose tags somebody has changed, or the only one
            try:
                told[job_id] = self._to.client.job_get(job_id)
            except Exception as error:
                if http_status(error) != 404:
                    raise
        return told

    def _to_be_asked(self, queued: Sequence[str]) -> str | None:
        """Whose place in the queue is asked for in this sweep, if any: the one not asked for the longest."""
        now = time.monotonic()
        if not queued or now - max(self._queue_asked.values(), default=-QUEUE_S) < QUEUE_S:
            return None
        self._queue_asked = {job_id: self._queue_asked.get(job_id, -QUEUE_S) for job_id in queued}
        asked = min(queued, key=self._queue_asked.__getitem__)
        self._queue_asked[asked] = now
        return asked

    def _metrics(self, job_id: str) -> Mapping[str, Any] | None:
        try:
            found = self._to.client.job_metadata(job_id)
        except Exception as error:  # they are worth having, not worth failing for
            _log.debug("no metrics of job %s: %s", job_id, self._to.clean(str(error)))
            return None
        return found if isinstance(found, Mapping) else None

    def _why_failed(self, job_id: str, told: Mapping[str, Any]) -> str:
        """The reason of a failed job, which may stand in the place of its result."""
        if ibm_jobs.reason_of(told):
            return ""
        try:
            text = str(self._to.client.job_results(job_id))
        except Exception:
            return ""
        return " ".join(text[max(text.rfind("Traceback"), 0) :].split())[-1000:]

    def _clean_seen(self, seen: Seen) -> Seen:
        if seen.verdict is None:
            return seen
        return replace(seen, verdict=replace(seen.verdict, reason=self._to.clean(seen.verdict.reason)))


def _is(told: Mapping[str, Any] | None, status: str) -> bool:
    """Whether a job is said to be in a state, by the service's own name for it."""
    said = (told or {}).get("state")
    return isinstance(said, Mapping) and str(said.get("status")).upper() == status


def _is_of_the_net(error: BaseException) -> bool:
    """Whether an error comes from a request, not from what was to be submitted."""
    library = type(error).__module__.partition(".")[0]
    named = type(error).__name__ in (
        "RequestsApiError",
        "IBMNotAuthorizedError",
        "IBMBackendApiProtocolError",
    )
    return named or library in ("requests", "urllib3") or isinstance(error, json.JSONDecodeError | OSError)
