"""What the adapter makes of each thing that goes wrong, and that no submission is sent twice."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from qiskit import QuantumCircuit

from ray_qjm.backends import ibm_session
from ray_qjm.backends.ibm import TAG, IbmAdapter
from ray_qjm.backends.ibm_session import NotSentError
from ray_qjm.planning.verdicts import Verdict
from tests.ibm.script import API_KEY
from tests.ibm.service import IbmService
from tests.ibm.submitting import SUBMIT, adapter, job, ones, wait_until_ended

KINDS = ("executor", "sampler")
USAGE = "GET /instances/usage"


def refused(one: IbmAdapter, tag: str = "t-1", circuit: QuantumCircuit | None = None) -> Verdict:
    """Submit, and say what its error means."""
    with pytest.raises(Exception, match=r".") as raised:
        one.submit(job(tag, ones(0) if circuit is None else circuit))
    verdict = one.classify(raised.value)
    assert API_KEY not in str(verdict)
    assert API_KEY not in str(raised.value)
    return verdict


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", [{"status": 502}, {"status": 503}, {"status": 504}, {"drop": True}])
def test_a_lost_reply_leaves_one_job_that_is_found(ibm: IbmService, kind: Any, fault: Any) -> None:
    one = adapter(sampler=kind)
    ibm.script(faults=[{"on": SUBMIT, "when": "after", **fault}])
    assert refused(one).what == "unknown"
    assert ibm.state()["requests"][SUBMIT] == 1
    assert one.find("t-1") == [told["id"] for told in ibm.state()["jobs"]]
    assert len(one.find("t-1") or []) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "fault", [{"status": 500}, {"status": 502, "code": 1010}, {"drop": True}, {"html": True}]
)
def test_what_was_not_accepted_may_have_been(ibm: IbmService, kind: Any, fault: Any) -> None:
    one = adapter(sampler=kind)
    ibm.script(faults=[{"on": SUBMIT, **fault}])
    assert refused(one).what == "unknown"
    assert ibm.state()["requests"][SUBMIT] == 1
    assert one.find("t-1") == []


def test_a_submission_that_lands_late_is_found_then(ibm: IbmService) -> None:
    one = adapter()
    ibm.script(faults=[{"on": SUBMIT, "when": "late", "delay_s": 0.5}])
    assert refused(one).what == "unknown"
    assert one.find("t-1") == []
    late = ibm.wait_for(lambda event: event["kind"] == "late")
    assert one.find("t-1") == [late["job"]]


def test_a_reply_that_never_comes_is_not_waited_for(ibm: IbmService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ibm_session, "POST_S", 0.3)
    one = adapter()
    ibm.script(faults=[{"on": SUBMIT, "when": "after", "delay_s": 5.0}])
    assert refused(one).what == "unknown"
    assert len(one.find("t-1") or []) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ({"status": 429}, "wait"),
        ({"status": 400, "code": 3458, "message": "Reached maximum number (3) of concurrent jobs"}, "wait"),
        ({"status": 409, "code": 4317, "message": "Usage exceeds instance limit"}, "no credit"),
        ({"status": 409}, "no credit"),
        ({"status": 413}, "split job"),
        ({"status": 400}, "split job"),
        ({"status": 401}, "give up"),
        ({"status": 403}, "give up"),
        ({"status": 404}, "elsewhere"),
        ({"status": 400, "code": 1009}, "elsewhere"),
        ({"status": 400, "code": 1204}, "give up"),
    ],
)
def test_refusals_are_understood(ibm: IbmService, kind: Any, fault: Any, what: str) -> None:
    one = adapter(sampler=kind)
    ibm.script(faults=[{"on": SUBMIT, **fault}])
    assert refused(one).what == what
    assert ibm.state()["requests"][SUBMIT] == 1


def test_the_service_says_how_long_to_wait(ibm: IbmService) -> None:
    one = adapter()
    ibm.script(rate_posts=0, rate_retry_after_s=7.0)
    verdict = refused(one)
    assert (verdict.what, verdict.retry_after_s) == ("wait", 7.0)


def test_limits_of_the_service_itself_are_understood(ibm: IbmService) -> None:
    one = adapter()
    ibm.script(pending_cap=1, hold_queue=True)
    one.submit(job("t-1", ones(0)))
    assert refused(one).what == "wait"
    ibm.script(pending_cap=None, max_payload_bytes=100)
    assert refused(one).what == "split job"


def test_no_credit_is_understood(ibm: IbmService) -> None:
    ibm.script(usage_limit_s=0.0, usage_policy="refuse")
    assert refused(adapter()).what == "no credit"


@pytest.mark.parametrize("route", [USAGE, "GET /backends"])
@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ({"status": 500, "times": 6}, "again"),
        ({"drop": True, "times": 6}, "again"),
        ({"html": True}, "again"),
        ({"status": 400}, "again"),
        ({"status": 429}, "wait"),
        ({"status": 401}, "give up"),
    ],
)
def test_what_fails_before_the_submission_is_not_unknown(
    ibm: IbmService, route: str, fault: Any, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urllib3.util.retry.Retry.sleep", lambda *_: None)  # the client's own waits
    one = adapter()
    ibm.script(faults=[{"on": route, **fault}])
    assert refused(one).what == what
    assert SUBMIT not in ibm.state()["requests"]


def test_gets_are_tried_again(ibm: IbmService) -> None:
    one = adapter()
    ibm.script(
        faults=[{"on": "GET *", "nth": [0, 2], "status": 502}, {"on": "GET *", "nth": [4], "drop": True}]
    )
    job_id = one.submit(job("t-1", ones(0)))
    assert one.find("t-1") == [job_id]
    assert ibm.state()["requests"][SUBMIT] == 1


def test_what_was_held_up_too_long_is_not_sent(ibm: IbmService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wants it has stopped waiting for it by then, and has begun to look whether it is there."""
    monkeypatch.setattr(ibm_session, "HELD_UP_S", 0.2)
    one = adapter()
    ibm.script(faults=[{"on": USAGE, "delay_s": 0.4}])
    assert refused(one).what == "again"
    assert SUBMIT not in ibm.state()["requests"]


