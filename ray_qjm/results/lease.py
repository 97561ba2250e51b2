"""Who runs the task of a store: one process at a time.

A process that takes a store makes the record of the next epoch, which has one winner among any number of
writers, and from then on gives signs of life. Another may take over when the epoch has ended in good order,
when its process is known to be dead, or when no sign of life came for ``LEASE_S`` while the other looked. No
clock of another machine matters.
"""

from __future__ import annotations

import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from ray_qjm.errors import StoreInUseError, StoreTakenError, StoreUnavailableError
from ray_qjm.results.objects import Objects
from ray_qjm.results.records import Beat, Owner, pack_beat

#: Seconds between two signs of life. On S3 they cost half a cent an hour.
BEAT_S = 5.0
#: A process that gave none for so long may be taken over: six are missed then.
LEASE_S = 30.0
#: How long a sign of life that is being written is waited for: the store may just be away.
_STOP_S = 10.0
#: How often a process that waits for a sign of life looks.
_LOOK_S = 0.25

#: Epochs that run in this process: its number alone doesn't tell whether one still does.
_held_here: set[str] = set()


def epoch_name(epoch: int) -> str:
    """The record of an epoch's beginning."""
    return f"epochs/{epoch}.json"


def end_name(epoch: int) -> str:
    """The record of its end."""
    return f"ends/{epoch}.json"


def beat_name(epoch: int) -> str:
    """Its owner's sign of life."""
    return f"beats/{epoch}.json"


def cancel_name(epoch: int) -> str:
    """What asks its owner to cancel the task."""
    return f"cancels/{epoch}.json"


@contextmanager
def this_process() -> Iterator[Owner]:
    """This process, as an owner that hasn't been before; it counts as alive, from now on unless an error follows."""
    owner = Owner(socket.gethostname(), os.getpid(), _process(os.getpid()), secrets.token_hex(8))
    _held_here.add(owner.token)
    try:
        yield owner
    except BaseException:
        _held_here.discard(owner.token)
        raise


def is_dead(owner: Owner) -> bool:
    """Whether an owner is known to have ended; ``False``: it may live.

    Known for processes of this machine since it was started, and only on Linux.
    """
    here = _process(os.getpid())
    if owner.process is None or here is None or _machine(owner.process) != _machine(here):
        return False
    if owner.process == here:
        return owner.token not in _held_here
    now = _process(owner.pid)
    if now is None:  # no such process, or one that this user may not see
        try:
            os.kill(owner.pid, 0)
        except OSError as error:
            return isinstance(error, ProcessLookupError)
        return False
    return now != owner.process


class Held(Protocol):
    """The record of an epoch, as far as a lease looks at it."""

    @property
    def epoch(self) -> int:
        """Its number."""

    @property
    def owner(self) -> Owner:
        """Whose it is."""


def wait_for_owner(objects: Objects, record: Held, lease_s: float | None = None) -> None:
    """Return once the owner of an epoch may be taken over.

    Args:
        objects: The store.
        record: Of the epoch.
        lease_s: Seconds without a sign of life after which it counts as dead; ``None``: ``LEASE_S``.

    Raises:
        StoreInUseError: It lives.
    """
    name, end = beat_name(record.epoch), end_name(record.epoch)
    first = objects.read(name)
    until = time.monotonic() + (LEASE_S if lease_s is None else lease_s)
    while not is_dead(record.owner) and objects.read(end) is None:
        if objects.read(name) != first:
            raise StoreInUseError(
                f"the task of store {objects.place} is being run by {record.owner}. Wait for it or end it; "
                "ray_qjm.attach(store) shows how far it is and reads its results."
            )
        if time.monotonic() >= until:
            return
        time.sleep(_LOOK_S)


class Lease:
    """This process runs the task of a store: gives signs of life, and hears when that has ended.

    Args:
        objects: The store.
        record: The epoch's record, which this process has made.
        lease_s: Seconds without a sign of life after which others take over; ``None``: ``LEASE_S``.
    """

    def __init__(self, objects: Objects, record: Held, lease_s: float | None = None) -> None:
        # A sign of life that is late is none: the next one comes soon.
        self._objects = objects.with_retry(BEAT_S)
        self._record = record
        self._lease_s = LEASE_S if lease_s is None else lease_s
        # Those that may take over count from a sign of life that they saw, which is never older than this one.
        self._renewed = time.monotonic()
        self._number = 0
        self._stopped = threading.Event()
        self._status: Callable[[], Mapping[str, Any]] = dict
        self._lost: Callable[[StoreTakenError], None] | None = None
        self._cancel: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._run, name="ray_qjm lease", daemon=True)
        self._thread.start()

    def report(
        self,
        status: Callable[[], Mapping[str, Any]],
        lost: Callable[[StoreTakenError], None],
        cancel: Callable[[], None],
    ) -> None:
        """Say more than that this process lives.

        Args:
            status: Gives what stands in each sign of life.
            lost: Called once, from another thread, when another process has taken the store.
            cancel: Called once, from another thread, when somebody asks to cancel the task.
        """
        self._status, self._lost, self._cancel = status, lost, cancel

    def check(self) -> None:
        """Make sure that the store is still this process's.

        Raises:
            StoreTakenError: Another one has taken it.
            StoreUnavailableError: It isn't the store any more that this process took.
        """
        epoch = epoch_name(self._record.epoch)
        if self._objects.read(epoch) is None:
            raise StoreUnavailableError(
                f"{epoch} is gone from store {self._objects.place}: it was removed, or its disk was unmounted. Bring "
                "it back and run the same call again."
            )
        if self._objects.read(epoch_name(self._record.epoch + 1)) is not None:
            raise StoreTakenError(
                f"another process has taken over store {self._objects.place}, since this one gave no sign of life for "
                f"{self._lease_s:g} s. The task goes on there: ray_qjm.attach(store) shows it."
            )

    @property
    def age_s(self) -> float:
        """Seconds since the last sign of life with which the store was this process's; infinite once it isn't."""
        return math.inf if self._stopped.is_set() else time.monotonic() - self._renewed

    def stop(self) -> None:
        """Give no more signs of life; returns when none is being written."""
        self._stopped.set()
        _held_here.discard(self._record.owner.token)
        if threading.current_thread() is not self._thread:
            self._thread.join(_STOP_S)

    def _run(self) -> None:
        while True:
            # A store that is away for a while is the business of those who write rows; whatever else goes wrong,
            # the next sign of life must come, or this process would pass for dead.
            with suppress(Exception):
                self._beat()
            if self._stopped.wait(BEAT_S):
                return

    def _beat(self) -> None:
        self._number += 1
        epoch, now = self._record.epoch, time.monotonic()
        self._objects.replace(beat_name(epoch), pack_beat(Beat(epoch, self._number, self._status())))
        try:
            self.check()
        except StoreTakenError as error:
            self._stopped.set()
            if self._lost is not None:
                self._lost(error)
            return
        self._renewed = now
        if self._cancel is not None and self._objects.read(cancel_name(epoch)) is not None:
            self._cancel()
            self._cancel = None


def _process(pid: int) -> str | None:
    """What no other process has: the machine's start, the namespace, the number and when it began."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = os.readlink("/proc/self/ns/pid")
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()  # the name, in brackets, may hold anything
    began = "ended" if state in "ZX" else fields[18]
    return f"{boot}/{space}/{pid}/{began}"


def _machine(process: str) -> str:
    return process.rsplit("/", 2)[0]
