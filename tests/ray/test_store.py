"""Tasks with a store: the same call goes on, another one is refused, and what is stored reads as what was returned."""

from __future__ import annotations

import functools
import json
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Parameter

import ray_qjm
from ray_qjm import RunOptions, Sweep, TaskResult, TaskStatus, TranspileOptions
from ray_qjm.cluster import coordinator
from ray_qjm.cluster.kept_rows import MAY_PASS
from ray_qjm.errors import (
    InvalidInputError,
    PartialResultWarning,
    StoreInUseError,
    StoreMismatchError,
    TaskFailedError,
)
from tests.ray.circuits_for_tests import Killer, binary, random_one
from tests.storing import check_store, rows_of

SMALL = RunOptions(max_chunk=7)


def stopped(at: int, **arguments: Any) -> TaskStatus:
    """Run a task with a store and cancel it once so many circuits are done."""
    reached = threading.Event()

    def tell(status: TaskStatus) -> None:
        if status.done >= at:
            reached.set()

    task = ray_qjm.submit(progress=tell, **arguments)
    assert reached.wait(120)
    task.cancel()
    return task.wait(60)


@pytest.fixture(scope="session")
def undisturbed(shared_ray: None) -> pa.Table:
    """The rows of 120 circuits, run in one go and in memory."""
    return rows_of(ray_qjm.run(random_one, count=120, shots=50, seed=7, progress=False))


def of_120(**more: Any) -> dict[str, Any]:
    return {"circuits": random_one, "count": 120, "shots": 50, "seed": 7, "options": SMALL, **more}


def test_stored_rows_are_those_of_a_run_in_memory(tmp_path: Path, undisturbed: pa.Table) -> None:
    result = ray_qjm.run(**of_120(store=tmp_path / "s"), progress=False)
    assert rows_of(result).equals(undisturbed)
    assert result.jobs.num_rows >= 120 / 7 and result.jobs.column("submitted").null_count == 0
    assert [result.job_ids[row] for row in result[119].jobs] == [
        job["job_id"] for job in result.jobs.to_pylist() if job["start"] <= 119 < job["stop"]
    ]
    opened = TaskResult.open(tmp_path / "s")
    assert opened.table.equals(result.table) and opened.jobs.equals(result.jobs)
    assert opened.info == result.info
    assert pa.Table.from_batches(opened.iter_batches()).num_rows == 120
    assert opened.get_counts(-1) == result.get_counts(119)
    check_store(tmp_path / "s", 120)


def test_the_same_call_goes_on(tmp_path: Path, undisturbed: pa.Table) -> None:
    first = stopped(20, **of_120(store=tmp_path / "s"))
    assert first.state == "cancelled" and 20 <= first.done < 120
    seen: list[TaskStatus] = []
    result = ray_qjm.run(**of_120(store=str(tmp_path / "s"), seed=None), progress=seen.append)
    assert seen[0].done == first.done and seen[-1].done == 120
    assert rows_of(result).equals(undisturbed)
    ran = [job for job in result.jobs.to_pylist() if job["job_id"].endswith("-e2")]
    assert sum(job["circuits"] for job in ran) == 120 - first.done
    check_store(tmp_path / "s", 120)


def test_duckdb_and_polars_read_the_files(tmp_path: Path) -> None:
    import duckdb
    import polars as pl

    files = ray_qjm.run(**of_120(store=tmp_path / "s"), progress=False).files()
    (row,) = duckdb.execute("SELECT count(*), sum(list_sum(counts)) FROM read_parquet(?)", [files]).fetchall()
    assert row == (120, 120 * 50)
    assert pl.read_parquet(files)["circuit"].sort().to_list() == list(range(120))


