"""What must stay the same when a stored task goes on: plain values that JSON keeps."""

from __future__ import annotations

import hashlib
import inspect
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from ray_qjm.errors import InvalidInputError
from ray_qjm.options import TranspileOptions


def digest(*pieces: bytes | str) -> str:
    """A short hash of some bytes or texts."""
    found = hashlib.blake2b(digest_size=12)
    for piece in pieces:
        data = piece.encode("utf-8", "surrogatepass") if isinstance(piece, str) else piece
        found.update(len(data).to_bytes(8, "big") + data)
    return found.hexdigest()


def code_of(f: Callable[..., Any], version: str | None, kind: str) -> dict[str, Any]:
    """What tells whether a callable is still the same: the user's version of it, or a digest of its source text.

    Equal text doesn't prove that it makes equal circuits (closures, globals): that is what fingerprints are for.

    Raises:
        InvalidInputError: It has no source text, and no version was given.

    >>> code_of(digest, "2", "callable digest")
    {'version': '2'}
    """
    if version is not None:
        return {"version": version}
    try:
        return {"code": digest(textwrap.dedent(inspect.getsource(f)))}
    except (TypeError, OSError) as error:
        raise InvalidInputError(
            f"{kind} has no source text that can be read ({type(error).__name__}), so a later call couldn't tell "
            'whether it is still the same. Pass version="1" with store=, and change it whenever the circuits change.'
        ) from error


def of_transpiling(options: TranspileOptions) -> dict[str, Any]:
    """What of the options changes circuits."""
    return {
        "level": options.level,
        "seed": options.seed,
        "options": _plain(options.options),
        "pass_manager": None if options.pass_manager is None else _kind(options.pass_manager),
    }


def _plain(value: object) -> Any:
    """JSON values as they are, of any other object its kind: its text may hold an address."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return _kind(value)


def _kind(value: object) -> str:
    if inspect.isfunction(value) or inspect.isclass(value):
        return value.__qualname__
    return type(value).__qualname__
