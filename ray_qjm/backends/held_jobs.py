"""Job objects of clients that know no other way to a job than its object."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from typing import Any

from ray_qjm.backends.base import JobGoneError

#: Between a job's own id and what makes it unique: some backends call all their jobs the same.
_NUMBERED = "#"


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
        self._uses: dict[str, int] = {}
        self._lock = threading.Lock()

    def add(self, job: Any) -> str:
        """Keep a job and return its id."""
        try:
            own = str(job.job_id() or secrets.token_hex(8))
        except Exception:  # it was accepted all the same, and is held here
            own = secrets.token_hex(8)
        with self._lock:
            uses = self._uses[own] = self._uses.get(own, 0) + 1
            job_id = own if uses == 1 else f"{own}{_NUMBERED}{uses}"
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
