"""Bytes under names: what a store is made of, on a local disk or in any object store."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

import obstore
import stamina
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    NotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import LocalStore, from_url

from ray_qjm.errors import InvalidInputError, StoreUnavailableError

#: How long a store that answers errors is asked again: a full disk, a failing network, a service that throttles.
RETRY_S = 60.0
#: Seconds before the first and at most before each further try; stamina doubles them and adds up to a second.
_WAIT_S = (0.05, 5.0)

#: Objects of so many bytes are read at once: a round trip costs more than they.
_WHOLE = 2**20

_SCHEMES = ("file", "s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss")

#: Why an object can't be read that isn't there; obstore raises Python's own error for local files.
ABSENT = (NotFoundError, FileNotFoundError)

#: What no second try mends.
_FINAL = (
    InvalidPathError,
    NotSupportedError,
    PermissionDeniedError,
    UnauthenticatedError,
    NotADirectoryError,
    PermissionError,
)
#: Nor these; of local files obstore gives the number in its text only.
_FINAL_NUMBERS = (errno.EACCES, errno.EPERM)

_log = logging.getLogger(__name__)
_asking = threading.local()


class _Unheard(logging.Filter):
    """Keeps stamina from saying "stamina.retry_scheduled", and no more, on each try of ours; others' retries it may."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is said."""
        return not getattr(_asking, "now", False)


logging.getLogger("stamina").addFilter(_Unheard())

T = TypeVar("T")


class Entry(NamedTuple):
    """One object.

    Attributes:
        name: Below the store's root, parts joined by ``/``.
        size: Bytes.
    """

    name: str
    size: int


