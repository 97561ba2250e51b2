"""``doctor``: what a run needs, looked at before there is one."""

from __future__ import annotations

import math
import os
import platform
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ray_qjm.errors import InvalidInputError, RayQjmError, StoreError
from ray_qjm.frontends.cli import arguments as options
from ray_qjm.frontends.cli import credentials, show
from ray_qjm.frontends.cli.call import backends_of, circuits_of
from ray_qjm.frontends.cli.command import Command
from ray_qjm.frontends.cli.exits import Exit
from ray_qjm.frontends.cli.ray_of import choose_ray

if TYPE_CHECKING:
    from ray_qjm.cluster.survey import Machine

_NEEDED = ("ray-qjm", "ray", "qiskit", "pyarrow", "obstore", "numpy")
#: What there is use for: package and what lacks without it.
_EXTRAS = (
    ("qiskit-aer", "backends aer and fake_..."),
    ("qiskit-ibm-runtime", "backends ibm_... and fake_..."),
    ("qiskit-qasm3-import", "OpenQASM 3 files"),
)


@dataclass(frozen=True)
class Check:
    """What was looked at.

    Attributes:
        name: What.
        state: ``"bad"``: a run would fail.
        text: What was found.
    """

    name: str
    state: Literal["ok", "note", "bad"]
    text: str


@click.command(cls=Command, short_help="Look at all that a run needs.")
@options.optional_source
@options.identity
@options.backends
@options.places
@options.store
@options.task
@options.jobs
@options.ray_options
@options.as_json
def doctor(source: tuple[str, ...], as_json: bool, **given: Any) -> int:
    """Look at all that a run needs: versions, Ray, memory, credentials, the store.

    With the arguments of `run` it looks at that run: some of its circuits are built, and what simulating them takes is
    held against cores and memory. No credential is shown, nothing is submitted, and no Ray is started. The exit code
    is 1 if something is bad.
    """
    choose_ray(given)
    checks: list[Check] = []
    for look in (
        _versions,
        _credentials,
        lambda: _ray(source, given),
        _state,
        lambda: _store(given["store"]),
    ):
        checks += look()
    if as_json:
        show.write_json(
            {
                "ok": all(check.state != "bad" for check in checks),
                "checks": [asdict(check) for check in checks],
            }
        )
    else:
        marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "bad": "[red]bad[/]"}
        from rich.table import Table

        grid = Table.grid(padding=(0, 2))
        for check in checks:
            grid.add_row(marks[check.state], f"[bold]{check.name}[/]", show.plain(check.text))
        show.write(grid)
    return Exit.ERROR if any(check.state == "bad" for check in checks) else Exit.DONE


def _versions() -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Check("packages", "ok", ", ".join(f"{name} {version(name)}" for name in _NEEDED))
    for name, what in _EXTRAS:
        try:
            yield Check(name, "ok", version(name))
        except PackageNotFoundError:
            yield Check(name, "note", f"isn't installed: needed for {what}")


def _credentials() -> Iterator[Check]:
    for name, found in (("IBM account", credentials.ibm()), ("Ray token", credentials.ray_token())):
        yield Check(name, "ok" if found.there else "note", found.text)


def _ray(source: Sequence[str], given: dict[str, Any]) -> Iterator[Check]:
    from ray_qjm.cluster.session import cluster_address
    from ray_qjm.cluster.survey import joined_machine, this_machine

    machine: Machine
    try:
        address = cluster_address()
        machine = this_machine(given["num_cpus"]) if address is None else joined_machine()
    except ConnectionError as error:
        yield Check("Ray", "bad", str(error))
        return
    if address is None:
        yield Check("Ray", "ok", "no cluster is there: a run starts one on this machine")
    else:
        yield Check("Ray", "ok", f"a cluster answers at {address}, {machine.nodes} nodes")
    yield _room(machine)
    if source:
        yield from _circuits(source, given, machine)


def _room(machine: Machine) -> Check:
    from ray_qjm.cluster.survey import WORKER_BYTES

    cores, memory = machine.cpus, machine.memory_bytes
    needed = cores * WORKER_BYTES
    each = (memory - needed) / max(1, cores)
    text = f"{cores} cores, {_size(memory)}; {cores} circuits at once, whose processes take {_size(needed)}"
    if each <= 0:
        return Check("cores, memory", "bad", f"{text}: too little memory. Give --num-cpus a smaller number.")
    qubits = int(math.log2(each / 16))
    return Check("cores, memory", "ok", f"{text} and leave room for {qubits} qubits of statevector each")


