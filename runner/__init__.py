"""Record what a job ran, run exactly that again, and say whether the result is the same.

The package reads as the flow does:

    replay.yaml ─capture→ state spec ─rebuild→ environment ─execute→ outputs ─compare→ verdict

`capture`, `rebuild`, `execute`, `compare`, `replay` and `diff` are the steps; `state` holds the values that
pass between them; `layers` has one file for each part of a state; `tools` are the only doors
outside; `store` keeps things; `cli` parses, prints and sets the exit code.
"""

__version__ = "0.1.0"
