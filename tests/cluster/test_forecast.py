"""What of a task is left to submit."""

from __future__ import annotations

from typing import Any

import numpy as np

from ray_qjm.cluster.forecast import Work
from ray_qjm.cluster.line_jobs import OpenJob
from ray_qjm.cluster.messages import TaskSetup
from ray_qjm.cluster.open_jobs import EarlierJobs
from ray_qjm.options import TranspileOptions
from ray_qjm.planning.orders import Run
from ray_qjm.planning.ranges import Ranges


def left(shots: Any, kept: Any = (), **jobs: list[Run]) -> tuple[Work, EarlierJobs]:
    """Of six circuits, with open jobs of ``backend_<n>``."""
    setup = TaskSetup(None, [], TranspileOptions(), 1, shots, False, {})
    found = {
        int(name.removeprefix("backend_")): [
            OpenJob(f"{name}-{i}", (run,), ((run.start, run.stop),), None, (), {})
            for i, run in enumerate(runs)
        ]
        for name, runs in jobs.items()
    }
    earlier = EarlierJobs(found)
    return Work.left(6, setup, Ranges(kept), earlier), earlier


def test_circuits_with_rows_or_open_jobs_are_left_out() -> None:
    work, earlier = left(10, [(0, 1)], backend_0=[Run(1, 4, 10)])
    assert work.rows.tolist() == [4, 5] and work.open == 3
    assert work.notes(6, earlier, 0) == [
        "1 of 6 circuits have their rows in the store already.",
        "3 of 6 circuits are with 1 open job of an earlier session already: these are waited for, not submitted again.",
    ]


def test_of_circuits_whose_shots_are_cut_the_rest_goes_to_the_same_backend() -> None:
    work, earlier = left(
        np.array([10, 10, 30, 30, 10, 10]), backend_1=[Run(2, 4, 10, 0), Run(2, 3, 10, 1), Run(4, 5, 10)]
    )
    assert work.rows.tolist() == [0, 1, 2, 3, 5]
    assert work.shots.tolist() == [10, 10, 10, 20, 10]
    shares = [work.rows[work.share(at, np.array([at / 2, at / 2 + 0.5]))].tolist() for at in range(2)]
    assert shares == [[0, 1], [5, 2, 3]]
    (note,) = work.notes(6, earlier, 0)
    assert note.startswith(
        "3 of 6 circuits are with 3 open jobs of an earlier session already (2 of them with a part"
    )


def test_an_open_job_whose_circuits_have_rows_by_now_counts_for_the_others_only() -> None:
    work, _ = left(10, [(0, 3)], backend_0=[Run(2, 4, 10)])
    assert work.rows.tolist() == [4, 5] and work.open == 1
