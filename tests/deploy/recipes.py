"""The files in ``deploy/``, read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30
#: Bytes of a worker process that simulates; 0.36 GiB were seen after 18,000 circuits.
PROCESS = 0.4 * GIB


def launcher() -> dict[str, Any]:
    """``cluster.yaml``."""
    found: dict[str, Any] = yaml.safe_load(_text("cluster.yaml"))
    return found


def kuberay() -> dict[str, dict[str, Any]]:
    """The documents of ``kuberay.yaml`` by kind."""
    return {document["kind"]: document for document in yaml.safe_load_all(_text("kuberay.yaml"))}


def constraints(python: str) -> list[str]:
    """What is installed with a Python."""
    return (ROOT / "constraints" / f"{python}.txt").read_text(encoding="utf-8").splitlines()


def _text(name: str) -> str:
    return (ROOT / "deploy" / name).read_text(encoding="utf-8")
