"""A circuit's metadata as strict JSON, so that DuckDB, Polars and JavaScript can read it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def to_json(metadata: Mapping[Any, Any] | None) -> str | None:
    """Write metadata as JSON; empty metadata is ``None``.

    NumPy scalars become numbers and arrays lists. What JSON can't say (objects, complex numbers,
    infinities, keys that are no strings) becomes its ``repr``.

    >>> to_json({"delay": np.float64(0.5), "pair": (1, 2), "phase": 1j})
    '{"delay": 0.5, "pair": [1, 2], "phase": "1j"}'
    """
    if not metadata:
        return None
    try:
        return json.dumps(metadata, default=_plain, allow_nan=False)
    except (TypeError, ValueError, RecursionError):  # another mapping, odd keys, not-a-number, a cycle
        pass
    try:
        return json.dumps(_strict(metadata), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(_repr(metadata))


def _plain(value: object) -> Any:
    """What ``json`` asks for when it meets an object that it doesn't know."""
    if isinstance(value, np.generic):
        item = value.item()
        return item if isinstance(item, (bool, int, float, str)) else _repr(item)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    return _repr(value)


def _strict(value: Any) -> Any:
    """The same with every key a string and every number finite."""
    if isinstance(value, Mapping):
        return {_key(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else _repr(float(value))
    if value is None or isinstance(value, (bool, int, str)):
        return value
    plain = _plain(value)
    return plain if isinstance(plain, str) else _strict(plain)


def _key(key: object) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, np.generic):
        key = key.item()
    # As json writes the keys that it takes.
    return json.dumps(key) if key is None or isinstance(key, (bool, int)) else _repr(key)


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # the object's own repr is broken: its type must do
        return f"<{type(value).__name__}>"
