"""From prepared chunks to jobs of one service and back: what is submitted, halved, given back, and when rows are whole.

A chunk's circuits go into jobs of any boundaries. A *cell* is one slice of the shots of one circuit; each is in one
job at a time. When the last cell of a chunk is over, the chunk is: its rows can be made.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ray_qjm.errors import BackendClosedError, InvalidTransitionError, PayloadTooLargeError
from ray_qjm.options import Limits
from ray_qjm.planning.events import Chunk
from ray_qjm.planning.orders import Order, Run, joined
from ray_qjm.planning.packing import Packer
from ray_qjm.planning.ranges import Ranges
from ray_qjm.planning.verdicts import NOT_ITS_FAULT, Verdict

#: A backend is taken for broken when so many jobs failed one after the other, none succeeding between them; jobs that
#: are halved don't count, and a circuit that fails alone counts for two. Halving a job of 10,000 circuits of which each
#: is refused would submit 20,000 jobs; but ten jobs in a row may fail for one broken circuit in each of them.
BREAKS_AFTER = 10
#: One that has done jobs may have so many more circuits that fail alone, one for each job, up to this.
PROVEN = 20
#: And when then so many circuits fail too that have nothing to do with those: broken ones may stand side by side.
PROBES = 5
#: After so many jobs that failed in a row, halved ones included, no new ones go until one has succeeded.
WAITS_AFTER = 3
#: Slices that come of cutting others are numbered from here on: no circuit has so many from the start.
FRESH = 2**20


@dataclass(frozen=True, slots=True)
class Lack:
    """The circuits ``[start, stop)`` of a chunk have no counts from this backend, or not all of their shots.

    ``elsewhere`` tells whether another backend may run them.
    """

    start: int
    stop: int
    verdict: Verdict
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class Whole:
    """A chunk is over.

    Attributes:
        chunk: Which.
        orders: Numbers of the jobs that have counts of its circuits.
        lacks: What has none, or not all.
    """

    chunk: Chunk
    orders: tuple[int, ...]
    lacks: tuple[Lack, ...]


@dataclass(frozen=True, slots=True)
class Submit:
    """Hand a job to the desk."""

    order: Order


@dataclass(frozen=True, slots=True)
class Collect:
    """Make rows.

    Attributes:
        order: The job whose result has come; ``None``: none has, all that is needed was there.
        wholes: Chunks that are over with it.
    """

    order: Order | None
    wholes: tuple[Whole, ...]


@dataclass(frozen=True, slots=True)
class Close:
    """The backend takes nothing more."""

    verdict: Verdict


Act = Submit | Collect | Close


@dataclass(slots=True)
class _Piece:
    chunk: Chunk
    sizes: Mapping[int, int]
    left: int = 0  # cells whose jobs aren't over
    orders: list[int] = field(default_factory=list)
    have: Ranges = field(default_factory=Ranges)
    lacks: list[Lack] = field(default_factory=list)


class Assembly:
    """One task's work at one service.

    Args:
        limits: Of one job.
        mixed: Whether a job may hold circuits with different numbers of shots.
        shots_of: Shots of a circuit.
    """

    def __init__(self, limits: Limits, *, mixed: bool, shots_of: Callable[[int], int]) -> None:
        self._packer = Packer(limits, mixed=mixed)
        self._shots_of = shots_of
        self._pieces: dict[int, _Piece] = {}
        self._starts: list[int] = []
        self._orders: dict[int, Order] = {}
        self._adopted: list[Order] = []
        self._ended: set[int] = set()
        self._slices = FRESH
        self._failed_in_a_row = 0
        self._streak = 0
        #: Parts of jobs that failed, and the job that is being followed down to the circuit at fault. While none
        #: succeeds one is followed at a time: all may be broken.
        self._held: list[Order] = []
        self._hunted: int | None = None
        self._good = 0
        #: Circuits that have yet to fail alone before the backend is closed; ``None``: it isn't under suspicion.
        self._probes: int | None = None
        self._probed: set[int] = set()
        #: Circuits that failed alone since something succeeded.
        self._suspects: set[int] = set()
        self.closed: Verdict | None = None

    @property
    def waiting(self) -> int:
        """Cells that wait for others, to fill a job."""
        return self._packer.waiting

    @property
    def orders(self) -> Mapping[int, Order]:
        """Jobs under way, by number."""
        return self._orders

    def adopt(self, runs: Sequence[Run]) -> Order:
        """A job that an earlier session submitted: its cells won't be packed again.

        Its circuits have to come in as chunks nevertheless, for their rows to be made.
        """
        order = self._packer.order(runs, 0, 0)
        self._orders[order.number] = order
        self._adopted.append(order)
        self._slices = max(self._slices, *(run.slice_ + 1 for run in runs))
        return order

    def prepared(self, chunk: Chunk, sizes: Mapping[int, int]) -> list[Act]:
        """A chunk's circuits can be submitted.

        Args:
            chunk: Which.
            sizes: Bytes of each that can be; the others have their rows already.
        """
        piece = self._pieces[chunk.start] = _Piece(chunk, sizes)
        insort(self._starts, chunk.start)
        taken = self._take(piece)
        acts: list[Act] = []
        for circuit in sizes:
            had = [run for run in taken if run.start <= circuit < run.stop]
            shots = self._shots_of(circuit) - sum(run.shots for run in had)
            if shots > 0:
                first = self._fresh(len(self._packer.slices(shots))) if had else 0
                acts += self._pack(piece, circuit, shots, first)
        if not piece.left:
            acts.append(Collect(None, (self._whole(piece),)))
        return acts

    def flush(self) -> list[Act]:
        """Nothing more will come for now: what waits goes as it is."""
        return list(self._offer(self._packer.flush()))

    def done(self, number: int) -> list[Act]:
        """A job has its result."""
        order = self._leave(number)
        self._ended.add(number)
        self._failed_in_a_row = self._streak = 0
        self._probes = None
        self._probed.clear()
        self._suspects.clear()
        self._good += 1
        self._hunted = None
        held, self._held = self._held, []
        wholes = []
        for _, piece, start, stop in self._cells(order):
            piece.have.add(start, stop)
            if not piece.orders or piece.orders[-1] != number:
                piece.orders.append(number)
            piece.left -= stop - start
            if not piece.left:
                wholes.append(self._whole(piece))
        return [Collect(order, tuple(wholes)), *map(self._submit, held)]

    def failed(self, number: int, verdict: Verdict) -> list[Act]:
        """A job was refused, or ended without a result, and nothing of it is unknown any more."""
        order = self._leave(number)
        adopted = order in self._adopted
        order = self._here(order)
        acts: list[Act] = []
        self._streak += 1
        cut = self._cut(order, verdict)
        counts = cut is None and not adopted
        if self.closed is None and (
            verdict.what == "no credit" or (counts and self._is_broken(order, verdict))
        ):
            self.closed = verdict if verdict.what == "no credit" else self._closing(verdict)
            acts.append(Close(self.closed))
            for waiting in self._packer.flush():
                acts += self._lack(waiting, self.closed, elsewhere=True)
        if self.closed is not None or verdict.what == "cancelled":
            held, self._held, self._hunted = self._held, [], None
            for waiting in held:
                acts += self._lack(waiting, self.closed or verdict, elsewhere=True)
        if self.closed is None and verdict.what == "again":
            # The desk can't send it again: an earlier session has sent it, or this one was taken for dead.
            # Neighbours get the same numbers of slices: then they are one run again, however many they are.
            firsts = {run: self._fresh(len(self._packer.slices(run.shots))) for run in order.runs}
            for run, piece, start, stop in self._cells(order):
                for circuit in range(start, stop):
                    piece.left -= 1
                    acts += self._pack(piece, circuit, run.shots, firsts[run])
            return [*acts, *self._hunt(number), *self.flush()]
        if self.closed is None and cut is not None:
            halves = order.halves() if cut == "circuits" else self._halves_of_shots(order)
            self._held += [self._again(order, half) for half in reversed(halves) if half]
            return [*acts, *self._hunt(number)]
        if verdict.what == "split shots":
            # A single shot of it is too many: there is no use in trying the others.
            alike = [other for other in self._held if (other.start, other.stop) == (order.start, order.stop)]
            self._held = [other for other in self._held if other not in alike]
            for other in alike:
                acts += self._lack(other, verdict, elsewhere=self._good == 0)
        acts += self._hunt(number)
        final = verdict.what in ("give up", "split job", "split shots") and self.closed is None
        # Where nothing has succeeded yet it may be the backend's fault: another one may run it.
        final = final and (self._good > 0 or verdict.what == "give up")
        return acts + self._lack(order, verdict, elsewhere=not final)

    def too_dear(self, number: int, affordable: int, verdict: Verdict) -> list[Act]:
        """Of a job that isn't submitted yet only so many circuits can be paid: these go, and nothing more."""
        if affordable < 1:
            return self.failed(number, verdict)
        order = self._leave(number)
        first, rest = (self._again(order, runs) for runs in order.cut(affordable))
        self._orders[rest.number] = rest
        return [self._submit(first), *self.failed(rest.number, verdict)]

    # Within.

    def _cut(self, order: Order, verdict: Verdict) -> Literal["circuits", "shots"] | None:
        """How a job that failed is made smaller, if it is."""
        many, most = order.circuits > 1, max((run.shots for run in order.runs), default=0)
        if verdict.what == "split shots" and (most > 1 or many):
            # It may be one circuit that has too many, whatever the words: by turns.
            return "circuits" if many and (order.attempt % 2 or most == 1) else "shots"
        return "circuits" if verdict.what == "split job" and many else None

    def _is_broken(self, order: Order, verdict: Verdict) -> bool:
        """One more failed, and nothing smaller is left to be tried: whether that is enough to close the backend."""
        if verdict.what in ("cancelled", "no credit") or verdict.error_type in NOT_ITS_FAULT:
            return False
        alone = verdict.what in ("split job", "split shots")
        if alone and order.start in self._suspects:
            return False  # more of the shots of one circuit
        self._suspects.add(order.start)
        self._failed_in_a_row += 2 if alone else 1
        if self._failed_in_a_row < BREAKS_AFTER + 2 * min(self._good, PROVEN):
            return False
        if not alone:
            return True
        self._probes = PROBES if self._probes is None else self._probes - 1
        return self._probes == 0

    def _closing(self, verdict: Verdict) -> Verdict:
        said = (
            f"{self._streak} jobs failed one after the other, and nothing more was sent; the last: {verdict}"
        )
        return Verdict("elsewhere", BackendClosedError.__name__, said)

    def _probe(self) -> Order:
        """A circuit of what is held that has little to do with those that failed: from the largest part, in turn."""
        parts = [order for order in self._held if order.number not in self._probed] or self._held
        held = max(parts, key=lambda order: (order.circuits, order.stop))
        self._probed.add(held.number)
        at = self._held.index(held)
        if held.circuits == 1:
            return self._held.pop(at)
        run = held.runs[-1]
        rest = (*held.runs[:-1], *([run._replace(stop=run.stop - 1)] if run.circuits > 1 else []))
        self._held[at] = held._replace(runs=rest)
        return self._again(held, [run._replace(start=run.stop - 1)])

    def _hunt(self, number: int) -> Iterator[Submit]:
        """A job failed: follow its first half, or another part if it stood alone and was the one that is followed."""
        if self._held and self._hunted in (None, number):
            part = self._held.pop() if self._probes is None else self._probe()
            self._hunted = part.number
            yield self._submit(part)
        elif self._hunted == number:
            self._hunted = None

    def _offer(self, orders: Iterable[Order]) -> Iterator[Submit]:
        """Jobs that were just packed: they wait while all that was sent fails, and one job is followed to its end."""
        for order in orders:
            if self._hunted is not None and self._streak >= WAITS_AFTER:
                self._held.insert(0, order)
            else:
                yield self._submit(order)

    def _submit(self, order: Order) -> Submit:
        self._orders[order.number] = order
        return Submit(order)

    def _pack(self, piece: _Piece, circuit: int, shots: int, first: int) -> Iterator[Submit]:
        """Shots of a circuit go into a job, or it is told why they can't; ``first``: number of their first slice."""
        size = piece.sizes.get(circuit, 0)
        if self.closed is not None:
            piece.lacks.append(Lack(circuit, circuit + 1, self.closed, elsewhere=True))
        elif self._packer.fits(size):
            piece.left += len(self._packer.slices(shots))
            yield from self._offer(self._packer.add(circuit, shots, size, first))
        else:
            reason = f"it takes {size} bytes, and a job may have {self._packer.limits.max_payload_bytes}"
            verdict = Verdict("give up", PayloadTooLargeError.__name__, reason)
            piece.lacks.append(Lack(circuit, circuit + 1, verdict))

    def _leave(self, number: int) -> Order:
        try:
            return self._orders.pop(number)
        except KeyError:
            raise InvalidTransitionError(f"job number {number} ended, and isn't under way.") from None

    def _fresh(self, count: int) -> int:
        """The first of so many numbers of slices that no circuit has yet."""
        self._slices += count
        return self._slices - count

    def _take(self, piece: _Piece) -> list[Run]:
        """What adopted jobs have of a new piece; those that are done by now have it already."""
        found: list[Run] = []
        for order in self._adopted:
            cells = list(self._cells(order, piece))
            if not cells:
                continue
            found += [run for run, _, _, _ in cells]
            if order.number in self._ended:
                piece.orders.append(order.number)
            for _, _, start, stop in cells:
                if order.number in self._ended:
                    piece.have.add(start, stop)
                else:
                    piece.left += stop - start
        return found

    def _here(self, order: Order) -> Order:
        """A job that failed, less what isn't in any chunk yet: that will be packed anew, with its chunk."""
        if order not in self._adopted:
            return order
        self._adopted.remove(order)
        runs = [run._replace(start=a, stop=b) for run in order.runs for _, a, b in self._within(run)]
        return order._replace(runs=joined(runs))

    def _again(self, order: Order, runs: Sequence[Run]) -> Order:
        size = sum(
            piece.sizes.get(circuit, 0)
            for run in runs
            for piece, start, stop in self._within(run)
            for circuit in range(start, stop)
        )
        return self._packer.order(runs, size, order.attempt + 1)

    def _halves_of_shots(self, order: Order) -> tuple[list[Run], list[Run]]:
        first: list[Run] = []
        second: list[Run] = []
        for run in order.runs:
            half = (run.shots + 1) // 2
            first.append(run._replace(shots=half))
            if half < run.shots:
                second.append(run._replace(shots=run.shots - half, slice_=self._fresh(1)))
                for piece, start, stop in self._within(run):
                    piece.left += stop - start
        return first, second

    def _lack(self, order: Order, verdict: Verdict, *, elsewhere: bool) -> list[Act]:
        wholes = []
        for _, piece, start, stop in self._cells(order):
            piece.lacks.append(Lack(start, stop, verdict, elsewhere))
            piece.left -= stop - start
            if not piece.left:
                wholes.append(self._whole(piece))
        return [Collect(None, tuple(wholes))] if wholes else []

    def _whole(self, piece: _Piece) -> Whole:
        del self._pieces[piece.chunk.start]
        del self._starts[bisect_left(self._starts, piece.chunk.start)]
        lacks: list[Lack] = []
        told = Ranges()
        for lack in piece.lacks:
            for start, stop in told.rest(lack.start, lack.stop):
                # What has some of its shots stays here: its rest alone can't be another backend's.
                lacks += [Lack(a, b, lack.verdict) for a, b in piece.have.within(start, stop)]
                lacks += [Lack(a, b, lack.verdict, lack.elsewhere) for a, b in piece.have.rest(start, stop)]
            told.add(lack.start, lack.stop)
        return Whole(piece.chunk, tuple(piece.orders), tuple(sorted(lacks, key=lambda lack: lack.start)))

    def _cells(self, order: Order, only: _Piece | None = None) -> Iterator[tuple[Run, _Piece, int, int]]:
        """What of an order is in which piece, a cell a circuit."""
        for run in order.runs:
            for piece, start, stop in self._within(run):
                if only is None or piece is only:
                    yield run, piece, start, stop

    def _within(self, run: Run) -> Iterator[tuple[_Piece, int, int]]:
        first = max(bisect_right(self._starts, run.start) - 1, 0)
        for at in self._starts[first : bisect_left(self._starts, run.stop)]:
            piece = self._pieces[at]
            start, stop = max(run.start, piece.chunk.start), min(run.stop, piece.chunk.stop)
            if start < stop:
                yield piece, start, stop
