"""Where the runs of a job manager stand, and each of their jobs, as people read it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from ray_qjm.frontends.progress import amount
from ray_qjm.planning.status import TaskStatus
from ray_qjm.results.schema import JOBS_SCHEMA

#: Jobs of a run that are shown, those first that aren't done; the table has all.
SHOWN = 20
#: Columns of text without a terminal.
_WIDTH = 110
#: States of jobs in the order of their lives. What is before ``done`` goes on.
_STATES = (
    "queued",
    "intended",
    "unknown",
    "submitted",
    "running",
    "cancelling",
    "done",
    "failed",
    "cancelled",
    "refused",
    "lost",
)
_GOING_ON = _STATES[: _STATES.index("done")]
_STYLES = {"done": "green", "running": "cyan", "submitted": "cyan", "failed": "red", "lost": "red"}


@dataclass(frozen=True)
class RunStatus:
    """Where one run stands.

    Attributes:
        task: Its circuits.
        jobs: Its jobs, see ``Task.jobs``.
        tags: What people say of it.
        store: Where its rows are; ``None``: in memory.
        elsewhere: Whether another process runs it. Its chunks on workers, and what waits for a permit, are counted
            then and not listed.
    """

    task: TaskStatus
    jobs: pa.Table
    tags: Sequence[str] = ()
    store: str | None = None
    elsewhere: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """Jobs by state, those included that aren't listed."""
        listed = self.jobs.column("state").value_counts().to_pylist()
        found = Counter({item["values"]: item["counts"] for item in listed})
        if self.elsewhere and self.task.state in ("running", "cancelling"):
            told = self.task.backends
            running = sum(b.jobs_running for b in told if b.pending is None)
            for state, number in (("running", running), ("queued", sum(b.queued or 0 for b in told))):
                found[state] = max(found[state], number)
        return {state: found[state] for state in _STATES if found[state]}

    def line(self) -> str:
        """One line without its jobs' states.

        >>> task = TaskStatus("4f1a", "bell", "done", 10, 9, 1, 0, 2.0, None, ())
        >>> RunStatus(task, JOBS_SCHEMA.empty_table(), ["night"]).line()
        "run 4f1a 'bell' (night): done, 10/10 circuits (100%), 1 failed, 0 jobs"
        """
        tags = f" ({', '.join(self.tags)})" if self.tags else ""
        jobs = sum(self.counts.values())
        return (
            f"run {_called(self.task)}{tags}: {self.task.state}, {_circuits(self.task, ' circuits')}, "
            f"{jobs:,} job{'s' * (jobs != 1)}"
        )


@dataclass(frozen=True)
class ManagerStatus:
    """Where the runs of a ``JobManager`` stand: how many jobs there are, and the state of each. Prints as tables.

    Attributes:
        runs: Each run, in the order in which the manager has them.
        notes: What has to be said beside it, such as which runs can't be read.
    """

    runs: tuple[RunStatus, ...]
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Jobs of all runs by state."""
        found: Counter[str] = Counter()
        for run in self.runs:
            found.update(run.counts)
        return {state: found[state] for state in _STATES if found[state]}

    @property
    def jobs(self) -> pa.Table:
        """The jobs of all runs in one Arrow table: ``Task.jobs``, and first the column ``run``."""
        tables = [
            run.jobs.add_column(0, "run", pa.array([run.task.task_id] * run.jobs.num_rows, pa.string()))
            for run in self.runs
        ]
        empty = JOBS_SCHEMA.insert(0, pa.field("run", pa.string())).empty_table()
        return pa.concat_tables([empty, *tables])

    def summary(self) -> str:
        """How many runs and jobs, in one line.

        >>> ManagerStatus(()).summary()
        '0 runs, 0 jobs'
        """
        counts = self.counts
        jobs, runs = sum(counts.values()), len(self.runs)
        states = f": {_states(counts)}" if counts else ""
        return f"{runs:,} run{'s' * (runs != 1)}, {jobs:,} job{'s' * (jobs != 1)}{states}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """For ``rich.print``."""
        yield Text(self.summary())
        if self.runs:
            yield _runs(self.runs)
        for run in self.runs:
            if run.counts:
                yield from _jobs(run)
        yield from map(Text, self.notes)

    def __str__(self) -> str:
        """The tables as plain text."""
        sink = io.StringIO()
        Console(file=sink, width=_WIDTH, no_color=True, force_jupyter=False).print(self)
        return "\n".join(line.rstrip() for line in sink.getvalue().splitlines()).rstrip()

    def __repr__(self) -> str:
        """The tables, for a REPL."""
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def _runs(runs: Sequence[RunStatus]) -> Table:
    table = _table(("run", "name", "state", "circuits", "jobs", "tags"))
    for run in runs:
        task = run.task
        cells = (
            task.task_id,
            task.name or "",
            task.state,
            _circuits(task),
            _states(run.counts),
            ", ".join(run.tags),
        )
        table.add_row(*_cells(cells, task.state))
    return table


def _jobs(run: RunStatus) -> Iterator[RenderableType]:
    table = _table(("job", "backend", "circuits", "state", "seconds", "remark"), f"run {_called(run.task)}")
    rows = _first(run.jobs, SHOWN)
    for job in rows:
        seconds = "" if job["seconds"] is None else f"{job['seconds']:,.1f}"
        name = job["job_id"] or "not submitted yet"
        cells = (
            name,
            job["backend"],
            _span(job),
            job["state"],
            seconds,
            " ".join((job["reason"] or "").split()),
        )
        table.add_row(*_cells(cells, job["state"]))
    yield table
    if (left := run.jobs.num_rows - len(rows)) > 0:
        yield Text(f"... and {left:,} more jobs: status().jobs has all.")
    if (unlisted := sum(run.counts.values()) - run.jobs.num_rows) > 0:
        yield Text(f"... and {unlisted:,} running or queued, which only the process that runs them can list.")


def _first(jobs: pa.Table, number: int) -> list[dict[str, Any]]:
    """Some jobs: first those that go on, then those that ended badly, then those that are done."""
    state = pc.field("state")
    parts = (state.isin(_GOING_ON), ~state.isin([*_GOING_ON, "done"]), state == "done")
    found: list[dict[str, Any]] = []
    for part in parts:
        found += jobs.filter(part).slice(0, number - len(found)).to_pylist()
    return found


def _table(columns: Sequence[str], title: str | None = None) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for name in columns:
        free = name in ("remark", "tags", "jobs")
        right = name == "seconds"
        table.add_column(name, justify="right" if right else "left", no_wrap=not free, overflow="fold")
    return table


def _cells(cells: Sequence[str], state: str) -> list[Text]:
    return [Text(cell, _STYLES.get(state, "") if cell == state else "") for cell in cells]


def _span(job: dict[str, Any]) -> str:
    """The circuits of a job; between the first and the last there may be others."""
    first, last = job["start"], job["stop"] - 1
    span = f"{first}" if first == last else f"{first}-{last}"
    return span if job["circuits"] == job["stop"] - first else f"{span} ({job['circuits']:,} runs)"


def _circuits(task: TaskStatus, what: str = "") -> str:
    parts = [amount(task, what)]
    parts += [f"{task.failed:,} failed"] if task.failed else []
    parts += [f"{task.cancelled:,} cancelled"] if task.cancelled else []
    return ", ".join(parts)


def _called(task: TaskStatus) -> str:
    return f"{task.task_id} {task.name!r}" if task.name else task.task_id


def _states(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {state}" for state, number in counts.items())
