"""What must hold after any run of the simulation, as its services have seen it."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Hashable

from tests.services.scripted import OVER, Job, ScriptedService
from tests.services.simulation import Simulation


def judge_all(sim: Simulation) -> None:
    """Every circuit has its shots once or a reason, no limit was exceeded, nothing is left at a service."""
    ran: Counter[Hashable] = Counter()
    for service in sim.services.values():
        assert service.violations == []
        assert all(job.state in OVER for job in service.jobs.values()), "a job is left alone"
        assert service.highest_pending <= sim.quota.max_pending
        twins = any(job.twin for job in service.jobs.values())
        assert twins or not any("3458" in why or "Too many" in why for why in service.refused), (
            service.refused
        )
        judge_tags(service)
        ran.update(service.shots_run())
    for work in sim.works:
        assert work.complaints == []
        for circuit in range(work.count):
            wanted, got = work.shots_of(circuit), work.rows[circuit]
            assert got == wanted or (got < wanted and circuit in work.reasons), (circuit, got, wanted)
            assert len(sim.works) > 1 or ran[circuit] <= wanted, f"circuit {circuit} ran {ran[circuit]} times"
    for name, shots in ran.items():
        assert shots <= sum(work.shots_of(int(str(name))) for work in sim.works)


def judge_tags(service: ScriptedService) -> None:
    """A job is submitted again only after the last of its tag is over, and has no result."""
    last: dict[str, Job] = {}
    for job in sorted(service.jobs.values(), key=lambda job: job.made_at):
        if job.twin:
            continue
        before = last.get(job.tag)
        if before is not None:
            assert before.ended_at is not None and before.ended_at <= job.made_at, f"{job.tag} twice at once"
            assert before.state != "done", f"{job.tag} submitted again, and has a result"
        last[job.tag] = job


def by_chance(seed: int, kind: str, number: int, percent: int) -> bool:
    """The same answer in every process, for so many of a hundred."""
    return zlib.crc32(f"{seed} {kind} {number}".encode()) % 100 < percent
