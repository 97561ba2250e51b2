"""Drivers in processes of their own: Ctrl-C, plain progress, and a cluster that others use too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

pytestmark = pytest.mark.own_ray

ROOT = Path(__file__).resolve().parents[2]


def driver(script: str, **environment: str) -> subprocess.Popen[str]:
    """Start Python on a script; its Ray has two CPUs."""
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 120) -> tuple[str, str]:
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"the driver did not end within {timeout} s:\n{out}\n{err}")
    return out, err


INTERRUPTED = """
import ray_qjm
from tests.ray.circuits_for_tests import binary

def tell(status):
    if status.done > 50:
        print("going", flush=True)

try:
    ray_qjm.run(binary, count=1_000_000, shots=10, progress=tell)
except ray_qjm.errors.TaskInterrupted as interrupted:
    result = interrupted.result
    done = [row for row in result.table.select(["circuit", "status"]).to_pylist() if row["status"] == "done"]
    assert all(int(next(iter(result.get_counts(row["circuit"]))), 2) == row["circuit"] % 256 for row in done)
    print("interrupted", len(result), len(done))
    print(interrupted)
"""


def test_ctrl_c_cancels_and_returns_what_is_there() -> None:
    process = driver(INTERRUPTED)
    assert process.stdout is not None
    assert process.stdout.readline() == "going\n"
    process.send_signal(signal.SIGINT)
    out, err = finish(process)
    assert process.returncode == 0, err
    told = next(line for line in out.splitlines() if line.startswith("interrupted 1000000"))
    assert int(told.split()[-1]) > 50
    assert "of 1000000 circuits are done" in out


QUIET = """
import ray_qjm
from tests.ray.circuits_for_tests import coin
result = ray_qjm.run(coin, count=300, shots=10)
print(result)
"""


def test_ray_starts_quietly_and_progress_is_plain_lines_off_a_terminal() -> None:
    process = driver(QUIET)
    out, err = finish(process)
    assert process.returncode == 0, err
    assert out.startswith("<TaskResult: 300 circuits (300 done)")
    lines = err.splitlines()
    assert lines[-1].startswith("ray_qjm: done, 300/300 circuits (100%)")
    assert all(line.startswith("ray_qjm: ") for line in lines), err


LEFT = """
import ray_qjm
from tests.ray.circuits_for_tests import coin
task = ray_qjm.submit(coin, count=1_000_000, shots=10)
for batch in task.stream():
    break
print("leaving", flush=True)
"""


def test_script_that_ends_before_its_task_ends_quietly() -> None:
    process = driver(LEFT)
    out, err = finish(process)
    assert process.returncode == 0, err
    assert out == "leaving\n"
    assert err == ""


LEFT_GENERATOR = """
import itertools, ray_qjm
from tests.ray.circuits_for_tests import coin
task = ray_qjm.submit((coin(i) for i in itertools.count()), shots=10)
stream = task.stream()
next(stream)
print("leaving", flush=True)
"""


def test_script_that_ends_while_its_generator_is_read_ends_quietly() -> None:
    process = driver(LEFT_GENERATOR)
    out, err = finish(process)
    assert process.returncode == 0, err
    assert out == "leaving\n"
    assert err == ""


READERLESS = """
import ray_qjm, sys
from tests.ray.circuits_for_tests import coin
ray_qjm.run(coin, count=10, shots=10, progress=False)
sys.stderr.close()
import os, rich.console
read, write = os.pipe()
os.close(read)
os.dup2(write, 2)
sys.stderr = open(2, "w", buffering=1)
from ray_qjm.frontends import progress
progress.LINE_EVERY_S = 0.0
result = ray_qjm.run(coin, count=400, shots=10)
print(result.status_counts, flush=True)
os._exit(0)
"""


def test_reader_of_progress_that_has_gone_costs_nothing_but_the_progress() -> None:
    process = driver(READERLESS)
    out, err = finish(process)
    assert process.returncode == 0, err
    assert out == "{'done': 400}\n"


THREADS = """
import threading, ray_qjm
from tests.ray.circuits_for_tests import coin
found = []
def work():
    found.append(len(ray_qjm.run(coin, count=20, shots=10, progress=False)))
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(found)
"""


def test_threads_that_run_at_once_share_one_ray() -> None:
    out, err = finish(driver(THREADS))
    assert out == "[20, 20, 20]\n", err


SHUTDOWN = """
import ray, ray_qjm
from tests.ray.circuits_for_tests import coin
task = ray_qjm.submit(coin, count=1_000_000, shots=10)
stream = task.stream()
next(stream)
ray.shutdown()
task.cancel()
try:
    task.wait(60)
    task.result()
except ray_qjm.errors.RayQjmError as error:
    print(type(error).__name__, error)
print(ray.is_initialized())
"""


def test_ray_that_is_shut_down_ends_the_task_and_is_not_started_again() -> None:
    out, err = finish(driver(SHUTDOWN))
    assert out.endswith("False\n"), out + err
    assert "Traceback" not in err


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A cluster of its own, with a store that a few hundred megabytes overwrite."""
    found = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "object_store_memory": 160 * 2**20, "include_dashboard": False},
    )
    yield found
    found.shutdown()  # type: ignore[no-untyped-call]


OWNER = """
import subprocess, sys
import ray, ray_qjm
from qiskit import QuantumCircuit

def circuit(index, rng):
    found = QuantumCircuit(8)
    for qubit in range(8):
        found.ry(float(rng.uniform(0.5, 2.5)), qubit)
    found.measure_all()
    return found

result = ray_qjm.run(circuit, count=1500, seed=5, progress=False)
assert not ray_qjm.cluster.session.connect()  # joined, not started
control = ray.get(ray.put(result.table))  # zero-copy: what a result must not be
before = [result.get_counts(i) for i in range(0, 1500, 7)]
large = max(sum(part.nbytes for part in batch.columns) for batch in result.table.to_batches())
first = control.column("counts").combine_chunks().flatten().to_numpy(zero_copy_only=False).copy()
kept = control.column("counts").chunk(0).flatten()
ray.shutdown()
subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
after = [result.get_counts(i) for i in range(0, 1500, 7)]
assert before == after, "the result changed"
result.table.validate(full=True)
print("largest part", large)
print("control changed", not (kept.to_numpy() == first[: len(kept)]).all())
"""

OTHER = """
import numpy as np, ray
import ray_qjm.cluster.session as session
session.connect()
for turn in range(6):
    held = [ray.put(np.full(2**20, 255 - turn, np.uint8)) for _ in range(120)]
    del held
"""


def test_result_stays_right_when_another_driver_overwrites_the_object_store(cluster: Any) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, OTHER],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": cluster.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = finish(process, timeout=200)
    assert process.returncode == 0, err
    # Parts below 100 kB travel inside Ray's replies and not through shared memory.
    assert int(out.split("largest part ")[1].split()[0]) > 200_000
    assert "control changed True" in out, "the store was not overwritten, so the test proves nothing"
