"""Objects of a store that doesn't answer as it should."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import obstore
import pytest
import stamina
from obstore.exceptions import GenericError

from ray_qjm.errors import InvalidInputError, StoreUnavailableError
from ray_qjm.results.objects import Objects


def fails(monkeypatch: pytest.MonkeyPatch, reason: str, times: int) -> list[str]:
    """Reading fails so often, in this thread; the list has a word for each time."""
    asked: list[str] = []
    get, here = obstore.get, threading.current_thread()

    def answer(*arguments: Any) -> Any:
        if threading.current_thread() is not here:  # another test's task may still give signs of life
            return get(*arguments)
        asked.append("asked")
        if len(asked) <= times:
            raise GenericError(f"Generic LocalFileSystem error: {reason}\n\nDebug source: ...")
        return get(*arguments)

    monkeypatch.setattr(obstore, "get", answer)
    return asked


@pytest.mark.parametrize(
    "reason", ["Permission denied (os error 13)", "Operation not permitted (os error 1)"]
)
def test_what_wont_pass_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked = fails(monkeypatch, f"Unable to open file x: {reason}", 1000)
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError, match=reason.partition(" (")[0]):
        Objects(tmp_path).read("x")
    assert len(asked) == 1 and time.monotonic() - began < 30 and caplog.records == []


def test_what_may_pass_is_told_once_in_our_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "x").write_bytes(b"1")
    asked = fails(monkeypatch, "Input/output error (os error 5)", 2)
    assert Objects(tmp_path).read("x") == b"1" and len(asked) == 3
    (record,) = caplog.records
    assert record.getMessage().endswith("Input/output error (os error 5); asked again for 60 s")


def test_retries_of_others_are_logged_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    for attempt in stamina.retry_context(on=KeyError, wait_initial=0, wait_jitter=0):
        with attempt:
            if attempt.num == 1:
                raise KeyError
    assert [record.name for record in caplog.records] == ["stamina"]


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(InvalidInputError, match="x is a file, not a directory"):
        Objects(tmp_path / "x", make=False)
