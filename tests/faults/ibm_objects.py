"""A driver that gives objects of the IBM client to ``run``, as users have them."""

from __future__ import annotations

import sys
import warnings

from qiskit_ibm_runtime import Batch, QiskitRuntimeService, SamplerV2, Session
from qiskit_ibm_runtime.executor_sampler import Sampler

import ray_qjm
from ray_qjm import Quota
from tests.faults.ibm_circuits import marked


def main() -> None:
    service = QiskitRuntimeService()
    backend = service.backend("ibm_loop")
    with Batch(backend=backend) as batch, Session(backend=backend) as session:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old = SamplerV2(mode=session)
        given = {"name": "ibm_loop", "backend": backend, "batch": Sampler(mode=batch), "session": old}
        for kind, what in given.items():
            spec = ray_qjm.BackendSpec(what, quota=Quota(max_pending=2))
            result = ray_qjm.run(
                marked, spec, count=40, shots=20, progress=False, store=f"{sys.argv[1]}/{kind}"
            )
            right = all(result.get_counts(i) == {format(i % 32, "05b"): 20} for i in range(40))
            print(kind, "right" if right else "wrong", result.jobs.num_rows, flush=True)


if __name__ == "__main__":
    main()
