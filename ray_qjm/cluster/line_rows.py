"""Rows of a line's jobs: results fetched, and chunks whose jobs are all there made rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.exceptions import RayError

from ray_qjm.backends.base import FetchFailed
from ray_qjm.backends.codes import words
from ray_qjm.cluster.desk_link import DeskLink
from ray_qjm.cluster.line_jobs import Piece, Sent, overlap
from ray_qjm.cluster.messages import Outcome
from ray_qjm.cluster.service_tasks import ServiceTasks, watch
from ray_qjm.errors import JobLostError, JobResultError, RayQjmError
from ray_qjm.options import RetryPolicy
from ray_qjm.planning.assembly import Whole
from ray_qjm.planning.orders import Order
from ray_qjm.planning.verdicts import Verdict, What

#: A fetch that fails is tried again after so many seconds, doubled each time, from the first to the second.
_FETCH_S = (0.5, 60.0)
#: Rows of a chunk that no job has circuits of are tried to be made so often.
_PACKS = 5


class LineRows:
    """Makes the rows of one line; used in its thread only.

    Args:
        link: To the desk.
        tasks: Starts Ray tasks.
        pieces: The line's chunks, by their first circuit.
        sent: The line's jobs, by number.
        retry: See ``RetryPolicy``.
        put: Runs a function in the line's thread.
        later: As ``put``, after so many seconds.
        over: Is told of a job whose result can't be had, with its state and why.
        landed: Is told of a chunk's rows.
        under_way: Whether a job isn't done yet as far as the assembly knows.
        ended: Whether all chunks have their answers.
    """

    def __init__(
        self,
        link: DeskLink,
        tasks: ServiceTasks,
        pieces: Mapping[int, Piece],
        sent: Mapping[int, Sent],
        *,
        retry: RetryPolicy,
        put: Callable[[Callable[[], None]], None],
        later: Callable[[float, Callable[[], None]], None],
        over: Callable[[Sent, str, Verdict], None],
        landed: Callable[[int, Outcome], None],
        under_way: Callable[[int], bool],
        ended: Callable[[], bool],
    ) -> None:
        self._link = link
        self._tasks = tasks
        self._pieces = pieces
        self._sent = sent
        self._retry = retry
        self._put = put
        self._later = later
        self._over = over
        self._landed = landed
        self._under_way = under_way
        self._ended = ended
        #: Chunks that are over, some of whose jobs haven't been read.
        self._whole: list[Whole] = []

    def fetch(self, sent: Sent, then: Callable[[], None]) -> None:
        """Have the result of a job that is done; a fetch that fails is done again, never the job."""
        why_not, raw = self._link.fetch(sent.tag)
        watch(why_not, lambda answer: self._put(lambda: self._fetched(sent, answer, raw, then)))

    def _fetched(
        self, sent: Sent, why_not: FetchFailed | BaseException | None, raw: Any, then: Callable[[], None]
    ) -> None:
        number = sent.order.number
        if self._sent.get(number) is not sent or self._ended():
            return
        if why_not is None:
            sent.raw = raw
            then()
            return
        final = isinstance(why_not, FetchFailed) and why_not.final
        said = why_not.reason if isinstance(why_not, FetchFailed) else words(why_not)
        reason = f"its result can't be had: {said}"
        now = time.monotonic()
        sent.fetches += 1
        sent.fetched_at = now if sent.fetched_at is None else sent.fetched_at
        if not final and now - sent.fetched_at < self._retry.give_up_s:
            wait = min(_FETCH_S[1], _FETCH_S[0] * 2 ** min(sent.fetches - 1, 16))
            self._later(wait, lambda: self.fetch(sent, then))
        elif not self._under_way(number):  # it was fetched before, and got lost on the way to its rows
            sent.raw = RayQjmError(reason)
            then()
        elif not final:  # it was paid: a resume with retry_failed adopts its job, and asks again
            self._over(sent, "lost", Verdict("give up", JobResultError.__name__, reason))
        else:
            what: What = "again" if self._retry.lost == "resubmit" else "give up"
            self._over(sent, "lost", Verdict(what, JobLostError.__name__, reason))

    def collect(self, order: Order | None, wholes: Sequence[Whole]) -> None:
        """See ``planning.assembly.Collect``."""
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

    def _gather(self, sent: Sent | None, wholes: Sequence[Whole], tries: int = 0) -> None:
        """Start a Ray task that makes rows; one that fails is started again, never the job."""
        chunks = {whole.chunk.start for whole in wholes}
        earlier = [self._sent[number] for whole in wholes for number in whole.orders]
        others = {item.order.number: item for item in earlier if item is not sent}
        touched = [] if sent is None else [p for p in self._pieces.values() if overlap(sent.order, p.chunk)]
        pieces = {piece.chunk.start: piece for piece in touched}
        pieces.update({start: self._pieces[start] for start in chunks})
        jobs = [item.job for item in (*others.values(), *([sent] if sent else [])) if item.job is not None]
        answers = self._tasks.collect(
            None if sent is None else sent.order,
            "" if sent is None or sent.job is None else sent.job.job_id or "",
            None if sent is None else sent.raw,
            wholes,
            jobs,
            [piece.sheet for piece in pieces.values()],
            [item.answers for item in others.values()],
            lambda found: self._put(lambda: self._gathered(sent, wholes, found, tries)),
        )
        if sent is not None:
            sent.answers = answers

    def _gathered(
        self, sent: Sent | None, wholes: Sequence[Whole], found: list[Outcome] | BaseException, tries: int
    ) -> None:
        if self._ended():
            return
        if isinstance(found, BaseException):
            self._gather_again(sent, wholes, found, tries + 1)
            return
        for whole, outcome in zip(wholes, found, strict=True):
            self._landed(whole.chunk.start, outcome)
        if sent is not None:
            sent.read = True
            if ready := self._ready():
                self._gather(None, ready)

    def _gather_again(
        self, sent: Sent | None, wholes: Sequence[Whole], why: BaseException, tries: int
    ) -> None:
        if not isinstance(why, RayError) or tries >= _PACKS:
            raise RayQjmError(f"rows can't be made: {words(why)}")
        if sent is not None:
            # Ray writes of errors that nobody has looked at: that of the outcomes said the same.
            sent.answers.future().add_done_callback(lambda future: future.exception())

        def again() -> None:
            self._gather(sent, wholes, tries)

        # A worker has died, or a node with the result in its memory.
        call = again if sent is None else lambda: self.fetch(sent, again)
        self._later(_FETCH_S[0] * 2**tries, call)
