"""A judge that a person wrote: a command run on this machine, in a folder that holds the outputs of one run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path


def run_judge(command: str, folder: Path, facts: Mapping[str, str]) -> int:
    """Its exit status; what it prints goes to stderr."""
    return subprocess.run(
        ["sh", "-c", command], cwd=folder, env=os.environ | facts, stdin=subprocess.DEVNULL, stdout=2, check=False
    ).returncode
