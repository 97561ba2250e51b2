"""Circuits of a chunk that more than one job takes from: fetched and decoded once, not once a job."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray_qjm.circuits.payload import decode

#: Bytes of encoded circuits that stay decoded; in memory they take about ten times as much.
KEPT_BYTES = 8 * 2**20


@dataclass(slots=True)
class _Piece:
    lock: threading.Lock = field(default_factory=threading.Lock)
    circuits: Sequence[Any] | None = None
    size: int = 0


class Pieces:
    """The pieces that were used last. From any thread; a piece that several ask for at once is decoded once.

    Args:
        get: Gives the bytes of a reference; may block, and raise.
        most_bytes: See ``KEPT_BYTES``.
    """

    def __init__(self, get: Callable[[Any], bytes], most_bytes: int = KEPT_BYTES) -> None:
        self._get = get
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Piece] = OrderedDict()

    def circuits(self, reference: Any, *, keep: bool) -> Sequence[Any]:
        """What ``encode`` packed; shared with others who ask, so not to be changed.

        Args:
            reference: To its bytes; pieces are told apart by its ``hex()``.
            keep: Whether others will ask for it.
        """
        key = str(reference.hex())
        with self._lock:
            piece = self._kept.get(key)
            if piece is None:
                piece = _Piece()
                if keep:
                    self._kept[key] = piece
            else:
                self._kept.move_to_end(key)
        with piece.lock:
            if piece.circuits is None:
                try:
                    data = self._get(reference)
                    piece.circuits, piece.size = decode(data), len(data)
                except BaseException:
                    with self._lock:
                        self._kept.pop(key, None)
                    raise
            circuits = piece.circuits
        with self._lock:
            total = sum(each.size for each in self._kept.values())
            while total > self._most_bytes:
                total -= self._kept.popitem(last=False)[1].size
        return circuits
