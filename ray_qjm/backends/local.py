"""Circuits run on a backend in this process, whatever happens to single ones of them.

Nothing but the ``BackendV2`` interface is assumed: ``run(circuits, **options)`` gives a job whose ``result()``
is Qiskit's ``Result``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qiskit import QuantumCircuit

from ray_qjm.backends.answers import Registers, counted, read_answer, seed_option, told_seed
from ray_qjm.errors import BackendResultError, RayQjmError
from ray_qjm.planning.seeds import simulator_seed
from ray_qjm.results.counts import Row, fault

#: Messages of exceptions are kept up to here: some quote whole circuits.
MAX_ERROR = 10_000


@dataclass(slots=True)
class Ready:
    """A circuit that the backend takes.

    Attributes:
        index: Its row number, from which its seed follows.
        circuit: Compiled.
        shots: How often it is run.
        name: Of the user's circuit.
        metadata: Of the user's circuit.
    """

    index: int
    circuit: QuantumCircuit
    shots: int
    name: str | None = None
    metadata: Mapping[Any, Any] | None = None


class LocalBackend:
    """Runs circuits and makes rows of what comes back.

    Args:
        backend: A ``BackendV2``.
        name: What it is called in results.
        run_options: Further arguments of its ``run``.
        memory: Whether to keep single shots.
        base: The task's ``simulator_base``; see ``planning/seeds.py``.
    """

    def __init__(
        self, backend: Any, *, name: str, run_options: Mapping[str, Any], memory: bool, base: int
    ) -> None:
        self.backend = backend
        self.name = name
        self.run_options = dict(run_options)
        self._memory = memory
        self._base = base
        self._seed = seed_option(set(backend.options), run_options)
        # Set once the backend was seen to seed the circuits of a list in another way than Aer does.
        self._one_by_one = False
        self._registers = Registers()

    def run(self, circuits: Sequence[Ready]) -> list[Row]:
        """Run circuits and return one row each, in their order; nothing is raised for a single circuit.

        Their seeds go by row number: a list of consecutive rows is run at once, and cut where rows are
        missing or the number of shots changes.
        """
        rows: list[Row] = []
        for group in self._groups(circuits):
            rows += self._run(group)
        return rows

    def failed(self, circuit: Ready, error: Exception) -> Row:
        """The row of a circuit that the backend refused, or ran to no good end."""
        return failed_row(
            circuit.index,
            "run",
            error,
            self.name,
            circuit.shots,
            name=circuit.name,
            metadata=circuit.metadata,
        )

    def _groups(self, circuits: Sequence[Ready]) -> Iterator[Sequence[Ready]]:
        most = self.backend.max_circuits or len(circuits)
        start = 0
        for i in range(1, len(circuits) + 1):
            if i < len(circuits) and i - start < most and not self._one_by_one:
                before, circuit = circuits[i - 1], circuits[i]
                if circuit.index == before.index + 1 and circuit.shots == before.shots:
                    continue
            yield circuits[start:i]
            start = i

    def _run(self, group: Sequence[Ready]) -> list[Row]:
        try:
            answers = self._ask(group)
        except Exception as error:
            # One bad circuit may spoil the whole list: halve until it stands alone.
            if len(group) == 1:
                return [self.failed(group[0], error)]
            middle = len(group) // 2
            return self._run(group[:middle]) + self._run(group[middle:])
        seeds = [told_seed(answer) for answer in answers]
        if len(group) > 1 and self._seed is not None and self._wrong(group, answers, seeds):
            self._one_by_one = True
            return [row for circuit in group for row in self._run([circuit])]
        return [self._row(*each) for each in zip(group, answers, seeds, strict=True)]

    def _ask(self, group: Sequence[Ready]) -> list[Any]:
        options = {**self.run_options, "shots": group[0].shots}
        if self._memory:
            options["memory"] = True
        if self._seed is not None:
            options[self._seed] = simulator_seed(self._base, group[0].index)
        result = self.backend.run([circuit.circuit for circuit in group], **options).result()
        answers: list[Any] = list(result.results)
        if len(answers) != len(group):
            status = getattr(result, "status", "")
            raise BackendResultError(
                f"{self.name} answered {len(answers)} results for {len(group)} circuits (status {status!r})."
            )
        return answers

    def _wrong(self, group: Sequence[Ready], answers: Sequence[Any], seeds: Sequence[int | None]) -> bool:
        """Whether a seed is not the one that the circuit's row number asks for, or nobody knows which it was."""
        return any(
            seed != simulator_seed(self._base, circuit.index)
            for circuit, answer, seed in zip(group, answers, seeds, strict=True)
            if seed is not None or getattr(answer, "success", False)
        )

    def _row(self, circuit: Ready, answer: Any, seed: int | None) -> Row:
        try:
            return self._counted(circuit, answer, seed)
        except RayQjmError as error:
            return self.failed(circuit, error)
        except Exception as error:  # whatever a strange answer makes of attribute and key look-ups
            return self.failed(circuit, BackendResultError(f"{type(error).__name__}: {error}"))

    def _counted(self, circuit: Ready, answer: Any, seed: int | None) -> Row:
        row = Row(
            circuit.index,
            backend=self.name,
            clbits=circuit.circuit.num_clbits,
            registers=self._registers.of(circuit.circuit),
            shots_requested=circuit.shots,
            name=circuit.name,
            metadata=circuit.metadata,
        )
        answer = read_answer(answer, self.name, memory=self._memory)
        return counted(row, answer, seed=seed, memory=self._memory)


def failed_row(
    index: int,
    stage: str,
    error: Exception,
    backend: str | None,
    shots: int,
    *,
    name: str | None = None,
    metadata: Mapping[Any, Any] | None = None,
) -> Row:
    """The row of a circuit without counts, with the reason."""
    return Row(
        index,
        status="failed",
        stage=stage,
        backend=backend,
        shots_requested=shots,
        name=name,
        metadata=metadata,
        error_type=type(error).__name__,
        error=str(error)[:MAX_ERROR],
    )


def checked(rows: Iterable[Row]) -> list[Row]:
    """Rows with those replaced by failed ones whose counts can't be true (see ``results.counts.fault``)."""
    found = []
    for row in rows:
        reason = fault(row)
        if reason is not None:
            error = BackendResultError(f"{row.backend}: {reason}")
            row = failed_row(
                row.circuit,
                "run",
                error,
                row.backend,
                row.shots_requested,
                name=row.name,
                metadata=row.metadata,
            )
        found.append(row)
    return found