def test_what_is_whole_is_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ray_qjm.run(**of_120(store=tmp_path / "s"), progress=False)
    monkeypatch.setattr(coordinator.Coordinator, "start", None)
    again = ray_qjm.run(**of_120(store=tmp_path / "s"), progress=False)
    assert again.table.equals(before.table) and again.jobs.equals(before.jobs)
    assert again.report() == before.report() == "120 of 120 circuits done."


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("count", {"count": 121}),
        ("shots", {"shots": 51}),
        ("shots", {"shots": np.arange(1, 121)}),
        ("seed", {"seed": 8}),
        ("memory", {"memory": True}),
        ("source", {"circuits": binary}),
        ("transpile", {"options": RunOptions(transpile=TranspileOptions(level=2))}),
    ],
)
def test_another_task_is_refused(tmp_path: Path, field: str, change: dict[str, Any]) -> None:
    stopped(5, **of_120(store=tmp_path / "s"))
    before = sorted(path.name for path in (tmp_path / "s").rglob("*"))
    with pytest.raises(StoreMismatchError, match=f"with {field} .*; this call has .*another store") as caught:
        ray_qjm.run(**of_120(store=tmp_path / "s") | change, progress=False)
    assert caught.value.field == field and caught.value.stored != caught.value.given
    assert sorted(path.name for path in (tmp_path / "s").rglob("*")) == before


def test_what_may_change_may_change(tmp_path: Path, undisturbed: pa.Table) -> None:
    """Limits, options, another backend of the same configuration, names."""
    stopped(5, **of_120(store=tmp_path / "s"))
    from qiskit_aer import AerSimulator

    result = ray_qjm.run(
        **of_120(store=tmp_path / "s", options=RunOptions(max_chunk=30, crash_retries=0), name="night"),
        backends=[AerSimulator(method="statevector")],
        progress=False,
    )
    assert result.info["name"] == "night"
    assert rows_of(result, but=["backend"]).equals(undisturbed.drop(["backend"]))


def made(angle: float) -> Callable[[int], QuantumCircuit]:
    """Functions of equal source text."""

    def circuit(index: int) -> QuantumCircuit:
        found = QuantumCircuit(1, 1)
        found.rx(angle * index, 0)
        found.measure(0, 0)
        return found

    return circuit


def test_equal_source_text_with_other_circuits_is_refused(tmp_path: Path) -> None:
    stopped(5, circuits=made(0.1), count=50, store=tmp_path / "s", options=SMALL, seed=1)
    with pytest.raises(
        StoreMismatchError, match=r"circuit \d+ of callable circuit isn't the one that was run"
    ):
        ray_qjm.run(made(0.2), count=50, store=tmp_path / "s", seed=1, progress=False)
    assert len(ray_qjm.run(made(0.1), count=50, store=tmp_path / "s", seed=1, progress=False)) == 50


def test_code_without_text_needs_a_version(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r'no source text .*version="1"'):
        ray_qjm.run(functools.partial(binary, bits=3), count=5, store=tmp_path / "s", progress=False)
    assert not (tmp_path / "s").exists()
    call: dict[str, Any] = {"count": 5, "store": tmp_path / "s", "progress": False}
    ray_qjm.run(functools.partial(binary, bits=3), **call, version="1")
    with pytest.raises(StoreMismatchError, match="this call has version '2'"):
        ray_qjm.run(functools.partial(binary, bits=3), **call, version="2")
    result = ray_qjm.run(functools.partial(binary, bits=3), **call, version="1")
    assert result.get_counts(4) == {"100": 1024}


def drawn(seed: int, count: int, taken: list[int]) -> Iterator[QuantumCircuit]:
    rng = np.random.default_rng(seed)
    for index in range(count):
        taken.append(index)
        circuit = QuantumCircuit(1, 1)
        circuit.rx(float(rng.random()), 0)
        circuit.measure(0, 0)
        yield circuit


