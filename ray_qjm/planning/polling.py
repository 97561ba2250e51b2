"""When a service is asked how its jobs are: often enough that no slot stays empty, no more often than that."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

#: A service is polled once in this share of the time that passes between two of its jobs' ends: a slot that came
#: free is seen after half of that on average, which leaves slots idle for 1 % of the time.
POLL_SHARE = 0.02
#: Seconds before a poll that failed is tried again: doubled each time, from the first to the second.
ERROR_S = (0.25, 60.0)


@dataclass(slots=True)
class Counter:
    """What is known of one backend.

    Attributes:
        least_s: Seconds between two polls at least.
        most_s: And at most.
        tags: Jobs that were accepted and aren't over, the oldest first, and when they were accepted.
        polling: Whether an answer is awaited.
        polled_at: When the last one came; or later, after errors.
        between_s: Seconds between the ends of two jobs, of late.
        paused_until: Nothing is submitted before.
        in_a_row: Polls that failed, one after the other.
    """

    least_s: float
    most_s: float
    tags: dict[str, float] = field(default_factory=dict)
    polling: bool = False
    polled_at: float = -math.inf
    ended_at: float | None = None
    between_s: float | None = None
    paused_until: float = -math.inf
    in_a_row: int = 0

    def accepted(self, tag: str, now: float) -> None:
        """It has one more job."""
        if not self.tags and self.ended_at is not None:
            self.ended_at = now  # what nobody waited for is no measure of how quick its jobs are
        self.tags[tag] = now

    def ended(self, now: float) -> None:
        """One of its jobs is over; several that one answer tells of count once: their slots came free together."""
        if self.ended_at is not None and now > self.ended_at:
            gap = now - self.ended_at
            self.between_s = gap if self.between_s is None else self.between_s + 0.3 * (gap - self.between_s)
        self.ended_at = now

    def poll_at(self) -> float:
        """When it is polled next: the more often the quicker its jobs are; ``inf``: not before something happens."""
        if self.polling or not self.tags:
            return math.inf
        oldest_at = next(iter(self.tags.values()))
        last = max(self.polled_at, oldest_at)
        since = last - oldest_at if self.between_s is None else self.between_s
        return last + min(self.most_s, max(self.least_s, POLL_SHARE * since))

    def answered(self, now: float, *, well: bool) -> None:
        """An answer to a poll came, or none."""
        self.polling = False
        self.in_a_row = 0 if well else self.in_a_row + 1
        least, most = ERROR_S
        self.polled_at = now if well else now + min(most, least * 2 ** min(self.in_a_row, 16))
