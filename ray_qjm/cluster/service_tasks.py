"""The Ray tasks that serve a service: chunks prepared, results made rows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import ray

from ray_qjm.cluster.messages import Outcome, Payload, load_setup
from ray_qjm.cluster.naming import ray_task_name
from ray_qjm.cluster.service_work import Answers, Prepared, Result, ServiceWorker, Sheet
from ray_qjm.cluster.session import Session
from ray_qjm.errors import BackendLoadError, SourceError, StoreError
from ray_qjm.options import Resources
from ray_qjm.planning.assembly import Whole
from ray_qjm.planning.events import Chunk
from ray_qjm.planning.orders import Order
from ray_qjm.results.jobs import Job

#: Tasks of which a worker process keeps what it has made.
_KEPT = 4
_workers: OrderedDict[tuple[str, int], ServiceWorker] = OrderedDict()

#: Times that Ray runs a collecting task again whose worker died: it changes nothing that it has not made itself.
_COLLECT_RETRIES = 3
#: And a preparing one; also when a node has died that had circuits or sheets in its memory, for as long as they are
#: wanted. A worker that dies of its circuits takes so many more with it before its chunk is halved.
_PREPARE_RETRIES = 2


def _worker(task: str, setup: Sequence[Any], backend: int) -> ServiceWorker:
    key = (task, backend)
    worker = _workers.get(key)
    if worker is None:
        worker = _workers[key] = ServiceWorker(load_setup(ray.get(setup[0])), backend)
        while len(_workers) > _KEPT:
            _workers.popitem(last=False)
    _workers.move_to_end(key)
    return worker


def _prepare(
    task: str, setup: Sequence[Any], chunk: Chunk, payload: Payload | None
) -> tuple[Prepared | Outcome, bytes, Sheet | None]:
    try:
        return _worker(task, setup, chunk.backend).prepare(chunk, payload)
    except (SourceError, BackendLoadError, StoreError) as error:
        return Outcome(fatal=error), b"", None


def _collect(
    task: str,
    setup: Sequence[Any],
    backend: int,
    order: Order | None,
    job_id: str,
    raw: Any,
    wholes: Sequence[Whole],
    jobs: Sequence[Job],
    sheets: int,
    *rest: Any,
) -> tuple[list[Outcome], Answers]:
    result = None if order is None else Result(order, job_id, raw)
    try:
        return _worker(task, setup, backend).collect(result, wholes, rest[:sheets], rest[sheets:], jobs)
    except (SourceError, BackendLoadError, StoreError) as error:
        return [Outcome(fatal=error) for _ in wholes], {}


_prepare_task: Any = ray.remote(num_returns=3, max_retries=_PREPARE_RETRIES)(_prepare)
_collect_task: Any = ray.remote(num_returns=2, max_retries=_COLLECT_RETRIES)(_collect)


class ServiceTasks:
    """Starts these Ray tasks for one backend of one task.

    Args:
        task: Key of what workers keep from chunk to chunk.
        setup: Reference to the pickled ``TaskSetup``, in a list.
        name: Of the backend.
        backend: Its position.
        resources: What each Ray task reserves.
        task_name: What the user called the task.
    """

    def __init__(
        self,
        task: str,
        setup: Sequence[Any],
        name: str,
        backend: int,
        resources: Resources,
        task_name: str | None = None,
    ) -> None:
        self._task = task
        self._setup = setup
        self._prepare_name = ray_task_name(f"transpile for {name}", task_name)
        self._collect_name = ray_task_name(f"collect from {name}", task_name)
        self._backend = backend
        self._options: dict[str, Any] = {"num_cpus": resources.num_cpus}
        if resources.num_gpus:
            self._options["num_gpus"] = resources.num_gpus
        self._session = Session()
        self._preparing: dict[Chunk, Any] = {}

    def prepare(
        self, chunk: Chunk, payload: Any, done: Callable[[Prepared | Outcome | BaseException, Any, Any], None]
    ) -> None:
        """Prepare a chunk; ``done`` gets what the driver is told and references to circuits and sheet."""
        self._session.check()
        told, data, sheet = _prepare_task.options(name=self._prepare_name, **self._options).remote(
            self._task, self._setup, chunk, payload
        )
        self._preparing[chunk] = told

        def prepared(answer: Any) -> None:
            self._preparing.pop(chunk, None)
            done(answer, data, sheet)

        watch(told, prepared)

    def cancel(self) -> None:
        """End what is being prepared, processes included: each chunk's ``done`` is called all the same."""
        self._session.check()
        for reference in list(self._preparing.values()):
            ray.cancel(reference, force=True)

    def collect(
        self,
        order: Order | None,
        job_id: str,
        raw: Any,
        wholes: Sequence[Whole],
        jobs: Sequence[Job],
        sheets: Sequence[Any],
        before: Sequence[Any],
        done: Callable[[list[Outcome] | BaseException], None],
    ) -> Any:
        """Make rows; ``done`` gets the outcomes. Returns the reference to answers for chunks that aren't whole."""
        self._session.check()
        outcomes, answers = _collect_task.options(name=self._collect_name, **self._options).remote(
            self._task,
            self._setup,
            self._backend,
            order,
            job_id,
            raw,
            list(wholes),
            list(jobs),
            len(sheets),
            *sheets,
            *before,
        )
        watch(outcomes, done)
        return answers


def watch(reference: Any, done: Callable[[Any], None]) -> None:
    """Call ``done`` with the value of a reference, or its error, once it is there; from a thread of Ray's."""

    def call(future: Future[Any]) -> None:
        error = future.exception()
        done(future.result() if error is None else error)

    reference.future().add_done_callback(call)
