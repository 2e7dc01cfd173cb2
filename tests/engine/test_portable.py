"""`determinism: portable` gives the same bytes whatever instructions the CPU has.

There is one CPU here. The others are emulated: `qemu-x86_64` runs the job's Python and answers for what the CPU can,
as another machine would; no variable says so to numpy, OpenBLAS or glibc. The machine's own CPU is one more.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Workspace, absent

pytestmark = [pytest.mark.engine, pytest.mark.network, pytest.mark.slow]

JOB = Path(__file__).parent / "rounding.py"
HASWELL, NEHALEM, OWN = "Haswell", "Nehalem", "its own"
"""With AVX2 and fused multiply-add, with neither, and what this machine has."""


@pytest.fixture
def qemu() -> Path:
    """QEMU's emulation of a process, linked statically: it runs in any image."""
    found = shutil.which("qemu-x86_64-static")
    if not found:
        raise absent("this needs qemu-user-static")
    return Path(found)


def computed(workspace: Workspace, cpu: str, determinism: str, **env: str) -> dict[str, Any]:
    """What the job prints on that CPU, and what the state's digest is then."""
    emulated = 'exec ./qemu "$(command -v python3)" rounding.py 2>/dev/null'
    workspace.jobs(
        j={
            "command": "python3 rounding.py" if cpu == OWN else emulated,
            "image": workspace.image,  # type: ignore[attr-defined]
            "dependencies": "requirements.in",
            "determinism": determinism,
            "env": env if cpu == OWN else {"QEMU_CPU": cpu, **env},
            "outputs": ["stdout"],
        }
    )
    (output,) = workspace.run("j")["outputs"]
    found: dict[str, Any] = json.loads(workspace.blob(output["sha256"]).read_text())
    return found


@pytest.mark.parametrize("numpy", ["1.26.4", "2.4.1"])
def test_portable_is_the_same_on_every_cpu(python_workspace: Workspace, qemu: Path, numpy: str) -> None:
    """With the two sets of names that numpy has had for instruction sets."""
    python_workspace.write("qemu", qemu.read_bytes(), 0o755)
    python_workspace.write("rounding.py", JOB.read_text())
    python_workspace.write("requirements.in", f"numpy=={numpy}\n")
    # OpenBLAS of these wheels takes a Nehalem for a Haswell, and crashes, unless it is told what that CPU is.
    haswell = computed(python_workspace, HASWELL, "same-host", OPENBLAS_CORETYPE="Haswell")
    nehalem = computed(python_workspace, NEHALEM, "same-host", OPENBLAS_CORETYPE="Prescott")
    assert haswell.keys() >= {"libm", "solve"} and haswell.keys() == nehalem.keys()
    same = {name for name in haswell if haswell[name] == nehalem[name]}
    assert not same, f"{same} would show nothing"
    found = {cpu: computed(python_workspace, cpu, "portable") for cpu in (HASWELL, NEHALEM, OWN)}
    assert found[HASWELL] == found[NEHALEM] == found[OWN]
