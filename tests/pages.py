"""The pages of the documentation as programs: their blocks of Python, and what these print.

In a page, a fence ``python`` is run; ``text title="Output"`` right after it is what it prints (``...`` stands for
anything, as in doctests). A comment on the line before a fence says what is special about it::

    <!-- not run: needs an account at IBM -->
    <!-- warns: PartialResultWarning -->
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<ticks>`{3,})(?P<info>[^`\n]*)$")
_NOTE = re.compile(r"<!-- (not run|warns): (\S.*) -->")
PYTHON = "python"
OUTPUT = 'text title="Output"'


@dataclass
class Block:
    """A fenced block of a page.

    Attributes:
        info: What stands behind its backticks.
        text: What stands in it.
        line: Number of the first line of ``text``, from 1.
        indented: Whether it belongs to a list or a box.
        note: Kind and text of the comment before it.
        prints: What a block of Python prints; ``None``: the page doesn't say.
    """

    info: str
    text: str
    line: int
    indented: bool
    note: tuple[str, str] | None = None
    prints: str | None = None

    def code(self, name: str) -> str:
        """Its text, moved so that line numbers are those of the page.

        Raises:
            SyntaxError: It is no Python.
        """
        moved = "\n" * (self.line - 1) + self.text
        compile(moved, name, "exec")
        return moved


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, what they print put to those of Python.

    Raises:
        ValueError: A block has no end, or an output nothing that prints it.
    """
    lines = page.read_text(encoding="utf-8").splitlines()
    found: list[Block] = []
    at = 0
    while at < len(lines):
        begin = _FENCE.match(lines[at])
        at += 1
        if begin is None:
            continue
        first = at
        while at < len(lines) and lines[at].strip() != begin["ticks"]:
            at += 1
        if at == len(lines):
            raise ValueError(f"{page.name}, line {first}: the block has no end")
        note = _NOTE.fullmatch(lines[first - 2].strip()) if first > 1 else None
        text = "".join(f"{line}\n" for line in lines[first:at])
        block = Block(begin["info"].strip(), text, first + 1, bool(begin["indent"]))
        block.note = None if note is None else (note[1], note[2])
        at += 1
        if block.info == OUTPUT:
            if not found or found[-1].info != PYTHON or found[-1].prints is not None:
                raise ValueError(f"{page.name}, line {first}: no block of Python prints this output")
            found[-1].prints = text
        else:
            found.append(block)
    return found


def programs(page: Path) -> list[Block]:
    """The blocks of Python among them."""
    return [block for block in blocks(page) if block.info == PYTHON]


def name_of(page: Path) -> str:
    """What a page is called in tests."""
    return page.relative_to(ROOT).as_posix()
