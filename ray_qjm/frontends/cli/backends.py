"""``backends``: names that are known, what backends tell of themselves, and quotas in use on the cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from ray_qjm.frontends.cli import arguments as options
from ray_qjm.frontends.cli import show
from ray_qjm.frontends.cli.call import backends_of
from ray_qjm.frontends.cli.command import Command, option
from ray_qjm.frontends.cli.credentials import ibm
from ray_qjm.frontends.cli.exits import Exit
from ray_qjm.frontends.cli.ray_of import choose_ray

if TYPE_CHECKING:
    from ray_qjm.cluster.survey import BackendFacts


@click.command(cls=Command, short_help="Say which backends there are, and quotas in use.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@options.places
@options.jobs
@option("--all", "whole", is_flag=True, help="Name each fake device.")
@options.ray_options
@options.as_json
def backends(names: tuple[str, ...], whole: bool, as_json: bool, **given: Any) -> int:
    """Say which backends are known, and which quotas are in use on the cluster.

    With a NAME, as --backend takes it: what that backend tells of itself. Services are reached for that; nothing is
    submitted.
    """
    choose_ray(given)
    if names:
        from ray_qjm.cluster.survey import backend_facts

        found = backend_facts(backends_of({**given, "backend": names}))
        if as_json:
            show.write_json({"backends": [_plain(each) for each in found]})
        else:
            show.write(show.pairs([(each.name, _told(each)) for each in found]))
        return Exit.DONE
    known = _known(whole=whole)
    cluster, desks = _desks()
    if as_json:
        show.write_json(
            {
                "names": [{"name": name, "runs": runs, "what": what} for name, runs, what in known],
                "cluster": cluster,
                "desks": [{"name": name, **(state or {"answers": False})} for name, state in desks.items()],
            }
        )
        return Exit.DONE
    show.write(show.table((("name", "left"), ("runs", "left"), ("what it is", "left")), known))
    click.echo()
    if cluster is None:
        click.echo("No cluster is joined, so no quota is in use there: --address names one.")
    elif not desks:
        click.echo(f"No process submits jobs on the cluster at {cluster}: no quota is in use.")
    else:
        click.echo(f"Quotas in use on the cluster at {cluster}:")
        show.write(show.table(_DESKS, [_desk(name, state) for name, state in desks.items()]))
    return Exit.DONE


def _known(*, whole: bool) -> list[tuple[str, str, str]]:
    from ray_qjm.backends.registry import known_names

    names = known_names()
    fakes = [name for name in names if name.startswith("fake_")]
    missing = "" if find_spec("qiskit_aer") else "; qiskit-aer isn't installed"
    found = [
        ("aer", "on workers", f"Aer's simulator{missing}"),
        ("basic", "on workers", "Qiskit's BasicSimulator"),
    ]
    if whole:
        found += [
            (name, "on workers", "a device of IBM's with its noise, simulated by Aer") for name in fakes
        ]
    else:
        what = f"{len(fakes)} devices of IBM's with their noise, simulated by Aer; --all names them"
        found.append(("fake_...", "on workers", what if fakes else "qiskit-ibm-runtime isn't installed"))
    found.append(("ibm_...", "as jobs", f"IBM Quantum Platform; {ibm().text}"))
    found.append(
        ("module:factory", "either", "a BackendV2, a sampler or a BackendSpec of yours; FILE.py:factory too")
    )
    return found


def _desks() -> tuple[str | None, Mapping[str, Mapping[str, Any] | None]]:
    """The cluster that is there, if there is one, and its desks; none is started."""
    from ray_qjm.cluster.session import cluster_address, connect
    from ray_qjm.cluster.survey import desk_states

    address = cluster_address()
    if address is None:
        return None, {}
    connect()
    return address, desk_states()


def _plain(found: BackendFacts) -> dict[str, Any]:
    facts = found.facts
    return {
        "name": found.name,
        "runs": found.place,
        "qubits": found.qubits,
        "limits": None if found.limits is None else asdict(found.limits),
        "mixes_shots": None if facts is None else facts.mixed,
        "gives_memory": None if facts is None else facts.memory,
        "finds_lost_jobs": None if facts is None else facts.tagged,
    }


def _told(found: BackendFacts) -> str:
    qubits = "any number of qubits" if found.qubits is None else f"{found.qubits} qubits"
    if found.limits is None or found.facts is None:
        return f"on workers; {qubits}"
    limits = [
        f"{most:,} {name.removeprefix('max_').replace('_', ' ')}"
        for name, most in asdict(found.limits).items()
        if most is not None
    ]
    most = f"at most {', '.join(limits)}" if limits else "no limits"
    lost = "are found by their tag" if found.facts.tagged else "can't be found"
    return f"as jobs; {qubits}; a job has {most}; lost jobs {lost}"


_DESKS = (
    ("backends", "left"),
    ("pending", "right"),
    ("of", "right"),
    ("queued", "right"),
    ("a minute", "right"),
    ("jobs spent", "right"),
    ("executions", "right"),
    ("QPU s", "right"),
    ("desk", "left"),
)


def _desk(name: str, state: Mapping[str, Any] | None) -> Sequence[str]:
    if state is None:
        return ("gives no answer", *[""] * 7, name)
    spent, budget = state["spent"], state.get("budget") or {}
    rate = state.get("jobs_per_minute")

    def of(what: str) -> str:
        most = budget.get(what)
        return f"{spent[what]:,.6g}" + ("" if most is None else f" of {most:,.6g}")

    return (
        ", ".join(each.rpartition("-")[0] for each in state.get("backends", ())) or "?",
        f"{state['pending']:,}",
        f"{state['max_pending']:,}",
        f"{state['jobs'].get('queued', 0):,}",
        "any" if rate is None else f"{rate:g}",
        of("jobs"),
        of("executions"),
        of("qpu_seconds"),
        name,
    )
