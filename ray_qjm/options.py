"""Every knob of a run, as frozen dataclasses checked on construction.

A unit stands in the name (``chunk_s``, ``memory_bytes``); beside each default stands where it comes from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, Literal

from ray_qjm.errors import InvalidInputError

Level = Literal["auto", "off", 0, 1, 2, 3]

_LEVELS = ("auto", "off", 0, 1, 2, 3)


@dataclass(frozen=True)
class TranspileOptions:
    """How circuits become circuits that the backend takes.

    Attributes:
        level: ``"auto"`` runs a circuit untouched if it has a layout or needs nothing but the target's own
            instructions and coupling, and transpiles it at level 1 otherwise; 0 to 3 are Qiskit's levels,
            for every circuit; ``"off"`` runs circuits as they are, after a check against the target.
        seed: ``seed_transpiler``; ``None`` derives it from the task's seed.
        options: Further arguments of ``generate_preset_pass_manager`` (``routing_method=...``).
        pass_manager: A ``PassManager``, or a callable from circuit to circuit, in place of Qiskit's
            presets; it must be picklable. ``level`` is then not used.
    """

    level: Level = "auto"
    seed: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    pass_manager: Any = None

    def __post_init__(self) -> None:
        level: object = self.level
        if not isinstance(level, bool) and isinstance(level, Integral):
            level = int(level)
        if isinstance(level, bool) or not isinstance(level, str | int) or level not in _LEVELS:
            known = ", ".join(map(repr, _LEVELS))
            raise InvalidInputError(f"level is {self.level!r}; it can be one of {known}.")
        object.__setattr__(self, "level", level)
        if self.seed is not None:
            object.__setattr__(self, "seed", whole("seed of TranspileOptions", self.seed, least=0))
        reserved = {"optimization_level", "seed_transpiler", "backend", "target"} & set(self.options)
        if reserved:
            raise InvalidInputError(
                f"options of TranspileOptions may not hold {sorted(reserved)}: level and seed are fields of "
                "TranspileOptions, and backend and target follow from the backend that takes the circuit."
            )
        if self.pass_manager is not None and not (
            callable(self.pass_manager) or callable(getattr(self.pass_manager, "run", None))
        ):
            raise InvalidInputError(
                f"pass_manager is a {type(self.pass_manager).__name__}; give a PassManager or a callable."
            )
        object.__setattr__(self, "options", dict(self.options))


@dataclass(frozen=True)
class Resources:
    """What one Ray task that simulates a chunk reserves.

    Attributes:
        num_cpus: CPUs, and threads of an Aer simulation. 1 keeps every core busy with circuits of its own.
        num_gpus: GPUs, or a share of one.
        memory_bytes: Memory to reserve; ``None`` reserves what the widest circuit of a chunk needs where
            that is known (statevector-like simulation) and worth it (see ``backends/memory.py``).
    """

    num_cpus: float = 1
    num_gpus: float = 0
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_cpus", "num_gpus"):
            value = _amount(name, getattr(self, name), "a number of 0 or more")
            object.__setattr__(self, name, value)
            if value > 1 and value != int(value):
                raise InvalidInputError(f"{name} is {value!r}; above 1 Ray takes whole numbers only.")
        if self.num_cpus == 0 and self.num_gpus == 0:
            raise InvalidInputError(
                "num_cpus and num_gpus are both 0: nothing would bound the tasks running at once."
            )
        if self.memory_bytes is not None:
            object.__setattr__(self, "memory_bytes", whole("memory_bytes", self.memory_bytes, least=1))


@dataclass(frozen=True)
class BackendSpec:
    """A backend and everything that the backend object itself can't tell.

    Attributes:
        backend_or_factory: A name (``"aer"``, ``"fake_manila"``, ``"module:factory"``), a ``BackendV2``, or a
            picklable callable without arguments that makes one. A factory is called once in each worker
            process, and serves for what can't be pickled or exists only there (a GPU).
        name: What the backend is called in results; default: its own name.
        resources: What one Ray task of this backend reserves.
        run_options: Further options of the backend's ``run`` (``{"method": "statevector"}``); an option
            that the backend doesn't list in its ``options`` is an error.
        transpile: In place of the task's ``RunOptions.transpile``.
    """

    backend_or_factory: Any
    name: str | None = None
    resources: Resources = field(default_factory=Resources)
    run_options: Mapping[str, Any] = field(default_factory=dict)
    transpile: TranspileOptions | None = None

    def __post_init__(self) -> None:
        name: object = self.name
        if name is not None and (not isinstance(name, str) or name == ""):
            raise InvalidInputError(f"name of BackendSpec is {self.name!r}; give a text or None.")
        if not isinstance(self.resources, Resources):
            raise InvalidInputError(f"resources is a {type(self.resources).__name__}. Give Resources(...).")
        if self.transpile is not None and not isinstance(self.transpile, TranspileOptions):
            raise InvalidInputError(
                f"transpile is a {type(self.transpile).__name__}. Give TranspileOptions(...)."
            )
        if not isinstance(self.run_options, Mapping):
            raise InvalidInputError(
                f"run_options is a {type(self.run_options).__name__}. Give a mapping by name."
            )
        ours = {"shots", "memory", "seed_simulator"} & set(self.run_options)
        if ours:
            raise InvalidInputError(
                f"run_options may not hold {sorted(ours)}: shots, memory and seed are arguments of run()."
            )
        object.__setattr__(self, "run_options", dict(self.run_options))


@dataclass(frozen=True)
class RunOptions:
    """How a task runs; nothing here changes the counts of a circuit but ``transpile``.

    Attributes:
        transpile: For every backend whose spec has none of its own.
        max_failures: The task stops when so many circuits in a row failed with one type of error and
            none succeeded between them: one reason that fails everything.
        on_failure: ``"report"`` returns the result with a ``PartialResultWarning``, ``"raise"`` raises
            ``TaskFailedError`` with it.
        chunk_s: Seconds that a chunk should take on a simulator. At 1.5 s the engine's cost a chunk, about
            2 ms (``benchmarks/overhead.py``), is 0.15 %, and the bar moves, a cancel is heard and a dead
            worker is made good within seconds.
        max_chunk: Most circuits in one chunk; ``None`` is 10,000.
        max_in_flight: Most chunks submitted to Ray at once; ``None`` is two a slot: one runs, one waits.
        crash_retries: How often a circuit that stands alone in its chunk is tried again after the process
            that ran it died.
        cancel_grace_s: How long a cancelled task waits for chunks that are running before it ends their
            worker processes.
    """

    transpile: TranspileOptions = field(default_factory=TranspileOptions)
    max_failures: int = 1000
    on_failure: Literal["report", "raise"] = "report"
    chunk_s: float = 1.5
    max_chunk: int | None = None
    max_in_flight: int | None = None
    crash_retries: int = 2
    cancel_grace_s: float = 5.0

    def __post_init__(self) -> None:
        if self.on_failure not in ("report", "raise"):
            raise InvalidInputError(f"on_failure is {self.on_failure!r}; it can be 'report' or 'raise'.")
        for name, least in (("max_failures", 1), ("crash_retries", 0)):
            object.__setattr__(self, name, whole(name, getattr(self, name), least=least))
        for name in ("max_chunk", "max_in_flight"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, whole(name, getattr(self, name), least=1))
        for name in ("chunk_s", "cancel_grace_s"):
            object.__setattr__(
                self, name, _amount(name, getattr(self, name), "a number of seconds, 0 or more")
            )
        if not isinstance(self.transpile, TranspileOptions):
            raise InvalidInputError(f"transpile is {self.transpile!r}; give TranspileOptions(...).")


def whole(name: str, value: object, *, least: int, most: int | None = None) -> int:
    """Return ``value`` as an ``int`` if it is a whole number (NumPy's are) within the bounds.

    Raises:
        InvalidInputError: It is not; ``name``, the value and the bounds stand in the message.
    """
    bounds = f"of {least} or more" if most is None else f"from {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InvalidInputError(
            f"{name} is {value!r} ({type(value).__name__}); it must be a whole number {bounds}."
        )
    number = int(value)
    if number < least or (most is not None and number > most):
        raise InvalidInputError(f"{name} is {number}; it must be a whole number {bounds}.")
    return number


def _amount(name: str, value: object, what: str) -> int | float:
    """Return ``value`` as Python's own number, which is what Ray takes, if it is finite and 0 or more."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
        raise InvalidInputError(f"{name} is {value!r}; it must be {what}.")
    return int(value) if isinstance(value, Integral) else float(value)


Factory = Callable[[], Any]
