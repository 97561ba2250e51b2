"""What a task gives back: Arrow columns, and the views that people read."""

from __future__ import annotations

from ray_qjm.errors import UnknownCircuitError
from ray_qjm.results.task_result import TaskResult
from ray_qjm.results.views import CircuitResult

__all__ = ["CircuitResult", "TaskResult", "UnknownCircuitError"]
