"""The program as a process: signals, exit codes, several of them on one store, and what they write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import ray

import ray_qjm
from ray_qjm import TaskResult
from ray_qjm.errors import RayQjmError
from ray_qjm.frontends.cli.exits import Exit
from ray_qjm.frontends.cli.record import NAME
from tests.cli.conftest import Cli, error, told
from tests.services.process import ServiceProcess
from tests.services.scene import scene
from tests.storing import check_store

ROOT = Path(__file__).resolve().parents[2]
COUNT = 150

pytestmark = pytest.mark.usefixtures("shared_ray")


class Program:
    """``ray-qjm`` as a process that has joined the tests' Ray."""

    def __init__(self, line: str, folder: Path, address: str | None = None) -> None:
        joined = ray.get_runtime_context().gcs_address if address is None else address
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ray_qjm", *line.split()],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "RAY_ADDRESS": joined,
                "RAY_USAGE_STATS_ENABLED": "0",
                "PYTHONFAULTHANDLER": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ends(self, code: int, timeout: float = 120) -> tuple[str, list[str]]:
        """Wait for its end; what it wrote, and of its errors the lines that aren't progress."""
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # where its threads are
            out, err = self.process.communicate()
            pytest.fail(f"it didn't end within {timeout} s:\n{out}\n{err}")
        assert self.process.returncode == code, f"{self.process.returncode}: {out}\n{err}"
        return out, [line for line in err.splitlines() if not line.startswith("ray_qjm: ")]


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Program]]:
    """Starts programs, and ends them."""
    programs: list[Program] = []

    def one(line: str, address: str | None = None) -> Program:
        programs.append(Program(line, folder, address))
        return programs[-1]

    yield one
    for program in programs:
        if program.process.poll() is None:
            program.process.kill()
        program.process.communicate()


def done(store: Path) -> int:
    """Circuits that are stored; none if there is no task yet."""
    try:
        return len(ray_qjm.attach(store).result(partial=True).files()) and int(
            sum(count for status, count in TaskResult.open(store).status_counts.items() if status == "done")
        )
    except RayQjmError:
        return 0


def until(true: Callable[[], bool], program: Program, within: float = 90) -> None:
    """Wait for something, while a program runs."""
    end = time.monotonic() + within
    while not true():
        if program.process.poll() is not None:
            pytest.fail(f"it ended early: {program.process.communicate()}")
        if time.monotonic() >= end:
            program.process.send_signal(signal.SIGABRT)  # where its threads are
            pytest.fail(f"it didn't happen within {within:g} s: {program.process.communicate()}")
        time.sleep(0.1)


RUN = f"run circuits.py:slow --count {COUNT} --shots 10 --max-chunk 5 --store s"


def test_sigterm_stops_it_in_good_order_and_nothing_is_run_twice(
    folder: Path, start: Callable[..., Program], cli: Cli
) -> None:
    """Chunks that run end, their rows are stored, and the same command goes on with the rest."""
    program = start(RUN)
    until(lambda: done(folder / "s") >= 20, program)
    program.process.send_signal(signal.SIGTERM)
    out, errors = program.ends(Exit.SIGTERM)
    kept = done(folder / "s")
    assert 20 <= kept < COUNT
    assert out.splitlines() == [f"{kept} of {COUNT} circuits done.", "stored in s"]
    assert errors == [
        f"ray-qjm: stopped by SIGTERM: {kept} of {COUNT} circuits are done and stored in s. "
        "`ray-qjm resume s` goes on."
    ]
    assert ray_qjm.attach(folder / "s").status().state == "cancelled"
    first = {job["job_id"] for job in TaskResult.open(folder / "s").jobs.to_pylist()}
    (folder / "go").touch()
    values = told(cli("resume s --json"))
    assert (values["done"], values["exit_code"]) == (COUNT, 0)
    result = TaskResult.open(folder / "s")
    jobs = [job for job in result.jobs.to_pylist() if job["state"] == "done"]
    assert sum(job["circuits"] for job in jobs) == COUNT  # no circuit stands in two
    assert sum(job["circuits"] for job in jobs if job["job_id"] not in first) == COUNT - kept
    assert result.get_counts() == [{f"{index % 256:08b}": 10} for index in range(COUNT)]
    check_store(folder / "s", COUNT, beside=[NAME])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_other_signals_do_the_same(number: signal.Signals, folder: Path, cli: Cli) -> None:
    """In this process: it is long under way when the signal comes."""

    def send() -> None:
        while done(folder / "s") < 5:
            time.sleep(0.1)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    found = cli("run circuits.py:slow --count 1000000 --max-chunk 5 --store s", code=128 + number)
    sender.join()
    assert error(found).startswith(f"ray-qjm: stopped by {number.name}: ")
    assert found.stdout.endswith(" of 1000000 circuits done.\nstored in s\n")


