"""The service for tests, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from qiskit_ibm_runtime import QiskitRuntimeService

from tests.ibm.service import IbmService


@pytest.fixture(scope="module")
def running_service() -> Iterator[IbmService]:
    with IbmService() as ibm:
        yield ibm


@pytest.fixture
def ibm(running_service: IbmService, monkeypatch: pytest.MonkeyPatch) -> Iterator[IbmService]:
    """The service as new; the environment leads to it."""
    running_service.reset()
    for name, value in running_service.environment().items():
        monkeypatch.setenv(name, value)
    yield running_service
    assert running_service.journal("broken") == []


@pytest.fixture
def client(ibm: IbmService) -> QiskitRuntimeService:
    return QiskitRuntimeService(**ibm.account())