@pytest.mark.parametrize("count", [None, 40])
def test_an_iterable_that_has_become_shorter_loses_no_rows(tmp_path: Path, count: int | None) -> None:
    """The store has a hole before rows that the shorter one doesn't reach."""
    call: dict[str, Any] = {
        "store": tmp_path / "s",
        "seed": 1,
        "count": count,
        "options": RunOptions(max_chunk=4, max_in_flight=1),
        "progress": False,
    }
    ray_qjm.run((binary(i) for i in range(40)), **call)
    (tmp_path / "s" / "parts" / "1" / "4-8.parquet").unlink()
    with pytest.raises(
        StoreMismatchError, match="ended after 5 circuits, and the store has the row of circuit 8"
    ):
        ray_qjm.run((binary(i) for i in range(5)), **call)
    result = ray_qjm.run((binary(i) for i in range(40)), **call)
    assert [int(next(iter(counts)), 2) for counts in result.get_counts()] == list(range(40))
    check_store(tmp_path / "s", 40)


def test_a_whole_task_is_not_one_of_another_length(tmp_path: Path) -> None:
    call: dict[str, Any] = {"store": tmp_path / "s", "seed": 1, "progress": False}
    ray_qjm.run((binary(i) for i in range(20)), **call)
    read: list[int] = []

    def endless() -> Iterator[QuantumCircuit]:
        for index in range(10_000):
            read.append(index)
            yield binary(index)

    for circuits, now in (((binary(i) for i in range(5)), "5"), (endless(), "more than 20"), (iter(()), "0")):
        with pytest.raises(StoreMismatchError, match=f"had 20 circuits, and iterable .* has {now}"):
            ray_qjm.run(circuits, **call)
    assert len(read) == 21


def test_a_cell_that_is_run_again_means_the_same_circuits(tmp_path: Path) -> None:
    """Qiskit counts the names of registers and gates through."""

    def circuit(index: int) -> QuantumCircuit:
        inner = QuantumCircuit(1)
        inner.rx(index, 0)
        found = QuantumCircuit(QuantumRegister(1), ClassicalRegister(1))
        found.append(inner.to_gate(), [0])
        found.measure(0, 0)
        return found

    for circuits in (circuit, [circuit(i) for i in range(20)], [circuit(i) for i in range(20)]):
        count = 20 if callable(circuits) else None
        store = tmp_path / ("f" if callable(circuits) else "list")
        for _ in range(2):
            ray_qjm.run(circuits, count=count, store=store, seed=1, progress=False)


def test_a_lambda_is_not_its_statement(tmp_path: Path) -> None:
    first = ray_qjm.run(lambda i: binary(i), count=3, store=tmp_path / "s", seed=1, progress=False)
    again = ray_qjm.run(lambda i: binary(i), count=3, store=tmp_path / "s", retry_failed=True, progress=False)
    assert again.table.equals(first.table)


def test_an_iterable_is_read_again_and_compared(tmp_path: Path) -> None:
    whole = ray_qjm.run(drawn(3, 60, []), seed=1, shots=9, progress=False)
    call: dict[str, Any] = {"store": tmp_path / "s", "seed": 1, "shots": 9, "options": SMALL}
    stopped(10, circuits=drawn(3, 60, []), **call)
    with pytest.raises(StoreMismatchError, match=r"circuit 0 of iterable .* isn't the one that was run"):
        ray_qjm.run(drawn(4, 60, []), **call, progress=False)
    with pytest.raises(StoreMismatchError, match="ended after 3 circuits"):
        ray_qjm.run(drawn(3, 3, []), **call, progress=False)
    taken: list[int] = []
    result = ray_qjm.run(drawn(3, 60, taken), **call, progress=False)
    assert taken == list(range(60)) and rows_of(result).equals(rows_of(whole))
    # Whole as it is now: still no other circuits may pass for these.
    with pytest.raises(StoreMismatchError, match="circuit 0 "):
        ray_qjm.run(drawn(5, 60, []), **call, progress=False)
    assert rows_of(ray_qjm.run(drawn(3, 60, []), **call, progress=False)).equals(rows_of(whole))


