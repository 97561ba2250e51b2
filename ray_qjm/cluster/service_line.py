"""One task's line of work at one service: chunks in, jobs to its desk, rows out. Runs in a thread of the driver.

``planning.assembly`` decides; here its acts are carried out with Ray tasks and the desk's actor. To the coordinator
it is what runs chunks of a backend: it is given a chunk and says once what became of it. Chunks and time are kept
here, jobs in ``sent_jobs``, their rows in ``line_rows``.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ray_qjm.backends.desk_messages import Told
from ray_qjm.cluster.desk_link import DeskLink
from ray_qjm.cluster.line_jobs import LineSetup, OpenJob, Piece, Sent, Spell
from ray_qjm.cluster.line_purse import LinePurse
from ray_qjm.cluster.line_rows import LineRows
from ray_qjm.cluster.messages import Outcome
from ray_qjm.cluster.sent_jobs import SentJobs
from ray_qjm.cluster.service_tasks import ServiceTasks
from ray_qjm.cluster.service_work import Prepared
from ray_qjm.errors import NoCreditError, RayQjmError, TaskCancelledError
from ray_qjm.planning.assembly import Act, Assembly, Close, Collect, Submit
from ray_qjm.planning.events import Chunk, Closed, Paced, Wants
from ray_qjm.planning.verdicts import Verdict
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
        purse: Pays jobs.
        tell: Gets events for the schedule, and jobs for the table; from any thread.
    """

    def __init__(
        self,
        setup: LineSetup,
        assembly: Assembly,
        link: DeskLink,
        tasks: ServiceTasks,
        purse: LinePurse,
        tell: Callable[[Wants | Paced | Closed | Job | Spell | None], None],
    ) -> None:
        self._setup = setup
        self._assembly = assembly
        self._link = link
        self._tasks = tasks
        self._purse = purse
        self._tell = tell
        self._pieces: dict[int, Piece] = {}
        self._preparing = 0
        self._drained = False
        self._slots = 1
        self._wanted = 0
        self._left = False
        self._give_up_at = math.inf
        self._leave_at = math.inf
        #: Why nothing more comes from here.
        self._over_with: Outcome | BaseException | None = None
        self._quiet_since = math.inf
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._jobs = SentJobs(
            setup,
            assembly,
            link,
            purse,
            self._pieces,
            tell=tell,
            do=self._do,
            done=self._fetch,
            later=self._later,
            grace_s=SERVICE_GRACE_S,
        )
        self._rows = LineRows(
            link,
            tasks,
            self._pieces,
            self._jobs.sent,
            retry=setup.retry,
            put=self._queue.put,
            later=self._later,
            over=self._jobs.over,
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
        self._queue.put(lambda: self._jobs.adopt(job))

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
        return self._purse.left()

    def stand(self) -> dict[str, Any]:
        """Jobs at the service and before it, and where they stand in its queue: for the status."""
        return self._jobs.stand()

    def open_jobs(self) -> list[Job]:
        """Jobs that haven't ended, or whose end the task's table may not have yet."""
        return self._jobs.open_jobs()

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
        known = self._left and not self._jobs.on_their_way()
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
        queued = self._jobs.queued()
        room = 2 * self._slots - self._preparing
        blocked = any(x is not None for x in (self._assembly.closed, self._jobs.stopping, self._over_with))
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
        if self._preparing == 0 and (self._drained or self._jobs.stopping is not None):
            self._do(self._assembly.flush())

    def _drain(self) -> None:
        self._drained = True
        if self._preparing == 0:
            self._do(self._assembly.flush())

    def _do(self, acts: Sequence[Act]) -> None:
        for act in acts:
            match act:
                case Submit():
                    self._jobs.submit(act.order)
                case Collect():
                    self._rows.collect(act.order, act.wholes)
                case Close():
                    self._close_backend(act.verdict)

    # Jobs and rows.

    def _hear(self, told: Sequence[Told]) -> None:
        if self._over_with is None:
            self._jobs.hear(told)
        self._tell(None)  # last: whoever hears it looks at where jobs stand by now

    def _withdraw(self, start: int, stop: int) -> None:
        self._jobs.withdraw(start, stop)
        self._catch_up()

    def _catch_up(self) -> None:
        if self._over_with is None:
            self._jobs.catch_up()

    def _fetch(self, sent: Sent) -> None:
        self._rows.fetch(sent, lambda: self._do(self._assembly.done(sent.order.number)))

    def _landed(self, start: int, outcome: Outcome) -> None:
        """A chunk's rows are stored."""
        piece = self._pieces.pop(start)
        self._jobs.release(start)
        piece.done(outcome)

    # The end.

    def _close_backend(self, verdict: Verdict) -> None:
        """Nothing more goes there. What waits for a permit comes back, unless it only can't be paid any more."""
        self._tell(Closed(self._setup.backend, verdict.error_type, verdict.reason))
        if verdict.error_type == NoCreditError.__name__:
            return  # a budget of the user's: those that wait are within it, or will be refused for themselves
        self._jobs.cancel_queued(Verdict("elsewhere", verdict.error_type, verdict.reason))

    def _leave(self) -> None:
        if not self._setup.recalled:
            self._stop()  # should the desk end, nobody could ask for their results
            return
        self._left = True
        self._jobs.leave()
        self._tasks.cancel()
        self._leave_at = time.monotonic() + RESULTS_GRACE_S

    def _stop(self) -> None:
        if self._jobs.stopping is not None:
            return
        self._give_up_at = time.monotonic() + SERVICE_GRACE_S
        self._jobs.stop()
        self._do(self._assembly.flush())
        self._catch_up()

    def _abandon(self) -> None:
        if self._left:
            self._leave_at = 0.0
            return
        if self._jobs.stopping is None:
            self._stop()
        self._give_up_at, self._leave_at = math.inf, time.monotonic() + RESULTS_GRACE_S
        self._jobs.abandon()


def _nothing() -> None:
    """The time has come."""
