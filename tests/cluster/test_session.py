"""The connection to Ray, as far as it needs none."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ray_qjm.cluster.session import private_token
from ray_qjm.frontends.cli import credentials


def test_a_token_that_ray_makes_is_for_its_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray makes it with the umask, and what is there already is the user's affair: `doctor` tells of it."""
    setup = pytest.importorskip("ray._private.authentication.authentication_token_setup")
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(variable, raising=False)
    with private_token():
        pass  # a Ray that makes none
    with private_token():
        setup.generate_and_save_token()
    path = tmp_path / ".ray" / "auth_token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert credentials.ray_token() == credentials.Found(True, f"in {path}")
    path.chmod(0o644)
    with private_token():
        pass
    assert credentials.ray_token() == credentials.Found(
        False, f"in {path}, which other users here may read: chmod 600 {path}"
    )
