"""What was submitted to services: written before it is sent, so that no crash makes a job unknown.

Entries come in batches. A batch is one object, made once, and whole or absent; each writer has a folder of its own
and numbers its batches. What an entry says of a job adds to what earlier ones said. A writer with many batches
folds them into one, so that a million jobs are neither a million objects nor a million steps on the way back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ray_qjm.results.objects import Objects
from ray_qjm.results.records import seal, unseal

#: A writer's batches that are kept before they are folded into one.
MANY = 256

#: One job as far as it is known: field to value, JSON values only. ``tag`` names it.
Entry = Mapping[str, Any]


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
        self._many = many
        self._number = 0
        self._names: list[str] = []
        self._state: dict[str, dict[str, Any]] = {}

    def write(self, entries: Sequence[Entry]) -> None:
        """Write a batch; on return it is safe.

        Raises:
            StoreUnavailableError: It couldn't be written.
        """
        _fold(self._state, entries)
        self._put(entries)
        if len(self._names) >= self._many:
            old, self._names = self._names, []
            self._state = {tag: entry for tag, entry in self._state.items() if not entry.get("gone")}
            self._put(self._state.values())
            self._objects.remove(old)

    def _put(self, entries: Iterable[Entry]) -> None:
        self._number += 1
        name = f"{self._folder}/{self._number:09}.json"
        self._objects.replace(name, seal({"entries": [dict(entry) for entry in entries]}))
        self._objects.sync(name)
        self._names.append(name)


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
            return {tag: entry for tag, entry in found.items() if not entry.get("gone")}


def _names(objects: Objects, folder: str) -> list[str]:
    return sorted(entry.name for entry in objects.entries(folder))


def _fold(state: dict[str, dict[str, Any]], entries: Iterable[Entry]) -> None:
    for entry in entries:
        known = state.setdefault(entry["tag"], {})
        if known.get("gone"):
            known.clear()  # it was taken up again
        known.update(entry)
        if known.get("gone"):
            # The tag alone: an older batch may still be there to speak of it.
            state[entry["tag"]] = {"tag": entry["tag"], "gone": True}


def clear(objects: Objects, folder: str, final: Collection[str]) -> None:
    """Remove everything below a folder, if all jobs there are in a final state."""
    if all(entry.get("state") in final for entry in submissions(objects, folder).values()):
        objects.remove([entry.name for entry in objects.entries(folder)])
