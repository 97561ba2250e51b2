"""A soak: tasks with a store whose processes are killed at random moments, until each task is complete.

In turn, at random: SIGKILL of the driver alone and with its whole process group, of a worker, of the raylet, of
Ray's head; an exception in the coordinator's thread; Ctrl-C twice; two drivers started at once. Between two
drivers the store may get what a power cut leaves: a torn part, a torn or empty record, a half-written file.
After each the same call is made again. When a task is complete its rows are compared with those of a run that
nothing befell.

Prints kills, resumes, circuits built more than once (wasted work; of the two tasks of three whose circuits workers
build), rows lost, doubled or different (must be 0).
Ends by itself.

Usage: python -m benchmarks.chaos [--minutes 30] [--circuits 3000] [--seed 1]
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
from qiskit import QuantumCircuit
from qiskit.circuit.random import random_circuit

import ray_qjm
from ray_qjm import RunOptions, TaskResult, TaskStatus

LOG = "RAY_QJM_CHAOS_LOG"
DRIVER = "RAY_QJM_CHAOS_DRIVER"
KINDS = (
    "driver",
    "driver and group",
    "worker",
    "raylet",
    "head",
    "coordinator",
    "ctrl-c twice",
    "two drivers",
)
DAMAGE = ("nothing", "nothing", "torn part", "torn record", "empty task.json", "leftover file")


def circuit(index: int, rng: np.random.Generator) -> QuantumCircuit:
    """Takes its time, and notes that it was built; but for the driver's own look when it resumes."""
    time.sleep(0.008)
    if LOG in os.environ and os.environ[DRIVER] != str(os.getpid()):
        log = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(log, f"{index}\n".encode())
        os.close(log)
    return random_circuit(5, 4, measure=True, seed=int(rng.integers(2**32)))


def drawn(circuits: int) -> Iterator[QuantumCircuit]:
    """The same circuits from a generator, which only the driver can read."""
    for index in range(circuits):
        rng = np.random.default_rng(np.random.SeedSequence(11, spawn_key=(index,)))
        yield random_circuit(5, 4, measure=True, seed=int(rng.integers(2**32)))


def call(circuits: int, *, generated: bool = False) -> dict[str, Any]:
    options = RunOptions(chunk_s=0.3, cancel_grace_s=1.0)
    source = {"circuits": drawn(circuits)} if generated else {"circuits": circuit, "count": circuits}
    return {**source, "shots": 100, "seed": 11, "options": options}


def drive(store: str, circuits: int) -> None:
    """What the killed process does."""
    os.environ[DRIVER] = str(os.getpid())

    def tell(status: TaskStatus) -> None:
        print("done", status.done, flush=True)

    def break_coordinator(*_: Any) -> None:
        for thread in threading.enumerate():
            if thread.name.startswith("ray_qjm ") and len(thread.name) == len("ray_qjm 01234567"):
                ident = ctypes.c_ulong(thread.ident or 0)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(MemoryError))

    signal.signal(signal.SIGUSR1, break_coordinator)
    from benchmarks import chaos  # workers must find the function in a module

    try:
        ray_qjm.run(**chaos.call(circuits, generated="generator" in store), store=store, progress=tell)
    except ray_qjm.errors.StoreInUseError as error:
        print("refused", error, flush=True)
        return
    except ray_qjm.errors.TaskInterrupted:
        print("interrupted", flush=True)
        return
    print("complete", flush=True)


