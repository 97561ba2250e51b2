"""The adapter against the service, without faults: submitting, asking, fetching, in every mode."""

from __future__ import annotations

import logging
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister

from ray_qjm.backends.base import Adapter
from ray_qjm.backends.ibm import LIMITS, QUEUE_S, TAG, IbmAdapter
from ray_qjm.backends.ibm_jobs import seen
from ray_qjm.backends.ibm_place import IbmPlace
from ray_qjm.backends.pub_bits import decode
from ray_qjm.backends.readings import TRIES, UnreadResultError
from ray_qjm.errors import BackendLoadError, BackendResultError
from ray_qjm.options import IbmBackend
from tests.ibm.service import IbmService
from tests.ibm.submitting import adapter, job, ones, wait_until_ended

KINDS = ("executor", "sampler")


def counts(one: IbmAdapter, job_id: str, circuits: int = 1) -> list[dict[str, int]]:
    found = decode(one.fetch(job_id), [[("meas", range(5))]] * circuits, [5] * circuits)
    return [dict(answer.counts or {}) for answer in found]


def test_it_keeps_the_protocol(ibm: IbmService) -> None:
    assert isinstance(adapter(), Adapter)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["job", "batch", "session"])
def test_jobs_run_in_every_mode(ibm: IbmService, kind: Any, mode: Any) -> None:
    one = adapter(sampler=kind, mode=mode)
    ids = [one.submit(job("t-1", ones(0), ones(1, 3))), one.submit(job("t-2", ones(2)))]
    for job_id in ids:
        wait_until_ended(one, job_id)
    assert counts(one, ids[0], 2) == [{"0x1": 50}, {"0xa": 50}]
    assert counts(one, ids[1]) == [{"0x4": 50}]
    accepted = ibm.journal("accepted")
    assert {event["program"] for event in accepted} == {"executor" if kind == "executor" else "sampler"}
    assert [event["tags"] for event in accepted] == [[TAG, "t-1"], [TAG, "t-2"]]
    sessions = {event["session"] for event in accepted}
    assert len(sessions) == 1  # opened by the first job, for all
    assert (sessions == {None}) == (mode == "job")
    one.close()
    later = one.submit(job("t-3", ones(0)))  # goes to a new one
    assert (ibm.journal("accepted")[-1]["session"] in sessions) == (mode == "job")
    wait_until_ended(one, later)


def test_the_newer_sampler_is_the_default(ibm: IbmService) -> None:
    adapter().submit(job("t-1", ones(0)))
    assert ibm.journal("accepted")[0]["program"] == "executor"


@pytest.mark.parametrize("mode", ["batch", "session"])
def test_a_session_of_the_user_is_used_and_left_open(client: Any, ibm: IbmService, mode: str) -> None:
    from qiskit_ibm_runtime import Batch, Session
    from qiskit_ibm_runtime.executor_sampler import Sampler

    opened = {"batch": Batch, "session": Session}[mode](backend=client.backend("ibm_loop"))
    one = IbmAdapter(IbmPlace.of(Sampler(mode=opened)))
    one.submit(job("t-1", ones(0)))
    assert ibm.journal("accepted")[0]["session"] == opened.session_id
    one.close()
    assert opened.details()["accepting_jobs"] is True
    opened.close()
    with pytest.raises(Exception, match=r".") as closed:
        one.submit(job("t-2", ones(0)))
    assert one.classify(closed.value).what == "elsewhere"


def test_a_session_of_our_own_that_was_closed_is_opened_anew(ibm: IbmService) -> None:
    one = adapter(mode="batch")
    one.submit(job("t-1", ones(0)))
    first = ibm.journal("accepted")[0]["session"]
    one._mode.get().cancel()
    one._mode.get()._active = True  # somebody else has closed it: this client doesn't know
    with pytest.raises(Exception, match=r".") as closed:
        one.submit(job("t-2", ones(0)))
    assert one.classify(closed.value).what == "again"
    one.submit(job("t-2", ones(0)))
    assert ibm.journal("accepted")[-1]["session"] != first


def test_a_session_that_is_not_there_is_an_error_at_once(ibm: IbmService) -> None:
    with pytest.raises(BackendLoadError, match="batch no-such"):
        IbmAdapter(IbmPlace("ibm_loop", mode="batch", session_id="no-such"))


def test_facts_are_told(client: Any, ibm: IbmService) -> None:
    facts = adapter().facts()
    backend = client.backend("ibm_loop")
    assert (facts.name, facts.limits, facts.mixed, facts.samples) == ("ibm_loop", LIMITS, False, True)
    assert (facts.tagged, facts.recalled) == (True, True)
    assert facts.target.operation_names == backend.target.operation_names
    assert facts.stages == {"translation_method": "ibm_dynamic_circuits"}


