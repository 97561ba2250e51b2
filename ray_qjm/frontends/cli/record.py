"""What `ray-qjm run` was told, kept in the task's store, so that `ray-qjm resume` can go on with it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_qjm.errors import InvalidInputError, StoreDamagedError

if TYPE_CHECKING:
    from ray_qjm.results.objects import Objects

#: Beside the task's own ``task.json``.
NAME = "cli.json"
#: Of what stands in it.
VERSION = 1

#: Options that aren't kept: where things are and what is shown is each command's own.
_EACH_TIME = ("store", "retry_failed", "output", "as_json", "quiet", "force")


@dataclass(frozen=True)
class Record:
    """A command line.

    Attributes:
        source: As it was given.
        options: Those that were given, by name.
        directory: The one in which it was given: names of files mean something there.
    """

    source: Sequence[str]
    options: Mapping[str, Any]
    directory: str

    @classmethod
    def of(cls, source: Sequence[str], options: Mapping[str, Any]) -> Record:
        """That of this process."""
        kept = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in options.items()
            if value is not None and value != () and name not in _EACH_TIME
        }
        return cls(list(source), kept, os.getcwd())

    def but(self, options: Mapping[str, Any]) -> Record:
        """The same with other options, where they're given."""
        given = Record.of((), options).options
        kept = dict(self.options)
        if "address" in given or "num_cpus" in given:
            kept = {name: value for name, value in kept.items() if name not in ("address", "num_cpus")}
        return replace(self, options={**kept, **given})


def write(objects: Objects, record: Record) -> None:
    """Keep a command line in a store that this process has taken."""
    from ray_qjm.results.records import seal

    data = seal({"version": VERSION, **asdict(record)})
    if objects.read(NAME) != data:
        objects.replace(NAME, data)


def read(objects: Objects) -> Record:
    """The command line that a store keeps.

    Raises:
        InvalidInputError: It keeps none; or its directory isn't there.
        StoreDamagedError: A newer version of this package wrote it.
    """
    from ray_qjm.results.records import unseal

    body = unseal(objects.read(NAME))
    if body is None:
        raise InvalidInputError(
            f"store {objects.place} doesn't say how its task was begun: a Python program began it, or it was stopped "
            "before anything ran. Run that program or that command again with the same store; it goes on."
        )
    if body["version"] > VERSION:
        raise StoreDamagedError(
            f"store {objects.place} was written by a newer version of ray_qjm ({NAME} is of version {body['version']}, "
            f"and this one reads up to {VERSION}): upgrade it."
        )
    record = Record(body["source"], body["options"], body["directory"])
    if not Path(record.directory).is_dir():
        raise InvalidInputError(
            f"the task of store {objects.place} was begun in {record.directory}, which isn't here. Give its command "
            f"again where {' '.join(record.source)} is, with the same store; it goes on."
        )
    return record
