"""What travels to the process that submits: all but the API key."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from qiskit_aer import AerSimulator
from qiskit_ibm_runtime import Batch, QiskitRuntimeService, SamplerV2, Session
from qiskit_ibm_runtime.executor_sampler import Sampler
from qiskit_ibm_runtime.fake_provider import FakeManilaV2

from ray_qjm.backends import ibm_session
from ray_qjm.backends.ibm import IbmAdapter
from ray_qjm.backends.ibm_place import IbmPlace, fits, key_hash
from ray_qjm.errors import BackendLoadError, InvalidInputError
from ray_qjm.options import IbmBackend
from tests.ibm.script import API_KEY, CRN, INSTANCE
from tests.ibm.service import ROOT, IbmService
from tests.ibm.submitting import DEPRECATED, job, ones, wait_until_ended

pytestmark = pytest.mark.filterwarnings(DEPRECATED)


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of accounts that is nobody's."""
    path = tmp_path / "accounts.json"
    monkeypatch.setattr("qiskit_ibm_runtime.accounts.management._DEFAULT_ACCOUNT_CONFIG_JSON_FILE", str(path))
    return path


def test_all_that_a_user_may_give_is_understood(client: Any, ibm: IbmService) -> None:
    backend = client.backend("ibm_loop", use_fractional_gates=None)
    place = IbmPlace.of(backend)
    assert place == IbmPlace(
        "ibm_loop",
        INSTANCE,
        "ibm_quantum_platform",
        ibm.api_url,
        key_hash(API_KEY),
        use_fractional_gates=None,
    )
    assert IbmPlace.of(place) is place
    for kind, name in ((SamplerV2, "sampler"), (Sampler, "executor")):
        given = IbmPlace.of(kind(mode=backend, options={"default_shots": 7}))
        assert (given.sampler, given.options.default_shots, given.mode) == (name, 7, "job")
    for where, mode in ((Batch(backend), "batch"), (Session(backend), "session")):
        for thing in (where, Sampler(mode=where), SamplerV2(mode=where)):
            given = IbmPlace.of(thing)
            assert (given.mode, given.session_id, given.backend) == (mode, where.session_id, "ibm_loop")
    assert IbmPlace.of(IbmBackend("ibm_loop", use_fractional_gates=None)) == place


@pytest.mark.parametrize("given", ["ibm_loop", 3, None, AerSimulator, FakeManilaV2(), QiskitRuntimeService])
def test_what_is_none_of_it_is_refused(given: Any) -> None:
    assert not fits(given)
    with pytest.raises(InvalidInputError, match="no backend of IBM Quantum Platform"):
        IbmPlace.of(given)


@pytest.mark.parametrize("kind", [SamplerV2, Sampler])
def test_a_sampler_that_simulates_is_refused(kind: Any) -> None:
    assert not fits(kind(mode=FakeManilaV2()))
    assert not fits(kind(mode=Batch(FakeManilaV2())))


def test_the_api_key_does_not_travel(client: Any, ibm: IbmService) -> None:
    backend = client.backend("ibm_loop")
    for given in (backend, Sampler(mode=backend), SamplerV2(mode=Batch(backend)), IbmBackend("ibm_loop")):
        place = IbmPlace.of(given)
        for text in (pickle.dumps(place).decode("latin-1"), repr(place), place.identity):
            assert API_KEY not in text
        assert pickle.loads(pickle.dumps(place)) == place
    one = IbmAdapter(IbmPlace.of(backend))
    assert API_KEY not in repr(one._to)


