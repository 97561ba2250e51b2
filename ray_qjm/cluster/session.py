"""The connection to Ray: what runs is used, what is there is joined, else a Ray of this machine is started."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ray

from ray_qjm.cluster.reach import listens, reach
from ray_qjm.errors import TaskFailedError
from ray_qjm.results.parts import HEARD_S

#: Two threads that start Ray at once would start two.
_lock = threading.Lock()
#: How addresses of Ray Client begin.
_CLIENT = "ray://"


@dataclass(frozen=True)
class Wish:
    """Which Ray ``connect`` takes where this process has none yet.

    Attributes:
        address: As ``ray.init`` takes it; ``None``: ``RAY_ADDRESS``, or a cluster that was started on this machine, or
            a Ray of its own.
        num_cpus: Of a Ray of its own; ``None``: all cores.
        told: Whether Ray may say what it does, and print what workers print.
    """

    address: str | None = None
    num_cpus: int | None = None
    told: bool = False


_wish = Wish()


def wish(found: Wish) -> None:
    """What ``connect`` does from now on."""
    global _wish
    _wish = found


def connect() -> bool:
    """Make sure that Ray is there.

    A Ray that this process uses already stays as it is. ``RAY_ADDRESS``, or a cluster that ``ray start`` began
    on this machine, is joined, as any Ray program would. Otherwise Ray is started, without its start-up
    chatter and the output of its workers.

    Returns:
        Whether this process started it: then it ends with this process, and it won't get more nodes.

    Raises:
        ConnectionError: The cluster doesn't answer; the message says how long it was asked, and what to look at.
    """
    with _lock:
        if not ray.is_initialized():
            address = _wish.address or os.environ.get("RAY_ADDRESS")
            if address and address != "local":
                _use_token()
            found = cluster_address()
            if found is not None:
                reach(found, address or "the address that `ray start` left on this machine")
            elif address and address.startswith(_CLIENT):
                listens(address.removeprefix(_CLIENT), address, port=10001)
            own = signal.getsignal(signal.SIGTERM)
            _in_lasting_thread(partial(_start, _wish))
            _keep(own)
    return bool(getattr(getattr(ray._private.worker, "_global_node", None), "head", False))


def cluster_address() -> str | None:
    """Host and port of the cluster that ``connect`` would join; ``None``: it would start one, or asks Ray Client.

    Raises:
        ConnectionError: What is given is no address.
    """
    from ray._private.services import canonicalize_bootstrap_address

    given = _wish.address or os.environ.get("RAY_ADDRESS") or None
    if given is not None and "://" in given:
        if given.startswith(("http://", "https://")):
            raise ConnectionError(
                f"{given} is the address of a dashboard, which takes jobs: `ray job submit --address {given} -- ...`. "
                "To join the cluster itself, give host and port of its head node, such as 10.0.0.1:6379."
            )
        return None
    try:
        return canonicalize_bootstrap_address(given)  # type: ignore[arg-type]
    except ConnectionError:  # "auto", and there is none
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise ConnectionError(
            f"{given!r} is no address of a Ray cluster ({reason[0] if reason else type(error).__name__}). Give host "
            "and port of its head node, such as 10.0.0.1:6379."
        ) from error


def _start(found: Wish) -> None:
    # Not address="auto": that would join the private Ray of any other process here, and die with it.
    address = "local" if found.address is None and found.num_cpus is not None else found.address
    with warnings.catch_warnings(), private_token():
        # Older ones (2.50) tell each driver what a later one will do about accelerators.
        warnings.simplefilter("ignore", FutureWarning)
        ray.init(
            address,
            num_cpus=found.num_cpus,
            log_to_driver=found.told,
            logging_level=logging.INFO if found.told else logging.ERROR,
        )


@contextmanager
def private_token() -> Iterator[None]:
    """If Ray makes a token meanwhile, only this user may read it: whoever has it can run code as this user.

    Ray leaves that to the umask, which mostly lets everybody.
    """
    path = Path("~/.ray/auth_token").expanduser()
    there = path.exists()
    try:
        yield
    finally:
        if not there:
            with suppress(OSError):  # none was made
                path.chmod(0o600)


def _in_lasting_thread(start: Callable[[], None]) -> None:
    """Call ``start`` in a thread that lives as long as the process.

    Ray asks the kernel to kill its processes when their parent ends, and to Linux that is the thread that
    started them: Ray would die with the first thread that called ``run``.

    The main thread lasts; but there Ray puts a handler of its own in the place of the program's, if that has one for
    SIGTERM, and a signal that comes while Ray is being waited for would be heard late.
    """
    handled = signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, None)
    if threading.current_thread() is threading.main_thread() and not handled:
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
    while not wait([outcome], HEARD_S).done:
        continue
    outcome.result()


def has_died() -> bool:
    """Whether processes of a Ray that this process started have ended by themselves."""
    node = getattr(ray._private.worker, "_global_node", None)
    return node is not None and bool(node.dead_processes())


def _keep(own: Callable[..., object] | int | None) -> None:
    """Put a program's own handler of SIGTERM in front again.

    Ray's native code has put one there that calls the program's, and ends the process 3 s later, whatever it does.
    """
    if own not in (signal.SIG_DFL, None) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, own)


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

        # It says so in two lines, on each start of whatever program.
        log = logging.getLogger(maybe_enable_token_auth_if_token_available.__module__)
        before = log.level
        log.setLevel(logging.ERROR)
        try:
            maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        finally:
            log.setLevel(before)
