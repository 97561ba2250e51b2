"""What a desk keeps on disk, and how only one process of it submits."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_qjm.errors import StoreInUseError
from ray_qjm.planning.tickets import FINAL
from ray_qjm.results.lease import BEAT_S, Lease, epoch_name, this_process, wait_for_owner
from ray_qjm.results.objects import Objects
from ray_qjm.results.records import Owner, seal, unseal
from ray_qjm.results.submissions import SubmissionLog, submissions

#: Directory or URI of what desks keep; see ``state_root``.
VARIABLE = "RAY_QJM_STATE"

#: Longer than a submission may take (``RetryPolicy.call_s``) and its sign of life may be old: a process that was
#: stopped and goes on finds its lease over before it could send anything beside its successor.
LEASE_S = 180.0

#: A lease is so many times as long as a submission may take.
_CALL = 1.5

#: What is over is remembered for so long, so that a task which resumes isn't charged twice for it.
_STALE_S = 30 * 86_400.0

_JOBS = "jobs"


@dataclass(frozen=True)
class Incarnation:
    """A process has become the desk: ``epochs/<e>.json``.

    Attributes:
        epoch: Its number, from 1 up.
        owner: Which process.
        began: Seconds since the epoch; for people.
        lease_s: Without a sign of life for so long it may be taken for dead.
    """

    epoch: int
    owner: Owner
    began: float
    lease_s: float


class DeskState:
    """The journal of a desk, taken by this process.

    Args:
        root: Of all desks.
        name: The desk's.
        call_s: The longest that one submission may take.
        lease_s: Without a sign of life for so long this process may be taken for dead; never less than it takes to
            submit something.

    Attributes:
        log: Where this process writes.
        before: What earlier processes wrote of jobs that aren't gone, by tag.
        longest_call_s: No submission may take longer, whatever a task that comes later says: a successor of this
            process waits for the lease of which that is a part.
    """

    def __init__(self, root: str, name: str, call_s: float, lease_s: float = LEASE_S) -> None:
        objects = Objects(f"{root.rstrip('/')}/{name}")
        with this_process() as owner:
            record = _take(objects, owner, max(lease_s, _CALL * call_s))
        self._lease = Lease(objects, record, record.lease_s)
        # A later task may have more time for its submissions, as far as signs of life leave any.
        self.longest_call_s = max(call_s, min(record.lease_s / _CALL, record.lease_s - 4 * BEAT_S))
        self._sends_within_s = record.lease_s - self.longest_call_s
        self.before: dict[str, dict[str, Any]] = {
            tag: entry for tag, entry in submissions(objects, _JOBS).items() if not _is_stale(entry)
        }
        self.log = SubmissionLog(objects, f"{_JOBS}/{record.epoch:09}")
        old = [entry.name for entry in objects.entries(_JOBS)]
        # All that counts is written anew before the old goes: a crash between the two leaves both.
        self.log.write(list(self.before.values()))
        objects.remove(old)
        for folder in ("epochs", "beats"):
            names = [entry.name for entry in objects.entries(folder)]
            objects.remove([name for name in names if _number(name) < record.epoch])

    def holds(self) -> bool:
        """Whether this process may submit: its sign of life is younger than the lease less a submission."""
        return self._lease.age_s < self._sends_within_s

    def close(self) -> None:
        """Give no more signs of life."""
        self._lease.stop()


def state_root() -> str:
    """Where desks keep their journals: ``RAY_QJM_STATE``, else the user's directory for state."""
    given = os.environ.get(VARIABLE)
    if given:
        return given
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return str(Path(base).expanduser() / "ray_qjm")


def state_is_shared() -> bool:
    """Whether the user has said where journals are: then it is a place that all nodes have."""
    return bool(os.environ.get(VARIABLE))


def _take(objects: Objects, owner: Owner, lease_s: float) -> Incarnation:
    while True:
        numbers = [_number(entry.name) for entry in objects.entries("epochs")]
        newest = max(numbers, default=0)
        body = unseal(objects.read(epoch_name(newest))) if newest else None
        if body is not None:
            last = Incarnation(
                body["epoch"], Owner(**body["owner"]), body["began"], body.get("lease_s", LEASE_S)
            )
            try:
                wait_for_owner(objects, last, last.lease_s)
            except StoreInUseError:
                continue  # it lives: look again, for as long as it does
        record = Incarnation(newest + 1, owner, time.time(), lease_s)
        if objects.create(epoch_name(record.epoch), seal({**vars(record), "owner": vars(owner)})):
            return record


def _is_stale(entry: Mapping[str, Any]) -> bool:
    """Whether a job is over for so long that its task won't come to ask for it."""
    return entry.get("state") in FINAL and time.time() - (entry.get("ended") or 0.0) > _STALE_S


def _number(name: str) -> int:
    stem = name.rpartition("/")[2].partition(".")[0]
    return int(stem) if stem.isascii() and stem.isdecimal() else 0
