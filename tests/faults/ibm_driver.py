"""A driver that tests kill: runs circuits on the IBM service on loopback, with a store."""

from __future__ import annotations

import sys

import ray_qjm
from ray_qjm import BackendSpec, Limits, Quota, RetryPolicy, RunOptions, TaskStatus
from tests.faults.ibm_circuits import COUNT, PENDING, SHOTS, marked

#: Short, so that lost replies are cleared up within the test; the late ones of the service land sooner.
RETRY = RetryPolicy(attempts=30, wait_s=0.1, max_wait_s=1.0, lost_grace_s=3.0, call_s=20.0)


def tell(status: TaskStatus) -> None:
    print("done", status.done, flush=True)


def main() -> None:
    spec = BackendSpec.ibm("ibm_loop", limits=Limits(max_circuits=100), quota=Quota(max_pending=PENDING))
    result = ray_qjm.run(
        marked,
        [spec],
        count=COUNT,
        shots=SHOTS,
        seed=1,
        store=sys.argv[1],
        progress=tell,
        options=RunOptions(retry=RETRY),
    )
    print("finished", len(result), flush=True)


if __name__ == "__main__":
    main()
