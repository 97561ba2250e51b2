"""What the tests of services and kills share: drivers, a cluster that outlives them, and the service."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import psutil

from ray_qjm import BackendSpec, Limits, Quota
from ray_qjm.cluster.desk_state import VARIABLE
from tests.faults.conftest import ROOT, eventually
from tests.faults.service_driver import Errand
from tests.services.hosted import Connect
from tests.services.process import ServiceProcess, Story


class ServiceDriver:
    """A process that runs ``tests.faults.service_driver``.

    Args:
        errand: What it does.
        state: Where its desk keeps its journal.
        environment: More variables; without an address it starts a Ray of its own.
    """

    def __init__(self, errand: Errand, state: Path, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.service_driver"],
            cwd=ROOT,
            env={
                **os.environ,
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_ADDRESS": "local",
                VARIABLE: str(state),
                **environment,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(cloudpickle.dumps(errand))
        self.process.stdin.close()
        self.process.stdin = None

    def kill(self, *, group: bool) -> None:
        """SIGKILL, and proof that it died of it."""
        if group:
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        assert self.process.wait(30) == -signal.SIGKILL
        self.close()

    def finish(self, timeout: float = 120) -> str:
        """All that it said, once it has ended well."""
        out, _ = self.process.communicate(timeout=timeout)
        assert self.process.returncode == 0, out.decode()
        return out.decode()

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

    def close(self) -> None:
        """End it, if it hasn't."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)
        if self.process.stdout is not None:
            self.process.stdout.close()


class World:
    """One test's drivers, and the service that they use.

    Args:
        service: It.
        folder: For the desk's state, and stores.
        address: Of a Ray cluster that outlives drivers.
    """

    def __init__(self, service: ServiceProcess, folder: Path, address: str) -> None:
        self.service = service
        self.folder = folder
        self.address = address
        self._account = uuid.uuid4().hex
        self._drivers: list[ServiceDriver] = []

    def spec(self, connect: Any = None, **more: Any) -> BackendSpec:
        """The service as a backend; jobs of four circuits."""
        made = Connect(self.service.where) if connect is None else connect
        fields: dict[str, Any] = {
            "name": "service", "placement": "actor", "account": self._account, "limits": Limits(max_circuits=4),
            "quota": Quota(max_pending=3), **more,
        }  # fmt: skip
        return BackendSpec(made, **fields)

    def start(self, errand: Errand, *, own_ray: bool = False) -> ServiceDriver:
        """Start a driver."""
        environment = {} if own_ray else {"RAY_ADDRESS": self.address}
        driver = ServiceDriver(errand, self.folder / "state", **environment)
        self._drivers.append(driver)
        return driver

    def until(self, what: Callable[[Story], Any], least: int = 1) -> Story:
        """Wait until the service's journal says something, or so much; a driver may not fail meanwhile."""

        def true(story: Story) -> bool:
            for driver in self._drivers:
                if driver.process.poll() not in (None, 0, -signal.SIGKILL):
                    raise AssertionError(driver.finish())
            return int(what(story) or 0) >= least

        return self.service.until(true)

    def kill_desk(self) -> None:
        """SIGKILL the process that submits, and see that it is dead."""
        kill(self.service.story().senders[-1].pid)

    def close(self) -> None:
        """End the drivers."""
        for driver in self._drivers:
            driver.close()


def kill(pid: int) -> None:
    """SIGKILL, and proof."""
    try:
        process = psutil.Process(pid)
        process.kill()
    except psutil.NoSuchProcess:
        return
    eventually(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


@contextmanager
def world(service: ServiceProcess, folder: Path, address: str) -> Iterator[World]:
    """A world, and its end."""
    found = World(service, folder, address)
    try:
        yield found
    finally:
        found.close()


def check_nothing_twice(story: Story, count: int, check: Callable[[int], bool] = lambda index: True) -> None:
    """Every circuit was in one job, and that one is done; what is beside is a twin and was cancelled."""
    for index in filter(check, range(count)):
        jobs = story.runs_of(f"c{index}")
        assert [job.state for job in jobs if not job.twin] == ["done"], (index, jobs)
    assert story.open == [] and story.violations == [] and story.refused == {}
