"""``run``, ``resume`` and ``plan``, on the tests' own Ray."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from qiskit import QuantumCircuit, qpy

import ray_qjm
from ray_qjm import TaskResult
from ray_qjm.frontends.cli import record
from ray_qjm.frontends.cli.exits import Exit
from ray_qjm.results import records
from tests.cli.conftest import Cli, error, told
from tests.ray.circuits_for_tests import binary
from tests.storing import check_store, rows_of

pytestmark = pytest.mark.usefixtures("shared_ray")


def counts(store: str | Path) -> list[dict[str, int]]:
    return TaskResult.open(store).get_counts()


def expected(count: int, shots: int = 1024) -> list[dict[str, int]]:
    return [{f"{index:08b}": shots} for index in range(count)]


def test_a_callable_of_a_file_runs_on_workers_that_cant_import_it(cli: Cli, folder: Path) -> None:
    found = cli(
        "run circuits.py:binary --count 20 --store s --shots 10 --seed 3 --name night --tag a --tag b"
    )
    assert found.stdout == "20 of 20 circuits done.\nstored in s\n"
    assert counts("s") == expected(20, 10)
    check_store(folder / "s", 20, beside=[record.NAME])
    info = TaskResult.open("s").info
    assert (info["name"], info["tags"], info["seed"]) == ("night", '["a", "b"]', "3")


def test_the_same_command_goes_on_and_so_does_resume(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task is the same because its source text is, wherever the file lies by then and whoever looks."""
    cli("run circuits.py:binary --count 8 --shots 5 --store s")
    first = rows_of(TaskResult.open("s"))
    assert told(cli("run circuits.py:binary --count 8 --shots 5 --store s --json"))["done"] == 8
    monkeypatch.chdir("/")
    again = told(cli(f"resume {folder}/s --json"))
    assert (again["done"], again["state"], again["exit_code"]) == (8, "done", 0)
    assert again["store"] == f"{folder}/s"
    assert rows_of(TaskResult.open(folder / "s")).equals(first)
    (folder / "moved").mkdir()
    for name in ("circuits.py", "widths.py"):
        (folder / name).rename(folder / "moved" / name)
    monkeypatch.chdir(folder / "moved")
    cli(f"run circuits.py:binary --count 8 --shots 5 --store {folder}/s")


def test_another_task_is_refused(cli: Cli) -> None:
    cli("run circuits.py:binary --count 4 --store s")
    assert "with count 4; this call has 5" in error(cli("run circuits.py:binary --count 5 --store s", code=2))
    found = cli("run circuits.py:slow --count 4 --store s", code=2)
    assert "Give what it was to go on with that task, or another store" in error(found)


def test_failed_circuits_have_a_code_and_a_reason(cli: Cli) -> None:
    found = cli("run circuits.py:broken --count 8 --store s", code=Exit.FAILED)
    assert found.stdout.splitlines() == [
        "circuits 3-5 failed to build. Reason: FileNotFoundError: no calibration",
        "5 of 8 circuits done, 3 failed.",
        "stored in s",
    ]
    values = told(cli("resume s --json", code=Exit.FAILED))
    assert values["failures"] == [
        {
            "start": 3,
            "stop": 6,
            "status": "failed",
            "stage": "build",
            "error_type": "FileNotFoundError",
            "error": "no calibration",
        }
    ]
    assert (values["exit_code"], values["error"], values["state"]) == (3, None, "done")


def test_a_task_that_was_stopped_by_its_failures(cli: Cli) -> None:
    line = "run circuits.py:hopeless --count 1000 --max-failures 4"
    found = cli(f"{line} --store s", code=Exit.ERROR)
    assert "the task was stopped" in error(found) and "0 of 1000 circuits done" in found.stdout
    values = told(cli(f"{line} --store t --json", code=Exit.ERROR))
    assert values["state"] == "failed" and "the task was stopped" in values["error"]


