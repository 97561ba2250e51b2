"""Measurements, run by hand from the checkout: ``python -m benchmarks.peers``. Results: ``RESULTS.md``."""
