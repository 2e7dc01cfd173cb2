"""Layer `host`: the machine that a run was seen on. It explains, and is no condition of the state."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from runner.state.spec import HostSeen

_TELLING_FLAGS = frozenset(
    "sse4_2 avx avx2 fma f16c avx512f avx512dq avx512bw avx512vl avx512_vnni amx_tile asimd sve".split()
)


def observe(engine_version: dict[str, Any]) -> HostSeen:
    name, flags = _cpu()
    return HostSeen(
        machine=platform.machine(),
        cpu=name,
        flags=tuple(sorted(flags & _TELLING_FLAGS)),
        cores=os.cpu_count(),
        kernel=engine_version.get("KernelVersion") or platform.release(),
        engine=_engine(engine_version),
        gpu=_gpus(),
    )


def differences(then: HostSeen, now: HostSeen) -> list[str]:
    """In what two machines differ, and how: `kernel (6.1 → 6.8)`; of sets what is gone and what came."""
    return [
        f"{name} ({_moved(getattr(then, name), getattr(now, name))})"
        for name in now.__struct_fields__
        if getattr(then, name) != getattr(now, name)
    ]


def _moved(then: Any, now: Any) -> str:
    if isinstance(then, tuple):
        gone = [f"without {one}" for one in then if one not in now]
        came = [f"with {one}" for one in now if one not in then]
        return ", ".join(gone + came) or "other numbers of them"
    return f"{'unknown' if then is None else then} → {'unknown' if now is None else now}"


def _engine(version: dict[str, Any]) -> str:
    components = version.get("Components") or [{}]
    return f"{components[0].get('Name', 'Engine')} {version.get('Version', '')}".strip()


def _cpu() -> tuple[str | None, set[str]]:
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return platform.processor() or None, set()
    fields = dict(line.partition(":")[::2] for line in first.splitlines() if ":" in line)
    known = {key.strip(): value.strip() for key, value in fields.items()}
    return known.get("model name"), set((known.get("flags") or known.get("Features") or "").split())


def _gpus() -> tuple[str, ...]:
    cards = Path("/proc/driver/nvidia/gpus")
    found = (card / "information" for card in sorted(cards.iterdir())) if cards.is_dir() else ()
    return tuple(line.partition(":")[2].strip() for file in found for line in file.read_text().splitlines()[:1])