def test_rows_in_a_file_without_a_store(cli: Cli) -> None:
    found = cli("run circuits.py:binary --count 3 --output out.csv --shots 7")
    assert found.stdout.splitlines()[0] == "3 of 3 circuits done." and "written to" in found.stdout
    with open("out.csv", encoding="utf-8", newline="") as file:
        assert [(row["outcome"], row["count"]) for row in csv.DictReader(file)] == [
            ("00000000", "7"),
            ("00000001", "7"),
            ("00000010", "7"),
        ]
    cli("run circuits.py:binary --count 4 --output out.csv --force")
    values = told(cli("run circuits.py:binary --count 3 --output out.parquet --json --memory"))
    assert values["store"] is None and values["output"] == str(Path("out.parquet").absolute())
    assert "memory" in pq.read_schema("out.parquet").names
    assert not list(Path().glob(".out*"))


def test_a_run_that_was_stopped_at_once_overwrites_nothing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray_qjm.frontends.cli.signals import Stopped
    from ray_qjm.frontends.task import Task

    Path("asleep.py").write_text("import time\ndef circuit(i):\n    time.sleep(1000)\n", encoding="utf-8")
    Path("out.csv").write_text("of yesterday", encoding="utf-8")
    wait = Task.wait

    def interrupted(task: Task, timeout: float | None = None) -> Any:
        monkeypatch.setattr(Task, "wait", wait)
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(Task, "wait", interrupted)
    line = "run asleep.py:circuit --count 2 --grace 0 --output out.csv --force --json"
    found = cli(line, code=Exit.SIGTERM)
    assert "out.csv is left as it was: no circuit is done." in found.stderr
    assert told(found)["output"] is None and Path("out.csv").read_text(encoding="utf-8") == "of yesterday"


