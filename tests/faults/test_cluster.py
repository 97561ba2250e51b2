"""A head without CPUs and two nodes, made by ``ray start`` with token authentication, as on three machines."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import pytest

from examples.machines import Machines
from ray_qjm import Quota
from ray_qjm.cluster.desk_state import VARIABLE
from tests.deploy.recipes import kuberay
from tests.faults.conftest import ROOT, eventually
from tests.faults.service_driver import Errand
from tests.faults.service_drivers import ServiceDriver, World
from tests.services.process import ServiceProcess
from tests.services.scene import quick
from tests.storing import check_store


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    """A cluster, and nothing of it left."""
    with Machines(2, dashboard=False) as found:
        roots = [psutil.Process(machine.process.pid) for machine in (found.head, *found.nodes)]
        processes = [process for root in roots for process in (root, *root.children(recursive=True))]
        yield found
    eventually(lambda: not any(process.is_running() for process in processes))


def test_two_drivers_share_a_quota_and_the_desk_on_the_head(
    machines: Machines, service_process: ServiceProcess, tmp_path: Path
) -> None:
    service_process.begin(quick(pending=2, parallel=2, run_s=lambda job: 0.2))
    spec = World(service_process, tmp_path, machines.address).spec(quota=Quota(max_pending=2))
    # Nobody says where journals are: they are on the head, and so is the desk.
    places = {"RAY_ADDRESS": machines.address, "XDG_STATE_HOME": str(tmp_path), VARIABLE: ""}
    with ExitStack() as ends:
        drivers = [
            ends.enter_context(closing(ServiceDriver(Errand(spec, 24), tmp_path, **places))) for _ in range(2)
        ]
        for driver in drivers:
            assert "right 24 of 24" in driver.finish()
    story = service_process.story()
    assert story.highest_pending == 2 and story.refused == {} and story.violations == []
    assert story.shots_run == {f"c{index}": 20 for index in range(24)}
    (desk,) = {sender.pid for sender in story.senders}
    assert machines.head.process.pid in [process.pid for process in psutil.Process(desk).parents()]
    assert [path.name[:5] for path in (tmp_path / "ray_qjm").iterdir()] == ["desk-"]


def test_the_night_of_kuberay(machines: Machines, tmp_path: Path) -> None:
    script = tmp_path / "night.py"
    script.write_text(kuberay()["ConfigMap"]["data"]["night.py"])
    environment = {
        **os.environ, "RAY_ADDRESS": machines.address, "COUNT": "40", "STORE": str(tmp_path / "night")
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "40 of 40 circuits done.", done.stderr
    check_store(tmp_path / "night", 40)


def test_the_rehearsal(tmp_path: Path) -> None:
    """``make cluster-demo`` with fewer circuits: a node is killed, all rows are right, and nothing is left."""
    count = 900
    done = subprocess.run(
        [sys.executable, "-m", "examples.cluster_demo", str(count)],
        cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    out = done.stdout
    assert done.returncode == 0, out + done.stderr
    assert f"Circuit i measured i, 1,024 times: {count:,} of {count:,} circuits." in out
    assert re.search(r"Killed node-2: SIGKILL to \d+ processes, [\d,]+ circuits in the store\.", out)
    for pid in re.findall(r"pid (\d+)", out):
        assert not psutil.pid_exists(int(pid))
    assert not list(tmp_path.glob("qjm-*"))


def test_the_rehearsal_leaves_nothing_when_it_is_ended(tmp_path: Path) -> None:
    """A terminal that is closed, a batch system's time limit, Ctrl-C; in the middle of the run."""
    demo = subprocess.Popen(
        [sys.executable, "-u", "-m", "examples.cluster_demo"],
        cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert demo.stdout is not None
    pids = []
    for line in demo.stdout:
        pids += re.findall(r"pid (\d+)", line)
        if line.startswith("Running"):
            break
    roots = [psutil.Process(int(pid)) for pid in pids]
    processes = [process for root in roots for process in (root, *root.children(recursive=True))]
    eventually(lambda: any(tmp_path.glob("qjm-store-*/store/parts/*/*")))
    demo.send_signal(signal.SIGTERM)
    _, said = demo.communicate(timeout=40)
    assert demo.returncode == 130 and len(pids) == 3
    assert said.endswith("\nStopped. The cluster is gone, and its folders.\n") and "Traceback" not in said
    assert not any(process.is_running() for process in processes)
    assert not list(tmp_path.glob("qjm-*"))
