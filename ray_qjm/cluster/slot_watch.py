"""Asks now and again what the cluster has, in a thread of its own: a head node that hangs never answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from ray_qjm.errors import RayQjmError

#: How often the cluster is asked what it has: nodes come and go in minutes, and asking takes a millisecond.
SLOTS_EVERY_S = 5.0
#: How long its end is waited for; it may hang.
_STOP_S = 1.0


class SlotWatch:
    """See the module's docstring.

    Args:
        ask: Asks; what it raises but for this package's errors is taken for a cluster that is busy.
        tell: Gets the answers, from the thread, and at last an error of this package's.
    """

    def __init__(
        self,
        ask: Callable[[], Sequence[int]],
        tell: Callable[[Sequence[int] | RayQjmError], None],
    ) -> None:
        self._ask = ask
        self._tell = tell
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ray_qjm slots", daemon=True)

    def begin(self) -> None:
        """Ask from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; returns once nothing is being asked, or hangs."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)

    def _run(self) -> None:
        while not self._stopped.wait(SLOTS_EVERY_S):
            try:
                self._tell(self._ask())
            except RayQjmError as error:
                self._tell(error)
                return
            except BaseException:
                continue  # it has something else to do just now, and will be asked again
