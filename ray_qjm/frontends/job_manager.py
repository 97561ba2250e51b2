"""Several runs in one hand: what IBM's old job manager was for, over ``submit`` and ``attach``."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
from numpy.typing import ArrayLike

from ray_qjm.api import attach, submit
from ray_qjm.errors import (
    InvalidInputError,
    PartialResultWarning,
    RayQjmError,
    StoreError,
    UnknownRunError,
    WaitTimeoutError,
)
from ray_qjm.frontends.run_status import ManagerStatus, RunStatus
from ray_qjm.frontends.stored_runs import StoredRuns, by_name, called, listed
from ray_qjm.frontends.task import Task
from ray_qjm.options import RunOptions
from ray_qjm.planning.status import TaskStatus
from ray_qjm.results.task_result import TaskResult


class JobManager:
    """Runs circuits, as often as one likes, and keeps the runs together: their jobs, results, names and tags.

    Each run is a ``Task``: what ``ray_qjm.submit`` gives, and what ``ray_qjm.attach`` gives of a stored one. The
    manager's runs are those that it has begun or retrieved; others below its root are only listed, by ``runs``.

    ::

        jm = JobManager(root="results")
        jm.run(circuits, backend=device, name="bell", tags=["night"])
        print(jm.status())
        jm.result().get_counts(17)

    Args:
        root: A directory or URI under which each run gets a store of its own, so that it outlives this process and
            ``retrieve(id)`` finds it from any other. ``None`` keeps rows in memory, but for runs with a ``store``.

    Raises:
        InvalidInputError: There can't be such a directory.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self._stored = StoredRuns(root)
        self._tasks: dict[str, Task] = {}

    def run(
        self,
        circuits: Any,
        backend: Any = None,
        *,
        backends: Any = None,
        count: int | None = None,
        shots: int | ArrayLike = 1024,
        seed: int | None = None,
        memory: bool = False,
        name: str | None = None,
        tags: Sequence[str] = (),
        store: str | os.PathLike[str] | None = None,
        version: str | None = None,
        retry_failed: bool = False,
        progress: bool | Callable[[TaskStatus], None] | None = None,
        options: RunOptions | None = None,
    ) -> Task:
        """Begin a run, and return its handle at once.

        Each call is a new run, unless it names the ``store`` of another, with which it then goes on.

        Args:
            circuits: As for ``ray_qjm.run``.
            backend: One or several, as ``ray_qjm.run`` takes them; the default is ``"aer"``.
            backends: The same.
            count: As for ``ray_qjm.run``.
            shots: As for ``ray_qjm.run``.
            seed: As for ``ray_qjm.run``.
            memory: As for ``ray_qjm.run``.
            name: What people call the run. Several may have one name; then they are asked for by id.
            tags: Further words of theirs, by which ``runs`` finds it.
            store: As for ``ray_qjm.run``; ``None`` makes a new one below the manager's root, if that has one.
            version: As for ``ray_qjm.run``.
            retry_failed: As for ``ray_qjm.run``.
            progress: As for ``ray_qjm.submit``.
            options: As for ``ray_qjm.run``.

        Raises:
            InvalidInputError: An argument is wrong; nothing was run.
            StoreError: As for ``ray_qjm.run``.
        """
        if backend is not None and backends is not None:
            raise InvalidInputError(
                "backend and backends are both given. Give one of them; it takes several."
            )
        chosen = backend if backends is None else backends
        task = submit(
            circuits,
            ("aer",) if chosen is None else chosen,
            count=count,
            shots=shots,
            seed=seed,
            memory=memory,
            name=name,
            tags=tags,
            store=self._stored.new() if store is None else store,
            version=version,
            retry_failed=retry_failed,
            progress=progress,
            options=options,
        )
        self._tasks[task.id] = task
        return task

    def retrieve(self, run: str | os.PathLike[str] | Task) -> Task:
        """Take up a run that this or another process has begun: watch it, read what there is, cancel it.

        It may be running, have ended, or have been interrupted; whatever rows there are can be had.

        Args:
            run: Its id; its name, if no other run has it; its store, a directory or URI; or what ``runs`` has listed.

        Raises:
            UnknownRunError: There is none, or several have the name.
            InvalidInputError: That is no store.
            StoreError: The store can't be read: it is damaged, or a newer version of this package wrote it.
        """
        task = run if isinstance(run, Task) else self._looked_up(run)
        known = self._tasks.setdefault(task.id, task)
        if not _same(known.store, task.store):
            raise UnknownRunError(
                f"this manager has run {task.id} already, of {known.store or 'this process'}; {task.store} holds a "
                "copy of it. Take that up with another JobManager."
            )
        return known

    def _looked_up(self, run: str | os.PathLike[str]) -> Task:
        if not isinstance(run, str):
            return attach(run)
        known = self._known(run)
        if known is not None:
            return known
        if "/" not in run:
            return self._stored.find(run, f"{len(self._tasks)} of this manager")
        try:
            return attach(run)
        except InvalidInputError:
            found = by_name(run, self._stored.all()[0])  # names may have slashes too
            if found is None:
                raise
            return found

    def runs(self, *, name: str | None = None, tag: str | None = None) -> list[Task]:
        """The runs of this manager, and all that are stored below its root, the oldest first.

        Args:
            name: Only those that are called so.
            tag: Only those that have it.

        Warns:
            RuntimeWarning: Some of those stored can't be read.
        """
        stored, unread = self._stored.all()
        for reason in unread:
            warnings.warn(f"a run can't be read: {reason}", RuntimeWarning, stacklevel=2)
        known = {(task.id, task.store): task for task in self._tasks.values()}
        found = {**{(task.id, task.store): task for task in stored}, **known}.values()
        return [
            task
            for task in found
            if (name is None or task.name == name) and (tag is None or tag in task.tags)
        ]

    def status(self, run: str | Task | None = None) -> ManagerStatus:
        """How many jobs there are, and the state of each, at any time; prints as tables.

        Args:
            run: One run, by id or name; ``None``: all of this manager.

        Raises:
            UnknownRunError: There is no such run.
        """
        found, notes = [], []
        for task in self._several(run):
            try:
                found.append(_status(task))
            except StoreError as error:
                notes.append(f"run {task.id} can't be read: {error}")
        if not self._tasks:
            notes.append(self._none_yet())
        return ManagerStatus(tuple(found), tuple(notes))

    def report(self, run: str | Task | None = None, *, detailed: bool = True) -> str:
        """What was done and what failed so far, run by run.

        Args:
            run: One run, by id or name; ``None``: all of this manager.
            detailed: With a line for each range of circuits that failed for one reason; else one line a run.

        Raises:
            UnknownRunError: There is no such run.
        """
        status = self.status(run)
        text = [] if run is not None else [status.summary()]
        tasks = {task.id: task for task in self._several(run)}
        for one in status.runs:
            text.append(one.line())
            text += (
                [f"  {line}" for line in tasks[one.task.task_id].report().splitlines()] if detailed else []
            )
        return "\n".join([*text, *status.notes])

    def wait(self, timeout: float | None = None) -> None:
        """Wait until all runs of this manager have ended, well or not.

        Args:
            timeout: Seconds; ``None`` waits for ever.

        Raises:
            WaitTimeoutError: Some go on; nothing was cancelled.
        """
        until = _end(timeout)
        for task in self._tasks.values():
            try:
                task.wait(_left(until))
            except WaitTimeoutError:
                going_on = [called(task) for task in self._tasks.values() if not task.done()]
                raise WaitTimeoutError(
                    f"after {timeout:g} s {len(going_on)} of {len(self._tasks)} runs go on: {listed(going_on)}."
                ) from None

    def result(
        self, run: str | Task | None = None, *, partial: bool = False, timeout: float | None = None
    ) -> TaskResult:
        """Wait for the end of a run and return its counts; ``results`` for those of all.

        Args:
            run: By id or name; may be left out where the manager has only one.
            partial: Return at once what there is, whatever the state.
            timeout: Seconds to wait.

        Raises:
            UnknownRunError: There is no such run, none at all, or several and none was named.
            RayQjmError: As for ``Task.result``.

        Warns:
            PartialResultWarning: Some circuits have no counts.
        """
        task = self._one(run)
        if partial:
            return task.result(partial=True)
        task.wait(timeout)
        return task._outcome()

    def results(self, *, partial: bool = False, timeout: float | None = None) -> dict[str, TaskResult]:
        """Wait for all runs and return by id what each has: one that failed takes nothing from the others.

        Args:
            partial: Return at once what there is, whatever the states.
            timeout: Seconds to wait for all of them together.

        Raises:
            WaitTimeoutError: Some go on.

        Warns:
            PartialResultWarning: A run ended early, or some of its circuits have no counts; or its rows can't be had
                any more, and it is left out.
        """
        until = _end(timeout)
        found = {}
        for task in self._tasks.values():
            try:
                if not partial:
                    task.wait(_left(until))
                found[task.id] = task.result(partial=True) if partial else task._outcome()
            except WaitTimeoutError:
                raise
            except RayQjmError as error:
                text = f"run {called(task)}: {error}"
                warnings.warn(PartialResultWarning(text), stacklevel=2)
                with suppress(RayQjmError):
                    found[task.id] = task.result(partial=True)
        return found

    def cancel(self, run: str | Task | None = None, *, force: bool = False) -> None:
        """Start nothing any more; returns at once, ``wait`` tells when it is over. What is finished is kept.

        Args:
            run: By id or name; ``None``: all runs of this manager that go on, also those of other processes.
            force: Kill worker processes at once.

        Raises:
            UnknownRunError: There is no such run.
            StoreError: A run of another process can't be asked; or it was named, and nobody runs it any more.
        """
        errors = []
        for task in self._several(run):
            try:
                task.cancel(force=force)
            except StoreError as error:
                if run is not None or not _is_over(task):
                    errors.append(error)
        if errors:  # the others are cancelled by now
            raise errors[0]

    @property
    def jobs(self) -> pa.Table:
        """All jobs of all runs, those that haven't ended included: ``Task.jobs``, and first the column ``run``."""
        return self.status().jobs

    @property
    def job_ids(self) -> list[str]:
        """Jobs of all runs that were submitted so far."""
        return [job for task in self._tasks.values() for job in task.job_ids]

    def __len__(self) -> int:
        """How many runs it has begun or retrieved."""
        return len(self._tasks)

    def __repr__(self) -> str:
        """The status."""
        return f"<JobManager\n{self.status()}>"

    def _repr_html_(self) -> str:
        return self.status()._repr_html_()

    def _several(self, run: str | Task | None) -> list[Task]:
        return list(self._tasks.values()) if run is None else [self._one(run)]

    def _one(self, run: str | Task | None) -> Task:
        if isinstance(run, Task):
            return run
        if not self._tasks:
            raise UnknownRunError(self._none_yet())
        if run is None:
            if len(self._tasks) > 1:
                raise UnknownRunError(
                    f"this manager has {len(self._tasks)} runs: say which one by its id or name, or ask for all with "
                    f"results(). They are {listed(map(called, self._tasks.values()))}."
                )
            return next(iter(self._tasks.values()))
        if not isinstance(run, str):
            raise InvalidInputError(f"a run is asked for by id or name, not by {type(run).__name__}.")
        task = self._known(run)
        if task is None:
            raise UnknownRunError(
                f"this manager has no run {run!r}; it has {listed(map(called, self._tasks.values()))}. "
                "retrieve(id or store) takes up those of other processes."
            )
        return task

    def _known(self, run: str) -> Task | None:
        return self._tasks.get(run) or by_name(run, self._tasks.values())

    def _none_yet(self) -> str:
        stored = len(self._stored.all()[0])
        text = "this manager has no run yet: run(circuits, backend=...) begins one, retrieve(id or store) takes one up."
        return (
            f"{text} {stored} are stored below {self._stored.place}: runs() lists them." if stored else text
        )


def _status(task: Task) -> RunStatus:
    return RunStatus(task.status(), task.jobs, tuple(task.tags), task.store, task.elsewhere)


def _same(one: str | None, other: str | None) -> bool:
    """Whether two stores are one, by whatever path."""
    return one == other or (
        one is not None and other is not None and os.path.realpath(one) == os.path.realpath(other)
    )


def _is_over(task: Task) -> bool:
    try:
        return task.done()
    except StoreError:
        return False


def _end(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())
