"""The search for a job by its tag: when the service is asked, and what its answers prove. ``now`` comes in."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Seconds between two questions: doubled from the first on, up to the second.
PAUSE_S = (1.0, 15.0)


@dataclass(slots=True)
class Search:
    """See the module's docstring.

    A request whose reply was lost may land for a while yet, and an answer is as old as its question: "none" is
    believed only of a question that was asked when that time was over.

    >>> search = Search()
    >>> search.begin(0.0); search.ask(0.0); search.answered(), search.proves_absence(0.5, over_at=60.0)
    (True, False)
    >>> search.at
    1.5
    >>> search.ask(60.0); search.answered(), search.proves_absence(60.5, over_at=60.0)
    (True, True)

    Attributes:
        at: When the service is asked next; infinite: it isn't.
        asked_at: When it was asked last.
        awaited: Whether the answer is awaited.
        asks: How often it was asked; of answers only the one to the last question says that there is no job.
        blanks: How often there was no answer, or one that proved nothing.
    """

    at: float = math.inf
    asked_at: float = -math.inf
    awaited: bool = False
    asks: int = 0
    blanks: int = 0

    def begin(self, at: float) -> None:
        """A reply was lost: the first question."""
        self.blanks, self.at = 0, at

    def ask(self, now: float) -> None:
        """The service is asked."""
        self.at = math.inf  # until the answer is there
        self.asked_at, self.awaited = now, True
        self.asks += 1

    def answered(self, asked: int | None = None) -> bool:
        """An answer came, or won't; whether it is the one that is awaited.

        Args:
            asked: ``asks`` at the question, where an answer may come after the next question.
        """
        if asked is not None and asked != self.asks:
            return False
        self.awaited = False
        return True

    def proves_absence(self, now: float, over_at: float) -> bool:
        """Whether the answer "none" is believed; if not there is a next question.

        Args:
            now: When the answer came.
            over_at: From when on nothing lands any more.
        """
        # A job may have landed while the answer was on its way.
        if self.asked_at >= over_at:
            return True
        self.blanks += 1
        least, most = PAUSE_S
        pause = min(most, least * 2 ** min(self.blanks - 1, 16))
        # Once more at the very end of the grace: what is absent then is proven absent.
        self.at = max(now, min(now + pause, over_at))
        return False

    def failed(self, now: float) -> None:
        """The service didn't answer: it is asked again."""
        self.blanks += 1
        least, most = PAUSE_S
        self.at = now + min(most, least * 2 ** min(self.blanks, 8))
