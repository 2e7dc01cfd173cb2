"""Nights, as decisions: which runs, in which order, when to try again, what moved since the night before. Pure."""
