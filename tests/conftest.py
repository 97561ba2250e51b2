"""What every test shares. Ray's fixtures are in ``tests/ray/conftest.py``."""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline: the first circuit of a process imports half of Qiskit, and machines are shared.
settings.register_profile("local", deadline=None)
# The same examples in every run: a red CI means that the change broke something.
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
