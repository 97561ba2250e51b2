"""Chunks that jobs of an earlier session are running: no other backend may have them, or they are paid twice."""

from __future__ import annotations

from collections import deque

from ray_qjm.planning.chunks import ChunkSizer
from ray_qjm.planning.events import Action, Chunk, Closed, Crashed, Returned, Slots, Start, Stored, Wants
from ray_qjm.planning.schedule import BackendState, Schedule


def two_backends() -> Schedule:
    """A service with the jobs of an earlier session, and a simulator with room."""
    service = BackendState(ChunkSizer(1.5), service=True)
    bound = deque([Chunk(0, 4, 0, bound=True)])
    return Schedule(4, [service, BackendState(ChunkSizer(1.5))], bound=bound)


def started(actions: list[Action]) -> list[Chunk]:
    return [action.chunk for action in actions if isinstance(action, Start)]


def test_one_whose_worker_died_goes_to_its_own_backend_again() -> None:
    schedule = two_backends()
    (chunk,) = started(schedule.handle(Slots(0, 1), Slots(1, 2), Wants(0, 1)))
    assert started(schedule.handle(Crashed(chunk, "WorkerDiedError", "died"))) == []
    (again,) = started(schedule.handle(Wants(0, 1)))
    assert again.backend == 0 and again.bound and again.attempt == 1


def test_halves_stay_with_it_too_even_if_it_takes_nothing_else() -> None:
    schedule = two_backends()
    (chunk,) = started(schedule.handle(Slots(0, 1), Slots(1, 2), Wants(0, 1)))
    schedule.handle(Closed(0, "NoCreditError", "no credit left"))
    (again,) = started(schedule.handle(Crashed(chunk, "WorkerDiedError", "died")))
    halves = started(schedule.handle(Crashed(again, "WorkerDiedError", "died")))
    assert [(half.start, half.stop, half.backend) for half in halves] == [(2, 4, 0), (0, 2, 0)]


def test_one_that_waits_is_started_when_its_backend_closes() -> None:
    schedule = two_backends()
    (chunk,) = started(schedule.handle(Slots(0, 1), Slots(1, 2), Wants(0, 1)))
    schedule.handle(Crashed(chunk, "WorkerDiedError", "died"))
    (again,) = started(schedule.handle(Closed(0, "NoCreditError", "no credit left")))
    assert again.backend == 0


def test_what_its_job_hasnt_run_is_free() -> None:
    schedule = two_backends()
    (chunk,) = started(schedule.handle(Slots(0, 1), Slots(1, 2), Wants(0, 1)))
    (free,) = started(schedule.handle(Stored(chunk, 1.0, 0, returned=(Returned(0, 4, "E", "e"),))))
    assert free.backend == 1 and not free.bound
