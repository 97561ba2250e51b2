"""Reading what a client submitted, running it, and writing results as the real service does."""

from __future__ import annotations

import base64
import json
import math
import zlib
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np
from qiskit.circuit import QuantumCircuit
from qiskit.primitives.containers import BitArray, DataBin, PrimitiveResult, SamplerPubResult
from qiskit.primitives.containers.sampler_pub import SamplerPub
from qiskit_aer import AerSimulator
from qiskit_ibm_runtime.execution_span import ExecutionSpans, SliceSpan
from qiskit_ibm_runtime.fake_provider.executor.run_quantum_program import run_quantum_program
from qiskit_ibm_runtime.json import RuntimeDecoder, RuntimeEncoder
from qiskit_ibm_runtime.options_models import SimulatorOptions
from qiskit_ibm_runtime.quantum_program.params_converters import QUANTUM_PROGRAM_PARAMS_CONVERTERS

DEFAULT_SHOTS = 4096
DETERMINISTIC = {"x", "id", "barrier", "measure"}

Registers = dict[str, BitArray]


@dataclass(frozen=True)
class Pub:
    """A circuit with the values of its parameters, of shape `(*sweep, parameters)`, and its shots."""

    circuit: QuantumCircuit
    values: np.ndarray[Any, Any]
    shots: int
    metadata: dict[str, Any]

    @property
    def sweep(self) -> tuple[int, ...]:
        return tuple(self.values.shape[:-1])

    @property
    def executions(self) -> int:
        return self.shots * math.prod(self.sweep)


@dataclass(frozen=True)
class Submission:
    """What a POST to `/jobs` asks for. `program` is None for the sampler, else the executor's quantum program."""

    pubs: list[Pub]
    program: Any
    passthrough: Any

    @property
    def executions(self) -> int:
        return sum(pub.executions for pub in self.pubs)


def read_submission(body: bytes) -> Submission:
    """Decode a payload with the client's own decoders. Raises whatever they do."""
    payload = json.loads(body, cls=RuntimeDecoder)
    params = payload["params"]
    if payload["program_id"] == "sampler":
        default = params.get("options", {}).get("default_shots") or DEFAULT_SHOTS
        return Submission([_sampler_pub(pub, default) for pub in params["pubs"]], None, None)
    if payload["program_id"] != "executor":
        raise ValueError(f"no program {payload['program_id']}")
    converter = QUANTUM_PROGRAM_PARAMS_CONVERTERS[params["schema_version"]]
    program, _ = converter.decoder(converter.model(**params))
    if program.meas_level != "classified":
        raise ValueError(f"no results of level {program.meas_level}")
    passthrough = params["quantum_program"].get("passthrough_data")
    processor = passthrough.get("post_processor", {}) if isinstance(passthrough, dict) else {}
    metadata = processor.get("circuits_metadata") or [None] * len(program.items)
    pubs = [
        Pub(item.circuit, np.zeros((*item.shape, 0)), program.shots, about or {})
        for item, about in zip(program.items, metadata, strict=True)
    ]
    for index, item in enumerate(program.items):
        if hasattr(item, "circuit_arguments"):
            pubs[index] = Pub(item.circuit, item.circuit_arguments, program.shots, pubs[index].metadata)
    return Submission(pubs, program, passthrough)


def _sampler_pub(encoded: Any, default_shots: int) -> Pub:
    pub = SamplerPub.coerce(tuple(encoded), default_shots)
    values = pub.parameter_values.as_array(pub.circuit.parameters)
    return Pub(pub.circuit, values, pub.shots, pub.circuit.metadata or {})


def run(
    submission: Submission, *, seed: int, shortcut: bool, began: datetime, only: int | None = None
) -> str:
    """The result of a job as the text that its client downloads; `only` leaves out all PUBs after so many."""
    if submission.program is None:
        registers = _run_pubs(submission.pubs[:only], seed, shortcut)
        return _sampler_result(submission.pubs[:only], registers, began)
    twirled = [item.samplex for item in submission.program.items if hasattr(item, "samplex")]
    if twirled:
        for samplex in twirled:
            samplex.finalize()
        drawn = run_quantum_program(AerSimulator(), submission.program, SimulatorOptions(seed_simulator=seed))
        arrays = [dict(item.items()) for item in drawn]
    else:
        arrays = [
            {name: bits.to_bool_array(order="little") for name, bits in registers.items()}
            for registers in _run_pubs(submission.pubs, seed, shortcut)
        ]
    return _executor_result(submission, arrays[:only])


