"""The same circuits by several ways, side by side: ``python -m benchmarks.peers``.

A machine's speed drifts by more than the ways differ. So every round runs each way once, in shuffled order,
and a way is compared with the pool of the same round; the table shows medians of these ratios. Each way runs
in a fresh Python process on a terminal of its own (progress is drawn, nobody reads it), and nothing of one is
alive while another is timed.

``hot`` is the work alone, after a warm-up; ``whole`` is the process from its start to its end, imports,
set-up, warm-up and shutdown included. A ratio above 1 is faster than the pool.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import pty
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.ways import WAYS, processes

ROOT = Path(__file__).resolve().parent.parent
IDEAL = "pool"


@dataclass(frozen=True)
class Measurement:
    round: int
    way: str
    circuits: int
    shots: int
    hot_s: float
    whole_s: float


def run_one(name: str, count: int, shots: int, out: Path) -> None:
    """In the child: one way, from start to stop; its outcome goes into a file."""
    way = WAYS[name](shots, processes())
    way.start()
    try:
        outcome = way.run(count)
    finally:
        way.stop()
    out.write_text(json.dumps(outcome._asdict()), encoding="utf-8")


def on_a_terminal(command: list[str], env: dict[str, str]) -> tuple[int, str]:
    """Run a command on a pseudo-terminal; its exit code and the end of what it wrote."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, close_fds=True
    )
    os.close(theirs)
    written = b""
    try:
        while data := os.read(ours, 65536):
            written = (written + data)[-20_000:]
    except OSError:
        pass  # how Linux says that the last process has closed the terminal
    finally:
        os.close(ours)
    return child.wait(), written.decode(errors="replace")


def measure(number: int, name: str, count: int, shots: int) -> Measurement:
    """One way in one round, in a process of its own; raises if it fails or counts wrongly."""
    env = {**os.environ, **WAYS[name].env, "TERM": "xterm-256color", "COLUMNS": "110", "LINES": "40"}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "outcome.json"
        command = [sys.executable, "-m", "benchmarks.peers", "--count", str(count), "--shots", str(shots)]
        begin = time.perf_counter()
        code, written = on_a_terminal([*command, "--child", name, str(out)], env)
        whole = time.perf_counter() - begin
        if code != 0 or not out.exists():
            raise SystemExit(f"{name} failed with exit code {code}:\n{written}")
        outcome = json.loads(out.read_text(encoding="utf-8"))
    if outcome["circuits"] != count or outcome["shots"] != count * shots:
        raise SystemExit(f"{name}: {outcome}, expected {count} circuits of {shots} shots")
    return Measurement(number, name, count, outcome["shots"], outcome["seconds"], whole)


@dataclass(frozen=True)
class Row:
    way: str
    circuits_per_s: float
    hot: list[float]  # ratios to the pool, round by round; empty without a pool
    whole: list[float]


def summarise(measurements: list[Measurement]) -> list[Row]:
    """A row a way, fastest first."""
    ideal = {one.round: one for one in measurements if one.way == IDEAL}
    rows = []
    for way in {one.way for one in measurements}:
        mine = [one for one in measurements if one.way == way]
        paired = [(ideal[one.round], one) for one in mine if one.round in ideal]
        rows.append(
            Row(
                way,
                median(one.circuits / one.hot_s for one in mine),
                [pool.hot_s / one.hot_s for pool, one in paired],
                [pool.whole_s / one.whole_s for pool, one in paired],
            )
        )
    return sorted(rows, key=lambda row: -(median(row.hot) if row.hot else row.circuits_per_s))


def table(rows: list[Row], title: str) -> Table:
    """For reading; ratios as median and, in brackets, lowest and highest of all rounds."""
    shown = Table(title=title)
    shown.add_column("way")
    for heading in ("circuits/s hot", "hot / pool", "whole / pool"):
        shown.add_column(heading, justify="right")
    for row in rows:
        ratios = [
            f"{median(ratio):.3f} ({min(ratio):.3f}-{max(ratio):.3f})" if ratio else "-"
            for ratio in (row.hot, row.whole)
        ]
        shown.add_row(row.way, f"{row.circuits_per_s:.0f}", *ratios)
    return shown


def machine() -> dict[str, str | int]:
    packages = ("qiskit", "qiskit-aer", "ray", "dask", "pyarrow", "numpy")
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cores": os.cpu_count() or 1,
        "platform": platform.platform(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare ways to run the same random circuits.")
    parser.add_argument("--count", type=int, default=12_000, help="circuits a run (default 12000)")
    parser.add_argument("--rounds", type=int, default=5, help="default 5; fewer only to try things out")
    parser.add_argument("--shots", type=int, default=1024)
    parser.add_argument("--only", nargs="+", choices=WAYS, metavar="WAY", help=f"of: {', '.join(WAYS)}")
    parser.add_argument("--seed", type=int, default=0, help="of the order within the rounds")
    parser.add_argument("--json", type=Path, help="write everything measured into this file")
    parser.add_argument("--child", nargs=2, metavar=("WAY", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if min(args.count, args.rounds, args.shots) < 1:
        parser.error("--count, --rounds and --shots start at 1")
    if args.child:
        run_one(args.child[0], args.count, args.shots, Path(args.child[1]))
        return

    console = Console()
    order = random.Random(args.seed)
    measurements: list[Measurement] = []
    for number in range(1, args.rounds + 1):
        for name in order.sample(names := args.only or list(WAYS), len(names)):
            measurements.append(measure(number, name, args.count, args.shots))
            last = measurements[-1]
            console.print(
                f"round {number}/{args.rounds}  {name:<10}  {args.count / last.hot_s:6.0f} circuits/s hot, "
                f"whole {last.whole_s:.1f} s",
                highlight=False,
            )
    rows = summarise(measurements)
    title = f"{args.count} circuits x {args.shots} shots, {processes()} processes, {args.rounds} rounds"
    console.print(table(rows, title))
    if args.json is not None:
        content = {
            "machine": machine(),
            "rows": [asdict(row) for row in rows],
            "measurements": [asdict(one) for one in measurements],
        }
        args.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
