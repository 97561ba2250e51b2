"""What still runs when the interpreter ends is cancelled, while there is a Ray to talk to."""

from __future__ import annotations

import atexit
import weakref
from typing import Protocol

#: How long the end of the process waits for a task that still runs: a forced cancel takes a tenth of a second.
EXIT_S = 5.0


class Running(Protocol):
    """A task with a thread of its own."""

    def done(self) -> bool:
        """Whether it has ended."""

    def cancel(self, *, force: bool) -> None:
        """End it."""

    def join(self, timeout: float) -> None:
        """Wait until its thread is gone."""


_running: weakref.WeakSet[Running] = weakref.WeakSet()


def end_with_the_process(task: Running) -> None:
    """Cancel a task when the interpreter ends, unless it has ended by then."""
    _running.add(task)
    # Exit hooks run last in, first out, and Ray adds one each time that it starts: ours goes before it again.
    atexit.unregister(_end)
    atexit.register(_end)


def _end() -> None:
    left = [task for task in _running if not task.done()]
    for task in left:
        task.cancel(force=True)
    for task in left:
        task.join(EXIT_S)
