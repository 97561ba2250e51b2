"""Rows that stand in a store: which of them stay, and whether they are of the circuits that a call means."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ray_qjm.circuits.fingerprint import check_marks
from ray_qjm.circuits.source import DriverSource, WorkerSource
from ray_qjm.errors import (
    DeskGoneError,
    JobCancelledError,
    JobNotCancelledError,
    JobResultError,
    JobTimeoutError,
    NoCreditError,
    StoreUnavailableError,
    WorkerDiedError,
)
from ray_qjm.planning.ranges import Ranges
from ray_qjm.results.part_files import Head
from ray_qjm.results.report import FailureRange, clipped, merge
from ray_qjm.results.winners import PartName, Taken

#: Stages whose failures are no circuit's fault.
_AT_SERVICE = ("submit", "finish")
#: Reasons that may have passed when the task is resumed: ``retry_failed=True`` runs these circuits again. So may
#: whatever kept circuits from being submitted, or their jobs from coming to an end.
MAY_PASS = frozenset(
    {
        WorkerDiedError.__name__,
        NoCreditError.__name__,
        JobCancelledError.__name__,
        JobNotCancelledError.__name__,
        JobTimeoutError.__name__,
        DeskGoneError.__name__,
        JobResultError.__name__,
        StoreUnavailableError.__name__,
    }
)

#: Circuits of a list that are compared with those that were run; a run compares all.
_COMPARED = 256


class Sorted(NamedTuple):
    """The rows of a store, by whether they stay; see ``Resumed``."""

    kept: Ranges
    failures: tuple[FailureRange, ...]
    retried: tuple[FailureRange, ...]
    marks: NDArray[np.uint64]


def sort_rows(
    accepted: Sequence[Taken],
    heads: Mapping[PartName, Head],
    part_marks: Mapping[PartName, NDArray[np.uint64]],
    *,
    retry_failed: bool,
) -> Sorted:
    """Tell which rows stay, and which circuits are run again since their failure may have passed.

    Args:
        accepted: The rows that count.
        heads: Of their parts.
        part_marks: Their circuits' fingerprints.
        retry_failed: Whether any are run again.
    """
    marks = np.zeros(max((item.stop for item in accepted), default=0), np.uint64)
    kept = Ranges()
    failures: list[FailureRange] = []
    retried: list[FailureRange] = []
    for start, stop, part in accepted:
        marks[start:stop] = part_marks[part][start - part.start : stop - part.start]
        at = start
        for failure in merge(clipped(heads[part].failures, start, stop)):
            if retry_failed and (failure.error_type in MAY_PASS or failure.stage in _AT_SERVICE):
                kept.add(at, failure.start)
                at = failure.stop
                retried.append(failure)
            else:
                failures.append(failure)
        kept.add(at, stop)
    return Sorted(kept, tuple(merge(failures)), tuple(merge(retried)), marks)


def spot_check(marks: NDArray[np.uint64], source: WorkerSource, seed: int) -> None:
    """Build the first, the last and one random stored circuit again: equal source text doesn't prove equal circuits.

    Args:
        marks: Fingerprints of stored circuits.
        source: Of circuits.
        seed: Of the stored task.

    Raises:
        StoreMismatchError: One is another circuit.
    """
    rows = np.flatnonzero(marks)
    if not len(rows):
        return
    circuits: list[tuple[int, Any]] = []
    for row in sorted({int(rows[0]), int(secrets.choice(rows)), int(rows[-1])}):
        # What can be built on workers may lack here what it needs.
        with suppress(Exception):
            circuits.append((row, source.build(row, seed)))
    for row, circuit in circuits:
        check_marks(marks, row, [circuit], source.kind)


def compare_some(marks: NDArray[np.uint64], source: DriverSource) -> None:
    """Compare circuits of a list, spread over those that were run.

    Raises:
        StoreMismatchError: One is another circuit.
    """
    known = np.flatnonzero(marks)
    if source.circuits is None or not len(known):
        return
    spread = np.unique(np.linspace(0, len(known) - 1, _COMPARED).astype(np.int64))
    for row in known[spread].tolist():
        if row < len(source.circuits):
            # What isn't a circuit is told by the run.
            check_marks(marks, row, [source.circuits[row]], source.kind)
