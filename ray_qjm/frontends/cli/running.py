"""``run``, ``resume`` and ``plan``."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from signal import SIGINT
from typing import TYPE_CHECKING, Any

import click

from ray_qjm.errors import RayQjmError, StoreError, TaskCancelledError
from ray_qjm.frontends.cli import arguments as options
from ray_qjm.frontends.cli import record, show
from ray_qjm.frontends.cli.call import call_of
from ray_qjm.frontends.cli.command import PROGRAM, Command
from ray_qjm.frontends.cli.exits import Exit, exit_of
from ray_qjm.frontends.cli.facts import Facts
from ray_qjm.frontends.cli.output import output_option, target_of
from ray_qjm.frontends.cli.ray_of import choose_ray
from ray_qjm.frontends.cli.record import Record
from ray_qjm.frontends.cli.signals import Stopped

if TYPE_CHECKING:
    from ray_qjm.frontends.cli.output import Target
    from ray_qjm.frontends.task import Task


@click.command(
    cls=Command,
    short_help="Run circuits and keep their counts.",
    examples=(
        "ray-qjm run rb.py:circuit --count 10000 --seed 7 --store results/rb",
        "ray-qjm run 'runs/*.qpy' --backend fake_manila --output counts.csv",
    ),
)
@options.source
@options.identity
@options.backends
@options.places
@options.store
@options.retry_failed
@output_option
@options.task
@options.jobs
@options.ray_options
@options.as_json
@options.quiet
def run(source: tuple[str, ...], **given: Any) -> int:
    """Run circuits and keep their counts.

    SOURCE is FILE.py:callable or module:callable, a function f(index) or f(index, rng) that returns a circuit (or a
    Sweep), or *.qpy or *.qasm files.
    """
    target = target_of(given["output"], force=given["force"])
    if given["store"] is None and target is None:
        raise click.UsageError("counts would be lost: give --store, or --output FILE.")
    if given["store"] is None and given["retry_failed"]:
        raise click.UsageError("--retry-failed is for a task with a --store.")
    if given["store"] is None and given["source_version"] is not None:
        raise click.UsageError("--source-version is for a task with a --store.")
    return _run(Record.of(source, given), given["store"], given, target)


@click.command(cls=Command, short_help="Go on with the task of a store.")
@options.store_argument
@click.argument("more", nargs=-1, metavar="", required=False)
@options.backends
@options.places
@options.retry_failed
@output_option
@options.task
@options.jobs
@options.ray_options
@options.as_json
@options.quiet
def resume(store: str, more: tuple[str, ...], **given: Any) -> int:
    """Go on with the task of a store, as `ray-qjm run` began it.

    Its source and backends are those of that command, as are all options, unless they're given here.
    """
    from ray_qjm.results.objects import Objects, absolute
    from ray_qjm.results.watch import StoredTask

    if more:
        raise click.UsageError(
            f"resume takes a store and no source ({' '.join(more)}): it goes on with the source that the task was "
            "begun with."
        )
    StoredTask(store)  # says so if there is none
    found = record.read(Objects(store, make=False)).but(given)
    target = target_of(given["output"], force=given["force"])
    root = (
        store if absolute(store).partition("://")[0] != "file" else os.path.abspath(os.path.expanduser(store))
    )
    os.chdir(found.directory)  # names of files stand in the result, as they were given there
    return _run(found, root, given, target, called=store)


@click.command(cls=Command, short_help="Say what a run would take at services; submit nothing.")
@options.source
@options.identity
@options.backends
@options.places
@options.store
@options.task
@options.jobs
@options.ray_options
@options.as_json
def plan(source: tuple[str, ...], **given: Any) -> int:
    """Say what `run` with the same arguments would take at services; submits nothing."""
    choose_ray(given)
    call = call_of(source, given)
    from ray_qjm.api import plan as make

    found = make(**call, store=given["store"])
    if given["as_json"]:
        show.write_json(
            {
                "circuits": found.circuits,
                "jobs": found.jobs,
                "qpu_s": found.qpu_s,
                "backends": [asdict(backend) for backend in found.backends],
                "beyond": [asdict(limit) for limit in found.beyond],
                "notes": list(found.notes),
            }
        )
    else:
        show.write(found.table(show.width()))
        for line in found.lines():
            click.echo(line)
    return Exit.DONE


def _run(
    wanted: Record,
    store: str | None,
    given: Mapping[str, Any],
    target: Target | None,
    called: str | None = None,
) -> int:
    """Run a command line's task to its end, and tell it; ``called``: how the user calls the store."""
    from ray_qjm.api import submit
    from ray_qjm.frontends.progress import view
    from ray_qjm.frontends.task import stop
    from ray_qjm.results.objects import Objects

    choose_ray(wanted.options)
    call = call_of(wanted.source, wanted.options)
    shown = view(False if given["quiet"] else None)
    stopped: Stopped | None = None
    with shown:
        task = submit(**call, store=store, retry_failed=given["retry_failed"], progress=shown.update)
        try:
            if store is not None:
                record.write(Objects(store, make=False), wanted)
            task.wait()
        except Stopped as signal:
            stopped = signal
            # Ctrl-C is a person's, who is done with it. The others come from systems that will start it again.
            stop(task, keep_jobs=store is not None and signal.number != SIGINT)
    return _told(task, store, called or store, given, target, stopped)


