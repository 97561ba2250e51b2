"""Jobs that wait for a permit, and for how long a service wants none: clients take turns."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from ray_qjm.planning.tickets import Ticket


class Waiting:
    """See the module's docstring.

    Args:
        ready_at: From when on a job may be sent, as far as itself and its backend are concerned.
    """

    def __init__(self, ready_at: Callable[[Ticket], float]) -> None:
        self._ready_at = ready_at
        self._lines: dict[str, deque[Ticket]] = {}
        self._full_until = -math.inf
        self._throttled_until = -math.inf
        #: How often the service has refused since it last took a job.
        self.refusals = 0

    def add(self, ticket: Ticket, *, first: bool = False) -> None:
        """A job waits, behind the others of its client or before them."""
        line = self._lines.setdefault(ticket.client, deque())
        if first:
            line.appendleft(ticket)
        else:
            line.append(ticket)

    def remove(self, ticket: Ticket) -> None:
        """A job waits no more."""
        self._lines[ticket.client].remove(ticket)

    def full(self, until: float) -> None:
        """The service has no place: until then, or until one comes free."""
        self._full_until = max(self._full_until, until)

    def throttled(self, until: float) -> None:
        """The service wants to be left alone until then."""
        self._throttled_until = max(self._throttled_until, until)

    def place_came_free(self) -> None:
        """A job has left the service."""
        if self.refusals:
            self._full_until = -math.inf

    def take(self, now: float) -> Ticket | None:
        """The job that gets the next permit, if there is one."""
        if max(self._full_until, self._throttled_until) > now:
            return None
        for client, line in list(self._lines.items()):
            for ticket in line:
                if self._ready_at(ticket) <= now:
                    line.remove(ticket)
                    # To the end of the line: others come first next time.
                    del self._lines[client]
                    if line:
                        self._lines[client] = line
                    return ticket
        return None

    def next_at(self, now: float, free_at: float) -> float:
        """When time alone brings the next permit; ``inf``: it doesn't.

        Args:
            now: The time.
            free_at: From when on there are slots and tokens.
        """
        first = math.inf
        if free_at == math.inf:
            return first
        at_least = max(free_at, self._full_until, self._throttled_until)
        for line in self._lines.values():
            for ticket in line:
                ready = max(self._ready_at(ticket), at_least)
                # What has been ready all along waits for something else than time: a fence, a slot.
                if now < ready < first:
                    first = ready
                    if first <= at_least:
                        return first  # none can be earlier
        return first
