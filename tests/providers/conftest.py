"""A provider of other people's, where its package is installed, and one Ray for all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.providers.known import PROVIDERS, Provider


@pytest.fixture(params=PROVIDERS, ids=lambda provider: provider.name)
def provider(request: pytest.FixtureRequest) -> Provider:
    """Each in turn; Ray starts with the first that is there."""
    found: Provider = request.param
    pytest.importorskip(found.module, reason=f"{found.name} is not installed")
    request.getfixturevalue("shared_ray")
    request.getfixturevalue("_state")
    return found


@pytest.fixture(scope="session")
def _state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Desks keep their journals here: one that an earlier test has started goes on in the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_QJM_STATE", str(tmp_path_factory.mktemp("desks")))
        yield
