"""One task's line of work at one service: chunks in, jobs to its desk, rows out. Runs in a thread of the driver.

``planning.assembly`` decides; here its acts are carried out with Ray tasks and the desk's actor. To the coordinator
it is what runs chunks of a backend: it is given a chunk and says once what became of it.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ray_qjm.backends.desk_messages import Told
from ray_qjm.cluster.backend_actor import JobMessage
from ray_qjm.cluster.desk_link import DeskLink
from ray_qjm.cluster.line_jobs import (
    LineSetup,
    OpenJob,
    Piece,
    Sent,
    Spell,
    job_row,
    open_row,
    overlap,
    spent,
    stages_of,
)
from ray_qjm.cluster.line_rows import LineRows
from ray_qjm.cluster.messages import Outcome
from ray_qjm.cluster.service_tasks import ServiceTasks
from ray_qjm.cluster.service_work import Prepared
from ray_qjm.errors import (
    JobFailedError,
    JobNotCancelledError,
    NoCreditError,
    RayQjmError,
    TaskCancelledError,
)
from ray_qjm.planning.assembly import Act, Assembly, Close, Collect, Submit
from ray_qjm.planning.events import Chunk, Closed, Paced, Wants
from ray_qjm.planning.orders import Order, Run
from ray_qjm.planning.quota import Cost, Purse
from ray_qjm.planning.ranges import Ranges
from ray_qjm.planning.seeds import simulator_seed
from ray_qjm.planning.tickets import FINAL
from ray_qjm.planning.verdicts import ABSENT, Verdict, What, no_credit
from ray_qjm.results.jobs import Job

#: Messages to the desk are gathered while more is to do, but for so many turns at most.
TURNS = 32
#: No more chunks are prepared while circuits of so many bytes wait for a permit: a fifth of the object store that Ray
#: takes on a machine of 16 GB.
PREFETCH_BYTES = 10**9
#: A job that isn't full goes after so many seconds in which no circuit came: the source may wait for its results.
LINGER_S = 10.0
#: How long the end of its thread is waited for.
_CLOSE_S = 10.0
#: How long a cancelled task waits for the service to say that its jobs are cancelled.
SERVICE_GRACE_S = 60.0
#: And then, or if it shall not wait, for results of jobs that are done.
RESULTS_GRACE_S = 10.0


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
        tell: Callable[[Wants | Paced | Closed | Job | Spell | None], None],
    ) -> None:
        self._setup = setup
        self._assembly = assembly
        self._link = link
        self._tasks = tasks
        self._purse = purse
        self._lock = lock
        self._tell = tell
        self._pieces: dict[int, Piece] = {}
        self._sent: dict[int, Sent] = {}
        self._tags: dict[str, int] = {}
        self._preparing = 0
        self._drained = False
        self._slots = 1
        self._wanted = 0
        self._stopping: Verdict | None = None
        self._left = False
        self._give_up_at = math.inf
        self._leave_at = math.inf
        #: Why nothing more comes from here.
        self._over_with: Outcome | BaseException | None = None
        self._quiet_since = math.inf
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._rows = LineRows(
            link,
            tasks,
            self._pieces,
            self._sent,
            retry=setup.retry,
            put=self._queue.put,
            later=self._later,
            over=self._over,
            landed=self._landed,
            under_way=lambda number: number in assembly.orders,
            ended=lambda: self._over_with is not None,
        )
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

    def leave(self) -> None:
        """End here, and leave jobs at the service, if whoever takes the task's store next can have them by their id."""
        self._queue.put(self._leave)

    def abandon(self) -> None:
        """Wait for the service no more."""
        self._queue.put(self._abandon)

    def close(self) -> None:
        """End the thread; returns when it doesn't touch Ray any more."""
        self._queue.put(None)
        self._thread.join(_CLOSE_S)
        self._link.close()

    def left(self) -> dict[str, float]:
        """What is left of the task's budget, of all that has a limit."""
        with self._lock:
            return self._purse.left().limited()

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
            "trouble": next((item.trouble for item in sent if item.trouble is not None), None),
        }

    def open_jobs(self) -> list[Job]:
        """Jobs that haven't ended, or whose end the task's table may not have yet."""
        return [open_row(self._setup.name, sent) for sent in [*self._sent.values()] if not sent.noted]

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

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self._timers.append((time.monotonic() + seconds, call))

    def _check_time(self) -> None:
        now = time.monotonic()
        due = [item for item in self._timers if item[0] <= now]
        self._timers = [item for item in self._timers if item[0] > now]
        for _, call in due:
            call()
        if now >= self._give_up_at:
            self._abandon()
        # Of a job that is left the id must be known: not every service can be asked for a tag.
        known = self._left and not any(sent.state in ("queued", "intended") for sent in self._sent.values())
        if now >= self._leave_at or (known and self._over_with is None):
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
        pieces = list(self._pieces.values())
        self._pieces.clear()
        self._timers.clear()
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

    def _waiting_bytes(self, queued: Sequence[Sent]) -> int:
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
        piece = self._pieces[chunk.start] = Piece(chunk, done)
        self._tasks.prepare(
            chunk,
            payload,
            lambda told, data, sheet: self._queue.put(lambda: self._prepared(piece, told, data, sheet)),
        )

    def _prepared(
        self, piece: Piece, told: Prepared | Outcome | BaseException, data: Any, sheet: Any
    ) -> None:
        self._preparing -= 1
        if self._pieces.get(piece.chunk.start) is not piece:
            return  # it has its answer
        if isinstance(told, (Outcome, BaseException)):
            del self._pieces[piece.chunk.start]
            piece.done(told)
        else:
            piece.data, piece.sheet, piece.total_bytes = data, sheet, told.total_bytes
            self._tell(Paced(piece.chunk, told.seconds))
            self._tell(Spell(self._setup.backend, told.stages, told.total_bytes))
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
                    self._rows.collect(act.order, act.wholes)
                case Close():
                    self._close_backend(act.verdict)

    # Jobs.

    def _submit(self, order: Order) -> None:
        setup = self._setup
        tag = f"{setup.prefix}-{order.number}"
        sent = self._sent[order.number] = Sent(order, tag, handed=time.time())
        self._tags[tag] = order.number
        closed = self._assembly.closed
        over_budget = closed is not None and closed.error_type == NoCreditError.__name__
        verdict = self._stopping or (None if over_budget else closed)
        if verdict is not None:
            self._over(sent, "cancelled", verdict)
            return
        cost = self._cost(order)
        with self._lock:
            why_not = self._purse.why_not(cost)
            affordable = self._affordable(order) if why_not is not None else 0
            if why_not is None:
                self._purse.reserve(tag, cost)
        if why_not is not None:
            self._drop(sent)
            self._do(self._assembly.too_dear(order.number, affordable, no_credit(why_not)))
            return
        pieces = [piece for piece in self._pieces.values() if overlap(order, piece.chunk)]
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
        told = Told(job.tag, "unknown", job.job_id, 0, None, {}, {})
        sent = Sent(order, job.tag, told.state, job_id=job.job_id, told=told, noted=job.noted)
        sent.awaited += job.awaited
        self._sent[order.number] = sent
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

    def _affordable(self, order: Order) -> int:
        """How many circuits of a job the rest of the budget would pay for."""
        left = self._purse.left()
        job_s, execution_s = self._setup.costs
        seconds = left.qpu_seconds - job_s
        paid = seconds / execution_s if execution_s else math.copysign(math.inf, seconds)
        most = order.first_within(min(left.executions, paid)) if left.jobs >= 1 else 0
        return min(most, order.circuits - 1)

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
        for news in told if self._over_with is None else ():
            if "~" in news.tag:
                self._beside(news)
                continue
            number = self._tags.get(news.tag)
            sent = None if number is None else self._sent.get(number)
            if sent is None or sent.state in FINAL:
                continue
            sent.told = news
            sent.state, sent.job_id = news.state, news.job_id or sent.job_id
            sent.trouble = news.facts.get("trouble")
            if news.state == "queued" and news.verdict is not None:
                sent.trouble = str(news.verdict)
            if news.state == "cancelling":
                self._later(SERVICE_GRACE_S, lambda sent=sent: self._not_cancelled(sent))  # type: ignore[misc]
            sent.position, sent.eta_s = news.facts.get("position"), news.facts.get("eta_s")
            if news.state not in FINAL:
                continue
            if sent.awaited:
                sent.news = news
                self._catch_up()
            else:
                self._ended(sent, news)
        self._tell(None)  # last: whoever hears it looks at where jobs stand by now

    def _beside(self, news: Told) -> None:
        """A job that doesn't count, an attempt or a twin, is over: it was paid all the same."""
        usage = news.facts.get("usage_s")
        order = Order(0, tuple(Run(*run) for run in news.facts["runs"]))
        job = job_row(self._setup.name, order, news, usage)
        self._tell(job)
        tag = news.tag.partition("~")[0]
        with self._lock:
            self._purse.spend(spent(order, news, usage) or self._cost(order))
            why_not = self._purse.why_not(Cost())
        sent = self._sent.get(self._tags.get(tag, -1))
        if why_not is not None and sent is not None and sent.state not in FINAL:
            self._link.cancel([tag], no_credit(why_not))

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
            sent.chunks = {p.chunk.start for p in self._pieces.values() if overlap(sent.order, p.chunk)}
            self._ended(sent, news)

    def _ended(self, sent: Sent, news: Told) -> None:
        usage = news.facts.get("usage_s")
        with self._lock:
            self._purse.settle(sent.tag, spent(sent.order, news, usage))
        sent.job = job_row(self._setup.name, sent.order, news, usage, sent.tag)
        never = news.state == "cancelled" or (news.verdict is not None and news.verdict.error_type == ABSENT)
        if not sent.noted and (news.job_id is not None or not never):
            self._tell(sent.job)
        if news.state == "done":
            self._tell(Spell(self._setup.backend, stages_of(sent.job, sent.handed)))
            self._rows.fetch(sent, lambda: self._do(self._assembly.done(sent.order.number)))
        else:
            verdict = news.verdict or Verdict("give up", JobFailedError.__name__, "no reason was told")
            self._over(sent, news.state, replace(verdict, accepted=news.job_id is not None))

    def _over(self, sent: Sent, state: str, verdict: Verdict) -> None:
        """A job has no result."""
        sent.state = state
        self._do(self._assembly.failed(sent.order.number, verdict))
        self._drop(sent)

    def _drop(self, sent: Sent) -> None:
        del self._sent[sent.order.number]
        del self._tags[sent.tag]
        self._link.forget([sent.tag])

    # Rows.

    def _landed(self, start: int, outcome: Outcome) -> None:
        piece = self._pieces.pop(start)
        self._release(start)
        piece.done(outcome)

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
        if verdict.error_type == NoCreditError.__name__:
            return  # a budget of the user's: those that wait are within it, or will be refused for themselves
        waiting = [sent.tag for sent in self._sent.values() if sent.state == "queued"]
        self._link.cancel(waiting, Verdict("elsewhere", verdict.error_type, verdict.reason))

    def _leave(self) -> None:
        if not self._setup.recalled:
            self._stop()  # should the desk end, nobody could ask for their results
            return
        self._left = True
        self._stopping = Verdict(
            "cancelled", TaskCancelledError.__name__, "the task was stopped before it was sent"
        )
        self._tasks.cancel()
        waiting = [sent.tag for sent in self._sent.values() if sent.state == "queued"]
        self._link.withdraw(waiting, self._stopping)
        self._leave_at = time.monotonic() + RESULTS_GRACE_S

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
        if self._left:
            self._leave_at = 0.0
            return
        if self._stopping is None:
            self._stop()
        self._give_up_at, self._leave_at = math.inf, time.monotonic() + RESULTS_GRACE_S
        for sent in list(self._sent.values()):
            if sent.state == "queued" and self._stopping is not None:
                self._over(sent, "cancelled", self._stopping)
            elif sent.state not in FINAL:
                self._leave_alone(sent, "cancelled")

    def _not_cancelled(self, sent: Sent) -> None:
        """Its time was up, and the service doesn't obey: it keeps its slot, and its circuits wait no more."""
        if (
            self._sent.get(sent.order.number) is sent
            and sent.state == "cancelling"
            and self._stopping is None
        ):
            self._leave_alone(sent, "give up")

    def _leave_alone(self, sent: Sent, what: What) -> None:
        """Tell of a job that may go on whatever was done; no other may have its circuits."""
        named = "its job" if sent.job_id is None else f"job {sent.job_id} on {self._setup.name}"
        reason = f"{named} wasn't cancelled within {SERVICE_GRACE_S:g} s: it may still run, and be billed"
        verdict = Verdict(what, JobNotCancelledError.__name__, reason)
        told = Told(sent.tag, "cancelling", sent.job_id, 1, verdict, {}, {})
        self._tell(job_row(self._setup.name, sent.order, told, None))
        self._over(sent, "cancelled", verdict)


def _nothing() -> None:
    """The time has come."""
