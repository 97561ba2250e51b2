"""Which stored part a circuit's row is taken from, where several hold it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ray_qjm.planning.ranges import Ranges


class PartName(NamedTuple):
    """A part: the circuits ``[start, stop)``, written under an epoch.

    >>> PartName.parse("parts/3/5100-5400.parquet")
    PartName(epoch=3, start=5100, stop=5400)
    >>> PartName(3, 5100, 5400).path
    'parts/3/5100-5400.parquet'
    """

    epoch: int
    start: int
    stop: int

    @property
    def path(self) -> str:
        """The object's name in the store."""
        return f"parts/{self.epoch}/{self.start}-{self.stop}.parquet"

    @classmethod
    def parse(cls, path: str) -> PartName | None:
        """The part of an object's name; ``None`` if it isn't one."""
        pieces = path.removeprefix("parts/").removesuffix(".parquet").replace("-", "/").split("/")
        if len(pieces) != 3 or not all(piece.isascii() and piece.isdecimal() for piece in pieces):
            return None
        name = cls(*map(int, pieces))
        return name if name.path == path and name.start < name.stop else None


class Taken(NamedTuple):
    """The circuits ``[start, stop)`` are taken from ``part``."""

    start: int
    stop: int
    part: PartName


def winners(parts: Iterable[PartName], accepted: Sequence[Taken] = ()) -> list[Taken]:
    """The one part for each circuit that has any, as ranges in ascending order.

    The newest epoch wins: it ran what an older one had left failed. Within an epoch the longer part wins: a
    chunk whose worker died after it had written is run again in halves, and the whole is as good as they are.

    Args:
        parts: Any parts.
        accepted: What was chosen earlier; any of ``parts`` goes before it.

    >>> winners([PartName(1, 0, 10), PartName(1, 5, 10), PartName(2, 3, 4)])  # doctest: +NORMALIZE_WHITESPACE
    [Taken(start=0, stop=3, part=PartName(epoch=1, start=0, stop=10)),
     Taken(start=3, stop=4, part=PartName(epoch=2, start=3, stop=4)),
     Taken(start=4, stop=10, part=PartName(epoch=1, start=0, stop=10))]
    """
    taken: list[Taken] = []
    covered = Ranges()
    newest = sorted(parts, key=lambda part: (-part.epoch, part.start - part.stop, part.start))
    for start, stop, part in [*(Taken(part.start, part.stop, part) for part in newest), *accepted]:
        taken += [Taken(a, b, part) for a, b in covered.rest(start, stop)]
        covered.add(start, stop)
    return sorted(taken)
