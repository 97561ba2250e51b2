"""Providers as they are: what their jobs and results may look like, and what becomes of it."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.providers import JobStatus
from qiskit.result.models import ExperimentResult

from ray_qjm.backends.answers import counted
from ray_qjm.backends.base import Answer, JobGoneError, Submission
from ray_qjm.backends.held_jobs import NoJobError
from ray_qjm.backends.local import LocalBackend, Ready
from ray_qjm.backends.readings import TRIES, UnreadResultError
from ray_qjm.backends.run_api import RunAdapter
from ray_qjm.errors import BackendResultError
from ray_qjm.planning.errands import Seen
from ray_qjm.results.counts import Row, pack
from tests.backends.strange import Strange, answer


class Job:
    """A job of a provider that derives nothing from anything.

    Args:
        results: What its result holds; an exception is raised.
        status: An exception is raised.
        more: Further attributes.
    """

    def __init__(self, results: Any, status: Any = JobStatus.DONE, **more: Any) -> None:
        self.results = results
        self.now = status
        self.asked = 0
        for name, value in {"job_id": lambda: "job", **more}.items():
            setattr(self, name, value)

    def status(self) -> Any:
        if isinstance(self.now, Exception):
            raise self.now
        return self.now

    def result(self) -> Any:
        self.asked += 1
        if isinstance(self.results, Exception):
            raise self.results
        return SimpleNamespace(results=self.results, status=None, header=None)


class Provider(Strange):
    """A backend that makes jobs of one's own.

    Args:
        make: From what ``Strange`` answers to a job.
        more: For ``Strange``.
    """

    def __init__(self, make: Callable[[Sequence[ExperimentResult]], Job] = Job, **more: Any) -> None:
        super().__init__(**more)
        self._make = make
        self.jobs: list[Job] = []

    def run(self, run_input: list[QuantumCircuit], **options: Any) -> Any:
        self.jobs.append(self._make(super().run(run_input, **options)._found))
        return self.jobs[-1]


def flipped(bits: int = 3) -> QuantumCircuit:
    circuit = QuantumCircuit(bits, bits, name="flipped")
    circuit.x(0)
    circuit.measure(range(bits), range(bits))
    return circuit


def jobs(count: int = 1, **more: Any) -> Submission:
    return Submission([flipped() for _ in range(count)], [10] * count, "tag", **more)


def sent(provider: Provider, count: int = 1) -> tuple[RunAdapter, str]:
    adapter = RunAdapter(provider, {})
    return adapter, adapter.submit(jobs(count))


def seen(adapter: RunAdapter, job_id: str) -> Seen:
    return adapter.status([job_id])[job_id]


def row(clbits: int = 3) -> Row:
    return Row(0, backend="strange", clbits=clbits, registers='[["c",[0,1,2]]]', shots_requested=10)


# What it is told.


def test_only_listed_options_are_passed() -> None:
    bare = Provider()
    RunAdapter(bare, {}).submit(jobs(memory=True, seed=5))
    assert bare.asked[0][1] == {"shots": 10}
    rich = Provider(options=("shots", "memory", "seed_simulator", "colour"))
    RunAdapter(rich, {"colour": "red"}).submit(jobs(memory=True, seed=5))
    assert rich.asked[0][1] == {"shots": 10, "memory": True, "seed_simulator": 5, "colour": "red"}


@pytest.mark.parametrize("name", ["seed", "seed_simulator"])
def test_seed_goes_by_the_name_that_the_backend_has_for_it(name: str) -> None:
    provider = Provider(options=("shots", name))
    RunAdapter(provider, {}).submit(jobs(seed=5))
    assert provider.asked[0][1] == {"shots": 10, name: 5}
    LocalBackend(provider, name="strange", run_options={}, memory=False, base=1000).run(
        [Ready(0, flipped(), 10)]
    )
    assert provider.asked[1][1] == {"shots": 10, name: 1000}


def test_seed_of_the_users_own_stays() -> None:
    provider = Provider(options=("shots", "seed"))
    RunAdapter(provider, {"seed": 3}).submit(jobs(seed=5))
    assert provider.asked[0][1]["seed"] == 3


def test_list_gets_a_seed_only_if_each_circuit_then_has_another() -> None:
    provider = Provider(options=("shots", "seed_simulator"))
    RunAdapter(provider, {}).submit(jobs(2, seed=5))
    RunAdapter(provider, {}, seeds_apart=True).submit(jobs(2, seed=5))
    assert [options for _, options in provider.asked] == [{"shots": 10}, {"shots": 10, "seed_simulator": 5}]


def test_workers_run_circuits_one_by_one_where_nobody_knows_how_a_list_is_seeded() -> None:
    provider = Provider(options=("shots", "seed"))
    local = LocalBackend(provider, name="strange", run_options={}, memory=False, base=1000)
    local.run([Ready(index, flipped(), 10) for index in range(2)])
    assert [len(names) for names, _ in provider.asked] == [2, 1, 1]
    assert len({options["seed"] for _, options in provider.asked[1:]}) == 2


@pytest.mark.parametrize(("most", "told"), [(1, 1), (np.int64(5), 5), (None, None), (0, None)])
def test_limit_of_circuits_is_told(most: Any, told: int | None) -> None:
    assert RunAdapter(Provider(max_circuits=most), {}).facts().limits.max_circuits == told


def test_whether_single_shots_can_be_had_is_told() -> None:
    assert not RunAdapter(Provider(), {}).facts().memory
    assert RunAdapter(Provider(options=("shots", "memory")), {}).facts().memory


# Jobs.


def test_jobs_of_one_id_are_told_apart() -> None:
    adapter = RunAdapter(Provider(), {})
    first, second = adapter.submit(jobs(1)), adapter.submit(jobs(2))
    assert first != second
    assert [len(adapter.fetch(job_id)) for job_id in (first, second)] == [1, 2]


def test_job_without_an_id_is_not_submitted_again() -> None:
    def refuse() -> str:
        raise ConnectionError("no answer")

    adapter, job_id = sent(Provider(lambda found: Job(found, job_id=refuse)))
    assert job_id and seen(adapter, job_id) == Seen("done")


class Other(enum.Enum):
    CANCELED = 1
    IN_PROGRESS = 2


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (JobStatus.QUEUED, "submitted"),
        (JobStatus.RUNNING, "running"),
        (JobStatus.RUNNING.value, "running"),
        ("JobStatus.DONE", "done"),
        ("COMPLETED", "done"),
        ("In Progress", "running"),
        (Other.IN_PROGRESS, "running"),
        (Other.CANCELED, "cancelled"),
        ("cancelled", "cancelled"),
        ("pending", "submitted"),
        (SimpleNamespace(name="FINISHED"), "done"),
    ],
)
def test_status_need_not_be_a_job_status(status: Any, state: str) -> None:
    adapter, job_id = sent(Provider(lambda found: Job(found, status)))
    assert seen(adapter, job_id) == Seen(state)


@pytest.mark.parametrize("status", [None, 17, "on its way", ValueError("what?"), NotImplementedError()])
def test_status_that_nobody_understands_is_told_with_its_reason(status: Any) -> None:
    adapter, job_id = sent(Provider(lambda found: Job(found, status)))
    told = seen(adapter, job_id)
    assert told.state is None and told.verdict is not None
    assert f"job {job_id} can't be followed" in told.verdict.reason


def test_one_job_that_cannot_be_asked_keeps_no_other_from_being_heard() -> None:
    statuses: list[Any] = [ValueError("odd"), ConnectionError("cut"), JobStatus.DONE]
    provider = Provider()
    adapter = RunAdapter(provider, {})
    ids = [adapter.submit(jobs()) for _ in statuses]
    for job, status in zip(provider.jobs, statuses, strict=True):
        job.now = status
    assert [told.state for told in adapter.status(ids).values()] == [None, "submitted", "done"]
    with pytest.raises(ConnectionError):
        adapter.status(ids[1:2])


def test_job_cannot_be_had_from_a_process_that_has_not_submitted_it() -> None:
    adapter = RunAdapter(Provider(), {})
    told = seen(adapter, "job")
    assert told.state == "lost" and told.verdict is not None and told.verdict.what == "give up"
    with pytest.raises(JobGoneError):
        adapter.fetch("job")


@pytest.mark.parametrize("answer", [True, None])
def test_job_is_cancelled(answer: Any) -> None:
    adapter, job_id = sent(Provider(lambda found: Job(found, cancel=lambda: answer)))
    adapter.cancel(job_id)


def test_job_that_cannot_be_cancelled_is_asked_once_and_one_that_refuses_again() -> None:
    def never() -> bool:
        raise NotImplementedError

    adapter, job_id = sent(Provider(lambda found: Job(found, cancel=never)))
    adapter.cancel(job_id)
    adapter, job_id = sent(Provider(lambda found: Job(found, cancel=lambda: False)))
    with pytest.raises(RuntimeError, match="can't be cancelled now"):
        adapter.cancel(job_id)


@pytest.mark.parametrize(("returned", "what"), [(None, "None"), ("job-7", "a str"), ([Job([])], "a list")])
def test_run_that_returns_no_job_may_have_run_one(returned: Any, what: str) -> None:
    adapter = RunAdapter(Provider(lambda _: returned), {})
    with pytest.raises(NoJobError) as told:
        adapter.submit(jobs(2))
    verdict = adapter.classify(told.value)
    assert (verdict.what, verdict.error_type) == ("unknown", "JobLostError")
    assert verdict.reason == f"run() of strange returned {what} in place of a job"


# Results.


def test_result_is_asked_for_once_until_the_job_is_forgotten() -> None:
    provider = Provider()
    adapter, job_id = sent(provider, 2)
    assert seen(adapter, job_id) == Seen("done")
    assert adapter.fetch(job_id) == adapter.fetch(job_id) == [Answer({"0x1": 10})] * 2
    assert provider.jobs[0].asked == 1
    adapter.forget(job_id)
    with pytest.raises(JobGoneError):
        adapter.fetch(job_id)


class RefusedError(Exception):
    """As HTTP clients raise it."""

    def __init__(self, status_code: int) -> None:
        self.status_code = status_code
        super().__init__(f"{status_code}")


@pytest.mark.parametrize(
    "trouble",
    [
        ConnectionError("cut"),
        json.JSONDecodeError("Expecting value", "<html>", 0),
        RefusedError(404),
        RefusedError(401),
        ValueError("cannot parse"),
        TypeError("'NoneType' object is not subscriptable"),
        [],
        None,
        [answer({"0x1": 10}, 10)],
    ],
    ids=lambda trouble: re.sub(r"\W+", " ", repr(trouble))[:30],
)
def test_result_of_a_job_that_is_done_is_asked_for_again_and_the_job_not_run_again(trouble: Any) -> None:
    provider = Provider()
    adapter, job_id = sent(provider, 2)
    good, provider.jobs[0].results = provider.jobs[0].results, trouble
    assert seen(adapter, job_id) == Seen("done")
    with pytest.raises(Exception, match=r".") as told:
        adapter.fetch(job_id)
    assert not isinstance(told.value, BackendResultError)  # of which a desk says that it is final
    provider.jobs[0].results = good
    assert adapter.fetch(job_id) == [Answer({"0x1": 10})] * 2
    assert len(provider.asked) == 1


@pytest.mark.parametrize("found", [[], None, [answer({"0x1": 10}, 10)], TypeError("None[0]")])
def test_result_that_stays_as_it_is_is_not_asked_for_for_ever(found: Any) -> None:
    adapter, job_id = sent(Provider(lambda _: Job(found)), 2)
    for _ in range(TRIES - 1):
        with pytest.raises(UnreadResultError):
            adapter.fetch(job_id)
    with pytest.raises(
        BackendResultError, match=rf"(results for 2 circuits|TypeError: None\[0\]), {TRIES} times over"
    ):
        adapter.fetch(job_id)


def test_result_that_the_network_holds_up_is_asked_for_as_long_as_somebody_asks() -> None:
    adapter, job_id = sent(Provider(lambda _: Job(ConnectionError("cut"))), 2)
    for _ in range(3 * TRIES):
        with pytest.raises(ConnectionError):
            adapter.fetch(job_id)


def test_result_that_says_itself_that_its_job_failed_has_it_halved() -> None:
    class Said(Job):
        def result(self) -> Any:
            return SimpleNamespace(results=[], status="ERROR: no such gate", success=False)

    adapter, job_id = sent(Provider(Said), 2)
    told = seen(adapter, job_id)
    assert told.state == "failed" and told.verdict is not None and told.verdict.what == "split job"
    assert told.verdict.reason == "strange gave 0 results for 2 circuits (status 'ERROR: no such gate')"


@pytest.mark.parametrize("found", [[], None, [answer({"0x1": 10}, 10)]])
def test_failed_job_without_whole_results_is_halved(found: Any) -> None:
    adapter, job_id = sent(Provider(lambda _: Job(found, JobStatus.ERROR)), 2)
    told = seen(adapter, job_id)
    assert told.state == "failed" and told.verdict is not None and told.verdict.what == "split job"
    assert told.verdict.reason == f"strange gave {len(found or ())} results for 2 circuits"


def test_failed_job_whose_result_raises_is_halved_for_its_reason() -> None:
    adapter, job_id = sent(Provider(lambda _: Job(ValueError("gate too wide"), JobStatus.ERROR)))
    told = seen(adapter, job_id)
    assert told.state == "failed" and str(told.verdict) == "ValueError: gate too wide"
    assert told.verdict is not None and told.verdict.what == "split job"


def test_failed_job_keeps_the_counts_that_it_has() -> None:
    found = [answer({"0x1": 10}, 10), answer(None, 10, success=False, status="ERROR: burnt")]
    adapter, job_id = sent(Provider(lambda _: Job(found, JobStatus.ERROR)), 2)
    assert seen(adapter, job_id) == Seen("done")
    assert adapter.fetch(job_id) == [Answer({"0x1": 10}), Answer(error="ERROR: burnt")]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({}, "ERROR: burnt"),
        ({"error_message": lambda: "the fridge is warm"}, "the fridge is warm"),
        ({"error_message": lambda: 1 / 0}, "ERROR: burnt"),
    ],
)
def test_failed_job_says_why(more: dict[str, Any], reason: str) -> None:
    found = [answer(None, 10, success=False, status="ERROR: burnt")]
    adapter, job_id = sent(Provider(lambda _: Job(found, JobStatus.ERROR, **more)))
    told = seen(adapter, job_id)
    assert told.state == "failed" and told.verdict is not None and told.verdict.reason == reason


@pytest.mark.parametrize("status", [None, "COMPLETED", "DONE"])
def test_status_of_a_result_tells_nothing(status: str | None) -> None:
    found = [answer({"0x1": 10}, 10, status=status, header=None), answer({}, 10, status=status)]
    adapter, job_id = sent(Provider(lambda _: Job(found)), 2)
    good, bad = adapter.fetch(job_id)
    assert good == Answer({"0x1": 10})
    assert bad.error == f"strange gave no counts (status {status or ''!r})"


@pytest.mark.parametrize(
    ("counts", "outcomes", "numbers"),
    [
        ({"0x0001": 10}, [1], [10]),
        ({"0x03": 4, "0x1": 6}, [1, 3], [6, 4]),
        ({"001": 10}, [1], [10]),
        ({"0 01": 4, "1 00": 6}, [1, 4], [4, 6]),
        ({"0b1": 10}, [1], [10]),
        ({"0x1": 4, "011": 6}, [1, 3], [4, 6]),
        ({"0x1": np.int64(10)}, [1], [10]),
        ({"0x1": 10.0}, [1], [10]),
        ({1: 10}, [1], [10]),
        ({np.int64(3): 4, 1: 6}, [1, 3], [6, 4]),
        ({"0X1": 4, "0B11": 6}, [1, 3], [4, 6]),
        ({"0x02": 4, "0X5": 6}, [2, 5], [4, 6]),
    ],
)
def test_outcomes_may_be_written_as_they_like(
    counts: dict[str, Any], outcomes: list[int], numbers: list[int]
) -> None:
    adapter, job_id = sent(Provider(lambda _: Job([answer(counts, 10)])))
    batch = pack([counted(row(), adapter.fetch(job_id)[0])])
    assert batch.column("outcomes").to_pylist() == [outcomes]
    assert batch.column("counts").to_pylist() == [numbers]
    assert batch.column("shots").to_pylist() == [10]


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ({"01": 10}, "outcomes of 2 bits for a circuit of 3 clbits"),
        ({"0 001": 10}, "outcomes of 4 bits for a circuit of 3 clbits"),
        ({"01": 5, "001": 5}, "outcomes of different lengths"),
        ({"0 01": 5, "001": 5}, "an outcome twice"),
        ({"001": 0.5, "111": 0.5}, "no number of shots"),
        ({"002": 10}, "gave outcome '002', which is no string of bits"),
        ({"-0x1": 10}, "gave outcome '-0x1'"),
        ({-1: 10}, "gave outcome -1"),
        ({True: 10}, "gave outcome True"),
        ({1.0: 10}, "gave outcome 1"),
        ({None: 10}, "gave outcome None"),
        ({1: 5, "0x1": 5}, "an outcome twice"),
        ({"0x1": float("nan")}, "no number of shots"),
        ({"0x1": "10"}, "no number of shots"),
        ({}, "gave no counts"),
        (None, "gave no counts"),
    ],
)
def test_outcomes_that_do_not_fit_fail_their_circuit_only(counts: Any, reason: str) -> None:
    found = [answer(counts, 10), answer({"0x1": 10}, 10)]
    adapter, job_id = sent(Provider(lambda _: Job(found)), 2)
    bad, good = adapter.fetch(job_id)
    with pytest.raises(BackendResultError, match=reason):
        counted(row(), bad)
    assert good == Answer({"0x1": 10})
    local = LocalBackend(Provider(lambda _: Job(found)), name="strange", run_options={}, memory=False, base=0)
    rows = local.run([Ready(index, flipped(), 10) for index in range(2)])
    assert [item.status for item in rows] == ["failed", "done"]
    assert reason in f"{rows[0].error_type}: {rows[0].error}"


def with_memory(memory: Any, counts: Any = None, shots: int = 10) -> Answer:
    """What an adapter makes of an answer, single shots asked for."""
    found = answer({"0x1": shots} if counts is None else counts, shots)
    if memory is not None:
        found.data.memory = memory
    adapter = RunAdapter(Provider(lambda _: Job([found]), options=("shots", "memory")), {})
    return adapter.fetch(adapter.submit(jobs(memory=True)))[0]


@pytest.mark.parametrize(
    ("memory", "counts"),
    [
        (["001", "0x1"], {"0x1": 2}),
        (["0x1", "0x1"], {"0x01": 2}),
        (["0x1", "0x1"], {"0x1": 2, "0x2": 0}),
        ([1, np.int64(1)], {"001": 2}),
        (["0X1", "0 01"], {1: 2}),
    ],
)
def test_single_shots_may_be_written_as_they_like_too(memory: Any, counts: Any) -> None:
    assert with_memory(memory, counts, 2).memory == ["0x1", "0x1"]


def test_single_shots_of_other_bits_than_the_circuit_has_fail_it() -> None:
    with pytest.raises(BackendResultError, match="outcomes of 2 bits"):
        counted(row(), with_memory(["01", "01"], {"0x1": 2}, 2))


@pytest.mark.parametrize(
    ("memory", "reason"),
    [
        (["0x2"] * 10, "outcome 0x2 comes 10 times among its single shots and 0 times in its counts"),
        (["0x1"] * 9 + ["0x0"], "outcome 0x0 comes 1 times among"),
        (["0x1"] * 11, "outcome 0x1 comes 11 times among its single shots and 10 times in its counts"),
        (["0xyz"] * 10, "no hexadecimal number"),
    ],
)
def test_single_shots_that_contradict_the_counts_fail_their_circuit(memory: Any, reason: str) -> None:
    found = with_memory(memory)
    assert found.counts is None and reason in str(found.error)


@pytest.mark.parametrize("memory", [["0x1"] * 7, ["001"] * 7, [], None])
def test_counts_are_kept_where_single_shots_are_missing_and_the_reason_is_told(memory: Any) -> None:
    found = with_memory(memory)
    filled = counted(row(), found, memory=True)
    missing = "counts and no single shots, which memory=True asks for"
    assert (filled.status, filled.counts, filled.memory) == ("partial", {"0x1": 10}, None)
    assert filled.error == "strange gave " + (
        missing if memory is None else f"{len(memory)} single shots, and counts of 10"
    )
    assert pack([filled], memory=True).column("memory").to_pylist() == [None]
    assert counted(row(), found).status == "done"  # nobody wants them


def test_single_shots_that_nobody_asked_for_are_not_looked_at() -> None:
    found = answer({"0x1": 10}, 10)
    found.data.memory = ["0x2"] * 10
    adapter, job_id = sent(Provider(lambda _: Job([found])))
    assert adapter.fetch(job_id) == [Answer({"0x1": 10})]


@pytest.mark.parametrize("memory", [["0x1"] * 7, None])
def test_workers_keep_counts_without_single_shots_too(memory: Any) -> None:
    found = answer({"0x1": 10}, 10)
    if memory is not None:
        found.data.memory = memory
    provider = Provider(lambda _: Job([found]), options=("shots", "memory"))
    local = LocalBackend(provider, name="strange", run_options={}, memory=True, base=0)
    (only,) = local.run([Ready(0, flipped(), 10)])
    assert (only.status, only.counts, only.memory) == ("partial", {"0x1": 10}, None)


@pytest.mark.parametrize(("told", "seed"), [(-1, None), (None, None), (7, 7), (np.int64(7), 7), ("7", None)])
def test_seed_is_one_that_could_be_used_again(told: Any, seed: int | None) -> None:
    found = [answer({"0x1": 10}, 10, seed=told)]
    adapter, job_id = sent(Provider(lambda _: Job(found)))
    assert adapter.fetch(job_id)[0].seed == seed


# Whose result is whose.


def by_names(names: Sequence[str], told: Sequence[Any]) -> list[Any]:
    """Of each circuit the outcome that it is given, or its error, where results are numbered as they come."""
    found = [
        answer({hex(value): 10}, 10, header=None if name is None else {"name": name})
        for value, name in enumerate(told)
    ]
    adapter = RunAdapter(Provider(lambda _: Job(found)), {})
    circuits = [flipped() for _ in names]
    for circuit, name in zip(circuits, names, strict=True):
        circuit.name = name
    answers = adapter.fetch(adapter.submit(Submission(circuits, [10] * len(circuits), "tag")))
    return [each.error if each.counts is None else int(next(iter(each.counts)), 16) for each in answers]


@pytest.mark.parametrize(
    ("names", "told", "given"),
    [
        ("abc", "abc", [0, 1, 2]),
        ("abc", "cab", [1, 2, 0]),
        ("aab", "baa", [0, 1, 2]),  # equal names tell nothing,
        ("abc", "aaa", [0, 1, 2]),  # nor do those of a provider that calls all after the first,
        ("abc", "xyz", [0, 1, 2]),  # or renames them
        ("abc", "axc", [0, 1, 2]),
        ("abc", [None] * 3, [0, 1, 2]),
        ("abc", ["c", None, "a"], [0, 1, 2]),
        ("abc", ["c", 2, "a"], [0, 1, 2]),
        # Numbers that each process begins anew.
        (["circuit-1", "circuit-2"], ["circuit-2", "circuit-1"], [0, 1]),
        (["circuit-1-7", "b"], ["b", "circuit-1-7"], [0, 1]),
    ],
)
def test_results_come_in_the_order_of_circuits_or_of_their_names(
    names: Any, told: Any, given: list[int]
) -> None:
    assert by_names(names, told) == given


def test_results_whose_names_contradict_their_places_are_nobodys() -> None:
    wrong = "strange gave a result that is called 'c' in the place of that of 'b'"
    assert by_names("abcd", "acxd") == [0, wrong, wrong, 3]
