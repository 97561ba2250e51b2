"""Puts a task together and starts it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

import ray

from ray_qjm.backends.registry import Choice
from ray_qjm.circuits.source import DriverSource, WorkerSource
from ray_qjm.cluster.blanks import Blanks
from ray_qjm.cluster.collector import Collector, MemoryCollector, StoreCollector
from ray_qjm.cluster.coordinator import Coordinator
from ray_qjm.cluster.held import HeldPayloads
from ray_qjm.cluster.launcher import Launchers
from ray_qjm.cluster.line_jobs import Spell
from ray_qjm.cluster.messages import TaskSetup, pack_setup
from ray_qjm.cluster.open_jobs import EarlierJobs, earlier_jobs
from ray_qjm.cluster.resume import Resumed
from ray_qjm.cluster.services import Service, make_lines
from ray_qjm.cluster.session import connect
from ray_qjm.cluster.workers import RayLauncher
from ray_qjm.options import RunOptions
from ray_qjm.planning.chunks import ChunkSizer
from ray_qjm.planning.events import Event
from ray_qjm.planning.schedule import BackendState, Schedule
from ray_qjm.planning.status import TaskStatus
from ray_qjm.results.jobs import Job

#: Batches that may wait for the reader of a stream before no new chunks are started: about a minute of work.
STREAM_AHEAD = 64


def start(
    source: WorkerSource | DriverSource,
    setup: TaskSetup,
    *,
    choices: Sequence[Choice],
    services: Mapping[int, Service],
    resumed: Resumed | None,
    name: str | None,
    options: RunOptions,
    observe: Callable[[TaskStatus], None] | None,
) -> Coordinator:
    """Start a task; a store that was taken for it is given back if that can't be.

    Args:
        source: The circuits.
        setup: What workers need.
        choices: Its backends.
        services: Those that are services, reached.
        resumed: The store of the task, if it has one.
        name: What the user calls it.
        options: Of the task.
        observe: As for ``Coordinator``.

    Raises:
        InvalidInputError: No node has the resources that a backend asks for.
    """
    with nullcontext() if resumed is None else resumed.opened.given_back_if_it_fails():
        schedule = Schedule(
            source.count,
            [
                BackendState(
                    ChunkSizer(options.chunk_s, options.max_chunk),
                    service=at in services,
                    weight=choice.spec.weight,
                )
                for at, choice in enumerate(choices)
            ],
            max_failures=options.max_failures,
            crash_retries=options.crash_retries,
            max_in_flight=options.max_in_flight,
        )
        task_id = secrets.token_hex(4)
        # Worker processes keep what they have made for a task, and a resumed one writes under another epoch.
        key = secrets.token_hex(8)
        earlier = EarlierJobs()
        if resumed is not None:
            task_id = resumed.task.task_id
            name = name or resumed.task.info.get("name")
            setup = resumed.setup(setup)
            resumed.tell(schedule)
            names = [name for name, _, _ in setup.backends]
            earlier = earlier_jobs(resumed.opened, resumed.kept, names, services, setup.shots_of)
            schedule.bound = earlier.chunks()
        only_here = connect()
        reference = [ray.put(pack_setup(setup))]
        workers = RayLauncher(
            key,
            reference,
            [(choice.name, choice.spec.resources) for choice in choices],
            only_here=only_here,
            name=name,
        )
        heard: list[Callable[[Event | Job | Spell | None], None]] = []
        lines = make_lines(
            services,
            setup,
            reference,
            key=key,
            task_id=task_id,
            task_name=name,
            options=options,
            earlier=earlier,
            tell=lambda news: heard[0](news),
        )
        feed = source if isinstance(source, DriverSource) else None
        held = HeldPayloads()
        blanks = Blanks(setup, feed, held)
        gate: list[Callable[[bool], None]] = []
        collector: Collector
        if resumed is None:
            collector = MemoryCollector(blanks, limit=STREAM_AHEAD, on_gate=lambda open_: gate[0](open_))
        else:
            lacking = any(failure.status == "partial" for failure in resumed.failures)
            collector = StoreCollector(resumed.opened, resumed.kept, blanks, resumed.inputs, lacking=lacking)
        coordinator = Coordinator(
            task_id=task_id,
            name=name,
            schedule=schedule,
            launcher=Launchers(workers, lines),
            setup=setup,
            feed=feed,
            options=options,
            collector=collector,
            held=held,
            resumed=resumed,
            observe=observe,
        )
        gate.append(coordinator.gate)
        heard.append(coordinator.hear)
        for line in lines.values():
            line.begin()
        coordinator.start()
        return coordinator
