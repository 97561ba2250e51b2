"""Objects by their names, ``FILE.py:name`` or ``module:name``: what can't be had says which part of it, and why."""

from __future__ import annotations

import ast
import copyreg
import difflib
import functools
import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from ray_qjm.errors import InvalidInputError

#: Files are modules of such names, so that none stands in for an installed module of its name.
_PREFIX = "ray_qjm_file_"
#: Those, and the modules beside them: names of what workers can't import.
_by_value: set[str] = set()


def is_named(text: str) -> bool:
    """Whether a text names an object at all.

    >>> is_named("rb.py:circuit"), is_named("lab.rb:circuit"), is_named("runs/a.qpy")
    (True, True, False)
    """
    return ":" in text


def load(text: str) -> Any:
    """Import what a text names.

    A module must be importable on workers too. A file needn't: what it holds is pickled as it is, and so are the
    modules beside it that it imports.

    Args:
        text: ``FILE.py:name`` or ``module:name``; the name may have dots.

    Raises:
        InvalidInputError: There is no such file, module or name, or importing it raises; the message says which, and
            the line.
    """
    place, _, name = text.rpartition(":")
    if not place or not name:
        raise InvalidInputError(f"{text!r} names nothing: give FILE.py:name or module:name.")
    file, separator, rest = text.partition(".py:")
    if not place.endswith(".py") and separator:
        raise InvalidInputError(f"{text!r} has a colon in the name {rest!r}: names in {file}.py have dots.")
    found: Any = _file(Path(place)) if place.endswith(".py") else _module(place)
    at = place
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise InvalidInputError(f"{at} has no {part!r}.{_close(part, dir(found))}") from None
        at = f"{at}:{part}" if at == place else f"{at}.{part}"
    return found


def functions_in(path: Path) -> list[str]:
    """Names of the functions that a Python file defines, without running it; none if it can't be read."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    return [
        node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "isn't there"
        raise InvalidInputError(f"file {path} {what} (looked in {Path.cwd()}).")
    path = path.absolute()
    known = sys.modules.get(name := f"{_PREFIX}{path.stem}")
    while known is not None and known.__file__ != str(path):
        known = sys.modules.get(name := f"{name}_")
    if known is not None:
        return known
    _look_in(path.parent)  # as for a script
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    before = set(sys.modules)
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        del sys.modules[name]
        raise InvalidInputError(_why_not(path.name, path, error)) from error
    _pickle_by_value(module)
    for other in set(sys.modules) - before:
        if _is_beside(sys.modules[other], path.parent):
            _pickle_by_value(sys.modules[other])
    return module


def _pickle_by_value(module: ModuleType) -> None:
    if not _by_value:
        copyreg.pickle(_Cached, _reduce_cached)
    _by_value.add(module.__name__)
    cloudpickle.register_pickle_by_value(module)


_Cached = type(functools.lru_cache(is_named))


def _reduce_cached(cached: Any) -> str | tuple[Any, ...]:
    """How a function with a cache is pickled, which cloudpickle takes for one that workers import."""
    if cached.__module__ not in _by_value:
        return str(cached.__qualname__)  # as functools would
    return _cached, (cached.__wrapped__, cached.cache_parameters())


def _cached(f: Any, parameters: dict[str, Any]) -> Any:
    return functools.update_wrapper(functools.lru_cache(**parameters)(f), f)


def _module(name: str) -> ModuleType:
    _look_in(Path.cwd())
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise InvalidInputError(
                f"module {missing!r} isn't there (looked in {Path.cwd()} and where Python looks)."
            ) from error
        raise InvalidInputError(_why_not(f"module {name!r}", _origin(name), error)) from error
    except BaseException as error:
        raise InvalidInputError(_why_not(f"module {name!r}", _origin(name), error)) from error


def _look_in(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _origin(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return None if spec is None or spec.origin is None else Path(spec.origin)


def _why_not(what: str, path: Path | None, error: BaseException) -> str:
    """Why something can't be imported: the error, and the line at fault, as far as it stands in that file."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if path is not None and os.path.abspath(frame.filename) == str(path)
    ]
    line, reason = lines[-1] if lines else None, " ".join(str(error).split())
    if isinstance(error, SyntaxError) and error.filename == str(path):
        line, reason = error.lineno, error.msg
    kind = type(error).__name__
    where = "" if line is None else f", line {line}"
    hint = ' Guard what a script does with `if __name__ == "__main__":`.' if kind == "SystemExit" else ""
    return f"{what} can't be imported{where}: {kind}{f': {reason}' if reason else ''}.{hint}"


def _is_beside(module: ModuleType | None, folder: Path) -> bool:
    """Whether a module is the user's own, in the folder of a file or below, where workers needn't find it."""
    file = getattr(module, "__file__", None)
    if module is None or not isinstance(file, str) or not file.endswith(".py"):
        return False
    path, top = Path(file).absolute(), module.__name__.partition(".")[0]
    everywhere = top in sys.stdlib_module_names or top == __name__.partition(".")[0]
    installed = any(part in ("site-packages", "dist-packages") for part in path.parts)
    return path.is_relative_to(folder) and not everywhere and not installed


def _close(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=2)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
