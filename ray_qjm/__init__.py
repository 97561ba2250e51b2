"""Run millions of Qiskit circuits on Ray and get one columnar result back.

What this module lists is public; anything else may change.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ray_qjm import errors

if TYPE_CHECKING:
    from ray_qjm.api import attach, plan, run, submit
    from ray_qjm.circuits.files import QasmFiles, QpyFiles
    from ray_qjm.circuits.sweep import Sweep
    from ray_qjm.frontends.job_manager import JobManager
    from ray_qjm.frontends.plan import Plan
    from ray_qjm.frontends.task import Task
    from ray_qjm.options import (
        BackendSpec,
        Budget,
        Limits,
        Quota,
        Resources,
        RetryPolicy,
        RunOptions,
        TranspileOptions,
    )
    from ray_qjm.planning.status import TaskStatus
    from ray_qjm.results.task_result import TaskResult

__version__ = "0.1.0.dev0"

__all__ = [
    "BackendSpec",
    "Budget",
    "JobManager",
    "Limits",
    "Plan",
    "QasmFiles",
    "QpyFiles",
    "Quota",
    "Resources",
    "RetryPolicy",
    "RunOptions",
    "Sweep",
    "Task",
    "TaskResult",
    "TaskStatus",
    "TranspileOptions",
    "attach",
    "errors",
    "plan",
    "run",
    "submit",
]

#: Where these names live. A module is imported when one of its names is asked for: Ray and Qiskit take more than a
#: second, which neither ``ray-qjm status`` nor a press of the tab key has to wait for.
_HOMES = {
    "api": ("attach", "plan", "run", "submit"),
    "circuits.files": ("QasmFiles", "QpyFiles"),
    "circuits.sweep": ("Sweep",),
    "frontends.job_manager": ("JobManager",),
    "frontends.plan": ("Plan",),
    "frontends.task": ("Task",),
    "options": (
        "BackendSpec",
        "Budget",
        "Limits",
        "Quota",
        "Resources",
        "RetryPolicy",
        "RunOptions",
        "TranspileOptions",
    ),
    "planning.status": ("TaskStatus",),
    "results.task_result": ("TaskResult",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
