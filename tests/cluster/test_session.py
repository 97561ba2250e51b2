"""The connection to Ray, as far as it needs none."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ray_qjm.cluster.session import private_token
from ray_qjm.frontends.cli import credentials


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's, open to all others as it is on many a machine; pytest's own folders aren't."""
    for variable in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(variable, raising=False)
    with TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("HOME", folder)
        yield Path(folder)


def test_a_token_that_ray_makes_is_for_its_user_alone(home: Path) -> None:
    """Ray leaves that to the umask."""
    setup = pytest.importorskip("ray._private.authentication.authentication_token_setup")
    with private_token():
        pass  # a Ray that makes none
    with private_token():
        setup.generate_and_save_token()
    path = home / ".ray" / "auth_token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert credentials.ray_token() == credentials.Found(True, f"in {path}")


def test_doctor_tells_of_a_token_that_others_may_read(home: Path) -> None:
    path = home / ".ray" / "auth_token"
    path.parent.mkdir(0o755)
    path.write_text("secret")
    path.chmod(0o644)
    with private_token():
        pass  # what was there is the user's affair
    told = f"in {path}, which other users here may read: chmod 600 {path}"
    assert credentials.ray_token() == credentials.Found(False, told)
    home.chmod(0o700)
    assert credentials.ray_token() == credentials.Found(True, f"in {path}")
