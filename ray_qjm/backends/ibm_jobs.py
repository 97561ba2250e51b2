"""What IBM Quantum Platform says of jobs, read: plain JSON in, ``Seen`` out. No requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ray_qjm.backends.codes import judge
from ray_qjm.errors import JobCancelledError, JobFailedError, JobRanTooLongError
from ray_qjm.planning.errands import Seen
from ray_qjm.planning.verdicts import Verdict

#: A job that went on for longer than it may is "cancelled" by this code, but not by anybody's wish.
RAN_TOO_LONG = 1305

_STATES = {
    "QUEUED": "submitted",
    "RUNNING": "running",
    "COMPLETED": "done",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
}
ENDED = frozenset({"done", "failed", "cancelled"})


def state_of(told: Mapping[str, Any]) -> str:
    """The state in our words; what nobody understands is none that is final."""
    said = told.get("state")
    status = str(said.get("status") if isinstance(said, Mapping) else told.get("status") or "").upper()
    found = "CANCELLED" if status.startswith("CANCELLED") else status
    if found == "CANCELLED" and _code(told) == RAN_TOO_LONG:
        return "failed"
    return _STATES.get(found, "submitted")


def reason_of(told: Mapping[str, Any]) -> str:
    """Why a job ended as it did, in the provider's words; empty if they are missing."""
    said = told.get("state")
    return str(said.get("reason") or "") if isinstance(said, Mapping) else ""


def seen(told: Mapping[str, Any], metrics: Mapping[str, Any] | None = None, reason: str = "") -> Seen:
    """What is to be known of a job.

    Args:
        told: It, as a listing or a request for one job has it.
        metrics: Its metrics, if they were asked for.
        reason: Why it failed, if ``told`` doesn't tell.

    >>> seen({"state": {"status": "Cancelled", "reason": "Ran too long", "reason_code": 1305}}).verdict.what
    'split job'
    """
    state = state_of(told)
    metrics = metrics or {}
    facts = _facts(metrics)
    if state == "failed":
        return Seen(state, failure(reason_of(told) or reason, _code(told)), _usage(metrics), facts)
    if state == "cancelled":
        why = reason_of(told) or "without a reason"
        verdict = Verdict("again", JobCancelledError.__name__, f"the service cancelled it: {why}")
        return Seen(state, verdict, _usage(metrics), facts)
    return Seen(state, None, _usage(metrics) if state == "done" else None, facts)


def failure(reason: str, code: int | None) -> Verdict:
    """What the failure of a job means that was accepted; without a hint one of its circuits is broken."""
    text = reason or "it failed, without a reason"
    judged = judge(Exception(text if code is None else f"Error code {code}; {text}"), "split job")
    # It is over: nothing about it is unknown.
    what = "again" if judged.what == "unknown" else judged.what
    kind = JobRanTooLongError.__name__ if code == RAN_TOO_LONG else JobFailedError.__name__
    return Verdict(what, kind, judged.reason)


def oldest_first(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Ids by when the jobs were created; in the given order where that is the same."""
    return [str(job["id"]) for job in sorted(jobs, key=lambda job: _seconds(job.get("created")) or 0.0)]


def _code(told: Mapping[str, Any]) -> int | None:
    said = told.get("state")
    if not isinstance(said, Mapping):
        return None
    code = said.get("reason_code") or said.get("reasonCode")
    try:
        return None if code is None else int(code)
    except (TypeError, ValueError):
        return None


def _usage(metrics: Mapping[str, Any]) -> float | None:
    """Seconds that are billed; those that aren't final aren't told, they are 0 for a while."""
    usage = metrics.get("usage")
    if not isinstance(usage, Mapping) or usage.get("status", "pending") == "pending":
        return None
    for name in ("qpu_charge_time_seconds", "quantum_seconds", "seconds"):
        value = usage.get(name)
        if isinstance(value, int | float):
            return float(value)
    return None


def _facts(metrics: Mapping[str, Any]) -> dict[str, Any]:
    times = metrics.get("timestamps")
    times = times if isinstance(times, Mapping) else {}
    facts: dict[str, Any] = {
        "position": metrics.get("position_in_queue"),
        "started": _seconds(times.get("running")),
        "ended": _seconds(times.get("finished")),
    }
    start = _moment(metrics.get("estimated_start_time"))
    if start is not None:
        facts["eta_s"] = max(0.0, (start - datetime.now(timezone.utc)).total_seconds())
    return {name: value for name, value in facts.items() if value is not None}


def _seconds(text: Any) -> float | None:
    moment = _moment(text)
    return None if moment is None else moment.timestamp()


def _moment(text: Any) -> datetime | None:
    """ISO 8601; without a zone it is UTC. Python 3.10 knows no ``Z`` and only 3 or 6 digits of a second."""
    if not isinstance(text, str):
        return None
    whole, dot, rest = text.replace("Z", "+00:00").partition(".")
    if dot:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        whole += f".{digits[:6]:0<6}{rest[len(digits) :]}"
    try:
        moment = datetime.fromisoformat(whole)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)
