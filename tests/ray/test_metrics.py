"""What Prometheus gets of a live run: every metric of the dashboard, with its tags and true values."""

from __future__ import annotations

import itertools
import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_args

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

import ray_qjm
from ray_qjm import Budget, Limits, Quota, TaskStatus
from ray_qjm.cluster import coordinator, metrics
from ray_qjm.cluster.backend_actor import NAMESPACE, desk_name
from ray_qjm.cluster.metrics import METRICS
from ray_qjm.cluster.service_line import ServiceLine
from ray_qjm.planning.verdicts import What
from tests.cluster.test_metrics import named_in_dashboard
from tests.ray.circuits_for_tests import coin
from tests.services.hosted import Connect
from tests.services.scene import Scene, check_counts, options, submit
from tests.services.scripted import Fault

#: Ray exports every 10 s, desks tell every 5.
WITHIN_S = 60.0


class Sample(NamedTuple):
    """One line of an endpoint."""

    name: str
    tags: Mapping[str, str]
    value: float

    def of(self, **tags: str) -> bool:
        """Whether it has these tags."""
        return all(self.tags.get(key) == value for key, value in tags.items())


def scrape() -> dict[tuple[str, frozenset[tuple[str, str]]], Sample]:
    """As Prometheus does it: without a token."""
    (node,) = ray.nodes()  # type: ignore[no-untyped-call]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=30) as answer:
        text = answer.read().decode()
    return {
        (line.name, frozenset(line.labels.items())): Sample(line.name, line.labels, line.value)
        for family in text_string_to_metric_families(text)
        for line in family.samples
        if line.name.startswith("ray_qjm_")
    }


def test_a_live_run_has_every_metric_that_the_dashboard_names(
    services: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulator, and a service that throttles once, drops a reply once and is too slow for its slots."""
    # Tests before it have begun more tasks in this process than have series of their own.
    monkeypatch.setattr(metrics, "_own_tasks", {})
    faults = {1: Fault(0, throttled_s=0.1), 3: Fault(0, reply="drop")}
    services.begin(pending=2, faults=lambda number: faults.get(number, Fault()))
    name = f"torino{services.account[:6]}"
    spec = services.spec(
        connect=Connect(services.service.where, job_s=1.0),
        name=name,
        quota=Quota(max_pending=2, budget=Budget(jobs=100)),
        limits=Limits(max_circuits=5),
    )
    simulator = ray_qjm.BackendSpec("aer", name=f"aer{services.account[:6]}")
    simulated = ray_qjm.submit(coin, simulator, count=50, shots=20, seed=1, name="coins of |ψ>")
    served = submit(spec, 60, name="readout", options=options(budget=Budget(qpu_seconds=40.0)))
    check_counts(served.result(timeout=100))
    chunks = simulated.result(timeout=100).jobs.num_rows
    account = services.account

    def has(exported: str, value: float, **tags: str) -> bool:
        return any(s.name == exported and s.value == value and s.of(**tags) for s in seen.values())

    def told() -> bool:
        """Whether the last words of driver and desk are there."""
        return (
            has("ray_qjm_circuits", 50, task=simulated.id, state="done")
            and has("ray_qjm_circuits", 60, task=served.id, state="done")
            and has("ray_qjm_desk_finished_jobs_total", 12, account=account, state="done")
        )

    # Gauges go 20 s after the end: what was seen once counts.
    seen: dict[tuple[str, frozenset[tuple[str, str]]], Sample] = {}
    until = time.monotonic() + WITHIN_S
    while not told():
        assert time.monotonic() < until, sorted({sample.name for sample in seen.values()})
        time.sleep(0.5)
        seen |= scrape()
    samples = list(seen.values())

    def value(exported: str, **tags: str) -> float:
        (found,) = [s for s in samples if s.name == exported and s.of(**tags)]
        return found.value

    known = {metric.exported: metric for metric in METRICS.values()}
    found = {sample.name.removesuffix("_bucket") for sample in samples}
    assert named_in_dashboard() <= found
    for sample in samples:
        metric = known.get(sample.name)
        if metric is not None:
            assert set(metric.tags) <= set(sample.tags), sample
    mine = {"task": simulated.id, "task_name": "coins of |?>"}
    assert value("ray_qjm_circuits", **mine, backend=simulator.name or "", state="done") == 50
    assert value("ray_qjm_circuits", **mine, backend="", state="waiting") == 0
    assert value("ray_qjm_chunks", **mine, backend=simulator.name or "", state="done") == chunks
    assert value("ray_qjm_finished_circuits_total", backend=simulator.name or "", state="done") == 50
    for stage in ("build", "transpile", "run", "pack"):
        assert value("ray_qjm_stage_seconds_count", backend=simulator.name or "", stage=stage) == chunks
    for stage in ("permit", "queue", "run"):
        assert value("ray_qjm_stage_seconds_count", backend=name, stage=stage) == 12
    for kind in ("circuits", "rows"):
        assert value("ray_qjm_bytes_total", backend=name, kind=kind) > 0
    story = services.service.story()
    left = 40.0 - sum(job.usage_s for job in story.jobs)
    assert value("ray_qjm_budget_left", task=served.id, unit="qpu_seconds") == pytest.approx(left)
    assert value("ray_qjm_jobs", task=served.id, backend=name, state="pending") == 0
    assert value("ray_qjm_desk_pending_cap", account=account) == 2
    assert value("ray_qjm_desk_budget_left", account=account, unit="jobs") == 100 - 12
    requests = [request for request in story.requests if request.kind == "submit"]
    assert value("ray_qjm_desk_submissions_total", account=account, backend=name) == len(requests) == 14
    assert value("ray_qjm_desk_retries_total", account=account, backend=name) == 2
    refused = {
        s.tags["reason"]: s.value
        for s in samples
        if s.name == "ray_qjm_desk_refusals_total" and s.of(account=account)
    }
    assert refused == pytest.approx({**dict.fromkeys(get_args(What), 0), "wait": 1, "unknown": 1})
    actor: Any = ray.get_actor(desk_name(account), NAMESPACE)
    called: Any = ray.get(actor.__ray_call__.remote(repr))
    assert called == f"desk of {account}"


def test_status_follows_jobs_that_move_without_an_event(
    services: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A place in a service's queue changes for hours, while enough is prepared and nothing lands."""
    monkeypatch.setattr(coordinator, "LOOK_AROUND_S", 0.05)
    stand, looks = ServiceLine.stand, itertools.count()
    monkeypatch.setattr(ServiceLine, "stand", lambda line: {**stand(line), "position": next(looks)})
    services.begin(run_s=lambda job: 600.0)
    spec = services.spec(quota=Quota(max_pending=1), limits=Limits(max_circuits=2))
    with submit(spec, 40) as task:
        until(lambda: all_queued(task.status()))
        some = next(looks) + 30  # the last words of what was prepared are fewer
        until(lambda: (task.status().backends[0].position or 0) > some)


def all_queued(status: TaskStatus) -> bool:
    """Whether all circuits that are prepared stand in jobs of two, one of which is at the service."""
    (at,) = status.backends
    return at.pending == 1 and status.running == 2 * (1 + (at.queued or 0)) > 4


def until(what: Callable[[], bool]) -> None:
    """Wait for it."""
    end = time.monotonic() + WITHIN_S
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)
