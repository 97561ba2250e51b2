"""Circuits in files: QPY and OpenQASM, counted in the driver and read on workers."""

from __future__ import annotations

import glob
import importlib.util
import io
import os
import re
import struct
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit, qasm2, qasm3, qpy

from ray_qjm.circuits.identity import digest
from ray_qjm.circuits.source import WorkerSource
from ray_qjm.circuits.sources import _a
from ray_qjm.errors import InvalidInputError, SourceError

Paths: TypeAlias = "str | os.PathLike[str] | Iterable[str | os.PathLike[str]]"


@dataclass(frozen=True)
class _File:
    name: str  # as the user, or the pattern, wrote it: stands in the result
    path: str  # absolute: workers have another working directory
    size: int


class _FileSource(WorkerSource):
    """Circuits counted through the files in their order."""

    def __init__(self, paths: Paths) -> None:
        self._files = _find(paths, self.kind)
        self._starts = [0, *accumulate(self._inspect(file) for file in self._files)]
        self.count = self._starts[-1]

    @abstractmethod
    def _inspect(self, file: _File) -> int:
        """Return the number of circuits in a file, at least 1; called once a file, in their order."""

    def identity(self, version: str | None) -> dict[str, Any]:
        """Return how many files and circuits, and a digest of names and sizes; see ``WorkerSource.identity``."""
        names = [f"{file.name}\0{file.size}" for file in self._files]
        found = {"kind": self.kind, "files": len(names), "digest": digest(*names, repr(self._starts))}
        return found if version is None else {**found, "version": version}

    def _locate(self, index: int) -> tuple[int, int]:
        """Return which file holds circuit ``index``, and where in it."""
        if not 0 <= index < self.count:
            raise IndexError(f"circuit {index} of {self.kind} with {self.count} circuits")
        file = bisect_right(self._starts, index) - 1
        return file, index - self._starts[file]

    def _read(self, file: _File, start: int = 0, stop: int | None = None) -> bytes:
        """Read bytes on a worker; a file that was there in the driver and isn't here ends the task."""
        try:
            with open(file.path, "rb") as stream:
                _check_size(file, os.fstat(stream.fileno()))
                stream.seek(start)
                return stream.read(-1 if stop is None else stop - start)
        except OSError as error:
            raise _unreadable(file, error) from error

    def __repr__(self) -> str:
        return f"{self.kind}({len(self._files)} files, {self.count} circuits)"


#: Circuits of one block of a QPY file, read and kept together: about 1 MB, so that a chunk reads a few blocks
#: and not a file of a million circuits.
_BLOCK = 256

#: The last block read in this process, or why it couldn't be loaded; its file as it was, and its
#: first circuit.
_last: tuple[tuple[str, int, int, int], list[QuantumCircuit] | Exception] | None = None

_MAGIC = b"QISKIT"
_HEADER = struct.Struct("!6sBBBBQ")  # magic, QPY version, three numbers of Qiskit's, number of circuits
_TABLE = _HEADER.size + 2  # from version 10 one byte of symbolic encoding, from 5 one of what the file holds
_TABLE_VERSION = 16  # from here on a table of 8-byte offsets follows


