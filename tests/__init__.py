"""Tests. A package, so that `tests/ray` never stands in for Ray itself."""
