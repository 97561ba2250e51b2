"""Calls of a provider's client, each in a thread that has no other, and with a deadline."""

from __future__ import annotations

import itertools
import math
import queue
import threading
from collections.abc import Callable
from typing import Any

#: A thread that has no call ends after so many seconds. Starting one takes as long as a small job's whole way
#: through the desk, and holds up the desk's own thread meanwhile (``benchmarks/service_desk.py``).
IDLE_S = 10.0


class Calls:
    """Runs calls that may hang, and says so when one does.

    A thread that hangs in a client can't be ended: it is left alone, and whatever it comes back with later is
    told like any other answer. Threads that are through with a call take the next one.

    Args:
        clock: Seconds that go on evenly.
        tell: Runs a function in the thread of whoever made this.
    """

    def __init__(self, clock: Callable[[], float], tell: Callable[[Callable[[], None]], None]) -> None:
        self._clock = clock
        self._tell = tell
        self._numbers = itertools.count()
        self._due: dict[int, tuple[float, Callable[[], None]]] = {}
        self._lock = threading.Lock()
        self._idle = 0
        #: Never more than there are threads that wait for one.
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def start(
        self,
        call: Callable[[], Any],
        *,
        within_s: float,
        done: Callable[[Any], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """Call something; one of ``done`` and ``failed`` is told what came of it.

        Args:
            call: Runs in a thread that does nothing else meanwhile.
            within_s: After so long ``failed`` is told a ``TimeoutError``; the call may end all the same later.
            done: Is told what it returned.
            failed: Is told what it raised.
        """
        number = next(self._numbers)

        def late() -> None:
            failed(TimeoutError(f"no answer after {within_s:g} s"))

        def run() -> None:
            try:
                found = call()
            except BaseException as error:
                answer = _bound(failed, error)
            else:
                answer = _bound(done, found)
            self._tell(lambda: self._answered(number, answer))

        self._due[number] = (self._clock() + within_s, late)
        with self._lock:
            if self._idle:
                self._idle -= 1
                self._work.put(run)
                return
        threading.Thread(target=self._work_on, args=(run,), name="ray_qjm call", daemon=True).start()

    @property
    def next_due(self) -> float:
        """When the next deadline is."""
        return min((at for at, _ in self._due.values()), default=math.inf)

    def check(self, now: float) -> None:
        """Tell of calls that are late."""
        for number in [number for number, (at, _) in self._due.items() if at <= now]:
            self._due.pop(number)[1]()

    def _work_on(self, run: Callable[[], None]) -> None:
        while True:
            run()
            del run  # nothing of it may live on while its thread is idle
            with self._lock:
                self._idle += 1
            try:
                run = self._work.get(timeout=IDLE_S)
            except queue.Empty:
                with self._lock:
                    try:
                        run = self._work.get_nowait()  # it was put between the two
                    except queue.Empty:
                        self._idle -= 1
                        return

    def _answered(self, number: int, answer: Callable[[], None]) -> None:
        self._due.pop(number, None)
        answer()


def _bound(function: Callable[[Any], None], value: Any) -> Callable[[], None]:
    return lambda: function(value)
