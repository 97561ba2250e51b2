"""Services in processes of their own, for tests of whole tasks: each test has an account, and so a desk, of its own."""

from __future__ import annotations

import contextlib
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

import ray_qjm
from ray_qjm import BackendSpec, Limits, Quota, RetryPolicy, RunOptions
from ray_qjm.cluster.backend_actor import NAMESPACE, desk_name
from ray_qjm.cluster.desk_state import VARIABLE
from tests.services.hosted import Connect, expected, marked
from tests.services.process import ServiceProcess, Story
from tests.services.scripted import Script

#: Waits are short, so that tests are.
RETRY = RetryPolicy(wait_s=0.05, max_wait_s=0.2, lost_grace_s=0.6, call_s=30.0)
#: Of a job, where nothing depends on it.
RUN_S = 0.05


def quick(**more: Any) -> Script:
    """A service that runs each job in no time."""
    return Script(**{"run_s": lambda job: RUN_S, "pending": 100, "parallel": 4, **more})


class Scene:
    """What a test has: services, and an account.

    Args:
        services: Their processes.
        account: Nobody else has the same.
    """

    def __init__(self, services: list[ServiceProcess], account: str) -> None:
        self.services = services
        self.service = services[0]
        self.account = account
        self._accounts = {account}

    def begin(self, **script: Any) -> None:
        """How the service behaves; see ``Script``."""
        self.service.begin(quick(**script))

    def spec(
        self,
        *,
        at: int = 0,
        quota: Quota | None = None,
        limits: Limits | None = None,
        account: str = "",
        connect: Any = None,
        **more: Any,
    ) -> BackendSpec:
        """A backend: one of the services, by its number."""
        name = f"{self.account}-{account}" if account else self.account
        self._accounts.add(name)
        made = Connect(self.services[at].where) if connect is None else connect
        fields: dict[str, Any] = {
            "name": f"service{at or ''}",
            "placement": "actor",
            "account": name,
            "quota": Quota(max_pending=3) if quota is None else quota,
            "limits": Limits() if limits is None else limits,
        }
        return BackendSpec(made, **{**fields, **more})

    def close(self) -> None:
        """End its desks."""
        for account in self._accounts:
            with contextlib.suppress(ValueError):
                ray.kill(ray.get_actor(desk_name(account), NAMESPACE), no_restart=True)


@contextlib.contextmanager
def scene(services: list[ServiceProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """A scene, and what must hold after any test."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "state"))
    for service in services:
        service.begin(quick())
    found = Scene(services, uuid.uuid4().hex)
    yield found
    if ray.is_initialized():
        found.close()
    for service in services:
        assert service.story().violations == []


def options(**more: Any) -> RunOptions:
    """With short waits."""
    return RunOptions(**{"retry": RETRY, "cancel_grace_s": 1.0, **more})


def run(backends: Any, count: int = 20, **more: Any) -> ray_qjm.TaskResult:
    """Run marked circuits to their end."""
    return ray_qjm.run(
        more.pop("circuits", marked),
        backends,
        count=count,
        **{"shots": 10, "seed": 1, "progress": False, "options": options(), **more},
    )


def submit(backends: Any, count: int = 20, **more: Any) -> ray_qjm.Task:
    """Start to run marked circuits."""
    return ray_qjm.submit(
        more.pop("circuits", marked),
        backends,
        count=count,
        **{"shots": 10, "seed": 1, "options": options(), **more},
    )


def check_counts(result: ray_qjm.TaskResult, shots: int = 10, but: Any = ()) -> None:
    """Every circuit has its own counts, but some."""
    for index in range(len(result)):
        if index not in but:
            assert result.get_counts(index) == expected(index, shots), index


def check_once(story: Story, count: int, shots: int = 10) -> None:
    """Every circuit has run for so many shots, and nothing is left."""
    assert story.shots_run == Counter({f"c{index}": shots for index in range(count)})
    assert story.open == []
