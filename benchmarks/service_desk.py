"""Many small jobs through one desk in real time: its actor on a real Ray, against threads that call the adapter.

The scripted service lives in the adapter, so in the actor's process (and for the pool in this one): its answers
are a few dictionary look-ups, less than a socket would cost the process that is measured. What its calls take of
CPU is measured and told, so that it can be taken off.

The driver does what a task's line does: a few jobs wait at the desk, whose circuits lie in Ray's object store, a
chunk of them under one reference; what is done is fetched and forgotten. The pool has the circuits at hand, and
one thread a slot: submit, ask every 50 ms, fetch.
"""

from __future__ import annotations

import argparse
import logging
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cloudpickle
import psutil
import ray
from qiskit import QuantumCircuit

from ray_qjm.backends.base import Answer, Submission
from ray_qjm.backends.desk_messages import Told
from ray_qjm.circuits.payload import encode
from ray_qjm.cluster.backend_actor import Counter, JobMessage
from ray_qjm.cluster.desk_link import DeskLink
from ray_qjm.cluster.services import POLLS_S
from ray_qjm.options import Quota, RetryPolicy
from ray_qjm.planning.errands import Seen
from ray_qjm.planning.orders import Run
from ray_qjm.planning.quota import Cost
from tests.services.adapter import ScriptedAdapter, outcome
from tests.services.scripted import Script, ScriptedService

SHOTS = 100
KEY = "quick"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=int, default=5000, help="a round (default 5000)")
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--pending", type=int, default=100, help="slots of the service (default 100)")
    parser.add_argument("--job-s", type=float, default=0.05, help="seconds that a job takes (default 0.05)")
    parser.add_argument("--chunk", type=int, default=300, help="circuits under one reference (default 300)")
    parser.add_argument(
        "--ahead", type=int, help="jobs that wait at the desk (default: as a task, a quarter)"
    )
    parser.add_argument(
        "--profile", type=float, metavar="S", help="sample the actor's threads every S seconds"
    )


class Metered(ScriptedAdapter):
    """Tells how much CPU its calls took, and how many there were."""

    def __init__(self, pending: int, job_s: float) -> None:
        script = Script(pending=pending, parallel=pending, run_s=lambda job: job_s)
        super().__init__(ScriptedService(time.monotonic, script))
        self.cpu_s = 0.0
        self.sends = self.polls = 0
        self._meter = threading.Lock()

    def _metered(self, call: Callable[[], Any], *, sends: int = 0, polls: int = 0) -> Any:
        begin = time.thread_time()
        found = call()
        with self._meter:
            self.cpu_s += time.thread_time() - begin
            self.sends += sends
            self.polls += polls
        return found

    def submit(self, job: Submission) -> str:
        """See ``ScriptedAdapter``."""
        found: str = self._metered(lambda: super(Metered, self).submit(job), sends=1)
        return found

    def status(self, job_ids: Sequence[str]) -> Mapping[str, Seen]:
        """See ``ScriptedAdapter``."""
        found: Mapping[str, Seen] = self._metered(lambda: super(Metered, self).status(job_ids), polls=1)
        return found

    def fetch(self, job_id: str) -> list[Answer]:
        """See ``ScriptedAdapter``."""
        found: list[Answer] = self._metered(lambda: super(Metered, self).fetch(job_id))
        return found


@dataclass(frozen=True)
class Round:
    """One way, once.

    Attributes:
        number: Of the round.
        way: ``desk`` or ``pool``.
        jobs: All.
        seconds: From the first to the last result.
        polls: Requests that asked for jobs.
        sends: Requests that made one.
        cpu_s: Of the process that submits: the actor, or this one.
        adapter_s: Of it, in the scripted service.
        other_s: CPU of this process, where the actor submits.
    """

    number: int
    way: str
    jobs: int
    seconds: float
    polls: int
    sends: int
    cpu_s: float
    adapter_s: float
    other_s: float

    @property
    def jobs_per_s(self) -> float:
        """Sustained."""
        return self.jobs / self.seconds


