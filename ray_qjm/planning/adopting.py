"""Which jobs of earlier sessions a task has to take up, as the journal of its store tells them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ray_qjm.planning.orders import Run


class Past(NamedTuple):
    """A job of an earlier session that isn't known to have ended without a result.

    Attributes:
        tag: Of the job.
        session: When: later sessions have higher numbers.
        runs: What it runs.
        sent: Whether the service is known to have taken it.
    """

    tag: str
    session: int
    runs: tuple[Run, ...]
    sent: bool


def adoptable(jobs: Iterable[Past], shots_of: Callable[[int], int]) -> list[str]:
    """The tags of those that may have shots which count, no circuit having more than it asks for.

    A desk may write the intent of a job when its session has ended and the next one has read the journal: it won't
    send it then. The next session has packed these circuits in jobs of its own; a third one finds both.

    >>> old, new = Past("old", 1, (Run(0, 9, 10),), False), Past("new", 2, (Run(5, 7, 10),), True)
    >>> adoptable([old, new], lambda circuit: 10), adoptable([old], lambda circuit: 10)
    (['new'], ['old'])
    """
    had: Counter[int] = Counter()
    tags: list[str] = []
    for job in sorted(jobs, key=lambda job: (not job.sent, -job.session)):
        own: Counter[int] = Counter()
        for run in job.runs:
            for circuit in range(run.start, run.stop):
                own[circuit] += run.shots
        if job.sent or all(had[circuit] + shots <= shots_of(circuit) for circuit, shots in own.items()):
            had += own
            tags.append(job.tag)
    return tags
