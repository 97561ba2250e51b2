"""The unmodified IBM client against a service on loopback, with everything that can go wrong at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray.cluster_utils import Cluster

import ray_qjm
from tests.faults.conftest import ROOT, eventually
from tests.faults.ibm_circuits import COUNT, PENDING, SHOTS
from tests.ibm.service import IbmService

FAULTS = [
    {"on": "POST /jobs", "status": 429, "when": "before", "chance": 0.08, "retry_after_s": 0.1},
    {"on": "POST /jobs", "status": 502, "when": "before", "chance": 0.05},
    {"on": "POST /jobs", "status": 502, "when": "after", "chance": 0.05},
    {"on": "POST /jobs", "drop": True, "when": "before", "chance": 0.05},
    {"on": "POST /jobs", "drop": True, "when": "after", "chance": 0.08},
    {"on": "POST /jobs", "drop": True, "when": "late", "delay_s": 1.0, "chance": 0.04},
    {"on": "GET *", "status": 503, "when": "before", "chance": 0.01},
    {"on": "GET /jobs*", "drop": True, "when": "before", "chance": 0.02},
]


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def ibm(monkeypatch: pytest.MonkeyPatch) -> Iterator[IbmService]:
    with IbmService(pending_cap=PENDING, queue_s=0.05, run_s=0.3, seed=11) as found:
        for name, value in found.environment().items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.fixture
def cluster(ibm: IbmService) -> Iterator[Any]:
    """After the service: workers and actors take their environment from the node."""
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield found
    found.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture
def driver(cluster: Any, tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start(module: str = "tests.faults.ibm_driver") -> subprocess.Popen[str]:
        environment = {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ADDRESS": cluster.address,
            "RAY_QJM_STATE": str(tmp_path / "state"),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(tmp_path / "store")],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


def wait_for(process: subprocess.Popen[str], done: int) -> None:
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if line.startswith("done ") and int(line.split()[1]) >= done:
            return
    pytest.fail("the driver ended early:\n" + "".join(lines[-40:]))


def kill_actor() -> None:
    """SIGKILL the process of the one desk, and wait for its successor."""
    victims = [process for process in psutil.process_iter(["cmdline"]) if _is_desk(process)]
    assert len(victims) == 1
    victims[0].kill()
    eventually(lambda: not victims[0].is_running() or victims[0].status() == psutil.STATUS_ZOMBIE)


def _is_desk(process: psutil.Process) -> bool:
    try:
        return (
            "DeskActor" in " ".join(process.cmdline())
            and process.environ().get("QISKIT_IBM_URL", "") == (os.environ["QISKIT_IBM_URL"])
        )
    except psutil.Error:
        return False


@pytest.mark.own_ray
def test_five_thousand_circuits_with_faults_and_kills(ibm: IbmService, driver: Start, tmp_path: Path) -> None:
    ibm.script(faults=FAULTS, endings=[{"end": "failed", "chance": 0.04, "code": 1000}])
    first = driver()
    wait_for(first, 800)
    kill_actor()
    wait_for(first, 1800)
    first.kill()
    assert first.wait(30) == -signal.SIGKILL
    second = driver()
    wait_for(second, 2600)
    kill_actor()
    output, _ = second.communicate(timeout=200)
    assert f"finished {COUNT}" in output, output[-4000:]

    result = ray_qjm.TaskResult.open(tmp_path / "store")
    assert result.status_counts == {"done": COUNT}, result.report()
    for index, counts in enumerate(result.get_counts()):
        assert counts == {format(index % 32, "05b"): SHOTS}

    state = ibm.state()
    assert state["peak_pending"] <= PENDING and not state["violations"]
    # A circuit ran to its end once; more often only in jobs that failed, or that were cancelled as twins.
    ended = {event["job"]: event["state"] for event in ibm.journal("state")}
    wasted = Counter[str]()
    for event in ibm.journal("accepted"):
        if ended[event["job"]] != "Completed":
            wasted.update(str(circuit["marker"]) for circuit in event["circuits"])
    more = Counter(state["runs"]) - Counter({str(index): 1 for index in range(COUNT)})
    assert more <= wasted
    assert sum(event["state"] == "Completed" for event in ibm.journal("state")) * 100 >= COUNT


@pytest.mark.own_ray
def test_objects_of_the_client_go_in_and_their_token_goes_nowhere(
    ibm: IbmService, cluster: Any, driver: Start, tmp_path: Path
) -> None:
    output, _ = driver("tests.faults.ibm_objects").communicate(timeout=200)
    said = [line for line in output.splitlines() if line.endswith("right 1")]
    assert [line.split()[0] for line in said] == ["name", "backend", "batch", "session"], output[-4000:]
    sessions = {event["program"]: event["session"] for event in ibm.journal("accepted")}
    assert set(sessions) == {"executor", "sampler"} and sessions["sampler"] is not None

    token = ibm.environment()["QISKIT_IBM_TOKEN"].encode()
    places = [tmp_path / "store", tmp_path / "state", Path(cluster.head_node.get_session_dir_path()) / "logs"]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert len(files) > 10 and [path for path in files if token in path.read_bytes()] == []
