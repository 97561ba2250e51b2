"""Results that are there and can't be read: a reply may have been cut short, or they stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ray_qjm.backends.codes import words
from ray_qjm.errors import BackendResultError

#: Such a result is asked for so often: over some 15 s, as results are fetched again after 0.5 s, doubled each time.
TRIES = 6


class UnreadResultError(Exception):
    """A result couldn't be read; asking again may help."""


class Readings:
    """Counts how often results of jobs couldn't be read."""

    def __init__(self) -> None:
        self._failed: dict[str, int] = {}

    @contextmanager
    def of(self, job_id: str) -> Iterator[None]:
        """Around whatever reads a job's result.

        Raises:
            UnreadResultError: It can't be read now.
            BackendResultError: It can't be read, however often it is asked for.
            Exception: Whatever else is raised inside: of the network, say.
        """
        try:
            yield
        except (AttributeError, BackendResultError, TypeError) as error:
            tries = self._failed[job_id] = self._failed.get(job_id, 0) + 1
            own = isinstance(error, BackendResultError)
            told = words(error) if own else f"{type(error).__name__}: {words(error)}"
            if tries < TRIES:
                raise UnreadResultError(told) from error
            raise BackendResultError(f"{told}, {tries} times over") from error
        self.forget(job_id)

    def forget(self, job_id: str) -> None:
        """Nothing more is wanted of a job."""
        self._failed.pop(job_id, None)
