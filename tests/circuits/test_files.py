"""QPY and OpenQASM files: found, counted in the driver, read on workers, and caught when they change."""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit, qasm2, qasm3, qpy
from qiskit.qasm2 import QASM2ParseError
from qiskit.qasm3 import QASM3ImporterError

from ray_qjm.circuits.files import QasmFiles, QpyFiles
from ray_qjm.circuits.sources import make_source
from ray_qjm.errors import InvalidInputError, SourceError

VERSIONS = range(max(13, qpy.QPY_COMPATIBILITY_VERSION), qpy.QPY_VERSION + 1)
TABLE = [version for version in VERSIONS if version >= 16]


def circuit_of(angle: float) -> QuantumCircuit:
    circuit = QuantumCircuit(1, 1, name=f"angle {angle}", metadata={"angle": angle})
    circuit.rx(angle, 0)
    circuit.measure(0, 0)
    return circuit


def write_qpy(path: Path, angles: Sequence[float], version: int = qpy.QPY_VERSION) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        qpy.dump([circuit_of(angle) for angle in angles], stream, version=version)
    return path


def angle_of(circuit: QuantumCircuit) -> float:
    return float(circuit.data[0].operation.params[0])


def angles_of(source: QpyFiles | QasmFiles) -> list[float]:
    return [angle_of(source.build(index, 0)) for index in range(source.count)]


TWO = 'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[1];\ncreg c[1];\nrx({}) q[0];\nmeasure q[0] -> c[0];\n'
THREE = 'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit q;\nbit c;\nrx({}) q;\nc = measure q;\n'


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def refusal(kind: type[QpyFiles] | type[QasmFiles], paths: Any) -> str:
    with pytest.raises(InvalidInputError) as caught:
        kind(paths)
    return str(caught.value)


# Which files.


@pytest.mark.parametrize("as_text", [True, False])
def test_files_come_in_the_order_given(tmp_path: Path, as_text: bool) -> None:
    b, a = write_qpy(tmp_path / "b.qpy", [1, 2]), write_qpy(tmp_path / "a.qpy", [3])
    paths = [str(b), str(a), str(b)] if as_text else [b, a, b]
    source = QpyFiles(paths)
    assert source.count == 5
    assert angles_of(source) == [1, 2, 3, 1, 2]
    assert source.columns(0, 5) == {
        "file": [str(b), str(b), str(a), str(b), str(b)],
        "position": [0, 1, 0, 0, 1],
    }
    assert source.columns(1, 3) == {"file": [str(b), str(a)], "position": [1, 0]}
    assert source.columns(5, 5) == {"file": [], "position": []}
    assert dict(source.column_types) == {"file": "string", "position": "int64"}


def test_iterator_of_paths_is_taken(tmp_path: Path) -> None:
    write_qpy(tmp_path / "b.qpy", [1])
    write_qpy(tmp_path / "a.qpy", [2])
    assert angles_of(QpyFiles(sorted(tmp_path.iterdir()))) == [2, 1]
    assert QpyFiles(tmp_path.glob("*.qpy")).count == 2


def test_pattern_is_sorted_by_name_where_it_stands(tmp_path: Path) -> None:
    for name, angle in (("r2", 2), ("r10", 10), ("r1", 1)):
        write_qpy(tmp_path / f"{name}.qpy", [angle])
    last = write_qpy(tmp_path / "first.qpy", [0])
    (tmp_path / "r3.qpy").mkdir()
    pattern = str(tmp_path / "r*.qpy")
    assert angles_of(QpyFiles(pattern)) == [1, 10, 2]
    assert angles_of(QpyFiles(tmp_path / "r*.qpy")) == [1, 10, 2]
    assert angles_of(QpyFiles([pattern, last])) == [1, 10, 2, 0]
    assert angles_of(QpyFiles([last, pattern])) == [0, 1, 10, 2]


def test_pattern_goes_into_folders(tmp_path: Path) -> None:
    write_qpy(tmp_path / "x/y/b.qpy", [2])
    write_qpy(tmp_path / "x/a.qpy", [1])
    write_qpy(tmp_path / "c.qpy", [0])
    assert angles_of(QpyFiles(str(tmp_path / "**/*.qpy"))) == [0, 1, 2]


