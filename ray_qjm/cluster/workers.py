"""The remote function that runs chunks, and what starts it from the driver."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import ray

from ray_qjm.cluster.chunk_work import ChunkWorker
from ray_qjm.cluster.launcher import Done
from ray_qjm.cluster.messages import Outcome, Payload, load_setup
from ray_qjm.cluster.naming import ray_task_name
from ray_qjm.cluster.session import Session
from ray_qjm.errors import BackendLoadError, InvalidInputError, SourceError, StoreError
from ray_qjm.options import Resources
from ray_qjm.planning.events import Chunk

#: Tasks whose sources and backends a worker process keeps: a driver that runs one task after the other, or a
#: few at a time, must not have them loaded again for each chunk.
_KEPT = 4

_workers: OrderedDict[tuple[str, int], ChunkWorker] = OrderedDict()


def _run_chunk(
    task: str, setup: Sequence[Any], chunk: Chunk, payload: Payload | None, largest: int | None
) -> Outcome:
    """Run a chunk in this process.

    Args:
        task: Key of what is kept from chunk to chunk.
        setup: Reference to the pickled ``TaskSetup``, in a list so that Ray fetches it only when asked.
        chunk: Which circuits.
        payload: They themselves, unless the source builds them here.
        largest: As for ``ChunkWorker.run``.
    """
    key = (task, chunk.backend)
    try:
        worker = _workers.get(key)
        if worker is None:
            worker = _workers[key] = ChunkWorker(load_setup(ray.get(setup[0])), chunk.backend)
            while len(_workers) > _KEPT:
                _workers.popitem(last=False)
        _workers.move_to_end(key)
        return worker.run(chunk, payload, largest)
    except (SourceError, BackendLoadError, StoreError) as error:
        return Outcome(fatal=error)


# No retries by Ray: after a crash the schedule decides, and halves.
_simulate = ray.remote(max_retries=0)(_run_chunk)


class RayLauncher:
    """Starts chunks as Ray tasks.

    Args:
        task: Key of what workers keep from chunk to chunk.
        setup: Reference to what its workers need, from ``messages.pack_setup``, in a list.
        backends: Name of each backend, and what a chunk on it reserves.
        only_here: Whether the cluster is this machine's own and won't grow.
        name: What the user called the task.

    Raises:
        InvalidInputError: No node has the resources that a backend asks for.
    """

    def __init__(
        self,
        task: str,
        setup: Sequence[Any],
        backends: Sequence[tuple[str, Resources]],
        *,
        only_here: bool,
        name: str | None = None,
    ) -> None:
        self._task = task
        self._specs = list(backends)
        self._only_here = only_here
        self._names = [ray_task_name(f"simulate on {backend}", name) for backend, _ in backends]
        self._setup = setup
        self._session = Session()
        self._running: dict[Chunk, Any] = {}
        self._largest: dict[int, int | None] = {}
        self.slots()

    def slots(self) -> list[int]:
        """For each backend how many of its Ray tasks the cluster can run at once.

        Raises:
            InvalidInputError: None, and no node will come.
        """
        self._session.check()
        known: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        nodes = [node["Resources"] for node in known if node["Alive"]]
        found = []
        for backend, (name, resources) in enumerate(self._specs):
            wanted = {"CPU": resources.num_cpus, "GPU": resources.num_gpus}
            able = [
                node for node in nodes if all(node.get(kind, 0) >= amount for kind, amount in wanted.items())
            ]
            self._largest[backend] = max((int(node.get("memory", 0)) for node in able), default=None)
            wanted["memory"] = resources.memory_bytes or 0
            slots = sum(
                min(math.floor(node.get(kind, 0) / amount) for kind, amount in wanted.items() if amount)
                for node in nodes
            )
            if slots == 0 and self._only_here:
                have = (
                    ", ".join(f"{kind} {nodes[0].get(kind, 0):g}" for kind in wanted) if nodes else "nothing"
                )
                asked = ", ".join(f"{kind} {amount:g}" for kind, amount in wanted.items() if amount)
                raise InvalidInputError(
                    f"backend {name} asks for {asked} a chunk, and this machine has {have}."
                )
            # On a cluster that can grow one waiting Ray task tells the autoscaler what is wanted.
            found.append(max(1, slots))
        return found

    def start(self, chunk: Chunk, payload: Any, done: Done) -> None:
        """Submit a chunk; ``done`` is called from a thread of Ray's."""
        self._session.check()
        resources = self._specs[chunk.backend][1]
        options: dict[str, Any] = {"name": self._names[chunk.backend], "num_cpus": resources.num_cpus}
        if resources.num_gpus:
            options["num_gpus"] = resources.num_gpus
        if memory := max(chunk.memory, resources.memory_bytes or 0):
            options["memory"] = memory
        reference = _simulate.options(**options).remote(
            self._task, self._setup, chunk, payload, self._largest.get(chunk.backend)
        )
        self._running[chunk] = reference

        def call_back(future: Future[Outcome]) -> None:
            self._running.pop(chunk, None)
            error = future.exception()
            done(future.result() if error is None else error)

        reference.future().add_done_callback(call_back)

    def put(self, payload: Payload) -> Any:
        """Keep a payload in Ray's object store, for ``start``."""
        self._session.check()
        return ray.put(payload)

    def cancel(self) -> None:
        """End what is in flight, processes included: each chunk's ``done`` is called all the same."""
        self._session.check()
        for reference in list(self._running.values()):
            ray.cancel(reference, force=True)
