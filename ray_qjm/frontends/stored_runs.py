"""Runs that are stored below one root, a folder each, and how people name them."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from ray_qjm.api import attach
from ray_qjm.cluster.resume import check_place
from ray_qjm.errors import InvalidInputError, StoreError, UnknownRunError
from ray_qjm.frontends.task import Task
from ray_qjm.results.objects import Objects, absolute, place_of

#: Stores that are looked at together: an object store answers after milliseconds.
_AT_ONCE = 16
#: Runs that a message lists.
_LISTED = 10


class StoredRuns:
    """See the module's docstring.

    Args:
        root: A directory or URI; ``None``: there is none, and so no runs.

    Raises:
        InvalidInputError: There can't be such a directory.
    """

    def __init__(self, root: str | os.PathLike[str] | None) -> None:
        if root is not None:
            check_place(root)
        self.root = None if root is None else absolute(root)
        self.place = None if self.root is None else place_of(self.root)

    def new(self) -> str | None:
        """A store that nobody has; the time leads its name, so that runs are listed in order."""
        if self.root is None:
            return None
        return f"{self.root}/{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"

    def all(self) -> tuple[list[Task], list[str]]:
        """The runs, the oldest first; and why others can't be read."""
        if self.root is None:
            return [], []
        try:
            folders = Objects(self.root, make=False).folders()
        except InvalidInputError:
            return [], []  # made by the first run
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = list(pool.map(_attached, [f"{self.root}/{folder}" for folder in folders]))
        return [item for item in found if isinstance(item, Task)], [x for x in found if isinstance(x, str)]

    def find(self, run: str, beside: str) -> Task:
        """A run by its id, its name or its folder, or else by a directory of that name here.

        Args:
            run: That.
            beside: Where was looked already.

        Raises:
            UnknownRunError: There is none, or several have the name.
        """
        stored, unread = self.all()
        for task in stored:
            if task.store is not None and run == task.store.rpartition("/")[2]:
                return task
        found = by_id(run, stored) or by_name(run, stored)
        if found is not None:
            return found
        if os.path.isdir(run):
            return attach(run)
        where, cure = beside, "Give the directory or URI of its store if it is elsewhere."
        if self.root is None:
            cure = "JobManager(root=...) says where runs are kept; or give the directory or URI of its store."
        else:
            where += f" and {len(stored)} stored below {self.place}"
        if unread:
            where += f" ({len(unread)} more there can't be read: {unread[0].rstrip('.')})"
        raise UnknownRunError(f"no run is {run!r}: looked among the runs, {where}. {cure}")


def _attached(store: str) -> Task | str | None:
    try:
        return attach(store)
    except InvalidInputError:
        return None  # some other folder
    except StoreError as error:
        return str(error)


def by_id(run: str, tasks: Iterable[Task]) -> Task | None:
    """The run of that id; ``None``: none has it.

    Raises:
        UnknownRunError: Several stores hold it: they are copies, which may differ by now.
    """
    found = [task for task in tasks if task.id == run]
    if len(found) > 1:
        raise UnknownRunError(
            f"{len(found)} stores hold run {run}, as copies of one store do: ask by store, "
            f"{listed(task.store or '' for task in found)}."
        )
    return found[0] if found else None


def by_name(name: str, tasks: Iterable[Task]) -> Task | None:
    """The run that is called so; ``None``: none is.

    Raises:
        UnknownRunError: Several are.
    """
    found = [task for task in tasks if task.name == name]
    if len(found) > 1:
        raise UnknownRunError(
            f"{len(found)} runs are called {name!r}: ask by id, {listed(task.id for task in found)}."
        )
    return found[0] if found else None


def called(task: Task) -> str:
    """A run for people: its id, and its name if it has one."""
    return f"{task.id} {task.name!r}" if task.name else task.id


def listed(names: Iterable[str]) -> str:
    """Several of them, not too many."""
    every = list(names)
    return ", ".join(every[:_LISTED]) + (", ..." if len(every) > _LISTED else "")
