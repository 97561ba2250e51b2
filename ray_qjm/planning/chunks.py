"""How many circuits make the next chunk of a simulator: sized by time, learnt as the task runs."""

from __future__ import annotations

import math

#: The first chunk of a backend: small, so that the bar moves at once and the pace is known soon.
FIRST = 4
#: A chunk is at most this many times the largest yet seen: one lucky measurement must not make a huge one.
GROWTH = 4
#: Most circuits in a chunk, unless options say otherwise: bounds a part (30 outcomes a circuit: 5 MB).
MOST = 10_000
#: The tail is cut into chunks of `1 / TAIL_SHARE` of a slot's share of what is left (guided
#: self-scheduling): a slot that ends early finds another chunk, and the last ones are short.
TAIL_SHARE = 2
#: Tail chunks are not cut below this share of the target time: a chunk's fixed cost is milliseconds.
TAIL_FLOOR = 1 / 15
#: Chunks that may come back in a second, over all slots: about half of what one driver keeps up with, Ray's own
#: work in its process included (``benchmarks/scale.py``). Where more would come, chunks are longer.
A_SECOND = 250
#: Weight of the newest chunk in the running mean of seconds a circuit.
NEWEST = 0.3


class ChunkSizer:
    """Learns the pace of one backend and cuts its chunks.

    Args:
        target_s: Seconds that a chunk should take, at least.
        most: Most circuits in a chunk.
    """

    def __init__(self, target_s: float, most: int | None = None) -> None:
        self._target_s = target_s
        self._most = MOST if most is None else most
        self._largest = 0
        self._pace_s: float | None = None

    @property
    def pace_s(self) -> float | None:
        """Seconds a circuit, or ``None`` before the first chunk came back."""
        return self._pace_s

    def observe(self, circuits: int, seconds: float) -> None:
        """Learn from a chunk that took ``seconds`` for ``circuits``."""
        if circuits <= 0:
            return
        pace = seconds / circuits
        if self._pace_s is None or circuits > self._largest:
            # A larger chunk is always better evidence: small ones are mostly fixed cost and warming up.
            self._pace_s = pace
        else:
            self._pace_s += NEWEST * (pace - self._pace_s)
        self._largest = max(self._largest, circuits)

    def size(self, left: int | None, slots: int) -> int:
        """Circuits of the next chunk, at least 1.

        Args:
            left: Circuits of the task that are in no chunk yet; ``None`` if unknown.
            slots: Chunks that can run at once.
        """
        if self._pace_s is None:
            wanted = FIRST
        else:
            target_s = max(self._target_s, slots / A_SECOND)
            fitting = target_s / self._pace_s if self._pace_s > 0 else self._most
            wanted = int(min(self._most, GROWTH * self._largest, max(1.0, fitting)))
        wanted = min(wanted, self._most)
        if left is None:
            return max(1, wanted)
        share = math.ceil(left / (TAIL_SHARE * max(1, slots)))
        floor = math.ceil(wanted * TAIL_FLOOR)
        return max(1, min(wanted, max(share, floor), left))
