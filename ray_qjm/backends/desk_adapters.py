"""The adapters of a desk's backends: connected to once, asked for results, and let rest while nobody needs them."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from ray_qjm.backends.base import Adapter, FetchFailed, JobGoneError
from ray_qjm.backends.codes import words
from ray_qjm.errors import BackendResultError

_log = logging.getLogger(__name__)


class Adapters:
    """By the names that the desk gives their backends; from any thread."""

    def __init__(self) -> None:
        self._adapters: dict[str, Adapter] = {}
        self._opening = threading.Lock()
        self._opening_one: dict[str, threading.Lock] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._adapters

    def __getitem__(self, name: str) -> Adapter:
        return self._adapters[name]

    def open(self, name: str, make: Callable[[], Adapter], opened: Callable[[], None]) -> Adapter:
        """Make sure that a backend is here.

        Args:
            name: Of the backend.
            make: Connects to it.
            opened: Is called once it is, before anybody who asks for the same backend has it.

        Raises:
            Exception: Whatever connecting raises.
        """
        with self._opening:
            mine = self._opening_one.setdefault(name, threading.Lock())
        with mine:  # one that hangs keeps nobody from the others
            if name not in self._adapters:
                self._adapters[name] = make()
                opened()
            return self._adapters[name]

    def fetch(self, name: str, job_id: str, within_s: float) -> Any:
        """The result of a job that is done, or ``FetchFailed``; asks the service each time."""
        adapter = self._adapters[name]
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def call() -> None:
            try:
                answers.put(adapter.fetch(job_id))
            except BaseException as error:
                reason = f"{type(error).__name__}: {words(error)}"
                unreadable = isinstance(error, AttributeError | BackendResultError | TypeError)
                if unreadable:  # it is there, and is what it is
                    reason += "; asking again gives the same"
                answers.put(FetchFailed(reason, unreadable or isinstance(error, JobGoneError)))

        # A client that hangs is left alone, as in ``Calls``.
        threading.Thread(target=call, name="ray_qjm fetch", daemon=True).start()
        try:
            return answers.get(timeout=within_s)
        except queue.Empty:
            return FetchFailed(f"no answer after {within_s:g} s", final=False)

    def rest(self) -> None:
        """Nobody uses the backends for now: what is billed by the clock ends."""
        for adapter in list(self._adapters.values()):
            rest = getattr(adapter, "rest", None)
            if rest is None:
                continue
            try:
                rest()
            except Exception as error:
                _log.warning("ray_qjm: %s can't be closed: %s", type(adapter).__name__, words(error))

    def close(self) -> None:
        """End what those of them have open that have something to end."""
        for adapter in self._adapters.values():
            close = getattr(adapter, "close", None)
            if close is not None:
                close()
