"""Signals that ask the program to end do what Ctrl-C does: what is done is stored, and the exit code tells."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: A closed terminal, Ctrl-C, and what batch systems, `ray job stop` and service managers send.
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal came.

    Attributes:
        number: Which.
    """

    def __init__(self, number: int, text: str | None = None) -> None:
        self.number = number
        self.name = signal.Signals(number).name
        super().__init__(f"stopped by {self.name}." if text is None else text)

    @property
    def code(self) -> int:
        """The exit code."""
        return 128 + self.number


@contextmanager
def stopping() -> Iterator[None]:
    """Within, signals raise ``Stopped`` in the main thread; those that the program was told to ignore don't."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)
