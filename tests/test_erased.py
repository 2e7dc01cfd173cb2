"""What was erased is refused as data of a new run, and no copy of it stays."""

from __future__ import annotations

import hashlib
import shutil
from functools import partial
from pathlib import Path

import pytest

from runner.erase import erase, find
from runner.erased import refuse_erased
from runner.errors import RefusedError
from runner.layers import data
from tests.attest.made import Signed

ERASED, OTHER = b"name\nJane Doe\n", b"name\n"


@pytest.fixture
def made(trusted: Signed) -> Signed:
    """A workspace where a run's output was erased."""
    run = trusted.run("train-20261121-erased", outputs={"out.csv": ERASED})
    erase(trusted.workspace, find(trusted.workspace, run, "out.csv", logs=False), "by request", trusted.sealer)
    return trusted


def add(root: Path, name: str, content: bytes) -> None:
    """As `dvc add` does."""
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    kept = root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(content)
    (root / ".dvc" / "config").touch()
    (root / f"{name}.dvc").write_text(f"outs:\n- md5: {md5}\n  size: {len(content)}\n  hash: md5\n  path: {name}\n")


def copies(made: Signed) -> list[Path]:
    files = (path for path in made.store.folder.rglob("*") if path.is_file())
    return [path for path in files if path.read_bytes() == ERASED]


@pytest.mark.parametrize("live", [ERASED, OTHER, None], ids=["as it was", "edited since", "gone"])
def test_data_that_was_erased_is_in_neither_store_nor_view(made: Signed, live: bytes | None) -> None:
    allow = partial(refuse_erased, made.store, made.workspace.specs)
    for name, content in (("people.csv", ERASED), ("other.csv", OTHER)):
        add(made.root, name, content)
    if live is not None:
        (made.root / "people.csv").write_bytes(live)
    for _ in range(2):
        with pytest.raises(RefusedError, match=r"people\.csv holds what was erased here as out\.csv"):
            data.observe(made.store, made.root, "people.csv", allow)
        assert copies(made) == []
    _, version, _ = data.observe(made.store, made.root, "other.csv", allow)
    assert data.available(made.store, version.digest) and data.has_view(made.store, version.digest)


def test_data_that_was_erased_from_dvc_too_is_not_called_lost(made: Signed) -> None:
    allow = partial(refuse_erased, made.store, made.workspace.specs)
    add(made.root, "people.csv", ERASED)
    with pytest.raises(RefusedError):
        data.observe(made.store, made.root, "people.csv", allow)
    shutil.rmtree(made.root / ".dvc" / "cache")
    with pytest.raises(RefusedError, match="what was erased here"):
        data.observe(made.store, made.root, "people.csv", allow)


def test_a_model_that_was_erased_is_not_kept(made: Signed) -> None:
    allow = partial(refuse_erased, made.store, made.workspace.specs)
    (made.root / "m.bin").write_bytes(ERASED)
    with pytest.raises(RefusedError):
        data.observe_model(made.store, made.root, "m.bin", None, allow)
    assert copies(made) == []
