"""The scripted service in a process of its own, on the real clock: it outlives whoever submits to it.

It gets real circuits and reads them itself: what comes back is what a circuit says, and each circuit's name stands in
the journal as often as it was run.
"""

from __future__ import annotations

import itertools
import secrets
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qiskit import QuantumCircuit

from ray_qjm.circuits.payload import from_qpy
from ray_qjm.planning.errands import Seen
from tests.services.scripted import OVER, Job, Part, Request, Script, ScriptedService
from tests.services.wire import Where, serve

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Sender:
    """Who sent a job."""

    at: float
    pid: int
    tag: str


@dataclass(frozen=True)
class Story:
    """All that the service has seen."""

    jobs: Sequence[Job]
    requests: Sequence[Request]
    senders: Sequence[Sender]
    violations: Sequence[str]
    refused: Mapping[str, int]
    highest_pending: int
    pending: int
    shots_run: Counter[Hashable]

    @property
    def open(self) -> list[Job]:
        """Jobs that aren't over."""
        return [job for job in self.jobs if job.state not in OVER]

    def runs_of(self, name: str) -> list[Job]:
        """Jobs with a circuit, whatever became of them."""
        return [job for job in self.jobs if any(name in part.circuits for part in job.parts)]

    def made_within(self, seconds: float) -> int:
        """The most jobs that were made in so many seconds."""
        times = sorted(job.made_at for job in self.jobs)
        return max((sum(at <= other < at + seconds for other in times) for at in times), default=0)


def read(circuit: QuantumCircuit) -> int:
    """The outcome of a circuit that only moves and flips bits.

    Raises:
        ValueError: It does something else.
    """
    qubits = [0] * circuit.num_qubits
    found = 0
    for instruction in circuit.data:
        at = [circuit.find_bit(bit).index for bit in instruction.qubits]
        match instruction.name:
            case "x":
                qubits[at[0]] ^= 1
            case "cx":
                qubits[at[1]] ^= qubits[at[0]]
            case "swap":
                qubits[at[0]], qubits[at[1]] = qubits[at[1]], qubits[at[0]]
            case "measure":
                clbit = circuit.find_bit(instruction.clbits[0]).index
                found = found & ~(1 << clbit) | qubits[at[0]] << clbit
            case "barrier":
                continue
            case other:
                raise ValueError(f"this service can't run {other}")
    return found


class _Hosted:
    """What the process does."""

    def __init__(self) -> None:
        self._ahead_s = 0.0
        self._service = ScriptedService(self._now)
        self._outcomes: dict[str, list[tuple[str, int]]] = {}
        self._senders: list[Sender] = []
        self._lock = threading.Lock()

    def functions(self) -> dict[str, Callable[..., Any]]:
        """What may be asked, by name."""
        names = ("submit", "fetch", "begin", "change", "go_on", "story")
        service = {name: getattr(self._service, name) for name in ("find", "status", "cancel")}
        return {**service, **{name: getattr(self, name) for name in names}}

    def _now(self) -> float:
        return time.time() + self._ahead_s

    def begin(self, script: Script) -> None:
        """Behave so, from the first request on."""
        with self._lock:
            self._ahead_s = 0.0
            self._outcomes.clear()
            self._senders.clear()
            self._service.__init__(self._now, script)  # type: ignore[misc]

    def change(self, fields: Mapping[str, Any]) -> None:
        """Behave otherwise from now on."""
        for name, value in fields.items():
            setattr(self._service.script, name, value)

    def go_on(self, seconds: float) -> None:
        """Let time pass at once."""
        with self._lock:
            self._ahead_s += seconds

    def submit(self, pid: int, tag: str, data: bytes, shots: Sequence[int]) -> tuple[str | Exception, float]:
        """As ``ScriptedService.submit``, of circuits in QPY."""
        circuits = from_qpy(data)
        assert circuits is not None
        with self._lock:
            self._senders.append(Sender(self._now(), pid, tag))
            self._outcomes[tag] = [
                (hex(read(circuit)), n) for circuit, n in zip(circuits, shots, strict=True)
            ]
        parts = [
            Part([circuit.name for circuit, _ in group], n)
            for n, group in itertools.groupby(zip(circuits, shots, strict=True), key=lambda pair: pair[1])
        ]
        return self._service.submit(tag, parts, len(data))

    def fetch(self, job_id: str) -> list[tuple[str, int]]:
        """Outcome and shots of each circuit."""
        return self._outcomes[self._service.fetch(job_id).tag]

    def story(self) -> Story:
        """All that was seen."""
        service = self._service
        pending, shots_run = service.pending, service.shots_run()
        return Story(
            list(service.jobs.values()),
            list(service.requests),
            list(self._senders),
            list(service.violations),
            dict(service.refused),
            service.highest_pending,
            pending,
            shots_run,
        )


class ServiceProcess:
    """Starts the service; tests read its journal, and tell it what to do.

    Args:
        script: How it behaves.
    """

    def __init__(self, script: Script | None = None) -> None:
        key = secrets.token_hex(16)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.services.process", key],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.where = Where(int(self._process.stdout.readline()), key.encode())
        self.begin(Script() if script is None else script)

    def begin(self, script: Script) -> None:
        """Begin anew."""
        self.where.ask("begin", script)

    def change(self, **fields: Any) -> None:
        """Change fields of its script."""
        self.where.ask("change", fields)

    def go_on(self, seconds: float) -> None:
        """Let time pass at once: jobs that run so long are over."""
        self.where.ask("go_on", seconds)

    def story(self) -> Story:
        """All that it has seen."""
        found: Story = self.where.ask("story")
        return found

    def until(self, true: Callable[[Story], object], within_s: float = 60.0) -> Story:
        """Wait until its journal says something."""
        over = time.monotonic() + within_s
        while True:
            story = self.story()
            if true(story):
                return story
            assert time.monotonic() < over, f"it didn't happen; the service has seen {story}"
            time.sleep(0.02)

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


def seen(where: Where, job_ids: Sequence[str]) -> dict[str, Seen]:
    """How jobs are."""
    found: dict[str, Seen] = where.ask("status", list(job_ids))
    return found


def _main() -> None:
    def ready(port: int) -> None:
        print(port, flush=True)

    functions = _Hosted().functions()
    threading.Thread(target=serve, args=(functions, sys.argv[1].encode(), ready), daemon=True).start()
    sys.stdin.read()  # until the tests close it, or die


if __name__ == "__main__":
    # What is pickled here must be found elsewhere under the module's own name.
    from tests.services import process

    process._main()
