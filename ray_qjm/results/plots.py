"""Pictures of a result that stay readable from one circuit to a million."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ray_qjm.errors import InvalidInputError
from ray_qjm.results.schema import MAX_NARROW_CLBITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from ray_qjm.results.task_result import TaskResult
    from ray_qjm.results.views import CircuitResult

_COLOR = "#2a9d8f"
_REST = "#b8c0cc"
# More points than a screen has columns only make a band: beyond it the picture shows means.
_MAX_POINTS = 1000


def plot_counts(row: CircuitResult, *, max_bars: int = 32, ax: Axes | None = None) -> Axes:
    """Bars of one circuit's counts, in order of outcome.

    Args:
        row: The circuit.
        max_bars: Beyond it only the most frequent outcomes stand alone; the others are one grey bar.
        ax: Where to draw; ``None`` makes a figure.

    Raises:
        CircuitFailedError: The circuit has no counts.
    """
    counts = row.counts()
    shown = dict(sorted(counts.items(), key=lambda item: -item[1])[:max_bars])
    bars = [(bits, count) for bits, count in counts.items() if bits in shown]
    rest = sum(counts.values()) - sum(shown.values())
    labels = [_short(bits) for bits, _ in bars]
    heights = [count for _, count in bars]
    colors = [_COLOR] * len(bars)
    if len(counts) > len(shown):
        labels.append(f"{len(counts) - len(shown):,} others")
        heights.append(rest)
        colors.append(_REST)
    ax = _axes(ax, width=max(4.0, min(12.0, 1.5 + 0.4 * len(labels))))
    ax.bar(range(len(labels)), heights, color=colors, width=0.75)
    longest = max(map(len, labels), default=0)
    turn = longest * len(labels) > 60
    ax.set_xticks(range(len(labels)), labels, rotation=90 if turn else 0, family="monospace", fontsize=9)
    ax.set_ylabel("counts")
    ax.set_title(f"{row.name or f'circuit {row.circuit}'} on {row.backend}, {row.shots:,} shots", fontsize=11)
    return ax


def plot_outcomes(result: TaskResult, *, max_outcomes: int = 32, ax: Axes | None = None) -> Axes:
    """Heat map of relative frequencies: circuits from left to right, outcomes from bottom to top.

    A failed circuit is a gap. Where there are more circuits than columns, a column is the mean of
    neighbours.

    Args:
        result: The circuits; outcomes are numbers, clbit i is bit i.
        max_outcomes: Only the outcomes that are most frequent over all circuits are drawn.
        ax: Where to draw; ``None`` makes a figure.

    Raises:
        InvalidInputError: No circuit has counts of up to 64 clbits.
    """
    long = result.to_long()
    outcome = long.column("outcome")
    narrow = outcome.is_valid()
    values = outcome.filter(narrow).to_numpy()
    if not len(values):
        raise InvalidInputError("there are no counts of circuits of up to 64 clbits to draw.")
    circuits = long.column("circuit").filter(narrow).to_numpy()
    counts = long.column("count").filter(narrow).to_numpy()
    shots = result.column("shots").cast("float64").to_numpy(zero_copy_only=False)
    share = counts / shots[circuits]
    found, codes = np.unique(values, return_inverse=True)
    kept = np.sort(np.argsort(-np.bincount(codes, share), kind="stable")[:max_outcomes])
    place = np.full(len(found), -1)
    place[kept] = np.arange(len(kept))
    cell = _cell(len(result))
    columns = -(-len(result) // cell)
    have = np.bincount(np.unique(circuits) // cell, minlength=columns).astype(np.float64)
    drawn = place[codes] >= 0
    flat = place[codes][drawn] * columns + circuits[drawn] // cell
    heat: NDArray[Any] = np.bincount(flat, share[drawn], minlength=len(kept) * columns).reshape(
        len(kept), columns
    )
    with np.errstate(invalid="ignore"):
        heat = np.where(have > 0, heat / np.maximum(have, 1), np.nan)
    clbits = result.column("clbits").drop_null().to_numpy()
    bits = int(clbits[clbits <= MAX_NARROW_CLBITS].max())
    ax = _axes(ax, width=8.0, height=min(8.0, max(3.0, 1.2 + 0.2 * len(kept))))
    extent = (-0.5, len(result) - 0.5, -0.5, len(kept) - 0.5)
    image = ax.imshow(
        heat, origin="lower", aspect="auto", extent=extent, interpolation="nearest", cmap="viridis", vmin=0
    )
    labels = [_short(format(int(value), f"0{bits}b")) for value in found[kept]]
    ax.set_yticks(range(len(kept)), labels, family="monospace", fontsize=8)
    ax.set_xlabel("circuit")
    ax.set_ylabel("outcome")
    _colorbar(ax, image, "relative frequency")
    return ax


def plot_expectation(
    result: TaskResult, observable: Any, x: str = "circuit", y: str | None = None, *, ax: Axes | None = None
) -> Axes:
    """An expectation value over a sweep: a line over one column, a heat map over two.

    Circuits of equal x (and y) are averaged; failed ones are left out. More than a thousand values
    of a column are gathered in bins.

    Args:
        result: The circuits.
        observable: As for ``TaskResult.expectation``.
        x: A numeric column of the table, such as a sweep's parameter.
        y: Another one, for a heat map.
        ax: Where to draw; ``None`` makes a figure.

    Raises:
        InvalidInputError: A column is missing or not numeric, or the observable is wrong.
    """
    values = result.expectation(observable)
    across = _column(result, x)
    have = ~np.isnan(values) & ~np.isnan(across)
    if y is None:
        places, codes = _bins(across[have])
        ax = _axes(ax, width=7.0)
        style = ".-" if len(places) <= 60 else "-"
        ax.plot(places, _means(codes, values[have], len(places)), style, color=_COLOR, linewidth=1.4)
        ax.set_ylabel(_label(observable))
        ax.axhline(0, color=_REST, linewidth=0.8, zorder=0)
    else:
        upward = _column(result, y)
        have &= ~np.isnan(upward)
        places, codes = _bins(across[have])
        heights, rows = _bins(upward[have])
        heat = _means(rows * len(places) + codes, values[have], len(heights) * len(places))
        ax = _axes(ax, width=6.0, height=4.8)
        limit = max(1.0, float(np.nanmax(np.abs(heat), initial=0.0)))
        mesh = ax.pcolormesh(
            places, heights, heat.reshape(len(heights), len(places)), cmap="RdBu_r", vmin=-limit, vmax=limit,
            shading="nearest", rasterized=True,
        )  # fmt: skip
        ax.set_ylabel(y)
        _colorbar(ax, mesh, _label(observable))
    ax.set_xlabel(x)
    return ax


def _axes(ax: Axes | None, width: float, height: float = 3.6) -> Axes:
    if ax is None:
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError("plots need matplotlib: pip install 'ray-qjm[plots]'") from error
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _colorbar(ax: Axes, drawn: Any, label: str) -> None:
    bar = ax.figure.colorbar(drawn, ax=ax, label=label, pad=0.02)
    outline: Any = bar.outline  # matplotlib 3.10 says that it is a function
    outline.set_visible(False)


def _column(result: TaskResult, name: str) -> NDArray[np.float64]:
    if name not in result.table.column_names:
        raise InvalidInputError(f"no column {name!r}; there are {', '.join(result.table.column_names)}.")
    column = result.table.column(name)
    try:
        if pa.types.is_dictionary(column.type):  # one that is all null could be cast
            raise ValueError
        values: NDArray[np.float64] = column.cast("float64").to_numpy(zero_copy_only=False)
    except (ValueError, NotImplementedError):  # what pyarrow's own errors derive from
        raise InvalidInputError(f"column {name!r} is not numeric.") from None
    return values


def _bins(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The places on an axis, and the place of each value."""
    places, codes = np.unique(values, return_inverse=True)
    if len(places) <= _MAX_POINTS:
        return places, codes
    edges = np.linspace(places[0], places[-1], _MAX_POINTS + 1)
    return (edges[:-1] + edges[1:]) / 2, np.clip(
        np.searchsorted(edges, values, "right") - 1, 0, _MAX_POINTS - 1
    )


def _means(codes: NDArray[np.int64], values: NDArray[np.float64], places: int) -> NDArray[np.float64]:
    number = np.bincount(codes, minlength=places)
    with np.errstate(invalid="ignore"):  # a place without a circuit: 0 / 0 is a gap
        return np.asarray(np.bincount(codes, values, minlength=places) / number, dtype=np.float64)


def _cell(circuits: int) -> int:
    return max(1, -(-circuits // _MAX_POINTS))


def _label(observable: Any) -> str:
    if isinstance(observable, str):
        return f"⟨{observable}⟩"
    if isinstance(observable, (list, tuple)):
        return "⟨" + " ".join(f"Z{clbit}" for clbit in observable) + "⟩"
    return "expectation value"


def _short(bits: str) -> str:
    return bits if len(bits) <= 20 else f"{bits[:8]}…{bits[-8:]}"