class QpyFiles(_FileSource):
    """The circuits of QPY files, one after the other.

    The driver reads the headers only. A worker reads blocks of 256 circuits (files older than QPY 16: the
    whole file) and keeps the last. If one circuit of a block can't be loaded, none of the block can. As with
    ``qiskit.qpy.load``, a file is what one ``dump`` wrote: further ones behind it aren't seen.

    Columns: ``file``, as it was given or found, and ``position`` in the file, from 0.

    Args:
        paths: A file, a pattern (``"runs/**/*.qpy"``), or several of both in the order wanted; what a
            pattern finds is sorted by name. Every node must see them under the same absolute path.

    Raises:
        InvalidInputError: Nothing is found, or a file is no QPY, empty, cut off, or of a newer QPY version
            than this Qiskit reads.
    """

    kind = "QpyFiles"
    column_types: Mapping[str, str] = {"file": "string", "position": "int64"}

    def __init__(self, paths: Paths) -> None:
        self._versions: list[int] = []
        super().__init__(paths)

    def _inspect(self, file: _File) -> int:
        with _opened(file) as stream:
            head = stream.read(_HEADER.size)
        if len(head) < _HEADER.size or not head.startswith(_MAGIC):
            raise InvalidInputError(
                f"{file.name} is no QPY file: it starts with {head[:8]!r}, not {_MAGIC!r}. Write it with "
                "qiskit.qpy.dump."
            )
        _, version, *qiskit, count = _HEADER.unpack(head)
        if version > qpy.QPY_VERSION:
            raise InvalidInputError(
                f"{file.name} is QPY {version}, written by Qiskit {'.'.join(map(str, qiskit))}, and "
                f"this Qiskit reads up to {qpy.QPY_VERSION}. Upgrade Qiskit, or dump with "
                f"version={qpy.QPY_VERSION}."
            )
        if count == 0:
            raise InvalidInputError(f"{file.name} holds 0 circuits. Leave it out.")
        least = _TABLE + 8 * count
        if version >= _TABLE_VERSION and file.size <= least:
            raise InvalidInputError(
                f"{file.name} is cut off: it has {file.size} bytes, and {count} circuits need more than "
                f"{least}. Copy or write it again."
            )
        self._versions.append(version)
        return int(count)

    def build(self, index: int, seed: int) -> QuantumCircuit:
        """Load circuit ``index``; ``seed`` isn't used.

        Raises:
            QpyError: Its block can't be loaded (Qiskit may raise other exceptions too).
            SourceError: The file isn't there, or has changed since the task began.
        """
        global _last
        which, position = self._locate(index)
        file = self._files[which]
        first = position - position % _BLOCK if self._versions[which] >= _TABLE_VERSION else 0
        try:
            stat = os.stat(file.path)
        except OSError as error:
            raise _unreadable(file, error) from error
        _check_size(file, stat)
        # Not in the key, a file written anew between two tasks would give the circuits of before.
        key = (file.path, stat.st_ino, stat.st_mtime_ns, first)
        last = _last
        if last is None or last[0] != key:
            last = _last = (key, self._load(which, first))
        if isinstance(last[1], Exception):
            raise last[1].with_traceback(None)
        return last[1][position - first].copy()

    def _load(self, which: int, first: int) -> list[QuantumCircuit] | Exception:
        """Load a block, or tell why it can't be: kept too, so as not to read it again for each circuit."""
        file, count = self._files[which], self._starts[which + 1] - self._starts[which]
        data = self._read(file) if self._versions[which] < _TABLE_VERSION else self._block(file, first, count)
        try:
            circuits: list[QuantumCircuit] = qpy.load(io.BytesIO(data))
        except Exception as error:
            return error
        return circuits

    def _block(self, file: _File, first: int, count: int) -> bytes:
        """Return the circuits ``[first, first + _BLOCK)`` as QPY: the header, a table, their bytes."""
        stop = min(first + _BLOCK, count)
        head = self._read(file, 0, _TABLE)
        table = self._read(file, _TABLE + 8 * first, _TABLE + 8 * min(stop + 1, count))
        offsets = np.frombuffer(table, dtype=">u8").astype(np.int64)
        end = file.size if stop == count else int(offsets[-1])
        offsets = offsets[: stop - first]
        moved = (offsets - offsets[0] + _TABLE + 8 * len(offsets)).astype(">u8")
        header = _HEADER.pack(*_HEADER.unpack(head[: _HEADER.size])[:-1], len(offsets)) + head[_HEADER.size :]
        return b"".join([header, moved.tobytes(), self._read(file, int(offsets[0]), end)])

    def columns(self, start: int, stop: int) -> dict[str, list[object]]:
        """Return ``file`` and ``position`` for the rows ``[start, stop)``."""
        found = [self._locate(row) for row in range(start, stop)]
        return {"file": [self._files[file].name for file, _ in found], "position": [at for _, at in found]}


