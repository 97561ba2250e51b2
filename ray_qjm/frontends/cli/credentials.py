"""Whether credentials are there: never what they are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True)
class Found:
    """Of one service.

    Attributes:
        there: Whether there are any.
        text: Where, for people.
    """

    there: bool
    text: str


def ibm() -> Found:
    """Those of IBM Quantum Platform."""
    if find_spec("qiskit_ibm_runtime") is None:
        return Found(False, "qiskit-ibm-runtime isn't installed")
    if os.environ.get("QISKIT_IBM_TOKEN"):
        return Found(True, "an API key in QISKIT_IBM_TOKEN")
    from ray_qjm.backends.ibm_place import local_accounts

    names = [name for name, _ in local_accounts(None) if name is not None]
    if names:
        return Found(True, f"saved account{'s' * (len(names) > 1)} {', '.join(sorted(names))}")
    return Found(False, "no API key: set QISKIT_IBM_TOKEN, or QiskitRuntimeService.save_account(...)")


#: By scheme of a store: variables and files in which obstore finds credentials.
_OBJECT_STORES = {
    "s3": (
        "S3",
        ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
    ),
    "gs": ("Google Cloud", ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT")),
    "az": ("Azure", ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_CLIENT_ID", "AZURE_STORAGE_SAS_TOKEN")),
}
_ALIASES = {"s3a": "s3", "adl": "az", "azure": "az", "abfs": "az", "abfss": "az"}


def object_store(uri: str) -> Found | None:
    """Those of the service that a store's URI names; ``None``: it needs none."""
    scheme = uri.partition("://")[0]
    known = _OBJECT_STORES.get(_ALIASES.get(scheme, scheme))
    if known is None:
        return None
    name, variables = known
    found = [variable for variable in variables if os.environ.get(variable)]
    if found:
        return Found(True, f"{name}: {', '.join(found)}")
    return Found(
        False, f"{name}: none in the environment ({', '.join(variables)}); a machine's own role may do"
    )


def ray_token() -> Found:
    """The token with which processes join a Ray cluster."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return Found(True, "in RAY_AUTH_TOKEN")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    if path.is_file():
        if _others_may_read(path):
            return Found(False, f"in {path}, which other users here may read: chmod 600 {path}")
        return Found(True, f"in {path}")
    return Found(False, f"none: neither RAY_AUTH_TOKEN nor {path}; Ray makes one when it starts here")


def _others_may_read(path: Path) -> bool:
    """Whether the file, and all folders on the way to it, are open to a group or to everybody."""
    folders = [folder.stat().st_mode for folder in path.resolve().parents]
    return any(
        path.stat().st_mode & read and all(mode & enter for mode in folders)
        for read, enter in ((0o040, 0o010), (0o004, 0o001))
    )
