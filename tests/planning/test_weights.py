"""Which of several services gets the next chunk while all of them want some, and how large it is."""

from __future__ import annotations

from collections import Counter

import pytest

from ray_qjm.planning.chunks import ChunkSizer
from ray_qjm.planning.events import Paced, Slots, Start, Wants
from ray_qjm.planning.schedule import BackendState, Schedule


@pytest.mark.parametrize(
    ("weights", "shares"), [((1.0, 1.0), (4, 4)), ((3.0, 1.0), (6, 2)), ((1.0, 7.0), (1, 7))]
)
def test_a_heavier_service_gets_more_while_both_want_it(
    weights: tuple[float, float], shares: tuple[int, int]
) -> None:
    backends = [BackendState(ChunkSizer(1.5, 4), service=True, weight=weight) for weight in weights]
    schedule = Schedule(None, backends, max_in_flight=8)
    actions = schedule.handle(Slots(0, 4), Slots(1, 4), Wants(0, 8), Wants(1, 8))
    got = Counter(action.chunk.backend for action in actions if isinstance(action, Start))
    assert (got[0], got[1]) == shares


def test_a_service_learns_its_pace_while_its_jobs_are_under_way() -> None:
    """Or all chunks of its first jobs would be as small as the very first one."""
    schedule = Schedule(10_000, [BackendState(ChunkSizer(1.0), service=True)])
    sizes = []
    for _ in range(4):
        (start, *_) = schedule.handle(Wants(0, 1))
        assert isinstance(start, Start)
        sizes.append(len(start.chunk))
        schedule.handle(Paced(start.chunk, 0.001 * len(start.chunk)))
    assert sizes == [4, 16, 64, 256]
