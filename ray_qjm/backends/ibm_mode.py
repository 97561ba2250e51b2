"""What jobs for IBM Quantum Platform are sent to: the backend itself, or a batch or session over it."""

from __future__ import annotations

import threading
from typing import Any

from ray_qjm.backends.codes import causes
from ray_qjm.backends.ibm_place import IbmPlace
from ray_qjm.backends.ibm_session import OVERHEARD, Connection
from ray_qjm.errors import BackendLoadError

#: IBM's code for a batch or session that takes no more jobs.
CLOSED = "1217"


class JobMode:
    """The execution mode of a place.

    Args:
        place: Of the backend.
        to: Connection to it.

    Raises:
        BackendLoadError: The place has the id of a batch or session that can't be used.
    """

    def __init__(self, place: IbmPlace, to: Connection) -> None:
        self._place = place
        self._to = to
        self._lock = threading.Lock()
        self._session = None if place.session_id is None else self._rebuilt(place.session_id)
        #: Whether batches or sessions are opened here, and not by the user.
        self.own = place.mode != "job" and place.session_id is None

    def get(self) -> Any:
        """What a sampler takes as ``mode``. One of our own is opened for its first job: its time runs from then."""
        if self._place.mode == "job":
            return self._to.backend
        from qiskit_ibm_runtime import Batch, Session

        with self._lock:
            if self._session is None:
                self._session = (Batch if self._place.mode == "batch" else Session)(backend=self._to.backend)
            return self._session

    def failed(self, error: BaseException) -> None:
        """A submission ended with an error; the next one gets another batch or session, if it was for this one."""
        if self.own and is_closed(error):
            with self._lock:
                self._session = None

    def close(self) -> None:
        """Let the batch or session that was opened here take no more jobs; those that it has go on."""
        if not self.own:
            return
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            with OVERHEARD:
                session.close()

    def _rebuilt(self, session_id: str) -> Any:
        from qiskit_ibm_runtime import Batch, Session

        place = self._place
        further: dict[str, Any] = {}
        if place.use_fractional_gates:
            further["use_fractional_gates"] = place.use_fractional_gates
        if place.calibration_id is not None:
            further["calibration_id"] = place.calibration_id
        kind = Batch if place.mode == "batch" else Session
        try:
            with OVERHEARD:
                return kind.from_id(session_id, self._to.service, **further)
        except Exception as error:
            told = self._to.clean(f"{type(error).__name__}: {error}")
            raise BackendLoadError(
                f"{place.mode} {session_id} of {place.backend} can't be used: {told}"
            ) from None


def is_closed(error: BaseException) -> bool:
    """Whether an error says that a batch or session takes no more jobs."""
    return any(CLOSED in str(cause) and "ession" in str(cause) for cause in causes(error))