def test_own_options_and_tags_are_kept(client: Any, ibm: IbmService) -> None:
    from qiskit_ibm_runtime.executor_sampler import Sampler

    mine = Sampler(mode=client.backend("ibm_loop"))
    mine.options.environment.job_tags = ["mine"]
    mine.options.max_execution_time = 77
    one = IbmAdapter(IbmPlace.of(mine), {"environment": {"private": True}})
    one.submit(job("t-1", ones(0)))
    accepted = ibm.journal("accepted")[0]
    assert (accepted["tags"], accepted["cost"], accepted["private"]) == (["mine", TAG, "t-1"], 77, True)
    assert mine.options.environment.job_tags == ["mine"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"environment": {"job_tags": ["t"] * 7}}, "more than 6 tags"),
        ({"execution": {"meas_type": "kerneled"}}, "meas_type is 'kerneled'"),
        ({"no_such_option": 1}, "no_such_option"),
    ],
)
def test_options_that_cannot_work_are_refused_at_once(ibm: IbmService, options: Any, told: str) -> None:
    with pytest.raises(BackendLoadError, match=told):
        adapter(sampler_options=options)


@pytest.mark.parametrize("kind", KINDS)
def test_tags_do_not_leak_between_threads(ibm: IbmService, kind: Any) -> None:
    ibm.script(hold_queue=True)
    one = adapter(sampler=kind)
    tags = [f"t-{n}" for n in range(8)]
    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda tag: one.submit(job(tag, ones(0))), tags))
    told = {event["job"]: event["tags"] for event in ibm.journal("accepted")}
    assert told == {job_id: [TAG, tag] for job_id, tag in zip(ids, tags, strict=True)}
    assert [one.find(tag) for tag in tags] == [[job_id] for job_id in ids]


def test_no_warning_gets_out_and_none_is_lost(ibm: IbmService, caplog: pytest.LogCaptureFixture) -> None:
    """``SamplerV2`` is deprecated, which is no news; that the credit is used up is."""
    ibm.script(usage_limit_s=1.0)
    one = adapter(sampler="sampler")
    filters, show = list(warnings.filters), warnings.showwarning
    wait_until_ended(one, one.submit(job("t-1", ones(0))))
    waits = one.submit(job("t-2", ones(0)))
    assert one.status([waits])[waits].state == "submitted"
    loud = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert ["usage limit" in message for message in loud] == [True]
    assert (list(warnings.filters), warnings.showwarning) == (filters, show)


def test_one_request_tells_of_many_jobs(ibm: IbmService) -> None:
    ibm.script(hold_running=True)
    one = adapter()
    ids = [one.submit(job(f"t-{n}", ones(0))) for n in range(12)]
    ibm.wait_for_state("Running", ids[0])
    assert {job_id: seen.state for job_id, seen in one.status(ids).items()} == {
        job_id: "running" if job_id == ids[0] else "submitted" for job_id in ids
    }
    requests = ibm.state()["requests"]
    assert (requests["GET /jobs"], requests.get("GET /jobs/{id}", 0)) == (1, 0)
    assert requests["GET /jobs/{id}/metrics"] == 1  # where the first of the queue stands
    before = len(ibm.journal("request"))
    one.status(ids)
    after = [event["route"] for event in ibm.journal("request")[before:]]
    assert after == ["GET /jobs"]


def test_places_in_the_queue_are_asked_for_in_turn(ibm: IbmService) -> None:
    ibm.script(hold_queue=True)
    one = adapter()
    ids = [one.submit(job(f"t-{n}", ones(0))) for n in range(3)]
    told = []
    for _ in range(4):
        told.append(
            {job_id: seen.facts["position"] for job_id, seen in one.status(ids).items() if seen.facts}
        )
        one._queue_asked = {job_id: at - QUEUE_S for job_id, at in one._queue_asked.items()}
    assert told == [{ids[0]: 1}, {ids[1]: 2}, {ids[2]: 3}, {ids[0]: 1}]


def test_a_job_that_is_unknown_is_left_out(ibm: IbmService) -> None:
    ibm.script(hold_queue=True)
    one = adapter()
    here = one.submit(job("t-1", ones(0)))
    assert set(one.status([here, "no-such"])) == {here}
    assert one.status(["no-such"]) == {}


