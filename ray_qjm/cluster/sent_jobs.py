"""Jobs of a line, each from its order to its end: handed to the desk, heard of, paid and told of."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
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
    stages_of,
)
from ray_qjm.cluster.line_purse import LinePurse
from ray_qjm.errors import JobFailedError, JobNotCancelledError, NoCreditError, TaskCancelledError
from ray_qjm.planning.assembly import Act, Assembly
from ray_qjm.planning.orders import Order, Run
from ray_qjm.planning.ranges import Ranges
from ray_qjm.planning.seeds import simulator_seed
from ray_qjm.planning.tickets import FINAL
from ray_qjm.planning.verdicts import ABSENT, Verdict, What, no_credit
from ray_qjm.results.jobs import Job


class SentJobs:
    """The jobs of one line; changed in its thread only.

    Args:
        setup: Of the line.
        assembly: Is told how jobs end.
        link: To the desk.
        purse: Pays them.
        pieces: The line's chunks, by their first circuit.
        tell: Gets rows for the table of jobs, and what stages of jobs took.
        do: Carries out what the assembly decides.
        done: Is told of a job that is done and whose chunks are all there.
        later: Runs a function in the line's thread, after so many seconds.
        grace_s: How long the service has time to cancel a job.

    Attributes:
        sent: Those that the line has to do with still, by number.
        stopping: Why no job is handed over any more.
    """

    def __init__(
        self,
        setup: LineSetup,
        assembly: Assembly,
        link: DeskLink,
        purse: LinePurse,
        pieces: Mapping[int, Piece],
        *,
        tell: Callable[[Job | Spell], None],
        do: Callable[[Sequence[Act]], None],
        done: Callable[[Sent], None],
        later: Callable[[float, Callable[[], None]], None],
        grace_s: float,
    ) -> None:
        self.sent: dict[int, Sent] = {}
        self.stopping: Verdict | None = None
        self._setup = setup
        self._assembly = assembly
        self._link = link
        self._purse = purse
        self._pieces = pieces
        self._tell = tell
        self._do = do
        self._done = done
        self._later = later
        self._grace_s = grace_s
        self._tags: dict[str, int] = {}

    # Their beginning.

    def submit(self, order: Order) -> None:
        """Hand a job to the desk, unless it is refused here."""
        setup = self._setup
        tag = f"{setup.prefix}-{order.number}"
        sent = self.sent[order.number] = Sent(order, tag, handed=time.time())
        self._tags[tag] = order.number
        closed = self._assembly.closed
        over_budget = closed is not None and closed.error_type == NoCreditError.__name__
        verdict = self.stopping or (None if over_budget else closed)
        if verdict is not None:
            self.over(sent, "cancelled", verdict)
            return
        refused = self._purse.reserve(tag, order)
        if refused is not None:
            self._drop(sent)
            self._do(self._assembly.too_dear(order.number, refused.affordable, no_credit(refused.why_not)))
            return
        pieces = [piece for piece in self._pieces.values() if overlap(order, piece.chunk)]
        sent.chunks = {piece.chunk.start for piece in pieces}
        self._link.enqueue(
            JobMessage(
                tag,
                setup.counter,
                self._purse.cost(order),
                setup.retry,
                setup.job_timeout_s,
                self._note(order),
                order.runs,
                tuple((piece.chunk.start, piece.chunk.stop, [piece.data]) for piece in pieces),
                setup.memory,
                simulator_seed(setup.base, order.start),
            )
        )

    def adopt(self, job: OpenJob) -> None:
        """A job of an earlier session, which may be at the service."""
        order = self._assembly.adopt(job.runs)
        told = Told(job.tag, "unknown", job.job_id, 0, None, {}, {})
        sent = Sent(order, job.tag, told.state, job_id=job.job_id, told=told, noted=job.noted)
        sent.awaited += job.awaited
        self.sent[order.number] = sent
        self._tags[job.tag] = order.number
        self._purse.adopt(job.tag, order)
        setup = self._setup
        timeout_s, memory = setup.job_timeout_s, setup.memory
        self._link.enqueue(
            JobMessage(
                job.tag,
                setup.counter,
                self._purse.cost(order),
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

    def _note(self, order: Order) -> dict[str, Any]:
        """What the journals say of a job, beside the desk's own."""
        return {
            "task": self._setup.task_id,
            "backend": self._setup.name,
            "runs": [list(run) for run in order.runs],
            "attempt": order.attempt,
            "session": self._setup.session,
        }

    # What becomes of them.

    def hear(self, told: Sequence[Told]) -> None:
        """News from the desk."""
        for news in told:
            if "~" in news.tag:
                self._beside(news)
                continue
            number = self._tags.get(news.tag)
            sent = None if number is None else self.sent.get(number)
            if sent is None or sent.state in FINAL:
                continue
            sent.told = news
            sent.state, sent.job_id = news.state, news.job_id or sent.job_id
            sent.trouble = news.facts.get("trouble")
            if news.state == "queued" and news.verdict is not None:
                sent.trouble = str(news.verdict)
            if news.state == "cancelling":
                self._later(self._grace_s, lambda sent=sent: self._not_cancelled(sent))  # type: ignore[misc]
            sent.position, sent.eta_s = news.facts.get("position"), news.facts.get("eta_s")
            if news.state not in FINAL:
                continue
            if sent.awaited:
                sent.news = news
                self.catch_up()
            else:
                self._ended(sent, news)

    def _beside(self, news: Told) -> None:
        """A job that doesn't count, an attempt or a twin, is over: it was paid all the same."""
        order = Order(0, tuple(Run(*run) for run in news.facts["runs"]))
        self._tell(job_row(self._setup.name, order, news, news.facts.get("usage_s")))
        tag = news.tag.partition("~")[0]
        why_not = self._purse.spend(order, news)
        sent = self.sent.get(self._tags.get(tag, -1))
        if why_not is not None and sent is not None and sent.state not in FINAL:
            self._link.cancel([tag], no_credit(why_not))

    def withdraw(self, start: int, stop: int) -> None:
        """These circuits won't come as chunks: no job waits for them."""
        gone = Ranges([(start, stop)])
        for sent in self.sent.values():
            sent.awaited = [part for first, last in sent.awaited for part in gone.rest(first, last)]

    def catch_up(self) -> None:
        """Jobs of an earlier session that had ended before their chunks were there."""
        ended = [sent for sent in self.sent.values() if sent.news is not None]
        if not ended:
            return
        have = Ranges((piece.chunk.start, piece.chunk.stop) for piece in self._pieces.values() if piece.sheet)
        # Of a task that was cancelled no more chunks will come than those that are being prepared.
        all_there = self.stopping is not None and all(piece.sheet for piece in self._pieces.values())
        for sent in ended:
            news = sent.news
            if news is None or not (
                all_there or not any(have.rest(start, stop) for start, stop in sent.awaited)
            ):
                continue
            sent.news, sent.awaited = None, []
            sent.chunks = {p.chunk.start for p in self._pieces.values() if overlap(sent.order, p.chunk)}
            self._ended(sent, news)

    def _ended(self, sent: Sent, news: Told) -> None:
        self._purse.settle(sent.tag, sent.order, news)
        sent.job = job_row(self._setup.name, sent.order, news, news.facts.get("usage_s"), sent.tag)
        never = news.state == "cancelled" or (news.verdict is not None and news.verdict.error_type == ABSENT)
        if not sent.noted and (news.job_id is not None or not never):
            self._tell(sent.job)
        if news.state == "done":
            self._tell(Spell(self._setup.backend, stages_of(sent.job, sent.handed)))
            self._done(sent)
        else:
            verdict = news.verdict or Verdict("give up", JobFailedError.__name__, "no reason was told")
            self.over(sent, news.state, replace(verdict, accepted=news.job_id is not None))

    def over(self, sent: Sent, state: str, verdict: Verdict) -> None:
        """A job has no result."""
        sent.state = state
        self._do(self._assembly.failed(sent.order.number, verdict))
        self._drop(sent)

    def release(self, start: int) -> None:
        """A chunk's rows are stored: jobs of which nothing more is wanted are forgotten."""
        for sent in list(self.sent.values()):
            sent.chunks.discard(start)
            if sent.state == "done" and not sent.chunks and sent.news is None:
                self._drop(sent)

    def _drop(self, sent: Sent) -> None:
        del self.sent[sent.order.number]
        del self._tags[sent.tag]
        self._link.forget([sent.tag])

    # What isn't wanted any more.

    def cancel_queued(self, verdict: Verdict) -> None:
        """Those that wait for a permit come back."""
        self._link.cancel([sent.tag for sent in self.queued()], verdict)

    def leave(self) -> None:
        """Hand over nothing more, and take back what wasn't submitted; what was stays at the service."""
        self.stopping = Verdict(
            "cancelled", TaskCancelledError.__name__, "the task was stopped before it was sent"
        )
        self._link.withdraw([sent.tag for sent in self.queued()], self.stopping)

    def stop(self) -> None:
        """Hand over nothing more, and cancel all."""
        self.stopping = Verdict(
            "cancelled", TaskCancelledError.__name__, "the task was cancelled before it was run"
        )
        self._link.cancel([sent.tag for sent in self.sent.values() if sent.state not in FINAL], self.stopping)

    def abandon(self) -> None:
        """Wait no more for the end of jobs that were stopped."""
        for sent in list(self.sent.values()):
            if sent.state == "queued" and self.stopping is not None:
                self.over(sent, "cancelled", self.stopping)
            elif sent.state not in FINAL:
                self._leave_alone(sent, "cancelled")

    def _not_cancelled(self, sent: Sent) -> None:
        """Its time was up, and the service doesn't obey: it keeps its slot, and its circuits wait no more."""
        if self.sent.get(sent.order.number) is sent and sent.state == "cancelling" and self.stopping is None:
            self._leave_alone(sent, "give up")

    def _leave_alone(self, sent: Sent, what: What) -> None:
        """Tell of a job that may go on whatever was done; no other may have its circuits."""
        named = "its job" if sent.job_id is None else f"job {sent.job_id} on {self._setup.name}"
        reason = f"{named} wasn't cancelled within {self._grace_s:g} s: it may still run, and be billed"
        verdict = Verdict(what, JobNotCancelledError.__name__, reason)
        told = Told(sent.tag, "cancelling", sent.job_id, 1, verdict, {}, {})
        self._tell(job_row(self._setup.name, sent.order, told, None))
        self.over(sent, "cancelled", verdict)

    # Where they stand. ``stand`` and ``open_jobs`` are asked by other threads: they look at a copy.

    def queued(self) -> list[Sent]:
        """Those that wait for a permit."""
        return [sent for sent in self.sent.values() if sent.state == "queued"]

    def on_their_way(self) -> bool:
        """Whether the service hasn't told its id of some yet."""
        return any(sent.state in ("queued", "intended") for sent in self.sent.values())

    def stand(self) -> dict[str, Any]:
        """How many are at the service and before it, and where they stand in its queue: for the status."""
        sent = [*self.sent.values()]
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
        """Those that haven't ended, or whose end the task's table may not have yet."""
        return [open_row(self._setup.name, sent) for sent in [*self.sent.values()] if not sent.noted]
