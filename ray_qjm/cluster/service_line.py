"""One task's line of work at one service: chunks in, jobs to its desk, rows out. Runs in a thread of the driver.

``planning.assembly`` decides; here its acts are carried out with Ray tasks and the desk's actor. To the coordinator
it is what runs chunks of a backend: it is given a chunk and says once what became of it.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import RayError

from ray_qjm.backends.base import FetchFailed
from ray_qjm.backends.codes import words
from ray_qjm.backends.desk import ABSENT, Told
from ray_qjm.cluster.backend_actor import JobMessage
from ray_qjm.cluster.desk_link import DeskLink
from ray_qjm.cluster.messages import Outcome
from ray_qjm.cluster.service_tasks import ServiceTasks, watch
from ray_qjm.cluster.service_work import Prepared
from ray_qjm.errors import (
    JobFailedError,
    JobLostError,
    JobNotCancelledError,
    NoCreditError,
    RayQjmError,
    TaskCancelledError,
)
from ray_qjm.options import RetryPolicy
from ray_qjm.planning.assembly import Act, Assembly, Close, Collect, Submit, Whole
from ray_qjm.planning.events import Chunk, Closed, Wants
from ray_qjm.planning.orders import Order, Run
from ray_qjm.planning.quota import Cost, Purse
from ray_qjm.planning.ranges import Ranges
from ray_qjm.planning.seeds import simulator_seed
from ray_qjm.planning.tickets import FINAL
from ray_qjm.planning.verdicts import Verdict
from ray_qjm.results.jobs import Job

#: Messages to the desk are gathered while more is to do, but for so many turns at most.
TURNS = 32
#: Full jobs that wait for a permit at the desk, so that a slot which comes free is filled at once.
AHEAD = 2
#: No more chunks are prepared while circuits of so many bytes wait for a permit: a fifth of the object store that Ray
#: takes on a machine of 16 GB.
PREFETCH_BYTES = 10**9
#: A job that isn't full goes after so many seconds in which no circuit came: the source may wait for its results.
LINGER_S = 10.0
#: A fetch that fails is tried again after so many seconds, doubled each time; and so often.
_FETCH_S = (0.5, 60.0)
_FETCHES = 12
#: What a job is refused with that goes beyond a budget.
_NO_CREDIT = NoCreditError.__name__
#: Rows of a chunk that no job has circuits of are tried to be made so often.
_PACKS = 5
#: How long the end of its thread is waited for.
_CLOSE_S = 10.0
#: How long a cancelled task waits for the service to say that its jobs are cancelled.
SERVICE_GRACE_S = 60.0
#: And then, or if it shall not wait, for results of jobs that are done.
RESULTS_GRACE_S = 10.0


@dataclass(slots=True)
class _Piece:
    """A chunk that is being worked on; its references keep circuits and sheet in Ray's object store."""

    chunk: Chunk
    done: Callable[[Outcome | BaseException], None]
    data: Any = None
    total_bytes: int = 0
    sheet: Any = None


@dataclass(slots=True)
class _Sent:
    """A job that was handed to the desk."""

    order: Order
    tag: str
    state: str = "queued"
    job: Job | None = None
    #: Its result: a reference, or why there is none.
    raw: Any = None
    answers: Any = None
    #: Whether ``answers`` is there: its result was fetched and read.
    read: bool = False
    fetches: int = 0
    position: int | None = None
    eta_s: float | None = None
    #: Chunks that have circuits in it and aren't stored yet.
    chunks: set[int] = field(default_factory=set)
    #: Circuits of a job of an earlier session that have no rows: they come in as chunks while it runs.
    awaited: list[tuple[int, int]] = field(default_factory=list)
    #: What was told of its end before they had.
    news: Told | None = None
    #: Whether an earlier session has it in the table of jobs.
    noted: bool = False


