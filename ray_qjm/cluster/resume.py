"""Taking a store for a task: what an earlier session has left of it, and whether it is the same task."""

from __future__ import annotations

import io
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ray_qjm.circuits.fingerprint import check_marks
from ray_qjm.circuits.identity import digest, of_transpiling
from ray_qjm.circuits.source import DriverSource, WorkerSource
from ray_qjm.cluster.kept_rows import sort_rows, spot_check
from ray_qjm.cluster.messages import StoreSetup, TaskSetup
from ray_qjm.cluster.stored_inputs import StoredInputs
from ray_qjm.errors import InvalidInputError, StoreMismatchError
from ray_qjm.planning.ranges import Ranges
from ray_qjm.planning.schedule import Schedule
from ray_qjm.results.labels import read_labels, write_labels
from ray_qjm.results.objects import Objects
from ray_qjm.results.records import TaskRecord, pack_epoch
from ray_qjm.results.report import FailureRange
from ray_qjm.results.store import SHOTS, Opened, take

#: Circuits that are read at once to be compared.
_BLOCK = 256


@dataclass(frozen=True)
class Resumed:
    """A store that this process has taken, and what it holds of the task.

    Attributes:
        opened: The store.
        kept: Circuits that have their rows and won't be run again.
        done: How many of them have counts.
        failures: Those that have none, with the reasons.
        retried: Those that failed and will be run again.
        marks: Fingerprints of all stored circuits: uint64 by row, 0 where unknown.
        inputs: Circuits of an iterable that were read and have no rows; ``None`` for another source.
        info: Facts that stand in the result's metadata.
    """

    opened: Opened
    kept: Ranges
    done: int
    failures: tuple[FailureRange, ...]
    retried: tuple[FailureRange, ...]
    marks: NDArray[np.uint64]
    inputs: StoredInputs | None = None
    info: Mapping[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """How many circuits of those that are kept have no counts."""
        return _failed(self.failures)

    @property
    def task(self) -> TaskRecord:
        """What the task is."""
        return self.opened.record.task

    @property
    def total(self) -> int | None:
        """Circuits of the task; ``None`` if it isn't known yet."""
        return self.opened.record.total

    @property
    def whole(self) -> bool:
        """Whether nothing is left to run."""
        return self.total is not None and not self.kept.rest(0, self.total)

    def compare(self, source: DriverSource) -> None:
        """Read all circuits of a whole task, to make sure that they are those that were run.

        Raises:
            StoreMismatchError: They aren't.
        """
        total = self.total or 0
        at = 0
        # One more than there were: it may have no end.
        while at <= total and (items := source.read(min(_BLOCK, total + 1 - at))):
            check_marks(self.marks, at, items, source.kind)
            at += len(items)
        if at != total:
            now = f"{at}" if at < total else f"more than {total}"
            raise StoreMismatchError(
                "circuits",
                total,
                now,
                f"the task of store {self.opened.objects.place} had {total} circuits, and {source.kind} has {now}. "
                "Give the circuits that it was begun with, or another store.",
            )

    def setup(self, setup: TaskSetup) -> TaskSetup:
        """The setup of workers that write into the store."""
        record = self.opened.record
        store = StoreSetup(self.opened.objects, record.task.task_id, record.epoch, digest(pack_epoch(record)))
        return replace(setup, seed=record.task.seed, store=store)

    def tell(self, schedule: Schedule) -> None:
        """Tell a fresh schedule what needn't be run."""
        schedule.kept, schedule.done, schedule.failed = Ranges(self.kept), self.done, self.failed
        if schedule.total is None:
            schedule.total = self.total


@dataclass(frozen=True)
class Durable:
    """What a call says of its store.

    Attributes:
        root: Directory or URI; ``None``: no store.
        version: The user's, of circuits that can't be compared.
        retry_failed: Run circuits again that failed for a reason which may have passed.
    """

    root: str | os.PathLike[str] | None
    version: str | None = None
    retry_failed: bool = False

    def __post_init__(self) -> None:
        if self.version is not None and not isinstance(self.version, str):
            raise InvalidInputError(f"version is a {type(self.version).__name__}. Give a text.")
        if not isinstance(self.retry_failed, (bool, np.bool_)):
            raise InvalidInputError(f"retry_failed is {self.retry_failed!r}. Give True or False.")
        if self.root is None and (self.retry_failed or self.version is not None):
            what = "retry_failed" if self.retry_failed else "version"
            raise InvalidInputError(f"{what} is for tasks with a store. Give store=... too.")
        if self.root is not None:
            check_place(self.root)


def open_store(
    durable: Durable,
    source: WorkerSource | DriverSource,
    setup: TaskSetup,
    *,
    seed: int | None,
    info: Mapping[str, str],
    labels: Mapping[str, str],
) -> Resumed | None:
    """Take the store of a call, to begin its task or to go on with it; ``None`` if it has none.

    Args:
        durable: What the call says of it.
        source: The circuits.
        setup: Of the task, as if it began now.
        seed: As the call gives it: ``None`` takes that of the store.
        info: Facts that stand in the result's metadata.
        labels: Name and tags, as the call gives them; those that it leaves out are what they were.

    Raises:
        InvalidInputError: There can't be such a store; or a version is needed.
        StoreError: The store holds another task, belongs to another process, is damaged or doesn't answer.
    """
    if durable.root is None:
        return None
    shots = setup.shots
    wanted = wanted_task(durable, source, setup, seed=seed, info={**info, **labels})
    objects = Objects(durable.root)
    opened = take(objects, wanted, [name for name, _, _ in setup.backends], source.count)
    retry_failed = durable.retry_failed
    with opened.given_back_if_it_fails():
        if not isinstance(shots, int):
            data = _npy(shots)
            if objects.read(SHOTS) != data:  # torn, perhaps
                objects.replace(SHOTS, data)
        found = _resumed(opened, retry_failed=retry_failed)
        if isinstance(source, WorkerSource):
            spot_check(found.marks, source, found.task.seed)
        else:
            found = replace(found, inputs=StoredInputs(objects, opened.record.epoch, found.kept))
        return replace(found, info=_labelled(found, info, labels))


def _labelled(found: Resumed, info: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, str]:
    """The facts on a task that goes on: the last word on its name and tags counts.

    A call that says what the first one said is the same script: it says nothing new.
    """
    begun, objects = found.task.info, found.opened.objects
    changed = {key: value for key, value in labels.items() if begun.get(key) != value}
    if changed:
        write_labels(objects, changed)
    kept = {key: begun[key] for key in ("name", "tags") if key in begun}
    return {**begun, **info, **kept, **read_labels(objects)}


def wanted_task(
    durable: Durable,
    source: WorkerSource | DriverSource,
    setup: TaskSetup,
    *,
    seed: int | None,
    info: Mapping[str, str],
) -> TaskRecord:
    """The task that a call means; arguments as for ``open_store``.

    Raises:
        InvalidInputError: A version is needed.
    """
    shots = setup.shots
    identity = {
        "source": source.identity(durable.version),
        "count": source.count,
        "shots": shots if isinstance(shots, int) else {"digest": digest(shots.tobytes())},
        "memory": setup.memory,
        "transpile": of_transpiling(setup.transpile),
    }
    return TaskRecord(
        task_id=secrets.token_hex(4),
        seed=setup.seed,
        identity=identity if seed is None else {**identity, "seed": seed},
        column_types=dict(source.column_types),
        info=dict(info),
        created=time.time(),
    )


def _resumed(opened: Opened, *, retry_failed: bool) -> Resumed:
    rows = sort_rows(opened.record.accepted, opened.heads, opened.marks, retry_failed=retry_failed)
    done = sum(stop - start for start, stop in rows.kept) - _failed(rows.failures)
    opened.heads, opened.marks = {}, {}  # of many parts they are large, and nobody asks for them again
    return Resumed(opened, rows.kept, done, rows.failures, rows.retried, rows.marks)


def _failed(failures: Iterable[FailureRange]) -> int:
    """Circuits without any counts: partial ones are done, as far as they are."""
    return sum(failure.stop - failure.start for failure in failures if failure.status == "failed")


def check_place(root: object) -> None:
    """Refuse a relative directory under ``ray job submit``: the driver runs wherever Ray puts it.

    Raises:
        InvalidInputError: It is one.
    """
    text: object = os.fspath(root) if isinstance(root, os.PathLike) else root
    relative = isinstance(text, str) and "://" not in text and not os.path.isabs(os.path.expanduser(text))
    if relative and os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        raise InvalidInputError(
            f"store {text!r} is relative, and under `ray job submit` the directory is a temporary one of Ray's. Give "
            "an absolute path that every node sees, or a URI such as s3://bucket/prefix."
        )


def _npy(array: NDArray[np.int64]) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=False)
    return sink.getvalue()
