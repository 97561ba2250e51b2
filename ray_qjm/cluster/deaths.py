"""What Ray's errors mean for circuits; Ray's own texts run over many lines and name machines."""

from __future__ import annotations

from ray_qjm.errors import WorkerDiedError

# By name, so that the coordinator needs no Ray: nor do its tests.

#: No other chunk would be spared these.
_NOT_THE_CHUNK = frozenset({"RuntimeEnvSetupError"})

_DEATHS = {
    "WorkerCrashedError": "its worker process died (killed, or crashed in native code)",
    "OutOfMemoryError": "its worker was killed because the node ran out of memory",
    "NodeDiedError": "its node died",
    "LocalRayletDiedError": "its node died",
    "ObjectLostError": "its circuits were lost with the node that held them",
    "OwnerDiedError": "its circuits were lost with the process that held them",
}


def dooms_all(error: object) -> bool:
    """Whether no other chunk would fare better."""
    return type(error).__name__ in _NOT_THE_CHUNK


def reason_for(error: BaseException) -> tuple[str, str]:
    """Type and message for the row of a circuit whose chunk gave no outcome."""
    for kind in type(error).__mro__:
        if kind.__name__ in _DEATHS:
            return WorkerDiedError.__name__, f"{_DEATHS[kind.__name__]}, each time it was tried"
    cause = getattr(error, "cause", None) or error
    text = str(cause).strip().splitlines()
    return type(cause).__name__, text[-1] if text else "no message"
