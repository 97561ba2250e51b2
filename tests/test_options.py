"""Options are checked on construction: each check, and what it says."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from ray_qjm.errors import InvalidInputError
from ray_qjm.options import (
    BackendSpec,
    IbmBackend,
    Limits,
    Quota,
    Resources,
    RetryPolicy,
    RunOptions,
    TranspileOptions,
    whole,
)

LEVELS = "it can be one of 'auto', 'off', 0, 1, 2, 3."
AMOUNT = "it must be a number of 0 or more."
SECONDS = "it must be a number of seconds, 0 or more."

BAD: list[tuple[Callable[..., object], dict[str, Any], str]] = [
    *(
        (TranspileOptions, {"level": level}, f"level is {level!r}; {LEVELS}")
        for level in ("fast", 4, -1, True, False, 1.0, None, np.True_, np.int64(4), [1], np.array([1, 2]))
    ),
    (
        TranspileOptions,
        {"seed": -1},
        "seed of TranspileOptions is -1; it must be a whole number of 0 or more.",
    ),
    (
        TranspileOptions,
        {"seed": 1.5},
        "seed of TranspileOptions is 1.5 (float); it must be a whole number of 0 or more.",
    ),
    (
        TranspileOptions,
        {"options": {"target": 1, "routing_method": "sabre", "backend": 2}},
        "options of TranspileOptions may not hold ['backend', 'target']: level and seed are fields of "
        "TranspileOptions, and backend and target follow from the backend that takes the circuit.",
    ),
    (TranspileOptions, {"pass_manager": 3}, "pass_manager is a int; give a PassManager or a callable."),
    *(
        (kind, {name: value}, f"{name} is {value!r}; {what}")
        for kind, name, what in (
            (Resources, "num_cpus", AMOUNT),
            (Resources, "num_gpus", AMOUNT),
            (RunOptions, "chunk_s", SECONDS),
            (RunOptions, "cancel_grace_s", SECONDS),
        )
        for value in (-1, -0.5, math.inf, math.nan, True, np.True_, "1", None, 1j)
    ),
    (
        Resources,
        {"num_cpus": 0, "num_gpus": 0.0},
        "num_cpus and num_gpus are both 0: nothing would bound the tasks running at once.",
    ),
    *(
        (
            kind,
            {name: value},
            f"{name} is {value!r} ({type(value).__name__}); it must be a whole number of {least} or more.",
        )
        for kind, name, least in (
            (Resources, "memory_bytes", 1),
            (RunOptions, "max_failures", 1),
            (RunOptions, "crash_retries", 0),
            (RunOptions, "max_chunk", 1),
            (RunOptions, "max_in_flight", 1),
        )
        for value in (True, np.True_, 2.0, "2", np.float64(2))
    ),
    *(
        (kind, {name: least - 1}, f"{name} is {least - 1}; it must be a whole number of {least} or more.")
        for kind, name, least in (
            (Resources, "memory_bytes", 1),
            (RunOptions, "max_failures", 1),
            (RunOptions, "crash_retries", 0),
            (RunOptions, "max_chunk", 1),
            (RunOptions, "max_in_flight", 1),
        )
    ),
    (
        RunOptions,
        {"max_failures": None},
        "max_failures is None (NoneType); it must be a whole number of 1 or more.",
    ),
    (RunOptions, {"on_failure": "ignore"}, "on_failure is 'ignore'; it can be 'report' or 'raise'."),
    (RunOptions, {"transpile": "auto"}, "transpile is 'auto'; give TranspileOptions(...)."),
    *(
        (
            BackendSpec,
            {"backend_or_factory": "aer", "name": name},
            f"name of BackendSpec is {name!r}; give a text or None.",
        )
        for name in ("", 3, b"aer")
    ),
    (
        BackendSpec,
        {"backend_or_factory": "aer", "run_options": {"shots": 1, "memory": True, "method": "statevector"}},
        "run_options may not hold ['memory', 'shots']: shots, memory and seed are arguments of run().",
    ),
    *(
        (IbmBackend, {"name": "ibm_fez", field: value}, f"{field} of the IBM backend is {value!r}; {hint}.")
        for field, value, hint in (
            ("name", "", "give a text"),
            ("name", None, "give a text"),
            ("instance", " ", "give a text or None"),
            ("url", 3, "give a text or None"),
        )
    ),
    (
        IbmBackend,
        {"name": "ibm_fez", "channel": "ibm_quantum"},
        "channel is 'ibm_quantum'; it can be 'ibm_quantum_platform', 'ibm_cloud' or None.",
    ),
    (
        IbmBackend,
        {"name": "ibm_fez", "sampler": "SamplerV2"},
        "sampler is 'SamplerV2'; it can be 'executor', 'sampler' or None.",
    ),
    (
        IbmBackend,
        {"name": "ibm_fez", "mode": "sessions"},
        "mode is 'sessions'; it can be 'job', 'batch' or 'session'.",
    ),
    (
        IbmBackend,
        {"name": "ibm_fez", "use_fractional_gates": "yes"},
        "use_fractional_gates is 'yes'; it can be True, False or None.",
    ),
]


@pytest.mark.parametrize(("kind", "arguments", "message"), BAD)
def test_wrong_option_is_refused_with_its_name_value_and_cure(
    kind: Callable[..., object], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        kind(**arguments)
    assert str(caught.value) == message


def test_an_ibm_backend_is_named_without_its_client() -> None:
    spec = BackendSpec.ibm(
        "ibm_fez",
        instance="mine",
        mode="batch",
        options={"default_shots": 1},
        quota=Quota(max_pending=5),
        name="fez",
    )
    assert spec == BackendSpec(
        IbmBackend("ibm_fez", "mine", mode="batch", sampler_options={"default_shots": 1}),
        quota=Quota(max_pending=5),
        name="fez",
    )
    with pytest.raises(InvalidInputError, match="placement is"):
        BackendSpec.ibm("ibm_fez", placement="nowhere")
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_defaults_are_what_their_pages_say() -> None:
    options = RunOptions()
    assert options == RunOptions(
        TranspileOptions("auto", None, {}, None), 1000, "report", 1.5, None, None, 2, 5.0, RetryPolicy()
    )
    assert BackendSpec("aer") == BackendSpec(
        "aer", None, None, Limits(), Quota(3, None, None), None, 1.0, Resources(1, 0, None), {}, None
    )


@pytest.mark.parametrize("level", ["auto", "off", 0, 1, 2, 3, np.int64(3), np.uint8(0)])
def test_each_level_is_taken(level: Any) -> None:
    taken = TranspileOptions(level=level).level
    assert taken == level and type(taken) in (str, int)


@pytest.mark.parametrize("number", [5, np.int8(5), np.int64(5), np.uint64(5)])
def test_numpy_integers_become_pythons(number: Any) -> None:
    options = RunOptions(max_failures=number, max_chunk=number, max_in_flight=number, crash_retries=number)
    resources = Resources(num_cpus=number, num_gpus=number, memory_bytes=number)
    values = [
        *(options.max_failures, options.max_chunk, options.max_in_flight, options.crash_retries),
        *(resources.num_cpus, resources.num_gpus, resources.memory_bytes, TranspileOptions(seed=number).seed),
    ]
    assert values == [5] * 8
    assert {type(value) for value in values} == {int}


@pytest.mark.parametrize("number", [0.5, np.float32(0.5), np.float64(0.5), Fraction(1, 2)])
def test_other_real_numbers_become_pythons(number: Any) -> None:
    resources = Resources(num_cpus=number, num_gpus=number)
    options = RunOptions(chunk_s=number, cancel_grace_s=number)
    values = [resources.num_cpus, resources.num_gpus, options.chunk_s, options.cancel_grace_s]
    assert values == [0.5] * 4
    assert {type(value) for value in values} == {float}


def test_smallest_values_are_taken() -> None:
    options = RunOptions(
        max_failures=1, crash_retries=0, max_chunk=1, max_in_flight=1, chunk_s=0, cancel_grace_s=0
    )
    assert options.crash_retries == 0 and options.chunk_s == 0
    assert Resources(num_cpus=0, num_gpus=0.25, memory_bytes=1).num_gpus == 0.25
    assert TranspileOptions(seed=0).seed == 0


class Manager:
    """As Qiskit's PassManager: no callable, but it has ``run``."""

    def run(self, circuit: object) -> object:
        return circuit


