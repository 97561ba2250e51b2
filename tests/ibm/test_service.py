"""The unmodified client against the service: modes, states, limits, accounts."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np
import pytest
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit_ibm_runtime import Batch, IBMRuntimeError, QiskitRuntimeService, SamplerV2, Session
from qiskit_ibm_runtime.accounts.exceptions import InvalidAccountError
from qiskit_ibm_runtime.exceptions import (
    IBMNotAuthorizedError,
    RuntimeInvalidStateError,
    RuntimeJobFailureError,
    RuntimeJobMaxTimeoutError,
)
from qiskit_ibm_runtime.executor_sampler import Sampler

from tests.ibm.script import CRN, INSTANCE
from tests.ibm.service import ROOT, IbmService
from tests.ibm.submitting import DEPRECATED, TAG, counts, ones, sampler

pytestmark = pytest.mark.filterwarnings(DEPRECATED)


@pytest.mark.parametrize("kind", [SamplerV2, Sampler])
@pytest.mark.parametrize("mode", ["job", "batch", "session"])
def test_counts_come_back_in_every_mode(client: Any, ibm: IbmService, kind: Any, mode: str) -> None:
    backend = client.backend("ibm_loop")
    where = {"job": lambda it: it, "batch": Batch, "session": Session}[mode](backend)
    job = kind(mode=where).run([ones(0, marker="a"), ones(1, 3, marker="b")], shots=50)
    result = job.result(timeout=20, poll_interval=0.1)
    assert [pub.data.meas.get_counts() for pub in result] == [{"00001": 50}, {"01010": 50}]
    assert [pub.metadata["circuit_metadata"] for pub in result] == [{"marker": "a"}, {"marker": "b"}]
    assert ibm.state()["runs"] == {"a": 1, "b": 1}
    if mode != "job":
        assert where.details()["mode"] == {"batch": "batch", "session": "dedicated"}[mode]
        assert [found.job_id() for found in client.jobs(session_id=where.session_id)] == [job.job_id()]
        where.close()
        assert where.status() == "Closed"


@pytest.mark.parametrize("kind", [SamplerV2, Sampler])
def test_aer_runs_what_cannot_be_worked_out(client: Any, ibm: IbmService, kind: Any) -> None:
    angle = Parameter("a")
    circuit = QuantumCircuit(2)
    circuit.rz(0.3, 0)
    circuit.sx(0)
    circuit.rz(angle, 0)
    circuit.sx(0)
    circuit.cx(0, 1)
    circuit.measure_all()
    values = np.array([[[0.0]], [[np.pi]]])
    job = kind(mode=client.backend("ibm_loop")).run([(circuit, values), ones(4)], shots=64)
    swept, plain = job.result(timeout=20, poll_interval=0.1)
    assert swept.data.meas.shape == (2, 1)
    assert swept.data.meas.get_counts((0, 0)) == {"11": 64}
    assert swept.data.meas.get_counts((1, 0)) == {"00": 64}
    assert plain.data.meas.get_counts() == {"10000": 64}
    assert ibm.journal("accepted")[0]["executions"] == 3 * 64


def test_twirled_executor_jobs_are_put_right_by_the_client(client: Any) -> None:
    twirled = Sampler(mode=client.backend("ibm_loop"))
    twirled.options.twirling.enable_measure = True
    job = twirled.run([ones(1, 2)], shots=64)
    assert counts(job) == {"00110": 64}


def test_results_survive_pickling(client: Any) -> None:
    for kind in (SamplerV2, Sampler):
        result = kind(mode=client.backend("ibm_loop")).run([ones(0)], shots=5).result(poll_interval=0.1)
        again = pickle.loads(pickle.dumps(result))
        assert again[0].data.meas.get_counts() == {"00001": 5}


def test_tags_privacy_and_time_limit_travel_with_the_submission(client: Any, ibm: IbmService) -> None:
    ibm.script(hold_queue=True)
    primitive = sampler(client.backend("ibm_loop"), private=True)
    primitive.options.max_execution_time = 100
    mine = primitive.run([ones(0)])
    SamplerV2(mode=client.backend("ibm_loop")).run([ones(0)])
    found = client.jobs(job_tags=[TAG], limit=200)
    assert [(job.job_id(), job.tags, job.private) for job in found] == [(mine.job_id(), [TAG], True)]
    accepted = ibm.journal("accepted")
    assert [(job["tags"], job["private"], job["cost"]) for job in accepted] == [
        ([TAG], True, 100),
        ([], False, None),
    ]
    assert mine.inputs == {}
    mine.update_tags(["other"])
    assert client.jobs(job_tags=[TAG]) == []
    ibm.script(hold_queue=False)
    assert counts(mine) == {"00001": 4096}
    assert mine.result() is None  # a private result is read once


def test_states_follow_the_queue(client: Any, ibm: IbmService) -> None:
    ibm.script(hold_running=True)
    first, second = (sampler(client.backend("ibm_loop")).run([ones(0)], shots=9) for _ in range(2))
    ibm.wait_for_state("Running", first.job_id())
    assert (first.status(), second.status()) == ("RUNNING", "QUEUED")
    assert second.metrics()["position_in_queue"] == 1
    assert client.backend("ibm_loop").status().pending_jobs == 2
    assert {job.job_id() for job in client.jobs(pending=True)} == {first.job_id(), second.job_id()}
    ibm.script(hold_running=False)
    ibm.wait_for_state("Completed", second.job_id())
    assert (first.status(), second.status()) == ("DONE", "DONE")
    assert client.job(first.job_id()).result()[0].data.meas.get_counts() == {"00001": 9}
    assert (ibm.state()["peak_pending"], ibm.state()["peak_running"]) == (2, 1)
    moves = [(event["before"], event["state"]) for event in ibm.journal("state")]
    assert moves == [("Queued", "Running"), ("Running", "Completed")] * 2


def test_cancelled_jobs_have_no_result(client: Any, ibm: IbmService) -> None:
    ibm.script(hold_queue=True)
    job = sampler(client.backend("ibm_loop")).run([ones(0)])
    job.cancel()
    assert client.job(job.job_id()).status() == "CANCELLED"
    with pytest.raises(RuntimeInvalidStateError, match="was cancelled"):
        job.result()
    with pytest.raises(RuntimeInvalidStateError, match="cannot be cancelled"):
        job.cancel()
    assert ibm.state()["runs"] == {}


def test_cancelling_a_batch_cancels_what_waits_in_it(client: Any, ibm: IbmService) -> None:
    ibm.script(hold_running=True)
    batch = Batch(backend=client.backend("ibm_loop"))
    running, waiting = (sampler(batch).run([ones(0)], shots=3) for _ in range(2))
    ibm.wait_for_state("Running", running.job_id())
    batch.cancel()
    assert (running.status(), waiting.status()) == ("RUNNING", "CANCELLED")
    ibm.script(hold_running=False)
    assert counts(running) == {"00001": 3}
    later = sampler(Batch.from_id(batch.session_id, client))
    with pytest.raises(IBMRuntimeError, match="closed"):
        later.run([ones(0)])


@pytest.mark.parametrize("kind", [SamplerV2, Sampler])
def test_a_broken_circuit_fails_its_whole_job(client: Any, ibm: IbmService, kind: Any) -> None:
    ibm.script(endings=[{"circuit": "c-3"}])
    primitive = kind(mode=client.backend("ibm_loop"))
    good = primitive.run([ones(0, marker="c-2")], shots=2)
    bad = primitive.run([ones(0, marker=f"c-{n}") for n in range(3, 5)], shots=2)
    with pytest.raises(RuntimeJobFailureError, match="a circuit is broken"):
        bad.result(poll_interval=0.1)
    assert bad.status() == "ERROR"
    assert counts(good) == {"00001": 2}
    assert ibm.state()["runs"] == {"c-2": 1, "c-3": 1, "c-4": 1}


def test_jobs_end_as_the_script_says(client: Any, ibm: IbmService) -> None:
    ends = ["too_long", "cancelled", "no_result", "half_result", "fewer_results", "failed"]
    ibm.script(endings=[{"end": end, "tag": end} for end in ends])
    backend = client.backend("ibm_loop")
    jobs = {end: sampler(backend, job_tags=[end]).run([ones(0), ones(1)], shots=4) for end in ends}

    def result(end: str) -> Any:
        return jobs[end].result(timeout=20, poll_interval=0.1)

    with pytest.raises(RuntimeJobMaxTimeoutError, match="1305"):
        result("too_long")
    with pytest.raises(RuntimeInvalidStateError):
        result("cancelled")
    with pytest.raises(RuntimeJobFailureError):
        result("failed")
    assert result("no_result") is None
    assert isinstance(result("half_result"), str)
    assert len(result("fewer_results")) == 1


def test_a_job_beyond_its_own_time_limit_is_stopped(client: Any, ibm: IbmService) -> None:
    ibm.script(usage_s_per_job=50.0)
    primitive = sampler(client.backend("ibm_loop"))
    primitive.options.max_execution_time = 20
    with pytest.raises(RuntimeJobMaxTimeoutError):
        primitive.run([ones(0)]).result(poll_interval=0.1)


def test_usage_is_counted_and_its_limit_warned_of(client: Any, ibm: IbmService) -> None:
    ibm.script(usage_s_per_job=2.0, usage_s_per_execution=0.01, usage_limit_s=5.0)
    primitive = sampler(client.backend("ibm_loop"))
    job = primitive.run([ones(0), ones(1)], shots=100)
    assert job.usage_estimation == {"quantum_seconds": 4.0}
    job.wait_for_final_state(poll_interval=0.1)
    assert job.usage() == 4.0
    assert job.metrics()["usage"]["status"] == "final"
    assert client.usage()["usage_remaining_seconds"] == 1.0
    primitive.run([ones(0)], shots=1).wait_for_final_state(poll_interval=0.1)
    assert client.usage()["usage_limit_reached"] is True
    with pytest.warns(UserWarning, match="usage limit"):
        waits = primitive.run([ones(0)], shots=1)
    assert waits.status() == "QUEUED"
    ibm.script(usage_policy="refuse")
    with (
        pytest.warns(UserWarning, match="usage limit"),
        pytest.raises(IBMRuntimeError, match="Usage exceeds instance limit"),
    ):
        primitive.run([ones(0)], shots=1)


def test_fourth_pending_job_is_refused(client: Any, ibm: IbmService) -> None:
    ibm.script(pending_cap=3, hold_queue=True)
    primitive = sampler(client.backend("ibm_loop"))
    jobs = [primitive.run([ones(0)], shots=1) for _ in range(3)]
    with pytest.raises(IBMRuntimeError, match=r"400.*3458.*Reached maximum number \(3\) of concurrent jobs"):
        primitive.run([ones(0)])
    jobs[0].cancel()
    primitive.run([ones(0)])
    assert ibm.state()["peak_pending"] == 3


def test_limits_are_kept_and_noted(client: Any, ibm: IbmService) -> None:
    ibm.script(max_circuits=2, max_executions=1000)
    primitive = sampler(client.backend("ibm_loop"))
    for circuits, shots, what in ((3, 1, "circuits"), (2, 501, "executions")):
        with pytest.raises(IBMRuntimeError, match=what):
            primitive.run([ones(0)] * circuits, shots=shots)
    ibm.script(max_payload_bytes=100, refuse_above_limits=False)
    primitive.run([ones(0)], shots=1)
    ibm.script(refuse_above_limits=True)
    with pytest.raises(IBMRuntimeError, match="413"):
        primitive.run([ones(0)], shots=1)
    assert [event["what"] for event in ibm.journal("violation")] == [
        "circuits",
        "executions",
        "payload_bytes",
        "payload_bytes",
    ]
    assert len(ibm.state()["jobs"]) == 1


def test_one_request_tells_the_states_of_many_jobs(client: Any, ibm: IbmService) -> None:
    """`service.jobs()` throws the states away that it was told: its jobs ask again, one by one."""
    ibm.script(hold_queue=True)
    primitive = sampler(client.backend("ibm_loop"))
    jobs = [primitive.run([ones(0)], shots=1) for _ in range(12)]
    jobs[0].cancel()
    page = client._get_api_client(INSTANCE).jobs_get(limit=200, job_tags=[TAG])
    states = {job["id"]: job["state"]["status"] for job in page["jobs"]}
    assert states == {job.job_id(): "Queued" for job in jobs[1:]} | {jobs[0].job_id(): "Cancelled"}
    ended = client.jobs(limit=200, job_tags=[TAG], pending=False)
    assert [job.job_id() for job in ended] == [jobs[0].job_id()]
    assert ibm.state()["requests"]["GET /jobs"] == 2


def test_wrong_credentials_are_refused(ibm: IbmService) -> None:
    with pytest.raises(InvalidAccountError, match="valid API token"):
        QiskitRuntimeService(**{**ibm.account(), "token": "no-such-key"})


def test_a_revoked_token_is_refused(client: Any, ibm: IbmService) -> None:
    ibm.script(revoked=True)
    with pytest.raises(IBMNotAuthorizedError):
        client.usage()
    ibm.script(revoked=False)
    assert client.usage()["usage_consumed_seconds"] == 0


def test_an_account_from_the_environment_alone(ibm: IbmService) -> None:
    service = QiskitRuntimeService()
    assert service.active_instance() == INSTANCE
    assert [backend.name for backend in service.backends()] == ["ibm_loop"]


def test_instances_do_not_see_each_others_jobs(client: Any, ibm: IbmService) -> None:
    second = CRN.format("second")
    ibm.script(instances=[INSTANCE, second], hold_queue=True)
    other = QiskitRuntimeService(**{**ibm.account(), "instance": second})
    job = sampler(other.backend("ibm_loop")).run([ones(0)])
    assert client.jobs() == []
    assert [found.job_id() for found in other.jobs()] == [job.job_id()]


def test_many_circuits_are_cheap(client: Any, ibm: IbmService) -> None:
    circuits = [ones(*(q for q in range(5) if n >> q & 1), name=f"c{n}", marker=n) for n in range(500)]
    job = sampler(client.backend("ibm_loop")).run(circuits, shots=100)
    result = job.result(timeout=20, poll_interval=0.1)
    assert [pub.data.meas.get_counts() for pub in result] == [{f"{n % 32:05b}": 100} for n in range(500)]
    assert set(ibm.state()["runs"].values()) == {1}


def test_a_wrong_setting_raises_in_the_test() -> None:
    make: Callable[..., IbmService] = IbmService
    with pytest.raises(TypeError, match="no_such"), make(no_such=1):
        pass


def test_the_process_takes_its_script_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "script.json").write_text('{"api_keys": []}')
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.ibm.service", "--script", str(tmp_path / "script.json")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin is not None and process.stdout is not None
    with process.stdout:
        port = int(process.stdout.readline())
        with pytest.raises(HTTPError, match="400"):
            build_opener(ProxyHandler({})).open(
                Request(f"http://127.0.0.1:{port}/identity/token", data=b"apikey=any"), timeout=10
            )
        process.stdin.close()
        assert process.wait(timeout=30) == 0
