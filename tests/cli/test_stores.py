"""What is done with a stored task, by a process that doesn't run it; and what is there before one is run."""

from __future__ import annotations

import csv
import io
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import ray_qjm
from ray_qjm import RunOptions, TaskResult
from ray_qjm.cluster.reach import reach
from ray_qjm.frontends.cli import credentials
from ray_qjm.frontends.cli.exits import Exit
from tests.cli.conftest import Cli, error, told
from tests.ray.circuits_for_tests import binary
from tests.services.process import ServiceProcess
from tests.services.scene import Scene, scene
from tests.storing import rows_of

pytestmark = pytest.mark.usefixtures("shared_ray")


def failing(index: int) -> Any:
    if index in (1, 2, 5):
        raise KeyError(f"no angle for {index // 3}")
    return binary(index)


def slow(index: int) -> Any:
    time.sleep(0.02)
    return binary(index)


@pytest.fixture
def store(folder: Path) -> str:
    """A task of eight circuits, of which three failed."""
    with pytest.warns(ray_qjm.errors.PartialResultWarning):
        ray_qjm.run(
            failing,
            count=8,
            shots=10,
            store="s",
            name="night",
            version="1",
            progress=False,
            options=RunOptions(max_chunk=2),
        )
    return "s"


def test_status_is_a_table_or_json(cli: Cli, store: str) -> None:
    text = cli("status s").stdout
    lines = text.splitlines()
    assert lines[0].startswith("task      ") and lines[0].endswith(" 'night'")
    assert lines[1].startswith("state     done, 0:")
    assert lines[2:4] == ["circuits  5 of 8 done, 3 failed", "store     s"]
    assert lines[-1].startswith(" aer          5        3         0   0 chunks running, ")
    assert not any(line.endswith(" ") for line in lines)
    values = told(cli("status s --json"))
    expected = {
        "name": "night",
        "state": "done",
        "total": 8,
        "done": 5,
        "failed": 3,
        "waiting": 0,
        "store": "s",
    }
    assert values.items() >= expected.items() and values["backends"][0]["name"] == "aer"


def test_report_has_a_line_a_reason(cli: Cli, store: str) -> None:
    assert cli("report s").stdout.splitlines() == [
        "circuits 1-2 failed to build. Reason: KeyError: 'no angle for 0'",
        "circuit 5 failed to build. Reason: KeyError: 'no angle for 1'",
        "5 of 8 circuits done, 3 failed.",
    ]
    assert [(item["start"], item["stop"]) for item in told(cli("report s --json"))["failures"]] == [
        (1, 3),
        (5, 6),
    ]


