"""What the unmodified client makes of each fault, and so what adapters will meet."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from qiskit_ibm_runtime import Batch, IBMRuntimeError
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.api.session import STATUS_FORCELIST
from qiskit_ibm_runtime.exceptions import IBMNotAuthorizedError
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from tests.ibm.service import IbmService
from tests.ibm.submitting import DEPRECATED, SUBMIT, TAG, ones, sampler

pytestmark = pytest.mark.filterwarnings(DEPRECATED)


def test_502_after_acceptance_leaves_a_twin(client: Any, ibm: IbmService) -> None:
    """The client takes 502 as leave to send the same POST again, and the caller never learns of the first job."""
    ibm.script(faults=[{"on": SUBMIT, "nth": [0], "status": 502, "when": "after"}])
    job = sampler(client.backend("ibm_loop")).run([ones(0, marker="c")], shots=1)
    twins = client.jobs(job_tags=[TAG], limit=200)
    assert len(twins) == 2
    assert job.job_id() == twins[0].job_id()  # the newest
    assert [event["outcome"] for event in ibm.journal("request") if event["route"] == SUBMIT] == [502, 200]
    for twin in twins:
        twin.wait_for_final_state(poll_interval=0.1)
    assert ibm.state()["runs"] == {"c": 2}


def test_plain_retries_send_a_post_once(client: Any, ibm: IbmService) -> None:
    """How to submit without twins: urllib3's own `Retry` leaves a POST alone, and GETs are retried as before."""
    retry = Retry(total=5, connect=3, backoff_factor=0.5, status_forcelist=STATUS_FORCELIST)
    backend = client.backend("ibm_loop")
    backend._api_client._session.mount("http://", HTTPAdapter(max_retries=retry))
    primitive = sampler(backend)
    ibm.script(
        faults=[
            {"on": SUBMIT, "status": 502, "when": "after"},
            {"on": "GET *", "status": 502, "nth": [0]},
        ]
    )
    with pytest.raises(IBMRuntimeError, match="502"):
        primitive.run([ones(0)], shots=1)
    assert ibm.state()["requests"][SUBMIT] == 1
    assert len(client.jobs(job_tags=[TAG])) == 1


def test_502_after_acceptance_leaves_a_twin_of_a_batch(client: Any, ibm: IbmService) -> None:
    ibm.script(faults=[{"on": "POST /sessions", "nth": [0], "status": 502, "when": "after"}])
    batch = Batch(backend=client.backend("ibm_loop"))
    assert ibm.state()["requests"]["POST /sessions"] == 2
    assert batch.status() == "Pending"


def test_a_lost_reply_looks_like_a_refused_one(client: Any, ibm: IbmService) -> None:
    """Nothing in the exception tells whether the job exists; only its tag does."""
    primitive = sampler(client.backend("ibm_loop"))
    for when, jobs in (("before", 0), ("after", 1)):
        ibm.script(faults=[{"on": SUBMIT, "drop": True, "when": when}])
        with pytest.raises(IBMRuntimeError, match="Connection aborted"):
            primitive.run([ones(0)], shots=1)
        assert len(client.jobs(job_tags=[TAG])) == jobs


def test_a_submission_can_land_late(client: Any, ibm: IbmService) -> None:
    ibm.script(faults=[{"on": SUBMIT, "when": "late", "delay_s": 0.5}])
    with pytest.raises(IBMRuntimeError, match="Connection aborted"):
        sampler(client.backend("ibm_loop")).run([ones(0)], shots=1)
    assert client.jobs(job_tags=[TAG]) == []
    event = ibm.wait_for(lambda event: event["kind"] == "late")
    assert [job.job_id() for job in client.jobs(job_tags=[TAG])] == [event["job"]]


