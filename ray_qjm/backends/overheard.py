"""Warnings of a provider's client, sent to the log: whoever submits a million circuits doesn't read them one by one."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from pathlib import PurePath
from types import TracebackType
from typing import Any, TextIO
from urllib.parse import quote

#: A message may have been cut in the middle of a secret: so many characters of one are struck out as well.
CUT = 6
_BEARER = re.compile(r"(?i)(bearer\s+)[\w.~+/-]{8,}=*")

_log = logging.getLogger(__name__)


def struck(text: str, secret: str) -> str:
    """A text in which a secret isn't to be read, nor what stands for it in a request.

    >>> struck("key 'abcdefgh' isn't known: abcdef...", "abcdefgh")
    "key '<API key>' isn't known: <API key>..."
    """
    for form in {secret, quote(secret, safe="")} - {""}:
        text = text.replace(form, "<API key>")
        if text.endswith("..."):
            cut = next((n for n in range(len(form) - 1, CUT - 1, -1) if text.endswith(f"{form[:n]}...")), 0)
            text = f"{text[: -3 - cut]}<API key>..." if cut else text
    return _BEARER.sub(r"\1<token>", text)


class Overheard:
    """A context, entered by any number of threads at once, in which a client's warnings are logged.

    What the client says to its caller's developers (deprecations) goes to the log as well, on its lowest level.

    ``warnings.catch_warnings`` changes the whole process: two threads that leave it in another order than they
    entered it would leave it changed for good. So it is entered once for all calls that overlap. Warnings of other
    modules are treated as ever.

    Args:
        packages: What the client's modules begin with, and those of ours that its warnings may be laid to.
    """

    def __init__(self, *packages: str) -> None:
        self._packages = tuple(packages)
        self._lock = threading.Lock()
        self._inside = 0
        self._caught: Any = None
        self._before: Any = None
        self._secrets: set[str] = set()

    def keep_out(self, secret: str) -> None:
        """Strike a secret out of whatever is logged from now on."""
        self._secrets.add(secret)

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            self._caught = warnings.catch_warnings()
            self._caught.__enter__()
            for package in self._packages:
                warnings.filterwarnings("always", module=package.replace(".", r"\."))
            self._before = warnings.showwarning
            warnings.showwarning = self._show

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._caught.__exit__(kind, error, trace)

    def _show(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        place = ".".join(PurePath(filename).with_suffix("").parts)
        if not any(f".{package}" in place for package in self._packages):
            self._before(message, category, filename, lineno, file, line)
            return
        quiet = issubclass(category, DeprecationWarning | PendingDeprecationWarning)
        text = str(message)
        for secret in list(self._secrets):
            text = struck(text, secret)
        _log.log(logging.DEBUG if quiet else logging.WARNING, "%s: %s", category.__name__, text)