def test_files_of_circuits_and_a_resume_elsewhere(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    circuit = QuantumCircuit(1, 1)
    circuit.measure(0, 0)
    for name in ("a.qpy", "b.qpy"):
        with open(name, "wb") as file:
            qpy.dump([circuit, circuit], file)
    Path("one.qasm").write_text(
        'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1]; x q[0]; measure q -> c;', encoding="utf-8"
    )
    cli("run *.qpy --store s --backend basic --backend aer --shots 4")
    assert TaskResult.open("s").table.column("file").to_pylist() == ["a.qpy"] * 2 + ["b.qpy"] * 2
    cli("run one.qasm --store t --shots 4")
    assert counts("t") == [{"1": 4}]
    monkeypatch.chdir("/")
    cli(f"resume {folder}/s")


def test_a_sweep_needs_no_count(cli: Cli) -> None:
    Path("sweeps.py").write_text(
        "from qiskit import QuantumCircuit\nfrom qiskit.circuit import Parameter\nfrom ray_qjm import Sweep\n"
        "theta = Parameter('theta')\ncircuit = QuantumCircuit(1, 1)\ncircuit.rx(theta, 0)\ncircuit.measure(0, 0)\n"
        "sweep = Sweep(circuit, {'theta': [0.0, 0.1, 0.2]})\n",
        encoding="utf-8",
    )
    cli("run sweeps.py:sweep --store s")
    assert TaskResult.open("s").table.column("theta").to_pylist() == [0.0, 0.1, 0.2]
    assert "has 3 circuits. Leave it out." in error(cli("run sweeps.py:sweep --count 4 --store s", code=2))


def test_a_module_and_a_backend_of_ones_own(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("device.py").write_text(
        "from qiskit_aer import AerSimulator\nfrom ray_qjm import BackendSpec\n"
        "def noisy():\n    return AerSimulator(method='statevector')\n"
        "spec = BackendSpec('aer', name='mine', run_options={'method': 'stabilizer'})\n",
        encoding="utf-8",
    )
    line = "run tests.ray.circuits_for_tests:coin --count 6 --seed 1"
    values = told(cli(f"{line} --store s -b device.py:noisy -b device.py:spec -b aer --json"))
    assert [backend["name"] for backend in values["backends"]] == ["noisy", "mine", "aer"]
    assert values["done"] == 6
    message = error(cli("run circuits.py:binary --count 2 --store t -b device.py:gone", code=2))
    assert "device.py has no 'gone'" in message


@pytest.mark.parametrize("name", ["tests.backends.strange:Strange", "device.py:service"])
def test_a_factory_of_a_service(cli: Cli, name: str) -> None:
    """Any other object of Qiskit's interface has jobs, as many at once as the quota allows."""
    Path("device.py").write_text(
        "from tests.backends.strange import Strange\ndef service():\n    return Strange()\n", encoding="utf-8"
    )
    line = f"--backend {name} --placement actor --max-circuits 3"
    values = told(cli(f"plan circuits.py:binary --count 8 --shots 10 {line} --json"))
    assert (values["jobs"], values["backends"][0]["limit"]) == (3, "circuits")
    text = cli(f"plan circuits.py:binary --count 8 {line}").stdout
    assert "8 circuits, nothing submitted yet" in text and " 3 " in text
    facts = told(cli(f"backends {name} --placement actor --max-circuits 3 --max-shots 9 --json"))["backends"][
        0
    ]
    assert facts["limits"]["max_circuits"] == 3 and facts["limits"]["max_shots"] == 9
    assert facts["runs"] == "service" and facts["finds_lost_jobs"] is False
    assert "can't be found" in cli(f"backends {name} --placement actor").stdout


def test_what_is_recorded_is_what_was_given(cli: Cli, folder: Path) -> None:
    cli(
        "run circuits.py:binary --count 4 --seed 9 -b aer -b basic --max-chunk 2 --store s --grace 1 --json -q"
    )
    body = records.unseal((folder / "s" / record.NAME).read_bytes())
    assert body is not None
    assert body == {
        "version": record.VERSION,
        "source": ["circuits.py:binary"],
        "options": {"backend": ["aer", "basic"], "count": 4, "grace": 1.0, "max_chunk": 2, "seed": 9},
        "directory": os.getcwd(),
    }
    cli("resume s -b aer --name later --num-cpus 3 --address local")
    cli("resume s --address local")
    body = records.unseal((folder / "s" / record.NAME).read_bytes())
    assert body is not None and body["options"] == {
        "backend": ["aer"],
        "count": 4,
        "grace": 1.0,
        "max_chunk": 2,
        "seed": 9,
        "name": "later",
        "address": "local",
    }


def test_a_store_that_a_program_began_is_resumed_by_it(cli: Cli) -> None:
    ray_qjm.run([binary(1)], store="s", progress=False)
    message = error(cli("resume s", code=2))
    assert "doesn't say how its task was begun: a Python program began it" in message


def test_stores_of_newer_versions(cli: Cli, folder: Path) -> None:
    cli("run circuits.py:binary --count 2 --store s")
    path = folder / "s" / record.NAME
    good = path.read_bytes()
    body = records.unseal(good)
    assert body is not None
    path.write_bytes(records.seal({**body, "version": record.VERSION + 1}))
    found = error(cli("resume s", code=Exit.ERROR))
    assert (
        "written by a newer version of ray_qjm (cli.json is of version 2" in found and "upgrade it" in found
    )
    path.write_bytes(good)
    for name in ("task.json", "epochs/1.json"):
        whole = json.loads((folder / "s" / name).read_bytes())
        (folder / "s" / name).write_text(json.dumps({**whole, "format": 99}), encoding="utf-8")
    for line in ("resume s", "status s", "watch s", "report s", "export s --to csv", "compact s", "cancel s"):
        assert "the store has format 99, and this version of ray_qjm reads up to 1: upgrade it." in error(
            cli(line, code=Exit.ERROR)
        )


def test_a_directory_that_is_gone(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "there").mkdir()
    for name in ("circuits.py", "widths.py"):
        (folder / name).rename(folder / "there" / name)
    monkeypatch.chdir(folder / "there")
    cli(f"run circuits.py:binary --count 2 --store {folder}/s")
    monkeypatch.chdir(folder)
    (folder / "there").rename(folder / "elsewhere")
    message = error(cli("resume s", code=2))
    assert f"was begun in {folder}/there, which isn't here. Give its command again" in message


def test_a_relative_store_under_ray_job_submit(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    message = error(cli("run circuits.py:binary --count 2 --store s", code=2))
    assert "store 's' is relative, and under `ray job submit`" in message


@pytest.mark.parametrize(("wait", "grace"), [(None, 1.5), ("30", 5.0), ("1", 0.0), ("soon", 1.5)])
def test_the_grace_ends_before_ray_kills_a_job(
    wait: str | None, grace: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray_qjm.frontends.cli.call import run_options

    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    if wait is not None:
        monkeypatch.setenv("RAY_JOB_STOP_WAIT_TIME_S", wait)
    assert run_options({}).cancel_grace_s == grace
    assert run_options({"grace": 9.0}).cancel_grace_s == 9.0


def test_every_option_reaches_the_library(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is only accepted."""
    seen: list[dict[str, Any]] = []

    def plan(**call: Any) -> Any:
        seen.append(call)
        raise ray_qjm.errors.InvalidInputError("enough")

    monkeypatch.setattr("ray_qjm.api.plan", plan)
    monkeypatch.setattr("ray_qjm.frontends.cli.call.backends_of", lambda options: [])
    cli(
        "plan circuits.py:binary --count 4 --shots 5 --seed 6 --memory --level 2 --source-version v --name n --tag t "
        "--max-failures 7 --max-chunk 8 --timeout 9 --grace 1 --job-timeout 10 --attempts 11 --lost resubmit "
        "--budget-jobs 12 --budget-executions 13 --budget-qpu-seconds 14 --store s",
        code=2,
    )
    (call,) = seen
    options = call.pop("options")
    assert call.pop("circuits")(1).num_clbits == 8
    assert call == {
        "backends": [],
        "count": 4,
        "shots": 5,
        "seed": 6,
        "memory": True,
        "name": "n",
        "tags": ("t",),
        "version": "v",
        "store": "s",
    }
    assert options == ray_qjm.RunOptions(
        transpile=ray_qjm.TranspileOptions(level=2),
        max_failures=7,
        max_chunk=8,
        cancel_grace_s=1.0,
        timeout_s=9.0,
        job_timeout_s=10.0,
        retry=ray_qjm.RetryPolicy(attempts=11, lost="resubmit"),
        budget=ray_qjm.Budget(jobs=12, executions=13, qpu_seconds=14.0),
    )


def test_options_of_backends() -> None:
    from ray_qjm.frontends.cli.call import backends_of

    options = {
        "backend": ("ibm_fez",),
        "instance": "lab",
        "account": "ours",
        "max_circuits": 1,
        "max_shots": 2,
        "max_executions": 3,
        "max_payload_bytes": 4,
        "max_pending": 5,
        "jobs_per_minute": 6.0,
    }
    (spec,) = backends_of(options)
    assert spec == ray_qjm.BackendSpec.ibm(
        "ibm_fez",
        instance="lab",
        account="ours",
        limits=ray_qjm.Limits(1, 2, 3, 4),
        quota=ray_qjm.Quota(max_pending=5, jobs_per_minute=6.0),
    )


def test_a_signal_doesnt_hide_that_the_task_had_failed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes while the task ends for a reason of its own."""
    from ray_qjm.frontends.cli.signals import Stopped
    from ray_qjm.frontends.task import Task

    wait = Task.wait

    def late(task: Task, timeout: float | None = None) -> Any:
        monkeypatch.setattr(Task, "wait", wait)
        wait(task, timeout)
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(Task, "wait", late)
    line = "run circuits.py:hopeless --count 1000 --max-failures 4 --store s"
    text = error(cli(line, code=Exit.SIGTERM))
    assert "stopped by SIGTERM: 0 of 1000" in text and "It had failed by then: the task was stopped" in text