def test_a_service_that_is_down_gets_nothing(ibm: IbmService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib3.util.retry.Retry.sleep", lambda *_: None)
    one = adapter()
    for client in one._to.service._get_api_clients().values():
        client._session.base_url = "http://127.0.0.1:9"  # nobody listens at "discard"
    assert refused(one).what == "again"


def test_a_circuit_that_the_client_refuses_splits_its_job(ibm: IbmService) -> None:
    broken = QuantumCircuit(5)
    broken.measure_all()
    with broken.box():
        broken.x(0)
    verdict = refused(adapter(), circuit=broken)
    assert verdict.what == "split job"
    assert SUBMIT not in ibm.state()["requests"]


def test_different_shots_are_refused_by_the_client(ibm: IbmService) -> None:
    one = adapter()
    with pytest.raises(NotSentError):
        one.submit(type(job("t"))([ones(0), ones(1)], [1, 2], "t"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_revoked_token_ends_it(ibm: IbmService, kind: Any) -> None:
    one = adapter(sampler=kind)
    ibm.script(revoked=True)
    verdict = refused(one)
    assert verdict.what == "give up"
    assert "401" in verdict.reason


def test_a_backend_that_is_gone_is_not_tried_again(ibm: IbmService) -> None:
    one = adapter()
    ibm.script(backends=[("ibm_other", "manila")])
    assert refused(one).what == "elsewhere"


def test_a_poll_that_fails_raises(ibm: IbmService) -> None:
    ibm.script(hold_queue=True)
    one = adapter()
    ids = [one.submit(job(f"t-{n}", ones(0))) for n in range(2)]
    for fault in ({"status": 400}, {"html": True}):
        ibm.script(faults=[{"on": "GET /jobs", "nth": [0], **fault}])
        with pytest.raises(Exception, match=r"."):
            one.status(ids)
        assert set(one.status(ids)) == set(ids)


def test_metrics_are_worth_no_failure(ibm: IbmService) -> None:
    ibm.script(faults=[{"on": "GET /jobs/{id}/metrics", "status": 400}], hold_queue=True)
    one = adapter()
    job_id = one.submit(job("t-1", ones(0)))
    assert one.status([job_id])[job_id].state == "submitted"


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_whose_error_quotes_the_key_does_not_hand_it_on(ibm: IbmService, kind: Any) -> None:
    one = adapter(sampler=kind)
    job_id = one.submit(job("t-1", ones(0)))
    wait_until_ended(one, job_id)
    for message, told in ((f"bad key {API_KEY}", "bad key <API key>"), ("no key in it", "no key in it")):
        ibm.script(faults=[{"on": "GET /jobs/{id}/results", "status": 400, "message": message}])
        with pytest.raises(Exception, match=told) as raised:
            one.fetch(job_id)
        shown = "".join(traceback.format_exception(raised.value))
        assert API_KEY not in shown and type(raised.value).__name__ == "RequestsApiError"


def test_a_cancel_is_sent_once(ibm: IbmService) -> None:
    ibm.script(hold_queue=True)
    one = adapter()
    job_id = one.submit(job("t-1", ones(0)))
    ibm.script(faults=[{"on": "POST /jobs/{id}/cancel", "status": 502, "when": "after"}])
    with pytest.raises(Exception, match="502"):
        one.cancel(job_id)
    assert ibm.state()["requests"]["POST /jobs/{id}/cancel"] == 1
    assert one.status([job_id])[job_id].state == "cancelled"


def test_our_tag_is_on_every_job(ibm: IbmService) -> None:
    ibm.script(hold_queue=True)
    one = adapter()
    one.submit(job("t-1", ones(0)))
    assert len(one.find(TAG) or []) == 1
