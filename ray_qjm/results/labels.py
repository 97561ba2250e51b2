"""What people call a task: its name and tags. They are no part of what it is, and may change.

The record of a stored task keeps those that it was begun with; ``labels.json`` beside it holds what was said later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ray_qjm.errors import InvalidInputError
from ray_qjm.results.objects import Objects
from ray_qjm.results.records import seal, unseal

LABELS = "labels.json"


def labels(name: str | None, tags: Sequence[str] | None) -> dict[str, str]:
    """Name and tags as facts that stand in a result's metadata; those that are ``None`` are left out.

    >>> labels("bell", ["night"])
    {'name': 'bell', 'tags': '["night"]'}

    Raises:
        InvalidInputError: They are no texts.
    """
    if name is not None and not isinstance(name, str):
        raise InvalidInputError(f"name is a {type(name).__name__}. Give a text.")
    given: Any = tags
    several = isinstance(given, Iterable) and not isinstance(given, str)
    words = list(given) if several else []
    if (given is not None and not several) or not all(isinstance(word, str) for word in words):
        raise InvalidInputError(f"tags is {tags!r}. Give several texts, such as ['calibration'].")
    for text in (name or "", *words):
        if text.encode("utf-8", "replace").decode() != text:
            raise InvalidInputError(f"name or tag {text!r} has a lone surrogate, which no file can hold.")
    found = {} if name is None else {"name": name}
    return found if tags is None else {**found, "tags": json.dumps(words)}


def read_labels(objects: Objects) -> dict[str, str]:
    """What was said of a stored task's labels since it began."""
    return dict(unseal(objects.read(LABELS)) or {})


def write_labels(objects: Objects, changed: Mapping[str, str]) -> None:
    """Say something else of them; of two who do so at once the later one counts."""
    objects.replace(LABELS, seal({**read_labels(objects), **changed}))
