"""The handle of a running task: status, report, waiting, streaming, cancelling, and processes that are killed."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from qiskit import QuantumCircuit

import ray_qjm
from ray_qjm import RunOptions, TaskStatus
from ray_qjm.cluster import slot_watch
from ray_qjm.cluster.workers import RayLauncher
from ray_qjm.errors import (
    PartialResultWarning,
    ResultStreamedError,
    SourceError,
    TaskCancelledError,
    WaitTimeoutError,
)
from tests.ray.circuits_for_tests import binary, coin, random_one


class Gatekeeper:
    """A progress callable with which a test waits for a state of the task."""

    def __init__(self) -> None:
        self.seen: list[TaskStatus] = []
        self._changed = threading.Condition()

    def __call__(self, status: TaskStatus) -> None:
        with self._changed:
            self.seen.append(status)
            self._changed.notify_all()

    def wait_for(self, what: Callable[[TaskStatus], bool], timeout: float = 60) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: bool(self.seen) and what(self.seen[-1]), timeout), (
                f"not within {timeout} s: {self.seen[-1:]}"
            )

    def wait_for_done(self, circuits: int) -> None:
        self.wait_for(lambda status: status.done >= circuits)


def simulating() -> list[psutil.Process]:
    """Processes of this test's own Ray that run a chunk now, by the names that Ray gives them."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if (process.cmdline() or [""])[0].startswith("ray::simulate"):
                found.append(process)
    return found


def test_status_and_report_tell_circuits_and_jobs() -> None:
    keeper = Gatekeeper()
    with ray_qjm.submit(coin, count=5000, seed=1, progress=keeper, name="coins") as task:
        keeper.wait_for_done(100)
        status = task.status()
        assert status.state == "running"
        assert status.total == 5000
        assert status.done + status.running + (status.waiting or 0) == 5000
        assert status.jobs["running"] >= 1
        assert not task.done()
        assert "circuits done" in task.report()
        assert "'coins': running" in repr(task)
        partial = task.result(partial=True)
        assert len(partial) == 5000
        assert partial.status_counts["done"] >= 100
    result = task.result(partial=True)
    assert len(result) == 5000


def test_report_of_a_running_task_names_ranges_and_stage() -> None:
    wide = QuantumCircuit(7)
    wide.measure_all()
    keeper = Gatekeeper()
    circuits = (wide if 20 <= i < 30 else coin(i) for i in range(10_000))
    with ray_qjm.submit(circuits, "fake_manila", shots=10, progress=keeper) as task:
        keeper.wait_for(lambda status: status.failed == 10)
        assert (
            "circuits 20-29 failed to transpile. Reason: UnsupportedCircuitError: it has 7 qubits"
            in task.report()
        )


def test_wait_that_is_too_short_quotes_the_status() -> None:
    with (
        ray_qjm.submit(coin, count=100_000) as task,
        pytest.raises(WaitTimeoutError, match="100,000 circuits"),
    ):
        task.wait(timeout=0.01)


def test_cancel_keeps_what_is_done() -> None:
    keeper = Gatekeeper()
    task = ray_qjm.submit(binary, count=50_000, shots=10, progress=keeper)
    keeper.wait_for_done(200)
    task.cancel()
    status = task.wait(timeout=60)
    assert status.state == "cancelled"
    assert status.done + status.cancelled == 50_000
    with pytest.raises(TaskCancelledError, match="of 50000 circuits are done") as caught:
        task.result()
    result = caught.value.result
    assert result.status_counts == {"done": status.done, "cancelled": status.cancelled}
    done = [row for row in result if row.status == "done"]
    assert all(int(next(iter(row.counts())), 2) == row.circuit % 256 for row in done)
    assert "was cancelled" in str(result[49_999].error)


def test_cancel_of_a_generator_that_never_answers() -> None:
    blocked, release = threading.Event(), threading.Event()

    def circuits() -> Iterator[QuantumCircuit]:
        yield coin(0)
        blocked.set()
        release.wait(60)
        yield coin(1)

    task = ray_qjm.submit(circuits(), shots=10)
    assert blocked.wait(60)
    task.cancel()
    try:
        assert task.wait(timeout=30).state == "cancelled"
    finally:
        release.set()


