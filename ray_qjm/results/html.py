"""A result as notebooks show it: how much is done, why the rest isn't, and the first circuits."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from ray_qjm.results.schema import WITH_COUNTS

if TYPE_CHECKING:
    from ray_qjm.results.task_result import TaskResult
    from ray_qjm.results.views import CircuitResult

_COLORS = {"done": "#2a9d8f", "partial": "#e9c46a", "failed": "#d1495b", "cancelled": "#8d99ae"}
_MAX_ROWS = 6
_MAX_OUTCOMES = 4
_MAX_REASONS = 5
_MAX_BITS = 24
_MAX_NAME = 40
_MAX_BACKENDS = 5
# Colours of text and lines come from the page, so that dark notebooks stay readable.
_CELL = "padding:2px 12px 2px 0;text-align:left;border:none;background:none"
_MUTED = "opacity:.65"
_STRIP = "display:flex;gap:2px;height:6px;border-radius:3px;overflow:hidden;margin:6px 0"
_TABLE = "border-collapse:collapse;margin-top:6px;width:100%;font-size:13px"
_REASONS = f"margin:6px 0;padding-left:8px;overflow-wrap:anywhere;border-left:3px solid {_COLORS['failed']}"
_OUTCOME = "display:inline-block;margin-right:12px;white-space:nowrap"


def render(result: TaskResult) -> str:
    """The HTML; its size doesn't depend on the number of circuits."""
    total = len(result)
    states = result.status_counts
    strip = "".join(
        f'<span title="{count} {status}" style="flex:{count} 0 2px;background:{_COLORS[status]}"></span>'
        for status, count in states.items()
    )
    legend = " &nbsp; ".join(
        f'<span style="color:{_COLORS[status]}">&#9632;</span> {count:,} {status}'
        for status, count in states.items()
    )
    backends = [name for name in result.column("backend").unique().to_pylist() if name is not None]
    facts = [
        f"{total:,} circuit{'s' * (total != 1)}",
        f"{result.jobs.num_rows:,} job{'s' * (result.jobs.num_rows != 1)}",
    ]
    more = [f"{len(backends) - _MAX_BACKENDS:,} more"] if len(backends) > _MAX_BACKENDS else []
    shown = [_short(name, _MAX_NAME) for name in backends[:_MAX_BACKENDS]]
    facts += [", ".join(shown + more)] if backends else []
    parts = [
        '<div style="font-family:system-ui,sans-serif;font-size:13px;max-width:640px;line-height:1.5">',
        f'<div><b>TaskResult</b> <span style="{_MUTED}">{" &middot; ".join(facts)}</span></div>',
        f'<div style="{_STRIP}">{strip}</div>',
        f"<div>{legend}</div>",
        _reasons(result),
        _first_rows(result),
        "</div>",
    ]
    return "".join(parts)


def _reasons(result: TaskResult) -> str:
    if not result.failures.num_rows:
        return ""
    lines = result.report().splitlines()[:-1]
    shown = "".join(f"<div>{escape(line)}</div>" for line in lines[:_MAX_REASONS])
    if len(lines) > _MAX_REASONS:
        shown += f'<div style="{_MUTED}">more in .report() and .failures</div>'
    return f'<div style="{_REASONS}">{shown}</div>'


def _first_rows(result: TaskResult) -> str:
    rows = "".join(
        f'<tr style="background:none"><td style="{_CELL}">{row.circuit}</td>'
        f'<td style="{_CELL}">{_short(row.name or "", _MAX_NAME)}</td>'
        f'<td style="{_CELL}">{"" if row.shots is None else format(row.shots, ",")}</td>'
        f'<td style="{_CELL};width:100%">{_counts(row)}</td></tr>'
        for row in result[:_MAX_ROWS]
    )
    heads = "".join(
        f'<th style="{_CELL};font-weight:normal;{_MUTED}">{head}</th>'
        for head in ("circuit", "name", "shots", "most frequent outcomes")
    )
    more = len(result) - _MAX_ROWS
    tail = f'<div style="{_MUTED}">and {more:,} more; all of them in .table</div>' if more > 0 else ""
    return f'<table style="{_TABLE}"><tr>{heads}</tr>{rows}</table>{tail}'


def _counts(row: CircuitResult) -> str:
    if row.status not in WITH_COUNTS:
        return f'<span style="color:{_COLORS[row.status]}">{row.status}</span>'
    counts = sorted(row.counts().items(), key=lambda item: -item[1])
    total = sum(count for _, count in counts) or 1
    cells = [
        f'<span style="{_OUTCOME}"><code>{_short(bits, _MAX_BITS)}</code> '
        f'<span style="display:inline-block;height:8px;width:{max(1, round(48 * count / total))}px;'
        f'background:{_COLORS["done"]}"></span> {100 * count / total:.3g}%</span>'
        for bits, count in counts[:_MAX_OUTCOMES]
    ]
    if len(counts) > _MAX_OUTCOMES:
        cells.append(f'<span style="{_MUTED}">+{len(counts) - _MAX_OUTCOMES:,}</span>')
    return "".join(cells)


def _short(text: str, size: int) -> str:
    """The text as HTML, its middle left out where it is long."""
    half = size // 2
    return escape(text if len(text) <= size else f"{text[:half]}…{text[-half:]}")
