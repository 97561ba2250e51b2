"""A sampler's jobs through its adapter, asked one by one."""

from __future__ import annotations

from typing import Any

import pytest
from qiskit import QuantumCircuit
from qiskit.primitives import StatevectorSampler

from ray_qjm.backends.base import Submission
from ray_qjm.backends.sampler import SamplerAdapter


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