def test_identity_tells_accounts_and_backends_apart(
    client: Any, ibm: IbmService, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = CRN.format("second")
    ibm.script(instances=[INSTANCE, second], backends=[("ibm_loop", "manila"), ("ibm_two", "lima")])
    here = IbmPlace.of(client.backend("ibm_loop")).identity
    assert here == IbmPlace.of(IbmBackend("ibm_loop")).identity
    other = QiskitRuntimeService(**{**ibm.account(), "instance": second})
    others = {
        IbmPlace.of(client.backend("ibm_two")).identity,
        IbmPlace.of(other.backend("ibm_loop")).identity,
        IbmPlace.of(IbmBackend("ibm_loop", instance="first")).identity,
    }
    monkeypatch.setenv("QISKIT_IBM_TOKEN", "another key")
    others.add(IbmPlace.of(IbmBackend("ibm_loop")).identity)
    assert len(others - {here}) == 4


def test_another_process_connects_with_its_own_key(client: Any, ibm: IbmService, tmp_path: Path) -> None:
    place = IbmPlace.of(Sampler(mode=client.backend("ibm_loop"), options={"max_execution_time": 77}))
    (tmp_path / "place").write_bytes(pickle.dumps(place))
    code = (
        "import pickle, sys\n"
        "from ray_qjm.backends.ibm import IbmAdapter\n"
        "from tests.ibm.submitting import job, ones\n"
        "place = pickle.loads(open(sys.argv[1], 'rb').read())\n"
        "print(IbmAdapter(place).submit(job('t-1', ones(0))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "place")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    job_id = done.stdout.strip()
    assert ibm.journal("accepted")[0]["cost"] == 77
    one = IbmAdapter(place)
    assert one.find("t-1") == [job_id]
    assert wait_until_ended(one, job_id).state == "done"
    assert len(one.fetch(job_id)) == 1


def test_a_key_that_only_the_driver_has_is_an_error(
    ibm: IbmService, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ibm.script(api_keys=[API_KEY, "second key"])
    service = QiskitRuntimeService(**{**ibm.account(), "token": "second key"})
    place = IbmPlace.of(service.backend("ibm_loop"))
    with pytest.raises(BackendLoadError, match="save the account or set QISKIT_IBM_TOKEN") as raised:
        IbmAdapter(place)
    assert "second key" not in str(raised.value)
    monkeypatch.delenv("QISKIT_IBM_TOKEN")
    with pytest.raises(BackendLoadError, match="save the account or set QISKIT_IBM_TOKEN"):
        IbmAdapter(place)


def test_a_key_that_is_saved_under_any_name_is_found(ibm: IbmService, saved: Path) -> None:
    ibm.script(api_keys=[API_KEY, "second key"])
    QiskitRuntimeService.save_account(
        token="second key", url=ibm.api_url, instance=INSTANCE, name="two", filename=str(saved)
    )
    service = QiskitRuntimeService(name="two", filename=str(saved))
    one = IbmAdapter(IbmPlace.of(service.backend("ibm_loop")))
    assert one._to.service.active_account()["token"] == "second key"
    one.submit(job("t-1", ones(0)))


def test_a_wrong_key_is_told_without_it(ibm: IbmService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QISKIT_IBM_TOKEN", "no-such-key")
    with pytest.raises(BackendLoadError, match=r"InvalidAccountError.*valid API token") as raised:
        IbmAdapter(IbmPlace.of(IbmBackend("ibm_loop")))
    assert "no-such-key" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_revoked_token_is_told(ibm: IbmService) -> None:
    place = IbmPlace.of(IbmBackend("ibm_loop"))
    ibm.script(revoked=True)
    with pytest.raises(BackendLoadError, match="can't connect to ibm_loop") as raised:
        IbmAdapter(place)
    assert API_KEY not in str(raised.value)


def test_a_service_that_says_nothing_is_not_waited_for(
    ibm: IbmService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ibm_session, "CONNECTED_S", 0.5)
    ibm.script(faults=[{"on": "GET /backends", "delay_s": 2.0}])
    with pytest.raises(BackendLoadError, match=r"no answer in 0\.5 s"):
        IbmAdapter(IbmPlace.of(IbmBackend("ibm_loop")))


def test_no_account_at_all_is_told(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QISKIT_IBM_TOKEN", raising=False)
    place = IbmPlace.of(IbmBackend("ibm_loop"))
    assert place.key is None
    with pytest.raises(BackendLoadError, match="no account of IBM Quantum Platform is known"):
        IbmAdapter(place)


def test_an_instance_or_backend_that_is_not_there_is_told(ibm: IbmService) -> None:
    with pytest.raises(BackendLoadError, match=r"can't connect to ibm_none .*No backend matches"):
        IbmAdapter(IbmPlace.of(IbmBackend("ibm_none")))
    with pytest.raises(BackendLoadError, match="does not have access"):
        IbmAdapter(IbmPlace.of(IbmBackend("ibm_loop", instance=CRN.format("other"))))


def test_without_an_instance_the_one_that_has_the_backend_is_taken(
    ibm: IbmService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("QISKIT_IBM_INSTANCE")
    ibm.script(instances=[INSTANCE, CRN.format("second")])
    one = IbmAdapter(IbmPlace.of(IbmBackend("ibm_loop")))
    assert len(one._to.service._get_api_clients()) == 1
    one.submit(job("t-1", ones(0)))
    assert ibm.journal("accepted")[0]["instance"] == INSTANCE


def test_a_url_of_ones_own_is_used(ibm: IbmService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QISKIT_IBM_URL", "http://127.0.0.1:9/experimental")
    one = IbmAdapter(IbmPlace.of(IbmBackend("ibm_loop", url=ibm.api_url)))
    one.submit(job("t-1", ones(0)))
