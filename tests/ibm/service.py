"""A service on loopback to which the unmodified `qiskit-ibm-runtime` client talks.

    with IbmService(pending_cap=3, faults=[{"on": "POST /jobs", "nth": [0], "status": 502, "when": "after"}]) as ibm:
        service = QiskitRuntimeService(**ibm.account())    # with ibm.environment() in os.environ
        ...
        assert ibm.state()["peak_pending"] <= 3

It is a process of its own: `python -m tests.ibm.service --script file.json` prints its port and ends when its standard
input does. Qiskit is imported there by the main thread: Qiskit 2.6 crashes in any thread once the one that imported it
has ended. Settings are those of `tests.ibm.script.Script`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

from tests.ibm.http import serve
from tests.ibm.routes import API
from tests.ibm.script import Script

ROOT = Path(__file__).parents[2]
DIRECT = build_opener(ProxyHandler({}))

Event = dict[str, Any]


class IbmService:
    """Starts the service's process, tells clients how to reach it, and reads its journal.

    Args:
        settings: Fields of `Script`; faults and endings as those classes or as dictionaries.
    """

    def __init__(self, **settings: Any) -> None:
        self._settings = _plain(settings)
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def __enter__(self) -> IbmService:
        Script().changed(self._settings)  # a wrong setting raises here, not over there
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.ibm.service"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline()
        if not port:
            self.close()
            raise RuntimeError("the service's process ended at once; its standard error says why")
        self.url = f"http://127.0.0.1:{int(port)}"
        self.reset(**self._settings)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.close()
            process.wait(timeout=30)
            process.stdout.close()

    # For clients

    @property
    def api_url(self) -> str:
        """What `QiskitRuntimeService` takes as `url`; with "experimental" in it, it is used as it stands."""
        return f"{self.url}{API}"

    def environment(self) -> dict[str, str]:
        """Variables by which a client, in this or any other process, finds this service and no other."""
        script = self._script()
        return {
            "IAM_URL": self.url,
            "GLOBAL_SEARCH_URL": self.url,
            "GLOBAL_CATALOG_URL": f"{self.url}/catalog/api/v1",
            "RESOURCE_CONTROLLER_URL": self.url,
            "QISKIT_IBM_URL": self.api_url,
            "QISKIT_IBM_TOKEN": script.api_keys[0],
            "QISKIT_IBM_INSTANCE": script.instances[0],
            "QISKIT_IBM_CHANNEL": "ibm_quantum_platform",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def account(self) -> dict[str, str]:
        """Arguments of `QiskitRuntimeService`. The variables are needed all the same, for identity and search."""
        script = self._script()
        return {
            "channel": "ibm_quantum_platform",
            "token": script.api_keys[0],
            "url": self.api_url,
            "instance": script.instances[0],
        }

    # For tests

    def script(self, **changes: Any) -> None:
        """Change settings from now on. New faults and endings begin to count anew."""
        plain = _plain(changes)
        script = self._script().changed(plain)
        self._ask("POST", "script", plain)
        self._settings = asdict(script)

    def reset(self, **settings: Any) -> None:
        """Forget all jobs, sessions and the journal, and go on with these settings alone."""
        plain = _plain(settings)
        Script().changed(plain)
        self._ask("POST", "reset", plain)
        self._settings = plain

    def journal(self, kind: str | None = None) -> list[Event]:
        """What happened so far: kinds are request, accepted, state, late, violation and broken."""
        return [event for event in self._events(0, 0.0) if kind is None or event["kind"] == kind]

    def state(self) -> dict[str, Any]:
        """Where it stands: jobs, pending, peak_pending, peak_running, violations, requests by route, and `runs`.

        `runs` says how many times each circuit began to run, by its marker or else its name.
        """
        told: dict[str, Any] = self._ask("GET", "state")
        return told

    def wait_for(self, is_it: Callable[[Event], bool], timeout_s: float = 30.0) -> Event:
        """Wait for an event, among those that are in the journal already and those to come."""
        deadline, number = time.monotonic() + timeout_s, 0
        while time.monotonic() < deadline:
            for event in self._events(number, min(5.0, timeout_s)):
                number = event["n"] + 1
                if is_it(event):
                    return event
        raise TimeoutError(f"no such event in {timeout_s} s; the last ones: {self.journal()[-5:]}")

    def wait_for_state(self, state: str, job: str | None = None, timeout_s: float = 30.0) -> Event:
        """Wait until a job is, or was, in this state."""

        def is_it(event: Event) -> bool:
            return event["kind"] == "state" and event["state"] == state and job in (None, event["job"])

        return self.wait_for(is_it, timeout_s)

    def _script(self) -> Script:
        return Script().changed(self._settings)

    def _events(self, since: int, timeout_s: float) -> list[Event]:
        events: list[Event] = self._ask(
            "GET", f"journal?{urlencode({'since': since, 'timeout_s': timeout_s})}"
        )
        return events

    def _ask(self, method: str, what: str, content: Any = None) -> Any:
        body = None if content is None else json.dumps(content).encode()
        request = Request(f"{self.url}/admin/{what}", data=body, method=method)
        with DIRECT.open(request, timeout=60) as reply:
            return json.loads(reply.read() or b"null")


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON has them."""

    def plain(value: Any) -> Any:
        if is_dataclass(value) and not isinstance(value, type):
            return asdict(value)
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    return {name: plain(value) for name, value in settings.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--script", type=Path, help="settings as JSON")
    given = parser.parse_args()
    settings = {} if given.script is None else json.loads(given.script.read_text())
    server, service = serve(Script().changed(settings))
    print(server.server_address[1], flush=True)
    sys.stdin.read()  # until the tests close it, or die
    service.close()
    server.shutdown()
    server.server_close()


if __name__ == "__main__":
    main()
