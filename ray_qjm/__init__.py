"""Run millions of Qiskit circuits on Ray and get one columnar result back.

What this module lists is public; anything else may change.
"""

from __future__ import annotations

from ray_qjm import errors
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
