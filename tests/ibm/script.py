"""What the service does: its limits and times, which requests go wrong, how jobs end.

A `Script` is plain data (JSON), so that a test can hand it to the service's process and change it while that runs.
Which request a fault meets depends on the seed and on the request's number among those of its kind, never on time.
"""

from __future__ import annotations

import random
import threading
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/loopback:{}::"
INSTANCE = CRN.format("first")
API_KEY = "key-of-loopback"

WHENS = ("before", "after", "late")
ENDS = ("failed", "cancelled", "too_long", "no_result", "half_result", "fewer_results", "never")


@dataclass(frozen=True)
class Choice:
    """Which of the things that match are met: the nth of them (from 0), or all after `skip`, at most `times`."""

    nth: tuple[int, ...] | None = None
    skip: int = 0
    times: int | None = None
    chance: float = 1.0

    def __post_init__(self) -> None:
        if self.nth is not None:
            object.__setattr__(self, "nth", tuple(self.nth))


@dataclass(frozen=True)
class Fault(Choice):
    """A request that goes wrong.

    `on` is a pattern for a route such as `POST /jobs`, `GET /jobs/{id}`, `GET /jobs/{id}/results`, `GET *`.

    `when` is "before": wait `delay_s`, then drop the connection or answer `status` or HTML without having done
    anything; with neither, do what was asked for. "after": do it first. "late": drop the connection at once and do it
    only `delay_s` later.
    """

    on: str = "*"
    when: str = "before"
    status: int | None = None
    drop: bool = False
    html: bool = False
    delay_s: float = 0.0
    retry_after_s: float | None = None
    code: int = 0
    message: str = "Injected by the script."

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.when not in WHENS:
            raise ValueError(f"when is one of {WHENS}, not {self.when!r}")


@dataclass(frozen=True)
class Ending(Choice):
    """A job that doesn't end well: any, or one that has `tag`, or a circuit of this name or marker."""

    end: str = "failed"
    circuit: str | None = None
    tag: str | None = None
    code: int | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.end not in ENDS:
            raise ValueError(f"end is one of {ENDS}, not {self.end!r}")


@dataclass(frozen=True)
class Script:
    """All settings, with what a friendly service has."""

    seed: int = 0
    # Accounts
    api_keys: tuple[str, ...] = (API_KEY,)
    revoked: bool = False  # every bearer token is refused, though keys still get new ones
    token_s: float = 3600.0
    instances: tuple[str, ...] = (INSTANCE,)
    backends: tuple[tuple[str, str], ...] = (("ibm_loop", "manila"),)  # name, and whose device it has
    # Life of a job
    queue_s: float = 0.0  # from being accepted to being allowed to start
    run_s: float = 0.0  # at least
    max_running: int = 1  # a backend
    hold_queue: bool = False  # nothing starts until a later script lets it
    hold_running: bool = False  # nothing ends
    shortcut: bool = True  # circuits of `x` and `measure` alone are worked out without Aer
    marker: str = "marker"  # key in a circuit's metadata by which the journal tells circuits apart
    # Limits
    pending_cap: int | None = None
    pending_text: str = "Reached maximum number ({cap}) of concurrent jobs"
    max_payload_bytes: int | None = None
    max_circuits: int | None = None
    max_executions: int | None = None
    refuse_above_limits: bool = True  # otherwise such a job is only noted as a violation
    rate_posts: int | None = None  # so many POST /jobs ...
    rate_window_s: float = 1.0  # ... in this time
    rate_retry_after_s: float | None = None
    # Usage: seconds of a job = usage_s_per_job + its executions * usage_s_per_execution
    usage_s_per_job: float = 2.0
    usage_s_per_execution: float = 0.0
    usage_limit_s: float | None = None
    usage_policy: str = "queue"  # or "refuse": 409. "queue" accepts jobs and never starts them
    # What goes wrong
    faults: tuple[Fault, ...] = ()
    endings: tuple[Ending, ...] = ()

    def __post_init__(self) -> None:
        if self.usage_policy not in ("queue", "refuse"):
            raise ValueError(f"usage_policy is 'queue' or 'refuse', not {self.usage_policy!r}")

    def changed(self, changes: dict[str, Any]) -> Script:
        """This script with some settings changed, as JSON gives them."""
        given = {**asdict(self), **changes}
        for name in ("api_keys", "instances"):
            given[name] = tuple(given[name])
        given["backends"] = tuple((name, device) for name, device in given["backends"])
        given["faults"] = tuple(Fault(**fault) for fault in given["faults"])
        given["endings"] = tuple(Ending(**ending) for ending in given["endings"])
        return Script(**given)


class Picker:
    """Says which of several choices meets the next thing, and counts."""

    def __init__(self, seed: int, choices: tuple[Fault, ...] | tuple[Ending, ...]) -> None:
        self._seed = seed
        self._choices = choices
        self._seen = [0] * len(choices)
        self._met = [0] * len(choices)
        self._lock = threading.Lock()

    def fault(self, route: str) -> Fault | None:
        """The fault that this request meets. Every fault that could have counts the request."""
        found = self._pick([isinstance(c, Fault) and fnmatchcase(route, c.on) for c in self._choices])
        return found if isinstance(found, Fault) else None

    def ending(self, circuits: set[str], tags: list[str]) -> Ending | None:
        """How a job of these circuits and tags ends, if not well."""

        def matches(choice: Choice) -> bool:
            if not isinstance(choice, Ending):
                return False
            has_tag = choice.tag is None or choice.tag in tags
            return has_tag and (choice.circuit is None or choice.circuit in circuits)

        found = self._pick([matches(choice) for choice in self._choices])
        return found if isinstance(found, Ending) else None

    def _pick(self, matching: list[bool]) -> Choice | None:
        found: Choice | None = None
        with self._lock:
            for index, choice in enumerate(self._choices):
                if not matching[index]:
                    continue
                number = self._seen[index]
                self._seen[index] += 1
                if found is None and self._meets(index, choice, number):
                    self._met[index] += 1
                    found = choice
        return found

    def _meets(self, index: int, choice: Choice, number: int) -> bool:
        if choice.nth is not None:
            return number in choice.nth
        if number < choice.skip or (choice.times is not None and self._met[index] >= choice.times):
            return False
        return random.Random(f"{self._seed}/{index}/{number}").random() < choice.chance