@pytest.mark.parametrize(("number", "open_"), [(signal.SIGTERM, 2), (signal.SIGINT, 0)], ids=["TERM", "INT"])
def test_a_batch_systems_signal_leaves_jobs_at_services_and_ctrl_c_cancels_them(
    number: signal.Signals, open_: int, folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = ServiceProcess()
    (folder / "device.py").write_text(
        "from tests.services.hosted import Recalling\nfrom tests.services.wire import Where\n\n\n"
        f"def device():\n    return Recalling(Where({service.where.port}, {service.where.key!r}), 5)\n",
        encoding="utf-8",
    )

    def send() -> None:
        service.until(lambda story: story.pending == 2 and len(story.jobs) == 4)
        while len(ray_qjm.attach(folder / "s").job_ids) < 4 or not done(folder / "s"):
            time.sleep(0.1)
        os.kill(os.getpid(), number)

    try:
        with scene([service], folder, monkeypatch) as here:
            here.begin(run_s=lambda job: 3600.0 if job.number > 1 else 0.05, parallel=9)
            line = (
                "run tests.services.hosted:marked --count 20 --shots 10 --backend device.py:device --placement actor "
                f"--account {here.account} --max-pending 2 --store s"
            )
            sender = threading.Thread(target=send, daemon=True)
            sender.start()
            words = error(cli(line, code=128 + number))
            sender.join()
            left = "Left at services, to be found again: job-2 on device, job-3 on device. "
            assert words == (
                f"ray-qjm: stopped by {number.name}: {done(folder / 's')} of 20 circuits are done and stored in s. "
                f"{left if open_ else ''}`ray-qjm resume s` goes on."
            )
            assert len(service.story().open) == open_
            service.change(run_s=lambda job: 0.05)
            service.go_on(3600.0)
            assert told(cli("resume s --json"))["done"] == 20
            assert len(service.story().jobs) == (4 if open_ else 6)
    finally:
        service.close()


def test_a_second_signal_doesnt_wait_for_chunks(folder: Path, start: Callable[..., Program]) -> None:
    (folder / "asleep.py").write_text(
        "import time\ndef circuit(i):\n    time.sleep(1000)\n", encoding="utf-8"
    )
    program = start("run asleep.py:circuit --count 4 --store s --grace 1000 --json")
    until(lambda: _running(folder / "s") > 0, program)
    program.process.send_signal(signal.SIGINT)
    until(lambda: ray_qjm.attach(folder / "s").status().state == "cancelling", program)
    program.process.send_signal(signal.SIGINT)
    out, _ = program.ends(Exit.SIGINT)
    assert json.loads(out)["exit_code"] == Exit.SIGINT and json.loads(out)["state"] == "cancelled"


def _running(store: Path) -> int:
    try:
        return ray_qjm.attach(store).status().running
    except RayQjmError:
        return 0


def _children(program: Program) -> list[str]:
    try:
        return [child.name() for child in psutil.Process(program.process.pid).children(recursive=True)]
    except psutil.Error:  # one has just ended
        return []


def test_a_signal_while_ray_starts_is_heard_at_once(folder: Path, start: Callable[..., Program]) -> None:
    """The store is taken before that, and given back."""
    program = start(RUN, address="local")
    until(lambda: "gcs_server" in _children(program), program)
    program.process.send_signal(signal.SIGTERM)
    out, errors = program.ends(Exit.SIGTERM)
    assert out == "" and errors == ["ray-qjm: stopped by SIGTERM."]
    assert (folder / "s" / "ends" / "1.json").exists()


def test_others_watch_a_task_and_cant_run_it_too(
    folder: Path, start: Callable[..., Program], cli: Cli
) -> None:
    """Two watch it: one leaves, one sees the end; a second driver is refused."""
    line = "run circuits.py:slow --count 1000000 --store s"
    program = start(line)
    until(lambda: done(folder / "s") > 0, program)
    watcher, other = start("watch s"), start("watch s --json")
    assert other.process.stdout is not None
    assert json.loads(other.process.stdout.readline())["state"] == "running"
    other.process.send_signal(signal.SIGINT)
    _, errors = other.ends(Exit.SIGINT)
    assert errors == ["ray-qjm: stopped by SIGINT."]
    refused = error(cli(line, code=Exit.ERROR))
    assert f"is being run by process {program.process.pid} on " in refused
    assert told(cli("cancel s --json"))["state"] == "cancelled"
    out, errors = program.ends(Exit.CANCELLED)
    assert out.splitlines()[-1] == "stored in s"
    assert errors == ["ray-qjm: the task was cancelled. `ray-qjm resume s` goes on."]
    assert watcher.ends(Exit.CANCELLED) == ("", [])


def test_a_killed_process_is_told_and_resumed(folder: Path, start: Callable[..., Program], cli: Cli) -> None:
    program = start(RUN)
    until(lambda: done(folder / "s") >= 20, program)
    watcher = start("watch s --json")
    assert watcher.process.stdout is not None
    watcher.process.stdout.readline()
    program.process.kill()
    program.ends(-signal.SIGKILL)
    out, errors = watcher.ends(Exit.INTERRUPTED)
    assert json.loads(out.splitlines()[-1])["state"] == "interrupted"
    assert errors == ["ray-qjm: the process that ran the task is gone. `ray-qjm resume s` goes on."]
    assert "`ray-qjm resume s` goes on." in cli("status s").stdout
    (folder / "go").touch()
    assert told(cli("resume s --json"))["done"] == COUNT
    check_store(folder / "s", COUNT, beside=[NAME])


def test_a_cluster_that_isnt_there(folder: Path, start: Callable[..., Program], closed_port: str) -> None:
    began = time.monotonic()
    _, errors = start(RUN, address=f"127.0.0.1:{closed_port}").ends(Exit.ERROR)
    assert time.monotonic() - began < 60  # Ray itself takes four minutes
    assert len(errors) == 1 and errors[0].startswith(
        f"ray-qjm: no Ray cluster answers at 127.0.0.1:{closed_port} ("
    )
    assert "Connection refused, tried for 5 s. Look at the address" in errors[0]


def test_a_token_that_the_cluster_doesnt_take(
    folder: Path, start: Callable[..., Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.environ.get("RAY_AUTH_MODE") != "token":
        pytest.skip("this version of Ray asks for no token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    _, errors = start(RUN).ends(Exit.ERROR)
    assert len(errors) == 1 and "doesn't take this process's token" in errors[0]
    assert "0" * 64 not in errors[0]


def test_a_reader_that_goes_is_no_error(folder: Path, cli: Cli) -> None:
    cli("run circuits.py:binary --count 3000 --shots 5 --store s")
    command = f"{sys.executable} -m ray_qjm export s --to csv | head -1; echo ${{PIPESTATUS[0]}}"
    found = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    lines = found.stdout.splitlines()
    assert lines[0].startswith("circuit,name,status") and lines[1] == str(int(Exit.SIGPIPE))
    assert found.stderr == ""
