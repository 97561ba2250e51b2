"""What a user sees while a task runs: a bar on a terminal or in a notebook, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Task as Row
from rich.table import Column
from rich.text import Text

from ray_qjm.planning.status import BackendStatus, TaskStatus

#: Redraws a second: faster than chunks end, slow enough to cost nothing.
REDRAWS = 2
#: Seconds between plain lines.
LINE_EVERY_S = 5.0

Observer = Callable[[TaskStatus], None]


class View(Protocol):
    """Shows a task from ``__enter__`` to ``__exit__``; ``update`` comes from the coordinator's thread."""

    def __enter__(self) -> View:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""

    def update(self, status: TaskStatus) -> None:
        """Take in a new status."""

    def complaint(self) -> str | None:
        """What went wrong with showing, if anything did."""


def view(progress: bool | Observer | None) -> View:
    """The view for an argument ``progress``: ``None`` looks where output goes, ``False`` shows nothing."""
    if progress is False:
        return Silent()
    if progress is None or progress is True:
        console = _Console(stderr=True)
        if console.is_jupyter:
            # rich draws a live bar in a notebook by way of ipywidgets, and only warns where they are missing.
            console = _Console()
            return Lines(console) if find_spec("ipywidgets") is None else Bar(console)
        return Bar(console) if console.is_terminal else Lines(console)
    return Told(progress)


class _Console(Console):
    """One that goes quiet when its reader has gone; rich would end the process, from whichever thread."""

    def on_broken_pipe(self) -> None:
        """Write no more."""
        self.quiet = True


class Silent:
    """Shows nothing."""

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def update(self, status: TaskStatus) -> None:
        """Do nothing."""

    def complaint(self) -> str | None:
        """Never anything."""
        return None


class Told(Silent):
    """Hands each status to the user's own callable; one that raises isn't called again."""

    def __init__(self, observer: Observer) -> None:
        self._observer: Observer | None = observer
        self._complaint: str | None = None

    def update(self, status: TaskStatus) -> None:
        """Call it."""
        if self._observer is None:
            return
        try:
            self._observer(status)
        except BaseException as error:  # sys.exit() in it, say: not the task's end
            self._observer = None
            self._complaint = f"progress raised {type(error).__name__}: {error}; it was not called again."

    def complaint(self) -> str | None:
        """What it raised."""
        return self._complaint


class Lines(Silent):
    """A line every few seconds, for logs and pipes."""

    def __init__(self, console: Console, every_s: float = LINE_EVERY_S) -> None:
        self._console = console
        self._every_s = every_s
        self._next = time.monotonic() + every_s

    def update(self, status: TaskStatus) -> None:
        """Print a line if it is time, and one at the end."""
        now = time.monotonic()
        if status.state in ("running", "cancelling") and now < self._next:
            return
        self._next = now + self._every_s
        self._console.out(line(status), highlight=False)  # names may look like markup


