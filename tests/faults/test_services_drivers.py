"""Drivers of tasks at services, really killed, and desks that outlive them: the service's journal says what it got."""

from __future__ import annotations

import random
import re
import time
from dataclasses import replace

import pytest

from ray_qjm import Budget, Quota
from ray_qjm.cluster.backend_actor import Patience
from tests.faults.service_driver import Errand
from tests.faults.service_drivers import World, check_nothing_twice
from tests.services.scene import options, quick
from tests.services.scripted import Fault

COUNT = 40
FINE = Fault()


def whole(out: str, count: int = COUNT) -> None:
    """A driver has the right counts of all circuits, and each job once in its table."""
    assert f"right {count} of {count}" in out, out
    jobs, different = out.split("jobs ")[-1].split()[:2]
    assert jobs == different, out


@pytest.mark.parametrize("own_ray", [False, True], ids=["desk lives", "desk dies too"])
def test_driver_killed_and_resumed_adopts_its_jobs(here: World, own_ray: bool) -> None:
    here.service.begin(quick(run_s=lambda job: 0.05 if job.number < 2 else 3600.0, parallel=9))
    errand = Errand(here.spec(), COUNT, str(here.folder / "store"))
    first = here.start(errand, own_ray=own_ray)
    here.until(lambda story: len(story.jobs) == 5 and story.pending == 3)
    first.kill(group=own_ray)
    second = here.start(errand, own_ray=own_ray)
    # It asks for them: only then is it sure that it knows them.
    before = len(here.service.story().requests)
    here.until(lambda story: len(story.requests) > before + 5)
    assert len(here.service.story().jobs) == 5
    here.service.change(run_s=lambda job: 0.05)
    here.service.go_on(3600.0)
    whole(second.finish())
    check_nothing_twice(here.service.story(), COUNT)
    assert len(here.service.story().jobs) == COUNT // 4


def test_jobs_of_a_killed_driver_are_not_planned_again(here: World) -> None:
    """Five of ten jobs were submitted: plan and run agree that five are left, with what was spent in mind."""
    here.service.begin(quick(run_s=lambda job: 0.05 if job.number < 2 else 3600.0, parallel=9))
    errand = Errand(here.spec(), COUNT, str(here.folder / "store"), options(budget=Budget(jobs=9)))
    first = here.start(errand)
    here.until(lambda story: len(story.jobs) == 5 and story.pending == 3)
    first.kill(group=False)
    said = here.start(replace(errand, plan=True)).finish()
    assert "20 circuits, nothing submitted yet" in said
    assert "Beyond the budget of the task: 5 jobs needed, 4 left of 9." in said
    with_jobs = re.search(r"(\d+) of 40 circuits are with (\d) open jobs of an earlier session", said)
    assert with_jobs is not None and int(with_jobs[2]) * 4 == int(with_jobs[1]) >= 12, said
    here.service.change(run_s=lambda job: 0.05)
    here.service.go_on(3600.0)
    whole(here.start(replace(errand, options=options(budget=Budget(jobs=10)))).finish())
    assert len(here.service.story().jobs) == 10


@pytest.mark.parametrize("seed", range(2))
def test_driver_and_desk_killed_again_and_again(here: World, seed: int) -> None:
    here.service.begin(quick(run_s=lambda job: 0.2))
    draw = random.Random(seed)
    errand = Errand(here.spec(), COUNT, str(here.folder / "store"))
    for jobs in (2, 5):
        driver = here.start(errand)
        here.until(lambda story: len(story.jobs), jobs)
        time.sleep(draw.random() * 0.3)
        if draw.random() < 0.5:
            here.kill_desk()
        driver.kill(group=False)
    whole(here.start(errand).finish())
    check_nothing_twice(here.service.story(), COUNT)


def test_dead_drivers_queue_is_not_submitted(here: World) -> None:
    """Nobody could read what a driver without a store has at the service: that is cancelled."""
    here.service.begin(quick(run_s=lambda job: 3600.0, parallel=1, pending=1))
    errand = Errand(here.spec(quota=Quota(max_pending=1)), COUNT, patience=Patience(client_s=2.0))
    driver = here.start(errand)
    here.until(lambda story: story.pending == 1)
    driver.kill(group=False)
    here.until(lambda story: story.open == [])
    time.sleep(1.0)  # a slot is free: what is queued would go now
    assert [job.state for job in here.service.story().jobs] == ["cancelled"]


def test_dead_drivers_jobs_are_kept_for_its_successor(here: World) -> None:
    here.service.begin(quick(run_s=lambda job: 3600.0, parallel=1, pending=1))
    spec = here.spec(quota=Quota(max_pending=1))
    errand = Errand(spec, 12, str(here.folder / "store"), patience=Patience(client_s=1.0))
    driver = here.start(errand)
    here.until(lambda story: story.pending == 1)
    driver.kill(group=False)
    time.sleep(2.5)  # longer than the desk waits for it
    here.service.change(run_s=lambda job: 0.05)
    here.service.go_on(3600.0)
    assert [job.state for job in here.service.story().jobs] == ["done"]
    whole(here.start(errand).finish(), 12)
    check_nothing_twice(here.service.story(), 12)
