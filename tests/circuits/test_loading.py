"""Objects by name: what can't be had is told by its part, and what a file holds reaches other processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest

from ray_qjm.circuits.loading import functions_in, load
from ray_qjm.errors import InvalidInputError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the test is, as a user is; modules that it imports are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def write(name: str, text: str) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def elsewhere(value: object, call: str) -> str:
    """What a call prints in a process that knows nothing of the files."""
    code = f"import pickle, sys; f = pickle.load(sys.stdin.buffer); print({call})"
    done: subprocess.CompletedProcess[bytes] = subprocess.run(
        [sys.executable, "-c", code],
        input=cloudpickle.dumps(value),
        capture_output=True,
        cwd="/",
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def test_what_a_file_holds_runs_where_the_file_isnt() -> None:
    write("circuits.py", "import mine\nSTEP = 2\n\ndef circuit(i):\n    return mine.twice(i) + STEP\n")
    write("mine.py", "def twice(i):\n    return 2 * i\n")
    assert elsewhere(load("circuits.py:circuit"), "f(20)") == "42"


def test_functions_with_a_cache_are_shipped_too() -> None:
    write(
        "cached.py",
        "import functools\n\n@functools.lru_cache(maxsize=3)\ndef base(n):\n    return n + 1\n\n"
        "def circuit(i):\n    return base(i), base.cache_parameters()['maxsize'], base.__name__\n",
    )
    assert elsewhere(load("cached.py:circuit"), "f(1)") == "(2, 3, 'base')"
    assert elsewhere(load("cached.py:base"), "f(1)") == "2"


def test_a_module_stays_a_name() -> None:
    write("lab/rb.py", "def circuit(i):\n    return i\n")
    write("lab/__init__.py", "")
    found = load("lab.rb:circuit")
    assert found(3) == 3 and found.__module__ == "lab.rb"
    assert b"lab.rb" in cloudpickle.dumps(found)


def test_a_file_is_imported_once_and_two_of_one_name_are_two() -> None:
    write("a/one.py", "def f():\n    return 'a'\n")
    write("b/one.py", "def f():\n    return 'b'\n")
    first = load("a/one.py:f")
    assert load("a/one.py:f") is first
    assert (first(), load("b/one.py:f")()) == ("a", "b")


def test_dotted_names_are_followed() -> None:
    write("classes.py", "class Lab:\n    @staticmethod\n    def circuit(i):\n        return i\n")
    assert load("classes.py:Lab.circuit")(4) == 4
    with pytest.raises(InvalidInputError, match=r"classes.py:Lab has no 'circut'. Did you mean 'circuit'\?"):
        load("classes.py:Lab.circut")


@pytest.mark.parametrize(
    ("text", "source", "message"),
    [
        ("f.py:", "", "'f.py:' names nothing: give FILE.py:name or module:name"),
        ("gone.py:f", "", "file gone.py isn't there .looked in "),
        ("folder.py:f", None, "file folder.py is a directory"),
        ("f.py:circut", "def circuit(i): pass", "f.py has no 'circut'. Did you mean 'circuit'"),
        (
            "f.py:f",
            "x = 1\n\nimport nowhere",
            "f.py can't be imported, line 3: ModuleNotFoundError: No module",
        ),
        ("f.py:f", "x = 1\ny = x / 0", "f.py can't be imported, line 2: ZeroDivisionError: division by zero"),
        ("f.py:f", "x = 1\ndef f(:\n", "f.py can't be imported, line 2: SyntaxError: invalid syntax"),
        (
            "f.py:f",
            "raise SystemExit(3)",
            "line 1: SystemExit: 3. Guard what a script does with `if __name__",
        ),
        ("nowhere:f", "", "module 'nowhere' isn't there .looked in .* and where Python looks"),
        ("os.nowhere:f", "", "module 'os.nowhere' isn't there"),
        ("f:f", "", "f has no 'f'"),
        (
            "f:f",
            "import nowhere",
            "module 'f' can't be imported, line 1: ModuleNotFoundError: No module named 'no",
        ),
        ("f:f", "x = = 1", "module 'f' can't be imported, line 1: SyntaxError"),
    ],
)
def test_what_cant_be_had_says_which_part_and_why(text: str, source: str | None, message: str) -> None:
    if source is None:
        Path("folder.py").mkdir()
    else:
        write("f.py", source)
    with pytest.raises(InvalidInputError, match=message):
        load(text)


def test_a_file_that_failed_can_be_mended_and_loaded_again() -> None:
    write("f.py", "import nowhere")
    with pytest.raises(InvalidInputError):
        load("f.py:f")
    write("f.py", "def f():\n    return 'mended'\n")
    assert load("f.py:f")() == "mended"


def test_functions_are_told_without_running_the_file() -> None:
    write(
        "f.py", "raise SystemExit\ndef circuit(i): pass\ndef _own(): pass\nclass A: pass\ndef other(): pass\n"
    )
    assert functions_in(Path("f.py")) == ["circuit", "other"]
    write("f.py", "def f(:")
    assert functions_in(Path("f.py")) == functions_in(Path("gone.py")) == []