def test_a_head_node_that_hangs_holds_up_neither_rows_nor_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answers = threading.Event(), threading.Event()
    real, times = RayLauncher.slots, itertools.count()

    def slots(launcher: RayLauncher) -> list[int]:
        if next(times) >= 2:  # the task has begun
            asked.set()
            answers.wait()
        return real(launcher)

    monkeypatch.setattr(RayLauncher, "slots", slots)
    monkeypatch.setattr(slot_watch, "SLOTS_EVERY_S", 0.01)
    keeper = Gatekeeper()
    task = ray_qjm.submit(coin, count=50_000, progress=keeper, options=RunOptions(max_chunk=20))
    try:
        assert asked.wait(60)
        keeper.wait_for_done(task.status().done + 100)
        task.cancel()
        assert task.wait(timeout=30).state == "cancelled"
    finally:
        answers.set()


def test_a_signal_is_heard_whichever_thread_the_system_gives_it_to() -> None:
    """It chooses any that doesn't block it: a library's too, while the main thread waits."""
    keeper, release = Gatekeeper(), threading.Event()
    other = threading.Thread(target=release.wait)
    other.start()

    def send() -> None:
        keeper.wait_for(lambda status: status.running > 0)
        signal.pthread_kill(other.ident or 0, signal.SIGINT)

    options = RunOptions(cancel_grace_s=0.0)
    sender = threading.Thread(target=send)
    try:
        with ray_qjm.submit(
            lambda index: time.sleep(1000), count=2, progress=keeper, options=options
        ) as task:
            sender.start()
            with pytest.raises(KeyboardInterrupt):
                task.wait()
        assert task.wait(30).state == "cancelled"
    finally:
        release.set()
        sender.join()


def test_chunks_are_killed_again_if_ray_has_not_heard_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real, times = RayLauncher.cancel, itertools.count()
    monkeypatch.setattr(RayLauncher, "cancel", lambda self: real(self) if next(times) else None)
    keeper = Gatekeeper()
    options = RunOptions(cancel_grace_s=0.0)
    task = ray_qjm.submit(lambda index: time.sleep(1000), count=2, progress=keeper, options=options)
    keeper.wait_for(lambda status: status.running > 0)
    task.cancel()
    assert task.wait(timeout=30).state == "cancelled"


def test_cancel_is_heard_while_a_simulation_runs() -> None:
    """Aer holds the interpreter's lock as long as it simulates: a worker that is asked politely hears nothing."""
    long = QuantumCircuit(22)
    for layer in range(60):
        long.rx(0.1 + layer, range(22))
        long.cx(range(21), range(1, 22))
    long.measure_all()
    started = threading.Event()

    def tell(status: TaskStatus) -> None:
        if status.running:
            started.set()

    options = RunOptions(cancel_grace_s=1.0)
    task = ray_qjm.submit(lambda index: long, count=100, shots=100_000, progress=tell, options=options)
    assert started.wait(60)
    keeper = threading.Event()
    assert not keeper.wait(4.0)  # let the simulation begin
    task.cancel()
    assert task.wait(timeout=30).state == "cancelled"
    assert len(ray_qjm.run(coin, count=10, progress=False)) == 10


def test_partial_result_says_nothing_of_circuits_not_yet_read() -> None:
    groups = {"A": (coin(i) for i in range(3000)), "B": (coin(i) for i in range(3000))}
    task = ray_qjm.submit(groups, count=6000, shots=10, progress=False)
    for batch in task.stream():
        assert set(batch.column("group").to_pylist()) <= {"A", "B"}
        break
    task.wait(60)
    lists = {"A": [coin(0)] * 3000, "B": [coin(0)] * 3000}
    second = ray_qjm.submit(lists, shots=10)
    second.cancel()
    second.wait(60)
    groups_found = second.result(partial=True).table.column("group").to_pylist()
    assert "A" not in groups_found[3000:]


def test_loop_over_the_stream_that_is_left_cancels() -> None:
    task = ray_qjm.submit(coin, count=1_000_000, shots=10)
    for _ in task.stream():
        break
    assert task.wait(timeout=60).state == "cancelled"
    other = ray_qjm.submit(coin, count=1_000_000, shots=10)
    with pytest.raises(KeyboardInterrupt):
        for _ in other.stream():
            raise KeyboardInterrupt
    assert other.wait(timeout=60).state == "cancelled"


