"""What is there: backends and their limits, desks of the cluster, cores and memory. Nothing is run or submitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from ray_qjm.backends.base import Facts
from ray_qjm.backends.memory import active_qubits, simulation_bytes
from ray_qjm.backends.registry import Choice, choose
from ray_qjm.circuits.compile import Compiler
from ray_qjm.circuits.source import WorkerSource
from ray_qjm.cluster.backend_actor import NAMESPACE
from ray_qjm.cluster.services import close_services, open_services
from ray_qjm.cluster.session import connect
from ray_qjm.options import Limits, RunOptions
from ray_qjm.planning.seeds import transpiler_seed

#: Memory of a process that simulates, beside the simulation: Python, Qiskit and Aer (Ray 2.60, Qiskit 2.6: 330 MB).
WORKER_BYTES = 350 * 10**6
#: Circuits that are looked at for their size.
SAMPLE = 8


@dataclass(frozen=True)
class BackendFacts:
    """A backend of a task, as far as it tells.

    Attributes:
        name: In results.
        place: ``"workers"`` or ``"service"``.
        qubits: ``None``: it has no fixed number, or is made on workers only.
        limits: Of one job; ``None`` on workers, where there are no jobs.
        facts: Of a service.
    """

    name: str
    place: str
    qubits: int | None
    limits: Limits | None = None
    facts: Facts | None = None


def backend_facts(backends: Any) -> list[BackendFacts]:
    """Reach backends and say what they tell.

    Args:
        backends: As for ``run``.

    Raises:
        InvalidInputError: One can't be what is given.
        BackendLoadError: A service can't be reached.
        ConnectionError: Ray can't be, which services need.
    """
    choices = choose(backends)
    services = open_services(choices, RunOptions())
    try:
        return [_facts(choice, services.get(at)) for at, choice in enumerate(choices)]
    finally:
        close_services(services)


def _facts(choice: Choice, service: Any) -> BackendFacts:
    if service is None:
        return BackendFacts(choice.name, "workers", getattr(choice.backend, "num_qubits", None))
    target = service.facts.target
    qubits = None if target is None else target.num_qubits
    return BackendFacts(choice.name, "service", qubits, service.limits, service.facts)


def desk_states(within_s: float = 10.0) -> dict[str, Mapping[str, Any] | None]:
    """The desks of the cluster that this process has joined: name to ``Desk.state``, ``None`` if one doesn't answer."""
    named = ray.util.list_named_actors(all_namespaces=True)
    names = sorted(
        str(actor["name"])
        for actor in named
        if actor["namespace"] == NAMESPACE and str(actor["name"]).startswith("desk-")
    )
    asked: dict[str, Any] = {}
    for name in names:
        try:
            asked[name] = ray.get_actor(name, NAMESPACE).state.remote()
        except ValueError:  # it has just ended
            continue
    if asked:
        ray.wait(list(asked.values()), num_returns=len(asked), timeout=within_s)
    return {name: _answer(reference) for name, reference in asked.items()}


def _answer(reference: Any) -> Mapping[str, Any] | None:
    try:
        found: Mapping[str, Any] = ray.get(reference, timeout=0)
    except Exception:
        return None
    return found


@dataclass(frozen=True)
class Machine:
    """What Ray tasks can have.

    Attributes:
        nodes: ``None``: of this machine, whose Ray isn't started yet.
        cpus: Cores.
        memory_bytes: Memory; of a node that runs, what Ray lets tasks have of it.
    """

    nodes: int | None
    cpus: int
    memory_bytes: int


def this_machine(num_cpus: int | None = None) -> Machine:
    """What a Ray of this machine would have; limits of containers count."""
    from ray._common.utils import get_system_memory
    from ray._private.utils import get_num_cpus

    return Machine(None, num_cpus or int(get_num_cpus()), int(get_system_memory()))


def joined_machine() -> Machine:
    """Join the cluster that was chosen, and say what it has.

    Raises:
        ConnectionError: It doesn't answer.
    """
    connect()
    nodes: list[dict[str, Any]] = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    has = [node["Resources"] for node in nodes]
    return Machine(
        len(nodes),
        int(sum(node.get("CPU", 0) for node in has)),
        int(sum(node.get("memory", 0) for node in has)),
    )


@dataclass(frozen=True)
class Need:
    """What simulating some circuits of a task takes on one backend.

    Attributes:
        backend: Its name.
        circuits: That were looked at.
        qubits: Of the widest.
        memory_bytes: Of the largest simulation; 0: little, or not known.
        failed: Why some can't be built or compiled.
    """

    backend: str
    circuits: int
    qubits: int
    memory_bytes: int
    failed: Sequence[str]


def needs(source: WorkerSource, backends: Any, options: RunOptions) -> list[Need]:
    """Look at some circuits as they would be simulated on workers; services are left out."""
    numbers = sorted({at * (source.count - 1) // max(1, SAMPLE - 1) for at in range(SAMPLE)})
    return [_need(source, choice, options, numbers) for choice in choose(backends) if choice.account is None]


def _need(source: WorkerSource, choice: Choice, options: RunOptions, numbers: Sequence[int]) -> Need:
    backend = choice.load() if choice.backend is None else choice.backend
    compiler = Compiler(backend, choice.spec.transpile or options.transpile, transpiler_seed(0))
    qubits = memory = 0
    failed = []
    for number in numbers:
        try:
            circuit = compiler.compile(source.build(number, 0))
        except Exception as error:
            failed.append(f"circuit {number}: {type(error).__name__}: {error}")
            continue
        qubits = max(qubits, active_qubits(circuit))
        memory = max(memory, simulation_bytes(backend, choice.spec.run_options, circuit))
    return Need(choice.name, len(numbers), qubits, memory, failed)
