"""A sampler's jobs through its adapter: what it is told, how its jobs are asked, and what their results may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.primitives import BitArray, DataBin, PrimitiveResult, SamplerPubResult, StatevectorSampler

from ray_qjm.backends.base import Answer, Submission
from ray_qjm.backends.held_jobs import NoJobError
from ray_qjm.backends.readings import TRIES, UnreadResultError
from ray_qjm.backends.registry import MakeAdapter, choose
from ray_qjm.backends.sampler import SamplerAdapter
from ray_qjm.errors import BackendResultError, InvalidInputError
from ray_qjm.options import BackendSpec


class MoodySampler(StatevectorSampler):  # type: ignore[misc]
    """Qiskit's own; the next job's ``status`` answers as it is told, or raises."""

    def __init__(self) -> None:
        super().__init__()
        self.mood: Any = None

    def run(self, pubs: Any, *, shots: int | None = None) -> Any:
        job, mood = super().run(pubs, shots=shots), self.mood
        if mood is not None:

            def status() -> Any:
                if isinstance(mood, Exception):
                    raise mood
                return mood

            job.status = status
        return job


def one_job_each(*moods: Any) -> tuple[SamplerAdapter, list[str]]:
    sampler = MoodySampler()
    adapter = SamplerAdapter(sampler, "moody")
    circuit = QuantumCircuit(1)
    circuit.measure_all()
    job_ids = []
    for mood in moods:
        sampler.mood = mood
        job_ids.append(adapter.submit(Submission([circuit], [10], "rqjm-a")))
    return adapter, job_ids


def finished(adapter: SamplerAdapter, job_ids: list[str]) -> None:
    for job_id in job_ids:
        adapter.fetch(job_id)


def test_job_that_cannot_be_asked_does_not_spoil_the_poll_of_the_others() -> None:
    adapter, job_ids = one_job_each(
        None, ValueError("unreadable answer"), ConnectionError("reset"), "nonsense"
    )
    finished(adapter, job_ids)

    seen = adapter.status(job_ids)

    assert [seen[job_id].state for job_id in job_ids] == ["done", None, "submitted", None]
    reasons = [seen[job_id].verdict.reason for job_id in (job_ids[1], job_ids[3])]  # type: ignore[union-attr]
    assert "unreadable answer" in reasons[0]
    assert "'nonsense'" in reasons[1]


def test_network_that_is_down_is_no_answer_at_all() -> None:
    adapter, job_ids = one_job_each(ConnectionError("reset"), ConnectionError("reset"))

    with pytest.raises(ConnectionError, match="reset"):
        adapter.status(job_ids)


@pytest.mark.parametrize("word", ["QUEUED", "Running", "in_progress"])
def test_status_may_be_a_word(word: str) -> None:
    adapter, (job_id,) = one_job_each(word)

    assert adapter.status([job_id])[job_id].state == ("submitted" if word == "QUEUED" else "running")


class Uniform(StatevectorSampler):  # type: ignore[misc]
    """Refuses PUBs of different shots, and takes an option of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[int | None, bool]] = []

    def run(self, pubs: Any, *, shots: int | None = None, dry: bool = False) -> Any:
        self.told.append((shots, dry))
        if len({pub[2] for pub in pubs}) > 1:
            raise ValueError("All pubs must have the same shots")
        return super().run(pubs, shots=shots)


@pytest.mark.filterwarnings("ignore:The SamplerV2 class is deprecated:DeprecationWarning")
def test_whether_shots_may_differ_in_a_job_is_known_of_some_and_else_for_the_user_to_say() -> None:
    from qiskit_ibm_runtime import SamplerV2
    from qiskit_ibm_runtime.executor_sampler import Sampler
    from qiskit_ibm_runtime.fake_provider import FakeManilaV2

    assert SamplerAdapter(StatevectorSampler(), "qiskit").facts().mixed
    for made in (Sampler(mode=FakeManilaV2()), SamplerV2(mode=FakeManilaV2())):
        assert not SamplerAdapter(made, "ibm").facts().mixed
        assert SamplerAdapter(made, "ibm", {"mixed_shots": True}).facts().mixed
    assert not SamplerAdapter(Uniform(), "own", {"mixed_shots": False}).facts().mixed