#: A version line, or what may hide one: comments and strings.
_TOKENS = re.compile(
    rb'/\*.*?\*/|//[^\n]*|"[^"\n]*"|^[ \t]*(?P<program>OPENQASM)[ \t]+(?P<version>[0-9.]+)[ \t]*;',
    re.DOTALL | re.MULTILINE,
)
_COMMENTS = re.compile(rb"/\*.*?\*/|//[^\n]*", re.DOTALL)
_BOM = b"\xef\xbb\xbf"
_PLACE = re.compile(r"(?:<input>:)?(?P<line>\d+),")  # where a parser's message says that its error is


class QasmFiles(_FileSource):
    """The programs of OpenQASM 2 and 3 files, one after the other; one file may hold several.

    A program begins at each line ``OPENQASM <version>;`` and ends before the next. The driver reads the files
    once to find these lines; a worker reads and parses one program at a time: version 2 as
    ``QuantumCircuit.from_qasm_file`` does (includes are looked for beside the file too), version 3 by
    ``qiskit.qasm3.loads``.

    Columns: ``file``, as it was given or found, and ``line`` in it where the program begins, from 1.

    Args:
        paths: As for ``QpyFiles``.

    Raises:
        InvalidInputError: Nothing is found; a file has no ``OPENQASM`` line, something before the first one,
            or a version that is neither 2 nor 3; ``qiskit-qasm3-import``, needed for version 3, is missing.
    """

    kind = "QasmFiles"
    column_types: Mapping[str, str] = {"file": "string", "line": "int64"}

    def __init__(self, paths: Paths) -> None:
        self._lines: list[NDArray[np.int64]] = []
        self._offsets: list[NDArray[np.int64]] = []  # where each program begins, and the file's end
        self._threes: list[NDArray[np.bool_]] = []
        super().__init__(paths)

    def _inspect(self, file: _File) -> int:
        with _opened(file) as stream:
            text = stream.read()
        if text.startswith(_BOM):
            text = b"   " + text[len(_BOM) :]
        offsets: list[int] = []
        lines: list[int] = []
        threes: list[bool] = []
        line, counted = 1, 0
        for match in _TOKENS.finditer(text):
            if match["program"] is None:
                continue
            at = match.start("program")
            line, counted = line + text.count(b"\n", counted, at), at
            version = match["version"].decode()
            if version.partition(".")[0] not in ("2", "3"):
                raise InvalidInputError(
                    f"{file.name}:{line} is OpenQASM {version}. Versions 2 and 3 can be read."
                )
            offsets.append(at)
            lines.append(line)
            threes.append(version.startswith("3"))
        if not offsets:
            raise InvalidInputError(
                f"{file.name} has no line 'OPENQASM <version>;', where a program begins. Add it, with 2.0 or "
                "3.0."
            )
        if before := _COMMENTS.sub(b"", text[: offsets[0]]).strip():
            raise InvalidInputError(
                f"{file.name} has {before[:40].decode(errors='replace')!r} before its first OPENQASM line "
                f"(line {lines[0]}), which would be lost. Move it behind, or remove it."
            )
        if any(threes) and importlib.util.find_spec("qiskit_qasm3_import") is None:
            raise InvalidInputError(
                f"{file.name}:{lines[threes.index(True)]} is OpenQASM 3, which needs a package that is "
                "missing. Install qiskit-qasm3-import."
            )
        self._offsets.append(np.array([*offsets, file.size], dtype=np.int64))
        self._lines.append(np.array(lines, dtype=np.int64))
        self._threes.append(np.array(threes, dtype=np.bool_))
        return len(offsets)

    def build(self, index: int, seed: int) -> QuantumCircuit:
        """Read and parse program ``index``; ``seed`` isn't used.

        Raises:
            QASM2ParseError: It is no OpenQASM 2; the message begins with the file, and the line that isn't, or where
                the program begins.
            QASM3ImporterError: It is no OpenQASM 3, or not a part of it that Qiskit has; the message as above (other
                exceptions of the parser are possible).
            UnicodeDecodeError: It is no UTF-8.
            SourceError: The file isn't there, or has changed since the task began.
        """
        which, position = self._locate(index)
        file = self._files[which]
        start, stop = (int(offset) for offset in self._offsets[which][position : position + 2])
        text = self._read(file, start, stop).decode()
        line = int(self._lines[which][position])
        try:
            if self._threes[which][position]:
                return qasm3.loads(text)
            return qasm2.loads(
                text,
                include_path=(*qasm2.LEGACY_INCLUDE_PATH, os.path.dirname(file.path)),
                custom_instructions=qasm2.LEGACY_CUSTOM_INSTRUCTIONS,
                custom_classical=qasm2.LEGACY_CUSTOM_CLASSICAL,
            )
        except (qasm2.QASM2ParseError, qasm3.QASM3ImporterError) as error:
            raise type(error)(_placed(str(error.message), file.name, line)) from error
        except Exception as error:
            if type(error).__name__ != "QASM3ParsingError":  # of a package that need not be there
                raise
            raise qasm3.QASM3ImporterError(f"{file.name}:{line}: {_syntax(error, line)}") from error

    def columns(self, start: int, stop: int) -> dict[str, list[object]]:
        """Return ``file`` and ``line`` for the rows ``[start, stop)``."""
        found = [self._locate(row) for row in range(start, stop)]
        return {
            "file": [self._files[file].name for file, _ in found],
            "line": [int(self._lines[file][at]) for file, at in found],
        }


