"""Is there a Ray cluster at an address, and does it take this process? Said within seconds, in words."""

from __future__ import annotations

import socket
import threading
import time

#: A head node that is just being started is waited for so long.
TRY_S = 5.0
#: What listens there must answer within so many seconds.
ANSWER_S = 10.0
#: Seconds between two tries.
_AGAIN_S = 0.5


def _look_at(port: int = 6379) -> str:
    return (
        f"Look at the address (host and port of the head node, {port} unless it was told another), whether the cluster "
        "runs, and whether a firewall lets this machine through."
    )


def reach(
    address: str, given: str | None = None, *, try_s: float = TRY_S, answer_s: float = ANSWER_S
) -> None:
    """Make sure that Ray can be joined: ``ray.init`` waits for minutes where nothing answers, and says nothing.

    Args:
        address: ``host:port``.
        given: What the user calls it, if that is another text.
        try_s: Seconds in which something must listen there.
        answer_s: Seconds in which it must answer as Ray does.

    Raises:
        ConnectionError: It can't be; the message says how long it was tried, why not, and what to look at.
    """
    called = address if given in (None, address) else f"{given} ({address})"
    listens(address, called, try_s)
    answer = _asked(address, answer_s)
    if answer is None:
        raise ConnectionError(
            f"something listens at {called}, and didn't answer as a Ray cluster within {answer_s:g} s. {_look_at()}"
        )
    if isinstance(answer, Exception):
        words = str(answer).strip().splitlines()
        if type(answer).__name__ == "AuthenticationError":
            raise ConnectionError(
                f"the Ray cluster at {called} doesn't take this process's token. Set RAY_AUTH_MODE=token, and "
                "RAY_AUTH_TOKEN_PATH (or ~/.ray/auth_token) to the token that its nodes have."
            )
        raise ConnectionError(
            f"the Ray cluster at {called} refused: {words[0] if words else type(answer).__name__}"
        )


def listens(address: str, called: str, within_s: float = TRY_S, *, port: int | None = None) -> None:
    """Make sure that something listens at an address.

    Args:
        address: ``host:port``.
        called: What the user calls it.
        within_s: Seconds in which it must.
        port: Where the address names none.

    Raises:
        ConnectionError: Nothing does; see ``reach``.
    """
    if port is not None and ":" not in address:
        address = f"{address}:{port}"
    host, _, number = address.rpartition(":")
    if not number.isdecimal() or not 0 < int(number) < 2**16:
        raise ConnectionError(
            f"no Ray cluster can be at {called}: {number!r} is no port, which is 1 to 65535."
        )
    began = time.monotonic()
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(number)), timeout=max(within_s, _AGAIN_S)):
                return
        except (OSError, UnicodeError) as error:
            tried = time.monotonic() - began
            # A name that isn't known won't be in a second.
            hopeless = isinstance(error, (socket.gaierror, UnicodeError))
            if hopeless or tried + _AGAIN_S >= within_s:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                raise ConnectionError(
                    f"no Ray cluster answers at {called}: {reason.rstrip('.')}, tried for {tried:.0f} s. "
                    f"{_look_at() if port is None else _look_at(port)}"
                ) from error
        time.sleep(_AGAIN_S)


def _asked(address: str, within_s: float) -> bool | Exception | None:
    """What the cluster says to a greeting; ``None``: nothing in time."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    answers: list[bool | Exception] = []

    def ask() -> None:
        try:
            GcsClient(address=address)
            answers.append(True)
        except Exception as error:
            answers.append(error)

    # It waits for as long as Ray wants it to; whoever asked goes on.
    thread = threading.Thread(target=ask, name="ray_qjm reach", daemon=True)
    thread.start()
    thread.join(within_s)
    return answers[0] if answers else None
