"""Circuits of the tests, in a module that workers import."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import ray
from qiskit import QuantumCircuit
from qiskit.circuit.random import random_circuit


def random_one(index: int, rng: np.random.Generator) -> QuantumCircuit:
    return random_circuit(4, 3, measure=True, seed=int(rng.integers(2**32)))


def coin(index: int) -> QuantumCircuit:
    circuit = QuantumCircuit(1, 1)
    circuit.h(0)
    circuit.measure(0, 0)
    return circuit


def binary(index: int, bits: int = 8) -> QuantumCircuit:
    """Measures ``index`` itself: the one outcome tells which circuit it was."""
    circuit = QuantumCircuit(bits, bits)
    for bit in range(bits):
        if index >> bit & 1:
            circuit.x(bit)
    circuit.measure(range(bits), range(bits))
    return circuit


class Killer:
    """Circuit ``victim`` kills the process that builds it, ``times`` times; counted in files."""

    def __init__(self, victim: int, folder: Path, times: int) -> None:
        self.victim, self.folder, self.times = victim, folder, times

    def __call__(self, index: int) -> QuantumCircuit:
        if index == self.victim:
            deaths = len(list(self.folder.iterdir()))
            if deaths < self.times:
                (self.folder / f"{os.getpid()}-{deaths}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return binary(index)


def named_by_ray(index: int) -> QuantumCircuit:
    """Tells the name of the Ray task that built it."""
    circuit = coin(index)
    circuit.metadata = {"ray_task": ray.get_runtime_context().get_task_name()}
    return circuit
