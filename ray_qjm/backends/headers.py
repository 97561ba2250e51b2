"""Whose result is whose: results come in the order of the circuits, or say by their names that they don't."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ray_qjm.errors import BackendResultError

#: Qiskit numbers unnamed circuits per process: those of a provider's own copies may be the same as ours, by chance.
_AUTOMATIC = re.compile(r"circuit-\d+(-\d+)*")


def placed(answers: Sequence[Any], names: Sequence[str], backend: str) -> list[Any]:
    """The results of a job in the order of its circuits.

    Few providers name their results, and some name them as they like, so position is what counts, unless the circuits
    have names of their own, each another one, and so have the results, and the two contradict each other.

    Args:
        answers: An ``ExperimentResult`` a circuit.
        names: Of the circuits, in the order in which they were submitted.
        backend: Its name, for messages.

    Returns:
        An ``ExperimentResult`` for each circuit; a ``BackendResultError`` where nobody knows which is its.

    >>> from types import SimpleNamespace as Result
    >>> b, a = Result(header={"name": "b"}), Result(header={"name": "a"})
    >>> placed([b, a], ["a", "b"], "lab") == [a, b]
    True
    """
    told = [_name_of(answer) for answer in answers]
    if told == list(names) or not _tell_apart(names) or not _tell_apart(told):
        return list(answers)
    places: dict[str | None, int] = {name: at for at, name in enumerate(names)}
    if set(told) == set(names):
        by_place = {places[name]: answer for name, answer in zip(told, answers, strict=True)}
        return [by_place[at] for at in range(len(names))]
    found = list(answers)
    for at, name in enumerate(told):
        if places.get(name, at) == at:
            continue  # it is its own, or one that the provider has made up
        found[at] = found[places[name]] = BackendResultError(
            f"{backend} gave a result that is called {name!r} in the place of that of {names[at]!r}"
        )
    return found


def _name_of(answer: Any) -> str | None:
    header = getattr(answer, "header", None)
    name = header.get("name") if isinstance(header, Mapping) else getattr(header, "name", None)
    return name if isinstance(name, str) else None


def _tell_apart(names: Sequence[str | None]) -> bool:
    return len(set(names)) == len(names) and not any(
        name is None or _AUTOMATIC.fullmatch(name) for name in names
    )