def test_file_that_is_called_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    odd = write_qpy(tmp_path / "run[1].qpy", [1])
    write_qpy(tmp_path / "run1.qpy", [2])
    assert angles_of(QpyFiles(odd)) == [1]
    odd.unlink()
    assert angles_of(QpyFiles(odd)) == [2]


def test_relative_path_is_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_qpy(tmp_path / "here/a.qpy", [1])
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    source = QpyFiles("a.qpy")
    monkeypatch.chdir(tmp_path / "there")
    assert angles_of(source) == [1]
    assert source.columns(0, 1)["file"] == ["a.qpy"]


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_qpy(tmp_path / "a.qpy", [1])
    assert angles_of(QpyFiles("~/a.qpy")) == [1]
    assert angles_of(QpyFiles(Path("~/*.qpy"))) == [1]


@pytest.mark.parametrize("kind", [QpyFiles, QasmFiles])
def test_paths_that_are_none_are_refused(kind: type[QpyFiles] | type[QasmFiles], tmp_path: Path) -> None:
    name = kind.__name__
    assert refusal(kind, 7) == f"paths of {name} is an int. Pass a path, a pattern or a list of them."
    assert refusal(kind, b"a").startswith(f"paths of {name} is a bytes. Pass")
    assert refusal(kind, ["a", 7][1:]) == f"paths of {name} holds an int. Pass strings or Path objects."
    assert refusal(kind, []) == f"paths of {name} is empty. Pass at least one path."
    missing = str(tmp_path / "*.none")
    assert refusal(kind, missing) == (
        f"{name} finds no file {missing!r} from {os.getcwd()}. Check the path or pattern."
    )
    assert refusal(kind, tmp_path) == (
        f"{str(tmp_path)!r} is a directory. Pass a pattern: {str(tmp_path / '*')!r}."
    )


