"""Calls that hang or not, and the threads that they are made in."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from ray_qjm.backends import calls as calls_module
from ray_qjm.backends.calls import Calls


class Scene:
    """Calls, and what was told of them."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.threads: list[int] = []
        self._answers: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.calls = Calls(time.monotonic, self._answers.put)

    def start(self, call: Callable[[], Any], within_s: float = 60.0) -> None:
        """Make a call; it notes its thread."""

        def noted() -> Any:
            self.threads.append(threading.get_ident())
            return call()

        self.calls.start(noted, within_s=within_s, done=self.told.append, failed=self.told.append)

    def hear(self) -> Any:
        """The next answer."""
        self._answers.get(timeout=30)()
        return self.told[-1]


def idle(calls: Calls, number: int) -> None:
    """Wait until so many threads wait for a call."""
    over = time.monotonic() + 30
    while calls._idle != number:
        assert time.monotonic() < over
        time.sleep(0.001)


def test_calls_one_after_the_other_share_a_thread() -> None:
    scene = Scene()
    for number in range(5):
        scene.start(lambda n=number: n)  # type: ignore[misc]
        assert scene.hear() == number
        idle(scene.calls, 1)
    assert len(set(scene.threads)) == 1


def test_a_call_that_hangs_holds_up_no_other() -> None:
    scene = Scene()
    let_go = threading.Event()
    scene.start(lambda: let_go.wait(30), within_s=0.01)
    for number in range(5):
        scene.start(lambda n=number: n)  # type: ignore[misc]
        assert scene.hear() == number
    assert scene.calls.next_due < time.monotonic() + 1
    time.sleep(0.02)
    scene.calls.check(time.monotonic())
    assert isinstance(scene.told[-1], TimeoutError)
    let_go.set()
    assert scene.hear() is True  # late, and told all the same
    assert scene.calls.next_due == float("inf")


def test_an_error_is_told_and_leaves_the_thread_usable() -> None:
    scene = Scene()

    def broken() -> None:
        raise ConnectionError("refused")

    scene.start(broken)
    assert isinstance(scene.hear(), ConnectionError)
    scene.start(lambda: "well")
    assert scene.hear() == "well"


def test_threads_without_a_call_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "IDLE_S", 0.01)
    scene = Scene()
    for number in range(50):
        scene.start(lambda n=number: n)  # type: ignore[misc]
        scene.hear()
        time.sleep(0.01 * (number % 3))  # so that some calls come just as their thread ends
    assert scene.told == list(range(50))
    idle(scene.calls, 0)
    over = time.monotonic() + 30
    while any(thread.ident in scene.threads and thread.is_alive() for thread in threading.enumerate()):
        assert time.monotonic() < over
        time.sleep(0.01)
