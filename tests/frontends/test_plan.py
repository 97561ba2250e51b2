from __future__ import annotations

import io

import pytest
from rich.console import Console

from ray_qjm.frontends.plan import Plan
from ray_qjm.planning.plan import BackendPlan, Beyond

TORINO = BackendPlan("torino", 9000, 3, 4000, 4_096_000, 1_234_567, "executions", 60.0, 7300.0)


def test_it_prints_as_a_table() -> None:
    plan = Plan(
        10_000, (TORINO, BackendPlan("aer", 1000)), ("a note",), (Beyond("the task", "jobs", 2, 0, 3),)
    )
    text = str(plan)
    assert repr(plan) == text
    assert max(map(len, text.splitlines())) <= 100
    row = next(line for line in text.splitlines() if "torino" in line)
    assert row.split() == [
        "torino",
        "9,000",
        "3",
        "4,000",
        "4,096,000",
        "1.23",
        "MB",
        "executions",
        "60",
        "s",
        "2.0",
        "h",
    ]
    assert "on workers" in text
    assert text.endswith("Beyond the budget of the task: 3 jobs needed, 2 allowed.\na note")


def test_sums_are_of_services_only() -> None:
    assert Plan(10_000, (TORINO, BackendPlan("aer", 1000))).jobs == 3
    assert Plan(10_000, (TORINO, BackendPlan("aer", 1000))).qpu_s == 7300.0
    assert Plan(1000, (BackendPlan("aer", 1000),)).qpu_s is None
    unknown = BackendPlan("other", 10, 1, 10, 100, None, None, 0.0)
    assert Plan(10_000, (TORINO, unknown)).qpu_s is None


@pytest.mark.parametrize("name", ["lab[red]", "lab[/x]", "lab:warning:", "[bold]"])
def test_names_that_look_like_markup_are_printed_as_they_are(name: str) -> None:
    plan = Plan(1, (BackendPlan(name, 1, 0),), (f"of {name}",), (Beyond(name, "jobs", 1, 0, 2),))
    assert str(plan).count(name) == 3


def test_a_backend_that_gets_nothing_has_no_figures() -> None:
    row = str(Plan(0, (BackendPlan("torino", 0, 0, 0, 0, None, None, 0.0),))).splitlines()[-1]
    assert row.split() == ["torino", "0", "0"]


def test_less_than_a_second_of_qpu_is_a_time() -> None:
    plan = Plan(1, (BackendPlan("torino", 1, 1, 1, 10, 100, None, 0.0, 0.25),))
    assert "at once   0.2 s" in str(plan)


def test_notebooks_get_a_table_without_markup_of_others() -> None:
    html = Plan(1, (BackendPlan("<b>", 1),), ("<i>",))._repr_html_()
    assert "<td" in html and "<b>" not in html and "<i>" not in html


def test_on_few_columns_each_fact_has_a_line() -> None:
    console = Console(width=60, file=io.StringIO(), no_color=True)
    console.print(Plan(10_000, (TORINO, BackendPlan("aer", 1000))).table(60))
    assert isinstance(console.file, io.StringIO)
    lines = [line.split() for line in console.file.getvalue().splitlines() if line.strip()]
    assert lines[0][0] == "10,000"
    assert lines[1] == ["backend", "torino", "aer"]
    assert ["jobs", "3", "on", "workers"] in lines and ["executions", "4,096,000"] in lines
