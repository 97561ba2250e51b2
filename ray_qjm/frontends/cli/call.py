"""From words of the command line to arguments of ``ray_qjm.submit``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ray_qjm.errors import InvalidInputError
from ray_qjm.options import (
    BackendSpec,
    Budget,
    RetryPolicy,
    RunOptions,
    TranspileOptions,
)

_LIMITS = ("max_circuits", "max_shots", "max_executions", "max_payload_bytes")
_QUOTA = ("max_pending", "jobs_per_minute")
#: Options that only jobs of a service have.
_OF_JOBS = (*_LIMITS, *_QUOTA, "job_timeout", "attempts", "lost")
_BUDGET = ("budget_jobs", "budget_executions", "budget_qpu_seconds")

_QPY = (".qpy",)
_QASM = (".qasm", ".qasm2", ".qasm3")

#: What `ray job stop` waits before it kills, unless this variable says otherwise.
_JOB_WAIT = ("RAY_JOB_STOP_WAIT_TIME_S", 3.0)
#: What is left of that for killing workers and for the last records of the store.
_LAST_S = 1.5


def call_of(source: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``submit`` and ``plan``, without store and progress.

    Args:
        source: What the user named: a callable, or files.
        options: Those that were given, by their names.

    Raises:
        click.UsageError: Options don't go together.
        InvalidInputError: Something that is named can't be had.
    """
    circuits = circuits_of(source, options.get("count"))
    call: dict[str, Any] = {
        "circuits": circuits,
        "backends": backends_of(options),
        "options": run_options(options),
        "tags": options.get("tag") or (),
    }
    for name in ("count", "shots", "seed", "memory", "name"):
        if options.get(name) is not None:
            call[name] = options[name]
    if options.get("source_version") is not None:
        call["version"] = options["source_version"]
    return call


def circuits_of(source: Sequence[str], count: int | None) -> Any:
    """The circuits that ``SOURCE...`` names.

    Raises:
        click.UsageError: It names a callable and files, or ``--count`` doesn't go with it.
        InvalidInputError: There is nothing of that name.
    """
    kinds = {_kind(text) for text in source}
    if kinds - {"named"} and len(kinds) > 1:
        raise click.UsageError(
            f"SOURCE is {' and '.join(sorted(kinds))} ({' '.join(source)}): give one callable, or files of one kind."
        )
    if kinds == {"named"}:
        if len(source) > 1:
            raise click.UsageError(f"SOURCE names {len(source)} callables ({' '.join(source)}): give one.")
        return _named(source[0], count)
    if count is not None:
        raise click.UsageError("--count is for a callable: files have as many circuits as they have.")
    from ray_qjm.circuits.files import QasmFiles, QpyFiles

    return QpyFiles(source) if kinds == {"QPY files"} else QasmFiles(source)


def _kind(text: str) -> str:
    if text.endswith(_QPY):
        return "QPY files"
    if text.endswith(_QASM):
        return "OpenQASM files"
    if ":" in text:
        return "named"
    if not text:
        raise click.UsageError("SOURCE is an empty text. Give FILE.py:callable, module:callable or files.")
    path = Path(text)
    if text.endswith(".py"):
        from ray_qjm.circuits.loading import functions_in

        found = functions_in(path)
        which = f": it has {', '.join(found[:8])}" if found else ""
        raise click.UsageError(f"{text} is a file of Python. Name the callable in it, {text}:NAME{which}.")
    if path.is_dir():
        raise click.UsageError(f"{text} is a directory. Name the files in it, such as '{path}/*.qpy'.")
    raise click.UsageError(f"SOURCE {text!r} is neither FILE.py:callable, module:callable, *.qpy nor *.qasm.")


