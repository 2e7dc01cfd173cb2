"""What a boundary asks of a file, and whether it is met: files and rules in, results out.

A file that cannot be read as what the check is for makes an `error`, which counts as broken: what could not be
looked at was not let pass.
"""

from runner.checks.evaluate import Found, evaluate, told
from runner.checks.judge import LIMIT, read_document, rule_problem, schema_problem

__all__ = ["LIMIT", "Found", "evaluate", "read_document", "rule_problem", "schema_problem", "told"]
