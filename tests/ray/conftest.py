"""One Ray for all tests that can share it: two CPUs, no dashboard, token authentication as Ray has it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import ray


@pytest.fixture(scope="session")
def shared_ray() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def _connected(request: pytest.FixtureRequest) -> None:
    """Tests marked ``own_ray`` start Ray as they need it; all others use the shared one."""
    if request.node.get_closest_marker("own_ray") is None:
        request.getfixturevalue("shared_ray")
