"""What runs the chunks of a task: Ray tasks on workers, or lines of work at services."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ray_qjm.cluster.messages import Outcome, Payload
from ray_qjm.planning.events import Chunk

if TYPE_CHECKING:
    from ray_qjm.cluster.service_line import ServiceLine
    from ray_qjm.results.jobs import Job

#: What is called once a chunk ended: its outcome, or why there is none.
Done = Callable[[Outcome | BaseException], None]


class Launcher(Protocol):
    """Runs chunks on workers: ``workers.RayLauncher``, or a benchmark's."""

    def slots(self) -> list[int]:
        """Chunks that can run at once, for each backend."""

    def start(self, chunk: Chunk, payload: Any, done: Done) -> None:
        """Submit a chunk; ``done`` may be called from any thread."""

    def put(self, payload: Payload) -> Any:
        """Keep a payload for ``start``."""

    def cancel(self) -> None:
        """End what is in flight on workers, processes included; each chunk's ``done`` is called all the same."""


class Launchers:
    """Runs chunks wherever their backends are: on workers, or at services.

    Args:
        workers: Runs chunks on workers; counts the slots of all backends.
        lines: Those of services, by the backend's position.
    """

    def __init__(self, workers: Launcher, lines: Mapping[int, ServiceLine]) -> None:
        self._workers = workers
        self._lines = lines

    def slots(self) -> list[int]:
        """See ``Launcher``."""
        found = self._workers.slots()
        for backend, line in self._lines.items():
            line.room(found[backend])
        return found

    def start(self, chunk: Chunk, payload: Any, done: Done) -> None:
        """See ``Launcher``."""
        line = self._lines.get(chunk.backend)
        (self._workers if line is None else line).start(chunk, payload, done)

    def put(self, payload: Payload) -> Any:
        """See ``Launcher``."""
        return self._workers.put(payload)

    def cancel(self) -> None:
        """See ``Launcher``; what workers prepare for services ends too, jobs don't."""
        self._workers.cancel()
        for line in self._lines.values():
            line.hurry()

    def is_service(self, backend: int) -> bool:
        """Whether chunks of a backend are in jobs that are noted as such."""
        return backend in self._lines

    def withdraw(self, backend: int, start: int, stop: int) -> None:
        """Circuits won't come any more: they have failed."""
        if backend in self._lines:
            self._lines[backend].withdraw(start, stop)

    def drained(self, backend: int) -> None:
        """A service gets nothing more for now."""
        self._lines[backend].drained()

    def stop(self) -> None:
        """Cancel what is at services; their chunks' ``done`` is called as they say so."""
        for line in self._lines.values():
            line.stop()

    def leave(self) -> None:
        """Leave what is at services there; their chunks' ``done`` is called at once."""
        for line in self._lines.values():
            line.leave()

    def abandon(self) -> None:
        """Wait for services no more."""
        for line in self._lines.values():
            line.abandon()

    def close(self) -> None:
        """Nothing will be started any more."""
        for line in self._lines.values():
            line.close()

    def left(self) -> Mapping[str, float]:
        """What is left of the task's budget, of all that has a limit."""
        return next((line.left() for line in self._lines.values()), {})

    def stand(self) -> dict[int, dict[str, Any]]:
        """Of each service, jobs pending and queued, position and ETA."""
        return {backend: line.stand() for backend, line in self._lines.items()}

    def open_jobs(self) -> list[Job]:
        """Of services, jobs that haven't ended, or whose end the task's table may not have yet."""
        return [job for line in self._lines.values() for job in line.open_jobs()]
