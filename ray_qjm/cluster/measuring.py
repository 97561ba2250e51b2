"""What is measured: of a task by its coordinator, of an account by its desk. Nothing here raises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, get_args

from ray_qjm.cluster.messages import Outcome
from ray_qjm.cluster.metrics import Sums, TaskGauges, label, quietly, record
from ray_qjm.planning.status import TaskStatus
from ray_qjm.planning.tickets import FINAL
from ray_qjm.planning.verdicts import What


class TaskMeasures:
    """Measures one task.

    Args:
        task_id: Of the task.
        name: What the user called it.
    """

    def __init__(self, task_id: str, name: str | None) -> None:
        self._gauges = TaskGauges(task_id, name)
        self._sums = Sums()

    def see(self, status: TaskStatus, left: Mapping[str, float]) -> None:
        """How the task is, a few times a minute.

        Args:
            status: Of the task.
            left: What is left of its budget, of all that has a limit.
        """
        quietly(lambda: self._see(status, left))

    def landed(self, backend: str, outcome: Outcome) -> None:
        """A chunk came back."""
        quietly(lambda: self._landed(label(backend), outcome))

    def took(self, backend: str, stages: Mapping[str, float]) -> None:
        """A chunk or a job has spent so many seconds in these stages."""
        quietly(lambda: _took(label(backend), stages))

    def packed(self, backend: str, size: int) -> None:
        """Circuits of a chunk have become so many bytes, for a service."""
        quietly(lambda: _moved(label(backend), "circuits", size))

    def close(self) -> None:
        """The task has ended."""
        quietly(self._gauges.close)

    def _see(self, status: TaskStatus, left: Mapping[str, float]) -> None:
        # Summed first: names that differ may have one label.
        gauges: Counter[tuple[str, ...]] = Counter()
        sums: Counter[tuple[str, ...]] = Counter()
        for at in status.backends:
            backend = label(at.name)
            for state, circuits in (("done", at.done), ("failed", at.failed), ("running", at.running)):
                gauges["qjm_circuits", backend, state] += circuits
            chunks = (("running", at.jobs_running), ("done", at.jobs_done), ("crashed", at.jobs_failed))
            for state, number in chunks:
                gauges["qjm_chunks", backend, state] += number
            if at.pending is not None:
                gauges["qjm_jobs", backend, "pending"] += at.pending
                gauges["qjm_jobs", backend, "queued"] += at.queued or 0
                sums["qjm_bytes", backend, "circuits"] += 0
            sums["qjm_bytes", backend, "rows"] += 0
            sums["qjm_finished_circuits", backend, "done"] += at.done
            sums["qjm_finished_circuits", backend, "failed"] += at.failed
            sums["qjm_finished_chunks", backend, "done"] += at.jobs_done
            sums["qjm_finished_chunks", backend, "crashed"] += at.jobs_failed
        # What no backend of this session has run: circuits of earlier ones, and of a source that ended too early.
        gauges["qjm_circuits", "", "done"] = status.done - sum(at.done for at in status.backends)
        gauges["qjm_circuits", "", "failed"] = status.failed - sum(at.failed for at in status.backends)
        gauges["qjm_circuits", "", "cancelled"] = status.cancelled
        gauges["qjm_circuits", "", "waiting"] = status.waiting or 0
        for (name, *tags), value in gauges.items():
            self._gauges.set(name, value, *tags)
        for (name, *tags), value in sums.items():
            self._sums.tell(name, value, *tags)
        for unit, amount in left.items():
            self._gauges.set("qjm_budget_left", amount, unit)

    def _landed(self, backend: str, outcome: Outcome) -> None:
        _took(backend, outcome.stages)
        _moved(backend, "rows", outcome.size)


class DeskMeasures:
    """Measures one account.

    Args:
        account: What people call it.
    """

    def __init__(self, account: str) -> None:
        self._account = label(account)
        self._sums = Sums()

    def see(self, state: Mapping[str, Any]) -> None:
        """How its desk is, a few times a minute: ``Desk.state``."""
        quietly(lambda: self._see(state))

    def _see(self, state: Mapping[str, Any]) -> None:
        account = self._account
        record("qjm_desk_pending", state["pending"], account)
        record("qjm_desk_pending_cap", state["max_pending"], account)
        for backend, waiting in _by_backend(state["waiting"]).items():
            record("qjm_desk_waiting", waiting, account, backend)
        for unit, value in state["left"].items():
            record("qjm_desk_budget_left", value, account, unit)
        # Of each backend, whatever hasn't happened yet: see ``Sums``.
        none = dict.fromkeys(state["waiting"], 0)
        for name, what in (("qjm_desk_submissions", "submitted"), ("qjm_desk_retries", "retried")):
            for backend, number in _by_backend({**none, **state[what]}).items():
                self._sums.tell(name, number, account, backend)
        for name, what, kinds in (
            ("qjm_desk_refusals", "refused", get_args(What)),
            ("qjm_desk_finished_jobs", "over", FINAL),
        ):
            for kind in sorted(kinds):
                of = {counter: found.get(kind, 0) for counter, found in state[what].items()}
                for backend, number in _by_backend({**none, **of}).items():
                    self._sums.tell(name, number, account, backend, kind)


def _took(backend: str, stages: Mapping[str, float]) -> None:
    for stage, seconds in stages.items():
        record("qjm_stage_seconds", seconds, backend, stage)


def _moved(backend: str, kind: str, size: int) -> None:
    if size:
        record("qjm_bytes", size, backend, kind)


def _by_backend(numbers: Mapping[str, int]) -> Counter[str]:
    """By the name of the backend: a desk calls it that and a hash of what makes it."""
    found: Counter[str] = Counter()
    for counter, number in numbers.items():
        found[label(counter.rpartition("-")[0])] += number
    return found
