"""How things are written: JSON for programs, aligned tables and short sentences for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from ray_qjm.planning.status import TaskStatus

#: Where nobody looks at a screen: no table is cut for lack of columns.
_WIDE = 160


def write_json(values: Mapping[str, Any], *, line: bool = False) -> None:
    """Write JSON to standard output; ``line``: one object a line."""
    click.echo(json.dumps(values, indent=None if line else 2))


def width() -> int:
    """Columns of standard output."""
    return _console().width


def write(*tables: RenderableType) -> None:
    """Write tables to standard output, without the blanks that fill up their lines."""
    console = _console()
    with console.capture() as captured:
        for found in tables:
            console.print(found)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    click.echo("\n".join(lines).strip("\n"))


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(_WIDE, console.width)
    return console


def table(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]]) -> Table:
    """A table; each column with its name and ``left`` or ``right``."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    found = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, justify in columns:
        found.add_column(name, justify="left" if justify == "left" else "right", overflow="fold")
    for row in rows:
        found.add_row(*map(plain, row))
    return found


def pairs(rows: Iterable[tuple[str, str]]) -> Table:
    """Names and what they are, in two columns."""
    from rich.table import Table

    found = Table.grid(padding=(0, 2))
    for name, value in rows:
        found.add_row(f"[bold]{name}[/]", plain(value))
    return found


def plain(text: str) -> str:
    """A text in which brackets are brackets."""
    from rich.markup import escape

    return escape(text)


def status(found: TaskStatus, store: str | None) -> None:
    """Write where a task stands."""
    from ray_qjm.frontends.progress import clock

    called = f" {found.name!r}" if found.name else ""
    circuits = [
        f"{found.done:,} of {found.total:,} done" if found.total is not None else f"{found.done:,} done"
    ]
    for word in ("failed", "running", "waiting", "cancelled"):
        number = getattr(found, word)
        if number and not (word == "waiting" and found.state != "running"):
            circuits.append(f"{number:,} {word}")
    rows = [
        ("task", f"{found.task_id}{called}"),
        ("state", f"{found.state}, {clock(found.elapsed_s)}"),
        ("circuits", ", ".join(circuits)),
    ]
    if found.state == "running" and found.rate:
        eta = "" if found.eta_s is None else f", eta {clock(found.eta_s)}"
        rows.append(("pace", f"{found.rate:,.0f} circuits/s{eta}"))
    if store is not None:
        rows.append(("store", store))
    each = [_backend(backend) for backend in found.backends]
    write(pairs(rows), *([table(_BACKENDS, each)] if each else []))


_BACKENDS = (
    ("backend", "left"),
    ("done", "right"),
    ("failed", "right"),
    ("running", "right"),
    ("now", "left"),
)


def _backend(found: Any) -> tuple[str, ...]:
    numbers = (f"{found.done:,}", f"{found.failed:,}", f"{found.running:,}")
    if found.pending is not None:
        return (found.name, *numbers, found.words())
    chunks = f"{found.jobs_running:,} chunks running, {found.jobs_done:,} done"
    return (found.name, *numbers, chunks + (f", {found.jobs_failed:,} died" if found.jobs_failed else ""))
