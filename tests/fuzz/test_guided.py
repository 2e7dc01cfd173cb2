"""Coverage-guided fuzzing of every reader, for a bounded time: what a search by chance does not come upon.

`make test-slow` installs the fuzzer where there is one for the interpreter (`.ci/fuzz.txt`). What it finds goes to
`regressions/`, which every test run reads; whether a change lands must not hang on its luck, so CI leaves it out.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fuzz.readers import READERS

SECONDS = float(os.environ.get("FUZZ_SECONDS", "20"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.search,
    pytest.mark.skipif(not importlib.util.find_spec("atheris"), reason="atheris is not installed"),
]


@pytest.mark.parametrize("name", READERS)
def test_nothing_new_is_found(name: str, tmp_path: Path) -> None:
    found = tmp_path / "found"
    found.mkdir()
    command = [sys.executable, "-m", "tests.fuzz.guided", name, str(SECONDS), str(found)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=SECONDS + 120, check=False)
    broken = [file.read_bytes()[:300] for file in found.iterdir() if file.is_file()]
    said = [line for line in done.stderr.decode(errors="replace").splitlines() if "INFO: Instrumenting" not in line]
    assert (done.returncode, broken) == (0, []), "\n".join(said)[-6000:]