def test_further_arguments_of_run_are_told() -> None:
    sampler = Uniform()
    adapter = SamplerAdapter(sampler, "own", {"mixed_shots": False, "dry": True})
    adapter.submit(Submission([circuit_of_one()], [10], "rqjm-a"))
    assert sampler.told == [(10, True)]


class Open(StatevectorSampler):  # type: ignore[misc]
    def run(self, pubs: Any, *, shots: int | None = None, **options: Any) -> Any:
        return super().run(pubs, shots=shots)


@pytest.mark.parametrize(
    ("sampler", "options", "message"),
    [
        (StatevectorSampler(), {"fooo": 1}, "run_options of sampler own has 'fooo'.* It knows mixed_shots;"),
        (Uniform(), {"dry": True, "pubs": 1}, r"has 'pubs'.* It knows dry, mixed_shots;"),
        (StatevectorSampler(), {"mixed_shots": "no"}, "mixed_shots of sampler own is 'no'. Give True"),
        (Open(), {"mixed_shots": 0}, "mixed_shots of sampler own is 0"),
        (Open(), {"fooo": 1}, None),
    ],
)
def test_options_that_a_sampler_does_not_know_are_refused(sampler: Any, options: Any, message: Any) -> None:
    spec = BackendSpec(sampler, name="own", run_options=options)
    made = MakeAdapter(lambda: sampler, "own", options)
    if message is None:
        choose(spec), made()
        return
    with pytest.raises(InvalidInputError, match=message):
        choose(spec)
    with pytest.raises(InvalidInputError, match=message):  # as of one that a factory makes
        made()


def test_run_that_returns_no_job_may_have_run_one() -> None:
    class Silent(StatevectorSampler):  # type: ignore[misc]
        def run(self, pubs: Any, *, shots: int | None = None) -> Any:
            return None

    adapter = SamplerAdapter(Silent(), "own")
    with pytest.raises(NoJobError, match="returned None in place of a job") as told:
        adapter.submit(Submission([circuit_of_one()], [10], "rqjm-a"))
    assert adapter.classify(told.value).what == "unknown"


def circuit_of_one() -> QuantumCircuit:
    circuit = QuantumCircuit(1)
    circuit.measure_all()
    return circuit


class Answering(StatevectorSampler):  # type: ignore[misc]
    """Its jobs give what they are told to."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self._result = result

    def run(self, pubs: Any, *, shots: int | None = None) -> Any:
        job, result = super().run(pubs, shots=shots), self._result
        job.result()
        job.result = lambda: result
        return job


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (PrimitiveResult([]), "own gave 0 results for 1 circuits"),
        (None, "TypeError: 'NoneType' object is not iterable"),
    ],
)
def test_result_of_other_circuits_is_asked_for_again_and_not_for_ever(result: Any, told: str) -> None:
    adapter = SamplerAdapter(Answering(result), "own")
    job_id = adapter.submit(Submission([circuit_of_one()], [10], "rqjm-a"))
    for _ in range(TRIES - 1):
        with pytest.raises(UnreadResultError, match=told):
            adapter.fetch(job_id)
    with pytest.raises(BackendResultError, match=f"{told}, {TRIES} times over"):
        adapter.fetch(job_id)


def test_pub_that_holds_no_bits_spoils_no_other() -> None:
    good = SamplerPubResult(DataBin(meas=BitArray.from_counts({"1": 10})))
    bad = SamplerPubResult(DataBin(meas=np.zeros(10)))
    adapter = SamplerAdapter(Answering(PrimitiveResult([bad, good])), "own")
    job_id = adapter.submit(Submission([circuit_of_one()] * 2, [10, 10], "rqjm-a"))
    first, second = adapter.fetch(job_id)
    assert first == Answer(error="register 'meas' holds a ndarray in the result, not bits")
    assert isinstance(second, dict) and second["meas"][1] == 1