class Bar(Silent):
    """A live bar, with one row a backend where there are several."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}", markup=False),  # it is a name of the user's
            # On a narrow screen the bar gives way to the numbers, and a line stays one line.
            _KnownBar(bar_width=None, table_column=Column(max_width=30)),
            _Facts(table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=console,
            refresh_per_second=REDRAWS,
        )
        self._rows: dict[str, TaskID] = {}
        self._told = False
        self._main = self._progress.add_task(
            "circuits", total=None, facts="starting Ray and its workers", known=False, since=0.0
        )

    def __enter__(self) -> View:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Of a task that never began nothing remains to be seen.
        self._progress.live.transient = not self._told
        self._progress.stop()

    def update(self, status: TaskStatus) -> None:
        """Set the rows."""
        self._told = True
        finished = status.done + status.failed
        known = status.total is not None
        total = status.total if known or status.state == "running" else finished
        # One that is only watched began before this bar.
        before = max(0.0, status.elapsed_s - (self._progress.tasks[0].elapsed or 0.0))
        self._progress.update(
            self._main,
            total=total,
            completed=finished,
            facts=_facts(status),
            known=known,
            since=before,
            refresh=False,
        )
        for backend in status.backends:
            if len(status.backends) > 1 or backend.pending is not None:
                self._update_backend(backend)

    def _update_backend(self, backend: BackendStatus) -> None:
        row = self._rows.get(backend.name)
        if row is None:
            row = self._rows[backend.name] = self._progress.add_task(
                f"  {backend.name}", total=None, facts="", known=False
            )
        failed = f", [red]{backend.failed:,} failed[/]" if backend.failed else ""
        if backend.pending is None:
            facts = f"{backend.done:,} done{failed}, {backend.running:,} in {backend.jobs_running} chunks"
        else:
            facts = f"{backend.done:,} done{failed}, {escape(backend.words())}"
        self._progress.update(row, facts=facts, refresh=False)


class _KnownBar(BarColumn):
    """The bar, for rows whose end is known."""

    def render(self, task: Row) -> ProgressColumn | Text:  # type: ignore[override]
        """Draw it, or nothing."""
        return super().render(task) if task.fields["known"] else Text("")  # type: ignore[return-value]


class _Facts(ProgressColumn):
    """The numbers behind the bar; time goes on between two events."""

    max_refresh = None

    def render(self, task: Row) -> Text:
        """Write them."""
        elapsed = task.finished_time if task.finished else task.elapsed
        since = task.fields.get("since")
        shown = "" if since is None or elapsed is None else f"  {clock(since + elapsed)}"
        return Text.from_markup(f"{task.fields['facts']}{shown}", emoji=False)


def line(status: TaskStatus) -> str:
    """One plain line.

    >>> from ray_qjm.planning.status import BackendStatus
    >>> aer = BackendStatus("aer", 300, 0, 200, 2, 3, 0)
    >>> line(TaskStatus("t1", None, "running", 1000, 300, 0, 0, 1.5, 200.0, (aer,)))
    'ray_qjm: running, 300/1,000 circuits (30%), 200/s, 2 chunks running, eta 0:03, elapsed 0:01'
    """
    parts = [status.state, amount(status)]
    if status.rate:
        parts.append(f"{status.rate:,.0f}/s")
    if status.failed:
        parts.append(f"{status.failed:,} failed")
    if status.cancelled:
        parts.append(f"{status.cancelled:,} cancelled")
    if len(status.backends) > 1:
        parts += [f"{backend.name} {backend.done + backend.failed:,}" for backend in status.backends]
    services = [backend for backend in status.backends if backend.pending is not None]
    parts += [f"{backend.name}: {backend.words()}" for backend in services]
    if not services and (running := status.jobs["running"]):
        parts.append(f"{running} chunks running")
    if status.state == "running" and status.eta_s is not None:
        parts.append(f"eta {clock(status.eta_s)}")
    parts.append(f"elapsed {clock(status.elapsed_s)}")
    return f"ray_qjm: {', '.join(parts)}"


def amount(status: TaskStatus, what: str = " circuits") -> str:
    """How many circuits are finished, of how many."""
    finished = status.done + status.failed
    if status.total is None:
        return f"{finished:,}{what}"
    share = f" ({100 * finished // status.total}%)" if status.total else ""
    return f"{finished:,}/{status.total:,}{what}{share}"


def _facts(status: TaskStatus) -> str:
    parts = [amount(status, what="")]  # the row is called "circuits"
    if status.rate:
        parts.append(f"{status.rate:,.0f}/s")
    if status.failed:
        parts.append(f"[red]{status.failed:,} failed[/]")
    if status.state == "running":
        workers = [backend for backend in status.backends if backend.pending is None]
        running = sum(backend.jobs_running for backend in workers)
        flying = " in flight" if status.total is None else ""  # there is room: no bar, no percentage
        if workers:  # what services do stands in rows of their own
            parts.append(f"{running} chunk{'' if running == 1 else 's'}{flying}")
        if status.eta_s is not None:
            parts.append(f"eta {clock(status.eta_s)}")
    elif status.state != "done":
        parts.append(f"[yellow]{status.state}[/]")
    return "  ".join(parts)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock(61.5), clock(3723)
    ('1:01', '1:02:03')
    """
    whole = int(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