class Driver:
    def __init__(self, store: Path, log: Path, circuits: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.chaos", "--drive", str(store), "--circuits", str(circuits)],
            env={**os.environ, LOG: str(log), "RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": "local"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self.done = 0
        self.moved = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith("done "):
                self.done = int(line.split()[1])
                self.moved.set()
        self.moved.set()

    def said(self, word: str) -> bool:
        return any(line.startswith(word) for line in self.lines)

    def below(self, name: str) -> list[psutil.Process]:
        found = []
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.Error:
            return []
        for child in children:
            try:
                if name in " ".join(child.cmdline()):
                    found.append(child)
            except psutil.Error:
                continue
        return found

    def end(self, within: float) -> None:
        """Wait for the end; what is left of its processes goes too, since they are ours."""
        left = self.below("")
        try:
            self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for process in left:
            try:
                process.kill()
            except psutil.Error:
                continue


def strike(kind: str, driver: Driver, draw: random.Random) -> bool:
    """Do it; whether there was something to kill, and it died."""
    process = driver.process
    if process.poll() is not None:
        return False
    if kind == "driver":
        process.kill()
    elif kind == "driver and group":
        os.killpg(process.pid, signal.SIGKILL)
    elif kind == "coordinator":
        process.send_signal(signal.SIGUSR1)
    elif kind == "ctrl-c twice":
        process.send_signal(signal.SIGINT)
        time.sleep(draw.random() * 0.3)
        process.send_signal(signal.SIGINT)
    else:
        name = {"worker": "ray::simulate", "raylet": "raylet/raylet", "head": "gcs_server"}[kind]
        found = driver.below(name)
        if not found:
            return False
        victim = draw.choice(found)
        try:
            victim.kill()
            victim.wait(20)
        except psutil.Error:
            return not victim.is_running()
        return True
    return True


def damage(kind: str, store: Path, draw: random.Random) -> None:
    """Leave the store as a power cut may."""
    parts = sorted(store.glob("parts/*/*.parquet"))
    if kind == "torn part" and parts:
        part = draw.choice(parts)
        data = part.read_bytes()
        part.write_bytes(data[: draw.randrange(len(data))])
    elif kind == "torn record":
        records = sorted(store.glob("epochs/*.json"), key=lambda path: int(path.stem))
        if len(records) > 1:
            records[-1].write_bytes(records[-1].read_bytes()[:100])
    elif kind == "empty task.json" and (store / "task.json").exists():
        (store / "task.json").write_bytes(b"")
    elif kind == "leftover file" and parts:
        (parts[0].parent / "1-2.parquet#1").write_bytes(b"half")


def same(result: TaskResult, calm: TaskResult) -> tuple[int, int, int]:
    """Rows lost, doubled and different."""
    files = result.files()
    circuits = [c for file in files for c in pq.read_table(file, columns=["circuit"]).column(0).to_pylist()]
    times = collections.Counter(circuits)
    lost = sum(i not in times for i in range(len(calm)))
    different = sum(
        a.status != "done" or a.int_counts() != b.int_counts() or a.seed != b.seed
        for a, b in zip(result, calm, strict=True)
    )
    return lost, sum(times.values()) - len(times), different


def soak(minutes: float, circuits: int, seed: int) -> None:
    draw = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="ray_qjm chaos "))
    until = time.monotonic() + 60 * minutes
    from benchmarks import chaos

    calm = ray_qjm.run(**chaos.call(circuits), progress=False)
    import ray

    ray.shutdown()
    kills: collections.Counter[str] = collections.Counter()
    harm: collections.Counter[str] = collections.Counter()
    totals: collections.Counter[str] = collections.Counter()
    while time.monotonic() < until:
        totals["tasks"] += 1
        word = "generator" if totals["tasks"] % 3 == 0 else "store"
        store, log = folder / f"{word} {totals['tasks']}", folder / f"log {totals['tasks']}"
        tried = 0
        while True:
            tried += 1
            driver = Driver(store, log, circuits)
            kind = draw.choice(KINDS)
            if kind == "two drivers":
                second = Driver(store, log, circuits)
                while not any(d.done or d.process.poll() is not None for d in (driver, second)):
                    time.sleep(0.1)
                time.sleep(8)
                refused = [d for d in (driver, second) if d.said("refused")]
                harm["second driver refused"] += len(refused)
                totals["both drivers ran"] += driver.done > 0 and second.done > 0
                for d in (driver, second):
                    if d.process.poll() is None and not d.said("complete"):
                        os.killpg(d.process.pid, signal.SIGKILL)
                    d.end(60)
                complete = any(d.said("complete") for d in (driver, second))
            else:
                driver.moved.wait(90)
                first = driver.done
                while driver.done == first and driver.process.poll() is None:  # it goes on now
                    time.sleep(0.05)
                while driver.process.poll() is None and not driver.said("complete"):
                    time.sleep(draw.uniform(0, 4))
                    kills[kind] += strike(kind, driver, draw)
                    if kind != "worker":
                        break
                    kind = draw.choice(KINDS[:-1])  # it goes on by itself: there is more to kill
                driver.end(150)
                complete = driver.said("complete")
            if complete:
                break
            totals["resumes"] += 1
            what = draw.choice(DAMAGE)
            damage(what, store, draw)
            harm[what] += what != "nothing"
            if tried > 60:
                print("".join(driver.lines[-30:]))
                raise SystemExit("a task didn't become complete in 60 tries")
        result = TaskResult.open(store)
        lost, doubled, different = same(result, calm)
        totals.update(lost=lost, doubled=doubled, different=different)
        totals["circuits"] += circuits
        if word == "store":
            totals["circuits built by workers"] += circuits
            totals["built more than once"] += len(log.read_text().split()) - circuits
        stray = list(store.rglob("*#*"))
        totals["stray files"] += len(stray)
        print(
            f"task {totals['tasks']}: complete after {tried} drivers; so far {dict(kills)} {dict(totals)}",
            flush=True,
        )
        shutil.rmtree(store)
    print(f"\n{minutes:g} minutes, seed {seed}, {circuits} circuits a task")
    print(
        "kills:",
        ", ".join(f"{count} {kind}" for kind, count in kills.items()),
        f"({sum(kills.values())} in all)",
    )
    print("besides:", ", ".join(f"{count} {kind}" for kind, count in harm.items() if count))
    print(
        ", ".join(f"{name}: {totals[name]}" for name in ("tasks", "circuits", "resumes", "both drivers ran"))
    )
    wasted = totals["built more than once"]
    print(
        f"circuits built more than once: {wasted} ({100 * wasted / totals['circuits built by workers']:.1f} %)"
    )
    print(", ".join(f"rows {name}: {totals[name]}" for name in ("lost", "doubled", "different")))
    print(f"stray files: {totals['stray files']}")
    shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--circuits", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drive:
        drive(arguments.drive, arguments.circuits)
    else:
        soak(arguments.minutes, arguments.circuits, arguments.seed)


if __name__ == "__main__":
    main()
