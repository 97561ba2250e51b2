"""The small JSON objects of a store: what the task is, who ran it when, and how that ended.

Each is written whole, once, and holds a digest of itself: a torn one is absent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray_qjm.errors import StoreDamagedError
from ray_qjm.results.winners import PartName, Taken

#: Version of these layouts; a reader refuses a newer one.
FORMAT = 1


@dataclass(frozen=True)
class TaskRecord:
    """What a task is; ``task.json``, and a copy in each epoch's record.

    Attributes:
        task_id: Leads the ids of its jobs.
        seed: The task's.
        identity: What must stay the same on every resume, by name: JSON values.
        column_types: The source's columns.
        info: Facts that stand in the result's metadata.
        created: Seconds since the epoch.
    """

    task_id: str
    seed: int
    identity: Mapping[str, Any]
    column_types: Mapping[str, str]
    info: Mapping[str, str]
    created: float


@dataclass(frozen=True)
class Owner:
    """A process that runs a task.

    Attributes:
        host: The machine's name, for people.
        pid: Its number there.
        process: What no other process on any machine has, ever; ``None`` where that can't be told.
        token: Random: one for each time that a process takes a store.
    """

    host: str
    pid: int
    process: str | None
    token: str

    def __str__(self) -> str:
        """For people."""
        return f"process {self.pid} on {self.host}"


@dataclass(frozen=True)
class EpochRecord:
    """A process took the store: ``epochs/<e>.json``.

    Attributes:
        epoch: Its number, from 1 up.
        owner: Who.
        began: Seconds since the epoch, by the owner's clock; for people.
        task: What the task is.
        backends: Their names in this epoch.
        accepted: The rows of earlier epochs that count; whatever isn't named doesn't exist.
        total: Circuits of the task; ``None`` if unknown so far.
    """

    epoch: int
    owner: Owner
    began: float
    task: TaskRecord
    backends: Sequence[str] = ()
    accepted: Sequence[Taken] = ()
    total: int | None = None


@dataclass(frozen=True)
class EndRecord:
    """An epoch ended in good order: ``ends/<e>.json``.

    Attributes:
        epoch: Which.
        state: ``"done"``, ``"cancelled"`` or ``"failed"``.
        error: Why it failed.
        ended: Seconds since the epoch, by the owner's clock; for people.
        taken: All rows that count.
        total: Circuits of the task; ``None`` if it isn't known yet.
        status: Of the task, as ``TaskStatus.plain`` gives it.
    """

    epoch: int
    state: str
    error: str | None
    ended: float
    taken: Sequence[Taken] = ()
    total: int | None = None
    status: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Beat:
    """A sign of life of an owner: ``beats/<e>.json``, overwritten by nobody else.

    Attributes:
        epoch: Which.
        number: Goes up with each beat.
        status: Of the task, as ``TaskStatus.plain`` gives it.
    """

    epoch: int
    number: int
    status: Mapping[str, Any] = field(default_factory=dict)


def pack_task(record: TaskRecord) -> bytes:
    """The bytes of ``task.json``."""
    return seal(_plain(record))


def pack_epoch(record: EpochRecord) -> bytes:
    """The bytes of an epoch's record."""
    body = _plain(record) | {"owner": _plain(record.owner), "task": _plain(record.task)}
    return seal(body | {"accepted": _rows(record.accepted), "backends": list(record.backends)})


def pack_end(record: EndRecord) -> bytes:
    """The bytes of the record of an epoch's end."""
    return seal(_plain(record) | {"taken": _rows(record.taken)})


def pack_beat(record: Beat) -> bytes:
    """The bytes of a sign of life."""
    return seal(_plain(record))


def read_task(data: bytes | None) -> TaskRecord | None:
    """What ``pack_task`` was given; ``None`` if the bytes are none of its, or torn.

    Raises:
        StoreDamagedError: A newer version of this package wrote them; so do the others.
    """
    body = unseal(data)
    return None if body is None else TaskRecord(**body)


def read_epoch(data: bytes | None) -> EpochRecord | None:
    """As ``read_task``."""
    body = unseal(data)
    if body is None:
        return None
    parts = {
        "owner": Owner(**body["owner"]),
        "task": TaskRecord(**body["task"]),
        "accepted": _taken(body["accepted"]),
    }
    return EpochRecord(**body | parts)


def read_end(data: bytes | None) -> EndRecord | None:
    """As ``read_task``."""
    body = unseal(data)
    return None if body is None else EndRecord(**body | {"taken": _taken(body["taken"])})


def read_beat(data: bytes | None) -> Beat | None:
    """As ``read_task``."""
    body = unseal(data)
    return None if body is None else Beat(**body)


def _plain(record: Any) -> dict[str, Any]:
    return dict(vars(record))


def _rows(taken: Iterable[Taken]) -> list[list[int]]:
    return [[start, stop, *part] for start, stop, part in taken]


def _taken(rows: Iterable[Sequence[int]]) -> list[Taken]:
    return [Taken(start, stop, PartName(*part)) for start, stop, *part in rows]


def _text(body: Any) -> str:
    return json.dumps(body, separators=(",", ":"), sort_keys=True, default=dict)


def seal(body: dict[str, Any]) -> bytes:
    """JSON values as the bytes of an object that holds a digest of itself."""
    text = _text(body)
    return f'{{"format":{FORMAT},"digest":"{_digest(text)}","body":{text}}}\n'.encode()


def unseal(data: bytes | None) -> dict[str, Any] | None:
    """What ``seal`` was given; ``None`` if the bytes are none of its, or torn.

    Raises:
        StoreDamagedError: A newer version of this package wrote them.
    """
    try:
        found = json.loads(data or b"")
        version, digest, body = found["format"], found["digest"], found["body"]
    except (ValueError, KeyError, TypeError):
        return None
    if isinstance(version, int) and version > FORMAT:
        raise StoreDamagedError(
            f"the store has format {version}, and this version of ray_qjm reads up to {FORMAT}: upgrade it."
        )
    if not isinstance(body, dict) or digest != _digest(_text(body)):
        return None
    return body


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