def measure(arguments: argparse.Namespace, told: Callable[[Round], None]) -> list[Round]:
    """All rounds, each way once in each, the order changing from round to round."""
    count, pending, job_s = arguments.jobs, arguments.pending, arguments.job_s
    circuits = [_circuit(number) for number in range(count)]
    rounds: list[Round] = []
    # A Ray of its own: without an address it joins any that somebody has started on this machine.
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root:
            ahead = max(2, pending // 4) if arguments.ahead is None else arguments.ahead
            desk = OneDesk(root, pending, job_s, arguments.chunk, ahead)
            warm = circuits[: min(count, 5 * pending)]
            desk.run("warm-up", warm)
            _pool(Metered(pending, job_s), warm, pending)
            for number in range(1, arguments.rounds + 1):
                ways: list[Callable[[], Round]] = [
                    lambda n=number: _round_desk(n, desk, circuits, arguments.profile),  # type: ignore[misc]
                    lambda n=number: _round_pool(n, Metered(pending, job_s), circuits, pending),  # type: ignore[misc]
                ]
                for way in ways if number % 2 else reversed(ways):
                    rounds.append(way())
                    told(rounds[-1])
            desk.close()
    finally:
        ray.shutdown()
    return rounds


def _circuit(number: int) -> QuantumCircuit:
    circuit = QuantumCircuit(2, 2, name=f"c{number}")
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure([0, 1], [0, 1])
    return circuit


def _check(circuit: QuantumCircuit, answers: list[Answer]) -> None:
    if [answer.counts for answer in answers] != [{outcome(circuit.name): SHOTS}]:
        raise AssertionError(f"{circuit.name} got {answers}")


# Without an engine.


def _round_pool(number: int, adapter: Metered, circuits: Sequence[QuantumCircuit], pending: int) -> Round:
    cpu = time.process_time()
    seconds = _pool(adapter, circuits, pending)
    cpu = time.process_time() - cpu
    return Round(
        number, "pool", len(circuits), seconds, adapter.polls, adapter.sends, cpu, adapter.cpu_s, 0.0
    )


def _pool(adapter: Metered, circuits: Sequence[QuantumCircuit], pending: int) -> float:
    def one(circuit: QuantumCircuit) -> None:
        job_id = adapter.submit(Submission([circuit], [SHOTS], circuit.name))
        while True:
            time.sleep(POLLS_S[0])
            if adapter.status([job_id])[job_id].state == "done":
                break
        _check(circuit, adapter.fetch(job_id))
        adapter.forget(job_id)

    begin = time.perf_counter()
    with ThreadPoolExecutor(pending) as threads:
        for _ in threads.map(one, circuits):
            pass
    return time.perf_counter() - begin


# With it.


class OneDesk:
    """A desk's actor and the driver's end of the wire."""

    def __init__(self, root: str, pending: int, job_s: float, chunk: int, ahead: int) -> None:
        made = cloudpickle.dumps(lambda: Metered(pending, job_s))
        self._link_args = (root, Quota(max_pending=pending))
        self._counter = Counter(KEY, made, POLLS_S)
        self._chunk = chunk
        self._ahead = ahead
        self._actor: Any = None

    def ask(self, function: Callable[[Any], Any]) -> Any:
        """What a function of the actor's object gives, in its process."""
        return ray.get(self._actor.__ray_call__.remote(function))

    def run(self, client: str, circuits: Sequence[QuantumCircuit]) -> float:
        """All circuits, a job each; how long that took."""
        root, quota = self._link_args
        link = DeskLink("benchmark", "a benchmark", quota, root=root, call_s=RetryPolicy().call_s)
        self._actor = link._actor
        link.open(self._counter)
        news: queue.SimpleQueue[list[Told]] = queue.SimpleQueue()
        link.join(client, None, news.put)
        pieces = [
            (at, at + len(part), [ray.put(encode(part))])
            for at in range(0, len(circuits), self._chunk)
            for part in [circuits[at : at + self._chunk]]
        ]
        fetched: queue.SimpleQueue[list[int] | None] = queue.SimpleQueue()
        trouble: list[BaseException] = []

        def collect() -> None:
            try:
                while (done := fetched.get()) is not None:
                    references: list[Any] = [link.fetch(f"{client}-{index}")[1] for index in done]
                    for index, answers in zip(done, ray.get(references), strict=True):
                        _check(circuits[index], answers)
                    link.forget([f"{client}-{index}" for index in done])
                    link.send()
            except BaseException as error:
                trouble.append(error)

        collector = threading.Thread(target=collect, daemon=True)
        collector.start()
        begin = time.perf_counter()
        handed = over = 0
        waiting: set[str] = set()
        while over < len(circuits) and not trouble:
            while len(waiting) < self._ahead and handed < len(circuits):
                tag = f"{client}-{handed}"
                waiting.add(tag)
                link.enqueue(self._job(tag, handed, pieces[handed // self._chunk]))
                handed += 1
            link.send()
            done: list[int] = []
            for told in news.get(timeout=60):
                if told.state != "queued":
                    waiting.discard(told.tag)
                if told.state == "done":
                    done.append(int(told.tag.rpartition("-")[2]))
                elif told.verdict is not None:
                    raise AssertionError(f"{told.tag} is {told.state}: {told.verdict}")
            over += len(done)
            if done:
                fetched.put(done)
        fetched.put(None)
        collector.join()
        seconds = time.perf_counter() - begin
        if trouble:
            raise trouble[0]
        link.close()
        return seconds

    def close(self) -> None:
        """End the actor."""
        ray.kill(self._actor)

    def _job(self, tag: str, index: int, piece: tuple[int, int, list[Any]]) -> JobMessage:
        runs = (Run(index, index + 1, SHOTS),)
        note = {"task": "benchmark", "backend": KEY, "runs": [list(runs[0])], "attempt": 0, "session": 1}
        return JobMessage(tag, KEY, Cost(1, SHOTS, 1.0), RetryPolicy(), None, note, runs, (piece,))


def _round_desk(
    number: int, desk: OneDesk, circuits: Sequence[QuantumCircuit], profile_s: float | None
) -> Round:
    before = desk.ask(_meters)
    if profile_s is not None:
        desk.ask(lambda host: _begin_sampling(profile_s))
    own = time.process_time()
    seconds = desk.run(f"round{number}", circuits)
    own = time.process_time() - own
    after = desk.ask(_meters)
    if profile_s is not None:
        print(desk.ask(_end_sampling))
    sends, polls, adapter_s, cpu_s = (b - a for a, b in zip(before, after, strict=True))
    return Round(number, "desk", len(circuits), seconds, polls, sends, cpu_s, adapter_s, own)


def _meters(host: Any) -> tuple[int, int, float, float]:
    """In the actor: requests and CPU so far."""
    adapter = host._desk._adapters[KEY]
    times = psutil.Process(os.getpid()).cpu_times()
    return adapter.sends, adapter.polls, adapter.cpu_s, times.user + times.system


# Where the time goes.

_samples: dict[str, Any] = {}


def _begin_sampling(every_s: float) -> None:
    """In the actor: look at what its threads do, again and again."""
    import sys
    from collections import Counter as Tally

    stop, inner, outer = threading.Event(), Tally[str](), Tally[str]()

    def look() -> None:
        me = threading.get_ident()
        while not stop.wait(every_s):
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            for ident, frame in sys._current_frames().items():
                if ident == me:
                    continue
                stack: list[str] = []
                at: Any = frame
                while at is not None:
                    code = at.f_code
                    stack.append(f"{code.co_filename.rpartition('/')[2]}:{code.co_name}")
                    at = at.f_back
                thread = names.get(ident, "?").split("-")[0].rstrip("0123456789 ")
                inner[f"{thread:24} {stack[0]} < {' < '.join(stack[1:4])}"] += 1
                for place in set(stack):
                    outer[f"{thread:24} {place}"] += 1

    _samples.update(stop=stop, inner=inner, outer=outer)
    threading.Thread(target=look, daemon=True).start()


def _end_sampling(host: Any) -> str:
    _samples["stop"].set()
    lines = [f"{number:6} {place}" for place, number in _samples["inner"].most_common(40)]
    lines += ["", *(f"{number:6} {place}" for place, number in _samples["outer"].most_common(60))]
    return "\n".join(lines)
