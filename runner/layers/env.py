"""Layer `env`: every variable that the job sees beyond those of its image.

Declared variables, and those that `determinism` sets. Nothing else of the caller's environment enters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from runner.errors import UsageError
from runner.state.paths import is_text
from runner.state.spec import Determinism, Wheel

_THREADS = (
    "BLIS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
)
_SAME_HOST = {
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "SOURCE_DATE_EPOCH": "315532800",
    "TZ": "UTC",
}
# glibc chooses among variants of its own exp, sin, pow, …, which round otherwise with fused multiply-add. Names that a
# version of it does not know it ignores; `_Usable` is what those before 2.33 know.
_GLIBC_FEATURES = "AVX2 AVX2_Usable FMA FMA_Usable FMA4 FMA4_Usable"
_PORTABLE = {
    "ATEN_CPU_CAPABILITY": "default",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=" + ",".join(f"-{name}" for name in _GLIBC_FEATURES.split()),
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Prescott",
}
_NUMPY_FEATURES_BEFORE_2_4 = "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
_NUMPY_FEATURES_SINCE_2_4 = "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"


def observe(
    declared: Mapping[str, str | None],
    caller: Mapping[str, str],
    determinism: Determinism,
    cpus: float | None,
    locked: tuple[Wheel, ...],
) -> dict[str, str]:
    """The variables by name. A declared one wins over determinism's; `null` takes the caller's value.

    Thread counts follow `limits.cpus`, rounded up; without it they are 1.
    """
    fixed = determinism_variables(determinism, cpus, locked)
    return dict(sorted((fixed | {name: _value(name, value, caller) for name, value in declared.items()}).items()))


def refuse_unset(declared: Mapping[str, str | None], caller: Mapping[str, str]) -> None:
    """Say at once what `observe` would say after packages were resolved."""
    for name, value in declared.items():
        _value(name, value, caller)


def determinism_variables(determinism: Determinism, cpus: float | None, locked: tuple[Wheel, ...]) -> dict[str, str]:
    if determinism == "off":
        return {}
    threads = str(math.ceil(cpus or 1))
    found = _SAME_HOST | dict.fromkeys(_THREADS, threads)
    if determinism == "portable":
        found |= _PORTABLE | _numpy_caps(locked)
    return found


def _numpy_caps(locked: tuple[Wheel, ...]) -> dict[str, str]:
    """numpy ignores names that it does not know, in silence, and renamed them in 2.4."""
    version = next((wheel.version for wheel in locked if wheel.name == "numpy"), None)
    if version is None:
        return {}
    major, minor = (int(part) for part in version.split(".")[:2])
    names = _NUMPY_FEATURES_SINCE_2_4 if (major, minor) >= (2, 4) else _NUMPY_FEATURES_BEFORE_2_4
    return {"NPY_DISABLE_CPU_FEATURES": names}


def _value(name: str, value: str | None, caller: Mapping[str, str]) -> str:
    if value is None and name not in caller:
        raise UsageError(
            f"env: {name} is to be taken from the caller, who has not set it",
            next=f"`export {name}=…` before the run, or give its value in replay.yaml",
        )
    found = caller[name] if value is None else value
    if "\0" in found:
        raise UsageError(f"env: the value of {name} holds a NUL byte", next="give another value")
    if not is_text(found):
        raise UsageError(f"env: the value of {name} is not UTF-8", next="give another value")
    return found
