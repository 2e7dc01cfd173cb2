"""Layer `params`: a parameter file, kept byte for byte at its path, or a mapping from `replay.yaml`.

The digest covers the file's bytes, since that is what the job reads; the values stand beside them so that
a change can be named by its dotted key.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from runner.errors import TamperedError, UsageError
from runner.state.digest import Digest, digest_bytes
from runner.state.paths import inside
from runner.state.spec import Params
from runner.state.strict import check_plain, load_json, load_toml, load_yaml
from runner.store.blobs import copy_out
from runner.store.files import is_within
from runner.store.store import Store

VARIABLE = "REPLAY_PARAMS"
# The values stand in the spec, which people review, and take several times as much there.
MAX_BYTES = 512 << 10


def observe(store: Store, root: Path, declared: str | dict[str, Any] | None) -> Params | None:
    """As `look`, the file kept in the store."""
    found, data = look(root, declared)
    if data is not None:
        store.blobs.put_bytes(data)
    return found


def look(root: Path, declared: str | dict[str, Any] | None) -> tuple[Params | None, bytes | None]:
    """The parameters, and the bytes of their file if they have one. Raises `UsageError` for a file that is missing,
    too large or no mapping."""
    if declared is None:
        return None, None
    if isinstance(declared, dict):
        check_plain(declared, "params in replay.yaml")
        return Params(values=declared), None
    path = inside(declared, "params")
    data = _read(root, path)
    return Params(values=parse(data, path), file=path, sha256=digest_bytes(data)), data


def parse(data: bytes, path: str) -> dict[str, Any]:
    """The values of a YAML, JSON or TOML file, chosen by its ending; TOML dates become ISO strings."""
    suffix = Path(path).suffix.lower()
    loaders = {".yaml": load_yaml, ".yml": load_yaml, ".json": load_json, ".toml": load_toml}
    if suffix not in loaders:
        raise UsageError(
            f"params: cannot read {path}",
            f"{suffix or 'no ending'} is not known",
            "use .yaml, .json or .toml",
        )
    values = loaders[suffix](data, path)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"params: {path} holds no mapping", f"found a {type(values).__name__} at the top")
    check_plain(values, path)
    return values


def restore(store: Store, params: Params | None, workspace: Path) -> None:
    if params and params.file and params.sha256:
        place = workspace / inside(params.file, "params")
        if not is_within(workspace, place):
            raise TamperedError(
                f"params: {params.file} leads out of the workspace", "through a link in the recorded code"
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        copy_out(store.blobs.verified(Digest(params.sha256)), place, 0o644)


def environment(params: Params | None) -> dict[str, str]:
    """The variable that carries a mapping; nothing for a file."""
    if params is None or params.file:
        return {}
    return {VARIABLE: json.dumps(params.values, sort_keys=True, separators=(",", ":"))}


def _read(root: Path, path: str) -> bytes:
    file = root / path
    if not is_within(root, file):
        raise UsageError(f"params: {path} is a link to a file outside the workspace", os.path.realpath(file))
    try:
        if file.exists() and not file.is_file():
            raise UsageError(f"params: {path} is no regular file", next="name a .yaml, .json or .toml file")
        if file.stat().st_size > MAX_BYTES:
            raise UsageError(f"params: {path} is larger than 512 KiB", next="declare it under data instead")
        return file.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"params: there is no {path}", next="create it, or correct `params` in replay.yaml") from None
    except OSError as error:
        raise UsageError(f"params: cannot read {path}", error.strerror or "") from error
