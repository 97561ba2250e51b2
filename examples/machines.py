"""Machines of a Ray cluster, each a family of processes on this one: to rehearse what happens on many."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

import psutil

RAY = Path(sysconfig.get_path("scripts")) / "ray"
#: Seconds for a machine to start, and to end when it is asked to before it is killed.
_START_S = 90.0
_STOP_S = 5.0
#: What Ray says when it has started.
_STARTED = "Ray runtime started"
#: Bytes of each object store: little passes through it.
_OBJECTS = 150_000_000
_HERE = "127.0.0.1"
_VARIABLES = {
    # Ray's own default for `ray start` depends on its version, and on whether there is a token.
    "RAY_AUTH_MODE": "token",
    # Ray asks nodes every 3 s whether they live, and takes one for dead that doesn't answer five times; until then it
    # may hold up what it means to start there.
    "RAY_health_check_period_ms": "1000",
}


class Machine:
    """A node of Ray, as ``ray start`` makes it.

    Args:
        name: For people.
        folder: For its log.
        arguments: Of ``ray start``.
    """

    def __init__(self, name: str, folder: Path, *arguments: str) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    str(RAY), "start", "--block", "--disable-usage-stats", f"--node-ip-address={_HERE}",
                    f"--object-store-memory={_OBJECTS}",
                    # Several nodes on one machine: Ray's usual ports are there once.
                    "--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0", *arguments,
                ],
                env={**_environment(), **_VARIABLES},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    def wait(self) -> None:
        """Wait until it has started.

        Raises:
            RuntimeError: It hasn't, with the end of what it said.
        """
        until = time.monotonic() + _START_S
        while _STARTED not in (said := self._log.read_text(errors="replace")):
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{self.name} didn't start: ... {said.strip()[-2000:]}")
            time.sleep(0.1)

    def kill(self) -> int:
        """SIGKILL to all its processes, as if a machine's power were cut; tells how many there were."""
        family = self._family()
        # Held first, the eldest before those that it might start again: none sees another die.
        for act in (psutil.Process.suspend, psutil.Process.kill):
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    act(process)
        psutil.wait_procs(family, _STOP_S)
        self.process.wait()
        return len(family)

    def stop(self) -> None:
        """Let Ray end its processes; kill what doesn't."""
        family = self._family()
        self.process.terminate()
        _, alive = psutil.wait_procs(family, _STOP_S)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def _family(self) -> list[psutil.Process]:
        try:
            eldest = psutil.Process(self.process.pid)
            return [eldest, *eldest.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


class Machines:
    """A cluster: a head without CPUs for Ray tasks, and nodes. A context manager, which ends all of it.

    Token authentication is on, with the token of this user (``~/.ray/auth_token``, made if there is none).
    Ray's note of where a cluster is, which ``ray.init()`` reads, isn't touched.

    Args:
        nodes: How many.
        cpus: Of each node.
        dashboard: Whether to start Ray's.
    """

    def __init__(self, nodes: int = 2, cpus: int = 1, *, dashboard: bool = True) -> None:
        self._count = nodes
        self._cpus = cpus
        self._with_dashboard = dashboard
        self._ends = ExitStack()
        port, self._dashboard_port, self._client_port = _free_ports(3)
        self.address = f"{_HERE}:{port}"
        self.dashboard = f"http://{_HERE}:{self._dashboard_port}" if dashboard else None
        self.nodes: list[Machine] = []

    def __enter__(self) -> Machines:
        with ExitStack() as ends:
            # Not in TMPDIR: the names of Ray's sockets may have 107 characters.
            folder = Path(tempfile.mkdtemp(prefix="qjm-", dir="/tmp"))
            ends.callback(shutil.rmtree, folder, ignore_errors=True)
            # It prints the token, and would let everybody on this machine read the file.
            subprocess.run(
                [RAY, "get-auth-token", "--generate"], check=True, capture_output=True, umask=0o077
            )
            self.head = Machine(
                "head", folder, "--head", f"--port={self.address.rpartition(':')[2]}", "--num-cpus=0",
                f"--temp-dir={folder / 'ray'}", f"--ray-client-server-port={self._client_port}",
                f"--include-dashboard={self._with_dashboard}", f"--dashboard-host={_HERE}",
                f"--dashboard-port={self._dashboard_port}",
            )  # fmt: skip
            ends.callback(self.head.stop)
            self.head.wait()
            for number in range(self._count):
                node = Machine(
                    f"node-{number + 1}", folder, f"--address={self.address}", f"--num-cpus={self._cpus}"
                )
                self.nodes.append(node)
                ends.callback(node.stop)
                node.wait()
            self._ends = ends.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes:  # all at once: each takes seconds
            node.process.terminate()
        self._ends.close()


def _environment() -> dict[str, str]:
    """This process's, without what leads to another cluster."""
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens at now."""
    with ExitStack() as open_:
        found = []
        for _ in range(count):
            listener = open_.enter_context(socket.socket())
            listener.bind((_HERE, 0))
            found.append(int(listener.getsockname()[1]))
        return found
