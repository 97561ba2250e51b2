"""All tests here share one Ray, but for those that start their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.process import ServiceProcess
from tests.services.scene import Scene, scene


@pytest.fixture(autouse=True)
def _connected(request: pytest.FixtureRequest) -> None:
    """Tests marked ``own_ray`` start Ray as they need it; all others use the shared one."""
    if request.node.get_closest_marker("own_ray") is None:
        request.getfixturevalue("shared_ray")


@pytest.fixture(scope="session")
def service_processes() -> Iterator[list[ServiceProcess]]:
    """Two services that tests share one after the other."""
    found = [ServiceProcess(), ServiceProcess()]
    yield found
    for service in found:
        service.close()


@pytest.fixture
def services(
    service_processes: list[ServiceProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    """The services, begun anew, and an account of the test's own."""
    with scene(service_processes, tmp_path, monkeypatch) as found:
        yield found
