"""What a user reads, against what Qiskit says of the same run."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Clbit
from qiskit.exceptions import QiskitError
from qiskit.primitives import BackendSamplerV2
from qiskit.quantum_info import Pauli, SparsePauliOp
from qiskit.result import Result, sampled_expectation_value
from qiskit.result.postprocess import format_counts_memory

from ray_qjm.errors import AmbiguousCircuitError, CircuitFailedError, InvalidInputError, RayQjmError
from ray_qjm.results import TaskResult, UnknownCircuitError, export
from ray_qjm.results.counts import JOBS_SCHEMA, Row, blank, pack, schema, with_jobs
from tests.calls import calls_of
from tests.results.building import SIMULATOR, failed, result_of, rows_of, simulate, wide_circuit


@st.composite
def circuits(draw: st.DrawFn) -> QuantumCircuit:
    """Few qubits and clbits in any arrangement: several, aliased, reversed, empty and no registers."""
    qubits = draw(st.integers(1, 4))
    loose = [Clbit() for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3])))]
    circuit = QuantumCircuit(QuantumRegister(qubits, "q"))
    circuit.add_bits(loose)
    for number in range(draw(st.integers(0 if loose else 1, 4))):
        name = f"r{number}"
        kind = draw(st.sampled_from(["fresh", "fresh", "fresh", "empty", "alias"]))
        if kind == "alias" and circuit.num_clbits:
            bits = draw(st.lists(st.sampled_from(circuit.clbits), min_size=1, unique=True))
            circuit.add_register(ClassicalRegister(bits=bits, name=name))
        else:
            size = 0 if kind == "empty" else draw(st.sampled_from([1, 2, 3, 5, 63, 64, 65, 130]))
            circuit.add_register(ClassicalRegister(size, name))
    if not circuit.num_clbits:
        circuit.add_register(ClassicalRegister(2, "last"))
    for qubit in range(qubits):
        circuit.ry(draw(st.sampled_from([0.0, 0.7, 1.6, 3.14])), qubit)
    places = st.sampled_from(range(circuit.num_clbits))
    for _ in range(draw(st.integers(1, 5))):
        qubit, clbit = draw(st.integers(0, qubits - 1)), draw(places)
        circuit.measure(qubit, clbit)  # in the middle, and over again
        if draw(st.booleans()):
            with circuit.if_test((circuit.clbits[clbit], draw(st.booleans()))):
                circuit.x(draw(st.integers(0, qubits - 1)))
        circuit.h(qubit)
    return circuit


def qiskits_text_summed(ran: Result, index: int) -> dict[str, int]:
    """Qiskit's own keys; where several outcomes share one, their sum."""
    found: dict[str, int] = {}
    for key, count in ran.data(index)["counts"].items():
        text = format_counts_memory(key, ran.results[index].header)
        found[text] = found.get(text, 0) + count
    return found


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(batch=st.lists(circuits(), min_size=1, max_size=5), part=st.integers(1, 3))
def test_counts_and_memory_are_qiskits_own(batch: list[QuantumCircuit], part: int) -> None:
    ran = simulate(batch, memory=True)
    # Aer (0.17.2 and 0.18.2) can't load a circuit in which a qubit has nothing but a conditional gate, if the
    # condition is of a qubit measured twice: `unordered_map::at`, or `_Map_base::at`.
    assume(ran.results or not ran.status.endswith("::at"))
    result = result_of(rows_of(batch, ran, memory=True), part=part, memory=True)
    back = result.to_qiskit()
    for index, circuit in enumerate(batch):
        theirs = ran.get_counts(index)
        # Else Qiskit lost shots: of outcomes that differ in dropped bits only, the one that came last wins,
        # and the order in which Aer told them isn't kept.
        if sum(theirs.values()) == 50:
            assert result.get_counts(index) == theirs == back.get_counts(index)
        assert back.get_counts(index).keys() == theirs.keys()
        assert result.get_counts(index) == qiskits_text_summed(ran, index)
        assert sum(result.get_counts(index).values()) == 50
        if not circuit.cregs or sum(register.size for register in circuit.cregs) >= circuit.num_clbits:
            assert sum(theirs.values()) == 50
        assert result[index].int_counts() == {int(k, 16): n for k, n in ran.data(index)["counts"].items()}
        assert result.get_memory(index) == ran.get_memory(index)
        assert back.get_memory(index) == ran.get_memory(index)
    assert result.get_counts() == [result.get_counts(index) for index in range(len(batch))]


