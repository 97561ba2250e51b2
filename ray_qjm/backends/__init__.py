"""What runs circuits: Qiskit's backends behind one small face."""
