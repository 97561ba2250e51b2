"""Desks and workers of tasks at services, really killed: the service's own journal says what was submitted."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ray_qjm import Limits, RetryPolicy
from ray_qjm.errors import PartialResultWarning
from tests.faults.conftest import eventually
from tests.faults.service_drivers import check_nothing_twice, kill
from tests.services.hosted import Plain, Recalling, marked
from tests.services.process import ServiceProcess
from tests.services.scene import RETRY, Scene, check_counts, options, run, scene, submit
from tests.services.scripted import Fault

COUNT = 40
FINE = Fault()
#: Small jobs, so that there are many moments between them.
SMALL = Limits(max_circuits=4)


@pytest.fixture(scope="module")
def service_processes() -> Iterator[list[ServiceProcess]]:
    """The service."""
    found = ServiceProcess()
    yield [found]
    found.close()


@pytest.fixture
def here(
    shared_ray: None,
    service_processes: list[ServiceProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Scene]:
    """The service begun anew, and an account."""
    with scene(service_processes, tmp_path, monkeypatch) as found:
        yield found


def kill_desk(here: Scene) -> int:
    """SIGKILL the process that submits; returns which it was."""
    pid = here.service.story().senders[-1].pid
    kill(pid)
    return pid


@pytest.mark.parametrize("seed", range(3))
def test_desk_killed_at_any_moment_submits_nothing_twice(here: Scene, seed: int) -> None:
    here.begin(run_s=lambda job: 0.4)
    draw, killed = random.Random(seed), [0]
    task = submit(here.spec(limits=SMALL), COUNT)
    for _ in range(2):
        here.service.until(
            lambda story: task.done() or (story.senders and story.senders[-1].pid not in killed)
        )
        time.sleep(draw.random())
        killed.append(kill_desk(here))
    check_counts(task.result(timeout=100))
    check_nothing_twice(here.service.story(), COUNT)


@pytest.mark.parametrize("lands", [True, False])
def test_desk_killed_while_a_job_is_being_submitted(here: Scene, lands: bool) -> None:
    """The service has it, or never gets it, and the reply would have come later."""
    fault = Fault(jobs=int(lands), takes_s=30.0)
    here.begin(faults=lambda number: FINE if number else fault)
    task = submit(here.spec(limits=SMALL), 8)
    here.service.until(lambda story: story.senders)
    kill_desk(here)
    check_counts(task.result(timeout=100))
    check_nothing_twice(here.service.story(), 8)
    assert len(here.service.story().jobs) == 2


def test_desk_killed_with_jobs_done_that_nobody_has_fetched(here: Scene) -> None:
    here.begin(asks=lambda kind, number: kind != "fetch")
    task = submit(here.spec(limits=SMALL), 12)
    here.service.until(lambda story: any(request.kind == "fetch" for request in story.requests))
    kill_desk(here)
    here.service.change(asks=lambda kind, number: True)
    check_counts(task.result(timeout=100))
    check_nothing_twice(here.service.story(), 12)


class Slowly:
    """A text, once it is unpickled, which takes its time: in the worker that makes rows of it too."""

    def __reduce__(self) -> Any:
        return _slowly, ()


def _slowly() -> str:
    time.sleep(3)
    return "slow"


def slow(index: int) -> Any:
    time.sleep(0.03)
    circuit = marked(index)
    if index == 5:
        circuit.metadata = {"text": Slowly()}
    return circuit


@pytest.mark.parametrize("name", ["ray::transpile", "ray::collect"])
def test_worker_killed(here: Scene, name: str) -> None:
    """What it was preparing is prepared again; rows that it was making are made again, of the same job."""
    task = submit(here.spec(limits=SMALL), COUNT, circuits=slow)
    found: list[psutil.Process] = []

    def there() -> bool:
        for process in psutil.Process().children(recursive=True):
            try:
                if name in " ".join(process.cmdline()):
                    process.kill()
                    found.append(process)
            except psutil.Error:
                continue
        return bool(found)

    eventually(there)
    check_counts(task.result(timeout=100))
    check_nothing_twice(here.service.story(), COUNT)


@pytest.mark.parametrize("lost", ["fail", "resubmit"])
@pytest.mark.parametrize("when", ["pending", "done"])
def test_jobs_that_only_the_dead_desk_could_ask_for(here: Scene, lost: Any, when: str) -> None:
    """A backend without ``retrieve_job``: what became of its jobs only the process knew that has died."""
    if when == "pending":
        here.begin(run_s=lambda job: 3600.0)
    else:
        here.begin(asks=lambda kind, number: kind != "fetch")
    spec = here.spec(connect=Plain(here.service.where), limits=SMALL)
    task = submit(spec, 8, options=options(retry=RetryPolicy(**{**vars(RETRY), "lost": lost})))
    if when == "pending":
        here.service.until(lambda story: story.pending == 2)
    else:
        here.service.until(lambda story: any(request.kind == "fetch" for request in story.requests))
        here.service.until(lambda story: len(story.jobs) == 2 and story.pending == 0)
    kill_desk(here)
    here.service.change(run_s=lambda job: 0.05, asks=lambda kind, number: True)
    if lost == "resubmit":
        check_counts(task.result(timeout=100))
        assert len(here.service.story().jobs) == 4
        return
    with pytest.warns(PartialResultWarning):
        result = task.result(timeout=100)
    assert {row.error_type for row in result} == {"JobLostError"}
    assert len(here.service.story().jobs) == 2


def test_jobs_that_can_be_had_again_by_their_id(here: Scene) -> None:
    here.begin(run_s=lambda job: 1.0)
    spec = here.spec(connect=Recalling(here.service.where), limits=SMALL)
    task = submit(spec, 8)
    here.service.until(lambda story: story.pending == 2)
    time.sleep(0.2)  # both replies have come
    kill_desk(here)
    check_counts(task.result(timeout=100))
    check_nothing_twice(here.service.story(), 8)


def test_the_same_account_goes_on_after_all_that(here: Scene) -> None:
    """What a killed desk has left on its disk is no task of the next one's."""
    check_counts(run(here.spec(limits=SMALL), 8))
    kill_desk(here)
    check_counts(run(here.spec(limits=SMALL), 8))
    assert here.service.story().shots_run == {f"c{index}": 20 for index in range(8)}