def _told(
    task: Task,
    store: str | None,
    called: str | None,
    given: Mapping[str, Any],
    target: Target | None,
    stopped: Stopped | None,
) -> int:
    """Say what became of a task that has ended, and write its rows where they're wanted."""
    error = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = task.result(partial=True)
        try:
            task.result()
        except TaskCancelledError:
            pass
        except RayQjmError as reason:
            error = reason
    lost = isinstance(error, StoreError)
    facts = Facts.held(task.status(), result) if store is None or lost else Facts.stored(store)
    # A file that is to be overwritten may hold an earlier task's counts.
    spared = target is not None and facts.status.state != "done" and not facts.status.done and target.is_there
    written = None if lost or spared else target
    if written is not None:
        written.write(result)
    code = exit_of(facts.status, lacking=facts.lacking)
    if stopped is not None:
        code = Exit(stopped.code)
    if given["as_json"]:
        show.write_json(
            {
                **facts.plain(),
                "store": called,
                "output": None if written is None else written.name,
                "error": None if error is None else str(error),
                "exit_code": int(code),
            }
        )
    else:
        _print(facts, called, written)
    if spared and target is not None:
        click.echo(f"{PROGRAM}: {target.name} is left as it was: no circuit is done.", err=True)
    goes_on = (
        "" if store is None or facts.status.state == "done" else f" `{PROGRAM} resume {called}` goes on."
    )
    if stopped is not None:
        kept = "" if called is None else f" and stored in {called}"
        why = "" if error is None else f" It had failed by then: {str(error).rstrip('.')}."
        words = f"stopped by {stopped.name}: {_share(facts)}{kept}.{why}{_left(task)}{goes_on}"
        raise Stopped(stopped.number, words)
    if error is not None:
        raise error
    if code == Exit.CANCELLED:
        click.echo(f"{PROGRAM}: the task was cancelled.{goes_on}", err=True)
    return code


def _print(facts: Facts, store: str | None, target: Target | None) -> None:
    for line in facts.report():
        click.echo(line)
    if target is not None:
        click.echo(f"written to {target.name}")
    if store is not None:
        click.echo(f"stored in {store}")


def _left(task: Task) -> str:
    """Which jobs a task that has ended left at services."""
    jobs = task.jobs.select(["job_id", "backend", "ended"]).to_pylist()
    left = sorted(f"{job['job_id']} on {job['backend']}" for job in jobs if job["ended"] is None)
    if not left:
        return ""
    named = ", ".join(left[:3])
    more = f" and {len(left) - 3} more" if len(left) > 3 else ""
    return f" Left at services, to be found again: {named}{more}."


def _share(facts: Facts) -> str:
    status = facts.status
    of = "" if status.total is None else f" of {status.total}"
    return f"{status.done}{of} circuits are done"
