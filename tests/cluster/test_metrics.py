"""What is recorded of tasks and desks, without Ray; and that dashboard and manual speak of the same metrics."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

from ray_qjm.cluster import metrics
from ray_qjm.cluster.line_jobs import stages_of
from ray_qjm.cluster.measuring import DeskMeasures, TaskMeasures
from ray_qjm.cluster.messages import Outcome
from ray_qjm.cluster.metrics import METRICS, OTHERS, OWN_TASKS, Metric
from ray_qjm.planning.status import BackendStatus, TaskStatus
from ray_qjm.planning.tally import Tally
from ray_qjm.planning.tickets import FINAL
from ray_qjm.planning.verdicts import What
from ray_qjm.results.jobs import Job

ROOT = Path(__file__).resolve().parents[2]
#: Of Prometheus's own making, around the name of a metric.
SUFFIXES = r"_(bucket|count|sum)$"


class Recorded:
    """Stands for all of Ray's metrics: the last value of gauges, the sum of counters, the number of observations."""

    def __init__(self, metric: Metric, values: dict[tuple[str, ...], float]) -> None:
        self._metric = metric
        self._values = values

    def _key(self, tags: Mapping[str, str]) -> tuple[str, ...]:
        assert tuple(tags) == self._metric.tags
        assert all(value.isascii() and len(value) <= metrics.MOST for value in tags.values())
        return (self._metric.name, *tags.values())

    def set(self, value: float, tags: Mapping[str, str]) -> None:
        self._values[self._key(tags)] = value

    def inc(self, value: float, tags: Mapping[str, str]) -> None:
        assert value > 0
        self._values[self._key(tags)] = self._values.get(self._key(tags), 0) + value

    def observe(self, value: float, tags: Mapping[str, str]) -> None:
        assert value >= 0
        self._values[self._key(tags)] = self._values.get(self._key(tags), 0) + 1


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[tuple[str, ...], float]]:
    values: dict[tuple[str, ...], float] = {}
    for name in ("_instruments", "_own_tasks", "_shares"):
        monkeypatch.setattr(metrics, name, {})
    monkeypatch.setattr(metrics, "_complained", False)
    monkeypatch.setattr(metrics, "_make", lambda metric: Recorded(metric, values))
    yield values
    assert metrics._complained is False