def test_a_list_that_differs_behind_the_last_that_runs_is_refused(tmp_path: Path) -> None:
    """The circuits that are run lie before some that are only compared."""
    circuits = [binary(i) for i in range(30)]
    call: dict[str, Any] = {
        "store": tmp_path / "s",
        "seed": 1,
        "options": RunOptions(max_chunk=5),
        "progress": False,
    }
    ray_qjm.run(circuits, **call)
    (part,) = (tmp_path / "s" / "parts" / "1").glob("0-*.parquet")
    part.unlink()
    with pytest.raises(StoreMismatchError, match="circuit 29 "):
        ray_qjm.run([*circuits[:29], binary(77)], **call)
    assert ray_qjm.run(circuits, **call).report() == "30 of 30 circuits done."
    check_store(tmp_path / "s", 30)


def test_what_was_read_of_an_iterable_is_what_is_run(tmp_path: Path) -> None:
    """Circuits that were read and not run when the task ended; what the iterable gives for them now doesn't count."""
    from qiskit import qpy

    call: dict[str, Any] = {"store": tmp_path / "s", "seed": 1, "options": RunOptions(max_chunk=4)}
    stopped(8, circuits=(binary(i) for i in range(40)), **call)
    done = TaskResult.open(tmp_path / "s").status_counts["done"]
    assert done < 40
    inputs = tmp_path / "s" / "inputs" / "1"
    for path in inputs.iterdir():
        path.unlink()
    with open(inputs / f"{done}-{done + 3}.qpy", "wb") as file:
        qpy.dump([binary(100 + i) for i in range(3)], file)
    result = ray_qjm.run((binary(i) for i in range(40)), **call, progress=False)
    values = [int(next(iter(result.get_counts(i))), 2) for i in range(40)]
    assert values == [*range(done), 100, 101, 102, *range(done + 3, 40)]
    assert not list((tmp_path / "s" / "inputs").rglob("*.qpy"))
    check_store(tmp_path / "s", 40)


def test_sweeps_and_groups_keep_their_columns(tmp_path: Path) -> None:
    theta = Parameter("theta")
    circuit = QuantumCircuit(1, 1)
    circuit.rx(theta, 0)
    circuit.measure(0, 0)
    values = {"theta": np.linspace(0, 1, 40)}
    call: dict[str, Any] = {"seed": 1, "options": SMALL}
    stopped(5, circuits=Sweep(circuit, values), store=tmp_path / "s", **call)
    opened = TaskResult.open(tmp_path / "s")
    assert len(opened) == 40 and "theta" in opened.table.schema.names
    with pytest.raises(StoreMismatchError, match="with source "):
        ray_qjm.run(Sweep(circuit, {"theta": np.linspace(0, 2, 40)}), store=tmp_path / "s", **call)
    result = ray_qjm.run(Sweep(circuit, values), store=tmp_path / "s", progress=False, **call)
    assert result.table.column("theta").to_pylist() == values["theta"].tolist()

    groups = {"A": [binary(i) for i in range(10)], "B": [binary(i) for i in range(10, 20)]}
    ray_qjm.run(groups, store=tmp_path / "g", progress=False, **call)
    assert TaskResult.open(tmp_path / "g").table.column("group").to_pylist() == ["A"] * 10 + ["B"] * 10


def test_single_shots_are_stored(tmp_path: Path) -> None:
    call: dict[str, Any] = {"count": 30, "shots": 20, "seed": 7, "memory": True, "options": SMALL}
    calm = ray_qjm.run(random_one, **call, progress=False)
    stopped(5, circuits=random_one, store=tmp_path / "s", **call)
    partial = TaskResult.open(tmp_path / "s")
    assert partial.table.schema.equals(calm.table.schema) and len(partial) == 30
    result = ray_qjm.run(random_one, store=tmp_path / "s", progress=False, **call)
    assert rows_of(result).equals(rows_of(calm))
    assert TaskResult.open(tmp_path / "s").get_memory(29) == calm.get_memory(29)