@pytest.mark.parametrize("manager", [Manager(), len, None])
def test_pass_manager_may_be_an_object_with_run_or_a_callable(manager: object) -> None:
    assert TranspileOptions(pass_manager=manager).pass_manager is manager


def test_options_do_not_change_with_the_dict_they_were_made_from() -> None:
    given: dict[str, Any] = {"method": "statevector"}
    spec, transpile = BackendSpec("aer", run_options=given), TranspileOptions(options=given)
    given["shots"] = 5
    assert spec.run_options == transpile.options == {"method": "statevector"}


@pytest.mark.parametrize("options", [RunOptions(), TranspileOptions(), Resources(), BackendSpec("aer")])
def test_options_are_frozen_and_can_be_pickled(options: Any) -> None:
    assert pickle.loads(pickle.dumps(options)) == options
    name = next(iter(vars(options)))
    with pytest.raises(FrozenInstanceError):
        setattr(options, name, None)


def test_whole_number_is_held_to_both_bounds() -> None:
    assert [whole("shots", value, least=1, most=10) for value in (1, 10, np.int64(4))] == [1, 10, 4]
    for value in (0, 11):
        with pytest.raises(InvalidInputError) as caught:
            whole("shots", value, least=1, most=10)
        assert str(caught.value) == f"shots is {value}; it must be a whole number from 1 to 10."
