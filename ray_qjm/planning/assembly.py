"""From prepared chunks to jobs of one service and back: what is submitted, halved, given back, and when rows are whole.

A chunk's circuits go into jobs of any boundaries. A *cell* is one slice of the shots of one circuit; each is in one
job at a time. When the last cell of a chunk is over, the chunk is: its rows can be made.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ray_qjm.errors import InvalidTransitionError
from ray_qjm.options import Limits
from ray_qjm.planning.events import Chunk
from ray_qjm.planning.orders import Order, Run
from ray_qjm.planning.packing import Packer
from ray_qjm.planning.ranges import Ranges
from ray_qjm.planning.verdicts import Verdict

#: So many jobs may fail one after the other, none succeeding between them, before the backend is taken for broken:
#: halving a job of 10,000 circuits of which every one is refused would submit 20,000 jobs. One broken circuit
#: among good ones never fails two jobs in a row at the same level, so that 14 levels pass unharmed.
BREAKS_AFTER = 10


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
    left: int = 0
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
        self._failed_in_a_row = 0
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
        return order

    def prepared(self, chunk: Chunk, sizes: Mapping[int, int]) -> list[Act]:
        """A chunk's circuits can be submitted.

        Args:
            chunk: Which.
            sizes: Bytes of each that can be; the others have their rows already.
        """
        piece = self._pieces[chunk.start] = _Piece(chunk, sizes)
        insort(self._starts, chunk.start)
        acts: list[Act] = []
        for circuit, size in sizes.items():
            if self._packer.fits(size):
                taken = self._taken(circuit)
                piece.left += len(taken) or len(self._packer.slices(self._shots_of(circuit)))
                if not taken:
                    acts += map(self._submit, self._packer.add(circuit, self._shots_of(circuit), size))
                continue
            reason = f"it takes {size} bytes, and a job may have {self._packer.limits.max_payload_bytes}"
            lack = Lack(circuit, circuit + 1, Verdict("give up", "PayloadTooLargeError", reason))
            piece.lacks.append(lack)
        if not piece.left:
            acts.append(Collect(None, (self._whole(piece),)))
        return acts if self.closed is None else [*acts, *self.flush()]

    def flush(self) -> list[Act]:
        """Nothing more will come for now: what waits goes as it is."""
        return [self._submit(order) for order in self._packer.flush()]

    def done(self, number: int) -> list[Act]:
        """A job has its result."""
        order = self._leave(number)
        self._failed_in_a_row = 0
        wholes = []
        for piece, start, stop, cells in self._cells(order):
            piece.have.add(start, stop)
            if not piece.orders or piece.orders[-1] != number:
                piece.orders.append(number)
            piece.left -= cells
            if not piece.left:
                wholes.append(self._whole(piece))
        return [Collect(order, tuple(wholes))]

    def absent(self, number: int) -> list[Act]:
        """An adopted job never reached its service, as one knows now: its circuits go as a job of their own."""
        order = self._leave(number)
        runs = [run._replace(start=a, stop=b) for run in order.runs for _, a, b in self._within(run)]
        return [self._submit(self._again(order, runs))] if runs else []

    def failed(self, number: int, verdict: Verdict) -> list[Act]:
        """A job was refused, or ended without a result, and nothing of it is unknown any more."""
        order = self._leave(number)
        acts: list[Act] = []
        if verdict.what not in ("cancelled", "no credit"):
            self._failed_in_a_row += 1
        if self.closed is None and (verdict.what == "no credit" or self._failed_in_a_row >= BREAKS_AFTER):
            self.closed = verdict
            acts.append(Close(verdict))
        if self.closed is None and verdict.what == "split job" and order.circuits > 1:
            return [*acts, *(self._submit(self._again(order, half)) for half in order.halves())]
        if self.closed is None and verdict.what == "split shots" and max(run.shots for run in order.runs) > 1:
            return [*acts, *self._split_shots(order)]
        final = verdict.what in ("give up", "split job", "split shots") and self.closed is None
        return acts + self._lack(order, verdict, elsewhere=not final)

    # Within.

    def _submit(self, order: Order) -> Submit:
        self._orders[order.number] = order
        return Submit(order)

    def _leave(self, number: int) -> Order:
        # A chunk that comes back later with circuits of a job that is over is packed like any other.
        self._adopted = [order for order in self._adopted if order.number != number]
        try:
            return self._orders.pop(number)
        except KeyError:
            raise InvalidTransitionError(f"job number {number} ended, and isn't under way.") from None

    def _taken(self, circuit: int) -> list[Run]:
        """Runs of adopted jobs that this circuit is in."""
        return [run for order in self._adopted for run in order.runs if run.start <= circuit < run.stop]

    def _again(self, order: Order, runs: Sequence[Run]) -> Order:
        size = sum(
            piece.sizes.get(circuit, 0)
            for run in runs
            for piece, start, stop in self._within(run)
            for circuit in range(start, stop)
        )
        return self._packer.order(runs, size, order.attempt + 1)

    def _split_shots(self, order: Order) -> Iterator[Act]:
        first: list[Run] = []
        second: list[Run] = []
        for run in order.runs:
            half = (run.shots + 1) // 2
            first.append(run._replace(shots=half, slice_=2 * run.slice_ + 1))
            if half < run.shots:
                second.append(run._replace(shots=run.shots - half, slice_=2 * run.slice_ + 2))
                for piece, start, stop in self._within(run):
                    piece.left += stop - start
        for runs in (first, second):
            if runs:
                yield self._submit(self._again(order, runs))

    def _lack(self, order: Order, verdict: Verdict, *, elsewhere: bool) -> list[Act]:
        wholes = []
        for piece, start, stop, cells in self._cells(order):
            piece.lacks.append(Lack(start, stop, verdict, elsewhere))
            piece.left -= cells
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

    def _cells(self, order: Order) -> Iterator[tuple[_Piece, int, int, int]]:
        """What of an order is in which piece: circuits, and how many cells."""
        for run in order.runs:
            for piece, start, stop in self._within(run):
                yield piece, start, stop, stop - start

    def _within(self, run: Run) -> Iterator[tuple[_Piece, int, int]]:
        first = max(bisect_right(self._starts, run.start) - 1, 0)
        for at in self._starts[first : bisect_left(self._starts, run.stop)]:
            piece = self._pieces[at]
            start, stop = max(run.start, piece.chunk.start), min(run.stop, piece.chunk.stop)
            if start < stop:
                yield piece, start, stop