@pytest.mark.parametrize("kind", [QpyFiles, QasmFiles])
def test_broken_link_and_what_cannot_be_opened_are_refused(
    kind: type[QpyFiles] | type[QasmFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert "No such file or directory" in refusal(kind, str(tmp_path / "lin*"))
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as door:
        door.bind("s")
        message = refusal(kind, "s")
    assert message.startswith("'s' can't be read (")
    assert message.endswith("). Check its permissions.")


# QPY.


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 600])
def test_qpy_of_every_version_and_length_is_read(tmp_path: Path, version: int, count: int) -> None:
    path = write_qpy(tmp_path / "a.qpy", range(count), version)
    with path.open("rb") as stream:
        expected = qpy.load(stream)
    source = QpyFiles(path)
    assert source.count == count
    for index in dict.fromkeys([0, count - 1, count // 2, min(255, count - 1), min(256, count - 1), 0]):
        circuit = source.build(index, 0)
        assert circuit == expected[index] == circuit_of(index)
        assert (circuit.name, circuit.metadata) == (f"angle {index}", {"angle": index})
    assert angles_of(cloudpickle.loads(cloudpickle.dumps(source))) == list(range(count))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(st.data())
def test_qpy_files_of_mixed_versions_in_any_order(tmp_path: Path, data: st.DataObject) -> None:
    sizes = data.draw(
        st.lists(st.tuples(st.integers(1, 9), st.sampled_from(VERSIONS)), min_size=1, max_size=4)
    )
    paths, expected, places = [], [], []
    for which, (size, version) in enumerate(sizes):
        angles = [which * 10 + j for j in range(size)]
        paths.append(write_qpy(tmp_path / f"{which}.qpy", angles, version))
        expected += angles
        places += list(range(size))
    source = QpyFiles(paths)
    assert source.columns(0, source.count)["position"] == places
    for index in data.draw(st.permutations(range(source.count))):
        assert angle_of(source.build(index, 0)) == expected[index]


@pytest.mark.parametrize("version", TABLE)
def test_worker_reads_one_block_of_a_large_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    source = QpyFiles(write_qpy(tmp_path / "a.qpy", range(1000), version))
    loaded: list[int] = []
    load = qpy.load

    def spy(stream: io.BytesIO) -> Any:
        circuits = load(stream)
        loaded.append(len(circuits))
        return circuits

    monkeypatch.setattr(qpy, "load", spy)
    for index in (*range(300, 500), 999, 998, 768):
        assert angle_of(source.build(index, 0)) == index
    assert loaded == [256, 232]


def test_built_circuit_may_be_changed(tmp_path: Path) -> None:
    source = QpyFiles(write_qpy(tmp_path / "a.qpy", [1, 2]))
    source.build(0, 0).clear()
    assert source.build(0, 0) == circuit_of(1)


def test_file_written_anew_gives_the_new_circuits_to_the_next_task(tmp_path: Path) -> None:
    """A worker lives longer than a task, and the new file may be of the old one's size."""
    path = write_qpy(tmp_path / "a.qpy", [1, 2])
    size = path.stat().st_size
    assert angles_of(QpyFiles(path)) == [1, 2]
    write_qpy(tmp_path / "b.qpy", [3, 4]).replace(path)
    assert path.stat().st_size == size
    assert angles_of(QpyFiles(path)) == [3, 4]
    write_qpy(path, [5, 6])
    os.utime(path, ns=(1, 1))  # the clock of a file system may be slow
    assert angles_of(QpyFiles(path)) == [5, 6]


@pytest.mark.parametrize("read_before", [True, False])
def test_qpy_file_that_changed_ends_the_task(tmp_path: Path, read_before: bool) -> None:
    path = write_qpy(tmp_path / "a.qpy", [1, 2])
    source, size = QpyFiles(path), path.stat().st_size
    if read_before:
        source.build(0, 0)
    write_qpy(path, [1, 2, 3])
    with pytest.raises(SourceError) as caught:
        source.build(1, 0)
    assert str(caught.value) == (
        f"{path} has {path.stat().st_size} bytes and had {size} when the task began. Leave files alone "
        "while a task runs, and keep one copy for all nodes."
    )
    path.unlink()
    with pytest.raises(SourceError) as caught:
        source.build(1, 0)
    assert str(caught.value).startswith(f"{path} can't be read on a worker (FileNotFoundError: ")
    assert str(caught.value).endswith("). Put it where every node sees it under this path.")


def test_index_beyond_the_files_is_refused(tmp_path: Path) -> None:
    source = QpyFiles(write_qpy(tmp_path / "a.qpy", [1, 2]))
    for index in (-1, 2):
        with pytest.raises(IndexError, match=f"circuit {index} of QpyFiles with 2 circuits"):
            source.build(index, 0)


def test_file_that_is_no_qpy_is_refused(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.qpy", TWO)
    assert refusal(QpyFiles, path) == (
        f"{path} is no QPY file: it starts with b'OPENQASM', not b'QISKIT'. Write it with qiskit.qpy.dump."
    )
    assert "starts with b''" in refusal(QpyFiles, write_text(path, ""))
    assert "starts with b'QISKIT'" in refusal(QpyFiles, write_text(path, "QISKIT"))


def test_newer_qpy_is_refused(tmp_path: Path) -> None:
    path = write_qpy(tmp_path / "a.qpy", [1])
    data = bytearray(path.read_bytes())
    data[6:10] = bytes([200, 9, 8, 7])
    path.write_bytes(data)
    assert refusal(QpyFiles, path) == (
        f"{path} is QPY 200, written by Qiskit 9.8.7, and this Qiskit reads up to {qpy.QPY_VERSION}. "
        f"Upgrade Qiskit, or dump with version={qpy.QPY_VERSION}."
    )


def test_qpy_of_no_circuits_is_refused(tmp_path: Path) -> None:
    path = write_qpy(tmp_path / "a.qpy", [])
    assert refusal(QpyFiles, path) == f"{path} holds 0 circuits. Leave it out."


@pytest.mark.parametrize("version", TABLE)
def test_qpy_cut_off_in_its_table_is_refused(tmp_path: Path, version: int) -> None:
    path = write_qpy(tmp_path / "a.qpy", range(10), version)
    path.write_bytes(path.read_bytes()[:100])
    assert refusal(QpyFiles, path) == (
        f"{path} is cut off: it has 100 bytes, and 10 circuits need more than 100. Copy or write it again."
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_damaged_block_fails_alone_and_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    path = write_qpy(tmp_path / "a.qpy", range(300), version)
    path.write_bytes(path.read_bytes()[:-20])
    source = QpyFiles(path)
    loads: list[int] = []
    load = qpy.load

    def spy(stream: io.BytesIO) -> Any:
        loads.append(1)
        return load(stream)

    monkeypatch.setattr(qpy, "load", spy)
    for index in (299, 298, 256, 299):
        with pytest.raises(Exception) as caught:
            source.build(index, 0)
        assert not isinstance(caught.value, SourceError)
    assert len(loads) == 1
    if version in TABLE:
        assert angle_of(source.build(255, 0)) == 255


def test_only_the_first_dump_of_a_file_is_seen(tmp_path: Path) -> None:
    path = write_qpy(tmp_path / "a.qpy", [1, 2])
    with path.open("ab") as stream:
        qpy.dump([circuit_of(3)], stream)
    with path.open("rb") as stream:
        assert len(qpy.load(stream)) == 2
    assert angles_of(QpyFiles(path)) == [1, 2]


# OpenQASM.


def test_qasm_2_is_read_as_qiskit_does(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.qasm", TWO.format(0.5))
    source = QasmFiles(path)
    assert source.count == 1
    assert source.build(0, 0) == QuantumCircuit.from_qasm_file(str(path)) == qasm2.load(path)
    assert source.columns(0, 1) == {"file": [str(path)], "line": [1]}
    assert dict(source.column_types) == {"file": "string", "line": "int64"}


def test_qasm_3_is_read_as_qiskit_does(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.qasm", THREE.format(0.5))
    assert QasmFiles(path).build(0, 0) == qasm3.loads(THREE.format(0.5))


def test_legacy_gates_are_known(tmp_path: Path) -> None:
    text = 'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[4];\nrxx(0.5) q[0],q[1];\nc3x q[0],q[1],q[2],q[3];\n'
    path = write_text(tmp_path / "a.qasm", text)
    assert QasmFiles(path).build(0, 0) == QuantumCircuit.from_qasm_file(str(path))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_several_programs_in_one_file(tmp_path: Path, end: str, bom: str) -> None:
    text = (
        "// first: OPENQASM 2.0;\n/* and\nOPENQASM 2.0;\n*/\n"
        + TWO.format(1)
        + "// between\n\n"
        + THREE.format(2)
        + "/* OPENQASM 3.0; */ // OPENQASM 3;\n"
        + "  OPENQASM   2.0 ;\n"
        + TWO.format(3).partition("\n")[2]
        + THREE.format(4).replace("3.0", "3")
        + THREE.format(5).replace("3.0", "3.1")
    )
    path = write_text(tmp_path / "a.qasm", bom + text.replace("\n", end))
    source = QasmFiles(path)
    assert angles_of(source) == [1, 2, 3, 4, 5]
    lines = text.split("\n")
    found = source.columns(0, 5)["line"]
    assert found == [5, 13, 20, 26, 32]
    for line in found:
        assert isinstance(line, int)
        assert lines[line - 1].lstrip().startswith("OPENQASM")
    assert angles_of(cloudpickle.loads(cloudpickle.dumps(source))) == [1, 2, 3, 4, 5]


def test_string_that_holds_a_comment_hides_nothing(tmp_path: Path) -> None:
    write_text(tmp_path / "x" / "odd//name.inc", "opaque mine a;\n")
    write_text(tmp_path / "x" / "odd*.inc", "")
    text = 'OPENQASM 2.0;\ninclude "qelib1.inc";\ninclude "odd//name.inc";\nqreg q[1];\nmine q[0];\n'
    path = write_text(tmp_path / "x" / "a.qasm", text + TWO.format(2))
    source = QasmFiles(path)
    assert source.count == 2
    assert source.build(0, 0).data[0].name == "mine"
    assert angle_of(source.build(1, 0)) == 2


def test_include_is_found_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "x/mine.inc", "opaque mine a;\n")
    path = write_text(tmp_path / "x/a.qasm", 'OPENQASM 2.0;\ninclude "mine.inc";\nqreg q[1];\nmine q[0];\n')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert QasmFiles(path).build(0, 0).data[0].name == "mine"


def test_qasm_files_follow_each_other(tmp_path: Path) -> None:
    b = write_text(tmp_path / "b.qasm", "\n" + TWO.format(1) + TWO.format(2))
    a = write_text(tmp_path / "a.qasm", THREE.format(3))
    source = QasmFiles([b, a])
    assert angles_of(source) == [1, 2, 3]
    assert source.columns(0, 3) == {"file": [str(b), str(b), str(a)], "line": [2, 8, 1]}
    assert angles_of(QasmFiles(str(tmp_path / "*.qasm"))) == [3, 1, 2]
    assert repr(source) == "QasmFiles(2 files, 3 circuits)"
    assert make_source(source, 3) is source


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from(["", "\n", "// c\n", "// OPENQASM 2.0;\n", " \t\n\n"]), st.booleans()),
        min_size=1,
    )
)
def test_any_programs_are_found_again(tmp_path: Path, programs: list[tuple[str, bool]]) -> None:
    text, lines = "", []
    for number, (before, three) in enumerate(programs):
        text += before
        lines.append(text.count("\n") + 1)
        text += (THREE if three else TWO).format(number + 1)
    source = QasmFiles(write_text(tmp_path / "a.qasm", text))
    assert source.columns(0, source.count)["line"] == lines
    assert angles_of(source) == list(range(1, len(programs) + 1))


def test_program_that_does_not_parse_fails_alone(tmp_path: Path) -> None:
    path = write_text(
        tmp_path / "a.qasm",
        TWO.format(1) + "OPENQASM 2.0;\nnonsense\n" + "OPENQASM 3.0;\nnonsense\n" + TWO.format(2),
    )
    path.write_bytes(path.read_bytes() + b"OPENQASM 2.0;\n// \xff\xfe\n" + THREE.format(3).encode())
    source = QasmFiles(path)
    assert source.count == 6
    first = TWO.count("\n") + 1
    with pytest.raises(QASM2ParseError, match=rf"a\.qasm:{first + 1},"):
        source.build(1, 0)
    with pytest.raises(QASM3ImporterError, match=rf"a\.qasm:{first + 2}: .* in line {first + 4} on"):
        source.build(2, 0)
    with pytest.raises(UnicodeDecodeError):
        source.build(4, 0)
    assert [angle_of(source.build(index, 0)) for index in (0, 3, 5)] == [1, 2, 3]


def test_qasm_file_that_changed_ends_the_task(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.qasm", TWO.format(1))
    source, size = QasmFiles(path), path.stat().st_size
    write_text(path, TWO.format(1.25))
    with pytest.raises(SourceError, match=f"has {size + 3} bytes and had {size} when the task began"):
        source.build(0, 0)
    path.unlink()
    with pytest.raises(SourceError, match=r"can't be read on a worker \(FileNotFoundError"):
        source.build(0, 0)


def test_file_moved_to_another_node_is_read_there(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.qasm", TWO.format(1))
    source = QasmFiles(path)
    shutil.copy(path, tmp_path / "copy")
    os.utime(tmp_path / "copy", ns=(5, 5))
    (tmp_path / "copy").replace(path)
    assert angles_of(source) == [1]


@pytest.mark.parametrize("text", ["", "qreg q[1];\n", "// OPENQASM 2.0;\n", '"OPENQASM 2.0;"', "OPENQASM;\n"])
def test_file_without_a_version_line_is_refused(tmp_path: Path, text: str) -> None:
    path = write_text(tmp_path / "a.qasm", text)
    assert refusal(QasmFiles, path) == (
        f"{path} has no line 'OPENQASM <version>;', where a program begins. Add it, with 2.0 or 3.0."
    )


@pytest.mark.parametrize("version", ["1.0", "4.0", "30", "22.1", "4"])
def test_unknown_version_is_refused(tmp_path: Path, version: str) -> None:
    path = write_text(tmp_path / "a.qasm", TWO.format(1) + f"\nOPENQASM {version};\n")
    assert refusal(QasmFiles, path) == f"{path}:8 is OpenQASM {version}. Versions 2 and 3 can be read."


def test_what_stands_before_the_first_program_is_refused(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.qasm", "// fine\nqreg early[2];\n" + TWO.format(1))
    assert refusal(QasmFiles, path) == (
        f"{path} has 'qreg early[2];' before its first OPENQASM line (line 3), which would be lost. "
        "Move it behind, or remove it."
    )


def test_missing_importer_of_qasm_3_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    path = write_text(tmp_path / "a.qasm", TWO.format(1) + THREE.format(1))
    assert refusal(QasmFiles, path) == (
        f"{path}:7 is OpenQASM 3, which needs a package that is missing. Install qiskit-qasm3-import."
    )
    assert QasmFiles(write_text(path, TWO.format(1))).count == 1
