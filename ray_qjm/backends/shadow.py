"""What workers have of a backend that lives in the process of its desk: enough to compile for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qiskit.providers import BackendV2, Options

from ray_qjm.backends.base import Facts


class Shadow(BackendV2):  # type: ignore[misc]
    """A backend's target and transpiler stages, under its name; nothing can be run on it.

    Args:
        facts: Of the backend.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__(name=facts.name)
        self.facts = facts

    @property
    def target(self) -> Any:
        """The backend's; ``None``: circuits go to it as they are."""
        return self.facts.target

    @property
    def max_circuits(self) -> int | None:
        """Nothing: jobs are cut elsewhere."""
        return None

    @classmethod
    def _default_options(cls) -> Any:
        return Options()

    def get_translation_stage_plugin(self) -> str:
        """As the backend says; Qiskit's own otherwise."""
        return self.facts.stages.get("translation_method", "translator")

    def get_scheduling_stage_plugin(self) -> str:
        """As the backend says; Qiskit's own otherwise."""
        return self.facts.stages.get("scheduling_method", "default")

    def run(self, run_input: Any, **options: Any) -> Any:
        """Refuse: jobs go through the desk."""
        raise TypeError(f"{self.name} can't be run here: its jobs are submitted by its desk.")


@dataclass(frozen=True)
class ShadowOf:
    """Makes the shadow of a backend; picklable.

    Attributes:
        facts: Of the backend.
    """

    facts: Facts

    def __call__(self) -> Shadow:
        """Make it."""
        return Shadow(self.facts)

    def __repr__(self) -> str:
        return f"<shadow of {self.facts.name}>"
