"""Jobs of earlier sessions, of which a desk may have written one down too many."""

from __future__ import annotations

from ray_qjm.planning.adopting import Past, adoptable
from ray_qjm.planning.orders import Run


def past(tag: str, session: int, *runs: Run, sent: bool = False, backend: str = "a") -> Past:
    """A job."""
    return Past(tag, backend, session, runs, sent)


def tags(*jobs: Past) -> set[str]:
    """Of those that count, where each circuit has 100 shots."""
    return set(adoptable(jobs, lambda circuit: 100))


def test_a_lost_job_counts_as_long_as_nobody_else_has_its_shots() -> None:
    assert tags(past("x", 1, Run(0, 9, 100)), past("y", 1, Run(9, 12, 100))) == {"x", "y"}


def test_slices_of_one_circuit_may_be_in_jobs_of_several_sessions() -> None:
    assert tags(past("x", 1, Run(0, 9, 60)), past("y", 2, Run(0, 9, 40, 1), sent=True)) == {"x", "y"}


def test_an_intent_whose_circuits_a_later_session_has_packed_again_was_never_sent() -> None:
    assert tags(past("x", 1, Run(0, 9, 100)), past("y", 2, Run(8, 20, 100))) == {"y"}
    assert tags(past("x", 1, Run(0, 9, 60)), past("y", 2, Run(8, 20, 60), sent=True)) == {"y"}


def test_a_circuit_is_on_one_backend() -> None:
    assert tags(past("x", 1, Run(0, 9, 10)), past("y", 2, Run(5, 7, 10), backend="b")) == {"y"}


def test_a_job_that_was_sent_always_counts() -> None:
    assert tags(past("x", 1, Run(0, 9, 100), sent=True), past("y", 2, Run(0, 9, 100))) == {"x"}
