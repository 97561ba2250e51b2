"""Every error comes through pickle with its message and its fields: they cross processes."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest

from ray_qjm import errors
from ray_qjm.errors import (
    AmbiguousCircuitError,
    CircuitFailedError,
    InvalidInputError,
    PartialResultWarning,
    RayQjmError,
    StoreMismatchError,
    TaskCancelledError,
    TaskFailedError,
    TaskInterrupted,
    UnknownBackendError,
    WaitTimeoutError,
)

#: Arguments of the classes that take more than a message.
ARGUMENTS: dict[type[BaseException], tuple[Any, ...]] = {
    CircuitFailedError: (0, "failed", "TypeError", "no gate"),
    AmbiguousCircuitError: ("name 'a'", range(12)),
    StoreMismatchError: ("shots", 5, 6, "the store holds another task"),
    TaskFailedError: ("4 of 9 circuits have no counts", {"rows": [1, 2]}),
    TaskCancelledError: ("cancelled", {"rows": [1, 2]}),
    TaskInterrupted: ("Ctrl-C", {"rows": [1, 2]}),
}

CLASSES: list[type[BaseException]] = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, BaseException) and kind.__module__ == errors.__name__
]

TRIPS: dict[str, Callable[[BaseException], Any]] = {
    "pickle 2": lambda e: pickle.loads(pickle.dumps(e, 2)),
    "pickle 5": lambda e: pickle.loads(pickle.dumps(e, 5)),
    "cloudpickle": lambda e: cloudpickle.loads(cloudpickle.dumps(e)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "twice": lambda e: pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(e)))),
}


def make(kind: type[BaseException]) -> BaseException:
    return kind(*ARGUMENTS.get(kind, ("circuits 5-9: what happened",)))


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("trip", TRIPS)
def test_error_comes_back_as_it_was(kind: type[BaseException], trip: str) -> None:
    error = make(kind)
    vars(error)["seen_by"] = "a worker"
    back = TRIPS[trip](error)
    assert type(back) is kind and back is not error
    assert str(back) == str(error) != ""
    assert back.args == error.args
    assert vars(back) == vars(error) != {}


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind not in ARGUMENTS])
def test_error_without_a_message_comes_back(kind: type[BaseException]) -> None:
    assert pickle.loads(pickle.dumps(kind())).args == ()


def test_field_set_later_comes_back() -> None:
    error = TaskFailedError("broken")
    error.result = [1]
    assert pickle.loads(pickle.dumps(error)).result == [1]


def test_class_of_another_module_comes_back_without_a_word_of_its_own() -> None:
    assert vars(pickle.loads(pickle.dumps(ToldError(3, 5)))) == {"start": 3, "stop": 5}
    assert str(pickle.loads(pickle.dumps(ToldError(3, 5)))) == "circuits 3-4"


class ToldError(RayQjmError):
    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        super().__init__(f"circuits {start}-{stop - 1}")


def test_one_clause_catches_all_errors_but_ctrl_c() -> None:
    assert [kind for kind in CLASSES if not issubclass(kind, RayQjmError)] == [
        PartialResultWarning,
        TaskInterrupted,
    ]
    assert not issubclass(TaskInterrupted, Exception)
    assert issubclass(TaskInterrupted, KeyboardInterrupt)


@pytest.mark.parametrize(
    ("kind", "parent"),
    [
        (InvalidInputError, ValueError),
        (UnknownBackendError, InvalidInputError),
        (AmbiguousCircuitError, LookupError),
        (WaitTimeoutError, TimeoutError),
        (TaskCancelledError, TaskFailedError),
        (PartialResultWarning, UserWarning),
    ],
)
def test_error_is_caught_as_what_it_is_in_python_too(
    kind: type[BaseException], parent: type[BaseException]
) -> None:
    assert issubclass(kind, parent)


def test_failed_circuit_tells_its_reason() -> None:
    failed = CircuitFailedError(0, "failed", "TypeError", "no gate")
    assert str(failed) == "circuit 0 has no counts. Reason: TypeError: no gate"
    cancelled = CircuitFailedError(7, "cancelled", "TaskCancelledError", "the task was cancelled")
    assert str(cancelled) == "circuit 7 was cancelled. Reason: TaskCancelledError: the task was cancelled"
    assert vars(failed) == {"circuit": 0, "status": "failed", "error_type": "TypeError", "error": "no gate"}


@pytest.mark.parametrize(
    ("number", "shown"),
    [(2, "0, 1"), (10, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"), (11, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...")],
)
def test_ambiguous_name_lists_its_first_ten_circuits(number: int, shown: str) -> None:
    error = AmbiguousCircuitError("name 'a'", range(number))
    assert str(error) == f"name 'a' stands for {number} circuits ({shown}); ask by row number."
    assert error.circuits == list(range(number))


def test_failed_task_may_have_no_result() -> None:
    assert TaskFailedError("broken").result is None