def test_a_delayed_reply_arrives(client: Any, ibm: IbmService) -> None:
    ibm.script(faults=[{"on": SUBMIT, "when": "after", "delay_s": 0.3, "times": 1}])
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(sampler(client.backend("ibm_loop")).run, [ones(0)], shots=1)
        accepted = ibm.wait_for(lambda event: event["kind"] == "accepted")
        assert not coming.done()
        assert coming.result().job_id() == accepted["job"]


@pytest.mark.parametrize(
    ("fault", "raised", "text"),
    [
        ({"status": 429}, IBMRuntimeError, "429"),
        ({"status": 429, "retry_after_s": 1.0}, IBMRuntimeError, "429"),
        ({"status": 409, "code": 4317}, IBMRuntimeError, "4317"),
        ({"status": 413}, IBMRuntimeError, "413"),
        ({"status": 401}, IBMNotAuthorizedError, "401"),
        ({"html": True}, ValueError, "Expecting value"),
    ],
)
def test_what_a_refused_submission_raises(
    client: Any, ibm: IbmService, fault: dict[str, Any], raised: type[Exception], text: str
) -> None:
    primitive = sampler(client.backend("ibm_loop"))
    ibm.script(faults=[{"on": SUBMIT, **fault}])
    with pytest.raises(raised, match=text):
        primitive.run([ones(0)])
    assert ibm.state()["jobs"] == []
    assert ibm.state()["requests"][SUBMIT] == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_before_acceptance_is_retried_by_the_client(
    client: Any, ibm: IbmService, status: int
) -> None:
    ibm.script(faults=[{"on": SUBMIT, "status": status, "nth": [0]}])
    sampler(client.backend("ibm_loop")).run([ones(0)], shots=1)
    assert ibm.state()["requests"][SUBMIT] == 2
    assert len(ibm.state()["jobs"]) == 1


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        ({"status": 429, "retry_after_s": 1.0, "nth": [0]}, None),
        ({"status": 429, "nth": [0]}, RequestsApiError),
        ({"status": 503, "nth": [0]}, None),
        ({"drop": True, "nth": [0]}, None),
        ({"html": True, "nth": [0]}, ValueError),
    ],
)
def test_what_a_failed_poll_raises(
    client: Any, ibm: IbmService, fault: dict[str, Any], raised: type[Exception] | None
) -> None:
    ibm.script(hold_queue=True)
    job = sampler(client.backend("ibm_loop")).run([ones(0)], shots=1)
    ibm.script(faults=[{"on": "GET /jobs/{id}", **fault}])
    if raised is not None:
        with pytest.raises(raised):
            job.status()
    assert job.status() == "QUEUED"
    assert ibm.state()["requests"]["GET /jobs/{id}"] == 2


def test_tags_are_checked_by_the_service_only(client: Any, ibm: IbmService) -> None:
    for tags in (["t"] * 9, ["t" * 87]):
        with pytest.raises(IBMRuntimeError, match="1204"):
            sampler(client.backend("ibm_loop"), job_tags=tags).run([ones(0)])


def test_posts_above_the_rate_are_refused(client: Any, ibm: IbmService) -> None:
    ibm.script(rate_posts=1, rate_window_s=60.0)
    primitive = sampler(client.backend("ibm_loop"))
    primitive.run([ones(0)], shots=1)
    with pytest.raises(IBMRuntimeError, match=r"429.*Too many requests"):
        primitive.run([ones(0)], shots=1)


def test_the_same_seed_gives_the_same_faults(client: Any, ibm: IbmService) -> None:
    def outcomes() -> list[Any]:
        ibm.reset(seed=5, faults=[{"on": SUBMIT, "status": 429, "chance": 0.5}])
        for _ in range(12):
            try:
                primitive.run([ones(0)], shots=1)
            except IBMRuntimeError:
                continue
        return [event["outcome"] for event in ibm.journal("request") if event["route"] == SUBMIT]

    primitive = sampler(client.backend("ibm_loop"))
    first = outcomes()
    assert set(first) == {200, 429}
    assert outcomes() == first
