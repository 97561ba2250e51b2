"""``python -m ray_qjm`` is ``ray-qjm``."""

from __future__ import annotations

from ray_qjm.frontends.cli.program import main

if __name__ == "__main__":
    main()
