"""Plots draw the numbers of the result; how they look is for eyes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from ray_qjm.errors import CircuitFailedError, InvalidInputError
from ray_qjm.results import TaskResult
from ray_qjm.results.counts import Row
from tests.results.building import failed, result_of

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()  # what can't be drawn fails here, warnings included
    plt.close("all")


def sweep(number: int) -> TaskResult:
    """Clbit 0 is 1 in share theta of 100 shots; every 10th circuit failed."""
    theta = np.linspace(0, 1, number)
    rows = [
        failed(i)
        if i % 10 == 3
        else Row(i, clbits=2, counts={"0x0": 100 - round(100 * t), "0x1": round(100 * t)})
        for i, t in enumerate(theta)
    ]
    extra = {"theta": theta, "side": [i % 4 for i in range(number)], "file": ["x"] * number}
    types = {"theta": "float64", "side": "int64", "file": "string"}
    return result_of(rows, part=500, extra=extra, extra_types=types)


def test_counts_are_bars_in_order_of_outcome() -> None:
    result = result_of([Row(0, backend="aer", clbits=2, counts={"0x3": 5, "0x0": 7}), failed(1)])
    ax: Any = result.plot_counts(0)
    assert [bar.get_height() for bar in ax.patches] == [7, 5]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["00", "11"]
    with pytest.raises(CircuitFailedError):
        result.plot_counts(1)


def test_bars_beyond_the_limit_are_gathered() -> None:
    result = result_of([Row(0, clbits=100, counts={hex(k << 60): k + 1 for k in range(50)})])
    ax: Any = result.plot_counts(0, max_bars=10)
    heights = [bar.get_height() for bar in ax.patches]
    assert len(heights) == 11 and sum(heights) == 1275 and heights[:10] == list(range(41, 51))
    assert ax.get_xticklabels()[-1].get_text() == "40 others"


def test_outcomes_over_circuits_with_gaps() -> None:
    result = sweep(20)
    heat: Any = result.plot_outcomes().images[0].get_array()
    assert heat.shape == (2, 20)
    assert np.ma.getmaskarray(np.ma.masked_invalid(heat))[:, 3].all()
    assert heat[1, 10] == pytest.approx(0.53) and heat[:, 10].sum() == pytest.approx(1)


def test_many_circuits_are_averaged() -> None:
    result = sweep(2500)
    heat: Any = result.plot_outcomes().images[0].get_array()
    assert heat.shape[1] <= 1000 and np.allclose(np.nansum(heat, axis=0), 1)
    line: Any = result.plot_expectation([0], "theta").lines[0]
    assert len(line.get_xdata()) <= 1000


def test_expectation_over_one_column_and_two() -> None:
    result = sweep(20)
    line: Any = result.plot_expectation("IZ", "theta").lines[0]
    have = [i for i in range(20) if i % 10 != 3]
    assert list(line.get_xdata()) == pytest.approx([i / 19 for i in have])
    assert list(line.get_ydata()) == pytest.approx(result.expectation("IZ")[have].tolist())
    mesh: Any = result.plot_expectation([0], "theta", "side").collections[0]
    assert mesh.get_array().shape == (4, 18)
    _, ax = plt.subplots()
    assert result.plot_expectation({"Z": 2.0}, ax=ax) is ax
    for column in ("phi", "file", "outcomes", "stage", "error_type", "status"):
        with pytest.raises(InvalidInputError, match=column):
            result.plot_expectation([0], column)


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(InvalidInputError, match="no counts"):
        result_of([failed(0)]).plot_outcomes()
    result_of([failed(0)]).plot_expectation("Z")