def _find(paths: Paths, kind: str) -> list[_File]:
    given: Any = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise InvalidInputError(f"paths of {kind} is {_a(paths)}. Pass a path, a pattern or a list of them.")
    names: list[str] = []
    for item in given:
        if not isinstance(item, (str, os.PathLike)):
            raise InvalidInputError(f"paths of {kind} holds {_a(item)}. Pass strings or Path objects.")
        name = os.fsdecode(os.path.expanduser(item))
        # A file may be called "run[1].qpy": what exists is no pattern.
        found = [name] if os.path.exists(name) else sorted(glob.glob(name, recursive=True))
        found = [path for path in found if path == name or not os.path.isdir(path)]
        if not found:
            raise InvalidInputError(
                f"{kind} finds no file {name!r} from {os.getcwd()}. Check the path or pattern."
            )
        names += found
    if not names:
        raise InvalidInputError(f"paths of {kind} is empty. Pass at least one path.")
    for name in names:
        if os.path.isdir(name):
            raise InvalidInputError(f"{name!r} is a directory. Pass a pattern: {os.path.join(name, '*')!r}.")
    return [_File(name, os.path.abspath(name), _size(name, kind)) for name in names]


def _size(name: str, kind: str) -> int:
    try:
        return os.stat(name).st_size
    except OSError as error:
        raise InvalidInputError(f"{kind} can't read {name!r} ({error}). Check the path.") from error


def _check_size(file: _File, stat: os.stat_result) -> None:
    if stat.st_size != file.size:
        raise SourceError(
            f"{file.path} has {stat.st_size} bytes and had {file.size} when the task began. Leave files "
            "alone while a task runs, and keep one copy for all nodes."
        )


def _placed(message: str, name: str, line: int) -> str:
    """A parser's message with the place in the file instead of that in the program, which begins in ``line``.

    >>> _placed("<input>:3,0: 'foo' is not defined in this scope", "runs.qasm", 101)
    "runs.qasm:103,0: 'foo' is not defined in this scope"
    """
    found = _PLACE.match(message)
    if found is None:
        return f"{name}:{line}: {message}"
    return f"{name}:{line + int(found['line']) - 1},{message[found.end() :]}"


def _syntax(error: Exception, first: int) -> str:
    """What OpenQASM 3's parser found; it says so to standard error, and its exception has no words."""
    token = getattr(next(iter(getattr(error.__cause__, "args", ())), None), "offendingToken", None)
    if token is None:
        return "the program can't be parsed"
    return f"the program can't be parsed, from {token.text!r} in line {first + token.line - 1} on"


def _unreadable(file: _File, error: OSError) -> SourceError:
    return SourceError(
        f"{file.path} can't be read on a worker ({type(error).__name__}: {error}). Put it where every node "
        "sees it under this path."
    )


def _opened(file: _File) -> io.BufferedReader:
    try:
        return open(file.path, "rb")
    except OSError as error:
        raise InvalidInputError(f"{file.name!r} can't be read ({error}). Check its permissions.") from error
