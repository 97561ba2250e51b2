"""From what the user names as a backend to something that every worker can load."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import cloudpickle
from qiskit.providers import BackendV2

from ray_qjm.errors import InvalidInputError, UnknownBackendError
from ray_qjm.options import BackendSpec

_FAKES = "qiskit_ibm_runtime.fake_provider"


@dataclass(frozen=True)
class Choice:
    """A backend of the task, checked as far as it can be in the driver.

    Attributes:
        name: What it is called in results, unique within the task.
        spec: What the user said about it.
        load: Makes the ``BackendV2``; picklable, called once in each worker process.
        backend: The backend itself, where the driver has it; ``None`` for a factory.
    """

    name: str
    spec: BackendSpec
    load: Callable[[], Any]
    backend: Any = None


def choose(backends: Any, *, memory: bool = False) -> list[Choice]:
    """Check the backends of a task.

    Args:
        backends: A name, ``BackendV2`` or ``BackendSpec``, or several of them.
        memory: Whether the task keeps single shots, which each backend must then be able to give.

    Raises:
        InvalidInputError: There is none, one is none of these or can't be pickled, or it doesn't know a run
            option.
        UnknownBackendError: Nothing has this name; the message lists the known ones.
    """
    given = (
        [backends]
        if isinstance(backends, (str, BackendSpec)) or not isinstance(backends, Iterable)
        else backends
    )
    choices: list[Choice] = []
    taken: dict[str, int] = {}
    for item in given:
        choice = _choose(item if isinstance(item, BackendSpec) else BackendSpec(item))
        if choice.backend is not None:
            check_options(choice.backend, choice.name, choice.spec.run_options, memory=memory)
        uses = taken[choice.name] = taken.get(choice.name, 0) + 1
        name = choice.name if uses == 1 else f"{choice.name}#{uses}"
        choices.append(Choice(name, choice.spec, choice.load, choice.backend))
    if not choices:
        raise InvalidInputError("backends is empty. Name at least one, such as 'aer'.")
    return choices


def check_options(backend: Any, name: str, run_options: Mapping[str, Any], *, memory: bool) -> None:
    """Check that the backend lists all that its ``run`` will be told.

    Aer takes unknown options in silence and ``BasicSimulator`` only warns, so both run something else than
    the user asked for.

    Raises:
        InvalidInputError: It doesn't; the message lists what it knows.
    """
    known = set(backend.options)
    unknown = sorted(set(run_options) - known)
    if unknown:
        raise InvalidInputError(
            f"run_options of {name} has {', '.join(map(repr, unknown))}, which it doesn't know. "
            f"It knows {', '.join(sorted(known)) or 'none'}."
        )
    if memory and "memory" not in known:
        raise InvalidInputError(
            f"memory=True, but {name} has no option 'memory': it can't give single shots."
        )


def check_loaded(backend: Any, what: str) -> Any:
    """Return what a factory made if it is a ``BackendV2``.

    Raises:
        InvalidInputError: It is not.
    """
    if not isinstance(backend, BackendV2):
        raise InvalidInputError(f"{what} made a {type(backend).__name__}, not a BackendV2.")
    return backend


def _choose(spec: BackendSpec) -> Choice:
    given = spec.backend_or_factory
    if isinstance(given, str):
        return _by_name(given, spec)
    if isinstance(given, BackendV2):
        name = str(spec.name or given.name or type(given).__name__)
        return Choice(name, spec, _Pickled(_pickle(given, f"backend {name}")), given)
    if callable(given):
        name = str(spec.name or getattr(given, "__name__", type(given).__name__))
        _pickle(given, f"factory {name}")
        return Choice(name, spec, given)
    raise InvalidInputError(
        f"backends holds a {type(given).__name__}. Give names such as 'aer', BackendV2 objects, or "
        "BackendSpec(factory)."
    )


@dataclass(frozen=True)
class _Pickled:
    """A backend as it was when it was given; each worker process gets its own."""

    data: bytes

    def __call__(self) -> Any:
        return cloudpickle.loads(self.data)

    def __repr__(self) -> str:
        return f"<backend, {len(self.data)} bytes>"


def _pickle(value: Any, what: str) -> bytes:
    try:
        data: bytes = cloudpickle.dumps(value)
    except Exception as error:
        raise InvalidInputError(
            f"{what} can't be pickled, so it can't be sent to workers ({type(error).__name__}: {error}). "
            "Give BackendSpec(factory) with a function that makes it there."
        ) from error
    return data


def _aer() -> Any:
    from qiskit_aer import AerSimulator

    return AerSimulator()


def _basic() -> Any:
    from qiskit.providers.basic_provider import BasicSimulator

    return BasicSimulator()


def _imported(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)()


def _by_name(name: str, spec: BackendSpec) -> Choice:
    loaders: dict[str, Callable[[], Any]] = {"aer": _aer, "basic": _basic}
    if ":" in name:
        load = _named_factory(name)
        return Choice(spec.name or name.partition(":")[2], spec, load)
    if name.startswith("fake_"):
        loaders.update({fake: partial(_imported, _FAKES, kind) for fake, kind in _fakes().items()})
    if name not in loaders:
        known = ["aer", "basic", *_fakes()]
        close = difflib.get_close_matches(name, known, n=3)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise UnknownBackendError(
            f"no backend is called {name!r}.{hint} Known are {', '.join(known)}, and 'module:factory'; or give a "
            "BackendV2 object."
        )
    load = loaders[name]
    try:
        backend = load()
    except ImportError as error:
        raise InvalidInputError(
            f"backend {name!r} needs a package that is missing ({error}). Install it."
        ) from error
    return Choice(spec.name or name, spec, load, backend)


def _named_factory(text: str) -> Callable[[], Any]:
    module, _, name = text.partition(":")
    try:
        factory = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise UnknownBackendError(
            f"backend {text!r}: module {module!r} can't be imported ({error})."
        ) from error
    except AttributeError:
        raise UnknownBackendError(f"backend {text!r}: module {module!r} has no {name!r}.") from None
    if not callable(factory):
        raise UnknownBackendError(f"backend {text!r}: {name!r} is a {type(factory).__name__}, not a factory.")
    return partial(_imported, module, name)


def _fakes() -> dict[str, str]:
    """Name to class of the fake devices, where their package is installed."""
    try:
        module = importlib.import_module(_FAKES)
    except ImportError:
        return {}
    found: dict[str, str] = {}
    for kind, value in sorted(vars(module).items()):
        if kind.startswith("Fake") and inspect.isclass(value) and issubclass(value, BackendV2):
            snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.removesuffix("V2")).lower()
            found[snake] = kind
    return found
