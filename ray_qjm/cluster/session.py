"""The connection to Ray: what runs is used, what is there is joined, else a Ray of this machine is started."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

import ray

from ray_qjm.errors import TaskFailedError

#: Two threads that start Ray at once would start two.
_lock = threading.Lock()


def connect() -> bool:
    """Make sure that Ray is there.

    A Ray that this process uses already stays as it is. ``RAY_ADDRESS``, or a cluster that ``ray start`` began
    on this machine, is joined, as any Ray program would. Otherwise Ray is started, without its start-up
    chatter and the output of its workers.

    Returns:
        Whether this process started it: then it ends with this process, and it won't get more nodes.

    Raises:
        ConnectionError: ``RAY_ADDRESS`` doesn't answer.
    """
    with _lock:
        if not ray.is_initialized():
            if os.environ.get("RAY_ADDRESS"):
                _use_token()
            _in_lasting_thread(_start)
    return bool(getattr(getattr(ray._private.worker, "_global_node", None), "head", False))


def _start() -> None:
    # Not address="auto": that would join the private Ray of any other process here, and die with it.
    with warnings.catch_warnings():
        # Older ones (2.50) tell each driver what a later one will do about accelerators.
        warnings.simplefilter("ignore", FutureWarning)
        ray.init(log_to_driver=False, logging_level=logging.ERROR)


def _in_lasting_thread(start: Callable[[], None]) -> None:
    """Call ``start`` in a thread that lives as long as the process.

    Ray asks the kernel to kill its processes when their parent ends, and to Linux that is the thread that
    started them: Ray would die with the first thread that called ``run``.
    """
    if threading.current_thread() is threading.main_thread():
        start()
        return
    outcome: Future[None] = Future()

    def host() -> None:
        try:
            start()
            outcome.set_result(None)
        except BaseException as error:
            outcome.set_exception(error)
            return
        threading.Event().wait()

    threading.Thread(target=host, name="ray_qjm host of Ray", daemon=True).start()
    outcome.result()


def identity() -> tuple[str, str] | None:
    """Which Ray this process is connected to, and as which driver; ``None`` if to none."""
    if not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    return str(context.get_node_id()), str(context.get_job_id())


class Session:
    """The Ray that this process is connected to now.

    Ray's calls would quietly start another one where it has been shut down, and what is left of an earlier one crashes
    the process when it is used.
    """

    def __init__(self) -> None:
        self._identity = identity()

    def goes_on(self) -> bool:
        """Whether it is still the one."""
        return identity() == self._identity

    def check(self) -> None:
        """Make sure of it.

        Raises:
            TaskFailedError: It has ended.
        """
        if not self.goes_on():
            raise TaskFailedError("Ray was shut down, or started anew, while the task ran.")


def _use_token() -> None:
    """Turn token authentication on if this user has a token and nobody set ``RAY_AUTH_MODE``.

    Ray does so itself for a cluster that it finds, but not for ``RAY_ADDRESS``, where ``ray.init`` would fail
    after 20 s. The variable alone doesn't help: Ray read it when it was imported.
    """
    with suppress(ImportError):  # Ray before 2.60 has no token mode that is on by default
        from ray._private.authentication.authentication_token_setup import (
            maybe_enable_token_auth_if_token_available,
        )

        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
