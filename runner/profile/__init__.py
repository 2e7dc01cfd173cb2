"""Profile: what a tabular file holds, small enough to keep, and what two profiles say of drift.

`values` is what is kept, `make` looks at a file, `statistics` and `drift` are pure.
"""
