"""Which process is the desk, and for how long it may say so."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ray_qjm.cluster.backend_actor import JobMessage
from ray_qjm.cluster.desk_state import LEASE_S, DeskState, state_root
from ray_qjm.options import RetryPolicy
from ray_qjm.planning.quota import Cost
from ray_qjm.results import lease


@pytest.mark.parametrize("call_s", [1.0, 120.0, 600.0, 86_400.0])
def test_a_desk_may_submit_whatever_the_deadline_of_a_call_is(tmp_path: Path, call_s: float) -> None:
    state = DeskState(str(tmp_path), "desk", call_s)
    assert state.holds()
    state.close()
    assert not state.holds()


def test_a_successor_waits_as_long_as_its_predecessor_may_submit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its own lease is."""
    monkeypatch.setattr(lease, "is_dead", lambda owner: False)
    monkeypatch.setattr(lease, "BEAT_S", 1000.0)  # one that is stopped gives no sign of life
    first = DeskState(str(tmp_path), "desk", 0.5, lease_s=2.0)
    taken = threading.Event()
    found: list[DeskState] = []

    def take() -> None:
        found.append(DeskState(str(tmp_path), "desk", 0.1, lease_s=0.2))
        taken.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not taken.wait(1.5)
    thread.join(30)
    assert not first.holds()
    assert LEASE_S == 180.0
    first.close()
    found[0].close()


def test_the_users_directory_for_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_QJM_STATE", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    assert state_root() == "/elsewhere/ray_qjm"
    monkeypatch.setenv("RAY_QJM_STATE", "s3://lab/desks")
    assert state_root() == "s3://lab/desks"


def test_a_later_task_gets_no_longer_submissions_than_the_lease_allows(tmp_path: Path) -> None:
    state = DeskState(str(tmp_path), "desk", 20.0)
    state.close()
    assert state.longest_call_s == 120.0
    message = JobMessage("t", "a", Cost(1, 10), RetryPolicy(call_s=1000.0), None, {}, (), ())
    assert message.request(state.longest_call_s).retry.call_s == 120.0
    assert message.request(2000.0).retry.call_s == 1000.0