@dataclass(frozen=True)
class OpenJob:
    """A job of an earlier session of the task that may be at its service.

    Attributes:
        tag: Its own.
        runs: All that it runs.
        awaited: The circuits of these that have no rows, as ranges.
        job_id: As the service calls it, if known.
        past: Ids of other jobs with its tag, which ended without a result.
        note: What its journal said of it.
        noted: Whether it is in the store's table of jobs.
    """

    tag: str
    runs: tuple[Run, ...]
    awaited: tuple[tuple[int, int], ...]
    job_id: str | None
    past: tuple[str, ...]
    note: Mapping[str, Any]
    noted: bool = False


@dataclass(frozen=True)
class LineSetup:
    """What a line has to know of its task and backend.

    Attributes:
        backend: Position in the task's list.
        name: Of the backend.
        counter: What the desk calls it.
        account: Whose quota it uses.
        prefix: Leads the tags of its jobs: unique for each session of a task.
        task_id: Of the task.
        session: Number of this session of it.
        retry: See ``RetryPolicy``.
        job_timeout_s: See ``RunOptions``.
        memory: Whether single shots are wanted.
        base: The task's ``simulator_base``.
        costs: Estimated QPU seconds of a job and of an execution.
        ahead: Jobs that may wait for a permit.
    """

    backend: int
    name: str
    counter: str
    account: str
    prefix: str
    task_id: str
    session: int
    retry: RetryPolicy
    job_timeout_s: float | None
    memory: bool
    base: int
    costs: tuple[float, float]
    ahead: int = AHEAD


