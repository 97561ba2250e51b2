"""Drivers of tasks at services, really killed, and desks that outlive them: the service's journal says what it got."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest
from ray.cluster_utils import Cluster

from ray_qjm import Quota
from ray_qjm.cluster.backend_actor import Patience
from ray_qjm.cluster.desk_state import VARIABLE
from tests.faults.conftest import ROOT
from tests.faults.service_driver import Errand
from tests.faults.service_drivers import World, check_nothing_twice, world
from tests.services.process import ServiceProcess
from tests.services.scene import quick
from tests.services.scripted import Fault

COUNT = 40
FINE = Fault()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster that outlives the drivers of these tests."""
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield found.address
    found.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def process() -> Iterator[ServiceProcess]:
    """The service."""
    found = ServiceProcess()
    yield found
    found.close()


@pytest.fixture
def here(process: ServiceProcess, tmp_path: Path, address: str) -> Iterator[World]:
    """The service begun anew, and drivers."""
    process.begin(quick())
    with world(process, tmp_path, address) as found:
        yield found


def whole(out: str, count: int = COUNT) -> None:
    """A driver has the right counts of all circuits, and each job once in its table."""
    assert f"right {count} of {count}" in out, out
    jobs, different = out.split("jobs ")[-1].split()[:2]
    assert jobs == different, out


@pytest.mark.parametrize("own_ray", [False, True], ids=["desk lives", "desk dies too"])
def test_driver_killed_and_resumed_adopts_its_jobs(here: World, own_ray: bool) -> None:
    here.service.begin(quick(run_s=lambda job: 0.05 if job.number < 2 else 3600.0, parallel=9))
    errand = Errand(here.spec(), COUNT, str(here.folder / "store"))
    first = here.start(errand, own_ray=own_ray)
    here.until(lambda story: len(story.jobs) == 5 and story.pending == 3)
    first.kill(group=own_ray)
    second = here.start(errand, own_ray=own_ray)
    # It asks for them: only then is it sure that it knows them.
    before = len(here.service.story().requests)
    here.until(lambda story: len(story.requests) > before + 5)
    assert len(here.service.story().jobs) == 5
    here.service.change(run_s=lambda job: 0.05)
    here.service.go_on(3600.0)
    whole(second.finish())
    check_nothing_twice(here.service.story(), COUNT)
    assert len(here.service.story().jobs) == COUNT // 4


@pytest.mark.parametrize("seed", range(2))
def test_driver_and_desk_killed_again_and_again(here: World, seed: int) -> None:
    here.service.begin(quick(run_s=lambda job: 0.2))
    draw = random.Random(seed)
    errand = Errand(here.spec(), COUNT, str(here.folder / "store"))
    for jobs in (2, 5):
        driver = here.start(errand)
        here.until(lambda story: len(story.jobs), jobs)
        time.sleep(draw.random() * 0.3)
        if draw.random() < 0.5:
            here.kill_desk()
        driver.kill(group=False)
    whole(here.start(errand).finish())
    check_nothing_twice(here.service.story(), COUNT)


def test_dead_drivers_queue_is_not_submitted(here: World) -> None:
    """Nobody could read what a driver without a store has at the service: that is cancelled."""
    here.service.begin(quick(run_s=lambda job: 3600.0, parallel=1, pending=1))
    errand = Errand(here.spec(quota=Quota(max_pending=1)), COUNT, patience=Patience(client_s=2.0))
    driver = here.start(errand)
    here.until(lambda story: story.pending == 1)
    driver.kill(group=False)
    here.until(lambda story: story.open == [])
    time.sleep(1.0)  # a slot is free: what is queued would go now
    assert [job.state for job in here.service.story().jobs] == ["cancelled"]


def test_dead_drivers_jobs_are_kept_for_its_successor(here: World) -> None:
    here.service.begin(quick(run_s=lambda job: 3600.0, parallel=1, pending=1))
    spec = here.spec(quota=Quota(max_pending=1))
    errand = Errand(spec, 12, str(here.folder / "store"), patience=Patience(client_s=1.0))
    driver = here.start(errand)
    here.until(lambda story: story.pending == 1)
    driver.kill(group=False)
    time.sleep(2.5)  # longer than the desk waits for it
    here.service.change(run_s=lambda job: 0.05)
    here.service.go_on(3600.0)
    assert [job.state for job in here.service.story().jobs] == ["done"]
    whole(here.start(errand).finish(), 12)
    check_nothing_twice(here.service.story(), 12)


