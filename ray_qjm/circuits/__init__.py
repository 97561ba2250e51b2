"""Circuits before they reach a backend: where they come from, how they are compiled, how they travel."""
