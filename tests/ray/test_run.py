"""The main job, end to end on a real Ray: sources, seeds, failures, and what comes back."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from qiskit import QuantumCircuit, qasm2, qpy, transpile
from qiskit.circuit import Gate, Parameter
from qiskit.providers.basic_provider import BasicSimulator
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel, depolarizing_error

import ray_qjm
from ray_qjm import BackendSpec, QasmFiles, QpyFiles, Resources, RunOptions, Sweep, TranspileOptions
from ray_qjm.cluster import naming
from ray_qjm.errors import (
    BackendLoadError,
    CircuitFailedError,
    InvalidInputError,
    PartialResultWarning,
    SourceError,
    TaskFailedError,
    UnknownBackendError,
)
from tests.backends.strange import Strange
from tests.ray.circuits_for_tests import Killer, binary, coin, named_by_ray, random_one


def run(circuits: Any, backends: Any = ("aer",), **options: Any) -> ray_qjm.TaskResult:
    return ray_qjm.run(circuits, backends, **{"progress": False, "shots": 100, "seed": 7, **options})


def all_counts(result: ray_qjm.TaskResult) -> list[dict[str, int] | None]:
    return [row.counts() if row.status == "done" else None for row in result]


def test_counts_are_those_of_one_big_run_of_aer() -> None:
    result = run(random_one, count=60)
    circuits = [
        random_one(i, np.random.default_rng(np.random.SeedSequence(7, spawn_key=(i,)))) for i in range(60)
    ]
    simulator = AerSimulator(max_parallel_threads=1)
    compiled = transpile(circuits, simulator, optimization_level=1)
    ran = simulator.run(compiled, shots=100, seed_simulator=result[0].seed).result()
    mine = run(circuits, options=RunOptions(transpile=TranspileOptions(level=1)))
    assert [row.seed for row in mine] == [item.seed_simulator for item in ran.results]
    assert mine.get_counts() == ran.get_counts()


def test_counts_depend_on_seed_and_index_only() -> None:
    """Twice the same task, cut in another way, on another number of workers, with a broken circuit inside."""

    def circuit(index: int, rng: np.random.Generator) -> QuantumCircuit:
        if index == 37:
            raise ValueError("broken on purpose")
        return random_one(index, rng)

    found = []
    for chunk, slots in ((7, 1), (50, 2), (100, 2)):
        spec = BackendSpec("aer", resources=Resources(num_cpus=2 / slots))
        with pytest.warns(PartialResultWarning):
            result = run(circuit, spec, count=100, options=RunOptions(max_chunk=chunk))
        assert result.jobs.num_rows >= 100 // chunk
        found.append(all_counts(result))
    assert found[0][37] is None
    assert found[0] == found[1] == found[2]
    whole = all_counts(run(random_one, count=100))
    assert [a for i, a in enumerate(whole) if i != 37] == [a for i, a in enumerate(found[0]) if i != 37]


def test_another_seed_gives_other_counts() -> None:
    assert all_counts(run(coin, count=20)) != all_counts(run(coin, count=20, seed=8))


def test_seed_of_fresh_entropy_is_recorded_and_repeats_the_run() -> None:
    first = run(coin, count=20, seed=None)
    again = run(coin, count=20, seed=int(first.table.schema.metadata[b"seed"]))
    assert all_counts(first) == all_counts(again)


def test_each_row_is_its_own_circuit() -> None:
    result = run(binary, count=256)
    assert [int(next(iter(result.get_counts(i))), 2) for i in range(256)] == list(range(256))


def test_list_keeps_names_metadata_and_look_up_by_object() -> None:
    circuits = [binary(i) for i in range(20)]
    circuits[3].name, circuits[3].metadata = "third", {"who": "me", "n": [1, 2]}
    result = run(circuits)
    assert result.get_counts("third") == result.get_counts(circuits[3]) == result.get_counts(3)
    assert result[3].metadata == {"who": "me", "n": [1, 2]}
    assert result[-1].circuit == 19


def test_groups_become_a_column() -> None:
    result = run({"A": [binary(i) for i in range(3)], "B": (binary(i) for i in range(5))})
    assert result.table.column("group").to_pylist() == ["A"] * 3 + ["B"] * 5
    assert result.get_counts(4) == {"00000001": 100}


def test_generator_is_read_only_as_far_as_chunks_in_flight_need() -> None:
    taken = 0

    def circuits() -> Iterator[QuantumCircuit]:
        nonlocal taken
        while True:
            taken += 1
            yield coin(0)

    with ray_qjm.submit(circuits(), shots=10, seed=1, options=RunOptions(max_chunk=10)) as task:
        seen = 0
        for batch in task.stream():
            seen += batch.num_rows
            # 2 slots x 2 chunks x 10 circuits, and what has landed but not been read: at most 64 batches.
            assert taken <= seen + 4 * 10 + 66 * 10
            if seen >= 200:
                break
    assert task.wait(60).state == "cancelled"


def test_generator_of_unknown_length_gives_as_many_rows() -> None:
    result = run(binary(i) for i in range(33))
    assert len(result) == 33
    assert result.get_counts(32) == {"00100000": 100}


def test_generator_that_raises_fails_in_that_row_alone() -> None:
    def circuits() -> Iterator[QuantumCircuit]:
        yield from (binary(i) for i in range(17))
        raise KeyError("out of circuits")

    with pytest.warns(PartialResultWarning, match="1 of 18 circuits"):
        result = run(circuits())
    assert (result[17].stage, result[17].error_type) == ("build", "KeyError")
    assert result.get_counts(16) == {"00010000": 100}


def test_generator_that_ends_before_count_leaves_failed_rows() -> None:
    with pytest.warns(PartialResultWarning, match="5 of 15 circuits"):
        result = run((binary(i) for i in range(10)), count=15)
    assert result.failures.column("circuit").to_pylist() == [10, 11, 12, 13, 14]
    assert "ended after 10 circuits; count is 15" in result.report()


def test_empty_list_is_an_empty_result() -> None:
    result = run([])
    assert len(result) == 0
    assert result.table.num_rows == 0


def test_sweep_gives_its_values_as_columns() -> None:
    circuit, angle = QuantumCircuit(1), Parameter("angle")
    circuit.rx(angle, 0)
    circuit.measure_all()
    values = np.linspace(0, np.pi, 30)
    result = run(Sweep(circuit, {"angle": values}), shots=2000)
    assert result.table.column("angle").to_pylist() == values.tolist()
    np.testing.assert_allclose(result.expectation("Z"), np.cos(values), atol=0.12)
    assert result.get_counts(29) == {"1": 2000}


def test_files_are_read_on_workers(tmp_path: Path) -> None:
    with open(tmp_path / "a.qpy", "wb") as stream:
        qpy.dump([binary(i) for i in range(12)], stream)
    result = run(QpyFiles(tmp_path / "a.qpy"))
    assert result.get_counts(11) == {"00001011": 100}
    assert result.table.column("position").to_pylist() == list(range(12))
    (tmp_path / "b.qasm").write_text(qasm2.dumps(binary(5)))
    (tmp_path / "c.qasm").write_text(
        'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit q; bit c; x q; c = measure q;\n'
    )
    result = run(QasmFiles(tmp_path / "*.qasm"))
    assert result.get_counts() == [{"00000101": 100}, {"1": 100}]


def test_shots_may_differ_from_circuit_to_circuit() -> None:
    shots = np.arange(1, 41)
    result = run(coin, count=40, shots=shots)
    assert result.table.column("shots").to_pylist() == shots.tolist()
    even = run(coin, count=40, shots=40)
    assert result.get_counts(39) == even.get_counts(39)


def test_memory_keeps_every_shot() -> None:
    result = run([binary(3), coin(0)], memory=True)
    assert result.get_memory(0) == ["00000011"] * 100
    memory = result.get_memory(1)
    assert {key: memory.count(key) for key in ("0", "1")} == result.get_counts(1)


@pytest.mark.parametrize("level", [0, 1, 2, "auto"])
def test_every_level_compiles_for_a_device(level: Any) -> None:
    options = RunOptions(transpile=TranspileOptions(level=level))
    result = run([binary(5, bits=3)] * 3, "fake_manila", shots=500, options=options)
    assert all(max(row.counts(), key=row.counts().__getitem__) == "101" for row in result)


def test_circuit_with_layout_runs_untouched() -> None:
    """Level 1 would cancel the pairs of cx that zero-noise extrapolation folds in."""
    circuit = QuantumCircuit(2)
    circuit.x(0)
    for _ in range(31):
        circuit.cx(0, 1)
        circuit.barrier()
    circuit.measure_all()
    noise = NoiseModel()
    noise.add_all_qubit_quantum_error(depolarizing_error(0.1, 2), ["cx"])
    simulator = AerSimulator(noise_model=noise)
    folded = transpile(circuit, simulator, optimization_level=0)
    result = run([folded], simulator, shots=2000)
    assert result.get_counts(0).get("11", 0) < 1400


def test_own_pass_manager_and_callable_are_used() -> None:
    def add_measurement(circuit: QuantumCircuit) -> QuantumCircuit:
        return circuit.measure_all(inplace=False)

    bare = QuantumCircuit(2)
    bare.x(1)
    options = RunOptions(transpile=TranspileOptions(pass_manager=add_measurement))
    assert run([bare], options=options).get_counts(0) == {"10": 100}


def test_level_off_refuses_what_is_not_isa() -> None:
    good = transpile(binary(3, bits=2), BackendSpecFake.backend())
    bad = QuantumCircuit(2, 2)
    bad.h(0)
    bad.measure(0, 0)
    options = RunOptions(transpile=TranspileOptions(level="off"))
    with pytest.warns(PartialResultWarning):
        result = run([good, bad], "fake_manila", options=options)
    assert result[0].status == "done"
    assert "has no 'h'" in str(result[1].error)


class BackendSpecFake:
    @staticmethod
    def backend() -> Any:
        from qiskit_ibm_runtime.fake_provider import FakeManilaV2

        return FakeManilaV2()


@pytest.mark.parametrize(
    "backend",
    ["basic", BasicSimulator(), AerSimulator(method="matrix_product_state"), "fake_quito"],
    ids=["basic", "BasicSimulator", "mps", "fake_quito"],
)
def test_any_local_backend_is_a_simulator(backend: Any) -> None:
    result = run([binary(i, bits=3) for i in range(8)], backend, shots=300)
    assert [int(max(c, key=c.__getitem__), 2) for c in result.get_counts()] == list(range(8))


def test_backend_of_a_package_never_seen_before() -> None:
    """It lists no option but shots, allows three circuits a list, and refuses a list with a circuit called 7."""
    circuits = [binary(i) for i in range(20)]
    for index, circuit in enumerate(circuits):
        circuit.name = str(index)
    with pytest.warns(PartialResultWarning):
        result = run(circuits, Strange(max_circuits=3, refuse="7"))
    assert result.failures.column("circuit").to_pylist() == [7]
    assert result[7].error == "I don't run 7"
    assert [int(next(iter(result.get_counts(i))), 2) for i in range(20) if i != 7] == [
        i for i in range(20) if i != 7
    ]
    assert result[0].seed is None


def test_basic_simulator_is_reproducible_too() -> None:
    first = run(coin, "basic", count=12, options=RunOptions(max_chunk=5))
    again = run(coin, "basic", count=12, options=RunOptions(max_chunk=2))
    assert all_counts(first) == all_counts(again)
    assert len({str(counts) for counts in first.get_counts()}) > 1


def test_factory_makes_the_backend_on_workers() -> None:
    spec = BackendSpec(lambda: AerSimulator(), name="mine")
    result = run([binary(1)] * 3, spec)
    assert result.table.column("backend").unique().to_pylist() == ["mine"]


def test_several_backends_share_the_work() -> None:
    specs = [BackendSpec("aer"), BackendSpec(AerSimulator(method="statevector"), name="second")]
    result = run(binary, specs, count=200, options=RunOptions(max_chunk=10))
    assert set(result.table.column("backend").unique().to_pylist()) == {"aer", "second"}
    assert [int(next(iter(c)), 2) for c in result.get_counts()] == list(range(200))


def test_single_circuits_fail_with_their_reason_and_the_rest_have_counts() -> None:
    unknown = QuantumCircuit(1, 1)
    unknown.append(Gate("mystery", 1, []), [0])
    unknown.measure(0, 0)
    unmeasured = QuantumCircuit(1)
    unmeasured.h(0)
    unbound = QuantumCircuit(1, 1)
    unbound.rx(Parameter("t"), 0)
    unbound.measure(0, 0)
    saving = binary(1)
    saving.save_statevector()
    circuits: list[Any] = [binary(i) for i in range(30)]
    circuits[5], circuits[11], circuits[12], circuits[20], circuits[21] = (
        unknown,
        unmeasured,
        unbound,
        saving,
        3.5,
    )
    with pytest.warns(PartialResultWarning, match="5 of 30 circuits have no counts") as caught:
        result = run(circuits)
    assert len(caught) == 1
    reasons = {
        row["circuit"]: (row["stage"], row["error_type"], row["error"]) for row in result.failures.to_pylist()
    }
    assert sorted(reasons) == [5, 11, 12, 20, 21]
    assert reasons[5][0] == "transpile" and "mystery" in reasons[5][2]
    assert "no measurement" in reasons[11][2]
    assert "t have no values" in reasons[12][2]
    assert "save_statevector" in reasons[20][2]
    assert reasons[21][:2] == ("build", "TypeError")
    with pytest.raises(CircuitFailedError, match=r"circuit 12 has no counts.*t have no values"):
        result.get_counts(12)
    assert [result.get_counts(i) for i in (4, 29)] == [{"00000100": 100}, {"00011101": 100}]


def test_gate_that_the_simulator_refuses_fails_alone() -> None:
    unknown = QuantumCircuit(1, 1)
    unknown.append(Gate("mystery", 1, []), [0])
    unknown.measure(0, 0)
    circuits = [coin(i) for i in range(30)]
    options = RunOptions(transpile=TranspileOptions(pass_manager=_unchanged))
    undisturbed = all_counts(run(circuits, options=options))
    circuits[5] = unknown
    with pytest.warns(PartialResultWarning):
        result = run(circuits, options=options)
    assert result.failures.column("circuit").to_pylist() == [5]
    assert (result[5].stage, result[5].error_type) == ("run", "AerError")
    assert [c for i, c in enumerate(all_counts(result)) if i != 5] == [
        c for i, c in enumerate(undisturbed) if i != 5
    ]


def _unchanged(circuit: QuantumCircuit) -> QuantumCircuit:
    return circuit


def test_backend_too_small_names_both_widths() -> None:
    with pytest.warns(PartialResultWarning):
        result = run([binary(1, bits=7), binary(1, bits=5)], "fake_manila")
    assert "it has 7 qubits, fake_manila has 5" in str(result[0].error)
    assert result[1].status == "done"


def test_circuit_larger_than_memory_fails_and_says_how_much_it_takes() -> None:
    wide = QuantumCircuit(45)
    wide.h(range(45))
    wide.t(range(45))
    wide.measure_all()
    spec = BackendSpec(AerSimulator(method="statevector", max_memory_mb=2**40))
    options = RunOptions(transpile=TranspileOptions(level="off"))
    with pytest.warns(PartialResultWarning):
        result = run([wide, binary(1)], spec, options=options)
    assert "524288.0 GiB" in str(result[0].error)
    assert result[1].status == "done"


def test_wide_circuits_reserve_their_memory() -> None:
    wide = QuantumCircuit(25, 25)
    wide.h(0)
    wide.t(0)
    for qubit in range(24):
        wide.cx(qubit, qubit + 1)
    wide.measure(range(25), range(25))
    result = run([binary(1), wide, binary(2)], "aer")
    assert result.table.column("status").to_pylist() == ["done"] * 3
    assert set(result.get_counts(1)) == {"0" * 25, "1" * 25}
    (job,) = result[1].jobs
    last = result.jobs.to_pylist()[job]
    assert (last["start"], last["stop"]) == (1, 2)
    waited = [job["reason"] for job in result.jobs.to_pylist() if job["reason"]]
    assert waited == ["1 circuit waits for 0.5 GiB to be reserved"]


def test_worker_that_is_killed_once_changes_nothing(tmp_path: Path) -> None:
    result = run(Killer(70, tmp_path, times=1), count=120)
    assert len(list(tmp_path.iterdir())) == 1
    assert [int(next(iter(c)), 2) for c in result.get_counts()] == list(range(120))
    assert result.jobs.column("state").to_pylist().count("failed") == 1


def test_circuit_that_kills_each_worker_stands_alone_at_last(tmp_path: Path) -> None:
    options = RunOptions(max_chunk=16, crash_retries=1)
    with pytest.warns(PartialResultWarning, match="1 of 60"):
        result = run(Killer(21, tmp_path, times=1000), count=60, options=options)
    assert result.failures.column("circuit").to_pylist() == [21]
    assert (result[21].error_type, result[21].stage) == ("WorkerDiedError", "run")
    assert [int(next(iter(result.get_counts(i))), 2) for i in range(60) if i != 21] == [
        i for i in range(60) if i != 21
    ]


def test_one_reason_that_fails_everything_stops_the_task() -> None:
    def broken(index: int) -> QuantumCircuit:
        raise RuntimeError("no licence")

    with pytest.raises(TaskFailedError, match=r"max_failures is 50.*no licence") as caught:
        run(broken, count=100_000, options=RunOptions(max_failures=50))
    assert len(caught.value.result) == 100_000
    assert caught.value.result[0].error == "no licence"
    assert caught.value.result[99_999].status == "cancelled"


def test_on_failure_raise_carries_the_result() -> None:
    bad = QuantumCircuit(1)
    with pytest.raises(TaskFailedError, match="1 of 2 circuits") as caught:
        run([bad, binary(1)], options=RunOptions(on_failure="raise"))
    assert caught.value.result.get_counts(1) == {"00000001": 100}


def test_callable_that_workers_cannot_load_ends_the_task_at_once() -> None:
    trap: Any = _Trap()

    def circuit(index: int) -> QuantumCircuit:
        return coin(index if isinstance(trap, _Trap) else 0)

    with pytest.raises(SourceError, match=r"can't be loaded on a worker.*no such module here"):
        run(circuit, count=10)


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (_spring, ())


def _spring() -> None:
    import ray

    if ray.get_runtime_context().worker.mode == ray.WORKER_MODE:
        raise ModuleNotFoundError("no such module here")


def test_factory_that_fails_on_workers_ends_the_task_at_once() -> None:
    def factory() -> Any:
        raise OSError("no GPU on this node")

    with pytest.raises(BackendLoadError, match="backend factory can't be used: OSError: no GPU"):
        run(coin, BackendSpec(factory), count=10)


def test_unpicklable_callable_is_refused_before_anything_runs() -> None:
    generator = (i for i in range(3))

    def circuit(index: int) -> QuantumCircuit:
        return coin(next(generator))

    with pytest.raises(InvalidInputError, match="callable circuit can't be pickled"):
        run(circuit, count=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"circuits": QuantumCircuit(1)}, "one bare QuantumCircuit"),
        ({"circuits": "file.qasm"}, "QasmFiles"),
        ({"circuits": coin}, "count"),
        ({"circuits": coin, "count": 0}, "count is 0"),
        ({"circuits": coin, "count": -3}, "count is -3"),
        ({"circuits": coin, "count": 5, "shots": 0}, "shots is 0"),
        ({"circuits": coin, "count": 5, "shots": -1}, "shots is -1"),
        ({"circuits": coin, "count": 5, "shots": 2.5}, "shots is 2.5"),
        ({"circuits": coin, "count": 5, "shots": [1, 2]}, "shape \\(2,\\) for 5 circuits"),
        ({"circuits": coin, "count": 2, "shots": [1, 0]}, "shots of circuit 1 is 0"),
        ({"circuits": coin, "count": 2, "shots": 2**31}, "2147483647"),
        ({"circuits": coin, "count": 5, "seed": -1}, "seed is -1"),
        ({"circuits": coin, "count": 5, "backends": []}, "backends is empty"),
        ({"circuits": coin, "count": 5, "backends": [3]}, "backends holds a int"),
        ({"circuits": coin, "count": 5, "backends": BackendSpec("aer", run_options={"metod": 1})}, "'metod'"),
        (
            {"circuits": coin, "count": 5, "backends": BackendSpec("basic", run_options={"method": 1})},
            "'method'",
        ),
        ({"circuits": coin, "count": 5, "progress": 3}, "progress is a int"),
        ({"circuits": coin, "count": 5, "memory": "yes"}, "memory is 'yes'"),
        ({"circuits": coin, "count": 5, "tags": "one"}, "tags is 'one'"),
        ({"circuits": coin, "count": 5, "name": 3}, "name is a int"),
        ({"circuits": coin, "count": 5, "options": {}}, "options is a dict"),
        (
            {
                "circuits": coin,
                "count": 5,
                "options": RunOptions(transpile=TranspileOptions(options={"routing": "x"})),
            },
            "don't suit backend aer",
        ),
    ],
)
def test_bad_input_is_refused_before_anything_runs(arguments: dict[str, Any], message: str) -> None:
    arguments = {"progress": False, "backends": "aer", **arguments}
    with pytest.raises(InvalidInputError, match=message):
        ray_qjm.submit(arguments.pop("circuits"), **arguments)


def test_resources_that_this_machine_lacks_are_refused_each_time() -> None:
    for _ in range(2):
        with pytest.raises(InvalidInputError, match=r"backend aer asks for CPU 1, GPU 1 a chunk"):
            ray_qjm.submit(coin, BackendSpec("aer", resources=Resources(num_gpus=1)), count=3)


def test_unknown_backend_lists_the_known_ones() -> None:
    with pytest.raises(UnknownBackendError, match=r"'fake_manilla'.*Did you mean 'fake_manila'.*aer, basic"):
        run(coin, "fake_manilla", count=1)
    with pytest.raises(UnknownBackendError, match="module 'nowhere' can't be imported"):
        run(coin, "nowhere:backend", count=1)


def test_numpy_integers_are_integers() -> None:
    result = run(coin, count=np.int64(3), shots=np.int32(10), seed=np.uint8(7))
    assert len(result) == 3
    assert result[np.int64(-1)].circuit == 2


def test_run_without_failures_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(coin, count=5)


def test_table_is_valid_arrow_and_tells_what_it_is() -> None:
    result = run(coin, count=50, name="coins", tags=["a", "b"])
    result.table.validate(full=True)
    metadata = result.table.schema.metadata
    assert metadata[b"name"] == b"coins" and metadata[b"tags"] == b'["a", "b"]' and metadata[b"seed"] == b"7"
    assert isinstance(result.table, pa.Table)
    jobs = result.jobs.to_pylist()
    for row in result:
        (job,) = row.jobs
        assert jobs[job]["start"] <= row.circuit < jobs[job]["stop"]
    assert sum(job["circuits"] for job in jobs) == 50


def test_ray_tasks_are_named_by_what_they_do_and_few_names_lead_with_a_task_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray's dashboard has a bar for each name, and keeps memory for it."""
    monkeypatch.setattr(naming, "_led", set())
    monkeypatch.setattr(naming, "MOST", 1)
    found = [
        {row.metadata["ray_task"] for row in run(named_by_ray, count=9, name=name)}
        for name in ("coins", None, "coins", "others")
    ]
    with_name, without = {"coins: simulate on aer"}, {"simulate on aer"}
    assert found == [with_name, without, with_name, without]