def test_observer_that_ends_its_thread_does_not_end_the_task() -> None:
    def observer(status: TaskStatus) -> None:
        raise SystemExit(3)

    with pytest.warns(RuntimeWarning, match="progress raised SystemExit"):
        result = ray_qjm.run(coin, count=300, shots=10, progress=observer)
    assert result.status_counts == {"done": 300}


def test_generator_that_raises_systemexit_ends_the_task_with_the_reason() -> None:
    def circuits() -> Iterator[QuantumCircuit]:
        yield coin(0)
        raise SystemExit("out of here")

    with pytest.raises(SourceError, match=r"can't be read on \(SystemExit: out of here\)"):
        ray_qjm.submit(circuits(), shots=10).result(timeout=60)


def test_stream_hands_over_every_row_once() -> None:
    with ray_qjm.submit(binary, count=400, shots=10) as task:
        batches = list(task.stream())
    rows = (
        pa.Table.from_batches([batch.select(["circuit"]) for batch in batches]).column("circuit").to_pylist()
    )
    assert sorted(rows) == list(range(400))
    with pytest.raises(ResultStreamedError):
        task.result()


def test_observer_that_raises_is_not_called_again_and_told_at_the_end() -> None:
    calls = 0

    def observer(status: TaskStatus) -> None:
        nonlocal calls
        calls += 1
        raise ValueError("my own bug")

    with pytest.warns(RuntimeWarning, match="progress raised ValueError: my own bug"):
        result = ray_qjm.run(coin, count=20, progress=observer)
    assert calls == 1
    assert len(result) == 20


def test_observer_gets_events_up_to_the_last() -> None:
    keeper = Gatekeeper()
    ray_qjm.run(coin, count=300, progress=keeper)
    done = [status.done for status in keeper.seen]
    assert done == sorted(done)
    assert (keeper.seen[-1].state, keeper.seen[-1].done) == ("done", 300)


def test_worker_killed_in_the_middle_of_5000_circuits_changes_nothing() -> None:
    undisturbed = ray_qjm.run(random_one, count=5000, shots=100, seed=3, progress=False)
    keeper = Gatekeeper()
    task = ray_qjm.submit(random_one, count=5000, shots=100, seed=3, progress=keeper)
    keeper.wait_for_done(1500)
    victim = simulating()[0]
    os.kill(victim.pid, signal.SIGKILL)
    assert psutil.wait_procs([victim], timeout=30)[0], "the worker did not die"
    result = task.result(timeout=250)
    assert task.status().jobs["failed"] >= 1
    columns = [name for name in result.table.column_names if name not in ("jobs", "registers", "backend")]
    assert result.table.select(columns).equals(undisturbed.table.select(columns))


def test_two_tasks_at_once_do_not_mix() -> None:
    first = ray_qjm.submit(binary, count=256, shots=10)
    second = ray_qjm.submit([binary(i) for i in range(200, 0, -1)], shots=20)
    assert [int(next(iter(c)), 2) for c in second.result().get_counts()] == list(range(200, 0, -1))
    assert [int(next(iter(c)), 2) for c in first.result().get_counts()] == list(range(256))
    assert set(first.job_ids).isdisjoint(second.job_ids)
    assert all(job.startswith(first.id) for job in first.job_ids)


def test_warning_comes_once_from_run() -> None:
    with pytest.warns(PartialResultWarning) as caught:
        ray_qjm.run([QuantumCircuit(1), QuantumCircuit(1)], progress=False)
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize("stored", [False, True])
def test_a_task_larger_than_any_memory_is_cancelled_like_another(stored: bool, tmp_path: Path) -> None:
    """Rows of circuits that weren't run are made when somebody wants them, a few at a time."""
    keeper = Gatekeeper()
    store = tmp_path / "s" if stored else None
    task = ray_qjm.submit(coin, count=2**50, shots=10, store=store, progress=keeper)
    stream = task.stream()
    keeper.wait_for_done(20)
    task.cancel()
    status = task.wait(60)
    assert status.state == "cancelled" and status.done + status.cancelled == 2**50
    rows = 0
    for batch in stream:
        rows += batch.num_rows
        if rows > status.done:
            break
    assert batch.column("status").to_pylist()[-1] == "cancelled"
    if store is not None:
        found = ray_qjm.attach(store)
        assert found.status().state == "cancelled" and len(found.result(partial=True)) == 2**50
        assert found.result(partial=True)[2**50 - 1].status == "cancelled"
