"""What must stay the same when a stored task goes on."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ray_qjm import TranspileOptions
from ray_qjm.circuits.identity import code_of, of_transpiling
from ray_qjm.errors import InvalidInputError


def compiled(text: str, tmp_path: Any, name: str) -> Callable[..., Any]:
    """The value of ``f`` after running a file, whose text can be read later."""
    path = tmp_path / name
    path.write_text(text)
    space: dict[str, Any] = {"keep": lambda f, **_: f}
    exec(compile(text, str(path), "exec"), space)
    found: Callable[..., Any] = space["f"]
    return found


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("f = keep(lambda i: i + 1, count=3)\n", "f = keep(lambda i: i + 1, count=3, retry=True)\n", True),
        ("f = keep(lambda i: i + 1)\n", "f = keep(lambda i: i + 2)\n", False),
        (
            "f = keep(\n    lambda i: i + 1,\n    a=1,\n)\n",
            "f = keep(\n    lambda i: i + 1,\n    a=2,\n)\n",
            True,
        ),
        ("f = [lambda i: 1, lambda i: 2][0]\n", "f = [lambda i: 1, lambda i: 2][1]\n", False),
        ("def f(i):\n    return i\n", "def f(i):  # the same\n    return i\n\n", True),
        ("def f(i):\n    return i\n", "def f(i):\n    return i + 1\n", False),
    ],
)
def test_what_is_said_counts_and_not_how(tmp_path: Any, before: str, after: str, same: bool) -> None:
    first = code_of(compiled(before, tmp_path, "a.py"), None, "callable f")
    second = code_of(compiled(after, tmp_path, "b.py"), None, "callable f")
    assert (first == second) is same


@pytest.mark.parametrize("f", [functools.partial(max, 1), max, compiled])
def test_without_text_there_must_be_a_version(f: Any) -> None:
    if f is compiled:
        f = eval("lambda i: i")
    with pytest.raises(InvalidInputError, match="no source text"):
        code_of(f, None, "callable f")
    assert code_of(f, "3", "callable f") == {"version": "3"}


def test_options_become_what_json_keeps() -> None:
    options = {"a": np.int64(3), "b": (1, 2), "c": float("nan"), "d": {1: np.float32(0.5)}, "e": np.arange(3)}
    found = of_transpiling(TranspileOptions(level=2, options=options))
    again = of_transpiling(TranspileOptions(level=2, options={**options, "e": np.arange(3)}))
    assert json.dumps(found) == json.dumps(again) == json.dumps(json.loads(json.dumps(found)))
    other = of_transpiling(TranspileOptions(level=2, options={**options, "e": np.arange(1, 4)}))
    assert json.dumps(found) != json.dumps(other)
