"""Whole tasks against scripted services in virtual time, with faults and crashes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_qjm.options import Budget, Limits, Quota, RetryPolicy
from ray_qjm.planning.assembly import BREAKS_AFTER, PROBES
from tests.services.judging import by_chance, judge_all
from tests.services.scripted import Fault, Script
from tests.services.simulation import Crash, Simulation, Work

FINE = Fault()
FAULTS: dict[str, Fault] = {
    "dropped before": Fault(jobs=0, reply="drop"),
    "dropped after": Fault(reply="drop"),
    "502 before": Fault(jobs=0, reply="502"),
    "502 after": Fault(reply="502"),
    "lands 12 s later": Fault(lands_s=12.0, reply="drop"),
    "lands 50 s later": Fault(lands_s=50.0, reply="502"),
    "slow": Fault(takes_s=30.0),
    "late": Fault(takes_s=200.0),
    "twin": Fault(jobs=2, reply="drop"),
    "refused for now": Fault(code=1006),
    "refused for its size": Fault(code=1102),
    "refused for its shots": Fault(code=1103),
    "refused for good": Fault(code=1002),
}
numbered = st.dictionaries(st.integers(0, 12), st.sampled_from(sorted(FAULTS)), max_size=5)
crashes = st.dictionaries(st.integers(0, 800), st.sampled_from(["desk", "driver"]), max_size=4)
limits = st.builds(
    Limits,
    max_circuits=st.none() | st.integers(1, 12),
    max_shots=st.none() | st.integers(1, 4).map(lambda n: 100 * n),
    max_executions=st.none() | st.integers(3, 30).map(lambda n: 100 * n),
    max_payload_bytes=st.none() | st.integers(5, 50),
)
quotas = st.builds(
    Quota, max_pending=st.integers(1, 4), jobs_per_minute=st.none() | st.integers(1, 10) | st.just(0.5)
)
works = st.builds(
    lambda count, chunk, mixed, shots, sizes: Work(
        "t", count, lambda i: shots[i % len(shots)], lambda i: sizes[i % len(sizes)], chunk, mixed=mixed
    ),
    st.integers(1, 40),
    st.integers(1, 15),
    st.booleans(),
    st.lists(st.sampled_from([50, 100, 250, 700]), min_size=1, max_size=3),
    st.lists(st.integers(1, 8), min_size=1, max_size=4),
)


def script(limits: Limits, quota: Quota, named: Mapping[int, str] | None = None) -> Script:
    """A service whose quota is what the user has said, and whose submissions have faults by their number."""
    faults = {number: FAULTS[name] for number, name in (named or {}).items()}
    rate = quota.jobs_per_minute
    return Script(
        limits,
        pending=quota.max_pending,
        per_minute=None if rate is None or rate < 1 else int(rate),
        faults=lambda number: faults.get(number, FINE),
    )


@settings(max_examples=150)
@given(works, limits, quotas, numbered, crashes, st.integers(0, 99))
def test_every_circuit_is_counted_once_or_has_a_reason_whatever_breaks(
    work: Work, limits: Limits, quota: Quota, named: dict[int, str], crashes: dict[int, Crash], seed: int
) -> None:
    service = script(limits, quota, named)
    service.fails = lambda n: "Error code: 1000" if by_chance(seed, "job", n, 10) else None
    service.cancels = lambda n: "fails" if by_chance(seed, "cancel", n, 20) else "works"
    service.asks = lambda kind, n: not by_chance(seed, kind, n, 15)
    service.parallel = 1 + seed % 2
    sim = Simulation([work], {"a": service}, quota, seed=seed, crashes=crashes).run()
    judge_all(sim)
    harmless = not any("size" in name or "shots" in name or "good" in name for name in named.values())
    if harmless and (limits.max_payload_bytes or 8) >= 8:
        assert not any("1102" in why or "1002" in why for why in work.reasons.values())


@settings(max_examples=60)
@given(works, limits, quotas, crashes, st.integers(0, 99))
def test_nothing_is_lost_by_crashes_alone(
    work: Work, limits: Limits, quota: Quota, crashes: dict[int, Crash], seed: int
) -> None:
    limits = replace(limits, max_payload_bytes=None)
    sim = Simulation([work], {"a": script(limits, quota)}, quota, seed=seed, crashes=crashes).run()
    judge_all(sim)
    assert work.reasons == {}


@settings(max_examples=40)
@given(st.lists(works, min_size=2, max_size=3), limits, quotas, numbered, crashes, st.integers(0, 99))
def test_tasks_share_the_backends_of_an_account(
    works: list[Work],
    limits: Limits,
    quota: Quota,
    named: dict[int, str],
    crashes: dict[int, Crash],
    seed: int,
) -> None:
    works = [replace(work, name=f"t{number}") for number, work in enumerate(works)]
    scripts = {"a": script(limits, quota, named), "b": script(replace(limits, max_circuits=5), quota)}
    sim = Simulation(works, scripts, quota, seed=seed, crashes=crashes).run()
    judge_all(sim)


@settings(max_examples=60)
@given(works, limits, quotas, numbered, st.integers(0, 300), st.integers(0, 99))
def test_cancel_at_any_moment_ends(
    work: Work, limits: Limits, quota: Quota, named: dict[int, str], step: int, seed: int
) -> None:
    service = script(limits, quota, named)
    service.cancels = lambda n: ("works", "fails", "ignored")[seed % 3] if n < 5 else "works"
    sim = Simulation([work], {"a": service}, quota, seed=seed)
    sim.run(at={step: lambda: sim.drivers["t"].cancel()}, until_s=20_000)
    judge_all(sim)


@settings(max_examples=40)
@given(st.integers(1, 60), st.sets(st.integers(0, 59), max_size=3), st.integers(1, 20), st.integers(0, 99))
def test_halving_finds_exactly_the_broken_circuits(
    count: int, broken: set[int], most: int, seed: int
) -> None:
    service = Script(Limits(max_circuits=most), broken=broken)
    work = Work("t", count)
    judge_all(Simulation([work], {"a": service}, Quota(3), seed=seed).run())
    assert set(work.reasons) == {circuit for circuit in broken if circuit < count}
    assert all(work.rows[circuit] == (0 if circuit in broken else 100) for circuit in range(count))


@pytest.mark.parametrize("count", [1, 100, 3000])
def test_a_backend_that_fails_everything_gets_few_jobs(count: int) -> None:
    work = Work("t", count, chunk=100)
    service = Script(Limits(max_circuits=500), fails=lambda number: "Error: out of order")
    sim = Simulation([work], {"a": service}, Quota(3)).run()
    judge_all(sim)
    assert len(work.reasons) == count
    # Those that were under way when it was given up end too.
    assert len(sim.services["a"].jobs) <= 2 * BREAKS_AFTER + PROBES + 3


def test_another_backend_takes_what_a_broken_one_fails() -> None:
    work = Work("t", 200)
    limits = Limits(max_circuits=40)
    scripts = {"a": Script(limits, fails=lambda number: "Error: out of order"), "b": Script(limits)}
    judge_all(Simulation([work], scripts, Quota(3)).run())
    assert work.reasons == {}


@settings(max_examples=40)
@given(works, limits, st.integers(1, 8), st.integers(100, 6000), numbered, crashes, st.integers(0, 99))
def test_a_budget_is_never_exceeded(
    work: Work,
    limits: Limits,
    jobs: int,
    executions: int,
    named: dict[int, str],
    crashes: dict[int, Crash],
    seed: int,
) -> None:
    named = {number: name for number, name in named.items() if name != "twin"}
    budget = Budget(jobs=jobs, executions=executions, qpu_seconds=30.0)
    quota = Quota(2, None, budget)
    sim = Simulation([work], {"a": script(limits, quota, named)}, quota, seed=seed, crashes=crashes).run()
    judge_all(sim)
    made = sim.services["a"].jobs.values()
    assert len(made) <= jobs
    assert sum(job.executions for job in made) <= executions
    assert sum(job.usage_s for job in made) <= 30.0


def test_no_credit_ends_the_task_with_that_reason() -> None:
    work = Work("t", 100)
    service = Script(Limits(max_circuits=10), credit_s=10.0)
    judge_all(Simulation([work], {"a": service}, Quota(1)).run())
    assert 0 < len(work.reasons) < 100
    assert all("Usage exceeds" in why for why in work.reasons.values())


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(300, 3000), st.integers(0, 99))
def test_pending_slots_stay_full_while_there_is_work(
    pending: int, parallel: int, run_s: int, seed: int
) -> None:
    service = Script(
        Limits(max_circuits=10),
        pending=pending,
        parallel=min(parallel, pending),
        run_s=lambda job: float(run_s),
    )
    sim = Simulation([Work("t", 300)], {"a": service}, Quota(pending), seed=seed).run()
    judge_all(sim)
    assert sim.services["a"].full_share() >= 0.98


@settings(max_examples=30)
@given(st.integers(20, 60), st.integers(1, 60), st.booleans(), st.integers(0, 9))
def test_jobs_are_full_when_circuits_are_small(most: int, count: int, mixed: bool, seed: int) -> None:
    limits = Limits(max_circuits=most * 4, max_executions=most * 100, max_payload_bytes=most * 15)
    shots = (50, 100, 75)
    work = Work("t", count * 20, lambda i: shots[i % 3], lambda i: 5 + i % 11, mixed=mixed, chunk=7)
    sim = Simulation([work], {"a": Script(limits)}, Quota(3), seed=seed).run()
    judge_all(sim)
    left = 1 if mixed else 3  # one for each number of shots
    orders = sim.drivers["t"].orders
    not_full = [
        order
        for order in orders
        if fill(limits, order.circuits, order.executions, order.payload_bytes) < 0.95
    ]
    assert len(not_full) <= left


def fill(limits: Limits, circuits: int, executions: int, payload_bytes: int) -> float:
    """How full a job is, by the tightest limit. The largest circuit here is 5 % of it, so that one less is."""
    pairs = [
        (circuits, limits.max_circuits),
        (executions, limits.max_executions),
        (payload_bytes, limits.max_payload_bytes),
    ]
    return max(value / most for value, most in pairs if most is not None)


@pytest.mark.parametrize("fault", [None, *sorted(FAULTS)])
@pytest.mark.parametrize("what", ["desk", "driver"])
def test_a_crash_between_any_two_steps_loses_and_repeats_nothing(what: Crash, fault: str | None) -> None:
    """Intent, send, reply, poll, fetch, forget: whatever dies before one of them, all shots are counted once."""

    def world(crashes: Mapping[int, Crash]) -> tuple[Simulation, Work]:
        named = {} if fault is None else {0: fault}
        limits, quota = Limits(max_circuits=2, max_shots=200), Quota(2, 5)
        work = Work("t", 3, lambda circuit: (100, 250, 100)[circuit], chunk=2)
        return Simulation([work], {"a": script(limits, quota, named)}, quota, crashes=crashes), work

    sim, _ = world({})
    for step in range(sim.run().steps):
        sim, work = world({step: what})
        judge_all(sim.run())
        if fault not in ("refused for good", "refused for its size"):
            assert work.reasons == {}, step


def test_a_lost_job_is_run_again_only_if_asked_for() -> None:
    limits, quota = Limits(max_circuits=5), Quota(2)
    for lost in ("fail", "resubmit"):
        retry = RetryPolicy(lost="resubmit" if lost == "resubmit" else "fail")
        work = Work("t", 10, retry=retry)
        sim = Simulation([work], {"a": script(limits, quota, {0: "dropped before"})}, quota)
        judge_all(sim.run())
        assert work.reasons == {}  # this service can be asked


def test_a_job_that_takes_too_long_is_cancelled_and_has_a_reason() -> None:
    work = Work("t", 10, timeout_s=100.0)
    service = Script(Limits(max_circuits=5), run_s=lambda job: 1000.0 if job.number == 0 else 1.0, parallel=2)
    judge_all(Simulation([work], {"a": service}, Quota(2)).run())
    assert len(work.reasons) == 5
    assert all("JobTimeoutError" in why for why in work.reasons.values())
