"""Tests of the decisions: plain values in and out."""