class ServiceLine:
    """See the module's docstring.

    Args:
        setup: Of the line.
        assembly: Of the task at this service.
        link: To the desk.
        tasks: Starts Ray tasks.
        purse: The task's, shared by its lines; reserved under ``lock``.
        lock: Guards it.
        tell: Gets events for the schedule, and jobs for the table; from any thread.
    """

    def __init__(
        self,
        setup: LineSetup,
        assembly: Assembly,
        link: DeskLink,
        tasks: ServiceTasks,
        purse: Purse,
        lock: threading.Lock,
        tell: Callable[[Wants | Closed | Job | None], None],
    ) -> None:
        self._setup = setup
        self._assembly = assembly
        self._link = link
        self._tasks = tasks
        self._purse = purse
        self._lock = lock
        self._tell = tell
        self._pieces: dict[int, _Piece] = {}
        self._sent: dict[int, _Sent] = {}
        self._tags: dict[str, int] = {}
        self._preparing = 0
        self._drained = False
        self._slots = 1
        self._wanted = 0
        self._stopping: Verdict | None = None
        self._give_up_at = math.inf
        self._leave_at = math.inf
        #: Why nothing more comes from here.
        self._over_with: Outcome | BaseException | None = None
        self._quiet_since = math.inf
        #: Chunks that are over, some of whose jobs haven't been read.
        self._whole: list[Whole] = []
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"ray_qjm {setup.name}", daemon=True)

    # From the coordinator.

    def begin(self) -> None:
        """Begin to act on what was given and heard so far, and on all that comes: now ``tell`` is listened to."""
        self._thread.start()

    def adopt(self, job: OpenJob) -> None:
        """A job of an earlier session, which may be at the service; before the first chunk."""
        self._queue.put(lambda: self._adopt(job))

    def start(self, chunk: Chunk, payload: Any, done: Callable[[Outcome | BaseException], None]) -> None:
        """Take a chunk; ``done`` is called once, from any thread."""
        self._queue.put(lambda: self._begin(chunk, payload, done))

    def drained(self) -> None:
        """No more chunks will come for now."""
        self._queue.put(self._drain)

    def room(self, slots: int) -> None:
        """So many chunks can be prepared at once."""
        self._queue.put(lambda: self._resize(slots))

    def heard(self, told: Sequence[Told]) -> None:
        """News from the desk."""
        self._queue.put(lambda: self._hear(told))

    def withdraw(self, start: int, stop: int) -> None:
        """These circuits won't come, though a job of an earlier session may have results of them."""
        self._queue.put(lambda: self._withdraw(start, stop))

    def hurry(self) -> None:
        """End what is being prepared."""
        self._queue.put(self._tasks.cancel)

    def stop(self) -> None:
        """Cancel everything; chunks come back as the service says what it has cancelled."""
        self._queue.put(self._stop)

    def abandon(self) -> None:
        """Wait for the service no more."""
        self._queue.put(self._abandon)

    def close(self) -> None:
        """End the thread; returns when it doesn't touch Ray any more."""
        self._queue.put(None)
        self._thread.join(_CLOSE_S)
        self._link.close()

    def stand(self) -> dict[str, Any]:
        """Jobs at the service and before it, and where they stand in its queue: for the status."""
        sent = [*self._sent.values()]
        there = [item for item in sent if item.state in ("submitted", "running", "unknown", "cancelling")]
        positions = [item.position for item in there if item.position is not None]
        etas = [item.eta_s for item in there if item.eta_s is not None]
        return {
            "pending": len(there),
            "queued": sum(item.state in ("queued", "intended") for item in sent),
            "position": min(positions, default=None),
            "eta_s": min(etas, default=None),
        }

    # The thread.

    def _run(self) -> None:
        turns = 0
        while True:
            try:
                call = self._queue.get(timeout=self._wait_s())
            except queue.Empty:
                call = _nothing
            if call is None:
                return
            try:
                call()
                self._check_time()
                self._want()
                turns += 1
                if turns >= TURNS or self._queue.empty():
                    turns = 0
                    self._link.send()
            except Exception as error:
                self._break(error)

    def _wait_s(self) -> float:
        ends = (self._quiet_since + LINGER_S, self._give_up_at, self._leave_at)
        at = min([*ends, *(at for at, _ in self._timers)])
        return max(0.0, min(at - time.monotonic(), 3600.0))

    def _check_time(self) -> None:
        now = time.monotonic()
        due = [item for item in self._timers if item[0] <= now]
        self._timers = [item for item in self._timers if item[0] > now]
        for _, call in due:
            call()
        if now >= self._give_up_at:
            self._abandon()
        if now >= self._leave_at:
            self._leave_at = math.inf
            self._answer_all(TaskCancelledError("its result couldn't be had in time"))
        if now >= self._quiet_since + LINGER_S:
            self._do(self._assembly.flush())
        quiet = self._assembly.waiting > 0 and self._preparing == 0
        self._quiet_since = min(self._quiet_since, now) if quiet else math.inf

    def _break(self, error: Exception) -> None:
        """A bug of ours, or Ray is gone: no chunk may stay without an answer, and none gets a second one."""
        fatal = error if isinstance(error, RayQjmError) else RayQjmError(f"{type(error).__name__}: {error}")
        self._answer_all(Outcome(fatal=fatal))

    def _answer_all(self, answer: Outcome | BaseException) -> None:
        self._over_with = answer if self._over_with is None else self._over_with
        pieces, self._pieces, self._timers = list(self._pieces.values()), {}, []
        for piece in pieces:
            piece.done(answer)

    def _want(self) -> None:
        """Ask for as many chunks as are useful now."""
        queued = [sent for sent in self._sent.values() if sent.state == "queued"]
        room = 2 * self._slots - self._preparing
        blocked = any(x is not None for x in (self._assembly.closed, self._stopping, self._over_with))
        enough = len(queued) >= self._setup.ahead or self._waiting_bytes(queued) >= PREFETCH_BYTES
        wanted = 0 if blocked or enough else max(0, room)
        if wanted != self._wanted or (wanted and not self._preparing):
            self._wanted = wanted
            self._tell(Wants(self._setup.backend, wanted))

    def _waiting_bytes(self, queued: Sequence[_Sent]) -> int:
        """Of circuits whose jobs wait for a permit; a full job is let through, however large."""
        chunks = {start for sent in queued[1:] for start in sent.chunks}
        return sum(self._pieces[start].total_bytes for start in chunks if start in self._pieces)

    def _resize(self, slots: int) -> None:
        self._slots = slots

    def _begin(self, chunk: Chunk, payload: Any, done: Callable[[Outcome | BaseException], None]) -> None:
        if self._over_with is not None:
            done(self._over_with)
            return
        self._drained = False
        self._preparing += 1
        self._wanted -= 1
        self._quiet_since = math.inf
        piece = self._pieces[chunk.start] = _Piece(chunk, done)
        self._tasks.prepare(
            chunk,
            payload,
            lambda told, data, sheet: self._queue.put(lambda: self._prepared(piece, told, data, sheet)),
        )

    def _prepared(
        self, piece: _Piece, told: Prepared | Outcome | BaseException, data: Any, sheet: Any
    ) -> None:
        self._preparing -= 1
        if self._pieces.get(piece.chunk.start) is not piece:
            return  # it has its answer
        if isinstance(told, (Outcome, BaseException)):
            del self._pieces[piece.chunk.start]
            piece.done(told)
        else:
            piece.data, piece.sheet, piece.total_bytes = data, sheet, told.total_bytes
            self._do(self._assembly.prepared(piece.chunk, told.sizes))
        self._catch_up()
        if self._preparing == 0 and (self._drained or self._stopping is not None):
            self._do(self._assembly.flush())

    def _drain(self) -> None:
        self._drained = True
        if self._preparing == 0:
            self._do(self._assembly.flush())

    def _do(self, acts: Sequence[Act]) -> None:
        for act in acts:
            match act:
                case Submit():
                    self._submit(act.order)
                case Collect():
                    self._collect(act.order, act.wholes)
                case Close():
                    self._close_backend(act.verdict)

    # Jobs.

    def _submit(self, order: Order) -> None:
        setup = self._setup
        tag = f"{setup.prefix}-{order.number}"
        sent = self._sent[order.number] = _Sent(order, tag)
        self._tags[tag] = order.number
        if self._stopping is not None or self._assembly.closed is not None:
            verdict = self._stopping or self._assembly.closed
            assert verdict is not None
            self._over(sent, "cancelled", verdict)
            return
        cost = self._cost(order)
        with self._lock:
            why_not = self._purse.why_not(cost)
            if why_not is None:
                self._purse.reserve(tag, cost)
        if why_not is not None:
            self._over(sent, "refused", Verdict("no credit", _NO_CREDIT, f"no credit left: {why_not}"))
            return
        pieces = [piece for piece in self._pieces.values() if _overlap(order, piece.chunk)]
        sent.chunks = {piece.chunk.start for piece in pieces}
        self._link.enqueue(
            JobMessage(
                tag,
                setup.counter,
                cost,
                setup.retry,
                setup.job_timeout_s,
                self._note(order),
                order.runs,
                tuple((piece.chunk.start, piece.chunk.stop, [piece.data]) for piece in pieces),
                setup.memory,
                simulator_seed(setup.base, order.start),
            )
        )

    def _adopt(self, job: OpenJob) -> None:
        order = self._assembly.adopt(job.runs)
        self._sent[order.number] = _Sent(
            order, job.tag, "unknown", awaited=list(job.awaited), noted=job.noted
        )
        self._tags[job.tag] = order.number
        cost = self._cost(order)
        with self._lock:
            self._purse.reserve(job.tag, cost)
        setup = self._setup
        timeout_s, memory = setup.job_timeout_s, setup.memory
        self._link.enqueue(
            JobMessage(
                job.tag,
                setup.counter,
                cost,
                setup.retry,
                timeout_s,
                job.note,
                job.runs,
                (),
                memory,
                job_id=job.job_id,
                past=job.past,
            )
        )

    def _cost(self, order: Order) -> Cost:
        """What is reserved for a job."""
        job_s, execution_s = self._setup.costs
        return Cost(1, order.executions, job_s + execution_s * order.executions)

    def _note(self, order: Order) -> dict[str, Any]:
        """What the journals say of a job, beside the desk's own."""
        return {
            "task": self._setup.task_id,
            "backend": self._setup.name,
            "runs": [list(run) for run in order.runs],
            "attempt": order.attempt,
            "session": self._setup.session,
        }

    def _hear(self, told: Sequence[Told]) -> None:
        self._tell(None)
        for news in told if self._over_with is None else ():
            if "~" in news.tag:
                self._beside(news)
                continue
            number = self._tags.get(news.tag)
            sent = None if number is None else self._sent.get(number)
            if sent is None or sent.state in FINAL:
                continue
            sent.state = news.state
            sent.position, sent.eta_s = news.facts.get("position"), news.facts.get("eta_s")
            if news.state not in FINAL:
                continue
            if sent.awaited:
                sent.news = news
                self._catch_up()
            else:
                self._ended(sent, news)

    def _beside(self, news: Told) -> None:
        """A job that doesn't count, an attempt or a twin, is over: it was paid all the same."""
        usage = news.facts.get("usage_s")
        order = Order(0, tuple(Run(*run) for run in news.facts["runs"]))
        job = self._job(order, news, usage)
        self._tell(job)
        tag = news.tag.partition("~")[0]
        with self._lock:
            self._purse.spend(_spent(order, news, usage) or self._cost(order))
            why_not = self._purse.why_not(Cost())
        sent = self._sent.get(self._tags.get(tag, -1))
        if why_not is not None and sent is not None and sent.state not in FINAL:
            self._link.cancel([tag], Verdict("no credit", _NO_CREDIT, f"no credit left: {why_not}"))

    def _withdraw(self, start: int, stop: int) -> None:
        gone = Ranges([(start, stop)])
        for sent in self._sent.values():
            sent.awaited = [part for first, last in sent.awaited for part in gone.rest(first, last)]
        self._catch_up()

    def _catch_up(self) -> None:
        """Jobs of an earlier session that had ended before their chunks were there."""
        if self._over_with is not None:
            return
        ended = [sent for sent in self._sent.values() if sent.news is not None]
        if not ended:
            return
        have = Ranges((piece.chunk.start, piece.chunk.stop) for piece in self._pieces.values() if piece.sheet)
        for sent in ended:
            news = sent.news
            # Of a task that was cancelled no more chunks will come.
            all_there = self._stopping is not None and self._preparing == 0
            if news is None or not (
                all_there or not any(have.rest(start, stop) for start, stop in sent.awaited)
            ):
                continue
            sent.news, sent.awaited = None, []
            sent.chunks = {p.chunk.start for p in self._pieces.values() if _overlap(sent.order, p.chunk)}
            self._ended(sent, news)

    def _ended(self, sent: _Sent, news: Told) -> None:
        usage = news.facts.get("usage_s")
        with self._lock:
            self._purse.settle(sent.tag, _spent(sent.order, news, usage))
        sent.job = self._job(sent.order, news, usage, sent.tag)
        never = news.state == "cancelled" or (news.verdict is not None and news.verdict.error_type == ABSENT)
        if not sent.noted and (news.job_id is not None or not never):
            self._tell(sent.job)
        if news.state == "done":
            self._fetch(sent, lambda: self._do(self._assembly.done(sent.order.number)))
        else:
            verdict = news.verdict or Verdict("give up", JobFailedError.__name__, "no reason was told")
            self._over(sent, news.state, verdict)

    def _over(self, sent: _Sent, state: str, verdict: Verdict) -> None:
        """A job has no result."""
        sent.state = state
        self._do(self._assembly.failed(sent.order.number, verdict))
        self._drop(sent)

    def _drop(self, sent: _Sent) -> None:
        del self._sent[sent.order.number]
        del self._tags[sent.tag]
        self._link.forget([sent.tag])

    def _job(self, order: Order, news: Told, usage: float | None, tag: str | None = None) -> Job:
        times = news.times
        started, ended = times.get("started"), times.get("ended", time.time())
        begun = started if started is not None else times.get("submitted")
        return Job(
            job_id=news.job_id or tag or news.tag,
            backend=self._setup.name,
            start=order.start,
            stop=order.stop,
            attempt=order.attempt + max(0, news.attempts - 1),
            state=news.state,
            reason=None if news.verdict is None else str(news.verdict),
            submitted=times.get("submitted"),
            started=started,
            ended=ended,
            circuits=order.circuits,
            shots=order.executions,
            seconds=None if begun is None else max(0.0, ended - begun),
            usage_s=usage,
        )

    # Rows.

    def _fetch(self, sent: _Sent, then: Callable[[], None]) -> None:
        """Have the result of a job that is done; a fetch that fails is done again, never the job."""
        why_not, raw = self._link.fetch(sent.tag)
        watch(why_not, lambda answer: self._queue.put(lambda: self._fetched(sent, answer, raw, then)))

    def _fetched(
        self, sent: _Sent, why_not: FetchFailed | BaseException | None, raw: Any, then: Callable[[], None]
    ) -> None:
        number = sent.order.number
        if self._sent.get(number) is not sent or self._over_with is not None:
            return
        if why_not is None:
            sent.raw = raw
            then()
            return
        final = isinstance(why_not, FetchFailed) and why_not.final
        said = why_not.reason if isinstance(why_not, FetchFailed) else words(why_not)
        reason = f"its result can't be had: {said}"
        sent.fetches += 1
        if not final and sent.fetches < _FETCHES:
            wait = min(_FETCH_S[1], _FETCH_S[0] * 2 ** (sent.fetches - 1))
            self._timers.append((time.monotonic() + wait, lambda: self._fetch(sent, then)))
        elif (
            number not in self._assembly.orders
        ):  # it was fetched before, and got lost on the way to its rows
            sent.raw = RayQjmError(reason)
            then()
        elif final and self._setup.retry.lost == "resubmit":
            self._over(sent, "lost", Verdict("again", JobLostError.__name__, reason))
        else:
            self._over(sent, "lost", Verdict("give up", JobLostError.__name__, reason))

    def _collect(self, order: Order | None, wholes: Sequence[Whole]) -> None:
        sent = None if order is None else self._sent[order.number]
        self._whole += wholes
        ready = self._ready(None if order is None else order.number)
        if sent is not None or ready:
            self._gather(sent, ready)

    def _ready(self, now: int | None = None) -> list[Whole]:
        """Chunks that are over and whose jobs have all been read, but for the one that is read now."""
        ready = [w for w in self._whole if all(n == now or self._sent[n].read for n in w.orders)]
        self._whole = [whole for whole in self._whole if whole not in ready]
        return ready

    def _gather(self, sent: _Sent | None, wholes: Sequence[Whole], tries: int = 0) -> None:
        """Start a Ray task that makes rows; one that fails is started again, never the job."""
        chunks = {whole.chunk.start for whole in wholes}
        earlier = [self._sent[number] for whole in wholes for number in whole.orders]
        others = {item.order.number: item for item in earlier if item is not sent}
        touched = [] if sent is None else [p for p in self._pieces.values() if _overlap(sent.order, p.chunk)]
        pieces = {piece.chunk.start: piece for piece in touched}
        pieces.update({start: self._pieces[start] for start in chunks})
        jobs = [item.job for item in (*others.values(), *([sent] if sent else [])) if item.job is not None]
        answers = self._tasks.collect(
            None if sent is None else sent.order,
            "" if sent is None or sent.job is None else sent.job.job_id,
            None if sent is None else sent.raw,
            wholes,
            jobs,
            [piece.sheet for piece in pieces.values()],
            [item.answers for item in others.values()],
            lambda found: self._queue.put(lambda: self._gathered(sent, wholes, found, tries)),
        )
        if sent is not None:
            sent.answers = answers

    def _gathered(
        self, sent: _Sent | None, wholes: Sequence[Whole], found: list[Outcome] | BaseException, tries: int
    ) -> None:
        if self._over_with is not None:
            return
        if isinstance(found, BaseException):
            self._gather_again(sent, wholes, found, tries + 1)
            return
        for whole, outcome in zip(wholes, found, strict=True):
            piece = self._pieces.pop(whole.chunk.start)
            self._release(piece.chunk.start)
            piece.done(outcome)
        if sent is not None:
            sent.read = True
            if ready := self._ready():
                self._gather(None, ready)

    def _gather_again(
        self, sent: _Sent | None, wholes: Sequence[Whole], why: BaseException, tries: int
    ) -> None:
        if not isinstance(why, RayError) or tries >= _PACKS:
            raise RayQjmError(f"rows can't be made: {words(why)}")
        if sent is not None:
            # Ray writes of errors that nobody has looked at: that of the outcomes said the same.
            sent.answers.future().add_done_callback(lambda future: future.exception())

        def again() -> None:
            self._gather(sent, wholes, tries)

        # A worker has died, or a node with the result in its memory.
        call = again if sent is None else lambda: self._fetch(sent, again)
        self._timers.append((time.monotonic() + _FETCH_S[0] * 2**tries, call))

    def _release(self, start: int) -> None:
        """A chunk's rows are stored: jobs of which nothing more is wanted are forgotten."""
        for sent in list(self._sent.values()):
            sent.chunks.discard(start)
            if sent.state == "done" and not sent.chunks and sent.news is None:
                self._drop(sent)

    # The end.

    def _close_backend(self, verdict: Verdict) -> None:
        """Nothing more goes there. What waits for a permit comes back, unless it only can't be paid any more."""
        self._tell(Closed(self._setup.backend, verdict.error_type, verdict.reason))
        if verdict.error_type == _NO_CREDIT:
            return  # a budget of the user's: those that wait are within it, or will be refused for themselves
        waiting = [sent.tag for sent in self._sent.values() if sent.state == "queued"]
        self._link.cancel(waiting, Verdict("elsewhere", verdict.error_type, verdict.reason))

    def _stop(self) -> None:
        if self._stopping is not None:
            return
        self._stopping = Verdict(
            "cancelled", TaskCancelledError.__name__, "the task was cancelled before it was run"
        )
        self._give_up_at = time.monotonic() + SERVICE_GRACE_S
        self._link.cancel(
            [sent.tag for sent in self._sent.values() if sent.state not in FINAL], self._stopping
        )
        self._do(self._assembly.flush())
        self._catch_up()

    def _abandon(self) -> None:
        if self._stopping is None:
            self._stop()
        self._give_up_at, self._leave_at = math.inf, time.monotonic() + RESULTS_GRACE_S
        reason = "the service didn't say in time that it was cancelled: it may still run, and be billed"
        verdict = Verdict("cancelled", JobNotCancelledError.__name__, reason)
        for sent in list(self._sent.values()):
            if sent.state not in FINAL:
                if sent.state != "queued":
                    told = Told(sent.tag, "cancelling", None, 1, verdict, {}, {})
                    self._tell(self._job(sent.order, told, None))
                self._over(sent, "cancelled", verdict)


def _overlap(order: Order, chunk: Chunk) -> bool:
    return any(run.start < chunk.stop and chunk.start < run.stop for run in order.runs)


def _spent(order: Order, news: Told, usage: float | None) -> Cost | None:
    """What a job has cost, where it differs from what was reserved."""
    if news.job_id is None and news.state != "lost":
        return Cost()  # it never was at the service
    return None if usage is None else Cost(1, order.executions, usage)


def _nothing() -> None:
    """The time has come."""