def status(done: int = 0, **more: Any) -> TaskStatus:
    fields: dict[str, Any] = {
        "task_id": "t", "name": None, "state": "running", "total": 100, "done": done, "failed": 0, "cancelled": 0,
        "elapsed_s": 1.0, "rate": None,
        "backends": (BackendStatus("aer", done, 0, 10, 2, done // 10, 0),),
    }  # fmt: skip
    return TaskStatus(**{**fields, **more})


def test_a_task_is_told_by_state_and_backend(recorded: dict[tuple[str, ...], float]) -> None:
    """Of 100 circuits 20 were done by an earlier session and 30 by this one, at a service and on workers."""
    aer = BackendStatus("aer", 20, 1, 4, 1, 3, 2)
    torino = BackendStatus("torino", 10, 0, 6, 1, 1, 0, pending=2, queued=None)
    seen = status(50, failed=1, backends=(aer, torino))
    task = TaskMeasures("t1", "tomography of |ψ>")
    task.see(seen, {"jobs": 7})
    mine = "t1", "tomography of |?>"
    circuits = {key[3:]: value for key, value in recorded.items() if key[0] == "qjm_circuits"}
    assert {key: value for key, value in circuits.items() if value} == {
        ("aer", "done"): 20, ("aer", "failed"): 1, ("aer", "running"): 4,
        ("torino", "done"): 10, ("torino", "running"): 6, ("", "done"): 20, ("", "waiting"): 39,
    }  # fmt: skip
    assert sum(circuits.values()) == 100
    assert recorded[("qjm_jobs", *mine, "torino", "pending")] == 2
    assert ("qjm_jobs", *mine, "aer", "pending") not in recorded
    assert recorded[("qjm_budget_left", *mine, "jobs")] == 7
    task.see(seen, {})
    task.see(status(55, failed=1, backends=(BackendStatus("aer", 25, 1, 0, 0, 4, 2), torino)), {})
    assert recorded["qjm_finished_circuits", "aer", "done"] == 25
    assert recorded["qjm_finished_chunks", "aer", "crashed"] == 2
    task.landed("aer", Outcome(stages={"build": 0.1, "run": 0.5}, size=2000))
    task.packed("torino", 300)
    task.packed("torino", 0)
    assert recorded["qjm_stage_seconds", "aer", "run"] == 1
    assert recorded["qjm_bytes", "aer", "rows"] == 2000 and recorded["qjm_bytes", "torino", "circuits"] == 300


def test_backends_of_one_label_are_added_up(recorded: dict[tuple[str, ...], float]) -> None:
    """Ray takes ASCII only, and names are cut."""
    task = TaskMeasures("t1", None)
    for done in (3, 5):
        alike = (BackendStatus("ψ", done, 0, 4, 1, 2, 0), BackendStatus("φ", 7, 1, 6, 1, 2, 0))
        task.see(status(done + 7, failed=1, backends=alike), {})
    assert recorded["qjm_circuits", "t1", "", "?", "done"] == 12
    assert recorded["qjm_circuits", "t1", "", "?", "running"] == 10
    assert recorded["qjm_finished_circuits", "?", "done"] == 12


def test_counters_of_a_task_begin_at_zero(recorded: dict[tuple[str, ...], float]) -> None:
    """`rate` sees nothing of the value with which a series begins: the first crash would not be seen."""
    TaskMeasures("t1", None).see(status(backends=(BackendStatus("aer", 0, 0, 4, 1, 0, 0),)), {})
    counters = {key[1:]: value for key, value in recorded.items() if METRICS[key[0]].kind == "counter"}
    assert counters == dict.fromkeys(
        [("aer", state) for state in ("done", "failed", "crashed", "rows")], metrics.ZERO
    )


def test_tasks_beyond_so_many_share_their_series(
    recorded: dict[tuple[str, ...], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("ray_qjm.cluster.metrics.time.monotonic", lambda: now[0])
    tasks = [TaskMeasures(f"t{i}", "scan") for i in range(OWN_TASKS + 3)]
    for task in tasks:
        task.see(status(5), {})
        task.landed("aer", Outcome(stages={"run": 1.0}))
    series = {key[1] for key in recorded if key[0] == "qjm_circuits"}
    assert series == {f"t{i}" for i in range(OWN_TASKS)} | {OTHERS}
    assert recorded["qjm_circuits", OTHERS, "", "aer", "done"] == 15
    # What isn't tagged by task is as much as ever.
    assert recorded["qjm_finished_circuits", "aer", "done"] == 5 * len(tasks)
    tasks[-1].close()
    assert recorded["qjm_circuits", OTHERS, "", "aer", "done"] == 10
    for task in tasks[:OWN_TASKS]:
        task.close()
    for at, mine in ((metrics.OWN_S - 1, OTHERS), (metrics.OWN_S + 1, "late")):
        now[0] = at
        late = TaskMeasures("late", None)
        late.see(status(7), {})
        assert ("qjm_circuits", "late", "", "aer", "done") in recorded or mine == OTHERS
        late.close()
    assert recorded["qjm_circuits", "late", "", "aer", "done"] == 7


def test_a_desk_is_told_by_backend(recorded: dict[tuple[str, ...], float]) -> None:
    """One backend has two entries at the desk, with other options."""
    tally = Tally()
    tally.submitted.update({"fez-0123456789ab": 3, "fez-ba9876543210": 2})
    tally.refused["fez-0123456789ab", "wait"] += 1
    tally.refused["fez-ba9876543210", "wait"] += 1
    tally.over["fez-ba9876543210", "done"] += 2
    state = {
        "pending": 2,
        "max_pending": 3,
        "waiting": {"fez-0123456789ab": 4, "fez-ba9876543210": 1},
        "left": {"jobs": 5},
    }
    desk = DeskMeasures("lab")
    for _ in range(2):
        desk.see({**state, **tally.plain()})
    # Whatever may yet happen has its series, so that `rate` sees the first time.
    for reason in get_args(What):
        assert recorded["qjm_desk_refusals", "lab", "fez", reason] == pytest.approx(2 * (reason == "wait"))
    for over in FINAL:
        assert recorded["qjm_desk_finished_jobs", "lab", "fez", over] == pytest.approx(2 * (over == "done"))
    assert recorded.pop(("qjm_desk_retries", "lab", "fez")) == metrics.ZERO
    assert {key: value for key, value in recorded.items() if value != metrics.ZERO} == {
        ("qjm_desk_pending", "lab"): 2,
        ("qjm_desk_pending_cap", "lab"): 3,
        ("qjm_desk_waiting", "lab", "fez"): 5,
        ("qjm_desk_budget_left", "lab", "jobs"): 5,
        ("qjm_desk_submissions", "lab", "fez"): 5,
        ("qjm_desk_refusals", "lab", "fez", "wait"): 2,
        ("qjm_desk_finished_jobs", "lab", "fez", "done"): 2,
    }


def test_what_cannot_be_recorded_ends_nothing_and_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(metric: Metric) -> Any:
        raise OSError("no exporter here")

    monkeypatch.setattr(metrics, "_instruments", {})
    monkeypatch.setattr(metrics, "_complained", False)
    monkeypatch.setattr(metrics, "_make", broken)
    task, desk = TaskMeasures("t1", None), DeskMeasures("lab")
    with caplog.at_level(logging.WARNING, logger="ray_qjm"):
        for _ in range(3):
            task.see(status(), {})
            task.landed("aer", Outcome(stages={"run": 1.0}, size=1))
            desk.see({})
            task.close()
    assert [record.message for record in caplog.records] == [
        "ray_qjm: metrics can't be recorded: OSError: no exporter here"
    ]


def job(submitted: float | None, started: float | None) -> Job:
    return Job("j", "fez", 0, 5, 0, "done", None, submitted, started, 100.0, 5, 50, None)


def test_stages_of_a_job() -> None:
    assert stages_of(job(90.0, 95.0), 60.0) == {"permit": 30.0, "queue": 5.0, "run": 5.0}
    assert stages_of(job(90.0, None), 60.0) == {"permit": 30.0, "run": 10.0}  # nobody knows when it began
    assert stages_of(job(90.0, 95.0), None) == {"queue": 5.0, "run": 5.0}  # of an earlier session
    assert stages_of(job(90.0, 95.0), 91.0)["permit"] == 0.0  # by another clock


# The dashboard and the manual.

DASHBOARD = json.loads((ROOT / "deploy" / "grafana.json").read_text(encoding="utf-8"))


def named_in_dashboard() -> set[str]:
    """All that the dashboard asks for, variables included."""
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    queries += [item["definition"] for item in DASHBOARD["templating"]["list"] if item["type"] == "query"]
    return {re.sub(SUFFIXES, "", name) for query in queries for name in re.findall(r"ray_qjm_\w+", query)}


def test_dashboard_shows_every_metric_and_no_other() -> None:
    assert named_in_dashboard() == {metric.exported for metric in METRICS.values()}


def test_dashboard_asks_for_tags_that_its_metrics_have() -> None:
    by_name = {metric.exported: metric for metric in METRICS.values()}
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            legend = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            names = re.findall(r"(ray_qjm_\w+){([^}]*)}", target["expr"])
            assert names, target["expr"]
            for name, filters in names:
                tags = {*by_name[re.sub(SUFFIXES, "", name)].tags, "SessionName"}
                assert set(re.findall(r"(\w+)=~", filters)) <= tags, target["expr"]
                assert legend <= tags, target["legendFormat"]
            for grouping in re.findall(r"sum by \(([^)]*)\)", target["expr"]):
                assert legend <= set(grouping.split(", "))


def test_dashboard_can_be_imported_anywhere() -> None:
    """No data source, no id and no host of whoever made it; panels are known by different ids and don't overlap."""
    assert "id" not in DASHBOARD and DASHBOARD["templating"]["list"][0]["type"] == "datasource"
    panels = DASHBOARD["panels"]
    rows = [panel["title"] for panel in panels if panel["type"] == "row"]
    assert rows == ["Task progress", "Services", "Desk", "Stages"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    sources = [*panels, *DASHBOARD["templating"]["list"], *(t for p in panels for t in p.get("targets", ()))]
    found = [item["datasource"]["uid"] for item in sources if "datasource" in item]
    assert len(found) > len(panels) and set(found) == {"${datasource}"}
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24


def test_manual_lists_every_metric_with_its_tags() -> None:
    manual = (ROOT / "docs" / "how-to" / "monitoring.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(ray_qjm_\w+)` \| (\w+) \| ([^|]*) \|", manual, flags=re.MULTILINE)
    listed = {name: (kind, tuple(re.findall(r"`(\w+)`", tags))) for name, kind, tags in rows}
    assert listed == {metric.exported: (metric.kind, metric.tags) for metric in METRICS.values()}
    for reason in get_args(What):
        assert f"`{reason}`" in manual
    for picture in re.findall(r"!\[[^]]*\]\(([^)]*)\)", manual):
        size = (ROOT / "docs" / "how-to" / picture).stat().st_size
        assert 0 < size < 300_000