def test_several_backends_one_of_them_no_aer(tmp_path: Path) -> None:
    circuits = [binary(i) for i in range(40)]
    stopped(5, circuits=circuits, backends=["basic"], store=tmp_path / "s", options=SMALL)
    result = ray_qjm.run(
        circuits, backends=["basic", "aer"], store=tmp_path / "s", options=SMALL, progress=False
    )
    assert [int(next(iter(counts)), 2) for counts in result.get_counts()] == list(range(40))
    assert json.loads(TaskResult.open(tmp_path / "s").info["backends"]) == ["basic", "aer"]
    check_store(tmp_path / "s", 40)


def broken(index: int) -> QuantumCircuit:
    if index in (3, 4, 17):
        raise ValueError("no such angle")
    return binary(index)


def test_failed_circuits_stay_failed(tmp_path: Path) -> None:
    with pytest.warns(PartialResultWarning, match="3 of 20"):
        first = ray_qjm.run(broken, count=20, store=tmp_path / "s", seed=1, progress=False)
    for retry_failed in (False, True):
        with pytest.warns(PartialResultWarning, match="3 of 20"):
            again = ray_qjm.run(
                broken, count=20, store=tmp_path / "s", retry_failed=retry_failed, progress=False
            )
        assert again.table.equals(first.table)
    opened = TaskResult.open(tmp_path / "s")
    assert opened.report() == first.report()
    assert opened.report().startswith("circuits 3-4 failed to build. Reason: ValueError: no such angle\n")
    assert ray_qjm.attach(tmp_path / "s").report() == first.report()


def test_retry_failed_runs_what_may_have_passed(tmp_path: Path) -> None:
    """A circuit that killed its workers, and one that is broken."""
    folder = tmp_path / "deaths"
    folder.mkdir()
    call: dict[str, Any] = {
        "count": 12,
        "store": tmp_path / "s",
        "seed": 1,
        "version": "1",
        "progress": False,
    }
    with pytest.warns(PartialResultWarning, match="1 of 12 .*WorkerDiedError"):
        ray_qjm.run(Killer(5, folder, times=3), options=RunOptions(max_chunk=4, crash_retries=0), **call)
    assert "WorkerDiedError" in MAY_PASS
    with pytest.warns(PartialResultWarning, match="1 of 12"):
        ray_qjm.run(Killer(5, folder, times=0), **call)
    result = ray_qjm.run(Killer(5, folder, times=0), retry_failed=True, **call)
    assert result.get_counts(5) == {"00000101": 1024} and result.failures.num_rows == 0
    check_store(tmp_path / "s", 12)
    opened = TaskResult.open(tmp_path / "s")
    before = opened.table
    opened.compact()
    assert len(opened.files()) == 1
    check_store(tmp_path / "s", 12)
    assert opened.table.equals(before) and TaskResult.open(tmp_path / "s").table.equals(before)


def test_a_second_driver_is_refused_and_attach_watches(tmp_path: Path) -> None:
    task = ray_qjm.submit(random_one, count=100_000, shots=10, store=tmp_path / "s", seed=1)
    try:
        with pytest.raises(StoreInUseError, match=r"is being run by process \d+ on .*attach"):
            ray_qjm.submit(random_one, count=100_000, shots=10, store=tmp_path / "s", seed=1)
        watched = ray_qjm.attach(tmp_path / "s")
        assert watched.id == task.id and not watched.done()
        assert watched.status().state == "running" and watched.status().total == 100_000
        batches = watched.stream()
        first = next(batches)
        assert first.schema.equals(TaskResult.open(tmp_path / "s").table.schema)
        batches.close()  # type: ignore[attr-defined]
        assert not task.done()
        partial = watched.result(partial=True)
        assert len(partial) == 100_000 and partial.status_counts["done"] > 0
        watched.cancel()
        assert task.wait(60).state == "cancelled"
        assert watched.wait(60).state == "cancelled"
        with pytest.raises(ray_qjm.errors.StoreError, match="nothing to cancel"):
            watched.cancel()
    finally:
        task.cancel(force=True)
        task.wait(60)


