"""What Ray's dashboard calls the Ray tasks of a task: by what they do and where, not by which circuits.

Its overview has a bar for each name, Ray's own metrics have a series for each, and Ray keeps 50 kB for each that it has
ever seen (2.60: 2,000 Ray tasks took 7 MB under one name and 118 MB under as many), for as long as the driver lives.
"""

from __future__ import annotations

from ray_qjm.cluster.metrics import label

#: Names that lead with a task's, which this process gives; those beyond it are only by work and backend.
MOST = 100
_led: set[str] = set()


def ray_task_name(work: str, task_name: str | None) -> str:
    """The name of a Ray task.

    >>> ray_task_name("simulate on aer", "tomography"), ray_task_name("simulate on aer", None)
    ('tomography: simulate on aer', 'simulate on aer')

    Args:
        work: What it does, and for which backend.
        task_name: What the user called the task.
    """
    if not task_name:
        return work
    name = f"{label(task_name)}: {work}"
    if name not in _led and len(_led) >= MOST:
        return work
    _led.add(name)
    return name
