"""Which Ray a command uses."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import click


def choose_ray(options: Mapping[str, Any]) -> None:
    """Say which Ray will be used, once it is needed; nothing is started or joined here.

    Raises:
        click.UsageError: ``--num-cpus`` doesn't go with a cluster.
    """
    address, num_cpus = options.get("address"), options.get("num_cpus")
    joined = address or os.environ.get("RAY_ADDRESS")
    if num_cpus is not None and joined not in (None, "", "local"):
        where = "--address" if address else "RAY_ADDRESS"
        raise click.UsageError(
            f"--num-cpus is for a Ray of this machine, and {where} names a cluster, {joined}. Leave it out, or give "
            "--address local."
        )
    from ray_qjm.cluster.session import Wish, wish

    wish(Wish(address, num_cpus, told="--debug" in sys.argv))