class Objects:
    """The objects below one root. Each is whole or absent; there are no directories.

    Only two kinds of writing are needed, and every store has both: ``create`` has one winner among any number
    of writers, ``replace`` is for objects with one writer. (Compare-and-swap isn't: obstore lacks it on local
    disks.)

    Local directories are private to the user (0700, files 0600). Instances can be pickled; what they know of
    credentials is what obstore finds in the environment of each process.

    Args:
        root: A directory, or a URI that obstore knows: ``s3://bucket/prefix``, ``gs://``, ``az://``, ``file://``.
        retry_s: Seconds for which an operation is tried again when the store answers errors.
        make: Whether a directory may be made that isn't there.

    Raises:
        InvalidInputError: No such root can be.
    """

    def __init__(self, root: str | os.PathLike[str], *, retry_s: float = RETRY_S, make: bool = True) -> None:
        self.root = absolute(root)
        self.retry_s = retry_s
        #: The directory, where the store is one.
        self.directory = _directory(self.root)
        self._store = self._open(make)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reopen, (type(self), self.root, self.retry_s))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.root!r})"

    def with_retry(self, retry_s: float) -> Objects:
        """The same objects, asked again for another number of seconds."""
        return type(self)(self.root, retry_s=retry_s)

    def create(self, name: str, data: bytes) -> bool:
        """Write an object that isn't there yet.

        Returns:
            Whether this call wrote it; ``False``: it was there, with other bytes.
        """

        def put() -> bool:
            self._make_room(name)
            try:
                obstore.put(self._store, name, data, mode="create")
            except AlreadyExistsError:
                return False
            self._hide(name)
            return True

        # A try whose answer was lost may have written it: then the bytes are ours.
        return self._tried(f"create {name}", put) or self.read(name) == data

    def sync(self, name: str) -> None:
        """Make sure that an object outlives a power cut; stores that aren't local disks see to that themselves."""
        if self.directory is None:
            return
        for path in (self.directory / name, (self.directory / name).parent):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def replace(self, name: str, data: bytes) -> None:
        """Write an object, whether it is there or not; for objects that have one writer."""

        def put() -> None:
            self._make_room(name)
            obstore.put(self._store, name, data, mode="overwrite")
            self._hide(name)

        self._tried(f"write {name}", put)

    def read(self, name: str) -> bytes | None:
        """All bytes of an object; ``None`` if there is none."""

        def get() -> bytes | None:
            try:
                return bytes(obstore.get(self._store, name).bytes())
            except ABSENT:
                return None

        return self._tried(f"read {name}", get)

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Bytes ``[start, stop)`` of an object that is there.

        Raises:
            FileNotFoundError: It isn't any more.
        """

        def get() -> bytes | None:
            try:
                return bytes(obstore.get_range(self._store, name, start=start, end=stop))
            except ABSENT:
                return None

        data = self._tried(f"read {name}", get)
        if data is None:
            raise FileNotFoundError(errno.ENOENT, "it is gone", name)
        return data

    def reader(self, name: str) -> BinaryIO:
        """An object that is there as an open file; of a large one bytes are fetched as they are read.

        Raises:
            FileNotFoundError: It isn't.
        """

        def find() -> int | None:
            try:
                size: int = obstore.head(self._store, name)["size"]
                return size
            except ABSENT:
                return None

        size = self._tried(f"read {name}", find)
        whole = self.read(name) if size is not None and size <= _WHOLE else None
        if size is None or (whole is None and size <= _WHOLE):
            raise FileNotFoundError(errno.ENOENT, "it isn't there", name)
        file: Any = _RangeFile(self, name, size) if whole is None else io.BytesIO(whole)
        return cast(BinaryIO, file)

    def address(self, name: str) -> str:
        """Where an object is, as other tools want it: a path on a local disk, else a URI."""
        return f"{self.root}/{name}" if self.directory is None else str(self.directory / name)

    @property
    def place(self) -> str:
        """The root as people write it: a path on a local disk, else a URI."""
        return place_of(self.root)

    def entries(self, prefix: str) -> list[Entry]:
        """The objects below ``prefix/``, by name."""

        def find() -> list[Entry]:
            found = obstore.list(self._store, prefix).collect()
            return sorted(Entry(item["path"], item["size"]) for item in found)

        return self._tried(f"list {prefix}", find)

    def folders(self) -> list[str]:
        """Names of the folders right below the root."""

        def find() -> list[str]:
            return sorted(obstore.list_with_delimiter(self._store)["common_prefixes"])

        return self._tried("list", find)

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; those that aren't there are no error."""
        for name in names:

            def delete(name: str = name) -> None:
                with suppress(*ABSENT):
                    obstore.delete(self._store, name)

            self._tried(f"remove {name}", delete)

    def sweep(self, folders: Iterable[str]) -> list[str]:
        """Remove what writers that were killed left half written in a local directory; nothing is read from it.

        Only for the owner of the store, when no one else may be writing.

        Args:
            folders: Where to look, folders below them included; of the root only its own files.
        """
        if self.directory is None:
            return []
        # obstore writes to `name#1` and moves it when it is whole; it never lists such names.
        found = [*self.directory.glob("*.json#*")]
        for folder in folders:
            found += (self.directory / folder).rglob("*#*")
        left = [path for path in found if path.name.rpartition("#")[2].isdigit()]
        for path in left:
            path.unlink(missing_ok=True)
        return sorted(path.relative_to(self.directory).as_posix() for path in left)

    def _open(self, make: bool) -> Any:
        try:
            if self.directory is None:
                return from_url(self.root)
            if make:
                self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            elif not self.directory.is_dir():
                file = self.directory.exists()
                what = "is a file, not a directory" if file else "isn't there: there is no such directory"
                raise InvalidInputError(f"store {self.place} {what}.")
            return LocalStore(self.directory)
        except OSError as error:
            raise InvalidInputError(
                f"store {self.place} can't be made: {error.strerror or error}."
            ) from error
        except InvalidInputError:
            raise
        except (BaseError, ValueError) as error:
            raise InvalidInputError(f"store {self.place} can't be opened: {_first_line(error)}.") from error

    def _make_room(self, name: str) -> None:
        """Private directories: obstore would make public ones."""
        if self.directory is not None:
            folder = self.directory
            for part in name.split("/")[:-1]:
                folder = folder / part
                folder.mkdir(mode=0o700, exist_ok=True)

    def _hide(self, name: str) -> None:
        if self.directory is not None:
            (self.directory / name).chmod(0o600)

    def _tried(self, what: str, operation: Callable[[], T]) -> T:
        told = False

        def again(error: Exception) -> bool:
            nonlocal told
            if not _may_pass(error):
                return False
            if not told:
                told = True
                _log.warning(
                    "can't %s in store %s: %s; asked again for %g s",
                    what,
                    self.place,
                    _first_line(error),
                    self.retry_s,
                )
            return True

        _asking.now = True
        try:
            for attempt in stamina.retry_context(
                on=again,
                attempts=None,
                timeout=self.retry_s,
                wait_initial=_WAIT_S[0],
                wait_max=_WAIT_S[1],
            ):
                with attempt:
                    return operation()
        except (BaseError, OSError) as error:
            tried = f", tried for {self.retry_s:g} s" if _may_pass(error) else ""
            raise StoreUnavailableError(
                f"can't {what} in store {self.place}{tried}: {_first_line(error)}. Nothing "
                "that was stored is lost: mend the cause and run the same call again."
            ) from error
        finally:
            _asking.now = False
        raise AssertionError("retry_context ended without an answer")


