"""The repository itself: nothing of the machine that made it, and files that agree with each other."""

from __future__ import annotations

import os
import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
# Home and checkout folders of a machine. Written so that this line doesn't match itself.
MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:home|root|Users|work|farm|mnt|opt)/[\w.]")
PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!]+)")


def repository_files() -> list[Path]:
    """What git tracks or would: a new file is checked before it is added."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return [path for name in sorted(set(listing.split("\0")) - {""}) if (path := ROOT / name).is_file()]


def machine_paths(text: str) -> list[str]:
    return [line for line in text.splitlines() if MACHINE_PATH.search(line)]


def pins(version: str) -> dict[str, str]:
    """Package name to version, of one constraints file."""
    pairs: dict[str, str] = {}
    for line in (ROOT / "constraints" / f"{version}.txt").read_text(encoding="utf-8").splitlines():
        match = PIN.fullmatch(line)
        assert match, f"constraints/{version}.txt: {line!r} is no plain name==version"
        pairs[canonicalize_name(match[1])] = match[2]
    return pairs


def test_no_file_names_a_path_of_one_machine() -> None:
    files = repository_files()
    assert ROOT / "pyproject.toml" in files
    found = []
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture
        found += [f"{path.relative_to(ROOT)}: {line.strip()[:120]}" for line in machine_paths(text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("folder", ["home", "root", "Users", "work", "opt"])
def test_machine_path_is_caught(folder: str) -> None:
    assert machine_paths(f'store = "/{folder}/x1/results"')
    assert not machine_paths(f"see example.org/{folder}/x1 and src/{folder}/x1")


@pytest.mark.parametrize("version", PYTHONS)
def test_constraints_pin_every_dependency(version: str) -> None:
    pinned = pins(version)
    for text in metadata.requires("ray-qjm") or []:
        requirement = Requirement(text)
        if requirement.name == "ray-qjm":
            continue  # an extra made of our own extras
        if requirement.marker is not None and not any(
            requirement.marker.evaluate({"python_version": version, "extra": extra})
            for extra in ("dev", "docs")
        ):
            continue  # of other extras, which dev has all of, or of other Pythons
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{requirement.name} is not in constraints/{version}.txt: run make constraints"
        assert requirement.specifier.contains(pinned[name], prereleases=True)


def test_constraints_stay_small() -> None:
    # Gigabytes that nothing here uses, and that some package's extra would gladly bring.
    for version in PYTHONS:
        heavy = [name for name in pins(version) if name == "torch" or name.startswith(("nvidia-", "triton"))]
        assert not heavy


def test_supported_pythons_agree() -> None:
    assert sorted(path.stem for path in (ROOT / "constraints").glob("*.txt")) == sorted(PYTHONS)
    project = metadata.metadata("ray-qjm")
    classifiers = [line.rsplit(" ", 1)[1] for line in project.get_all("Classifier") or [] if " :: 3." in line]
    assert classifiers == PYTHONS
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    quoted = ", ".join(f'"{version}"' for version in PYTHONS)
    assert f"python: [{quoted}]" in workflow


def test_test_folders_are_packages() -> None:
    # Without __init__.py, pytest puts tests/ on the path, where tests/ray stands in for Ray itself.
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_scripts_can_be_run() -> None:
    for name in (".ci/run", "scripts/constraints.sh", "scripts/find_python.sh"):
        assert os.access(ROOT / name, os.X_OK), name
