"""What was submitted to services: written before it is sent, so that no crash makes a job unknown.

Entries come in batches. A batch is one object, made once, and whole or absent; each writer has a folder of its own
and numbers its batches. What an entry says of a job adds to what earlier ones said. A writer with many batches
folds them into one, and many of those into one again, so that a million jobs are neither a million objects nor a
million steps on the way back, and no entry is written more than a few times.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray_qjm.errors import StoreUnavailableError
from ray_qjm.planning.orders import Run
from ray_qjm.planning.tickets import FINAL
from ray_qjm.results.jobs import Job
from ray_qjm.results.objects import Objects
from ray_qjm.results.records import seal, unseal

#: Below a task's store: what was submitted, in a folder an epoch.
SUBMISSIONS = "submissions"

#: A writer's batches that are kept before they are folded into one.
MANY = 256

#: Of a folded entry: what was said of the job before doesn't count, since it was gone in between.
ANEW = "anew"

#: One job as far as it is known: field to value, JSON values only. ``tag`` names it.
Entry = Mapping[str, Any]


@dataclass(slots=True)
class _Tier:
    names: list[str] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)


class SubmissionLog:
    """Writes entries below one folder, which no other writer has.

    Args:
        objects: The store.
        folder: Below its root.
        many: See ``MANY``.
    """

    def __init__(self, objects: Objects, folder: str, many: int = MANY) -> None:
        self._objects = objects
        self._folder = folder
        self._many = max(2, many)
        self._number = 0
        #: Batches that were written, that were folded once, twice, ...
        self._tiers: list[_Tier] = []
        #: What those say together that haven't been folded yet. Of others only the tags are kept: an entry takes a
        #: kilobyte, and a task may have a million.
        self._state: dict[str, dict[str, Any]] = {}

    def write(self, entries: Sequence[Entry]) -> None:
        """Write a batch; on return it is safe.

        Raises:
            StoreUnavailableError: It couldn't be written, or what was written before couldn't be read again.
        """
        self._add(0, self._put(entries), entries)
        _fold(self._state, entries)
        for tier in itertools.count():
            names = self._tiers[tier].names
            if len(names) < self._many:
                return
            state = self._read(names) if tier else self._state
            older = self._tiers[tier + 1 :]
            state = {
                tag: entry
                for tag, entry in state.items()
                if not entry.get("gone") or any(tag in known.tags for known in older)
            }
            name = self._put(state.values())
            self._tiers[tier] = _Tier()
            if tier == 0:
                self._state = {}
            self._add(tier + 1, name, state.values())
            self._objects.remove(names)

    def _read(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        state: dict[str, dict[str, Any]] = {}
        for name in names:
            batch = unseal(self._objects.read(name))
            if batch is None:
                raise StoreUnavailableError(f"{name} of store {self._objects.place} can't be read any more.")
            _fold(state, batch["entries"])
        return state

    def _add(self, tier: int, name: str, entries: Iterable[Entry]) -> None:
        if tier == len(self._tiers):
            self._tiers.append(_Tier())
        self._tiers[tier].names.append(name)
        if tier:
            self._tiers[tier].tags |= {entry["tag"] for entry in entries}

    def _put(self, entries: Iterable[Entry]) -> str:
        self._number += 1
        name = f"{self._folder}/{self._number:09}.json"
        self._objects.replace(name, seal({"entries": [dict(entry) for entry in entries]}))
        self._objects.sync(name)
        return name


def submissions(objects: Objects, folder: str) -> dict[str, dict[str, Any]]:
    """All jobs below a folder, whoever wrote of them, by tag.

    Of a job that is ``gone`` nothing is said: nobody has to care for it any more.
    """
    names = _names(objects, folder)
    while True:
        found: dict[str, dict[str, Any]] = {}
        for name in names:
            batch = unseal(objects.read(name))
            if batch is not None:
                _fold(found, batch["entries"])
        before, names = names, _names(objects, folder)
        # A writer that folds its batches meanwhile removes what was listed: the new one has it.
        if before == names or (before and set(before) <= set(names)):
            for entry in found.values():
                entry.pop(ANEW, None)
            return {tag: entry for tag, entry in found.items() if not entry.get("gone")}


def job_of(entry: Entry) -> Job:
    """A job that has its id, for the table of jobs: as its entry last said."""
    runs = [Run(*run) for run in entry["runs"]]
    started, submitted = entry.get("started"), entry.get("submitted")
    begun = submitted if started is None else started
    ended = (entry.get("ended") or submitted or 0.0) if entry["state"] in FINAL else None
    return Job(
        job_id=entry["job_id"],
        backend=entry["backend"],
        start=min(run.start for run in runs),
        stop=max(run.stop for run in runs),
        attempt=entry["attempt"],
        state=entry["state"],
        reason=entry.get("reason"),
        submitted=submitted,
        started=started,
        ended=ended,
        circuits=sum(run.circuits for run in runs),
        shots=sum(run.executions for run in runs),
        seconds=None if begun is None or ended is None else max(0.0, ended - begun),
        usage_s=entry.get("usage_s"),
    )


def _names(objects: Objects, folder: str) -> list[str]:
    return sorted(entry.name for entry in objects.entries(folder))


def _fold(state: dict[str, dict[str, Any]], entries: Iterable[Entry]) -> None:
    for entry in entries:
        known = state.setdefault(entry["tag"], {})
        if entry.get(ANEW):
            known.clear()
        elif known.get("gone") and not entry.get("gone"):
            known.clear()
            known[ANEW] = True
        known.update(entry)
        if known.get("gone"):
            # The tag alone: an older batch may still be there to speak of it.
            state[entry["tag"]] = {"tag": entry["tag"], "gone": True}


def unfinished(objects: Objects) -> list[Job]:
    """Jobs that services have, as far as a task's store knows: of one that has ended, those that were left there."""
    entries = submissions(objects, SUBMISSIONS).values()
    return [
        job_of(entry) for entry in entries if entry.get("job_id") is not None and entry["state"] not in FINAL
    ]
