"""What the program's exit code says."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray_qjm.planning.status import TaskStatus


class Exit(IntEnum):
    """One number an end; 128 and more are the shell's numbers for signals."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    FAILED = 3
    CANCELLED = 4
    INTERRUPTED = 5
    SIGHUP = 129
    SIGINT = 130
    SIGPIPE = 141
    SIGTERM = 143


MEANINGS: Sequence[tuple[str, str]] = (
    ("0", "done: all circuits have their counts"),
    ("1", "an error: Ray, a store or a backend can't be had, or the task was stopped"),
    ("2", "the command line is wrong; nothing was run"),
    ("3", "the task has ended, and some circuits have no counts, or not all"),
    ("4", "the task was cancelled"),
    ("5", "the process that ran the task is gone (watch)"),
    ("129, 130, 143", "stopped by SIGHUP, SIGINT (Ctrl-C), SIGTERM; what was done is stored"),
    ("141", "the reader of the output has gone"),
)


def exit_of(status: TaskStatus, *, lacking: bool) -> Exit:
    """The exit code for a task.

    Args:
        status: Where it stands.
        lacking: Whether circuits that were run have no counts, or not all.
    """
    if status.state == "cancelled":
        return Exit.CANCELLED
    if status.state == "failed":
        return Exit.ERROR
    if status.state == "interrupted":
        return Exit.INTERRUPTED
    return Exit.FAILED if lacking or status.failed else Exit.DONE