def _circuits(source: Sequence[str], given: dict[str, Any], machine: Machine) -> Iterator[Check]:
    """What a task's own circuits take."""
    from ray_qjm.circuits.source import WorkerSource
    from ray_qjm.circuits.sources import make_source
    from ray_qjm.cluster.survey import needs
    from ray_qjm.frontends.cli.call import run_options

    try:
        found = make_source(circuits_of(source, given["count"]), given["count"])
        specs = backends_of(given)
        if not isinstance(found, WorkerSource):
            return
        all_needs = needs(found, specs, run_options(given))
    except RayQjmError as error:
        yield Check("circuits", "bad", str(error))
        return
    yield Check("circuits", "ok", f"{found.count:,} of {' '.join(source)}")
    for need in all_needs:
        name = f"on {need.backend}"
        if need.failed:
            how_many = f"{len(need.failed)} of {need.circuits} circuits that were looked at fail"
            state: Literal["note", "bad"] = "bad" if len(need.failed) == need.circuits else "note"
            yield Check(name, state, f"{how_many}. {need.failed[0]}")
        if len(need.failed) == need.circuits:
            continue
        memory = need.memory_bytes
        if memory > machine.memory_bytes:
            yield Check(
                name,
                "bad",
                f"{need.qubits} qubits take {_size(memory)} a circuit, and there are {_size(machine.memory_bytes)}. "
                "Choose another method of simulation, or a machine with more memory.",
            )
            continue
        at_once = machine.cpus if memory == 0 else min(machine.cpus, int(machine.memory_bytes / memory))
        takes = "little memory" if memory < 10**6 else f"{_size(memory)} a circuit"
        less = " (memory allows no more)" if at_once < machine.cpus else ""
        yield Check(name, "ok", f"{need.qubits} qubits take {takes}: {at_once} at once{less}")


def _state() -> Iterator[Check]:
    from ray_qjm.cluster.desk_state import VARIABLE, state_root

    root = state_root()
    where = root if os.environ.get(VARIABLE) else f"{root} ({VARIABLE} may name another)"
    yield _writable("journal of jobs", root, where)


def _store(store: str | None) -> Iterator[Check]:
    if store is None:
        return
    found = credentials.object_store(store)
    if found is not None:
        yield Check("store account", "ok" if found.there else "note", found.text)
    yield _writable("store", store, store)
    from ray_qjm.results.watch import StoredTask

    try:
        status = StoredTask(store).status
    except InvalidInputError:  # there is none yet
        return
    except StoreError as error:
        yield Check("task", "bad", str(error))
        return
    of = "" if status.total is None else f" of {status.total:,}"
    yield Check(
        "task", "note", f"{status.task_id} is there: {status.state}, {status.done:,}{of} circuits done"
    )


def _writable(name: str, root: str, called: str) -> Check:
    """Write, read and remove one object."""
    from ray_qjm.results.objects import Objects

    made: list[Path] = []
    try:
        objects = (
            Objects(root, make=False, retry_s=5.0) if not _is_new(root, made) else Objects(root, retry_s=5.0)
        )
        probe = f"doctor-{uuid.uuid4().hex}.json"
        began = time.monotonic()
        objects.replace(probe, b"{}\n")
        same = objects.read(probe) == b"{}\n"
        objects.remove([probe])
        took = time.monotonic() - began
    except RayQjmError as error:
        return Check(name, "bad", str(error))
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
    if not same:
        return Check(name, "bad", f"{called}: what was written isn't what is read")
    free = ""
    if objects.directory is not None:
        path = next(path for path in (objects.directory, *objects.directory.parents) if path.is_dir())
        free = f", {_size(shutil.disk_usage(path).free)} free"
    return Check(name, "ok", f"{called}: can be written, {1000 * took:.0f} ms{free}")


def _is_new(root: str, made: list[Path]) -> bool:
    """Whether a local directory isn't there; which ones would be made is noted, innermost first."""
    if "://" in root:
        return False
    path = Path(root).expanduser().absolute()
    while not path.exists():
        made.append(path)
        path = path.parent
    return bool(made)


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
