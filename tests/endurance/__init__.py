"""What is tried for long: kills, crowds, faults, leaks."""
