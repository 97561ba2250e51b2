"""The file that rows are written to: what it can be is checked before anything runs."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from ray_qjm.frontends.cli.arguments import TASK, together
from ray_qjm.frontends.cli.command import option

if TYPE_CHECKING:
    from ray_qjm.results.task_result import TaskResult

F = TypeVar("F", bound=Callable[..., Any])

KINDS = ("parquet", "csv", "json")
#: What a result has tables of.
TABLES = ("circuits", "jobs", "failures")
_BY_ENDING = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json"}


def force_option(section: str) -> Callable[[F], F]:
    """What overwriting takes."""
    return option("--force", is_flag=True, section=section, help="Overwrite the output file.")


output_option = together(
    option(
        "-o",
        "--output",
        metavar="FILE",
        section=TASK,
        help="Write the rows to a file too: *.parquet, *.csv (a line an outcome) or *.json (JSON Lines).",
    ),
    force_option(TASK),
)


@dataclass(frozen=True)
class Target:
    """Where rows go.

    Attributes:
        path: The file; ``None``: standard output.
        kind: One of ``KINDS``.
    """

    path: Path | None
    kind: str

    @property
    def name(self) -> str:
        """For people."""
        return "standard output" if self.path is None else str(self.path)

    @property
    def is_there(self) -> bool:
        """Whether there is a file, which would be overwritten."""
        return self.path is not None and self.path.exists()

    def write(self, result: TaskResult, what: str = "circuits") -> int:
        """Write all rows; the file is there when it is whole, and not before.

        Args:
            result: Has them.
            what: One of ``TABLES``.

        Returns:
            How many they are.
        """
        from ray_qjm.results.tables import OTHERS, WRITERS, write_other

        if what == "circuits":
            self._filled(lambda file: WRITERS[self.kind](result, file))
            return len(result)
        table = OTHERS[what](result)
        self._filled(lambda file: write_other(table, self.kind, file))
        return int(table.num_rows)

    def _filled(self, fill: Callable[[IO[bytes]], None]) -> None:
        if self.path is None:
            fill(sys.stdout.buffer)
            return
        handle, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                fill(file)
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(name, 0o666 & ~mask)
            os.replace(name, self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def target_of(output: str | None, *, force: bool, kind: str | None = None) -> Target | None:
    """Where ``--output`` says; ``None`` if it doesn't.

    Args:
        output: As it was given; ``-``: standard output, with ``kind``.
        force: Whether a file that is there may be overwritten.
        kind: What it is written as; ``None``: what the ending says.

    Raises:
        click.UsageError: It can't be written there.
    """
    if output is None:
        if force:
            raise click.UsageError("--force is for an --output file.")
        return None
    if output == "-" and kind is not None:
        if kind == "parquet" and sys.stdout.isatty():
            raise click.UsageError("Parquet isn't for terminals: give --output FILE.")
        return Target(None, kind)
    path = Path(output).expanduser().absolute()
    found = kind or _BY_ENDING.get(path.suffix)
    if found is None:
        raise click.UsageError(f"--output is {output}: its ending can be {', '.join(_BY_ENDING)}.")
    if path.is_dir():
        raise click.UsageError(f"--output is {output}, a directory. Name a file in it.")
    if not path.parent.is_dir():
        raise click.UsageError(f"--output is {output}: there is no directory {path.parent}.")
    if not os.access(path.parent, os.W_OK):
        raise click.UsageError(f"--output is {output}: nothing can be written to {path.parent}.")
    if path.exists() and not force:
        raise click.UsageError(
            f"{output} is there already. Give --force to overwrite it, or another --output."
        )
    return Target(path, found)
