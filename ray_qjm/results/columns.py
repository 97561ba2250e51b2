"""Arrow's columns out of what Python and NumPy hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def texts(values: Sequence[str | None]) -> pa.Array[Any]:
    """A column of strings."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:  # lone surrogates, as in a message that quotes a file name
        return pa.array([None if text is None else _clean(text) for text in values], pa.string())


def coded(values: Sequence[str | None], known: Sequence[str]) -> pa.Array[Any]:
    """A dictionary column of few known strings, whose codes are their places; another is a ``KeyError``."""
    codes = {text: code for code, text in enumerate(known)}
    indices = pa.array([None if value is None else codes[value] for value in values], pa.int8())
    return pa.DictionaryArray.from_arrays(indices, pa.array(known, pa.string()))


def dictionary(values: Sequence[str | None], index: pa.DataType) -> pa.Array[Any]:
    """A dictionary column of any strings; ``index`` is the type of the codes."""
    codes: dict[str, int] = {}
    indices = [None if value is None else codes.setdefault(value, len(codes)) for value in values]
    return pa.DictionaryArray.from_arrays(pa.array(indices, index), texts(list(codes)))


def lists(values: pa.Array[Any], lengths: NDArray[np.int64], have: NDArray[np.bool_]) -> pa.Array[Any]:
    """A column of lists: the values of all rows, how many each has, and which rows are not null."""
    offsets = pa.array(np.concatenate(([0], np.cumsum(lengths))).astype(np.int64))
    # No mask where nothing is null: a bitmap for each column would take a byte a circuit.
    return pa.LargeListArray.from_arrays(offsets, values, mask=None if have.all() else pa.array(~have))


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
