"""A driver's end of the wire to a desk: found or started, spoken to again after it was restarted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError, RayTaskError

from ray_qjm.backends.base import Facts
from ray_qjm.backends.codes import words
from ray_qjm.backends.desk_messages import Told
from ray_qjm.cluster.backend_actor import (
    NAMESPACE,
    PROTOCOL,
    BackendActor,
    Counter,
    JobMessage,
    Patience,
    desk_name,
)
from ray_qjm.cluster.desk_state import state_is_shared
from ray_qjm.cluster.messages import StoreSetup
from ray_qjm.cluster.session import Session
from ray_qjm.errors import BackendLoadError, DeskGoneError, InvalidInputError, TaskFailedError
from ray_qjm.options import Quota
from ray_qjm.planning.verdicts import Verdict

#: Seconds that a call for news waits for some.
_NEWS_S = 10.0
#: Seconds to wait for an actor that starts, or takes over from one that was held up.
_START_S = 300.0
#: Seconds for a call that only puts something into the desk's queue.
_CALL_S = 60.0
#: Seconds without an answer after which a desk is given up.
_SILENT_S = 600.0
#: How often a thread that waits for Ray makes sure that it is still there.
_CHECK_S = 0.5
#: A part of what Ray gives the node that its cluster can't live without: the journals of desks are on its disk, and a
#: desk that is started anew finds what the one before it has written.
_HEAD = {"node:__internal_head__": 0.001}
#: Times that a desk is started which ends just as it is spoken to: nobody used it.
_STARTS = 3
#: What desks wait for that are started from here.
PATIENCE = Patience()

_log = logging.getLogger(__name__)


class DeskLink:
    """Speaks to the desk of an account for one task.

    Args:
        identity: Of the account, see ``desk_name``.
        account: What people call it.
        quota: Of the account.
        root: Where desks keep their journals.
        call_s: See ``RetryPolicy``.
        label: What metrics and Ray's dashboard call the account.

    Raises:
        InvalidInputError: The desk runs with another quota.
        TaskFailedError: It can't be started.
    """

    def __init__(
        self, identity: str, account: str, quota: Quota, *, root: str, call_s: float, label: str = ""
    ) -> None:
        self._name = desk_name(identity)
        self._account = account
        self._quota = quota
        self._start_args = (self._name, quota, root, call_s, PATIENCE, label or account)
        self._session = Session()
        self._counters: dict[str, Counter] = {}
        self._client: tuple[str, StoreSetup | None] | None = None
        self._live: dict[str, JobMessage] = {}
        self._unwanted: dict[str, Verdict] = {}
        self._jobs: list[JobMessage] = []
        self._done: list[str] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._incarnation = ""
        self._listener: threading.Thread | None = None
        self._actor = self._start()

    def open(self, counter: Counter) -> Facts:
        """Make sure that the desk has a backend; what others have to know of it.

        Raises:
            BackendLoadError: It can't be had there.
        """
        self._counters[counter.key] = counter
        for start in range(_STARTS):
            try:
                facts: Facts = self._get(self._actor.open.remote(counter), _START_S)
                return facts
            except RayTaskError as error:
                raise BackendLoadError(str(error.cause)) from None
            except RayError as error:
                if start == _STARTS - 1:
                    reason = f"the process that should submit its jobs died: {words(error)}"
                    raise BackendLoadError(reason) from error
                self._actor = self._start()
        raise AssertionError("returned or raised")

    def join(self, client: str, store: StoreSetup | None, heard: Callable[[list[Told]], None]) -> None:
        """Begin to listen: what becomes of this client's jobs is told to ``heard``, from another thread.

        Raises:
            InvalidInputError: The desk has another quota by now.
            TaskFailedError: It can't be spoken to.
        """
        self._client = (client, store)
        try:
            self._introduce()
        except RayTaskError as error:
            if isinstance(error.cause, InvalidInputError):
                raise InvalidInputError(f"the desk of {self._account}: {error.cause}") from None
            raise TaskFailedError(
                f"the desk of {self._account} has no use for the task: {error.cause}"
            ) from None
        except RayError:
            # It has just died; whoever listens finds the next one.
            _log.info("the desk of %s died as the task began", self._account)
        self._listener = threading.Thread(
            target=self._listen, args=(heard,), name="ray_qjm news", daemon=True
        )
        self._listener.start()

    def enqueue(self, job: JobMessage) -> None:
        """Hand over a job, with the next ``send``; it is handed over again to a desk that was restarted."""
        with self._lock:
            self._live[job.tag] = job
            self._jobs.append(job)

    def send(self) -> None:
        """Send what was handed over and what was forgotten.

        One call for many: with calls of its own for each, a small job cost the desk's process 1.5 ms in place of 0.9
        (``benchmarks/service_desk.py``).
        """
        self._session.check()
        with self._lock:
            jobs, self._jobs = self._jobs, []
            done, self._done = self._done, []
        if jobs:
            assert self._client is not None
            self._actor.enqueue.remote(self._client[0], jobs)
        if done:
            self._actor.forget.remote(done)

    def fetch(self, tag: str) -> tuple[Any, Any]:
        """Two references, for a job that is done: why there is no result, if so, and the result."""
        self._session.check()
        why_not, result = self._actor.fetch.remote(tag)
        return why_not, result

    def cancel(self, tags: Sequence[str], verdict: Verdict) -> None:
        """Jobs that aren't wanted any more; said again to a desk that was restarted."""
        self.send()
        with self._lock:
            self._unwanted.update(dict.fromkeys(tags, verdict))
        self._actor.cancel.remote(list(tags), verdict)

    def withdraw(self, tags: Sequence[str], verdict: Verdict) -> None:
        """Jobs that shall not be submitted, if they haven't been."""
        self.send()
        self._actor.withdraw.remote(list(tags), verdict)

    def forget(self, tags: Sequence[str]) -> None:
        """Jobs of which nothing more is wanted; told with the next ``send``."""
        with self._lock:
            for tag in tags:
                self._live.pop(tag, None)
                self._unwanted.pop(tag, None)
            self._done += tags

    def close(self) -> None:
        """Listen no more; returns when Ray isn't touched any more."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._client is not None and self._session.goes_on():
            with suppress(Exception):  # it has died: then it knows nobody any more
                self.send()
                # A script may end Ray next: what is billed by the clock ends before.
                self._get(self._actor.bye.remote(self._client[0]), _NEWS_S)
        if self._listener is not None:
            self._listener.join(_NEWS_S)

    def state(self) -> Mapping[str, Any]:
        """See ``Desk.state``."""
        found: Mapping[str, Any] = self._get(self._actor.state.remote(), _CALL_S)
        return found

    def _get(self, reference: Any, timeout: float) -> Any:
        """The value of a reference, awaited outside of Ray: a thread inside would not survive ``ray.shutdown()``."""
        future = reference.future()
        until = time.monotonic() + timeout
        while not wait([future], timeout=_CHECK_S).done:
            self._session.check()
            nobody = self._closed.is_set() and threading.current_thread() is self._listener
            if nobody or time.monotonic() >= until:
                raise GetTimeoutError(f"no answer after {timeout:g} s")
        return future.result()

    def _start(self) -> Any:
        self._session.check()
        actor = BackendActor.options(
            name=self._name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            resources={} if state_is_shared() else _HEAD,
            max_restarts=-1,
            # Ray ran a submission that was interrupted twice when it was allowed to try again.
            max_task_retries=0,
            max_concurrency=16,
        ).remote(*self._start_args)
        protocol, self._incarnation, quota = self._greet(actor)
        if protocol != PROTOCOL:
            raise TaskFailedError(
                f"the desk of {self._account} speaks version {protocol} of its protocol, and this driver {PROTOCOL}: "
                "another version of ray_qjm runs on this cluster. Install one version everywhere."
            )
        if quota != self._quota:
            raise InvalidInputError(
                f"the quota of {self._account} is {quota} on this cluster, where it is in use, and {self._quota} in "
                "this call. Give the same one in all tasks, or wait until the others have ended."
            )
        return actor

    def _greet(self, actor: Any) -> tuple[int, str, Quota]:
        """Say hello to an actor, which may be on its way to another process."""
        until = time.monotonic() + _START_S
        while True:
            try:
                answer: tuple[int, str, Quota] = self._get(actor.hello.remote(self._quota), _START_S)
                return answer
            except RayTaskError as error:
                raise TaskFailedError(
                    f"the desk of {self._account} can't be started: {error.cause}"
                ) from None
            except ActorUnavailableError as error:
                if time.monotonic() >= until:
                    raise self._not_started(error) from error
                self._closed.wait(_CHECK_S)
            except RayActorError as error:
                # Ray's text is a traceback; what its process said stands at the end.
                said = str(error).strip().splitlines()[-1].strip()
                raise TaskFailedError(f"the desk of {self._account} can't be started: {said}") from None
            except RayError as error:
                raise self._not_started(error) from error

    def _not_started(self, error: RayError) -> TaskFailedError:
        return TaskFailedError(
            f"the desk of {self._account} didn't start within {_START_S:g} s: {words(error)}"
        )

    def _listen(self, heard: Callable[[list[Told]], None]) -> None:
        assert self._client is not None
        after = 0
        last = time.monotonic()
        while not self._closed.is_set():
            try:
                self._session.check()
                news = self._get(
                    self._actor.events.remote(self._client[0], after, _NEWS_S), _NEWS_S + _CALL_S
                )
                last = time.monotonic()
                if news is None:
                    raise RayActorError()  # it has been restarted, and knows nobody
                after, told = news
                self._note(told)
                if told:
                    heard(told)
            except Exception as error:
                if self._closed.is_set() or not self._session.goes_on():
                    return
                _log.info("no news from the desk of %s: %s", self._account, words(error))
                if time.monotonic() - last > _SILENT_S:
                    reason = f"its desk gave no answer for {_SILENT_S:g} s ({words(error)})"
                    verdict = Verdict("give up", DeskGoneError.__name__, reason)
                    with self._lock:
                        tags = list(self._live)
                    heard([Told(tag, "lost", None, 0, verdict, {}, {}) for tag in tags])
                    return
                before = self._incarnation
                if self._again() and self._incarnation != before:
                    after = 0  # another process numbers its events anew

    def _note(self, told: Sequence[Told]) -> None:
        """What is at the service must not be submitted anew, whatever the desk remembers after a restart."""
        with self._lock:
            for news in told:
                job = self._live.get(news.tag)
                if job is not None and news.state != "queued":
                    self._live[news.tag] = replace(job, pieces=(), job_id=news.job_id)

    def _again(self) -> bool:
        """Introduce everything anew to a desk that may have been restarted; tell whether it answered."""
        try:
            self._actor = self._start()
            for counter in self._counters.values():
                self._get(self._actor.open.remote(counter), _START_S)
            self._introduce()
        except Exception as error:
            _log.info("the desk of %s doesn't answer yet: %s", self._account, words(error))
            self._closed.wait(1.0)
            return False
        return True

    def _introduce(self) -> None:
        assert self._client is not None
        client, store = self._client
        self._get(self._actor.join.remote(client, store, self._quota), _CALL_S)
        with self._lock:
            jobs, unwanted = list(self._live.values()), dict(self._unwanted)
        if jobs:
            self._get(self._actor.enqueue.remote(client, jobs), _CALL_S)
        for tag, verdict in unwanted.items():
            self._actor.cancel.remote([tag], verdict)
