"""Every knob of a run, as frozen dataclasses checked on construction.

A unit stands in the name (``chunk_s``, ``memory_bytes``); beside each default stands where it comes from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import partial
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
class Limits:
    """How large one job of a service may be; ``None`` is no limit.

    Attributes:
        max_circuits: Circuits.
        max_shots: Shots of each circuit. A circuit that asks for more runs several times, and its counts are
            added up.
        max_executions: Circuits times shots. IBM Quantum Platform allows 10,000,000 for a Sampler job.
        max_payload_bytes: Bytes of its circuits, as the adapter sends them.
    """

    max_circuits: int | None = None
    max_shots: int | None = None
    max_executions: int | None = None
    max_payload_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in vars(self):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, whole(name, getattr(self, name), least=1))

    def within(self, other: Limits) -> Limits:
        """The tighter of the two, limit by limit.

        >>> Limits(max_circuits=300, max_shots=100).within(Limits(max_circuits=75))
        Limits(max_circuits=75, max_shots=100, max_executions=None, max_payload_bytes=None)
        """
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in vars(self)}
        return Limits(
            **{name: min((x for x in pair if x is not None), default=None) for name, pair in pairs.items()}
        )


@dataclass(frozen=True)
class Budget:
    """How much may be spent in all; ``None`` is no limit. A job is not submitted that would go beyond it.

    Attributes:
        jobs: Jobs that were submitted.
        executions: Circuits times shots of them.
        qpu_seconds: As the provider bills them; until it has, as estimated.
    """

    jobs: int | None = None
    executions: int | None = None
    qpu_seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("jobs", "executions"):
            value = getattr(self, name)
            if value is None:
                continue
            if value == 0 and not isinstance(value, bool):
                raise InvalidInputError(f"{name} of Budget is 0: not one job could be submitted.")
            object.__setattr__(self, name, whole(f"{name} of Budget", value, least=1))
        if self.qpu_seconds is not None:
            seconds = _amount("qpu_seconds of Budget", self.qpu_seconds, "a number of seconds above 0")
            if seconds == 0:
                raise InvalidInputError("qpu_seconds of Budget is 0: not one job could be submitted.")
            object.__setattr__(self, "qpu_seconds", seconds)


@dataclass(frozen=True)
class Quota:
    """How fast jobs may be submitted to a service, over all tasks and drivers of the Ray cluster.

    Attributes:
        max_pending: Jobs that may be submitted and not ended. 3 where nothing is known: what IBM's open plan
            and most free ones allow.
        jobs_per_minute: Jobs that may be submitted in any 60 s; ``None`` is no limit.
        budget: Of everything that the account may spend; ``None`` is no limit.
    """

    max_pending: int = 3
    jobs_per_minute: float | None = None
    budget: Budget | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_pending", whole("max_pending", self.max_pending, least=1))
        if self.jobs_per_minute is not None:
            rate = _amount("jobs_per_minute", self.jobs_per_minute, "a number above 0")
            if rate == 0:
                raise InvalidInputError("jobs_per_minute is 0: not one job could be submitted.")
            object.__setattr__(self, "jobs_per_minute", rate)
        if self.budget is not None and not isinstance(self.budget, Budget):
            raise InvalidInputError(f"budget of Quota is a {type(self.budget).__name__}. Give Budget(...).")


@dataclass(frozen=True)
class RetryPolicy:
    """What to do about a service that refuses, fails or doesn't answer.

    Attributes:
        attempts: How often one job is submitted at most, the first time included, while the service answers
            with errors that may pass.
        give_up_s: How long one job is tried at most, from its first submission on.
        wait_s: Seconds before the second attempt; they double with each further one, with jitter, unless the
            service says how long to wait.
        max_wait_s: Most seconds between two attempts.
        lost: What becomes of circuits whose job may or may not have been accepted (no reply came), where the
            service can't be asked for it: ``"fail"`` gives them a reason in place of counts, ``"resubmit"`` runs
            them again and may pay twice.
        lost_grace_s: A job that a look-up doesn't find may still land: it is looked for so long after the last
            moment at which it can have been sent. A request landed 12 s late on a test service.
        call_s: Deadline of one call of the provider's client.
    """

    attempts: int = 8
    give_up_s: float = 6 * 3600.0
    wait_s: float = 1.0
    max_wait_s: float = 300.0
    lost: Literal["fail", "resubmit"] = "fail"
    lost_grace_s: float = 60.0
    call_s: float = 120.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "attempts", whole("attempts", self.attempts, least=1))
        if self.call_s == 0:
            raise InvalidInputError("call_s is 0: no call of a client would have an answer in time.")
        for name in ("give_up_s", "wait_s", "max_wait_s", "lost_grace_s", "call_s"):
            object.__setattr__(
                self, name, _amount(name, getattr(self, name), "a number of seconds, 0 or more")
            )
        if self.lost not in ("fail", "resubmit"):
            raise InvalidInputError(f"lost is {self.lost!r}; it can be 'fail' or 'resubmit'.")


@dataclass(frozen=True)
class IbmBackend:
    """A backend of IBM Quantum Platform by its name, see ``BackendSpec.ibm``.

    Attributes:
        name: Of the backend.
        instance: Name or CRN of the instance that pays; ``None``: the account's, or one that has the backend.
        channel: As ``QiskitRuntimeService`` takes it; ``None``: the account's.
        url: Of the service; ``None``: the account's.
        sampler: ``"executor"`` submits through ``executor_sampler.Sampler``, ``"sampler"`` through ``SamplerV2``,
            ``None`` through the former where the installed client has it.
        mode: ``"batch"`` and ``"session"`` open one of these and send all jobs there.
        sampler_options: Options of the sampler: its options object, or a mapping; picklable.
        use_fractional_gates: As ``QiskitRuntimeService.backend`` takes it.
    """

    name: str
    instance: str | None = None
    channel: str | None = None
    url: str | None = None
    sampler: Literal["executor", "sampler"] | None = None
    mode: Literal["job", "batch", "session"] = "job"
    sampler_options: Any = None
    use_fractional_gates: bool | None = False

    def __post_init__(self) -> None:
        for field_name in ("name", "instance", "channel", "url"):
            value: object = getattr(self, field_name)
            if value is None and field_name != "name":
                continue
            if not isinstance(value, str) or value.strip() == "":
                hint = "give a text" if field_name == "name" else "give a text or None"
                raise InvalidInputError(f"{field_name} of the IBM backend is {value!r}; {hint}.")
        if self.channel not in (None, "ibm_quantum_platform", "ibm_cloud"):
            raise InvalidInputError(
                f"channel is {self.channel!r}; it can be 'ibm_quantum_platform', 'ibm_cloud' or None."
            )
        if self.sampler not in (None, "executor", "sampler"):
            raise InvalidInputError(f"sampler is {self.sampler!r}; it can be 'executor', 'sampler' or None.")
        if self.mode not in ("job", "batch", "session"):
            raise InvalidInputError(f"mode is {self.mode!r}; it can be 'job', 'batch' or 'session'.")
        if self.use_fractional_gates not in (None, True, False):
            raise InvalidInputError(
                f"use_fractional_gates is {self.use_fractional_gates!r}; it can be True, False or None."
            )


@dataclass(frozen=True)
class BackendSpec:
    """A backend and everything that the backend object itself can't tell.

    Attributes:
        backend_or_factory: A name (``"aer"``, ``"fake_manila"``, ``"module:factory"``), a ``BackendV2``, a
            ``BaseSamplerV2``, or a picklable callable without arguments that makes one. A factory is called
            once in each process that needs it, and serves for what can't be pickled or exists only there (a
            GPU, a connection).
        name: What the backend is called in results; default: its own name.
        placement: ``"workers"`` simulates inside Ray tasks, as many as there are cores. ``"actor"`` submits jobs
            from one process of the cluster, under ``limits`` and ``quota``. ``None``: the simulators of
            Qiskit and Aer and the fake devices on workers, all else from the actor.
        limits: Of one job; the tighter of these and what the backend itself tells holds.
        quota: Of all jobs.
        account: A name for the quota, where several backends share it. Default: the backend has its own.
        weight: Share of the work that this backend takes while others have room too.
        resources: What one Ray task of this backend reserves.
        run_options: Further options of the backend's ``run`` (``{"method": "statevector"}``); an option
            that the backend doesn't list in its ``options`` is an error. Of a sampler: further arguments of its
            ``run``, and ``"mixed_shots"``: whether one job may hold circuits with different numbers of shots, where
            the sampler isn't one of those that are known to refuse this.
        transpile: In place of the task's ``RunOptions.transpile``.
    """

    backend_or_factory: Any
    name: str | None = None
    placement: Literal["workers", "actor"] | None = None
    limits: Limits = field(default_factory=Limits)
    quota: Quota = field(default_factory=Quota)
    account: str | None = None
    weight: float = 1.0
    resources: Resources = field(default_factory=Resources)
    run_options: Mapping[str, Any] = field(default_factory=dict)
    transpile: TranspileOptions | None = None

    def __post_init__(self) -> None:
        name: object = self.name
        if name is not None and (not isinstance(name, str) or name == ""):
            raise InvalidInputError(f"name of BackendSpec is {self.name!r}; give a text or None.")
        if self.placement not in (None, "workers", "actor"):
            raise InvalidInputError(f"placement is {self.placement!r}; it can be 'workers', 'actor' or None.")
        account: object = self.account
        if account is not None and (not isinstance(account, str) or account == ""):
            raise InvalidInputError(f"account is {self.account!r}; give a text or None.")
        for field_name, kind in (("limits", Limits), ("quota", Quota), ("resources", Resources)):
            value = getattr(self, field_name)
            if not isinstance(value, kind):
                raise InvalidInputError(
                    f"{field_name} is a {type(value).__name__}. Give {kind.__name__}(...)."
                )
        weight = _amount("weight", self.weight, "a number above 0")
        if weight == 0:
            raise InvalidInputError("weight is 0; leave the backend out of backends instead.")
        object.__setattr__(self, "weight", weight)
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

    def __repr__(self) -> str:
        """What was said, but for what may hold a token: backends and factories are named, options too.

        >>> BackendSpec(partial(int, "a token"), run_options={"key": "a token"}, weight=3.0)
        BackendSpec(int, weight=3.0, run_options={'key': ...})
        """
        given = self.backend_or_factory
        while isinstance(given, partial):
            given = given.func
        name = getattr(given, "__name__", type(given).__name__)
        told = [repr(given) if isinstance(given, str | IbmBackend) else str(name)]
        options = ", ".join(f"{key!r}: ..." for key in self.run_options)
        for one in fields(self)[1:]:
            value = getattr(self, one.name)
            standard = one.default_factory() if one.default_factory is not MISSING else one.default
            if value != standard:
                told.append(f"{one.name}={f'{{{options}}}' if one.name == 'run_options' else repr(value)}")
        return f"BackendSpec({', '.join(told)})"

    @classmethod
    def ibm(
        cls,
        backend: str,
        /,
        *,
        instance: str | None = None,
        channel: str | None = None,
        url: str | None = None,
        sampler: Literal["executor", "sampler"] | None = None,
        mode: Literal["job", "batch", "session"] = "job",
        options: Any = None,
        use_fractional_gates: bool | None = False,
        **spec: Any,
    ) -> BackendSpec:
        """A backend of IBM Quantum Platform.

        Its API key is no argument: the process that submits takes it from the saved account or from
        ``QISKIT_IBM_TOKEN``, so that it stands in no message, log or store.

        Args:
            backend: Its name, such as ``"ibm_fez"``.
            instance: See ``IbmBackend``, as for all up to ``use_fractional_gates``.
            channel: See there.
            url: See there.
            sampler: See there.
            mode: See there.
            options: Its ``sampler_options``.
            use_fractional_gates: See there.
            spec: Fields of ``BackendSpec``.

        Raises:
            InvalidInputError: An argument is wrong.

        >>> BackendSpec.ibm("ibm_fez", quota=Quota(max_pending=10)).backend_or_factory.name
        'ibm_fez'
        """
        given = IbmBackend(backend, instance, channel, url, sampler, mode, options, use_fractional_gates)
        return cls(given, **spec)


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
            worker is made good within seconds. Where more than 250 chunks would end in a second they are longer
            (1,000 CPUs: 4 s), so that the driver keeps up.
        max_chunk: Most circuits in one chunk; ``None`` is 10,000.
        max_in_flight: Most chunks submitted to Ray at once; ``None`` is two a slot: one runs, one waits.
        crash_retries: How often a circuit that stands alone in its chunk is tried again after the process
            that ran it died.
        cancel_grace_s: How long a cancelled task waits for chunks that are running before it ends their
            worker processes.
        retry: What to do about services that refuse, fail or don't answer.
        budget: Of this task over all services, resumes included.
        timeout_s: The task is cancelled after so many seconds; ``None``: never.
        job_timeout_s: A job of a service is cancelled so many seconds after it was submitted; ``None``: never.
    """

    transpile: TranspileOptions = field(default_factory=TranspileOptions)
    max_failures: int = 1000
    on_failure: Literal["report", "raise"] = "report"
    chunk_s: float = 1.5
    max_chunk: int | None = None
    max_in_flight: int | None = None
    crash_retries: int = 2
    cancel_grace_s: float = 5.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    budget: Budget | None = None
    timeout_s: float | None = None
    job_timeout_s: float | None = None

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
        for name in ("timeout_s", "job_timeout_s"):
            if getattr(self, name) is not None:
                value = _amount(name, getattr(self, name), "a number of seconds above 0")
                if value == 0:
                    raise InvalidInputError(f"{name} is 0; give a number of seconds above 0, or None.")
                object.__setattr__(self, name, value)
        if not isinstance(self.transpile, TranspileOptions):
            raise InvalidInputError(f"transpile is {self.transpile!r}; give TranspileOptions(...).")
        if not isinstance(self.retry, RetryPolicy):
            raise InvalidInputError(f"retry is a {type(self.retry).__name__}. Give RetryPolicy(...).")
        if self.budget is not None and not isinstance(self.budget, Budget):
            raise InvalidInputError(f"budget is a {type(self.budget).__name__}. Give Budget(...).")


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
