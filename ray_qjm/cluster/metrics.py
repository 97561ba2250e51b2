"""Ray's metrics of tasks and desks: one table of them, and what records them.

Ray exports every 10 s what a process has recorded (measured with 2.60). A gauge that isn't recorded again is gone 20 s
later; of counters and histograms the node's agent forgets nothing, though task and process have ended. So only gauges
have the task among their tags, all else is tagged by backend. Prometheus keeps what it has seen for weeks, and a driver
may run thousands of tasks: no more than ``OWN_TASKS`` of a process have series of their own in ``OWN_S``.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ray.util.metrics import Counter, Gauge, Histogram

#: Tasks that have series of their own, until so many seconds after their end; the rest is added up as ``OTHERS``.
OWN_TASKS, OWN_S = 50, 3600.0
OTHERS = "others"
#: Characters of a name that stand in a tag.
MOST = 64
#: Of a chunk or a job in a stage: from a few small circuits to an hour in a service's queue. Each is a series more for
#: each backend, stage and process.
BUCKETS_S = (0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 20.0, 60.0, 600.0, 3600.0)
#: Ray's counters refuse zero; this is gone as soon as anything is added to it.
ZERO = sys.float_info.min

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: As it is recorded.
        kind: What Ray makes of it.
        what: For people.
        tags: Their keys.
    """

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    what: str
    tags: tuple[str, ...]

    @property
    def exported(self) -> str:
        """Its name in Prometheus; a histogram's is followed by ``_bucket``, ``_count`` and ``_sum``.

        >>> Metric("qjm_bytes", "counter", "", ()).exported
        'ray_qjm_bytes_total'
        """
        return f"ray_{self.name}_total" if self.kind == "counter" else f"ray_{self.name}"


_TASK = ("task", "task_name")
_DESK = ("account", "backend")

#: All that there are; ``docs/how-to/monitoring.md`` says more of each.
METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("qjm_circuits", "gauge", "Circuits of a task, by state", (*_TASK, "backend", "state")),
        Metric("qjm_chunks", "gauge", "Chunks of a task, by state", (*_TASK, "backend", "state")),
        Metric(
            "qjm_jobs", "gauge", "Open jobs of a task at services, by state", (*_TASK, "backend", "state")
        ),
        Metric("qjm_budget_left", "gauge", "What a task may yet spend", (*_TASK, "unit")),
        Metric("qjm_finished_circuits", "counter", "Circuits that have their rows", ("backend", "state")),
        Metric("qjm_finished_chunks", "counter", "Chunks that came back", ("backend", "state")),
        Metric("qjm_bytes", "counter", "Bytes of circuits for services, and of rows", ("backend", "kind")),
        Metric(
            "qjm_stage_seconds", "histogram", "Seconds of a chunk or job in a stage", ("backend", "stage")
        ),
        Metric("qjm_desk_pending", "gauge", "Slots of an account that are taken", ("account",)),
        Metric("qjm_desk_pending_cap", "gauge", "Slots of an account", ("account",)),
        Metric("qjm_desk_waiting", "gauge", "Jobs that wait for a permit", _DESK),
        Metric("qjm_desk_budget_left", "gauge", "What an account may yet spend", ("account", "unit")),
        Metric("qjm_desk_submissions", "counter", "Requests that submit a job", _DESK),
        Metric("qjm_desk_retries", "counter", "Those that weren't the first of a job", _DESK),
        Metric("qjm_desk_refusals", "counter", "Jobs that weren't taken, by reason", (*_DESK, "reason")),
        Metric("qjm_desk_finished_jobs", "counter", "Jobs that are over, by state", (*_DESK, "state")),
    )
}

_lock = threading.RLock()
_instruments: dict[str, Any] = {}
#: Tasks with series of their own, and when they ended.
_own_tasks: dict[str, float | None] = {}
#: What each task without series of its own has to add to a gauge.
_shares: dict[tuple[str, ...], dict[str, float]] = {}
_complained = False


def label(text: str | None) -> str:
    """A name as a tag: Ray takes ASCII only.

    >>> label("tomography of |ψ>"), label(None)
    ('tomography of |?>', '')
    """
    plain = (text or "").encode("ascii", "replace").decode()
    return "".join(letter if letter.isprintable() else "?" for letter in plain)[:MOST]


def quietly(record: Callable[[], object]) -> None:
    """Call what records metrics: what can't be measured ends nothing, and is told of once a process."""
    global _complained
    try:
        with _lock:
            record()
    except Exception as error:
        if not _complained:
            _complained = True
            _log.warning("ray_qjm: metrics can't be recorded: %s: %s", type(error).__name__, error)


def record(name: str, value: float, *tags: str) -> None:
    """Record one value: a gauge is set, a counter raised, a histogram has one more.

    Args:
        name: Of the metric.
        value: See above.
        tags: Values, in the order of the metric's keys.
    """
    metric = METRICS[name]
    instrument = _instruments.get(name)
    if instrument is None:
        instrument = _instruments[name] = _make(metric)
    pairs = dict(zip(metric.tags, tags, strict=True))
    match metric.kind:
        case "gauge":
            instrument.set(value, pairs)
        case "counter":
            instrument.inc(value, pairs)
        case "histogram":
            instrument.observe(value, pairs)


def _make(metric: Metric) -> Any:
    if metric.kind == "histogram":
        return Histogram(metric.name, metric.what, list(BUCKETS_S), metric.tags)
    return (Gauge if metric.kind == "gauge" else Counter)(metric.name, metric.what, metric.tags)


class Sums:
    """Numbers that only grow: counters get what is new of them.

    Prometheus's ``rate`` sees nothing of the value with which a series begins: one that came with its first refusal
    would show none. So what is told first makes the series, and zero is worth telling.
    """

    def __init__(self) -> None:
        self._told: dict[tuple[str, ...], float] = {}

    def tell(self, name: str, value: float, *tags: str) -> None:
        """A number is so high now."""
        key = (name, *tags)
        if key not in self._told:
            self._told[key] = 0
            record(name, ZERO, *tags)
        more = value - self._told[key]
        if more > 0:
            record(name, more, *tags)
            self._told[key] = value


class TaskGauges:
    """The gauges of one task.

    Args:
        task_id: Of the task.
        name: What the user called it.
    """

    def __init__(self, task_id: str, name: str | None) -> None:
        self._id = task_id
        with _lock:
            over = [key for key, at in _own_tasks.items() if at is not None and time.monotonic() - at > OWN_S]
            for key in over:
                del _own_tasks[key]
            self._own = task_id in _own_tasks or len(_own_tasks) < OWN_TASKS
            if self._own:
                _own_tasks[task_id] = None
        self._tags = (label(task_id), label(name)) if self._own else (OTHERS, "")

    def set(self, name: str, value: float, *tags: str) -> None:
        """Set one; ``tags`` beside those of the task."""
        if not self._own:
            shares = _shares.setdefault((name, *tags), {})
            shares[self._id] = value
            value = sum(shares.values())
        record(name, value, *self._tags, *tags)

    def close(self) -> None:
        """The task has ended: Ray forgets its own gauges, and what it has added to others' goes."""
        if self._own:
            _own_tasks[self._id] = time.monotonic()
        for (name, *tags), shares in _shares.items():
            if shares.pop(self._id, None) is not None:
                record(name, sum(shares.values()), *self._tags, *tags)
