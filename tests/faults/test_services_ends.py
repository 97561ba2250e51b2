"""How tasks at services end with their Ray or their script, and how a desk does that was taken for dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import cloudpickle
import pytest

from ray_qjm.cluster.desk_state import VARIABLE
from tests.faults.conftest import ROOT
from tests.faults.service_drivers import World
from tests.services.scene import quick

TWIN = """
import sys, time
from ray_qjm import Quota, RetryPolicy
from ray_qjm.backends.base import Submission
from ray_qjm.backends.desk_messages import Client, Request
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
    assert "Error" in out and "Traceback" not in err, out + err


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
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr.decode()
    here.until(lambda story: story.open == [])
    assert [job.state for job in here.service.story().jobs] == ["cancelled"]