def test_jobs_of_another_process_are_found_without_our_tag(client: Any, ibm: IbmService) -> None:
    ibm.script(hold_queue=True)
    one = adapter()
    ids = [one.submit(job(f"t-{n}", ones(0))) for n in range(2)]
    client.job(ids[0]).update_tags(["renamed"])
    assert set(adapter().status(ids)) == set(ids)


def test_usage_and_times_are_told_at_the_end(ibm: IbmService) -> None:
    ibm.script(usage_s_per_job=2.0, usage_s_per_execution=0.01)
    one = adapter()
    ended = wait_until_ended(one, one.submit(job("t-1", ones(0), ones(1))))
    assert (ended.state, ended.usage_s) == ("done", 3.0)
    assert 0 <= ended.facts["ended"] - ended.facts["started"] < 60


def test_usage_that_is_pending_is_not_told() -> None:
    told = {"state": {"status": "Completed"}}
    usage = {"usage": {"status": "pending", "qpu_charge_time_seconds": 0}}
    assert seen(told, usage).usage_s is None
    assert seen(told, {"usage": {"status": "final", "seconds": 4}}).usage_s == 4.0
    assert seen({"state": {"status": "Thinking"}}).state == "submitted"  # final is only what is known to be


@pytest.mark.parametrize(
    ("end", "state", "what"),
    [
        ({"end": "failed"}, "failed", "split job"),
        ({"end": "failed", "code": 1010, "reason": "backend"}, "failed", "again"),
        ({"end": "failed", "code": 6000, "reason": "too many"}, "failed", "split shots"),
        ({"end": "too_long"}, "failed", "split job"),
        ({"end": "cancelled"}, "cancelled", "again"),
    ],
)
def test_how_jobs_end_is_understood(ibm: IbmService, end: Any, state: str, what: str) -> None:
    ibm.script(endings=[end])
    one = adapter()
    ended = wait_until_ended(one, one.submit(job("t-1", ones(0))))
    assert ended.verdict is not None
    assert (ended.state, ended.verdict.what) == (state, what)
    assert ended.usage_s == 2.0
    if end["end"] == "too_long":
        assert "1305" in ended.verdict.reason


def test_a_cancelled_job_is_seen_as_such(ibm: IbmService) -> None:
    ibm.script(hold_queue=True)
    one = adapter()
    job_id = one.submit(job("t-1", ones(0)))
    one.cancel(job_id)
    assert one.status([job_id])[job_id].state == "cancelled"
    with pytest.raises(Exception, match="409"):
        one.cancel(job_id)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["half_result", "no_result", "fewer_results"])
def test_half_a_result_is_an_error(ibm: IbmService, kind: Any, end: str) -> None:
    ibm.script(endings=[{"end": end}])
    one = adapter(sampler=kind)
    job_id = one.submit(job("t-1", ones(0), ones(1)))
    assert wait_until_ended(one, job_id).state == "done"
    for _ in range(TRIES - 1):  # a reply may have been cut short
        with pytest.raises(UnreadResultError, match=job_id):
            one.fetch(job_id)
    with pytest.raises(BackendResultError, match=f"{job_id}.*, {TRIES} times over"):
        one.fetch(job_id)


def test_a_register_without_bits_costs_nobody_his_counts(ibm: IbmService) -> None:
    empty = QuantumCircuit(QuantumRegister(5), ClassicalRegister(0, "e"), ClassicalRegister(5, "meas"))
    empty.x(2)
    empty.measure(range(5), range(5))
    one = adapter()
    job_id = one.submit(job("t-1", ones(0), empty))
    wait_until_ended(one, job_id)
    meas = [("meas", range(5))]
    found = decode(one.fetch(job_id), [meas, [("e", []), *meas]], [5, 5])
    assert [answer.counts for answer in found] == [{"0x1": 50}, {"0x4": 50}]


def test_every_page_of_a_tag_is_read(ibm: IbmService, monkeypatch: pytest.MonkeyPatch) -> None:
    ibm.script(hold_queue=True)
    one = adapter()
    ids = [one.submit(job("same", ones(0))) for _ in range(7)]
    for size in (1, 2, 3, 7, 8):
        monkeypatch.setattr("ray_qjm.backends.ibm.PAGE", size)
        assert one.find("same") == ids
        assert set(one.status(ids)) == set(ids)


def test_an_ibm_backend_by_name_needs_nothing_else(ibm: IbmService) -> None:
    place = IbmPlace.of(IbmBackend("ibm_loop"))
    wait_until_ended(one := IbmAdapter(place), job_id := one.submit(job("t-1", ones(1))))
    assert counts(one, job_id) == [{"0x2": 50}]
