"""Jobs that earlier sessions of a task have submitted: what they cost, and which may still have results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any, Protocol

from ray_qjm.backends.desk_ledger import SPENT
from ray_qjm.cluster.line_jobs import OpenJob
from ray_qjm.errors import InvalidInputError
from ray_qjm.planning.adopting import Past, adoptable
from ray_qjm.planning.events import Chunk
from ray_qjm.planning.orders import Run
from ray_qjm.planning.quota import Cost
from ray_qjm.planning.ranges import Ranges
from ray_qjm.planning.tickets import FINAL
from ray_qjm.results.jobs import JobLog
from ray_qjm.results.objects import Objects
from ray_qjm.results.submissions import SUBMISSIONS, SubmissionLog, job_of, submissions

#: Most circuits of a chunk whose jobs are under way: as many as a worker prepares in seconds.
_MOST = 1000


@dataclass(frozen=True)
class EarlierJobs:
    """What earlier sessions have submitted.

    Attributes:
        open: Jobs that may have results of circuits without rows, by the position of their backend.
        spent: What those cost that are over.
    """

    open: Mapping[int, Sequence[OpenJob]] = field(default_factory=dict)
    spent: Cost = field(default_factory=Cost)

    def chunks(self) -> deque[Chunk]:
        """The circuits of open jobs as chunks that no other backend may have, ascending."""
        found: list[Chunk] = []
        for backend, jobs in self.open.items():
            awaited = Ranges(part for job in jobs for part in job.awaited)
            for start, stop in awaited:
                found += [
                    Chunk(at, min(at + _MOST, stop), backend, bound=True) for at in range(start, stop, _MOST)
                ]
        return deque(sorted(found, key=lambda chunk: chunk.start))


class Storage(Protocol):
    """A store, as far as jobs are concerned."""

    @property
    def objects(self) -> Objects:
        """Where submissions are written down."""

    @property
    def jobs(self) -> JobLog:
        """The table of jobs."""


def earlier_jobs(
    opened: Storage,
    kept: Ranges,
    backends: Sequence[str],
    services: Iterable[int],
    shots_of: Callable[[int], int],
) -> EarlierJobs:
    """Read what the store says of jobs; those that are over are added to its table of jobs.

    Args:
        opened: The store.
        kept: Circuits that have their rows.
        backends: Names of the task's backends.
        services: Positions of those that are services.
        shots_of: Shots of a circuit.

    Raises:
        InvalidInputError: A backend with open jobs isn't among them.
    """
    entries, spent = _since_settled(submissions(opened.objects, SUBMISSIONS))
    positions = {backends[at]: at for at in services}
    known = opened.jobs.places()
    found: dict[int, list[OpenJob]] = {}
    missing: dict[str, list[str]] = {}
    runs = {tag: tuple(Run(*run) for run in entry["runs"]) for tag, entry in entries.items()}
    adopted = set(adoptable((past for past in map(_past, entries.values()) if past is not None), shots_of))
    for tag, entry in sorted(entries.items()):
        if not _was_there(entry):
            continue
        awaited = tuple(Ranges(part for run in runs[tag] for part in kept.rest(run.start, run.stop)))
        noted = entry["job_id"] is not None and (entry["backend"], entry["job_id"]) in known
        if tag not in adopted or not awaited:
            spent = spent + _cost(entry)
            if entry["state"] in FINAL and entry["job_id"] is not None and not noted:
                opened.jobs.add(job_of(entry))
            continue
        backend = positions.get(entry["backend"])
        if backend is None:
            missing.setdefault(entry["backend"], []).append(entry["job_id"] or tag)
            continue
        note = {name: entry[name] for name in ("task", "backend", "runs", "attempt", "session")}
        past = tuple(entry.get("past") or ())
        job = OpenJob(tag, runs[tag], awaited, entry["job_id"], past, note, noted)
        found.setdefault(backend, []).append(job)
    for name, ids in missing.items():
        raise InvalidInputError(
            f"store {opened.objects.place} has {len(ids)} jobs on backend {name} that may be running or have results "
            f"({', '.join(ids[:5])}{', ...' if len(ids) > 5 else ''}), and this call doesn't name it. Name it among "
            "backends too, so that their circuits aren't paid for twice."
        )
    return EarlierJobs(found, spent)


def settle(objects: Objects, epoch: int) -> None:
    """Of the jobs of a task that is done keep what they cost, for its budget; where some may be under way, all.

    Args:
        objects: The store.
        epoch: Of this process: jobs of this session and of those before it are meant.

    Raises:
        StoreUnavailableError: The sum couldn't be written.
    """
    names = [entry.name for entry in objects.entries(SUBMISSIONS)]
    entries, spent = _since_settled(submissions(objects, SUBMISSIONS))
    if entries and all(entry["state"] in FINAL for entry in entries.values()):
        total = sum((_cost(entry) for entry in entries.values() if _was_there(entry)), spent)
        log = SubmissionLog(objects, f"{SUBMISSIONS}/{epoch:09}/{SPENT}")
        log.write([{"tag": SPENT, "through": epoch, "cost": list(astuple(total))}])
        objects.remove(names)


def _since_settled(entries: dict[str, dict[str, Any]]) -> tuple[dict[str, dict[str, Any]], Cost]:
    """Jobs whose cost isn't in the sum that ``settle`` wrote, and that sum."""
    settled = entries.pop(SPENT, None)
    if settled is None:
        return entries, Cost()
    # It may have been killed before it had removed them.
    newer = {tag: entry for tag, entry in entries.items() if entry["session"] > settled["through"]}
    return newer, Cost(*settled["cost"])


def _was_there(entry: Mapping[str, Any]) -> bool:
    """Whether the service may have had a job."""
    return not (entry["state"] == "refused" or (entry["state"] == "cancelled" and entry["job_id"] is None))


def _cost(entry: Mapping[str, Any]) -> Cost:
    jobs, executions, seconds = entry["cost"]
    return Cost(jobs, executions, seconds if entry["usage_s"] is None else entry["usage_s"])


def _past(entry: Mapping[str, Any]) -> Past | None:
    """A job that may have results which count."""
    if entry.get("beside") or (entry["state"] in FINAL and entry["state"] not in ("done", "lost")):
        return None
    runs = tuple(Run(*run) for run in entry["runs"])
    number = entry["tag"].rpartition("-")[2]
    return Past(
        entry["tag"],
        entry["backend"],
        entry["session"],
        runs,
        entry["job_id"] is not None,
        int(number) if number.isdecimal() else 0,
    )
