"""Decisions in plain code: no Ray, no Qiskit, no clock, no files. Values come in, values go out."""
