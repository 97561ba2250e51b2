"""One Ray for what runs in the tests' own process; drivers that are killed have theirs, or a cluster's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pyarrow as pa
import pytest
from ray.cluster_utils import Cluster

import ray_qjm
from tests.faults.driver import COUNT, call
from tests.services.process import ServiceProcess
from tests.services.scene import quick
from tests.storing import check_store, rows_of

if TYPE_CHECKING:
    from tests.faults.service_drivers import World

ROOT = Path(__file__).resolve().parents[2]


class Driver:
    """A process that runs ``tests.faults.driver``, and can be killed."""

    def __init__(self, store: Path | str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.driver", str(store)],
            cwd=ROOT,
            # A Ray of its own, unless it is told another.
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": "local", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []

    def wait_for(self, done: int) -> None:
        """Wait until so many circuits are done."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith("done ") and int(line.split()[1]) >= done:
                return
        pytest.fail("the driver ended early:\n" + "".join(self.lines[-40:]))

    def kill(self, *, group: bool) -> None:
        """SIGKILL, and proof that it died of it."""
        if group:
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        assert self.process.wait(30) == -signal.SIGKILL

    def finish(self, timeout: float = 120) -> str:
        """All that it said, once it has ended."""
        out, _ = self.process.communicate(timeout=timeout)
        return "".join(self.lines) + out

    def below(self, name: str) -> list[psutil.Process]:
        """Its processes of a name."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if name in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found


@pytest.fixture
def start() -> Iterator[Callable[..., Driver]]:
    """Starts drivers, and ends them and all that they started."""
    drivers: list[tuple[Driver, list[psutil.Process]]] = []

    def one(store: Path | str, **environment: str) -> Driver:
        driver = Driver(store, **environment)
        drivers.append((driver, []))
        return driver

    yield one
    for driver, _ in drivers:
        if driver.process.poll() is None:
            driver.process.kill()
            driver.process.wait(30)
        if driver.process.stdout is not None:
            driver.process.stdout.close()


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without CPUs and one node with two: what runs can be killed without the driver's connection."""
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield found
    found.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="session")
def undisturbed(shared_ray: None) -> pa.Table:
    """The rows of a run in memory that nothing befell."""
    return rows_of(ray_qjm.run(**call(), progress=False))


@pytest.fixture
def resumed(undisturbed: pa.Table) -> Callable[..., None]:
    """Goes on with a store in this process, and compares: row by row, no circuit twice, no stray file."""

    def go_on(store: Path | str, **more: Any) -> None:
        result = ray_qjm.run(**call(store=store) | more, progress=False)
        assert len(result) == COUNT
        assert rows_of(result).equals(undisturbed)
        assert rows_of(ray_qjm.TaskResult.open(store)).equals(undisturbed)
        check_store(Path(store), COUNT)

    return go_on


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster that outlives the drivers of a module's tests."""
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield found.address
    found.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def service_process() -> Iterator[ServiceProcess]:
    """A service in a process of its own, which outlives them too."""
    found = ServiceProcess()
    yield found
    found.close()


@pytest.fixture
def here(service_process: ServiceProcess, tmp_path: Path, address: str) -> Iterator[World]:
    """That service begun anew, and a test's drivers."""
    from tests.faults.service_drivers import world  # it knows this module

    service_process.begin(quick())
    with world(service_process, tmp_path, address) as found:
        yield found


def eventually(true: Callable[[], bool], within: float = 30) -> None:
    """Wait for something that other processes bring about."""
    until = time.monotonic() + within
    while not true():
        assert time.monotonic() < until, "it didn't happen"
        time.sleep(0.05)