class _RangeFile(io.RawIOBase):
    """An object as a file for whoever seeks before reading, such as a reader of Parquet."""

    def __init__(self, objects: Objects, name: str, size: int) -> None:
        self._objects = objects
        self._name = name
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset from the beginning, from here or from the end."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read as many bytes as the buffer has room for, or as are left."""
        stop = min(self._at + len(buffer), self._size)
        if stop <= self._at:
            return 0
        data = self._objects.read_range(self._name, self._at, stop)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def absolute(root: str | os.PathLike[str]) -> str:
    """A root as a URI that means the same in every process of this machine.

    >>> absolute("s3://lab/run42/")
    's3://lab/run42'
    >>> absolute("s3").startswith("file://")  # a directory of that name
    True
    """
    text: Any = root if not isinstance(root, os.PathLike) else os.fspath(root)
    if not isinstance(text, str) or not text:
        raise InvalidInputError(f"store is {root!r}. Give a directory or a URI such as s3://bucket/prefix.")
    try:
        text.encode()
        scheme, separator, rest = text.partition("://")
        if not separator:
            before, colon, _ = text.partition(":/")
            if colon and before in _SCHEMES:
                raise InvalidInputError(
                    f"store {text!r} looks like a URI, which has two slashes after the colon."
                )
            return Path(text).expanduser().absolute().as_uri()
    except (UnicodeEncodeError, RuntimeError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"store {text!r} is no path ({error}).") from error
    if scheme not in _SCHEMES:
        raise InvalidInputError(f"store {text} has the scheme {scheme!r}; known are {', '.join(_SCHEMES)}.")
    parts = urlsplit(text)
    if parts.username or parts.password or parts.query:
        raise InvalidInputError(
            f"the URI of a store may hold no credentials or options ({scheme}://...): it is written into logs. Set the "
            "variables of the environment that the service's own tools use."
        )
    if "#" in rest or "?" in rest:
        raise InvalidInputError(f"the URI {text} has a # or ?, which ends its path. Write %23 or %3F.")
    if scheme == "file" and parts.netloc not in ("", "localhost"):
        raise InvalidInputError(
            f"the URI {text} names a host, {parts.netloc}: a path has three slashes, file:///..."
        )
    return text.rstrip("/")


def _reopen(kind: type[Objects], root: str, retry_s: float) -> Objects:
    # Not made where it isn't: on a node that doesn't see the disk, rows would go astray.
    return kind(root, retry_s=retry_s, make=False)


def will_be_made(root: str | os.PathLike[str]) -> bool:
    """Whether a store is a directory that isn't there yet.

    Raises:
        InvalidInputError: Nor can it be made.
    """
    where = absolute(root)
    directory = _directory(where)
    try:
        if directory is None or directory.exists():
            return False
        above = next(folder for folder in directory.parents if folder.exists())
        fine = above.is_dir() and os.access(above, os.W_OK | os.X_OK)
    except OSError as error:
        raise InvalidInputError(
            f"store {place_of(where)} can't be made: {error.strerror or error}."
        ) from error
    if not fine:
        raise InvalidInputError(
            f"store {place_of(where)} can't be made: {above} isn't a directory that you may write to."
        )
    return True


def place_of(root: str) -> str:
    """A root as people write it.

    >>> place_of("file:///data/a%20b"), place_of("s3://lab/run42")
    ('/data/a b', 's3://lab/run42')
    """
    directory = _directory(root)
    return root if directory is None else str(directory)


def _directory(where: str) -> Path | None:
    parts = urlsplit(where)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


def _may_pass(error: Exception) -> bool:
    """Whether asking again may help."""
    if not isinstance(error, (BaseError, OSError)) or isinstance(error, _FINAL):
        return False
    number = re.search(r"\(os error (\d+)\)", _first_line(error))
    found = error.errno if isinstance(error, OSError) else None
    return (found if number is None else int(number[1])) not in _FINAL_NUMBERS


def _first_line(error: BaseException) -> str:
    lines: Iterator[str] = iter(str(error).splitlines())
    return next(lines, type(error).__name__).rstrip(". ")
