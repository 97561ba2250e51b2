"""What a task is and has, as JSON values and as text: the same for every command that tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray_qjm.planning.status import TaskStatus
    from ray_qjm.results.report import FailureRange
    from ray_qjm.results.task_result import TaskResult


@dataclass(frozen=True)
class Facts:
    """Where a task stands, and what failed.

    Attributes:
        status: Of it.
        failures: Ranges of circuits that have no counts, or not all.
        store: As the user calls it; ``None``: it has none.
    """

    status: TaskStatus
    failures: Sequence[FailureRange]
    store: str | None

    @classmethod
    def stored(cls, store: str) -> Facts:
        """Those of a store.

        Raises:
            InvalidInputError: It holds no task.
            StoreError: It can't be read.
        """
        from ray_qjm.results.watch import StoredTask

        task = StoredTask(store)
        return cls(task.status, task.failures()[0], store)

    @classmethod
    def held(cls, status: TaskStatus, result: TaskResult) -> Facts:
        """Those of a result in memory."""
        from ray_qjm.results.report import merge, ranges

        return cls(status, merge(ranges(result.failures)), None)

    @property
    def lacking(self) -> bool:
        """Whether circuits that were run have no counts, or not all."""
        return any(item.status != "cancelled" for item in self.failures)

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {**plain_status(self.status, self.store), "failures": [asdict(item) for item in self.failures]}

    def report(self, *, whole: bool = False) -> list[str]:
        """A line for each range, and the sum; ``whole``: however many there are."""
        from ray_qjm.results.report import MAX_LINES, lines

        status = self.status
        finished = status.done + status.failed + status.cancelled
        total = finished if status.total is None else status.total
        return lines(self.failures, status.done, total, max_lines=None if whole else MAX_LINES)


def plain_status(status: TaskStatus, store: str | None) -> dict[str, Any]:
    """A status as JSON values."""
    values: Mapping[str, Any] = status.plain()
    return {**values, "waiting": status.waiting, "eta_s": status.eta_s, "store": store}
