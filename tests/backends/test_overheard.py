"""What a client says, without what isn't meant for others."""

from __future__ import annotations

import logging
import warnings

import pytest

from ray_qjm.backends.overheard import Overheard, struck

KEY = "key/of+someone-1234567"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"bad key {KEY}, {KEY}!", "bad key <API key>, <API key>!"),
        ("at https://x/?key=key%2Fof%2Bsomeone-1234567", "at https://x/?key=<API key>"),
        (f"cut in the middle: {KEY[:12]}...", "cut in the middle: <API key>..."),
        (f"cut before it says much: {KEY[:3]}...", "cut before it says much: key..."),
        ("'Authorization': 'Bearer eyJhbGci.eyJzdWIi.c2ln-_A='", "'Authorization': 'Bearer <token>'"),
        ("the bearer is known", "the bearer is known"),
    ],
)
def test_secrets_are_struck_out(text: str, left: str) -> None:
    assert struck(text, KEY) == left


def test_where_nothing_is_secret_nothing_is_struck_out() -> None:
    assert struck("as it is", "") == "as it is"


@pytest.mark.parametrize("kind", [UserWarning, DeprecationWarning])
def test_warnings_are_logged_without_secrets(kind: type[Warning], caplog: pytest.LogCaptureFixture) -> None:
    heard = Overheard("some_client")
    heard.keep_out(KEY)
    heard.keep_out("")  # an account without a key
    with caplog.at_level(logging.DEBUG, "ray_qjm"), heard:
        warnings.warn_explicit(f"bad key {KEY}", kind, "/lib/some_client/api.py", 1, module="some_client.api")
    assert [record.getMessage() for record in caplog.records] == [f"{kind.__name__}: bad key <API key>"]
