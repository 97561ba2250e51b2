"""All tests here share one Ray, but for those that start their own."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _connected(request: pytest.FixtureRequest) -> None:
    """Tests marked ``own_ray`` start Ray as they need it; all others use the shared one."""
    if request.node.get_closest_marker("own_ray") is None:
        request.getfixturevalue("shared_ray")
