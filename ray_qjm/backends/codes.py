"""What the errors of services mean, as far as it can be read off their numbers and words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from ray_qjm.planning.verdicts import Verdict, What

#: IBM's error codes by what to do about them. Their meanings are IBM's; the grouping is a judgement.
IBM_CODES: dict[What, str] = {
    "wait": "1012 3458 1999 1202",
    "split job": "1001 1102 3242 3243 3248 6002 5302 5201 1305",
    "split shots": "1103 3218 6000",
    "again": "1000 1006 1008 1010 1011 3202 3203 3204 3210 3212 3233 3251 3253 3300 3301 5203",
    "elsewhere": "1004 1007 1009 1217 3200 3245 3246 3265",
    "no credit": "4317",
    "give up": "1002 1003 1106 1107 1200 1201 1204 1205",
}
_BY_CODE: dict[int, What] = {int(code): what for what, codes in IBM_CODES.items() for code in codes.split()}

_CODE = re.compile(r"(?:error code|reason code|code)\W{0,3}(\d{4})\b", re.IGNORECASE)
_CREDIT = re.compile(
    r"usage exceeds|usage limit|no credit|insufficient (?:credit|funds|balance)|quota ?exhausted|"
    r"contract ?expired|payment required|out of (?:credit|budget)",
    re.IGNORECASE,
)
_FULL = re.compile(
    r"too many requests|rate.?limit|throttl|maximum number .{0,20}(?:concurrent|pending) jobs|"
    r"service ?quota ?exceeded|concurrent jobs",
    re.IGNORECASE,
)
_LARGE = re.compile(
    r"too large|too many (?:circuits|experiments|executions)|payload.{0,40}exceed|"
    r"exceeds? .{0,40}(?:size|circuits)",
    re.IGNORECASE,
)
_SHOTS = re.compile(
    r"(?:(?:number of )?shots .{0,40}(?:exceed|greater|larger|maximum)|too many shots)", re.IGNORECASE
)
_OFFLINE = re.compile(
    r"device ?offline|backend .{0,30}(?:offline|not available|retired|removed)", re.IGNORECASE
)

#: What an HTTP answer to the request that creates a job means. 5xx may come after the job was accepted.
_HTTP: dict[int, What] = {
    401: "give up",
    402: "no credit",
    403: "give up",
    404: "elsewhere",
    408: "unknown",
    409: "no credit",
    413: "split job",
    429: "wait",
}

#: Errors of a connection that never came about, by name: nothing was sent over it. Those of urllib3, requests, httpx,
#: aiohttp and botocore.
_UNCONNECTED = frozenset(
    {
        "NewConnectionError",
        "NameResolutionError",
        "ConnectTimeoutError",
        "ConnectTimeout",
        "ConnectError",
        "ClientConnectorError",
        "EndpointConnectionError",
    }
)
#: What carries requests: an error of these says nothing of whether the request has arrived, unless it is one of the
#: above or has a status.
_CARRIERS = frozenset(
    {
        "aiohttp",
        "azure",
        "botocore",
        "grpc",
        "http",
        "httpcore",
        "httpx",
        "requests",
        "urllib",
        "urllib3",
        "websockets",
    }
)


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it came from, the last first."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or at.__context__


def words(error: BaseException) -> str:
    """An error's message, in one line, not too long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 1000 else f"{text[:1000]}..."


def judge(error: BaseException, default: What) -> Verdict:
    """What to do about an error that came out of a client.

    Args:
        error: It.
        default: If nothing about it is known.
    """
    what = _by_number(error) or _by_words(error) or _by_type(error) or default
    return Verdict(what, type(error).__name__, words(error), retry_after(error))


def retry_after(error: BaseException) -> float | None:
    """Seconds that the service asks to wait, as in HTTP's ``Retry-After``."""
    for cause in causes(error):
        headers = getattr(getattr(cause, "response", None), "headers", None) or {}
        value = headers.get("Retry-After") or headers.get("retry-after") if hasattr(headers, "get") else None
        own = getattr(cause, "retry_after", None)
        for text in (value, own):
            try:
                seconds = float(text)  # type: ignore[arg-type]
            except (TypeError, ValueError):
                continue  # a date, or nothing
            if 0 <= seconds < 86_400:
                return seconds
    return None


def _by_number(error: BaseException) -> What | None:
    for cause in causes(error):
        own = getattr(cause, "error_code", None)
        found = [str(own)] if isinstance(own, int | str) else []
        for text in (*found, *_CODE.findall(str(cause))):
            if text.isdecimal() and (what := _meaning(int(text))) is not None:
                return what
    status = http_status(error) or 0
    if status in _HTTP:
        return _HTTP[status]
    if 500 <= status < 600:
        return "unknown"
    return "split job" if 400 <= status < 500 else None


def http_status(error: BaseException) -> int | None:
    """The status of the answer that an error came from, if it came from one."""
    for cause in causes(error):
        for status in (
            getattr(getattr(cause, "response", None), "status_code", None),
            getattr(cause, "status_code", None),
        ):
            if isinstance(status, int) and 400 <= status < 600:
                return status
    return None


def _meaning(code: int) -> What | None:
    return "give up" if 7000 <= code < 8000 else _BY_CODE.get(code)


def _by_words(error: BaseException) -> What | None:
    table: tuple[tuple[re.Pattern[str], What], ...] = (
        (_CREDIT, "no credit"),
        (_FULL, "wait"),
        (_SHOTS, "split shots"),
        (_LARGE, "split job"),
        (_OFFLINE, "elsewhere"),
    )
    for cause in causes(error):
        for pattern, what in table:
            if pattern.search(str(cause)):
                return what
    return None


def _by_type(error: BaseException) -> What | None:
    if any(
        isinstance(cause, ConnectionRefusedError) or type(cause).__name__ in _UNCONNECTED
        for cause in causes(error)
    ):
        return "again"
    if any(map(_is_of_the_network, causes(error))):
        return "unknown"
    return None


def _is_of_the_network(error: BaseException) -> bool:
    """Whether a connection broke, a reply didn't come, or it was a page where JSON should have been."""
    if isinstance(error, ConnectionError | TimeoutError | EOFError | json.JSONDecodeError):
        return True
    # Some derive their errors from others' types, and some raise types that are made on the spot.
    packages = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return bool(packages & _CARRIERS) or (isinstance(error, OSError) and type(error).__module__ != "builtins")