def _sampler_result(pubs: list[Pub], registers: list[Registers], began: datetime) -> str:
    results = [
        SamplerPubResult(DataBin(**bits, shape=pub.sweep), {"circuit_metadata": pub.metadata})
        for pub, bits in zip(pubs, registers, strict=True)
    ]
    spans = {index: ((*pub.sweep, pub.shots), slice(0, pub.executions)) for index, pub in enumerate(pubs)}
    execution = {"execution_spans": ExecutionSpans([SliceSpan(began, datetime.now(timezone.utc), spans)])}
    return json.dumps(PrimitiveResult(results, {"execution": execution, "version": 2}), cls=RuntimeEncoder)


def _executor_result(submission: Submission, arrays: list[dict[str, Any]]) -> str:
    data = [
        {"results": {name: _tensor(array) for name, array in item.items()}, "metadata": {}} for item in arrays
    ]
    return json.dumps(
        {
            "schema_version": "v2.0",
            "data": data,
            "metadata": {"chunk_timing": []},
            "passthrough_data": submission.passthrough,
            "semantic_role": submission.program._semantic_role,
        }
    )


def _tensor(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Bits as the executor writes them: packed, compressed, as text."""
    packed = np.packbits(array.astype(np.uint8), bitorder="little").tobytes()
    text = base64.b64encode(zlib.compress(packed)).decode()
    return {"data": text, "shape": list(array.shape), "dtype": "bool"}


def _run_pubs(pubs: list[Pub], seed: int, shortcut: bool) -> list[Registers]:
    """All PUBs, grouped so that Aer runs once for each number of shots."""
    done: dict[int, Registers] = {}
    rest: dict[int, list[int]] = {}
    for index, pub in enumerate(pubs):
        known = _worked_out(pub) if shortcut else None
        if known is None:
            rest.setdefault(pub.shots, []).append(index)
        else:
            done[index] = known
    for shots, indices in rest.items():
        bound: list[QuantumCircuit] = []
        for index in indices:
            pub = pubs[index]
            rows = pub.values.reshape(math.prod(pub.sweep), pub.values.shape[-1])
            bound.extend(pub.circuit.assign_parameters(row) if row.size else pub.circuit for row in rows)
        counts = AerSimulator().run(bound, shots=shots, seed_simulator=seed).result()
        offset = 0
        for index in indices:
            size = math.prod(pubs[index].sweep)
            outcomes = [counts.data(offset + i).get("counts", {}) for i in range(size)]
            done[index] = _registers(pubs[index], outcomes)
            offset += size
    return [done[index] for index in range(len(pubs))]


def _registers(pub: Pub, outcomes: list[dict[str, int]]) -> Registers:
    """Counts over all classical bits of a circuit, as one array of shots for each of its registers."""
    circuit = pub.circuit
    arrays = [
        BitArray.from_counts({int(k, 16): v for k, v in counts.items()}, circuit.num_clbits).array
        for counts in outcomes
    ]
    whole = BitArray(np.stack(arrays).reshape(*pub.sweep, pub.shots, -1), circuit.num_clbits)
    return {
        register.name: whole.slice_bits([circuit.find_bit(bit).index for bit in register])
        for register in circuit.cregs
    }


def _worked_out(pub: Pub) -> Registers | None:
    """The outcome of a circuit of `x` and `measure` alone; None for any other."""
    circuit = pub.circuit
    if pub.values.shape[-1] or pub.sweep:
        return None
    ones: set[int] = set()
    clbits = [False] * circuit.num_clbits
    index_of = {bit: index for index, bit in enumerate(circuit.qubits)}
    clbit_of = {bit: index for index, bit in enumerate(circuit.clbits)}
    for instruction in circuit.data:
        name = instruction.operation.name
        if name not in DETERMINISTIC:
            return None
        if name == "x":
            ones ^= {index_of[instruction.qubits[0]]}
        elif name == "measure":
            clbits[clbit_of[instruction.clbits[0]]] = index_of[instruction.qubits[0]] in ones
    registers: Registers = {}
    for register in circuit.cregs:
        value = sum(1 << place for place, bit in enumerate(register) if clbits[clbit_of[bit]])
        row = np.frombuffer(value.to_bytes(-(-register.size // 8), "big"), dtype=np.uint8)
        registers[register.name] = BitArray(np.tile(row, (pub.shots, 1)), register.size)
    return registers
