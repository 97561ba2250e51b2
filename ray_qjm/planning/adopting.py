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
        backend: Where it was to run.
        session: When: later sessions have higher numbers.
        runs: What it runs.
        sent: Whether the service is known to have taken it.
        number: Later jobs of a session have higher ones.
    """

    tag: str
    backend: str
    session: int
    runs: tuple[Run, ...]
    sent: bool
    number: int = 0


def adoptable(jobs: Iterable[Past], shots_of: Callable[[int], int]) -> list[str]:
    """The tags of those that may have shots which count.

    A desk may write the intent of a job when its session has ended and the next one has read the journal: it won't
    send it then. The next session has packed these circuits in jobs of its own; a third one finds both. Or a job's
    result was gone, and its circuits were packed again. So those are left out that would give a circuit more shots
    than it asks for, or have it on two backends: first of all those that weren't sent as far as one knows, then the
    older ones.

    >>> old = Past("old", "aer", 1, (Run(0, 9, 10),), sent=False)
    >>> new = Past("new", "aer", 2, (Run(5, 7, 10),), sent=True)
    >>> adoptable([old, new], lambda circuit: 10), adoptable([old], lambda circuit: 10)
    (['new'], ['old'])
    """
    had: Counter[int] = Counter()
    where: dict[int, str] = {}
    tags: list[str] = []
    for job in sorted(jobs, key=lambda job: (not job.sent, -job.session, -job.number)):
        own: Counter[int] = Counter()
        for run in job.runs:
            for circuit in range(run.start, run.stop):
                own[circuit] += run.shots
        free = all(
            where.get(circuit, job.backend) == job.backend and had[circuit] + shots <= shots_of(circuit)
            for circuit, shots in own.items()
        )
        if free:
            had.update(own)
            where.update(dict.fromkeys(own, job.backend))
            tags.append(job.tag)
    return tags
