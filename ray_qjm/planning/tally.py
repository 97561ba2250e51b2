"""What a desk has done since its process began, by backend: numbers that only grow, for whoever watches."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Tally:
    """See the module's docstring.

    >>> tally = Tally()
    >>> tally.submitted["fez"] += 2; tally.refused["fez", "wait"] += 1
    >>> tally.plain()["submitted"], tally.plain()["refused"]
    ({'fez': 2}, {'fez': {'wait': 1}})

    Attributes:
        submitted: Requests that submit a job, those without a reply included.
        retried: Those of them that weren't a job's first.
        refused: Jobs that were not taken, by what the error means (``planning.verdicts.What``, and nothing else: words
            of a provider would make as many numbers as it has words).
        over: Jobs that are over, by the state in which they ended; twins and attempts that don't count left out.
    """

    submitted: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    over: Counter[tuple[str, str]] = field(default_factory=Counter)

    def plain(self) -> dict[str, Any]:
        """As plain dictionaries, by backend."""
        found: dict[str, Any] = {"submitted": dict(self.submitted), "retried": dict(self.retried)}
        for name in ("refused", "over"):
            of: dict[str, dict[str, int]] = {}
            for (backend, kind), count in getattr(self, name).copy().items():
                of.setdefault(backend, {})[kind] = count
            found[name] = of
        return found
