"""What people see while a task runs."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from ray_qjm.frontends.progress import Bar, Lines, Silent, Told, line, view
from ray_qjm.planning.status import BackendStatus, TaskState, TaskStatus


def status(
    done: int = 300,
    total: int | None = 1000,
    state: TaskState = "running",
    failed: int = 0,
    backends: int = 1,
) -> TaskStatus:
    found = tuple(BackendStatus(f"b{i}", done, failed, 200, 2, 3, 0) for i in range(backends))
    return TaskStatus("t1", None, state, total, done, failed, 0, 61.5, 200.0, found)


def drawn(*updates: TaskStatus, width: int = 140) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, color_system=None)
    bar = Bar(console)
    with bar:
        for update in updates:
            bar.update(update)
    return stream.getvalue()


def test_bar_shows_share_rate_eta_failures_and_chunks() -> None:
    text = drawn(status(failed=5))
    assert "circuits" in text and "305/1,000 (30%)" in text
    assert "200/s" in text
    assert "5 failed" in text
    assert "2 chunks" in text
    assert "eta 0:03" in text


@pytest.mark.parametrize("width", [80, 110])
def test_bar_of_a_million_stays_on_one_line(width: int) -> None:
    text = drawn(status(done=234_567, total=1_000_000, failed=5), width=width)
    frames = [line for line in text.splitlines() if "234,572/1,000,000 (23%)" in line]
    assert frames
    assert all("circuits" in frame and "eta 1:03:47" in frame and "1:01" in frame for frame in frames)


def test_bar_that_is_left_before_anything_ran_leaves_nothing() -> None:
    text = drawn()
    assert "starting Ray" in text and "\x1b[2K" in text.rpartition("starting Ray")[2]


def test_bar_of_unknown_length_has_no_share() -> None:
    text = drawn(status(total=None))
    assert "300" in text and "in flight" in text
    assert "%" not in text
    assert "eta" not in text
    assert "━" not in text


def test_bar_has_a_row_for_each_of_several_backends() -> None:
    text = drawn(status(backends=2))
    assert "b0" in text and "b1" in text
    assert "300 done" in text


def test_bar_ends_with_the_last_state() -> None:
    assert "cancelled" in drawn(status(), status(state="cancelled"))
    assert "1,000/1,000 (100%)" in drawn(status(), status(done=1000, state="done"))


@pytest.mark.parametrize("name", ["lab[red]", "lab[/x]", "lab:warning:", "[bold]"])
def test_names_that_look_like_markup_are_shown_as_they_are(name: str) -> None:
    backends = tuple(BackendStatus(each, 1, 0, 0, 0, 1, 0, pending=2) for each in (name, "other"))
    seen = TaskStatus("t", None, "done", 3, 3, 0, 0, 1.0, None, backends)
    stream = io.StringIO()
    Lines(Console(file=stream, force_terminal=True, width=200), every_s=0).update(seen)
    assert f"{name} 1" in stream.getvalue() and f"{name}: " in stream.getvalue()
    assert f"  {name}" in drawn(seen)


def test_lines_come_seldom_and_once_at_the_end() -> None:
    stream = io.StringIO()
    lines = Lines(Console(file=stream, width=200), every_s=1000)
    for done in range(0, 500, 50):
        lines.update(status(done=done))
    assert stream.getvalue() == ""
    lines.update(status(done=1000, state="done"))
    assert stream.getvalue().startswith("ray_qjm: done, 1,000/1,000 circuits (100%), 200/s")
    often = Lines(Console(file=stream, width=200), every_s=0)
    often.update(status())
    often.update(status())
    assert stream.getvalue().count("\n") == 3


def test_line_of_several_backends_and_failures() -> None:
    text = line(status(failed=7, backends=2))
    assert "7 failed" in text and "b0 307, b1 307" in text and "elapsed 1:01" in text


def test_view_follows_the_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert type(view(False)) is Silent
    assert isinstance(view(None), Lines)
    seen: list[TaskStatus] = []
    told = view(seen.append)
    told.update(status())
    assert seen == [status()]


def test_observer_that_raises_is_dropped() -> None:
    calls: list[Any] = []

    def observer(given: TaskStatus) -> None:
        calls.append(given)
        raise RuntimeError("mine")

    told = Told(observer)
    told.update(status())
    told.update(status())
    assert len(calls) == 1
    assert told.complaint() == "progress raised RuntimeError: mine; it was not called again."


def test_empty_task_has_no_share() -> None:
    assert "0/0 circuits, " in line(status(done=0, total=0, state="done"))


def test_notebook_without_widgets_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("ray_qjm.frontends.progress.find_spec", lambda name: None)
    assert isinstance(view(None), Lines)
    monkeypatch.setattr("ray_qjm.frontends.progress.find_spec", lambda name: name)
    assert isinstance(view(None), Bar)
