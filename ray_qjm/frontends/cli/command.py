"""Commands and options as ``ray-qjm`` has them: help in sections, errors in one line, exit codes."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import click

from ray_qjm.errors import InvalidInputError, PartialResultWarning, RayQjmError
from ray_qjm.frontends.cli.exits import MEANINGS, Exit
from ray_qjm.frontends.cli.signals import Stopped, stopping

PROGRAM = "ray-qjm"
F = TypeVar("F", bound=Callable[..., Any])


class Option(click.Option):
    """An option that stands in a section of its command's help.

    Args:
        args: As for ``click.Option``.
        section: Its heading.
        kwargs: As for ``click.Option``.
    """

    def __init__(self, *args: Any, section: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


def option(*names: str, section: str = "Options", **kwargs: Any) -> Callable[[F], F]:
    """As ``click.option``, for a section."""
    return click.option(*names, cls=Option, section=section, **kwargs)


def debug_option() -> Option:
    """Looked for among the words of the command line, wherever it stands."""
    return Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        help="Show tracebacks, and what Ray says and workers print.",
    )


class Command(click.Command):
    """Its help has a section for each kind of option.

    Args:
        args: As for ``click.Command``.
        examples: Lines that its help shows as they are.
        kwargs: As for ``click.Command``.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._examples = examples
        self.params.append(debug_option())

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what it does, and the examples."""
        super().format_help_text(ctx, formatter)
        write_examples(formatter, self._examples)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections, in the order of their first options; the common ones come last."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(record)
        for title in sorted(sections, key=lambda title: title == "Options"):
            with formatter.section(title):
                formatter.write_dl(sections[title])


def write_examples(formatter: click.HelpFormatter, lines: Sequence[str]) -> None:
    """Write lines as they are."""
    if lines:
        formatter.write_paragraph()
        with formatter.indentation():
            for line in lines:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


EXAMPLES = (
    "ray-qjm run rb.py:circuit --count 10000 --store results/rb",
    "ray-qjm watch results/rb",
    "ray-qjm export results/rb --to csv -o rb.csv",
)


class Program(click.Group):
    """The whole program. Its commands return their exit codes; whatever they raise becomes one line and a code."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(debug_option())

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are met, not by name."""
        return list(self.commands)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what it is for, and the examples."""
        super().format_help_text(ctx, formatter)
        write_examples(formatter, EXAMPLES)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what exit codes mean."""
        with formatter.section("Exit codes"):
            formatter.write_dl(list(MEANINGS))
        formatter.write_paragraph()
        formatter.write_text(f"`{PROGRAM} COMMAND --help` tells the options of a command.")

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; click itself would take each signal for Ctrl-C, and a reader that has gone for an error."""
        try:
            found = super().invoke(ctx)
            sys.stdout.flush()
            return found
        except Stopped as stopped:
            return _said(str(stopped), stopped.code)
        except BrokenPipeError:
            return _reader_gone()

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the command line, which writes the help if that is asked for."""
        try:
            return super().make_context(*args, **kwargs)
        except BrokenPipeError:
            raise click.exceptions.Exit(_reader_gone()) from None

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run it, and end the process."""
        given = (sys.argv[1:] if args is None else list(args)) or ["--help"]
        extra["standalone_mode"] = False
        with _plain_warnings("--debug" in given), stopping():
            code = self._code(given, PROGRAM if prog_name is None else prog_name, extra)
        sys.exit(code)

    def _code(self, args: Sequence[str], name: str, extra: dict[str, Any]) -> int:
        try:
            try:
                found = super().main(args, name, **extra)
                return found if isinstance(found, int) else Exit.DONE
            except Exception:
                if "--debug" in args:
                    traceback.print_exc()
                raise
        except click.UsageError as error:
            at = name if error.ctx is None else error.ctx.command_path
            return _said(f"{error.format_message()} (`{at} --help` tells more.)", Exit.USAGE)
        except click.ClickException as error:
            return _said(error.format_message(), Exit.USAGE)
        except (KeyboardInterrupt, click.Abort):
            return _said("stopped.", Exit.SIGINT)
        except InvalidInputError as error:
            return _said(str(error), Exit.USAGE)
        except (RayQjmError, ConnectionError) as error:
            return _said(str(error), Exit.ERROR)
        except OSError as error:
            return _said(str(error), Exit.ERROR)
        except Exception as error:
            hint = "" if "--debug" in args else " (--debug shows where.)"
            return _said(f"{type(error).__name__}: {error}.{hint}", Exit.ERROR)


def _reader_gone() -> int:
    # Python would complain once more when it ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return Exit.SIGPIPE


def _said(text: str, code: int) -> int:
    """Write an error in one line."""
    click.echo(f"{PROGRAM}: {' '.join(text.split())}", err=True)
    return code


@contextmanager
def _plain_warnings(debug: bool) -> Iterator[None]:
    """Warnings of this package in one line, logged ones too; those of others only with --debug.

    The process is left as it was found: it may be another program that calls a command.
    """
    ours = logging.getLogger("ray_qjm")
    level = ours.level
    log, told = (logging.getLogger(), _everything()) if debug else (ours, _Told(logging.WARNING))
    if not (debug and log.handlers):  # it may show all already
        log.addHandler(told)
    with warnings.catch_warnings():
        if debug:
            ours.setLevel(logging.DEBUG)
        else:
            warnings.simplefilter("ignore")
            warnings.filterwarnings("default", category=RuntimeWarning, module="ray_qjm")
            warnings.showwarning = _show_warning
        warnings.filterwarnings("ignore", category=PartialResultWarning)  # the report says it
        try:
            yield
        finally:
            ours.setLevel(level)
            log.removeHandler(told)


def _everything() -> logging.Handler:
    """What anyone logs, on standard error, with who says it."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(logging.BASIC_FORMAT))
    return handler


class _Told(logging.Handler):
    """What is logged, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write it."""
        _show_warning(record.getMessage().removeprefix("ray_qjm: "))


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"{PROGRAM}: {' '.join(str(message).split())}", err=True)
