"""The examples of the documentation, run page by page as a reader would: all blocks of a page, one after the other."""

from __future__ import annotations

import contextlib
import doctest
import io
import linecache
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import ray
from ray.util import list_named_actors

from ray_qjm.cluster.backend_actor import NAMESPACE
from ray_qjm.cluster.desk_state import VARIABLE
from tests.pages import PAGES, Block, name_of, programs

_SAME = doctest.OutputChecker()
_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
WITH_PROGRAMS = [page for page in PAGES if programs(page)]


@pytest.fixture
def _reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A reader's empty directory; the desks that begin in it end with it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "desks"))
    before = _desks()
    with matplotlib.rc_context({"backend": "agg"}):
        yield
    for name in _desks() - before:
        with contextlib.suppress(ValueError):
            ray.kill(ray.get_actor(name, NAMESPACE), no_restart=True)


def _desks() -> set[str]:
    return {
        actor["name"] for actor in list_named_actors(all_namespaces=True) if actor["namespace"] == NAMESPACE
    }


@pytest.mark.parametrize("page", WITH_PROGRAMS, ids=name_of)
@pytest.mark.usefixtures("_reader")
def test_examples_run_and_print_what_the_page_shows(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, found = name_of(page), programs(page)
    # Functions that readers write have source text, which a store asks for: here the page with nothing else in it.
    lines = [""] * max(block.line + block.text.count("\n") for block in found)
    for block in found:
        lines[block.line - 1 : block.line - 1 + block.text.count("\n")] = block.text.splitlines()
    source = [f"{line}\n" for line in lines]
    monkeypatch.setitem(linecache.cache, name, (sum(map(len, source)), None, source, name))
    # As in a script: what it defines is sent to workers by value.
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in found:
        if block.note is None or block.note[0] != "not run":
            _run(block, name, namespace)


def _run(block: Block, name: str, namespace: dict[str, Any]) -> None:
    sink = io.StringIO()
    warns = block.note[1] if block.note is not None and block.note[0] == "warns" else None
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sink))
        caught = None if warns is None else stack.enter_context(pytest.warns(Warning))
        exec(compile(block.code(name), name, "exec"), namespace)
    assert caught is None or [warning.category.__name__ for warning in caught] == [warns]
    if block.prints is not None:
        got = re.sub(r"(?m)[ \t]+$", "", sink.getvalue())
        if not _SAME.check_output(block.prints, got, _FLAGS):
            example = doctest.Example(block.text, block.prints, lineno=block.line)
            pytest.fail(f"{name}, line {block.line}:\n{_SAME.output_difference(example, got, _FLAGS)}")
