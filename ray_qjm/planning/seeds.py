"""Seeds that depend on the task's seed and a circuit's index, and on nothing else.

Aer gives the circuit at position ``j`` of a run the seed ``seed_simulator + 2113 * j``. A run that starts at
circuit ``a`` with ``seed_simulator = simulator_seed(seed, a)`` therefore gives each circuit the seed that it
would have had in one run of all circuits: chunking doesn't show in the counts.
"""

from __future__ import annotations

import numpy as np

#: Step from one circuit of a run to the next (qiskit-aer 0.18.2, measured; results tell their seed and
#: `backends/local.py` checks it each time, so another step would cost speed, not reproducibility).
AER_STRIDE = 2113

#: Aer takes seeds up to 2**63 - 1 (2**63 raises TypeError). A base below 2**50 leaves room for 4e15 circuits.
_BASE_BITS = 50


def simulator_base(seed: int) -> int:
    """Seed of circuit 0: 50 bits hashed from the task's seed, so that neighbouring seeds share nothing."""
    words = np.random.SeedSequence(seed, spawn_key=(0, 0)).generate_state(1, np.uint64)
    return int(words[0]) >> (64 - _BASE_BITS)


def simulator_seed(base: int, index: int) -> int:
    """Seed of circuit ``index``, where ``base`` is the task's ``simulator_base``."""
    return base + AER_STRIDE * index


def transpiler_seed(seed: int) -> int:
    """``seed_transpiler`` of every circuit of the task: 31 bits, Qiskit's passes take no more."""
    words = np.random.SeedSequence(seed, spawn_key=(0, 1)).generate_state(1, np.uint32)
    return int(words[0]) >> 1
