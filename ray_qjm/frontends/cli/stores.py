"""``status``, ``report``, ``watch``, ``cancel``, ``export`` and ``compact``: what is done with a stored task."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ray_qjm.errors import WaitTimeoutError
from ray_qjm.frontends.cli import arguments as options
from ray_qjm.frontends.cli import show
from ray_qjm.frontends.cli.command import PROGRAM, Command, option
from ray_qjm.frontends.cli.exits import Exit, exit_of
from ray_qjm.frontends.cli.facts import Facts, plain_status
from ray_qjm.frontends.cli.output import KINDS, TABLES, Target, force_option, target_of

if TYPE_CHECKING:
    from ray_qjm.planning.status import TaskStatus


@click.command(cls=Command, short_help="Say where a task stands.")
@options.store_argument
@options.as_json
def status(store: str, as_json: bool) -> int:
    """Say where the task of a store stands.

    It may run in another process, on another machine, or have ended. What is said of one that runs may be some seconds
    old.
    """
    from ray_qjm.results.watch import StoredTask

    found = StoredTask(store).status
    if as_json:
        show.write_json(plain_status(found, store))
    else:
        show.status(found, store)
        if found.state == "interrupted":
            click.echo(f"The process that ran it is gone. `{PROGRAM} resume {store}` goes on.")
    return Exit.DONE


@click.command(cls=Command, short_help="Say what was done and what failed.")
@options.store_argument
@option("--all", "whole", is_flag=True, help="All ranges of circuits, however many there are.")
@options.as_json
def report(store: str, whole: bool, as_json: bool) -> int:
    """Say what was done and what failed, a line for each run of circuits with one reason."""
    facts = Facts.stored(store)
    if as_json:
        show.write_json(facts.plain())
        return Exit.DONE
    for line in facts.report(whole=whole):
        click.echo(line)
    found = facts.status
    if found.state == "running":
        waiting = "?" if found.waiting is None else f"{found.waiting}"
        click.echo(f"{found.running} running, {waiting} waiting.")
    return Exit.DONE


@click.command(cls=Command, short_help="Show how a task goes on, until it ends.")
@options.store_argument
@options.as_json
@options.quiet
def watch(store: str, as_json: bool, quiet: bool) -> int:
    """Show how a task goes on, until it ends.

    Works from any terminal that sees the store. Ctrl-C ends the watching, not the task. The exit code is that of `run`;
    5 if the process that ran the task is gone. With --json a line is written for each change.
    """
    from ray_qjm.frontends.progress import view
    from ray_qjm.results.watch import LOOK_S, StoredTask

    task = StoredTask(store)
    shown = view(False if quiet or as_json else None)
    pause = threading.Event()

    def tell(status: TaskStatus) -> None:
        shown.update(status)
        if as_json:
            show.write_json(plain_status(status, store), line=True)

    found = task.status
    tell(found)
    with shown:
        while found.state in ("running", "cancelling"):
            pause.wait(LOOK_S)
            last, found = found, task.status
            if found != last:
                tell(found)
    if found.state == "interrupted":
        click.echo(
            f"{PROGRAM}: the process that ran the task is gone. `{PROGRAM} resume {store}` goes on.", err=True
        )
    return exit_of(found, lacking=Facts.stored(store).lacking)


@click.command(cls=Command, short_help="Cancel a task that another process runs.")
@options.store_argument
@option("--no-wait", is_flag=True, help="Ask, and don't wait for the end.")
@option(
    "--timeout",
    type=options.Number(0, whole=False),
    metavar="SECONDS",
    default=120.0,
    show_default=True,
    help="Wait no longer for the end.",
)
@options.as_json
def cancel(store: str, no_wait: bool, timeout: float, as_json: bool) -> int:
    """Ask the process that runs the task of a store to cancel it, and wait until it has.

    Chunks that run may end within their grace; what is done is stored, and `resume` goes on with the rest. Jobs at
    services are cancelled.
    """
    from ray_qjm.results.watch import StoredTask

    task = StoredTask(store)
    task.cancel()
    if no_wait:
        if as_json:
            show.write_json(plain_status(task.status, store))
        else:
            click.echo("asked to cancel; it is heard within some seconds.")
        return Exit.DONE
    if not task.wait(timeout):
        raise WaitTimeoutError(
            f"after {timeout:g} s the task still is {task.status.state}; it was asked to cancel. "
            f"`{PROGRAM} watch {store}` shows when it has."
        )
    found = task.status
    if as_json:
        show.write_json(plain_status(found, store))
    else:
        of = "" if found.total is None else f" of {found.total}"
        click.echo(f"{found.state}: {found.done}{of} circuits are done.")
    return Exit.DONE


@click.command(
    cls=Command,
    short_help="Write the rows of a store as one table.",
    examples=(
        "ray-qjm export results/rb --to parquet",
        "ray-qjm export results/rb --to csv | head",
    ),
)
@options.store_argument
@option(
    "--to", "kind", type=click.Choice(KINDS), required=True, help="csv: a line an outcome. json: JSON Lines."
)
@option(
    "--what",
    type=click.Choice(TABLES),
    default="circuits",
    show_default=True,
    help="jobs: what was submitted, a line a job. failures: circuits without counts, or not all.",
)
@option(
    "-o",
    "--output",
    metavar="FILE",
    help="The file; - is standard output.  [default: - for csv and json, STORE.parquet here for parquet]",
)
@force_option("Options")
@option("--json", "as_json", is_flag=True, help="Say what was written to the file as JSON, for programs.")
def export(store: str, kind: str, what: str, output: str | None, force: bool, as_json: bool) -> int:
    """Write the rows of a store as one table.

    Circuits that haven't been run stand in it as cancelled.
    """
    from ray_qjm.results.task_result import TaskResult

    result = TaskResult.open(store)
    if output is None:
        more = "" if what == "circuits" else f"-{what}"
        output = f"{Path(store.rstrip('/')).name}{more}.parquet" if kind == "parquet" else "-"
    target = target_of(output, force=force, kind=kind)
    assert isinstance(target, Target)
    if as_json and target.path is None:
        raise click.UsageError("--json tells of a file, and rows go to standard output: give --output FILE.")
    rows = target.write(result, what)
    if as_json:
        show.write_json({"store": store, "what": what, "to": kind, "output": target.name, "rows": rows})
    elif target.path is not None:
        click.echo(f"{rows:,} {what} written to {output}")
    return Exit.DONE


@click.command(cls=Command, short_help="Join the files of a store into few.")
@options.store_argument
@options.as_json
def compact(store: str, as_json: bool) -> int:
    """Join the files of a store into few large ones, and drop rows that were replaced.

    No process may be running the task. Killed at any moment it leaves all rows as they were.
    """
    from ray_qjm.results.store import look
    from ray_qjm.results.task_result import TaskResult
    from ray_qjm.results.watch import StoredTask

    task = StoredTask(store)
    before = len({item.part for item in look(task.objects).taken})
    TaskResult.open(store).compact()
    after = len({item.part for item in look(task.objects).taken})
    if as_json:
        show.write_json({"store": store, "files_before": before, "files": after})
    else:
        click.echo(f"{after:,} file{'s' * (after != 1)}, of {before:,} before.")
    return Exit.DONE
