"""Every import of the package, held to the rooms: who may know whom, and which library.

Imports inside functions and under ``TYPE_CHECKING`` count in full between our own rooms. For other
libraries they are the lighter kind: they cost nothing at ``import ray_qjm``.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "ray_qjm"
ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / PACKAGE).rglob("*.py"))


@dataclass(frozen=True)
class Room:
    floor: int
    eager: frozenset[str] = frozenset()  # libraries imported at module level
    lazy: frozenset[str] = frozenset()  # only inside functions, or for types
    beside: frozenset[str] = frozenset()  # rooms of its own floor that it may know


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# ARCHITECTURE.md shows the same table in words. A room knows all rooms of lower floors.
ROOMS = {
    "errors": Room(0),
    "options": Room(0, beside=names("errors")),
    "planning": Room(1, eager=names("numpy")),
    "circuits": Room(
        2,
        eager=names("cloudpickle numpy qiskit"),
        lazy=names("pandas polars pyarrow qiskit_aer qiskit_qasm3_import"),
    ),
    "results": Room(
        2,
        eager=names("numpy obstore pyarrow stamina"),
        lazy=names("matplotlib pandas polars qiskit ray"),
    ),
    "backends": Room(
        3,
        eager=names("cloudpickle numpy qiskit"),
        lazy=names("qiskit_aer qiskit_ibm_runtime requests urllib3"),
    ),
    "cluster": Room(4, eager=names("cloudpickle numpy pyarrow ray"), lazy=names("qiskit")),
    "api": Room(5, eager=names("numpy pyarrow"), lazy=names("qiskit"), beside=names("frontends")),
    "frontends": Room(
        5,
        eager=names("click numpy pyarrow qiskit rich"),
        lazy=names("IPython"),
        beside=names("api"),
    ),
    "__init__": Room(6),
    "__main__": Room(6),
}

# planning/ decides: time and randomness come in as values, and nothing is read or written.
FORBIDDEN_STDLIB = {
    "planning": names(
        "asyncio datetime io multiprocessing os pathlib random secrets shutil socket subprocess tempfile "
        "threading time"
    )
}


@dataclass(frozen=True)
class Import:
    line: int
    name: str  # absolute and dotted; for `from a import b` it is a.b
    eager: bool


def is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def is_import_call(node: ast.AST) -> bool:
    """``importlib.import_module("x")`` and ``__import__("x")``: imports in all but syntax."""
    return (
        isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Attribute) and node.func.attr == "import_module")
            or (isinstance(node.func, ast.Name) and node.func.id in ("import_module", "__import__"))
        )
        and bool(node.args)
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    )


def imports(tree: ast.AST, package: tuple[str, ...], eager: bool = True) -> Iterator[Import]:
    """All imports below a node; ``package`` is what relative ones start from."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, eager)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            if node.level > len(package):
                yield Import(node.lineno, "." * node.level, eager)
                continue
            stem = ".".join((*base, *((node.module,) if node.module else ())))
            for alias in node.names:
                yield Import(node.lineno, f"{stem}.{alias.name}", eager)
        elif is_import_call(node):
            assert isinstance(node, ast.Call) and isinstance(node.args[0], ast.Constant)
            yield Import(node.lineno, str(node.args[0].value), eager)
        elif isinstance(node, ast.If) and is_type_checking(node.test):
            yield from imports(ast.Module(node.body, []), package, eager=False)
            yield from imports(ast.Module(node.orelse, []), package, eager)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports(node, package, eager=False)
        else:
            yield from imports(node, package, eager)


def room_of(dotted: str) -> str:
    """``ray_qjm.results.store.open`` -> ``results``; a name of the package itself -> ``__init__``."""
    parts = dotted.split(".")
    if len(parts) == 1:
        return "__init__"
    inside = ROOT / PACKAGE / parts[1]
    known = parts[1] in ROOMS or inside.is_dir() or inside.with_suffix(".py").is_file()
    return parts[1] if known else "__init__"


def violations(path: str, source: str) -> list[str]:
    """What a module (``results/counts.py``) does against the table; one line each."""
    parts = Path(path).with_suffix("").parts
    room_name = parts[0]
    if room_name not in ROOMS:
        return [f"{path}: no room {room_name!r}; add it to ROOMS and to ARCHITECTURE.md"]
    room = ROOMS[room_name]
    package = (PACKAGE, *parts[:-1])  # of a/__init__.py it is a, as of a/b.py
    found = []
    for item in imports(ast.parse(source), package):
        where = f"{path}:{item.line}"
        top = item.name.split(".")[0]
        if top == PACKAGE:
            other = room_of(item.name)
            if other not in ROOMS:
                found.append(f"{where}: {item.name} is in no room")
            elif other != room_name and ROOMS[other].floor >= room.floor and other not in room.beside:
                found.append(f"{where}: {room_name} may not import {item.name}, floor {ROOMS[other].floor}")
        elif not top:
            found.append(f"{where}: relative import beyond the package")
        elif top in sys.stdlib_module_names:
            if top in FORBIDDEN_STDLIB.get(room_name, ()):
                found.append(f"{where}: {room_name} may not import {top}: values come in")
        elif item.eager and top not in room.eager:
            hint = " at module level; only inside functions" if top in room.lazy else ""
            found.append(f"{where}: {room_name} may not import {top}{hint}")
        elif top not in room.eager | room.lazy:
            found.append(f"{where}: {room_name} may not import {top}")
    return found