@pytest.mark.parametrize("clbits", [1, 63, 64, 65, 1024, 1501])
def test_wide_registers(clbits: int) -> None:
    measured = sorted({0, clbits // 2, clbits - 1})
    batch = [wide_circuit(clbits, measured), wide_circuit(2, [0, 1])]
    ran = simulate(batch)
    result = result_of(rows_of(batch, ran))
    assert [result.get_counts(0), result.get_counts(1)] == ran.get_counts()
    assert len(next(iter(result.get_counts(0)))) == clbits


def three_bits() -> tuple[QuantumCircuit, list[Clbit]]:
    bits = [Clbit() for _ in range(3)]
    circuit = QuantumCircuit(QuantumRegister(3, "q"), bits)
    circuit.x([0, 1])
    circuit.measure([0, 1, 2], bits)
    return circuit, bits


def test_odd_registers_read_as_qiskit_writes_them() -> None:
    """Qiskit cuts the string of all clbits by the sizes of registers, whichever clbits they hold."""
    only_loose, _ = three_bits()
    overlapping, bits = three_bits()
    overlapping.add_register(ClassicalRegister(bits=bits[:2], name="a"))
    overlapping.add_register(ClassicalRegister(bits=bits[1:], name="b"))
    backwards, bits = three_bits()
    backwards.add_register(ClassicalRegister(bits=bits[::-1], name="a"))
    empty = QuantumCircuit(
        QuantumRegister(1, "q"), *(ClassicalRegister(n, f"r{n}{i}") for i, n in enumerate([0, 2, 0]))
    )
    empty.x(0)
    empty.measure(0, 0)
    batch = [only_loose, overlapping, backwards, empty]
    ran = simulate(batch)
    result = result_of(rows_of(batch, ran))
    assert result.get_counts() == [{"011": 50}, {"01 1": 50}, {"011": 50}, {" 01 ": 50}]
    assert result.get_counts() == ran.get_counts()
    # The registers' own values stand in the primitive result.
    primitive = result.to_primitive_result()
    assert primitive[1].data.a.get_counts() == {"11": 50} and primitive[1].data.b.get_counts() == {"01": 50}
    assert primitive[2].data.a.get_counts() == {"110": 50}
    assert primitive[3].data.r00.num_bits == 0 and primitive[3].data.r21.get_counts() == {"01": 50}


def test_shots_that_qiskit_loses_beside_loose_clbits_are_kept() -> None:
    circuit = QuantumCircuit(QuantumRegister(2, "q"), [Clbit()], ClassicalRegister(1, "c"))
    circuit.h([0, 1])
    circuit.measure([0, 1], [0, 1])
    ran = simulate([circuit])
    result = result_of(rows_of([circuit], ran))
    assert sum(ran.get_counts().values()) < 50
    assert result.get_counts(0).keys() == ran.get_counts().keys() == {"0", "1"}
    assert sum(result.get_counts(0).values()) == 50
    assert len(result[0].int_counts()) == 4


@pytest.fixture(scope="module")
def small() -> TaskResult:
    """Rows 0-1 of a sweep done, 2-3 not transpiled for one reason, 4 wide, 5 cancelled, 6 done."""
    theta = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    batch = []
    for index in range(7):
        circuit = QuantumCircuit(2, 2, name=f"c{index}" if index < 5 else "twin", metadata={"i": index})
        circuit.ry(theta[index], 0)
        circuit.cx(0, 1)
        circuit.measure([0, 1], [0, 1])
        batch.append(circuit)
    batch[4] = wide_circuit(70, [0, 69])
    rows = rows_of(batch, simulate(batch))
    rows[2], rows[3] = failed(2, stage="transpile"), failed(3, stage="transpile")
    rows[5] = failed(5, "Ctrl-C", "cancelled", "TaskCancelledError")
    rows[5].name = "twin"
    return result_of(rows, part=2, circuits=batch, extra={"theta": theta}, extra_types={"theta": "float64"})


def test_rows_are_found_by_any_integer(small: TaskResult) -> None:
    assert len(small) == 7
    assert [row.circuit for row in small] == list(range(7)) == [small[i].circuit for i in range(7)]
    assert small[-1].circuit == 6 and small[np.int64(6)].circuit == 6 and small[np.uint8(6)].circuit == 6
    assert [row.circuit for row in small[1:6:2]] == [1, 3, 5]
    assert small.get_counts(np.int32(-1)) == small.get_counts(6)
    for wrong in (7, -8, np.int64(10**9)):
        with pytest.raises(IndexError, match=rf"no circuit {wrong}: there are circuits 0 to 6"):
            small.get_counts(wrong)
    with pytest.raises(InvalidInputError, match="float"):
        small.get_counts(1.0)
    with pytest.raises(InvalidInputError, match="str"):
        small["c1"]  # type: ignore[call-overload]


def test_row_tells_its_facts(small: TaskResult) -> None:
    row = small[1]
    assert (row.name, row.status, row.backend, row.clbits) == ("c1", "done", "aer_simulator", 2)
    assert (row.shots, row.shots_requested, row.metadata, row.registers) == (50, 50, {"i": 1}, {"c": [0, 1]})
    assert row["theta"] == 0.2 and row.jobs == [0] and row.error is None
    assert repr(row).startswith("CircuitResult(circuit=1, name='c1', status='done', backend='aer_simulator'")
    assert repr(small[2]) == (
        "CircuitResult(circuit=2, status='failed', stage='transpile', error_type='TypeError', "
        "error='no such gate')"
    )
    assert [small[i].stage for i in (1, 2, 5)] == [None, "transpile", None]
    assert [small[i].error_type for i in (1, 2, 5)] == [None, "TypeError", "TaskCancelledError"]
    with pytest.raises(KeyError, match="no column 'phi'"):
        row["phi"]
    with pytest.raises(InvalidInputError, match="memory=True"):
        row.memory()


def test_failed_rows_raise_their_reason(small: TaskResult) -> None:
    with pytest.raises(
        CircuitFailedError, match=r"circuit 2 has no counts. Reason: TypeError: no such gate"
    ) as caught:
        small.get_counts(2)
    assert (caught.value.circuit, caught.value.status, caught.value.error_type) == (2, "failed", "TypeError")
    with pytest.raises(CircuitFailedError, match="circuit 5 was cancelled"):
        small.get_counts(5)
    with pytest.raises(CircuitFailedError, match="circuit 2"):
        small.get_counts()
    with pytest.raises(CircuitFailedError, match="circuit 2"):
        small.to_primitive_result()
    assert small.failures.to_pylist() == [
        {"circuit": i, "status": status, "stage": stage, "error_type": kind, "error": error, "backend": None}
        for i, status, stage, kind, error in [
            (2, "failed", "transpile", "TypeError", "no such gate"),
            (3, "failed", "transpile", "TypeError", "no such gate"),
            (5, "cancelled", None, "TaskCancelledError", "Ctrl-C"),
        ]
    ]
    assert small.report().splitlines() == [
        "circuits 2-3 failed to transpile. Reason: TypeError: no such gate",
        "circuit 5 cancelled. Reason: TaskCancelledError: Ctrl-C",
        "4 of 7 circuits done, 2 failed, 1 cancelled.",
    ]
    assert small.status_counts == {"done": 4, "failed": 2, "cancelled": 1}
    assert small.job_ids == ["job-0", "job-1", "job-2", "job-3"]
    assert repr(small) == "<TaskResult: 7 circuits (4 done, 2 failed, 1 cancelled), 4 jobs>"


def test_circuits_are_found_by_identity_then_by_unique_name(small: TaskResult) -> None:
    assert small._circuits is not None
    twin = small._circuits[6]  # identity decides between two of one name
    assert small.get_counts(twin) == small.get_counts(6)
    assert small.get_counts("c1") == small.get_counts(1) == small.get_counts(QuantumCircuit(name="c1"))
    with pytest.raises(AmbiguousCircuitError, match=r"name 'twin' stands for 2 circuits \(5, 6\)"):
        small.get_counts("twin")
    with pytest.raises(AmbiguousCircuitError) as caught:
        small.get_counts(QuantumCircuit(name="twin"))
    assert caught.value.circuits == [5, 6]
    for unknown in ("c9", QuantumCircuit(), ""):
        with pytest.raises(UnknownCircuitError, match="ask by row number"):
            small.get_counts(unknown)
    assert issubclass(UnknownCircuitError, LookupError) and issubclass(UnknownCircuitError, RayQjmError)


def test_one_object_run_twice_is_ambiguous() -> None:
    circuit = wide_circuit(2, [0])
    batch = [circuit, wide_circuit(2, [1]), circuit]
    result = result_of(rows_of(batch, simulate(batch)), circuits=batch)
    assert result.get_counts(batch[1]) == result.get_counts(1)
    with pytest.raises(AmbiguousCircuitError, match="0, 2"):
        result.get_counts(circuit)


@settings(max_examples=40)
@given(
    widths=st.lists(st.sampled_from([3, 5, 64, 65, 200]), min_size=1, max_size=6),
    masks=st.lists(st.lists(st.integers(0, 2), unique=True), min_size=1, max_size=3, unique_by=tuple),
    seed=st.integers(0, 10**6),
)
def test_expectation_is_the_direct_sum(widths: list[int], masks: list[list[int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for index, clbits in enumerate(widths):
        counts = {
            hex(int(rng.integers(0, 8)) + (int(rng.integers(0, 4)) << (clbits - 3) if clbits > 5 else 0)): n
            for n in (3, 9, 40)
        }
        rows.append(Row(index, clbits=clbits, counts=counts))
    rows.append(failed(len(rows)))
    rows.append(Row(len(rows), clbits=3, counts={}))
    result = result_of(rows, part=4)
    observable = {tuple(mask): factor for mask, factor in zip(masks, (0.5, -2, 1), strict=False)}
    values = result.expectation(observable)
    assert values.shape == (len(rows),) and values.dtype == np.float64
    assert np.isnan(values[-2:]).all()
    for index in range(len(widths)):
        counts_of = result[index].int_counts()
        direct = sum(
            factor * count * (-1) ** sum(value >> bit & 1 for bit in mask)
            for mask, factor in observable.items()
            for value, count in counts_of.items()
        ) / sum(counts_of.values())
        assert values[index] == pytest.approx(direct)


def test_expectation_agrees_with_qiskit() -> None:
    circuit = QuantumCircuit(3)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.ry(0.4, 2)
    circuit.measure_all()
    ran = simulate([circuit], shots=500)
    result = result_of(rows_of([circuit], ran))
    operator = SparsePauliOp(["ZIZ", "IZZ", "III"], [0.5, -1.5, 0.25])
    theirs = float(sampled_expectation_value(ran.get_counts(), operator))
    assert result.expectation(operator) == pytest.approx([theirs])
    assert result.expectation({"ZIZ": 0.5, "IZZ": -1.5, "III": 0.25}) == pytest.approx([theirs])
    assert result.expectation(Pauli("IZZ")) == result.expectation([0, 1]) == result.expectation("ZZ") == 1.0


@pytest.mark.parametrize(
    ("observable", "reason"),
    [
        ("ZX", "not diagonal"),
        ("", "not diagonal"),
        (SparsePauliOp(["XX"]), "not diagonal"),
        ({"ZZ": 1j}, "not real"),
        ([0, 0], "twice"),
        ([-1], "clbit -1"),
        ([0.5], "clbit 0.5"),
        (3, "int"),
        ([2], "circuit 0 has 2 clbits"),
        ("-ZZ", "not diagonal"),
    ],
)
def test_observables_that_cannot_be_read_off(small: TaskResult, observable: Any, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        small.expectation(observable)


def test_table_is_whole_and_every_reader_takes_it(small: TaskResult, tmp_path: Path) -> None:
    table = small.table
    table.validate(full=True)
    assert table.schema.equals(schema(extra_types={"theta": "float64"}))
    assert table.column("circuit").to_pylist() == list(range(7))
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert (
        metadata["task_id"] == "t1"
        and metadata["schema_version"] == "1"
        and "clbit i" in metadata["bit_order"]
    )

    frame = small.to_pandas()
    assert list(frame["shots"].dropna()) == [50] * 4 and frame["shots"].dtype == pd.Int64Dtype()
    assert frame["outcomes"][0].tolist() == table.column("outcomes")[0].as_py()
    assert (
        frame["theta"].dtype == np.float64 and frame["status"].tolist() == table.column("status").to_pylist()
    )

    polars = small.to_polars()
    long = small.to_long(["theta"])
    exploded = polars.filter(pl.col("outcomes").is_not_null()).explode("outcomes", "counts")
    assert exploded["counts"].sum() == 150 and polars["seed"].dtype == pl.UInt64

    pq.write_table(table, tmp_path / "result.parquet")
    again = pq.read_table(tmp_path / "result.parquet")
    assert again.equals(table)
    assert pl.read_parquet(tmp_path / "result.parquet").height == 7
    for source in ("read_parquet($path)", "result"):
        result = table  # noqa: F841 - DuckDB finds it by name
        unnested = f"SELECT circuit, unnest(counts) AS n FROM {source}"
        query = f"SELECT circuit, sum(n) FROM ({unnested}) GROUP BY 1 ORDER BY 1"
        arguments = {"path": str(tmp_path / "result.parquet")} if "$" in query else {}
        assert duckdb.execute(query, arguments).fetchall() == [(i, 50) for i in (0, 1, 4, 6)]
    assert long.filter(pa.compute.field("circuit") == 1).column("theta").unique().to_pylist() == [0.2]


DICTIONARIES = ["status", "stage", "error_type", "backend", "registers"]


def mixed_parts() -> TaskResult:
    """Parts whose dictionaries differ: all done, failed in each stage, blank with nothing known."""
    rows = [
        Row(0, backend="b0", clbits=2, registers='[["c", [0, 1]]]', counts={"0x1": 5}),
        Row(1, backend="b1", clbits=2, registers='[["d", [0, 1]]]', counts={"0x2": 5}),
        failed(2, stage="run"),
        failed(3, kind="OSError", stage="build"),
    ]
    parts = [
        *(with_jobs(pack(rows[i : i + 2]), [0]) for i in (2, 0)),
        with_jobs(blank(4, 7, status="cancelled", error_type=None, error=None, shots_requested=5), []),
        with_jobs(
            blank(
                7, 9, status="failed", error_type="KeyError", error="k", stage="transpile", shots_requested=5
            ),
            [],
        ),
    ]
    return TaskResult(parts, jobs=pa.Table.from_pylist([], schema=JOBS_SCHEMA), info={})


@pytest.mark.parametrize("number", [9, 7, 2, 1, 0])
def test_every_reader_takes_dictionaries_that_differ_from_part_to_part(number: int, tmp_path: Path) -> None:
    result = mixed_parts()
    values: dict[str, list[Any]] = {
        "status": ["done"] * 2 + ["failed"] * 2 + ["cancelled"] * 3 + ["failed"] * 2,
        "stage": [None, None, "run", "build", None, None, None, "transpile", "transpile"],
        "error_type": [None, None, "TypeError", "OSError", None, None, None, "KeyError", "KeyError"],
        "backend": ["b0", "b1", *[None] * 7],
        "registers": ['[["c", [0, 1]]]', '[["d", [0, 1]]]', *[None] * 7],
    }
    table = result.table.slice(0, number)  # of 2 and less, stage and error_type are null throughout
    table.validate(full=True)
    polars = pl.from_arrow(table)
    assert isinstance(polars, pl.DataFrame)
    frame = export.to_pandas(table)
    pq.write_table(table, tmp_path / "result.parquet")
    again = pq.read_table(tmp_path / "result.parquet")
    again.validate(full=True)
    assert again.schema.equals(table.schema)
    parquet = pl.read_parquet(tmp_path / "result.parquet")
    connection = duckdb.connect().register("part", table)
    for name in DICTIONARIES:
        expected = values[name][:number]
        assert table.column(name).to_pylist() == again.column(name).to_pylist() == expected
        assert polars[name].to_list() == parquet[name].to_list() == expected
        assert [None if pd.isna(value) else value for value in frame[name]] == expected
        for source in (f"read_parquet('{tmp_path / 'result.parquet'}')", "part"):
            query = f"SELECT {name}, {name} IS NULL FROM {source} ORDER BY circuit"
            rows = connection.execute(query).fetchall()
            assert rows == [(value, value is None) for value in expected]
            counted = f"SELECT {name}, count(*) FROM {source} GROUP BY 1"
            assert dict(connection.execute(counted).fetchall()) == {
                value: expected.count(value) for value in set(expected)
            }
    connection.close()
    kept = polars.filter(pl.col("stage") == "run")["circuit"].to_list()
    assert kept == frame["circuit"][frame["stage"] == "run"].tolist() == ([2] if number > 2 else [])


def test_our_own_readers_take_dictionaries_that_differ_from_part_to_part() -> None:
    result = mixed_parts()
    assert [row.stage for row in result] == result.table.column("stage").to_pylist()
    assert [row.error_type for row in result] == result.table.column("error_type").to_pylist()
    assert result.get_counts(1) == {"10": 5}
    assert result.report().splitlines() == [
        "circuit 2 failed to run. Reason: TypeError: no such gate",
        "circuit 3 failed to build. Reason: OSError: no such gate",
        "circuits 4-6 cancelled.",
        "circuits 7-8 failed to transpile. Reason: KeyError: k",
        "2 of 9 circuits done, 4 failed, 3 cancelled.",
    ]
    assert result.status_counts == {"done": 2, "failed": 4, "cancelled": 3}
    assert result.to_long(["stage", "error_type", "backend"]).to_pylist() == [
        {"circuit": i, "stage": None, "error_type": None, "backend": f"b{i}", "outcome": i + 1, "count": 5}
        for i in range(2)
    ]
    with pytest.raises(CircuitFailedError, match=r"circuit 8 has no counts. Reason: KeyError"):
        result.get_counts(8)
    assert "failed to transpile" in result._repr_html_()
    assert result.to_qiskit().results[2].status == "FAILED: TypeError: no such gate"


def test_a_million_cancelled_circuits_are_not_reported_one_by_one() -> None:
    number = 1_000_000
    reason: dict[str, Any] = {"status": "cancelled", "error_type": "TaskCancelledError", "error": "Ctrl-C"}
    batch = with_jobs(blank(0, number, shots_requested=100, **reason), [])
    result = TaskResult([batch], jobs=pa.Table.from_pylist([], schema=JOBS_SCHEMA), info={})
    told: list[str] = []
    # Row by row it took 6 s.
    assert calls_of(lambda: told.append(result.report())) < 10_000
    assert told[0].splitlines() == [
        "circuits 0-999999 cancelled. Reason: TaskCancelledError: Ctrl-C",
        "0 of 1000000 circuits done, 1000000 cancelled.",
    ]


def test_the_recipe_in_the_tables_metadata_runs() -> None:
    circuit = wide_circuit(3, [0, 1, 2])
    batch = [circuit, circuit]
    result_of_batch = result_of(rows_of(batch, simulate(batch)))
    result = result_of_batch.table
    recipe, parity = result.schema.metadata[b"sql"].decode().split("; the parity of clbits 0 and 2 is ")
    query = f"SELECT circuit, sum(n * (1 - 2 * ({parity}))) / sum(n) FROM ({recipe}) GROUP BY 1 ORDER BY 1"
    values = [value for _, value in duckdb.execute(query).fetchall()]
    assert result.num_rows == 2 and values == pytest.approx(result_of_batch.expectation([0, 2]).tolist())


def test_long_table_has_a_row_an_outcome_and_leaves_failures_out(small: TaskResult) -> None:
    long = small.to_long()
    long.validate(full=True)
    assert long.column_names == ["circuit", "outcome", "outcome_wide", "count"]
    expected = []
    for row in small:
        if row.status == "done":
            for value, count in row.int_counts().items():
                wide = value.to_bytes(9, "big") if row.clbits == 70 else None
                expected.append((row.circuit, None if wide else value, wide, count))
    assert [tuple(row.values()) for row in long.to_pylist()] == expected
    narrow = result_of([Row(0, clbits=2, counts={"0x1": 2, "0x3": 1})])
    assert narrow.to_long().to_pylist() == [
        {"circuit": 0, "outcome": 1, "count": 2},
        {"circuit": 0, "outcome": 3, "count": 1},
    ]


def test_parts_with_other_dictionaries_and_slices_join() -> None:
    rows = [
        Row(i, backend=f"b{i % 3}", clbits=2, registers=f'[["r{i}", [0, 1]]]', counts={hex(i % 4): 5})
        for i in range(12)
    ]
    whole = with_jobs(pack(rows), [0])
    jobs = pa.Table.from_pylist([], schema=JOBS_SCHEMA)
    sliced = TaskResult([whole.slice(7), whole.slice(0, 3), whole.slice(3, 4)], jobs=jobs, info={})
    packed = result_of(rows, part=1)
    for result in (sliced, packed):
        assert result.get_counts() == [{format(i % 4, "02b"): 5} for i in range(12)]
        assert result.expectation("IZ").tolist() == [(-1) ** (i % 4 & 1) for i in range(12)]
        assert result.to_long().column("outcome").to_pylist() == [i % 4 for i in range(12)]
        assert result.to_polars()["backend"].to_list() == [f"b{i % 3}" for i in range(12)]
        assert result.table.column("registers").num_chunks == len(list(result.iter_batches()))
        assert result.to_pandas()["registers"].tolist() == [row.registers for row in rows]


def test_joining_copies_no_outcomes() -> None:
    batch = with_jobs(pack([Row(0, clbits=2, counts={"0x1": 1})]), [0])
    result = TaskResult([batch], jobs=pa.Table.from_pylist([], schema=JOBS_SCHEMA), info={})
    ours = result.table.column("outcomes").chunk(0).values.buffers()[1].address
    assert ours == batch.column("outcomes").values.buffers()[1].address


def test_missing_or_doubled_rows_are_refused() -> None:
    rows = [failed(i) for i in range(6)]
    jobs = pa.Table.from_pylist([], schema=JOBS_SCHEMA)
    first, second, third = (with_jobs(pack(rows[i : i + 2]), [0]) for i in (0, 2, 4))
    with pytest.raises(InvalidInputError, match="rows 2-3 are missing"):
        TaskResult([third, first], jobs=jobs, info={})
    with pytest.raises(InvalidInputError, match="row 2 stands twice"):
        TaskResult([first, second, second, third], jobs=jobs, info={})
    holes = with_jobs(pack([rows[0], rows[2]]), [0])
    with pytest.raises(InvalidInputError, match="not contiguous"):
        TaskResult([holes], jobs=jobs, info={})


def test_no_circuits_are_a_result_too() -> None:
    empty = TaskResult([], jobs=pa.Table.from_pylist([], schema=JOBS_SCHEMA), info={})
    assert len(empty) == 0 and list(empty) == [] and empty.get_counts() == []
    assert empty.table.schema.equals(schema()) and empty.report() == "0 of 0 circuits done."
    assert empty.expectation("Z").shape == (0,) and empty.to_long().num_rows == 0
    assert empty.to_qiskit().results == [] and len(empty.to_primitive_result()) == 0
    assert empty.to_pandas().empty and empty.to_polars().is_empty() and "0 circuits" in empty._repr_html_()
    with pytest.raises(IndexError, match="there are no circuits"):
        empty[0]


def test_qiskits_result_has_names_metadata_seeds_and_failures(small: TaskResult) -> None:
    back = small.to_qiskit()
    assert back.get_counts(0) == small.get_counts(0) == back.get_counts("c0")
    assert back.get_counts(4) == small.get_counts(4)
    assert back.results[1].header["metadata"] == {"i": 1} and back.results[1].seed == small[1].seed
    assert not back.success and back.job_id == "t1" and back.backend_name == "aer_simulator"
    with pytest.raises(QiskitError, match="TypeError: no such gate"):
        back.get_counts(2)
    assert Result.from_dict(back.to_dict()).get_counts(0) == small.get_counts(0)


@pytest.mark.parametrize("memory", [False, True])
def test_primitive_result_is_the_samplers(memory: bool) -> None:
    circuit = QuantumCircuit(QuantumRegister(3, "q"), ClassicalRegister(1, "a"), ClassicalRegister(2, "b"))
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.h(2)
    circuit.measure([0, 1, 2], [0, 1, 2])
    wide = wide_circuit(70, [0, 69])
    ran = simulate([circuit, wide], memory=True)
    result = result_of(rows_of([circuit, wide], ran, memory=True), memory=memory).to_primitive_result()
    theirs = BackendSamplerV2(backend=SIMULATOR).run([circuit], shots=50).result()
    assert list(result[0].data) == list(theirs[0].data) and result[0].data.a.num_shots == 50
    # Registers keep their correlation: a and the low bit of b are one coin.
    assert (result[0].data.a.array[:, 0] == result[0].data.b.array[:, 0] & 1).all()
    joined = result[0].join_data(["a", "b"]).get_counts()
    assert joined == {key.replace(" ", ""): count for key, count in ran.get_counts(0).items()}
    assert result[1].data.c.get_counts() == ran.get_counts(1)
    if memory:
        assert result[0].data.b.get_bitstrings() == [shot.split()[0] for shot in ran.get_memory(0)]


def test_a_backend_without_single_shots_is_named() -> None:
    result = result_of([Row(0, backend="old", clbits=1, counts={"0x1": 1})], memory=True)
    with pytest.raises(InvalidInputError, match="old gave circuit 0 no single shots"):
        result.get_memory(0)
    assert result.to_primitive_result()[0].metadata["shots"] == 1


def test_partial_rows_have_counts_and_stand_among_the_failures() -> None:
    row = Row(
        0, "partial", "fez", 1, shots_requested=10, counts={"0x1": 4}, error_type="Quota", error="no credit"
    )
    result = result_of([row])
    assert result.get_counts(0) == {"1": 4} and result[0].shots == 4 and result.expectation("Z") == -1
    assert result.failures.num_rows == 1
    assert (
        result.report() == "circuit 0 partly done. Reason: Quota: no credit\n0 of 1 circuits done, 1 partial."
    )


def test_html_shows_failures_escapes_and_stays_small() -> None:
    rows = [
        Row(i, name="<b>", backend="a&b", clbits=60, counts={hex(k): k + 1 for k in range(9)})
        for i in range(40)
    ]
    rows += [failed(i, error=f"<script>{i}") for i in range(40, 400)]
    text = result_of(rows)._repr_html_()
    assert "<script>" not in text and "&lt;script&gt;40" in text and "&lt;b&gt;" in text and "a&amp;b" in text
    assert len(text) < 12_000


def test_html_stays_small_and_escaped_whatever_stands_in_it() -> None:
    evil = '<script>alert("x")</script><img src=x onerror=alert(1)>\'&'
    names = ["name", "backend", "error", "kind", "register"]
    one, two, three, four, five = (f"{evil}{name}" * 500 for name in names)
    rows = [
        Row(
            0,
            name=one,
            backend=two,
            clbits=1,
            registers=json.dumps([[five, [0]]]),
            counts={"0x0": 1},
            metadata={evil: evil},
        )
    ]
    rows += [failed(i, error=f"{i}{three}", kind=four, stage="run") for i in range(1, 4)]
    rows += [Row(i, name=one, backend=f"{i}{two}", clbits=1, counts={"0x1": 1}) for i in range(4, 40)]
    text = result_of(rows)._repr_html_()
    assert len(text) < 16_000
    parser = Tags()
    parser.feed(text)
    parser.close()
    assert parser.found <= {"div", "span", "table", "tr", "td", "th", "code", "b"} and not parser.open
    assert parser.attributes <= {"style", "title"}
    assert "&lt;script&gt;" in text and "32 more" in text


class Tags(HTMLParser):
    """The tags and attributes of a page, and those left open."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_metadata_reads_back() -> None:
    result = result_of([Row(0, clbits=1, counts={"0x0": 1}, metadata={"xval": np.float64(0.5), "q": [0]})])
    assert result[0].metadata == {"xval": 0.5, "q": [0]}
    assert json.loads(result.table.column("metadata")[0].as_py()) == {"xval": 0.5, "q": [0]}
