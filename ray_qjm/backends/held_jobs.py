"""Job objects of clients that know no other way to a job than its object."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qiskit.providers import JobStatus

from ray_qjm.backends.base import JobGoneError
from ray_qjm.backends.codes import judge, words
from ray_qjm.errors import JobLostError
from ray_qjm.planning.errands import Seen
from ray_qjm.planning.verdicts import TRANSIENT, Verdict

#: Between a job's own id and what makes it unique: some backends call all their jobs the same.
_NUMBERED = "#"

#: What providers call the states of their jobs; ``JobStatus`` is only one of their vocabularies.
_WORDS: dict[str, str] = {
    "submitted": "initializing initialized queued validating submitted created pending waiting scheduled accepted",
    "running": "running executing in_progress processing started active",
    "cancelled": "cancelled canceled aborted",
    "done": "done completed complete finished success succeeded successful",
    "failed": "error failed failure errored rejected",
}
_STATES: dict[str, str] = {name: state for state, names in _WORDS.items() for name in names.split()}


class NoJobError(Exception):
    """A client's ``run`` returned something else than a job: nobody knows whether one runs."""


class HeldJobs:
    """Jobs by ids that are unique here, whatever their backend calls them.

    Args:
        name: Of the backend, for messages.
        recall: Gives the job of an id, in a process that hasn't submitted it; ``None``: nothing does.
    """

    def __init__(self, name: str, recall: Callable[[str], Any] | None) -> None:
        self._name = name
        self._recall = recall
        self._jobs: dict[str, Any] = {}
        #: Part of each id that can only be asked for here: another process's jobs may have the same ids of their own.
        self._here = secrets.token_hex(3)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def add(self, job: Any) -> str:
        """Keep a job and return its id.

        Raises:
            NoJobError: It is none.
        """
        if not callable(getattr(job, "result", None)):
            what = "None" if job is None else f"a {type(job).__name__}"
            raise NoJobError(f"run() of {self._name} returned {what} in place of a job")
        try:
            own = str(job.job_id() or secrets.token_hex(8))
        except Exception:  # it was accepted all the same, and is held here
            own = secrets.token_hex(8)
        with self._lock:
            job_id = own
            if self._recall is None or own in self._jobs:
                job_id = f"{own}{_NUMBERED}{self._here}-{next(self._numbers)}"
            self._jobs[job_id] = job
        return job_id

    def get(self, job_id: str) -> Any:
        """The job of an id.

        Raises:
            JobGoneError: It can't be had.
        """
        with self._lock:
            job = self._jobs.get(job_id)
        if job is not None:
            return job
        if self._recall is None or _NUMBERED in job_id:
            raise JobGoneError(
                f"job {job_id} can't be asked for any more: the process that submitted it has ended, and {self._name} "
                "has no way to have a job by its id."
            )
        job = self._recall(job_id)
        with self._lock:
            return self._jobs.setdefault(job_id, job)

    def drop(self, job_id: str) -> None:
        """Keep a job no more."""
        with self._lock:
            self._jobs.pop(job_id, None)

    def ask(self, job_ids: Sequence[str], seen: Callable[[str, Any, str], Seen]) -> Mapping[str, Seen]:
        """How jobs are, asked one by one; what is wrong with one job says nothing of the others.

        Args:
            job_ids: Which.
            seen: Makes out of id, job and state what else there is to say of it.

        Raises:
            Exception: Of the network, if none of them can be asked.
        """
        found: dict[str, Seen] = {}
        silent = None
        for job_id in job_ids:
            try:
                job = self.get(job_id)
                status = job.status()
                state = state_of(status)
                found[job_id] = (
                    _odd(job_id, f"nobody knows what its status {status!r} means")
                    if state is None
                    else seen(job_id, job, state)
                )
            except JobGoneError as error:
                found[job_id] = Seen("lost", Verdict("give up", JobLostError.__name__, str(error)))
            except Exception as error:
                if judge(error, "give up").what in (*TRANSIENT, "unknown"):
                    silent = error
                else:
                    named = f"{type(error).__name__}: {words(error)}"
                    found[job_id] = _odd(job_id, f"the question how it is raises {named}")
        if silent is not None and not found:
            raise silent
        # No news of the others: a job is where it was, and isn't missing.
        return {job_id: found.get(job_id, Seen("submitted")) for job_id in job_ids}


def judge_submission(error: BaseException) -> Verdict:
    """What an error of ``run`` means; what isn't known may be a broken circuit's fault: the job is halved."""
    if isinstance(error, NoJobError):
        return Verdict("unknown", JobLostError.__name__, words(error))
    return judge(error, "split job")


def state_of(status: Any) -> str | None:
    """What a job's status means, be it a ``JobStatus``, a member of another enumeration or a text.

    Returns:
        One of ``Seen``'s states; ``None``: nobody knows.
    """
    if not isinstance(status, JobStatus):
        status = getattr(status, "name", status)
        known = {str(member.value): member for member in JobStatus}
        status = known.get(str(status), status)
    name = str(getattr(status, "name", status)).rpartition(".")[2]
    return _STATES.get(name.strip().lower().replace(" ", "_").replace("-", "_"))


def _odd(job_id: str, why: str) -> Seen:
    """Nothing can be said of a job; should that last, it is lost."""
    return Seen(None, Verdict("give up", JobLostError.__name__, f"job {job_id} can't be followed: {why}"))
