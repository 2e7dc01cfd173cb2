"""The first use of a type by many threads at once, which ends a process that asks msgspec itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

RUNNER = Path(__file__).parents[2] / "runner"

EXAMPLE = next((RUNNER.parent / "state_specs" / "examples").glob("*.yaml"))

RACE = """
import sys, threading
from runner.state.strict import load_spec, load_yaml
from runner.state.decode import convert
from runner.state.spec import StateSpec

def first():
    together.wait()
    convert(tree, StateSpec)

tree = load_yaml(open(sys.argv[1], "rb").read(), "example")
sys.setswitchinterval(1e-6)
together = threading.Barrier(8)
threads = [threading.Thread(target=first) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_may_be_the_first_to_use_a_type() -> None:
    for _ in range(3):
        assert subprocess.run([sys.executable, "-c", RACE, str(EXAMPLE)], check=False).returncode == 0


def test_msgspec_is_asked_for_types_in_one_place_only() -> None:
    asked = re.compile(r"msgspec\.convert\(|json\.decode\([^)]*\btype=")
    found = [str(path) for path in RUNNER.rglob("*.py") if asked.search(path.read_text(encoding="utf-8"))]
    assert found == [str(RUNNER / "state" / "decode.py")]
