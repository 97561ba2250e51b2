"""What the schedule is told (events), what it asks for (actions), and the ranges of circuits that both speak of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chunk:
    """Circuits ``[start, stop)``, to be run on one backend.

    Attributes:
        start: First circuit.
        stop: One past the last.
        backend: Position in the task's list of backends.
        attempt: 0 for the first try; a chunk's crash raises it.
        memory: Bytes that it must reserve, found out by an earlier attempt; 0 if nothing special.
        barred: Backends that have given it back.
        bound: Whether no other backend may have it: a job of an earlier session is running it.
    """

    start: int
    stop: int
    backend: int = 0
    attempt: int = 0
    memory: int = 0
    barred: tuple[int, ...] = ()
    bound: bool = False

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Failure:
    """Circuits ``[start, stop)`` have no counts, for one reason."""

    start: int
    stop: int
    error_type: str
    error: str
    stage: str = ""
    status: str = "failed"


@dataclass(frozen=True, slots=True)
class Deferred:
    """A circuit that wasn't run, since its chunk had reserved less memory than it needs."""

    start: int
    stop: int
    memory: int


@dataclass(frozen=True, slots=True)
class Returned:
    """Circuits ``[start, stop)`` that their backend won't run: another one may; ``stage``: how far they came."""

    start: int
    stop: int
    error_type: str
    error: str
    stage: str = "submit"


# Events.


@dataclass(frozen=True, slots=True)
class Slots:
    """A backend can run so many chunks at once, from now on."""

    backend: int
    slots: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A chunk came back: its rows are safe."""

    chunk: Chunk
    seconds: float
    done: int
    failures: tuple[Failure, ...] = ()
    deferred: tuple[Deferred, ...] = ()
    returned: tuple[Returned, ...] = ()


@dataclass(frozen=True, slots=True)
class Wants:
    """A service has room for so many more chunks, on top of those that it has."""

    backend: int
    chunks: int


@dataclass(frozen=True, slots=True)
class Paced:
    """A service's chunk took so long to be prepared; its rows come when its jobs are over."""

    chunk: Chunk
    seconds: float


@dataclass(frozen=True, slots=True)
class Closed:
    """A backend takes nothing more: no credit, or it fails everything."""

    backend: int
    error_type: str
    error: str


@dataclass(frozen=True, slots=True)
class Crashed:
    """A chunk's process died, or broke outside any one circuit; nothing of it is kept."""

    chunk: Chunk
    error_type: str
    error: str


@dataclass(frozen=True, slots=True)
class Shortened:
    """The source had fewer circuits than ``chunk`` asks for; the task has ``total``."""

    chunk: Chunk
    total: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """A chunk didn't run, because the task was cancelled."""

    chunk: Chunk


@dataclass(frozen=True, slots=True)
class Cancel:
    """Start nothing any more."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether new chunks may be started: closed while a reader of the stream lags behind."""

    open: bool


Event = Slots | Wants | Paced | Closed | Stored | Crashed | Shortened | Dropped | Cancel | Gate


# Actions.


@dataclass(frozen=True, slots=True)
class Start:
    """Submit this chunk."""

    chunk: Chunk


@dataclass(frozen=True, slots=True)
class Drained:
    """A service has room, and there is nothing more to give to it for now: what it has needn't wait for more."""

    backend: int


@dataclass(frozen=True, slots=True)
class WriteFailed:
    """Write rows without counts for these circuits: no worker will."""

    failure: Failure
    backend: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Stop:
    """One reason fails everything: cancel what runs, tell the user."""

    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is left to do."""


Action = Start | Drained | WriteFailed | Stop | Finish
