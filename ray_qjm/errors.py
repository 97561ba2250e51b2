"""Every error and warning of ray_qjm, split by what the caller can do about it.

Each error carries its facts as fields and defines ``__reduce__``: an exception whose ``__init__``
takes fields and lacks it would reach the driver as Ray's ``UnserializableException``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class RayQjmError(Exception):
    """Root of the tree: ``except RayQjmError`` catches whatever this package raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from the message and the fields, whatever ``__init__`` asks for."""
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(kind: type[BaseException], args: tuple[Any, ...], fields: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


# Fix the input: raised before anything runs.


class InvalidInputError(RayQjmError, ValueError):
    """An argument is wrong; nothing was run. The message names it, its value and the cure."""


class UnknownBackendError(InvalidInputError):
    """A backend name that nothing answers to; the message lists the known ones."""


class SourceError(RayQjmError):
    """The circuits can't be had at all: the source can't be pickled, loaded on a worker, or read.

    It ends the task: it is not a million failed circuits.
    """


class BackendLoadError(RayQjmError):
    """A backend can't be made on a worker, or isn't what it should be there; it ends the task."""


# One circuit: the reason that stands in its row.


class CircuitFailedError(RayQjmError):
    """A circuit has no counts; raised when they are asked for.

    Attributes:
        circuit: Its row number.
        status: ``"failed"`` or ``"cancelled"``.
        error_type: Name of the original exception's type.
        error: Its message.
    """

    def __init__(self, circuit: int, status: str, error_type: str, error: str) -> None:
        self.circuit = circuit
        self.status = status
        self.error_type = error_type
        self.error = error
        what = "was cancelled" if status == "cancelled" else "has no counts"
        super().__init__(f"circuit {circuit} {what}. Reason: {error_type}: {error}")


class UnsupportedCircuitError(RayQjmError):
    """A circuit that this backend, or this package, can't run as it is; the message says why."""


class BackendResultError(RayQjmError):
    """A backend ended a job without the counts that it should have: the message quotes it."""


class WorkerDiedError(RayQjmError):
    """The process that ran a circuit died each time (out of memory, a crash in native code)."""


class PayloadTooLargeError(RayQjmError):
    """A circuit is larger than a job of the service may be."""


class NoCreditError(RayQjmError):
    """A budget, of the task or of the account, or the provider's own credit, doesn't cover the circuit's job."""


class JobFailedError(RayQjmError):
    """A service accepted a job and ended it without a result; the message quotes its reason."""


class JobRanTooLongError(JobFailedError):
    """A service ended a job because it ran for longer than it allows."""


class JobTimeoutError(RayQjmError):
    """A job wasn't done within ``RunOptions.job_timeout_s``."""


class JobCancelledError(RayQjmError):
    """A service, or somebody at it, cancelled a job; we didn't."""


class JobNotCancelledError(RayQjmError):
    """The task was cancelled, and the service didn't say that it cancelled the job: it may still run."""


class JobLostError(RayQjmError):
    """Whether a job was accepted can't be told, or its result can't be had any more: it may be billed."""


class JobResultError(RayQjmError):
    """A job is done, and its result couldn't be had for ``RetryPolicy.give_up_s``; it may be had later."""


class BackendClosedError(RayQjmError):
    """All jobs of a backend failed, one after the other: no more were sent there."""


class JobAbsentError(RayQjmError):
    """A job never reached its service, as far as that can be known."""


class DeskGoneError(RayQjmError):
    """The process that submits an account's jobs gave no answer any more."""


class AmbiguousCircuitError(RayQjmError, LookupError):
    """Several circuits answer to one name or object.

    Attributes:
        circuits: Their row numbers.
    """

    def __init__(self, what: str, circuits: Sequence[int]) -> None:
        self.circuits = list(circuits)
        shown = ", ".join(map(str, self.circuits[:10])) + (", ..." if len(self.circuits) > 10 else "")
        super().__init__(f"{what} stands for {len(self.circuits)} circuits ({shown}); ask by row number.")


class UnknownCircuitError(InvalidInputError, LookupError):
    """No row answers to this name or circuit."""


class UnknownRunError(InvalidInputError, LookupError):
    """A job manager knows no such run, or several that are called so; the message says where it looked."""


# The store.


class StoreError(RayQjmError):
    """Something is wrong with a store; what was stored in it is not lost."""


class StoreUnavailableError(StoreError):
    """The store went on answering errors (a full disk, a network that fails); what was stored is safe."""


class StoreMismatchError(StoreError, InvalidInputError):
    """The store holds another task than the one that is asked for.

    Attributes:
        field: What differs.
        stored: What it is in the store.
        given: What it is in this call.
    """

    def __init__(self, field: str, stored: object, given: object, message: str) -> None:
        self.field = field
        self.stored = stored
        self.given = given
        super().__init__(message)


class StoreInUseError(StoreError):
    """Another process runs the task of this store; the message says which."""


class StoreTakenError(StoreError):
    """Another process has taken the store over while this one ran its task: it goes on there."""


class StoreDamagedError(StoreError):
    """Something in the store is gone, torn, or of a newer version of this package."""


# The task as a whole.


class TaskFailedError(RayQjmError):
    """The task ended without the counts that were asked for.

    Attributes:
        result: The ``TaskResult`` of what was finished, or ``None`` if there is none.
    """

    def __init__(self, message: str, result: Any = None) -> None:
        self.result = result
        super().__init__(message)


class TaskCancelledError(TaskFailedError):
    """The task was cancelled; ``result`` holds what was finished."""


class ResultStreamedError(RayQjmError):
    """``result()`` after ``stream()``: the parts were handed over and not kept."""


class WaitTimeoutError(RayQjmError, TimeoutError):
    """A wait ended before the task did; the task goes on. The message quotes its status."""


class InvalidTransitionError(RayQjmError):
    """A state machine met an event that its table doesn't list: a bug of ours, never the user's."""


class TaskInterrupted(KeyboardInterrupt):
    """Ctrl-C during ``run``: the task was cancelled, and ``result`` holds what was finished.

    A ``KeyboardInterrupt`` and not a ``RayQjmError``: ``except Exception`` in the caller's loop must
    not swallow a Ctrl-C.

    Attributes:
        result: The partial ``TaskResult``.
    """

    def __init__(self, message: str, result: Any) -> None:
        self.result = result
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        """As ``RayQjmError``'s."""
        return (_rebuild, (type(self), self.args, self.__dict__))


class PartialResultWarning(UserWarning):
    """Some circuits have no counts; the message says how many and where the reasons stand.

    Attributes:
        result: The ``TaskResult``, for those who turn warnings into errors.
    """

    def __init__(self, *args: Any, result: Any = None) -> None:
        self.result = result
        super().__init__(*args)