def _named(text: str, count: int | None) -> Any:
    from ray_qjm.circuits.loading import load
    from ray_qjm.circuits.source import WorkerSource

    found = load(text)
    if isinstance(found, WorkerSource):
        if count is not None and count != found.count:
            raise click.UsageError(
                f"--count is {count}, and {text} has {found.count} circuits. Leave it out."
            )
        return found
    if not callable(found):
        raise InvalidInputError(
            f"{text} is a {type(found).__name__}, which can't be called. Name a function f(index) or f(index, rng) "
            "that returns a circuit, or a Sweep."
        )
    if count is None:
        raise click.UsageError(
            f"--count is missing: {text} is a callable, and how many circuits it has isn't known."
        )
    return found


def backends_of(options: Mapping[str, Any]) -> list[BackendSpec]:
    """The backends that ``--backend`` names, with what other options say of them.

    Raises:
        click.UsageError: An option doesn't go with any of them.
        InvalidInputError: There is nothing of a name.
    """
    names = options.get("backend") or ("aer",)
    instance = options.get("instance")
    if instance is not None and not any(name.startswith("ibm_") for name in names):
        raise click.UsageError(f"--instance is for ibm_... backends, and --backend is {', '.join(names)}.")
    if options.get("placement") is not None and not any(":" in name for name in names):
        raise click.UsageError(
            f"--placement is for factories, module:factory or FILE.py:factory, and --backend is {', '.join(names)}."
        )
    specs = [_spec(name, options) for name in names]
    given = [name for name in (*_OF_JOBS, *_BUDGET) if options.get(name) is not None]
    if given:
        from ray_qjm.backends.registry import choose

        if all(choice.account is None for choice in choose(specs)):
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise click.UsageError(
                f"{flags}: for jobs of services, and {', '.join(names)} is simulated on workers, which have none."
            )
    return specs


def _spec(name: str, options: Mapping[str, Any]) -> BackendSpec:
    limits = {field: options[field] for field in _LIMITS if options.get(field) is not None}
    quota = {field: options[field] for field in _QUOTA if options.get(field) is not None}
    rest = {"account": options["account"]} if options.get("account") is not None else {}
    if options.get("placement") is not None and ":" in name:
        rest["placement"] = options["placement"]
    found: Any = name
    if name.startswith("ibm_"):
        found = BackendSpec.ibm(name, instance=options.get("instance"))
    elif ":" in name:
        from ray_qjm.circuits.loading import load

        loaded = load(name)
        # A module's factory stays a name: that is what tells its quota from others.
        if isinstance(loaded, BackendSpec) or name.rpartition(":")[0].endswith(".py"):
            found = loaded
    spec = found if isinstance(found, BackendSpec) else BackendSpec(found)
    return replace(
        spec,
        limits=replace(spec.limits, **limits) if limits else spec.limits,
        quota=replace(spec.quota, **quota) if quota else spec.quota,
        **rest,
    )


def run_options(options: Mapping[str, Any]) -> RunOptions:
    """What options say of how the task runs."""
    fields: dict[str, Any] = {
        ours: options[theirs]
        for ours, theirs in (
            ("max_failures", "max_failures"),
            ("max_chunk", "max_chunk"),
            ("timeout_s", "timeout"),
            ("job_timeout_s", "job_timeout"),
        )
        if options.get(theirs) is not None
    }
    level: Any = options.get("level")
    if level is not None:
        fields["transpile"] = TranspileOptions(int(level) if level.isdecimal() else level)  # type: ignore[arg-type]
    retry = {name: options[name] for name in ("attempts", "lost") if options.get(name) is not None}
    budget = {
        name.removeprefix("budget_"): options[name] for name in _BUDGET if options.get(name) is not None
    }
    return RunOptions(
        **fields,
        cancel_grace_s=_grace_s() if options.get("grace") is None else options["grace"],
        retry=RetryPolicy(**retry),
        budget=Budget(**budget) if budget else None,
    )


def _grace_s() -> float:
    """How long chunks may go on after a stop: under a Ray job no longer than until it is killed."""
    usual = RunOptions().cancel_grace_s
    if not os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        return usual
    name, default = _JOB_WAIT
    try:
        wait_s = float(os.environ.get(name, default))
    except ValueError:
        wait_s = default
    return min(usual, max(0.0, wait_s - _LAST_S))
