"""Jobs at a service: how near to the best possible, in virtual time and in real time.

``clock``: a million circuits at scripted services in virtual time, against the least time that any client could
take under the same limits; see ``service_clock``. The same on every machine.

``desk``: one desk's actor on a real Ray, fed with jobs of one circuit that take 50 ms, against a pool of threads
that calls the same adapter; see ``service_desk``.

Usage: python -m benchmarks.service clock [--count 1000000] [--seeds 5]
       python -m benchmarks.service desk [--jobs 5000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Sequence
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks import service_clock, service_desk
from benchmarks.peers import machine
from benchmarks.service_clock import ACCOUNTS, Outcome
from benchmarks.service_desk import Round

#: What a total time may be of the least possible.
TARGET = 1.05


def _one(what: tuple[int, int, int, bool]) -> Outcome:
    at, count, seed, faults = what
    return service_clock.run(ACCOUNTS[at], count, seed, faults=faults)


def spread(values: Sequence[float], form: str = ".3f") -> str:
    """Median and, in brackets, lowest and highest."""
    return f"{median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def clock(count: int, seeds: int, console: Console) -> None:
    cases = [(at, faults) for at in range(len(ACCOUNTS)) for faults in (False, True)]
    work = [(at, count, seed, faults) for at, faults in cases for seed in range(seeds)]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        outcomes = list(pool.imap(_one, work))
    title = f"{count} circuits x {service_clock.SHOTS} shots, {seeds} seeds, virtual time: median (range)"
    table = Table(title=title)
    for name in ("what binds", "faults"):
        table.add_column(name)
    for name in (
        "slots full %",
        "fill %",
        "least %",
        "jobs",
        "total s",
        "/ minimum",
        "/ any cut",
        "polls a job",
    ):
        table.add_column(name, justify="right")
    for at, faults in cases:
        mine = [one for (a, _, _, f), one in zip(work, outcomes, strict=True) if (a, f) == (at, faults)]
        slots = [100 * one.slots for one in mine if one.slots is not None]
        table.add_row(
            ACCOUNTS[at].name,
            "yes" if faults else "no",
            spread(slots, ".1f") if slots else "never",
            f"{100 * median(one.fill for one in mine):.1f}",
            f"{100 * min(one.least for one in mine):.2f}",
            f"{median(one.jobs for one in mine):.0f}",
            f"{median(one.total_s for one in mine):.0f}",
            spread([one.ratio for one in mine]),
            f"{median(one.total_s / one.any_s for one in mine):.3f}",
            f"{median(one.polls / one.jobs for one in mine):.0f}",
        )
    console.print(table)
    worst = max(one.ratio for one in outcomes)
    console.print(
        f"highest ratio to the minimum {worst:.4f}, target at most {TARGET}: "
        f"{'reached' if worst <= TARGET else 'missed'}; {sum(one.wall_s for one in outcomes):.0f} s of simulating"
    )


def desk(arguments: argparse.Namespace, console: Console) -> None:
    rounds = service_desk.measure(arguments, lambda one: console.print(_line(one), highlight=False))
    table = Table(title=f"{arguments.jobs} jobs of one circuit, {arguments.rounds} rounds: median (range)")
    table.add_column("way")
    for name in ("jobs/s", "/ pool", "polls a job", "sends a job", "CPU ms a job", "CPU of its process %"):
        table.add_column(name, justify="right")
    pool = {one.number: one for one in rounds if one.way == "pool"}
    for way in ("desk", "pool"):
        mine = [one for one in rounds if one.way == way]
        table.add_row(
            way,
            spread([one.jobs_per_s for one in mine], ".0f"),
            spread([one.jobs_per_s / pool[one.number].jobs_per_s for one in mine]),
            spread([one.polls / one.jobs for one in mine], ".2f"),
            spread([one.sends / one.jobs for one in mine], ".2f"),
            spread([1000 * one.cpu_s / one.jobs for one in mine], ".2f"),
            spread([100 * one.cpu_s / one.seconds for one in mine], ".0f"),
        )
    console.print(table)


def _line(one: Round) -> str:
    return (
        f"round {one.number}  {one.way:<4}  {one.jobs_per_s:6.0f} jobs/s  {one.polls} polls  {one.sends} sends  "
        f"{1000 * one.cpu_s / one.jobs:.2f} ms of CPU a job, of it {1000 * one.adapter_s / one.jobs:.2f} the service's"
        + (f"; driver {1000 * one.other_s / one.jobs:.2f}" if one.way == "desk" else "")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what becomes of jobs at a service.")
    commands = parser.add_subparsers(dest="command", required=True)
    virtual = commands.add_parser("clock", help="in virtual time, against the least possible")
    virtual.add_argument("--count", type=int, default=1_000_000, help="circuits (default 1000000)")
    virtual.add_argument("--seeds", type=int, default=5, help="default 5")
    real = commands.add_parser("desk", help="one desk on a real Ray, against a pool of threads")
    service_desk.add_arguments(real)
    arguments = parser.parse_args()
    console = Console(width=140)  # tables are as wide, on a terminal or not
    console.print(f"python -m benchmarks.service {' '.join(sys.argv[1:])}", highlight=False)
    console.print(f"{machine()}, load {os.getloadavg()}", highlight=False)
    if arguments.command == "clock":
        clock(arguments.count, arguments.seeds, console)
    else:
        desk(arguments, console)


if __name__ == "__main__":
    main()