def relative(path: Path) -> str:
    return path.relative_to(ROOT / PACKAGE).as_posix()


def test_there_are_modules_to_check() -> None:
    assert len(MODULES) > 5


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_module_keeps_to_its_room(path: Path) -> None:
    found = violations(relative(path), path.read_text(encoding="utf-8"))
    assert not found, "\n".join(found)


def test_modules_import_each_other_in_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        parts = (PACKAGE, *Path(relative(path)).with_suffix("").parts)
        graph[".".join(parts).removesuffix(".__init__")] = {
            item.name
            for item in imports(ast.parse(path.read_text(encoding="utf-8")), parts[:-1])
            if item.eager
        }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"circle: {' -> '.join((*trail, module))}"
        if module in done:
            return
        for name in sorted(graph[module]):
            # `from a.b import c`: c is a module, or a name of a.b.
            target = name if name in graph else name.rpartition(".")[0]
            if target in graph and target != module:
                visit(target, (*trail, module))
        done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        (
            "planning/chunks.py",
            "import ray_qjm.results.counts",
            "planning may not import ray_qjm.results.counts",
        ),
        ("planning/chunks.py", "from ray_qjm import cluster", "planning may not import ray_qjm.cluster"),
        ("planning/chunks.py", "from ray_qjm import run", "planning may not import ray_qjm.run"),
        ("planning/chunks.py", "from .. import backends", "planning may not import ray_qjm.backends"),
        (
            "planning/chunks.py",
            "from ..backends.base import Job",
            "planning may not import ray_qjm.backends.base",
        ),
        ("planning/__init__.py", "from ..api import run", "planning may not import ray_qjm.api.run"),
        ("planning/chunks.py", "from ... import x", "relative import beyond the package"),
        ("planning/chunks.py", "import qiskit", "planning may not import qiskit"),
        ("planning/chunks.py", "def f():\n    import ray", "planning may not import ray"),
        ("planning/chunks.py", "from time import monotonic", "may not import time: values come in"),
        ("planning/quota.py", "def f():\n    import random", "may not import random: values come in"),
        ("errors.py", "from ray_qjm.options import RunOptions", "errors may not import ray_qjm.options"),
        ("errors.py", "import numpy", "errors may not import numpy"),
        (
            "results/counts.py",
            "from ray_qjm.circuits import sources",
            "results may not import ray_qjm.circuits",
        ),
        (
            "circuits/sources.py",
            "from ray_qjm.results import schema",
            "circuits may not import ray_qjm.results",
        ),
        ("results/counts.py", "import pandas as pd", "pandas at module level; only inside functions"),
        ("results/counts.py", "class A:\n    import pandas", "pandas at module level; only inside functions"),
        (
            "results/counts.py",
            "try:\n    import polars\nexcept ImportError:\n    pass",
            "polars at module level",
        ),
        ("results/counts.py", "def f():\n    import rich", "results may not import rich"),
        ("circuits/payload.py", "def f():\n    import ray", "circuits may not import ray"),
        ("backends/base.py", "from qiskit_aer import AerSimulator", "qiskit_aer at module level"),
        ("backends/base.py", "async def f():\n    import ray", "backends may not import ray"),
        (
            "backends/base.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ray_qjm.cluster import workers",
            "base.py:3: backends may not import ray_qjm.cluster",
        ),
        (
            "planning/chunks.py",
            "import typing\nif typing.TYPE_CHECKING:\n    import ray",
            "planning may not import ray",
        ),
        (
            "results/counts.py",
            "if TYPE_CHECKING:\n    import pandas\nelse:\n    import polars",
            "polars at module level",
        ),
        ("circuits/sources.py", "import importlib\nx = importlib.import_module('ray')", "may not import ray"),
        ("circuits/sources.py", "x = __import__('rich')", "may not import rich"),
        (
            "cluster/workers.py",
            "from ray_qjm.frontends import progress",
            "cluster may not import ray_qjm.frontends",
        ),
        ("__init__.py", "import qiskit", "__init__ may not import qiskit"),
        ("cellar/wine.py", "", "no room 'cellar'"),
        ("attic.py", "", "no room 'attic'"),
    ],
)
def test_violation_is_caught(path: str, source: str, message: str) -> None:
    found = violations(path, source)
    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("options.py", "from ray_qjm.errors import InvalidInputError"),
        (
            "planning/schedule.py",
            "import numpy as np\nfrom .chunks import Chunk\nfrom ..errors import RayQjmError",
        ),
        ("results/task_result.py", "import pyarrow.compute as pc\nfrom ray_qjm.results import counts"),
        ("results/task_result.py", "def to_pandas(self):\n    import pandas"),
        ("results/task_result.py", "if TYPE_CHECKING:\n    import pandas"),
        ("backends/local.py", "from ray_qjm.circuits import compile\nfrom ray_qjm.results.counts import Row"),
        ("cluster/workers.py", "import ray\nfrom ..backends.base import Backend"),
        ("frontends/job_manager.py", "import rich\nfrom ray_qjm.api import submit"),
        ("api.py", "from ray_qjm.frontends.progress import bar\nfrom ray_qjm.cluster.coordinator import run"),
        ("__init__.py", "from ray_qjm.api import run\nfrom .errors import RayQjmError"),
    ],
)
def test_what_the_table_allows_passes(path: str, source: str) -> None:
    assert violations(path, source) == []
