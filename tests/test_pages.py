"""The documentation as text: each block of Python is one that runs, or says why not; the site can be built."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import ray_qjm
from ray_qjm import errors
from tests.pages import PAGES, PYTHON, ROOT, blocks, name_of, programs

#: What a browser loads by itself, by the attribute that says from where.
LOADED = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_of_python_can_be_collected(page: Path) -> None:
    for block in blocks(page):
        where = f"{name_of(page)}, line {block.line}"
        assert not re.match(r"py|\{", block.info) or block.info == PYTHON, (
            f"{where}: {block.info!r} isn't run"
        )
        if block.info == PYTHON:
            assert not block.indented, f"{where}: an indented block isn't run"
            block.code(name_of(page))
        else:
            assert block.note is None, f"{where}: the note is for blocks of Python"


def test_few_blocks_are_not_run() -> None:
    all_blocks = [block for page in PAGES for block in programs(page)]
    left_out = [block for block in all_blocks if block.note is not None and block.note[0] == "not run"]
    assert len(all_blocks) > 40
    assert len(left_out) <= len(all_blocks) / 10


def test_block_without_end_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1)\n")
    with pytest.raises(ValueError, match="no end"):
        blocks(page)


def test_output_belongs_to_the_block_before_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        '<!-- warns: UserWarning -->\n```python\nprint(1)\n```\n\n```text title="Output"\n1\n```\n'
    )
    (block,) = blocks(page)
    assert (block.prints, block.line, block.note) == ("1\n", 3, ("warns", "UserWarning"))
    page.write_text('```text title="Output"\n1\n```\n')
    with pytest.raises(ValueError, match="no block of Python"):
        blocks(page)


def test_reference_has_every_public_name() -> None:
    shown = {
        name
        for page in PAGES
        for name in re.findall(r"^::: ([\w.]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    public = {f"ray_qjm.{name}" for name in ray_qjm.__all__ if name != "errors"}
    raised = {f"ray_qjm.errors.{name}" for name, kind in vars(errors).items() if _is_public_error(name, kind)}
    assert public <= shown
    assert raised <= shown


def _is_public_error(name: str, kind: object) -> bool:
    return not name.startswith("_") and isinstance(kind, type) and kind.__module__ == errors.__name__


class _Loads(HTMLParser):
    """Collects what a page makes a browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and values.get("rel") in ("canonical", "next", "prev"):
            return
        self.found += [values[LOADED[tag]] or ""] if LOADED.get(tag) in values else []


def test_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        check=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        loads = _Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert loads.found
        assert [address for address in loads.found if re.match(r"(?:https?:)?//", address)] == []
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(?:https?:)?//", style.read_text(encoding="utf-8"))
