"""Bisect: changes × judge → cause. A pure search; nothing here builds, runs or reads anything."""

from runner.bisect.model import Ask, Cause, Found, Outcome, Problem, Seen, Tally
from runner.bisect.search import ask

__all__ = ["Ask", "Cause", "Found", "Outcome", "Problem", "Seen", "Tally", "ask"]
