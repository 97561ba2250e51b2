"""What may stand in ``backends=``."""

from __future__ import annotations

import functools
import threading
from typing import Any

import cloudpickle
import pytest
from qiskit_aer import AerSimulator

from ray_qjm.backends.registry import MakeAdapter, check_loaded, check_options, choose
from ray_qjm.errors import InvalidInputError, UnknownBackendError
from ray_qjm.options import BackendSpec
from tests.backends.strange import Strange
from tests.backends.test_desk import Scene


def make() -> Strange:
    return Strange()


def make_with(token: str) -> Strange:
    return Strange()


def not_a_backend() -> int:
    return 3


NUMBER = 5


def test_names_are_what_the_user_wrote() -> None:
    names = [choice.name for choice in choose(["aer", "basic", "fake_manila", AerSimulator()])]
    assert names == ["aer", "basic", "fake_manila", "aer_simulator"]


def test_one_backend_needs_no_list() -> None:
    assert [choice.name for choice in choose("aer")] == ["aer"]
    assert [choice.name for choice in choose(AerSimulator())] == ["aer_simulator"]
    assert [choice.name for choice in choose(BackendSpec("aer", name="mine"))] == ["mine"]


def test_equal_names_are_told_apart() -> None:
    assert [choice.name for choice in choose(["aer", "aer", AerSimulator(), AerSimulator()])] == [
        "aer", "aer#2", "aer_simulator", "aer_simulator#2"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "given", ["fake_manila", "tests.backends.test_registry:make", make, AerSimulator(method="stabilizer")]
)
def test_loader_travels_and_makes_the_backend(given: Any) -> None:
    (choice,) = choose([given])
    loaded = check_loaded(cloudpickle.loads(cloudpickle.dumps(choice.load))(), "it")
    if choice.backend is not None:
        assert loaded.name == choice.backend.name
        assert loaded.options == choice.backend.options


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("fake_manilla", "Did you mean 'fake_manila'"),
        ("nowhere:make", "module 'nowhere' can't be imported"),
        ("tests.backends.test_registry:missing", "has no 'missing'"),
        ("tests.backends.test_registry:NUMBER", "'NUMBER' is a int, not a factory"),
    ],
)
def test_unknown_names_say_what_is_wrong(given: str, message: str) -> None:
    with pytest.raises(UnknownBackendError, match=message):
        choose(given)


@pytest.mark.parametrize("given", [3, None, {"aer": 1}.items()])
def test_what_is_no_backend_is_refused(given: Any) -> None:
    with pytest.raises(InvalidInputError, match="Give names such as 'aer'"):
        choose([given])


def test_backend_that_cannot_be_pickled_asks_for_a_factory() -> None:
    backend = Strange()
    backend.lock = threading.Lock()
    with pytest.raises(InvalidInputError, match=r"backend strange can't be pickled.*BackendSpec\(factory\)"):
        choose([backend])


def test_run_options_are_those_that_the_backend_lists() -> None:
    with pytest.raises(
        InvalidInputError, match=r"run_options of aer has 'metod', which it doesn't know.*method"
    ):
        choose(BackendSpec("aer", run_options={"metod": "statevector"}))
    with pytest.raises(InvalidInputError, match="no option 'memory'"):
        choose([Strange()], memory=True)
    check_options(Strange(options=("memory",)), "strange", {}, memory=True)


def test_options_of_an_adapter_of_the_users_own_belong_to_its_factory() -> None:
    adapter = Scene().adapter
    assert MakeAdapter(lambda: adapter, "own", {})() is adapter
    with pytest.raises(InvalidInputError, match=r"run_options of own has 'colour'.*takes none"):
        MakeAdapter(lambda: adapter, "own", {"colour": 1})()


def test_what_may_hold_a_token_is_not_shown() -> None:
    spec = BackendSpec(functools.partial(make_with, token="t0k3n"), run_options={"key": "t0k3n"})
    backend = Strange()
    backend.token = "t0k3n"
    shown = [repr(spec), repr(choose(spec)[0]), repr(choose(BackendSpec(backend, placement="actor"))[0])]
    assert shown[0] == "BackendSpec(make_with, run_options={'key': ...})"
    assert "t0k3n" not in "".join(shown)
    assert repr(BackendSpec("aer", weight=2)) == "BackendSpec('aer', weight=2)"


def test_factory_of_something_else_is_refused_on_the_worker() -> None:
    with pytest.raises(InvalidInputError, match="made a int, not a BackendV2"):
        check_loaded(not_a_backend(), "it")


def test_factories_share_a_desk_if_one_function_makes_what_they_reach() -> None:
    def account(factory: Any) -> str | None:
        return choose([BackendSpec(factory, placement="actor")])[0].account

    of_make = account(make)
    assert of_make is not None and ".make" in of_make
    assert account(functools.partial(make)) == of_make
    assert account(functools.partial(functools.partial(not_a_backend))) == account(not_a_backend) != of_make
    assert account(lambda: make()) != account(lambda: not_a_backend())
