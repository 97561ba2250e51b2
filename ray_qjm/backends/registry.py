"""From what the user names as a backend to something that every worker can load."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import cloudpickle
from qiskit.primitives import BaseSamplerV2
from qiskit.providers import BackendV2

from ray_qjm.backends.base import Adapter, Facts
from ray_qjm.backends.ibm import ConnectIbm
from ray_qjm.backends.ibm_place import IbmPlace, fits
from ray_qjm.backends.run_api import RunAdapter
from ray_qjm.backends.sampler import SamplerAdapter, check_sampler_options
from ray_qjm.backends.shadow import Shadow
from ray_qjm.errors import InvalidInputError, UnknownBackendError
from ray_qjm.options import BackendSpec, IbmBackend, Limits, Quota

_FAKES = "qiskit_ibm_runtime.fake_provider"
_SIMULATORS = (_FAKES, "qiskit_aer.", "qiskit.providers.basic_provider", "qiskit.providers.fake_provider")


@dataclass(frozen=True)
class Choice:
    """A backend of the task, checked as far as it can be in the driver.

    Attributes:
        name: What it is called in results, unique within the task.
        spec: What the user said about it.
        load: Makes the ``BackendV2``; picklable, called once in each worker process.
        backend: The backend itself, where the driver has it; ``None`` for a factory.
        account: What tells its quota from others; ``None``: it runs on workers, which have none.
    """

    name: str
    spec: BackendSpec
    load: Callable[[], Any] = field(repr=False)  # it may hold a token
    backend: Any = field(default=None, repr=False)
    account: str | None = None


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
        if isinstance(choice.backend, BackendV2):
            check_options(choice.backend, choice.name, choice.spec.run_options, memory=memory)
        elif isinstance(choice.backend, BaseSamplerV2):
            check_sampler_options(choice.backend, choice.name, choice.spec.run_options)
        uses = taken[choice.name] = taken.get(choice.name, 0) + 1
        name = choice.name if uses == 1 else f"{choice.name}#{uses}"
        choices.append(replace(choice, name=name))
    if not choices:
        raise InvalidInputError("backends is empty. Name at least one, such as 'aer'.")
    _check_accounts(choices)
    return choices


def _check_accounts(choices: Iterable[Choice]) -> None:
    """Backends of one account have one quota.

    Raises:
        InvalidInputError: They haven't.
    """
    first: dict[str, Choice] = {}
    for choice in choices:
        if choice.account is None:
            continue
        other = first.setdefault(choice.account, choice)
        if other.spec.quota != choice.spec.quota:
            raise InvalidInputError(
                f"backends {other.name} and {choice.name} share account {choice.account!r}, and have the quotas "
                f"{other.spec.quota} and {choice.spec.quota}. Give one quota to both, or different accounts."
            )


def known_names() -> list[str]:
    """Names that mean something on this machine; those of IBM's own backends aren't asked for."""
    return ["aer", "basic", *_fakes()]


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


def check_placed(backend: Any, what: str, spec: BackendSpec) -> None:
    """Refuse to run on workers what nobody has said may run there: it may be a service that bills each job.

    Raises:
        InvalidInputError: The spec doesn't say, and it isn't a simulator of Qiskit's or Aer's.
    """
    if spec.placement is None and not is_simulator(backend) and not isinstance(backend, Shadow):
        raise InvalidInputError(
            f"{what} made a {type(backend).__name__}, and where it runs isn't said. Give BackendSpec(..., "
            "placement='workers') for a simulator, which then runs in every worker process, or placement='actor' for "
            "a service, whose jobs are submitted from one process under its limits and quota."
        )


@dataclass(frozen=True)
class MakeAdapter:
    """Connects to the backend of a choice, in the process of its desk; picklable.

    Attributes:
        load: Makes the backend, the sampler, or an adapter of the user's own.
        name: What it is called.
        run_options: Of its spec.
    """

    load: Callable[[], Any] = field(repr=False)
    name: str
    run_options: Mapping[str, Any]

    def __call__(self) -> Adapter:
        """Connect.

        Raises:
            InvalidInputError: It is nothing that jobs could be submitted to, or doesn't know a run option.
        """
        made = self.load()
        if isinstance(made, BackendV2):
            check_options(made, self.name, self.run_options, memory=False)
            return RunAdapter(made, self.run_options, seeds_apart=is_simulator(made))
        if isinstance(made, BaseSamplerV2):
            return SamplerAdapter(made, self.name, self.run_options)
        if isinstance(made, Adapter):
            if self.run_options and not isinstance(self.load, ConnectIbm):
                raise InvalidInputError(
                    f"run_options of {self.name} has {', '.join(map(repr, sorted(self.run_options)))}, and its factory "
                    f"makes a {type(made).__name__}, which takes none. Give them to the factory."
                )
            return made
        raise InvalidInputError(
            f"factory {self.name} made a {type(made).__name__}; it should make a BackendV2 or a BaseSamplerV2."
        )


def _choose(spec: BackendSpec) -> Choice:
    given = spec.backend_or_factory
    if isinstance(given, str) and given.startswith("ibm_"):
        given = IbmBackend(given)
    if fits(given):
        return _at_ibm(IbmPlace.of(given), spec)
    if isinstance(given, str):
        return _placed(_by_name(given, spec), given)
    if isinstance(given, BackendV2 | BaseSamplerV2):
        kind = f"{type(given).__module__}.{type(given).__qualname__}"
        own = getattr(given, "name", None)
        name = str(spec.name or (own if isinstance(own, str) and own else type(given).__name__))
        return _placed(
            Choice(name, spec, _Pickled(_pickle(given, f"backend {name}")), given), f"{kind} {name}"
        )
    if callable(given):
        made_by = given
        while isinstance(made_by, partial):
            made_by = made_by.func
        name = str(spec.name or getattr(made_by, "__name__", type(made_by).__name__))
        data = _pickle(given, f"factory {name}")
        kind = (
            f"{getattr(made_by, '__module__', '')}.{getattr(made_by, '__qualname__', type(made_by).__name__)}"
        )
        if kind.endswith("<lambda>"):  # all are called so
            kind = f"{kind} {hashlib.sha256(data).hexdigest()[:12]}"
        return _placed(Choice(name, spec, given), f"{kind} {name}")
    raise InvalidInputError(
        f"backends holds a {type(given).__name__}. Give names such as 'aer', BackendV2 or BaseSamplerV2 objects, or "
        "BackendSpec(factory)."
    )


def _at_ibm(place: IbmPlace, spec: BackendSpec) -> Choice:
    if spec.placement == "workers":
        raise InvalidInputError(
            f"placement of {place.backend} is 'workers': its jobs go through one process only. Leave it out."
        )
    load = ConnectIbm(place, spec.run_options)
    return Choice(spec.name or place.backend, spec, load, account=spec.account or place.identity)


def _placed(choice: Choice, identity: str) -> Choice:
    """A choice with its account, if its jobs go through a desk."""
    spec, backend = choice.spec, choice.backend
    sampler = isinstance(backend, BaseSamplerV2)
    if sampler and spec.placement == "workers":
        raise InvalidInputError(
            f"placement of sampler {choice.name} is 'workers', where only a BackendV2 can run. Leave it out."
        )
    local = backend is None or is_simulator(backend)
    if spec.placement == "workers" or (spec.placement is None and local and not sampler):
        for what, given, default in (
            ("limits", spec.limits, Limits()),
            ("quota", spec.quota, Quota()),
            ("account", spec.account, None),
        ):
            if given != default:
                raise InvalidInputError(
                    f"{what} of {choice.name} is for jobs at a service, and {choice.name} runs on workers. Leave it "
                    "out, or give placement='actor' to have its jobs submitted as a service's."
                )
        return choice
    return replace(choice, account=spec.account or identity)


def is_simulator(backend: Any) -> bool:
    """Whether a backend is a simulator that may run in any number of processes at once.

    Qiskit's, Aer's and what is derived from them; of all others nobody knows.
    """
    return any(kind.__module__.startswith(_SIMULATORS) for kind in type(backend).__mro__)


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
        known = known_names()
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


def lost_operations(choice: Choice, facts: Facts) -> list[str]:
    """Operations of a backend's target that are missing where its jobs are submitted, where the driver has both."""
    if not isinstance(choice.backend, BackendV2) or choice.backend.target is None:
        return []
    there = set() if facts.target is None else set(facts.target.operation_names)
    return sorted(set(choice.backend.target.operation_names) - there)
