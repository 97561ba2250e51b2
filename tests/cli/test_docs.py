"""What the docs say of the command line is what it does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest

from ray_qjm.frontends.cli.exits import Exit
from ray_qjm.frontends.cli.facts import Facts, plain_status
from ray_qjm.frontends.cli.program import program
from ray_qjm.planning.plan import BackendPlan
from ray_qjm.planning.status import BackendStatus, TaskStatus
from ray_qjm.results.report import FailureRange
from tests.cli.conftest import Cli, told

DOCS = Path(__file__).resolve().parents[2] / "docs"
REFERENCE = (DOCS / "reference" / "command-line.md").read_text(encoding="utf-8")
PIPELINE = (DOCS / "how-to" / "batch-pipeline.md").read_text(encoding="utf-8")
#: Of click, `ray job submit`, `timeout` and Slurm.
OTHERS = {"--help", "--working-dir", "--runtime-env-json", "--foreground", "--signal"}


def options() -> set[str]:
    return {
        name
        for command in program.commands.values()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in parameter.opts
    }


@pytest.mark.parametrize("text", [REFERENCE, PIPELINE])
def test_options_in_the_docs_are_options(text: str) -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    assert named and named - options() - OTHERS == set()


def test_commands_in_the_docs_are_all_commands() -> None:
    table = REFERENCE.partition("| command |")[2].partition("## ")[0]
    assert re.findall(r"^\| `([a-z]+)", table, re.MULTILINE) == list(program.commands)
    for text in (REFERENCE, PIPELINE):
        named = set(re.findall(r"ray-qjm ([a-z]+)", text))
        assert named <= set(program.commands)


def test_exit_codes_in_the_docs_are_all_exit_codes() -> None:
    table = REFERENCE.partition("## Exit codes")[2].partition("##")[0]
    numbers = re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE)
    assert sorted(int(number) for each in numbers for number in each.split(",")) == sorted(map(int, Exit))


def status() -> TaskStatus:
    backend = BackendStatus("aer", 1, 0, 0, 0, 1, 0)
    return TaskStatus("t1", None, "running", 2, 1, 0, 0, 1.0, 1.0, (backend,))


def test_json_in_the_docs_has_the_keys_that_are_written() -> None:
    (shown,) = (json.loads(text) for text in re.findall(r"```json\n(\{.*?\n\})\n```", REFERENCE, re.DOTALL))
    written: dict[str, Any] = plain_status(status(), "s")
    assert set(shown) == set(written) and set(shown["backends"][0]) == set(written["backends"][0])
    (failures,) = re.findall(r'```json\n  ("failures": .*?)\n```', REFERENCE, re.DOTALL)
    plain = Facts(status(), [FailureRange(0, 1, "failed", "E", "e")], None).plain()
    assert set(json.loads(f"{{{failures}}}")["failures"][0]) == set(plain["failures"][0])


def test_names_in_the_docs_of_other_json(cli: Cli) -> None:
    for name in BackendPlan.__dataclass_fields__:
        assert f"`{name}`" in REFERENCE
    for name in told(cli("backends --address local --json")):
        assert f"`{name}`" in REFERENCE
    for name in told(cli("backends aer --json"))["backends"][0]:
        assert f"`{name}`" in REFERENCE


def test_the_pipelines_circuits_are_circuits(cli: Cli, folder: Path) -> None:
    (code,) = re.findall(r"```python\n(# rb.py\n.*?)```", PIPELINE, re.DOTALL)
    Path("rb.py").write_text(code, encoding="utf-8")
    values = told(cli("doctor rb.py:circuit --count 100000 --store s --address local --json"))
    checks = {check["name"]: check for check in values["checks"]}
    assert checks["circuits"]["text"] == "100,000 of rb.py:circuit" and checks["on aer"]["state"] == "ok"


def test_the_references_lab_is_a_lab(cli: Cli, folder: Path) -> None:
    from ray_qjm.frontends.cli.call import backends_of

    (code,) = re.findall(r"```python\n(# lab.py\n.*?)```", REFERENCE, re.DOTALL)
    Path("lab.py").write_text(code, encoding="utf-8")
    fez, torino = backends_of({"backend": ("lab.py:fez", "lab.py:torino")})
    assert (fez.quota.max_pending, torino.quota.max_pending) == (10, 3)
    assert fez.backend_or_factory.name == "ibm_fez"