TWIN = """
import sys, time
from ray_qjm import Quota, RetryPolicy
from ray_qjm.backends.base import Submission
from ray_qjm.backends.desk import Client, Request
from ray_qjm.cluster.backend_actor import DeskHost, Patience
from ray_qjm.planning.quota import Cost
from ray_qjm.results import lease
from tests.services.hosted import Connect, marked
from tests.services.wire import Where

lease.BEAT_S = 0.3
name, root, port, key = sys.argv[1:]
host = DeskHost("desk-twin", Quota(max_pending=100), root, 0.5, Patience(lease_s=3.0))
print("began", flush=True)
desk = host._desk
desk.open("a", Connect(Where(int(port), key.encode())), (0.05, 1.0))
desk.hello(Client(name))
for number in range(10_000):
    tag = f"{name}-{number}"
    make = lambda tag=tag: Submission([marked(1)], [10], tag)
    desk.enqueue(name, [Request(tag, "a", Cost(1, 10), RetryPolicy(call_s=0.5), make=make)])
    print("holds" if host._state.holds() else "fenced", flush=True)
    time.sleep(0.1)
    desk.events(name, 0, 0.0)
"""


def test_a_desk_that_was_stopped_submits_nothing_beside_its_successor(here: World) -> None:
    here.service.begin(quick(pending=10_000))
    where = here.service.where
    argv = [str(here.folder / "state"), str(where.port), where.key.decode()]

    def begin(name: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", TWIN, name, *argv], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )

    first = begin("first")
    try:
        here.until(lambda story: len(story.jobs) > 5)
        first.send_signal(signal.SIGSTOP)
        second = begin("second")
        assert second.stdout is not None and first.stdout is not None
        assert second.stdout.readline() == "began\n"
        here.until(lambda story: any(sender.tag.startswith("second") for sender in story.senders))
        stopped = len([sender for sender in here.service.story().senders if sender.pid == first.pid])
        first.send_signal(signal.SIGCONT)
        fenced = 0
        while fenced < 20:
            fenced += first.stdout.readline() == "fenced\n"
        story = here.service.story()
        assert len([sender for sender in story.senders if sender.pid == first.pid]) == stopped
        assert len({sender.tag for sender in story.senders}) == len(story.senders)
    finally:
        for process in (first, second):
            process.kill()
            process.wait(30)
            assert process.stdout is not None
            process.stdout.close()


SHUTDOWN = """
import sys, ray, ray_qjm, threading
import cloudpickle
from tests.services.hosted import marked
from tests.services.scene import options
spec = cloudpickle.load(sys.stdin.buffer)
ray.init(num_cpus=2, log_to_driver=False, logging_level="ERROR")
task = ray_qjm.submit(marked, spec, count=40, shots=10, options=options())
threading.Event().wait(float(sys.argv[1]))
ray.shutdown()
if len(sys.argv) > 2:
    ray.init(num_cpus=1, log_to_driver=False, logging_level="ERROR")
task.cancel()
try:
    task.wait(60)
    task.result()
except ray_qjm.errors.RayQjmError as error:
    print(type(error).__name__, error)
left = [thread.name for thread in threading.enumerate() if thread.name.startswith("ray_qjm")]
print(left, ray.is_initialized())
"""


@pytest.mark.parametrize("argv", [["3"], ["0.3"], ["3", "again"]], ids=["running", "at once", "another Ray"])
def test_ray_that_is_shut_down_ends_the_task_and_is_left_alone(here: World, argv: list[str]) -> None:
    here.service.begin(quick(run_s=lambda job: 3600.0))
    done = subprocess.run(
        [sys.executable, "-c", SHUTDOWN, *argv],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": "local", VARIABLE: str(here.folder / "state")},
        input=cloudpickle.dumps(here.spec()),
        capture_output=True,
        timeout=120,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 0, out + err
    assert out.splitlines()[-1] == f"[] {len(argv) > 1}", out + err
    assert "Ray was shut down" in out and "Traceback" not in err, out + err


LEFT = """
import sys, ray_qjm, cloudpickle
from tests.services.hosted import marked
from tests.services.scene import options
spec = cloudpickle.load(sys.stdin.buffer)
task = ray_qjm.submit(marked, spec, count=4, shots=10, options=options())
while not task.status().backends[0].pending:
    pass
"""


def test_script_that_ends_before_its_jobs_cancels_them(here: World) -> None:
    here.service.begin(quick(run_s=lambda job: 3600.0))
    done = subprocess.run(
        [sys.executable, "-c", LEFT],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": here.address, VARIABLE: str(here.folder / "state")},
        input=cloudpickle.dumps(here.spec()),
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0 and done.stderr == b"", done.stderr.decode()
    here.until(lambda story: story.open == [])
    assert [job.state for job in here.service.story().jobs] == ["cancelled"]