def test_report_of_many_ranges(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray_qjm.results.report.MAX_LINES", 1)
    with pytest.warns(ray_qjm.errors.PartialResultWarning):
        ray_qjm.run(failing, count=8, shots=10, store="s", version="1", progress=False)
    assert "... and 1 more circuits in 1 ranges" in cli("report s").stdout
    assert len(cli("report s --all").stdout.splitlines()) == 3


def test_watch_of_a_task_that_has_ended_tells_its_code(cli: Cli, store: str) -> None:
    assert cli("watch s", code=Exit.FAILED).stderr.count("8/8 circuits") == 1
    lines = cli("watch s --json", code=Exit.FAILED).stdout.splitlines()
    assert [json.loads(line)["state"] for line in lines] == ["done"]


def test_a_running_task_is_seen_watched_and_cancelled(cli: Cli, folder: Path) -> None:
    task = ray_qjm.submit(slow, count=100_000, shots=10, store="s", version="1")
    try:
        assert told(cli("status s --json"))["state"] == "running"
        assert " waiting." in cli("report s").stdout
        assert "asked to cancel" in cli("cancel s --no-wait").stdout
        assert "after 0 s the task still is" in error(cli("cancel s --timeout 0", code=Exit.ERROR))
        watched = cli("watch s --json", code=Exit.CANCELLED)
        states = [json.loads(line)["state"] for line in watched.stdout.splitlines()]
        assert states[0] == "running" and states[-1] == "cancelled"
        assert "is cancelled): there is nothing to cancel" in error(cli("cancel s", code=Exit.ERROR))
    finally:
        task.cancel(force=True)
        task.wait(60)


def test_export_writes_what_is_there(cli: Cli, store: str) -> None:
    rows = list(csv.DictReader(io.StringIO(cli("export s --to csv").stdout, newline="")))
    assert [row["outcome"] for row in rows] == [
        "00000000", "", "", "00000011", "00000100", "", "00000110", "00000111",
    ]  # fmt: skip
    assert rows[1]["error"] == "'no angle for 0'"
    lines = [json.loads(line) for line in cli("export s --to json --output -").stdout.splitlines()]
    assert lines[3]["counts"] == {"00000011": 10} and lines[1]["counts"] is None
    assert cli("export s --to parquet").stdout == "8 circuits written to s.parquet\n"
    found = TaskResult(pq.read_table("s.parquet").to_batches(), info={})
    assert rows_of(found).equals(rows_of(TaskResult.open("s")))
    assert "s.parquet is there already" in error(cli("export s --to parquet", code=2))
    cli("export s --to csv -o s.parquet --force")
    assert Path("s.parquet").read_text(encoding="utf-8").startswith("circuit,name,")


def test_export_of_jobs_and_failures(cli: Cli, store: str) -> None:
    result = TaskResult.open("s")
    jobs = [json.loads(line) for line in cli("export s --to json --what jobs").stdout.splitlines()]
    assert [job["job_id"] for job in jobs] == result.job_ids
    assert [job["submitted"] for job in jobs] == [
        time.isoformat() for time in result.jobs.column("submitted").to_pylist()
    ]
    rows = list(csv.DictReader(io.StringIO(cli("export s --to csv --what failures").stdout, newline="")))
    assert [(row["circuit"], row["error"]) for row in rows] == [
        ("1", "'no angle for 0'"), ("2", "'no angle for 0'"), ("5", "'no angle for 1'"),
    ]  # fmt: skip
    values = told(cli("export s --to parquet --what failures --json"))
    expected = {"store": "s", "what": "failures", "to": "parquet", "rows": 3}
    assert values == {**expected, "output": str(Path("s-failures.parquet").absolute())}
    assert pq.read_table("s-failures.parquet").to_pylist() == result.failures.to_pylist()
    assert "--json tells of a file" in error(cli("export s --to csv --json", code=Exit.USAGE))


def test_an_export_that_fails_leaves_no_file(cli: Cli, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ray_qjm.results.views.CircuitResult.counts", full)
    assert "No space left on device" in error(cli("export s --to csv -o out.csv", code=Exit.ERROR))
    assert not list(Path().glob("*out.csv*"))


def test_compact_joins_files(cli: Cli, store: str) -> None:
    before = rows_of(TaskResult.open("s"))
    values = told(cli("compact s --json"))
    assert values["files_before"] > 1 and values["files"] == 1
    assert cli("compact s").stdout == "1 file, of 1 before.\n"
    assert rows_of(TaskResult.open("s")).equals(before)


def test_backends_are_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    values = told(cli("backends --address local --json"))
    assert {"name": "aer", "runs": "on workers", "what": "Aer's simulator"} in values["names"]
    assert values["cluster"] is None and values["desks"] == []
    text = cli("backends --address local --all").stdout
    assert "fake_manila" in text and "No cluster is joined" in text
    (facts,) = told(cli("backends fake_manila --json"))["backends"]
    assert (facts["runs"], facts["qubits"], facts["limits"]) == ("workers", 5, None)


def test_quotas_in_use_are_told(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    service = ServiceProcess()
    try:
        with scene([service], folder, monkeypatch) as here:
            _told_while_it_runs(cli, here)
    finally:
        service.close()


def _told_while_it_runs(cli: Cli, here: Scene) -> None:
    from ray_qjm import Budget, Quota
    from tests.services.scene import submit

    here.begin(run_s=lambda job: 30.0)
    quota = Quota(max_pending=2, jobs_per_minute=100, budget=Budget(jobs=50))
    task = submit(here.spec(quota=quota, limits=ray_qjm.Limits(max_circuits=1)), 6)
    try:
        until = time.monotonic() + 60
        found: dict[str, Any] = {}
        while found.get("pending") != 2:
            assert time.monotonic() < until, found
            desks = told(cli("backends --json"))["desks"]
            found = next((desk for desk in desks if desk.get("max_pending") == 2), {})
        assert found["jobs_per_minute"] == 100 and found["budget"]["jobs"] == 50
        assert found["backends"][0].startswith("service-")
        assert found["spent"]["jobs"] == 2
        text = cli("backends").stdout
        assert "Quotas in use on the cluster at" in text and "2 of 50" in text and " service " in text
    finally:
        task.cancel(force=True)
        task.wait(60)


def test_doctor_looks_at_what_a_run_needs(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "s3cr3t-api-key"
    monkeypatch.setenv("QISKIT_IBM_TOKEN", secret)
    found = cli("doctor circuits.py:binary --count 100 --store deep/er/s --address local --json")
    values = told(found)
    checks = {check["name"]: check for check in values["checks"]}
    assert values["ok"] and all(check["state"] == "ok" for check in checks.values()), values
    assert checks["on aer"]["text"].startswith("8 qubits take little memory: ")
    assert checks["IBM account"]["text"] == "an API key in QISKIT_IBM_TOKEN"
    assert "can be written" in checks["store"]["text"] and not (folder / "deep").exists()
    text = cli("doctor --address local").stdout
    assert "cores" in text and secret not in text + found.output


def test_doctor_says_what_is_bad(
    cli: Cli, folder: Path, closed_port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray_qjm.cluster.session.reach", partial(reach, try_s=0.0))
    found = cli(f"doctor --address 127.0.0.1:{closed_port} --store circuits.py/s", code=Exit.ERROR)
    lines = {line.split()[1]: line for line in found.stdout.splitlines()}
    assert lines["Ray"].startswith("bad   Ray ") and "answers at 127.0.0.1" in lines["Ray"]
    assert lines["store"].startswith("bad   store ")


def test_doctor_holds_a_run_against_the_memory(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray_qjm.cluster import survey
    from ray_qjm.cluster.survey import Machine

    Path("wide.py").write_text(
        "from qiskit import QuantumCircuit\ndef circuit(i):\n    if i == 0:\n        raise KeyError('gone')\n"
        "    found = QuantumCircuit(27)\n    found.h(range(27))\n    found.t(0)\n    found.measure_all()\n"
        "    return found\n",
        encoding="utf-8",
    )
    line = "doctor wide.py:circuit --count 100 --address local --json"
    monkeypatch.setattr(survey, "this_machine", lambda num_cpus: Machine(None, 4, 6 * 10**9))
    checks = [check for check in told(cli(line))["checks"] if check["name"] == "on aer"]
    assert checks[0]["state"] == "note" and "1 of 8 circuits that were looked at fail" in checks[0]["text"]
    assert checks[1]["text"] == "27 qubits take 2.15 GB a circuit: 2 at once (memory allows no more)"
    monkeypatch.setattr(survey, "this_machine", lambda num_cpus: Machine(None, 4, 10**9))
    values = told(cli(line, code=Exit.ERROR))
    bad = {check["name"]: check["text"] for check in values["checks"] if check["state"] == "bad"}
    assert "27 qubits take 2.15 GB a circuit, and there are 1 GB" in bad["on aer"]
    assert "too little memory. Give --num-cpus a smaller number." in bad["cores, memory"]


def test_doctor_of_a_task_that_is_there(cli: Cli, store: str) -> None:
    checks = {
        check["name"]: check["text"]
        for check in told(cli("doctor --store s --address local --json"))["checks"]
    }
    assert checks["task"].endswith("is there: done, 5 of 8 circuits done")
    assert not list(Path("s").glob("doctor*"))
    epoch = Path("s/epochs/1.json")
    epoch.write_text(epoch.read_text(encoding="utf-8").replace('"format":1', '"format":9'), encoding="utf-8")
    values = told(cli("doctor --store s --address local --json", code=Exit.ERROR))
    assert "format 9" in next(check["text"] for check in values["checks"] if check["state"] == "bad")


@pytest.mark.parametrize(
    ("uri", "variable", "text"),
    [
        ("s3://bucket/x", "AWS_ACCESS_KEY_ID", "S3: AWS_ACCESS_KEY_ID"),
        ("gs://bucket/x", "GOOGLE_APPLICATION_CREDENTIALS", "Google Cloud: GOOGLE_APPLICATION_CREDENTIALS"),
        ("abfss://bucket/x", "AZURE_CLIENT_ID", "Azure: AZURE_CLIENT_ID"),
    ],
)
def test_credentials_of_object_stores_are_looked_for(
    uri: str, variable: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (variable, "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        monkeypatch.delenv(name, raising=False)
    found = credentials.object_store(uri)
    assert found is not None and not found.there and "none in the environment" in found.text
    monkeypatch.setenv(variable, "secret")
    found = credentials.object_store(uri)
    assert found is not None and found.there and found.text == text
    assert credentials.object_store("results/x") is None
