"""Options that several commands share. All are ``None`` unless they're given: what isn't is the library's default."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from ray_qjm.frontends.cli.command import option

F = TypeVar("F", bound=Callable[..., Any])

CIRCUITS = "Circuits"
PLACES = "Where they run"
JOBS = "Jobs of services (backends behind a queue)"
TASK = "The task"
RAY = "Ray"


class Number(click.ParamType):  # type: ignore[type-arg]  # older ones take no type
    """A whole number, or with ``whole=False`` any, of which there is a least one.

    Args:
        least: It.
        whole: Whether fractions are refused.
        above: Whether ``least`` itself is refused.
    """

    def __init__(self, least: int = 1, *, whole: bool = True, above: bool = False) -> None:
        self.name = "n" if whole else "x"
        self._least = least
        self._whole = whole
        self._above = above

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | float:
        """The number."""
        kind = "a whole number" if self._whole else "a number"
        bound = f"above {self._least}" if self._above else f"of {self._least} or more"
        try:
            number = int(value) if self._whole else float(value)
        except ValueError:
            self.fail(f"{value!r} is not {kind} {bound}.", param, ctx)
        if not self._least <= number < math.inf or (self._above and number == self._least):
            self.fail(f"{value!r} is not {kind} {bound}.", param, ctx)
        return number


_COUNT = Number()
_SECONDS = Number(0, whole=False)


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Options one after the other, as one decorator."""

    def decorate(function: F) -> F:
        for each in reversed(options):
            function = each(function)
        return function

    return decorate


def _files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]


def _folders(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="dir")]


def _backends(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in ("aer", "basic", "fake_", "ibm_") if name.startswith(incomplete)]


source = click.argument("source", nargs=-1, required=True, metavar="SOURCE...", shell_complete=_files)
optional_source = click.argument("source", nargs=-1, metavar="[SOURCE]...", shell_complete=_files)
store_argument = click.argument("store", metavar="STORE", shell_complete=_folders)

#: What makes the task what it is: a stored one goes on only with the same.
identity = together(
    option("--count", type=_COUNT, section=CIRCUITS, help="Number of circuits; needed for a callable."),
    option("--shots", type=_COUNT, section=CIRCUITS, help="Of each circuit.  [default: 1024]"),
    option(
        "--seed",
        type=Number(0),
        section=CIRCUITS,
        help="Fixes building, transpiling and simulation.  [default: fresh, recorded]",
    ),
    option("--memory", is_flag=True, default=None, section=CIRCUITS, help="Keep every shot."),
    option(
        "--level",
        type=click.Choice(["auto", "off", "0", "1", "2", "3"]),
        section=CIRCUITS,
        help="Of the transpiler; auto leaves alone what the backend takes as it is.  [default: auto]",
    ),
    option(
        "--source-version",
        metavar="TEXT",
        section=CIRCUITS,
        help="Yours, of circuits whose source text can't be read; a stored task goes on only with the same.",
    ),
)

backends = option(
    "-b",
    "--backend",
    multiple=True,
    metavar="NAME",
    section=PLACES,
    shell_complete=_backends,
    help="aer, basic, fake_manila, ibm_fez, module:factory or FILE.py:factory (a BackendSpec too); several share the "
    "work.  [default: aer]",
)

places = together(
    option(
        "--placement",
        type=click.Choice(["workers", "actor"]),
        section=PLACES,
        help="Where a factory's backend runs: simulated on workers, or a service that jobs are submitted to.",
    ),
    option(
        "--instance",
        metavar="NAME|CRN",
        section=PLACES,
        help="Of IBM Quantum Platform, for ibm_... backends.",
    ),
    option("--account", metavar="NAME", section=PLACES, help="Backends of one account share their quota."),
)
task = together(
    option("--name", metavar="TEXT", section=TASK, help="What you call it."),
    option("--tag", multiple=True, metavar="TEXT", section=TASK, help="Further words; several may be given."),
    option(
        "--max-failures",
        type=_COUNT,
        section=TASK,
        help="Stop when so many circuits in a row failed for one reason.  [default: 1000]",
    ),
    option("--max-chunk", type=_COUNT, section=TASK, help="Most circuits of one chunk.  [default: 10000]"),
    option("--timeout", type=_SECONDS, metavar="SECONDS", section=TASK, help="Stop the task after so long."),
    option(
        "--grace",
        type=_SECONDS,
        metavar="SECONDS",
        section=TASK,
        help="How long chunks that are running may go on when the task is stopped.  [default: 5, or what `ray job "
        "stop` leaves]",
    ),
)
jobs = together(
    option("--max-circuits", type=_COUNT, section=JOBS, help="Most circuits of one job."),
    option("--max-shots", type=_COUNT, section=JOBS, help="Most shots of a circuit in one job."),
    option("--max-executions", type=_COUNT, section=JOBS, help="Most circuits times shots of one job."),
    option("--max-payload-bytes", type=_COUNT, section=JOBS, help="Most bytes of one job's circuits."),
    option("--max-pending", type=_COUNT, section=JOBS, help="Most jobs at the service at once."),
    option(
        "--jobs-per-minute",
        type=Number(0, whole=False, above=True),
        section=JOBS,
        help="Most submissions.",
    ),
    option(
        "--job-timeout",
        type=_SECONDS,
        metavar="SECONDS",
        section=JOBS,
        help="Cancel a job that takes longer.",
    ),
    option("--attempts", type=_COUNT, section=JOBS, help="Most submissions of one job.  [default: 8]"),
    option(
        "--lost",
        type=click.Choice(["fail", "resubmit"]),
        section=JOBS,
        help="What becomes of a job that may or may not have been accepted; resubmit may pay twice.  [default: fail]",
    ),
    option("--budget-jobs", type=_COUNT, section=JOBS, help="Most jobs of the task, resumes included."),
    option("--budget-executions", type=_COUNT, section=JOBS, help="Most circuits times shots of it."),
    option(
        "--budget-qpu-seconds",
        type=Number(0, whole=False, above=True),
        section=JOBS,
        help="Most QPU seconds of it.",
    ),
)

ray_options = together(
    option(
        "--address",
        metavar="HOST:PORT",
        section=RAY,
        help="Of the cluster to join; local: a Ray of this machine.  [default: RAY_ADDRESS, or a cluster that was "
        "started on this machine, or local]",
    ),
    option("--num-cpus", type=_COUNT, section=RAY, help="Of a Ray of this machine.  [default: all cores]"),
)

retry_failed = option(
    "--retry-failed",
    is_flag=True,
    section=TASK,
    help="Run circuits again that failed for a reason which may have passed, such as no credit.",
)
store = option(
    "--store",
    metavar="PATH|URI",
    section=TASK,
    shell_complete=_folders,
    help="Directory, or s3://, gs://, az://, that keeps the rows as they come. The same command with the same store "
    "goes on where the last one ended.",
)
as_json = option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")
quiet = option("-q", "--quiet", is_flag=True, help="Show no progress.")
