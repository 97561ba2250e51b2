"""What must stay the same when a stored task goes on: plain values that JSON keeps."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any

import numpy as np

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
        return {"code": digest(_normal(inspect.getsource(f), f))}
    except (TypeError, OSError) as error:
        raise InvalidInputError(
            f"{kind} has no source text that can be read ({type(error).__name__}), so a later call couldn't tell "
            'whether it is still the same. Pass version="1" with store=, and change it whenever the circuits change.'
        ) from error


def _normal(source: str, f: Callable[..., Any]) -> str:
    """The source text without comments and layout; of a lambda not the statement that it stands in."""
    try:
        tree = ast.parse(textwrap.dedent(source))
    except SyntaxError:  # of a lambda the lines may be a piece of a call
        tree = None
    if getattr(f, "__name__", "") != "<lambda>":
        return source if tree is None else ast.unparse(tree)
    found = [] if tree is None else [node for node in ast.walk(tree) if isinstance(node, ast.Lambda)]
    if len(found) == 1:
        return ast.unparse(found[0])
    # What it does: steps and constants, without names of files and numbers of lines.
    return _steps(f.__code__)


def _steps(code: CodeType) -> str:
    constants = [_steps(item) if isinstance(item, CodeType) else repr(item) for item in code.co_consts]
    return repr((code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars))


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
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, np.ndarray):
        return f"array {value.dtype} {value.shape} {digest(np.ascontiguousarray(value).tobytes())}"
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return _kind(value)


def _kind(value: object) -> str:
    if inspect.isfunction(value) or inspect.isclass(value):
        return value.__qualname__
    return type(value).__qualname__
