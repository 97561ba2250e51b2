"""What ``ray_qjm.plan`` says, as people read it."""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from html import escape

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ray_qjm.planning.plan import BackendPlan, Beyond

#: A table of one backend takes less.
_WIDTH = 100


@dataclass(frozen=True)
class Plan:
    """What a task will take, before anything is paid; prints as a table.

    With several backends each is planned for its share by weight; who is faster takes more in the end.

    Attributes:
        circuits: Of the task.
        backends: One entry a backend.
        notes: What was found out about the circuits on the way.
        beyond: The limits of budgets, the task's and those of accounts, that all together go beyond.
    """

    circuits: int
    backends: tuple[BackendPlan, ...]
    notes: tuple[str, ...] = ()
    beyond: tuple[Beyond, ...] = ()

    @property
    def jobs(self) -> int:
        """Jobs at services, in all."""
        return sum(backend.jobs or 0 for backend in self.backends)

    @property
    def qpu_s(self) -> float | None:
        """Estimated QPU seconds in all; ``None`` if some are unknown."""
        known = [backend.qpu_s for backend in self.backends if backend.jobs is not None]
        return None if not known or None in known else sum(x for x in known if x is not None)

    def __str__(self) -> str:
        """The table, and what has to be said beside it."""
        sink = io.StringIO()
        console = Console(file=sink, width=_WIDTH, no_color=True, highlight=False)
        console.print(self.table())
        for line in self.lines():
            console.out(line)
        return "\n".join(line.rstrip() for line in sink.getvalue().splitlines()).rstrip()

    def __repr__(self) -> str:
        """The table, for a REPL."""
        return str(self)

    def _repr_html_(self) -> str:
        names = [name for name, _ in _COLUMNS]
        head = "".join(f'<th style="text-align:right">{escape(name)}</th>' for name in names)
        rows = "".join(
            "<tr>"
            + "".join(f'<td style="text-align:right">{escape(cell)}</td>' for cell in _cells(b))
            + "</tr>"
            for b in self.backends
        )
        notes = "".join(f"<div>{escape(line)}</div>" for line in self.lines())
        return f"<table><tr>{head}</tr>{rows}</table>{notes}"

    def table(self, width: int = _WIDTH) -> Table:
        """The table; on a console of few columns a line a fact, in place of a line a backend."""
        if width < _WIDTH:
            return self._upright()
        table = Table(title=self._title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for name, justify in _COLUMNS:
            table.add_column(name, justify="left" if justify == "left" else "right")
        for backend in self.backends:
            table.add_row(*map(Text, _cells(backend)))  # a name may look like markup
        return table

    def _upright(self) -> Table:
        table = Table(
            title=self._title,
            title_justify="left",
            box=SIMPLE_HEAD,
            pad_edge=False,
            min_width=len(self._title) + 2,
        )
        facts = zip(*map(_cells, self.backends), strict=True)
        for (name, _), cells in zip(_COLUMNS, facts, strict=True):
            if not table.columns:
                for each in map(Text, (name, *cells)):  # a name may look like markup
                    table.add_column(each, justify="right" if table.columns else "left", overflow="fold")
            else:
                table.add_row(name, *map(Text, cells))
        return table

    @property
    def _title(self) -> str:
        return f"{self.circuits:,} circuits, nothing submitted yet"

    def lines(self) -> list[str]:
        """What has to be said beside it."""
        return [*map(str, self.beyond), *self.notes]


_COLUMNS = (
    ("backend", "left"),
    ("circuits", "right"),
    ("jobs", "right"),
    ("a job", "right"),
    ("executions", "right"),
    ("payload", "right"),
    ("bound by", "left"),
    ("submitted", "right"),
    ("QPU", "right"),
)
assert len(_COLUMNS) == len(fields(BackendPlan)) - 2  # all executions and the account have none


def _cells(backend: BackendPlan) -> list[str]:
    if backend.jobs is None:
        return [backend.name, f"{backend.circuits:,}", "on workers", *[""] * 6]
    if backend.jobs == 0:
        return [backend.name, f"{backend.circuits:,}", "0", *[""] * 6]
    return [
        backend.name,
        f"{backend.circuits:,}",
        f"{backend.jobs:,}",
        f"{backend.circuits_a_job:,}",
        f"{backend.executions_a_job:,}",
        "?" if backend.payload_bytes is None else _size(backend.payload_bytes),
        backend.limit or "nothing",
        _time(backend.submission_s) if backend.submission_s else "at once",
        "?" if backend.qpu_s is None else _time(backend.qpu_s),
    ]


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds:.1g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
