"""What the package lists is there, and costs nothing before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ray_qjm


def test_every_public_name_is_there() -> None:
    for name in ray_qjm.__all__:
        assert getattr(ray_qjm, name) is not None
        assert name in dir(ray_qjm)
    assert set(ray_qjm._HOME_OF) == set(ray_qjm.__all__) - {"errors"}


def test_a_name_that_isnt() -> None:
    with pytest.raises(AttributeError, match="module 'ray_qjm' has no attribute 'runn'"):
        ray_qjm.runn  # noqa: B018


@pytest.mark.parametrize("module", ["ray_qjm", "ray_qjm.frontends.cli.program", "ray_qjm.results.watch"])
def test_ray_and_qiskit_arent_imported_before_they_are_needed(module: str) -> None:
    code = f"import {module}, sys; print([name for name in ('ray', 'qiskit') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
