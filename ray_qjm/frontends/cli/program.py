"""The program ``ray-qjm``: its commands, and how its process is set up."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import NoReturn

import click

from ray_qjm.frontends.cli.backends import backends
from ray_qjm.frontends.cli.command import PROGRAM, Program
from ray_qjm.frontends.cli.completion import completion
from ray_qjm.frontends.cli.doctor import doctor
from ray_qjm.frontends.cli.running import plan, resume, run
from ray_qjm.frontends.cli.stores import cancel, compact, export, report, status, watch


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("ray-qjm"), prog_name=PROGRAM, message="%(prog)s %(version)s")
def program() -> None:
    """Run any number of quantum circuits on simulators and hardware, with Ray."""


for _command in (
    run,
    plan,
    resume,
    status,
    report,
    watch,
    cancel,
    export,
    compact,
    backends,
    doctor,
    completion,
):
    program.add_command(_command)


def main() -> NoReturn:
    """Run the program as a process of its own."""
    if sys.stdout is None:  # it was closed: nobody wants to read
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    if "--debug" not in sys.argv:
        _hush()
    try:
        program.main()
    except SystemExit as end:
        session = sys.modules.get("ray_qjm.cluster.session")
        if isinstance(end.code, int) and session is not None and session.has_died():
            # A signal to the whole group ends Ray's processes too. Ray would abort this one when it sees that at the
            # end, with another exit code.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code)
        raise


def _hush() -> None:
    """Say nothing in the words of native code.

    Ray's writes straight to descriptor 2, past Python, what it tries while it joins a cluster or ends. Python's own
    ``sys.stderr`` goes on at a copy, which processes that are started from here don't get.
    """
    try:
        own = os.dup(2)
    except OSError:  # it is closed
        return
    sys.stderr = os.fdopen(own, "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)
    os.close(silent)
