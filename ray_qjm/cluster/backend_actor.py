"""The actor of a desk: the one process of the cluster that submits the jobs of an account."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cloudpickle
import ray

from ray_qjm.backends.base import Adapter, Facts, FetchFailed, Submission
from ray_qjm.backends.desk import CLIENT_S, Desk
from ray_qjm.backends.desk_messages import Client, Request, Told
from ray_qjm.cluster.desk_state import LEASE_S, DeskState
from ray_qjm.cluster.measuring import DeskMeasures
from ray_qjm.cluster.messages import StoreSetup
from ray_qjm.cluster.metrics import label
from ray_qjm.cluster.pieces import Pieces
from ray_qjm.errors import BackendLoadError, InvalidInputError
from ray_qjm.options import Quota, RetryPolicy
from ray_qjm.planning.orders import Run
from ray_qjm.planning.quota import Cost
from ray_qjm.planning.verdicts import Verdict
from ray_qjm.results.lease import epoch_name
from ray_qjm.results.submissions import SUBMISSIONS, SubmissionLog, submissions

#: All desks of a cluster are in it, so that drivers meet there.
NAMESPACE = "ray_qjm"
#: What driver and actor say to each other; another number is another version of this package.
PROTOCOL = 3
#: Drivers that can wait for news at once.
_WAITERS = 64

_pieces = Pieces(ray.get)


@dataclass(frozen=True)
class Patience:
    """What a desk waits for, in seconds.

    Attributes:
        client_s: A driver that asked for nothing for so long is dead.
        idle_s: A desk with nobody to work for ends after so long.
        lease_s: See ``DeskState``.
    """

    client_s: float = CLIENT_S
    idle_s: float = 300.0
    lease_s: float = LEASE_S


@dataclass(frozen=True)
class Counter:
    """A backend of a desk.

    Attributes:
        key: What the desk calls it.
        adapter: Pickled, from ``cloudpickle``: makes the ``Adapter``. May hold credentials: never logged or stored.
        polls: The least and the most seconds between two polls.
    """

    key: str
    adapter: bytes = field(repr=False)
    polls: tuple[float, float]


@dataclass(frozen=True)
class JobMessage:
    """A job that a driver wants submitted, on its way to the actor.

    Attributes:
        tag: See ``backends.desk_messages.Request``; so for ``cost``, ``timeout_s``, ``note``, ``job_id`` and ``past``.
        counter: Which backend.
        runs: The circuits.
        pieces: Rows ``[start, stop)`` and a list with the reference to their circuits: in a list, so that Ray
            doesn't fetch them before there is a permit. Empty for a job that was sent before.
        memory: Whether single shots are wanted.
        seed: For a simulator behind the service.
    """

    tag: str
    counter: str
    cost: Cost
    retry: RetryPolicy
    timeout_s: float | None
    note: Mapping[str, Any]
    runs: tuple[Run, ...]
    pieces: tuple[tuple[int, int, list[Any]], ...]
    memory: bool = False
    seed: int | None = None
    job_id: str | None = None
    past: tuple[str, ...] = ()

    def request(self, longest_call_s: float) -> Request:
        """For a desk no call of which may take longer."""
        return Request(
            self.tag,
            self.counter,
            self.cost,
            replace(self.retry, call_s=min(self.retry.call_s, longest_call_s)),
            self.timeout_s,
            self.note,
            self._submission if self.pieces else None,
            self.job_id,
            self.past,
        )

    def _submission(self) -> Submission:
        circuits: dict[int, Any] = {}
        for start, stop, reference in self.pieces:
            mine = sum(max(0, min(run.stop, stop) - max(run.start, start)) for run in self.runs)
            found = _pieces.circuits(reference[0], keep=mine < stop - start)
            circuits.update(zip(range(start, stop), found, strict=True))
        cells = [(circuits[index], run.shots) for run in self.runs for index in range(run.start, run.stop)]
        return Submission(
            [circuit for circuit, _ in cells], [shots for _, shots in cells], self.tag, self.memory, self.seed
        )


class DeskHost:
    """A desk with its state on disk; ``BackendActor`` is this class as a Ray actor.

    Args:
        name: The desk's.
        quota: Of the account.
        root: Where desks keep their journals.
        call_s: The longest that one submission may take.
        patience: What it waits for.
        account: What people call the account.
    """

    def __init__(
        self,
        name: str,
        quota: Quota,
        root: str,
        call_s: float,
        patience: Patience | None = None,
        account: str = "",
    ) -> None:
        self._name = name
        self._account = account or name
        self._patience = patience = Patience() if patience is None else patience
        self._state = DeskState(root, name, call_s, patience.lease_s)
        self._desk = Desk(
            quota,
            self._state.log,
            self._state,
            self._state.before,
            client_s=patience.client_s,
            watch=DeskMeasures(self._account).see,
        )
        #: Held by who comes in: two with different quotas must not both find nobody here.
        self._door = threading.Lock()
        self._closing = threading.Event()
        threading.Thread(target=self._end_when_idle, name="ray_qjm idle", daemon=True).start()

    def __repr__(self) -> str:
        """What Ray's dashboard calls the actor."""
        return f"desk of {label(self._account)}"

    def hello(self, quota: Quota) -> tuple[int, str, Quota]:
        """Protocol, incarnation and the quota that holds: the one that is asked for, unless another is in use."""
        with self._door:
            return PROTOCOL, self._desk.incarnation, self._desk.take_quota(quota)

    def open(self, counter: Counter) -> Facts:
        """Make sure that a backend is here.

        Raises:
            BackendLoadError: It can't be made, in the words of whoever refused.
        """

        def make() -> Adapter:
            found: Adapter = cloudpickle.loads(counter.adapter)()
            return found

        try:
            return self._desk.open(counter.key, make, counter.polls).facts()
        except BackendLoadError:
            raise
        except Exception as error:
            raise BackendLoadError(f"it can't be reached: {type(error).__name__}: {error}") from None

    def join(self, client: str, store: StoreSetup | None, quota: Quota) -> None:
        """A task is there, perhaps again.

        Raises:
            InvalidInputError: Somebody else has come in between, with another quota.
        """
        # Reading a store takes a while, in which somebody else may come in.
        known = Client(client) if store is None else self._with_store(client, store)
        with self._door:
            if self._desk.take_quota(quota) != quota:
                raise InvalidInputError(f"the quota is {self._desk.quota} by now, and this task has {quota}.")
            self._desk.hello(known)

    def _with_store(self, client: str, store: StoreSetup) -> Client:
        objects = store.objects
        folder = f"{SUBMISSIONS}/{store.epoch:09}"

        def may_send() -> bool:
            return objects.read(epoch_name(store.epoch + 1)) is None

        log = SubmissionLog(objects, f"{folder}/{self._desk.incarnation}")
        return Client(client, log, may_send, submissions(objects, folder))

    def enqueue(self, client: str, jobs: Sequence[JobMessage]) -> None:
        """Jobs to be submitted."""
        most = self._state.longest_call_s
        self._desk.enqueue(client, [job.request(most) for job in jobs])

    def events(self, client: str, after: int, timeout: float) -> tuple[int, list[Told]] | None:
        """See ``Desk.events``."""
        return self._desk.events(client, after, timeout)

    def fetch(self, tag: str) -> tuple[FetchFailed | None, Any]:
        """Why there is no result, if so; and the result, see ``Desk.fetch``."""
        found = self._desk.fetch(tag)
        return (found, None) if isinstance(found, FetchFailed) else (None, found)

    def cancel(self, tags: Sequence[str], verdict: Verdict) -> None:
        """See ``Desk.cancel``."""
        self._desk.cancel(tags, verdict)

    def withdraw(self, tags: Sequence[str], verdict: Verdict) -> None:
        """See ``Desk.withdraw``."""
        self._desk.withdraw(tags, verdict)

    def forget(self, tags: Sequence[str]) -> None:
        """See ``Desk.forget``."""
        self._desk.forget(tags)

    def bye(self, client: str) -> None:
        """See ``Desk.bye``."""
        self._desk.bye(client)

    def state(self) -> dict[str, Any]:
        """See ``Desk.state``."""
        return self._desk.state()

    def _end_when_idle(self) -> None:
        idle = 0.0
        every = min(10.0, self._patience.idle_s / 4)
        while not self._closing.wait(every):
            idle = idle + every if self._desk.idle() else 0.0
            if idle >= self._patience.idle_s:
                self._desk.close()
                self._state.close()
                # Ray would start it again if it just ended.
                ray.kill(ray.get_actor(self._name, NAMESPACE), no_restart=True)


def _method(group: str, returns: int = 1) -> Callable[[Any], Any]:
    decorate: Callable[[Any], Any] = ray.method(concurrency_group=group, num_returns=returns)
    return decorate


class DeskActor(DeskHost):
    """Calls that wait must not keep others from being heard."""

    events = _method("wait")(DeskHost.events)
    fetch = _method("fetch", 2)(DeskHost.fetch)


_as_actor: Any = ray.remote(concurrency_groups={"wait": _WAITERS, "fetch": 8})  # type: ignore[call-overload]
BackendActor: Any = _as_actor(DeskActor)


def desk_name(identity: str) -> str:
    """The name of the actor and of its directory: tells accounts apart, and nothing about them."""
    return f"desk-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


logging.getLogger("ray_qjm").addHandler(logging.NullHandler())
