"""Command lines that can't be: refused in one line, before anything runs."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from qiskit import QuantumCircuit, qpy

from ray_qjm.frontends.cli.exits import MEANINGS, Exit
from ray_qjm.frontends.cli.program import main, program
from tests.cli.conftest import Cli, error


@pytest.fixture(autouse=True)
def files(folder: Path) -> None:
    """Circuits in files."""
    with open("two.qpy", "wb") as file:
        qpy.dump([QuantumCircuit(1, 1), QuantumCircuit(1, 1)], file)
    Path("one.qasm").write_text('OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; h q[0];', encoding="utf-8")
    Path("runs").mkdir()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run circuits.py:binary --count 3", "counts would be lost: give --store, or --output FILE"),
        ("run circuits.py:binary --store s", "--count is missing: circuits.py:binary is a callable"),
        (
            "run circuits.py --store s",
            "Name the callable in it, circuits.py:NAME: it has empty, binary, slow",
        ),
        ("run circuits.py:NUMBER --count 3 --store s", "circuits.py:NUMBER is a int, which can't be called"),
        ("run circuits.py:binry --count 3 --store s", "circuits.py has no 'binry'. Did you mean 'binary'?"),
        ("run gone.py:binary --count 3 --store s", "file gone.py isn't there (looked in "),
        ("run nowhere:binary --count 3 --store s", "module 'nowhere' isn't there"),
        (
            "run two.qpy --count 2 --store s",
            "--count is for a callable: files have as many circuits as they have",
        ),
        ("run two.qpy one.qasm --store s", "SOURCE is OpenQASM files and QPY files (two.qpy one.qasm)"),
        ("run two.qpy circuits.py:binary --store s", "SOURCE is QPY files and named"),
        ("run a:b c:d --count 2 --store s", "SOURCE names 2 callables (a:b c:d): give one"),
        ("run gone.qpy --store s", "gone.qpy"),
        ("run runs --store s", "runs is a directory. Name the files in it, such as 'runs/*.qpy'"),
        ("run circuit --count 3 --store s", "'circuit' is neither FILE.py:callable, module:callable"),
        ("run circuits.py:binary --count 0 --store s", "'0' is not a whole number of 1 or more"),
        ("run circuits.py:binary --count 1e6 --store s", "'1e6' is not a whole number of 1 or more"),
        ("run circuits.py:binary --count 3 --store s --timeout nan", "'nan' is not a number of 0 or more"),
        ("run circuits.py:binary --count 3 --store s --level 4", "'4' is not one of 'auto', 'off'"),
        (
            "run circuits.py:binary --count 3 --store s --backend aerr",
            "no backend is called 'aerr'. Did you mean",
        ),
        (
            "run circuits.py:binary --count 3 --store s --backend circuits.py:gone",
            "circuits.py has no 'gone'",
        ),
        ("run circuits.py:binary --count 3 --store s --instance lab", "--instance is for ibm_... backends"),
        (
            "run circuits.py:binary --count 3 --store s --placement actor",
            "--placement is for factories, module:f",
        ),
        (
            "run circuits.py:binary --count 3 --store s --max-pending 3 --budget-jobs 2",
            "--max-pending, --budget-jobs: for jobs of services, and aer is simulated on workers",
        ),
        (
            "run circuits.py:binary --count 3 --output x.csv --retry-failed",
            "--retry-failed is for a task with a --st",
        ),
        (
            "run circuits.py:binary --count 3 --output x.csv --source-version 1",
            "--source-version is for a task with",
        ),
        ("run circuits.py:binary --count 3 --output x.txt", "its ending can be .parquet, .csv"),
        ("run circuits.py:binary --count 3 --output gone/x.csv", "there is no directory "),
        ("run circuits.py:binary --count 3 --output runs", "its ending can be"),
        ("run circuits.py:binary --count 3 --output two.qpy", "its ending can be"),
        ("run circuits.py:binary --count 3 --store s --force", "--force is for an --output file"),
        ("run circuits.py:binary --count 3 --store http://x/y", "store http://x/y has the scheme 'http'"),
        (
            "run circuits.py:binary --count 3 --store s --address h:1 --num-cpus 2",
            "--address names a cluster, h:1",
        ),
        (
            "run circuits.py:binary:x --count 3 --store s",
            "has a colon in the name 'binary:x': names in circuits.py",
        ),
        ("run --count 3 --store s", "Missing argument 'SOURCE...'"),
        (
            "run circuits.py:binary --cuont 3",
            "No such option '--cuont'. (Did you mean one of: '--account', '--co",
        ),
        ("runn x", "No such command 'runn'"),
        ("resume", "Missing argument 'STORE'"),
        ("resume s circuits.py:binary", "resume takes a store and no source (circuits.py:binary)"),
        ("resume s --count 3", "No such option '--count'"),
        ("plan circuits.py:binary", "--count is missing"),
        ("status circuits.py", "circuits.py is a file, not a directory"),
        ("status gone", "there is no such directory"),
        ("status runs", "runs holds no task"),
        ("report runs", "runs holds no task"),
        ("watch runs", "runs holds no task"),
        ("cancel runs", "runs holds no task"),
        ("export runs --to csv", "runs holds no task"),
        ("export runs", "Missing option '--to'"),
        ("compact runs", "runs holds no task"),
        ("resume runs", "runs holds no task"),
        ("backends aerr", "no backend is called 'aerr'"),
        ("completion tcsh", "'tcsh' is not one of 'bash', 'zsh', 'fish'"),
    ],
)
def test_what_cant_be_is_refused_in_one_line(cli: Cli, line: str, message: str) -> None:
    found = cli(line, code=Exit.USAGE)
    assert message in error(found)
    assert found.stdout == ""
    assert not Path("s").exists()


def test_an_error_says_where_its_help_is(cli: Cli) -> None:
    assert error(cli("run x:y --cuont", code=2)).endswith("(`ray-qjm run --help` tells more.)")


def test_num_cpus_of_a_cluster_in_the_environment(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    found = cli("run circuits.py:binary --count 3 --store s --num-cpus 2", code=2)
    assert "RAY_ADDRESS names a cluster, 10.0.0.1:6379. Leave it out, or give --address local." in error(
        found
    )


def test_an_output_that_is_there_isnt_overwritten(cli: Cli) -> None:
    Path("x.csv").write_text("mine", encoding="utf-8")
    found = cli("run circuits.py:binary --count 3 --output x.csv", code=2)
    assert "x.csv is there already. Give --force to overwrite it" in error(found)
    assert Path("x.csv").read_text(encoding="utf-8") == "mine"


def test_a_file_that_fails_as_it_is_imported(cli: Cli) -> None:
    Path("bad.py").write_text("import os\n\nimport nowhere\n", encoding="utf-8")
    found = cli("run bad.py:f --count 3 --store s", code=2)
    assert "bad.py can't be imported, line 3: ModuleNotFoundError: No module named 'nowhere'." in error(found)
    assert "Traceback" not in found.output


def test_debug_shows_the_traceback(cli: Cli) -> None:
    Path("bad.py").write_text("import nowhere\n", encoding="utf-8")
    found = cli("run bad.py:f --count 3 --store s --debug", code=2)
    assert "Traceback" in found.stderr and "import nowhere" in found.stderr
    assert cli("--debug status gone", code=2).stderr.count("Traceback") > 0


@pytest.mark.parametrize("line", ["status gone", "--debug status gone"])
def test_the_log_of_whoever_calls_it_is_left_as_it_was(cli: Cli, line: str) -> None:
    ours, root = logging.getLogger("ray_qjm"), logging.getLogger()
    before = (ours.level, list(ours.handlers), list(root.handlers))
    cli(line, code=2)
    assert (ours.level, ours.handlers, root.handlers) == before


def test_an_unforeseen_error_is_one_line_too(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of\ncheese")

    monkeypatch.setattr("ray_qjm.results.watch.StoredTask.__init__", fail)
    assert error(cli("status s", code=1)) == "ray-qjm: RuntimeError: out of cheese. (--debug shows where.)"


@pytest.mark.parametrize(
    "command", ["", "run", "plan", "resume", "status", "report", "watch", "cancel", "export"]
)
def test_help_is_there_and_fits_a_terminal(cli: Cli, command: str) -> None:
    text = cli(f"{command} --help").stdout
    assert text.startswith(f"Usage: ray-qjm {command}".rstrip())
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "..." not in text.partition("Commands:")[2].partition("Exit codes:")[0]


def test_without_words_its_help_is_shown(cli: Cli) -> None:
    assert cli("").stdout == cli("--help").stdout


def test_help_lists_every_exit_code(cli: Cli) -> None:
    text = cli("--help").stdout
    numbers = {int(number) for numbers, _ in MEANINGS for number in numbers.split(", ")}
    assert numbers == set(map(int, Exit))
    assert all(numbers in text for numbers, _ in MEANINGS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_of_a_shell(cli: Cli, shell: str) -> None:
    assert "_RAY_QJM_COMPLETE" in cli(f"completion {shell}").stdout
    assert cli("completion", env={"SHELL": f"/bin/{shell}"}).stdout == cli(f"completion {shell}").stdout
    assert "name one of bash, zsh, fish" in error(cli("completion", code=2, env={"SHELL": "/bin/tcsh"}))


@pytest.mark.parametrize(
    ("words", "at", "expected"),
    [
        ("ray-qjm st", 1, ["status"]),
        ("ray-qjm run --max-p", 2, ["--max-payload-bytes", "--max-pending"]),
        ("ray-qjm run --backend a", 3, ["aer"]),
        ("ray-qjm export x --to p", 4, ["parquet"]),
    ],
)
def test_words_are_completed(cli: Cli, words: str, at: int, expected: list[str]) -> None:
    environment = {"_RAY_QJM_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(at)}
    found = cli("", env=environment)
    assert [line.partition(",")[2] for line in found.stdout.split()] == expected


def test_the_program_is_what_the_package_installs() -> None:
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert 'ray-qjm = "ray_qjm.frontends.cli.program:main"' in text
    assert callable(main)


def test_a_source_without_a_name(files: None) -> None:
    found = CliRunner().invoke(program, ["run", "", "--store", "s"], prog_name="ray-qjm")
    assert found.exit_code == Exit.USAGE and "SOURCE is an empty text" in error(found)


@pytest.mark.parametrize("words", ["--help", "run --help", "--version", "status gone"])
def test_whoever_reads_may_be_gone(words: str) -> None:
    """A pipe whose reader has closed it, and no standard output at all."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "ray_qjm", *words.split()]
    found = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    gone = words == "status gone"  # that writes nothing
    assert found.returncode == (Exit.USAGE if gone else Exit.SIGPIPE)
    assert ("no such directory" in found.stderr) if gone else found.stderr == ""
    closed = ["bash", "-c", 'exec "$@" >&-', "bash", *command]
    found = subprocess.run(closed, stderr=subprocess.PIPE, text=True, timeout=60)
    assert found.returncode == (Exit.USAGE if gone else Exit.DONE)
    assert "Error:" not in found.stderr
