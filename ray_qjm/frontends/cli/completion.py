"""``completion``: what a shell needs to complete the words of this program."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from ray_qjm.frontends.cli.command import PROGRAM, Command
from ray_qjm.frontends.cli.exits import Exit

SHELLS = ("bash", "zsh", "fish")


@click.command(
    cls=Command,
    short_help="Print what a shell needs to complete words.",
    examples=(
        'eval "$(ray-qjm completion bash)"     in ~/.bashrc',
        'eval "$(ray-qjm completion zsh)"      in ~/.zshrc',
        "ray-qjm completion fish > ~/.config/fish/completions/ray-qjm.fish",
    ),
)
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.pass_context
def completion(ctx: click.Context, shell: str | None) -> int:
    """Print the script that lets a shell complete commands, options and files."""
    found = shell or Path(os.environ.get("SHELL", "")).name
    kind = get_completion_class(found)
    if kind is None:
        raise click.UsageError(f"which shell isn't known: name one of {', '.join(SHELLS)}.")
    complete = kind(ctx.find_root().command, {}, PROGRAM, f"_{PROGRAM.replace('-', '_').upper()}_COMPLETE")
    click.echo(complete.source())
    return Exit.DONE
