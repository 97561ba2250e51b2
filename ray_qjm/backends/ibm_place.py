"""Where jobs for IBM Quantum Platform go: all that another process needs to connect there, but no credentials."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ray_qjm.errors import InvalidInputError
from ray_qjm.options import IbmBackend

Mode = Literal["job", "batch", "session"]
SamplerKind = Literal["executor", "sampler"]

#: API keys are random and long: what this adds is that a stolen hash says nothing without much work a guess.
_HASH_ROUNDS = 50_000
_CLIENT = "qiskit_ibm_runtime"


@dataclass(frozen=True)
class IbmPlace:
    """A backend of IBM Quantum Platform as seen by one account, and how jobs are sent there.

    Picklable; the API key isn't in it. Whoever connects takes its own, from the environment or from the accounts
    saved on its node, and makes sure by a hash that it is the same one.

    Attributes:
        backend: Its name.
        instance: Name or CRN; ``None``: whichever instance of the account has the backend.
        channel: As ``QiskitRuntimeService`` takes it; ``None``: the account's.
        url: Of the service; ``None``: the account's.
        key: Hash of the API key; ``None``: any account that is found there will do.
        use_fractional_gates: Of the backend's target, see ``QiskitRuntimeService.backend``.
        calibration_id: Of the backend, if it isn't the current one.
        mode: How jobs are sent.
        session_id: Of a batch or session that is open; ``None``: a new one is opened where there is need of one.
        sampler: ``"executor"`` is ``executor_sampler.Sampler``, ``"sampler"`` is ``SamplerV2``, ``None`` the
            former if the installed client has it.
        options: Of the sampler: its options object, a mapping, or ``None``.
    """

    backend: str
    instance: str | None = None
    channel: str | None = None
    url: str | None = None
    key: str | None = None
    use_fractional_gates: bool | None = False
    calibration_id: str | None = None
    mode: Mode = "job"
    session_id: str | None = None
    sampler: SamplerKind | None = None
    options: Any = field(default=None, hash=False)

    @classmethod
    def of(cls, given: Any) -> IbmPlace:
        """The place that a user's object stands for.

        Args:
            given: An ``IBMBackend``, a ``Batch`` or ``Session``, a ``SamplerV2`` or ``executor_sampler.Sampler``
                over one of these, or what ``BackendSpec.ibm`` makes.

        Raises:
            InvalidInputError: It is none of these.
        """
        if isinstance(given, IbmPlace):
            return given
        if isinstance(given, IbmBackend):
            return _of_name(given)
        kinds = _kinds() if type(given).__module__.partition(".")[0] == _CLIENT else {}
        if isinstance(given, kinds.get("backend", ())):
            return _of_backend(given)
        if isinstance(given, kinds.get("session", ())):
            return _of_session(given, kinds)
        for name in ("executor", "sampler"):
            if isinstance(given, kinds.get(name, ())):
                if isinstance(given.mode, kinds["session"]):
                    place = _of_session(given.mode, kinds)
                elif isinstance(given.backend(), kinds["backend"]):
                    place = _of_backend(given.backend())
                else:
                    break  # a local simulation
                kind: SamplerKind = "executor" if name == "executor" else "sampler"
                return replace(place, sampler=kind, options=given.options)
        raise InvalidInputError(
            f"a {type(given).__name__} is no backend of IBM Quantum Platform. Give an IBMBackend, a sampler over one, "
            "or BackendSpec.ibm(name)."
        )

    @property
    def identity(self) -> str:
        """Tells backends, instances and accounts apart; holds no secrets.

        An instance counts as another one when it is called by its name than when it is called by its CRN.
        """
        parts = (self.channel, self.url, self.instance, self.backend, self.key)
        return " ".join(part or "-" for part in parts)


def fits(given: Any) -> bool:
    """Whether ``IbmPlace.of`` understands an object; imports the client only if the object is one of the client's."""
    try:
        IbmPlace.of(given)
    except InvalidInputError:
        return False
    return True


def key_hash(api_key: str) -> str:
    """What stands for an API key where the key itself may not.

    >>> key_hash("a") == key_hash("a") != key_hash("b")
    True
    """
    digest = hashlib.pbkdf2_hmac("sha256", api_key.encode(), b"ray_qjm/ibm", _HASH_ROUNDS, 8)
    return digest.hex()


def local_accounts(channel: str | None) -> Iterator[tuple[str | None, Mapping[str, Any]]]:
    """Accounts that this process can use, without asking anybody else.

    Args:
        channel: As ``QiskitRuntimeService`` takes it.

    Yields:
        First ``None`` and the one that the client takes by default, in which the environment comes before what
        is saved; then names and accounts that are saved. Each as ``QiskitRuntimeService.active_account`` tells it.
    """
    from qiskit_ibm_runtime import QiskitRuntimeService
    from qiskit_ibm_runtime.accounts import AccountManager

    try:
        default: Any = AccountManager.get(channel=channel)
    except Exception:  # there is none, or the file can't be read
        default = None
    if default is not None:
        yield None, default.to_saved_format()
    try:
        saved = QiskitRuntimeService.saved_accounts()
    except Exception:
        return
    yield from saved.items()


def _kinds() -> dict[str, Any]:
    """The client's classes; ``executor`` is missing in old clients."""
    from qiskit_ibm_runtime import IBMBackend, SamplerV2, Session

    kinds: dict[str, Any] = {"backend": IBMBackend, "session": Session, "sampler": SamplerV2}
    try:
        from qiskit_ibm_runtime.executor_sampler import Sampler
    except ImportError:
        return kinds
    return {**kinds, "executor": Sampler}


def _of_name(given: IbmBackend) -> IbmPlace:
    account: Mapping[str, Any] = next((account for _, account in local_accounts(given.channel)), {})
    token = account.get("token")
    return IbmPlace(
        backend=given.name,
        instance=given.instance or account.get("instance"),
        channel=given.channel or account.get("channel"),
        url=given.url or account.get("url"),
        key=key_hash(token) if token else None,
        use_fractional_gates=given.use_fractional_gates,
        mode=given.mode,
        sampler=given.sampler,
        options=given.sampler_options,
    )


def _of_backend(backend: Any) -> IbmPlace:
    service = backend.service
    account = service.active_account() or {}
    token = account.get("token")
    return IbmPlace(
        backend=str(backend.name),
        instance=getattr(backend, "_instance", None) or service.active_instance(),
        channel=account.get("channel"),
        url=account.get("url"),
        key=key_hash(token) if token else None,
        use_fractional_gates=getattr(backend.options, "use_fractional_gates", False),
        calibration_id=getattr(backend, "calibration_id", None),
    )


def _of_session(session: Any, kinds: Mapping[str, Any]) -> IbmPlace:
    backend = getattr(session, "_backend", None)
    if not isinstance(backend, kinds["backend"]):
        raise InvalidInputError(
            "the batch or session is none of IBM Quantum Platform's: it simulates by itself."
        )
    # The client names the classes of both ``Batch`` and ``Session`` so, whose ids look alike.
    mode: Mode = "batch" if type(session).__name__ == "Batch" else "session"
    return replace(_of_backend(backend), mode=mode, session_id=session.session_id)
