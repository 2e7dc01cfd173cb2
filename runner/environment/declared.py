"""What a wheel declares, read without unpacking it: its requirements, its Python, the modules that it brings."""

from __future__ import annotations

import zipfile
from pathlib import Path

import msgspec
from installer.utils import parse_metadata_file

from runner.environment.wheel import LARGEST_METADATA
from runner.errors import TamperedError


class Declared(msgspec.Struct, frozen=True):
    """`modules` are the top-level names that can be imported."""

    requires: tuple[str, ...] = ()
    requires_python: str | None = None
    modules: frozenset[str] = frozenset()


def read_declared(path: Path, name: str) -> Declared:
    """Of the wheel at `path`, called `name`. Raises `TamperedError` for what is no wheel."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            info = next(one for one in names if one.count("/") == 1 and one.endswith(".dist-info/METADATA"))
            if archive.getinfo(info).file_size > LARGEST_METADATA:
                raise ValueError("its METADATA is larger than any")
            metadata = parse_metadata_file(archive.read(info).decode(errors="replace"))
    except (zipfile.BadZipFile, StopIteration, OSError, LookupError, ValueError, RuntimeError) as error:
        raise TamperedError(f"{name} cannot be read", str(error) or "it holds no METADATA") from error
    tops = {one.split("/")[0] for one in names if not one.split("/")[0].endswith((".dist-info", ".data", ".libs"))}
    return Declared(
        tuple(metadata.get_all("Requires-Dist") or ()),
        metadata.get("Requires-Python"),
        frozenset(top.partition(".")[0] for top in tops),
    )
