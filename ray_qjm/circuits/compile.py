"""Circuits as the user wrote them become circuits that a backend takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit import CONTROL_FLOW_OP_NAMES
from qiskit.transpiler import PassManager, generate_preset_pass_manager

from ray_qjm.errors import UnsupportedCircuitError
from ray_qjm.options import TranspileOptions

#: Level of a circuit that "auto" can't leave as it is: 2, Qiskit's default, costs 15 times as much on Aer's
#: gate set and buys nothing there.
AUTO_LEVEL = 1

#: Answers of a target that are kept.
MAX_KEPT = 10_000

#: Directives: no target lists them, every backend takes them.
_ALWAYS = frozenset({"barrier"})
_NESTED = frozenset(CONTROL_FLOW_OP_NAMES)


class Compiler:
    """Compiles for one backend. Makes its pass manager once: that costs as much as dozens of circuits.

    Args:
        backend: The ``BackendV2``; only its target is looked at, and Qiskit's preset passes get it whole,
            because a provider may have stages of its own. Its target may be ``None``: circuits stay as they are.
        options: See ``TranspileOptions``.
        seed: ``seed_transpiler`` unless ``options`` has one.

    Raises:
        Exception: Whatever ``generate_preset_pass_manager`` raises for an option that it doesn't know.
    """

    def __init__(self, backend: Any, options: TranspileOptions, seed: int) -> None:
        self._backend = backend
        self._target = backend.target
        self._level = options.level
        self._passes = options.pass_manager
        self._own_passes = options.pass_manager is not None
        if self._target is None:
            return
        self._names = frozenset(self._target.operation_names) | _ALWAYS
        # Without coupling any qubits will do, and a circuit's width is the simulator's own affair.
        self._coupled = self._target.build_coupling_map() is not None
        self._supported: dict[tuple[str, tuple[int, ...]], bool] = {}
        if self._passes is None and self._level != "off":
            staged = generate_preset_pass_manager(
                AUTO_LEVEL if self._level == "auto" else self._level,
                backend=backend,
                seed_transpiler=seed if options.seed is None else options.seed,
                **options.options,
            )
            # The same passes in one line: a staged manager gathers them anew for each circuit, which takes as
            # long as some of them (2 % of a random circuit of 5 qubits, from its making to its counts).
            self._passes = PassManager([staged.to_flow_controller()])

    def compile(self, circuit: QuantumCircuit) -> QuantumCircuit:
        """Return the circuit for the backend: the same object if it runs as it is.

        Raises:
            UnsupportedCircuitError: It saves simulator data, is wider than the backend, or isn't ISA though
                transpiling is off.
            Exception: Whatever Qiskit's or the user's passes raise.
        """
        operations = circuit.count_ops()
        if saves := sorted(name for name in operations if name.startswith("save_")):
            raise UnsupportedCircuitError(
                f"it has {', '.join(saves)}: results keep counts and shots only, so what it saves would be lost. "
                "Remove it, or run this circuit on the simulator itself."
            )
        if self._own_passes:
            return self._by_own_passes(circuit)
        if self._target is None:
            return circuit
        if self._level == "off":
            self._check_isa(circuit, operations)
            return circuit
        if self._level == "auto" and (
            circuit.layout is not None or self._why_not_isa(circuit, operations) is None
        ):
            return circuit
        self._check_width(circuit)
        return self._passes.run(circuit)

    def _by_own_passes(self, circuit: QuantumCircuit) -> QuantumCircuit:
        run = getattr(self._passes, "run", self._passes)
        compiled = run(circuit)
        if not isinstance(compiled, QuantumCircuit):
            raise TypeError(f"pass_manager returned a {type(compiled).__name__}, not a QuantumCircuit")
        return compiled

    def _check_width(self, circuit: QuantumCircuit) -> None:
        most = self._target.num_qubits
        if most is not None and circuit.num_qubits > most:
            raise UnsupportedCircuitError(
                f"it has {circuit.num_qubits} qubits, {self._backend.name} has {most}. Choose a wider backend."
            )

    def _check_isa(self, circuit: QuantumCircuit, operations: dict[str, int]) -> None:
        if self._coupled:
            self._check_width(circuit)
        reason = self._why_not_isa(circuit, operations)
        if reason is not None:
            raise UnsupportedCircuitError(
                f"level is 'off', and {self._backend.name} has no {reason}. Transpile the circuit, or use 'auto'."
            )

    def _why_not_isa(self, circuit: QuantumCircuit, operations: dict[str, int]) -> str | None:
        """The first instruction that the target doesn't have, or ``None`` if it has all."""
        if not operations.keys() <= self._names:
            return f"{next(name for name in operations if name not in self._names)!r}"
        if not self._coupled and _NESTED.isdisjoint(operations):
            return None
        if self._coupled and circuit.num_qubits > self._target.num_qubits:
            return f"qubit {circuit.num_qubits - 1}"
        for name, qubits in _instructions(circuit, range(circuit.num_qubits)):
            if name not in self._names:
                return repr(name)
            if self._coupled and not self._supports(name, qubits):
                return f"{name!r} on qubits {', '.join(map(str, qubits))}"
        return None

    def _supports(self, name: str, qubits: tuple[int, ...]) -> bool:
        # A question to the target costs 1.5 us, and a device has few hundred answers.
        if name in _ALWAYS or name in _NESTED:
            return True
        key = (name, qubits)
        known = self._supported.get(key)
        if known is None:
            if len(self._supported) >= MAX_KEPT:
                self._supported.clear()
            known = self._supported[key] = bool(self._target.instruction_supported(name, qubits))
        return known


def check_runnable(circuit: QuantumCircuit) -> None:
    """Refuse a compiled circuit that would run and give nothing.

    Raises:
        UnsupportedCircuitError: It has free parameters, or measures nothing.
    """
    if circuit.num_parameters:
        names = sorted(parameter.name for parameter in circuit.parameters)
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise UnsupportedCircuitError(f"parameters {shown} have no values. Bind them, or use Sweep.")
    if not measures(circuit):
        raise UnsupportedCircuitError(
            "it has no measurement, so there is nothing to count. Add measure_all()."
        )


def measures(circuit: QuantumCircuit) -> bool:
    """Whether it has a measurement, in the bodies of control flow too."""
    operations = circuit.count_ops()
    if "measure" in operations:
        return True
    if _NESTED.isdisjoint(operations):
        return False
    return any(name == "measure" for name, _ in _instructions(circuit, range(circuit.num_qubits)))


def _instructions(circuit: QuantumCircuit, qubits: Sequence[int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every instruction and the qubits of the outermost circuit that it acts on, bodies included."""
    places = dict(zip(circuit.qubits, qubits, strict=True))
    for instruction in circuit.data:
        where = tuple([places[qubit] for qubit in instruction.qubits])
        yield instruction.name, where
        if instruction.name in _NESTED:
            for block in instruction.operation.blocks:
                yield from _instructions(block, where)
