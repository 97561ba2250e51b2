"""The program in the tests' own process, where no other is needed; files as a user has them."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ray_qjm.cluster.session import Wish, wish
from ray_qjm.frontends.cli.program import program

_CIRCUITS = '''
import functools
import os
import time

from qiskit import QuantumCircuit

import widths


@functools.lru_cache
def empty(bits):
    return QuantumCircuit(bits, bits)


def binary(index):
    """Measures its number."""
    circuit = empty(widths.BITS).copy()
    for bit in range(widths.BITS):
        if index >> bit & 1:
            circuit.x(bit)
    circuit.measure(range(widths.BITS), range(widths.BITS))
    return circuit


def slow(index):
    """Whoever is to stop it has the time, until there is a file that says go on."""
    time.sleep(0.3 if index >= 60 and not os.path.exists(GO) else 0.01)
    return binary(index)


def broken(index):
    if 3 <= index < 6:
        raise FileNotFoundError("no calibration")
    return binary(index)


def hopeless(index):
    raise FileNotFoundError("no calibration")


NUMBER = 3
'''


def write_circuits(folder: Path, go: Path) -> None:
    """A file of circuits, and a module beside it."""
    (folder / "circuits.py").write_text(f"GO = {str(go)!r}\n{_CIRCUITS}", encoding="utf-8")
    (folder / "widths.py").write_text("BITS = 8\n", encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the user is: with a file of circuits, and a module beside it."""
    write_circuits(tmp_path, tmp_path / "go")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("RAY_QJM_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = set(sys.modules)
    yield tmp_path
    wish(Wish())
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


Cli = Callable[..., Result]


@pytest.fixture
def cli(folder: Path) -> Cli:
    """Runs a command line, and checks its exit code."""

    def call(line: str, code: int = 0, **more: Any) -> Result:
        found = CliRunner().invoke(program, line.split(), prog_name="ray-qjm", **more)
        assert found.exit_code == code, f"{found.exit_code}: {found.output}"
        return found

    return call


def told(found: Result) -> dict[str, Any]:
    """What it wrote as JSON."""
    values: dict[str, Any] = json.loads(found.stdout)
    return values


def error(found: Result) -> str:
    """What it wrote as its error: one line."""
    lines = [line for line in found.stderr.splitlines() if not line.startswith("ray_qjm: ")]
    assert len(lines) == 1 and lines[0].startswith("ray-qjm: "), found.stderr
    return lines[0]


@pytest.fixture
def closed_port() -> str:
    """A port at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])
