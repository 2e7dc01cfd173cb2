"""Disk that environments take."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import zipfile
from pathlib import Path

from runner.environment.farm import build_environment
from runner.layers.dependencies import _compile
from runner.state.digest import digest_bytes
from runner.state.spec import Wheel
from runner.store.files import entries_below
from runner.tools.containers import connect
from runner.tools.interrupts import Interrupts
from runner.tools.probe import probe
from tests.bench.harness import Measured, Row
from tests.bench.laid_out import PLACE
from tests.bench.rows_environment import fifty, wheels_of

ENVIRONMENTS = 100
MODULES = 20


def hundred() -> Measured:
    """Each has 49 packages in common with the others, and one version of a fiftieth for itself."""
    workspace, before, _ = fifty()
    store, engine, spec = workspace.store, connect(), workspace.spec(before)
    image = spec.observed.image.config or ""
    probed = probe(engine, store.cache, image, "python3", Interrupts())
    assert probed
    place = PLACE / "disk"
    shutil.rmtree(place, ignore_errors=True)
    (place / "wheels").mkdir(parents=True)
    common = [wheel for wheel in wheels_of(workspace, before) if wheel.name != "tabulate"]
    own = {wheel.sha256: file for wheel, file in (_wheel(place / "wheels", number) for number in range(ENVIRONMENTS))}
    sizes = []
    for number in range(ENVIRONMENTS):
        wheel, _ = _wheel(place / "wheels", number)
        build_environment(
            place / "cache",
            probed.interpreter,
            [*common, wheel],
            lambda digest: own.get(digest) or store.blobs.path(digest),
            lambda trees: _compile(engine, image, probed.interpreter, trees, Interrupts()),
            system_packages=False,
        )
        if number in (0, ENVIRONMENTS - 1):
            sizes.append(_on_disk(place / "cache") / 2**20)
    one, all_of_them = sizes
    return Measured(all_of_them, one, all_of_them / one, "MB")


def _wheel(folder: Path, number: int) -> tuple[Wheel, Path]:
    """A small pure wheel whose modules differ from version to version."""
    name, version = "changing", f"1.0.{number}"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/module{module}.py": f"VERSION = {version!r}\n" + f"def f{module}(x):\n    return x + {module}\n" * 40
        for module in range(MODULES)
    }
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/RECORD"] = "".join(f"{path},{_hash(text)},{len(text)}\n" for path, text in files.items())
    files[f"{info}/RECORD"] += f"{info}/RECORD,,\n"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), text)
    file = folder / f"{name}-{version}-py3-none-any.whl"
    file.write_bytes(out.getvalue())
    return Wheel(name, version, file.name, digest_bytes(out.getvalue())), file


def _hash(text: str) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def _on_disk(folder: Path) -> int:
    """Bytes of blocks; a file with several names counts once."""
    seen: dict[int, int] = {}
    for entry in entries_below(folder):
        status = os.lstat(entry.path)
        seen[status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


ROWS = (Row("disk", "disk of 100 environments, one package differing", "one of them", 1.3, hundred),)