def test_streams_give_every_row_once_as_often_as_they_are_asked(tmp_path: Path) -> None:
    stopped(20, **of_120(store=tmp_path / "s"))
    task = ray_qjm.submit(**of_120(store=tmp_path / "s"))
    streams = [[*task.stream()], [*task.stream()], [*ray_qjm.attach(tmp_path / "s").stream()]]
    for batches in streams:
        table = pa.Table.from_batches(batches)
        assert sorted(table.column("circuit").to_pylist()) == list(range(120))
    assert task.result().table.num_rows == 120


def test_one_reason_that_fails_everything_can_be_mended_and_resumed(tmp_path: Path) -> None:
    def never(index: int) -> QuantumCircuit:
        raise RuntimeError("the licence server is down")

    with pytest.raises(TaskFailedError, match=r"1\d circuits in a row") as caught:
        ray_qjm.run(
            never,
            count=1000,
            store=tmp_path / "s",
            options=RunOptions(max_failures=10, max_chunk=5),
            version="1",
            progress=False,
        )
    assert caught.value.result is not None
    watched = ray_qjm.attach(tmp_path / "s")
    assert watched.status().state == "failed"
    with pytest.raises(TaskFailedError, match=r"1\d circuits in a row"):
        watched.result()


def test_a_store_holds_no_code_and_only_its_user_reads_it(tmp_path: Path) -> None:
    ray_qjm.run([binary(1), binary(2)], store=tmp_path / "s", progress=False, tags=["a"], shots=[3, 4])
    files = [path for path in (tmp_path / "s").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".parquet", ".npy"}
    for path in (tmp_path / "s").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".parquet":
            pq.read_table(path)
        elif path.suffix == ".npy":
            assert np.load(path, allow_pickle=False).tolist() == [3, 4]
    assert TaskResult.open(tmp_path / "s").table.column("shots_requested").to_pylist() == [3, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"store": ""}, "Give a directory or a URI"),
        ({"store": 3}, "Give a directory or a URI"),
        ({"store": "ftp://host/x"}, "known are"),
        ({"store": "s3://bucket/run#1"}, "has a # or"),
        ({"store": "file://tmp/x"}, "three slashes"),
        ({"store": "file:/tmp/x"}, "two slashes"),
        ({"store": "a\ud800"}, "is no path"),
        ({"store": "~nobody-of-this-name/x"}, "is no path"),
        ({"store": "x" * 300}, "can't be made"),
        ({"name": "a\ud800"}, "lone surrogate"),
        ({"store": "s3://user:secret@bucket/x"}, "no credentials"),
        ({"retry_failed": True}, "with a store"),
        ({"version": "1"}, "with a store"),
        ({"store": "here", "version": 1}, "version is a int"),
        ({"store": "here", "retry_failed": 1}, "retry_failed is 1"),
    ],
)
def test_bad_input_makes_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match=message):
        ray_qjm.run(binary, count=3, progress=False, **arguments)
    assert not list(tmp_path.iterdir())


def test_a_relative_store_of_a_submitted_job_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(InvalidInputError, match="relative, and under `ray job submit`"):
        ray_qjm.run(binary, count=3, store="here", progress=False)


def test_there_is_nothing_to_attach_to(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no such directory"):
        ray_qjm.attach(tmp_path / "nowhere")
    with pytest.raises(InvalidInputError, match="holds no task"):
        TaskResult.open(tmp_path)
    assert not list(tmp_path.iterdir())


def test_results_in_memory_have_no_files() -> None:
    result = ray_qjm.run([binary(1)], progress=False)
    for ask in (result.files, result.compact):
        with pytest.raises(InvalidInputError, match="in memory"):
            ask()
