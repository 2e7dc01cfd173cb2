"""Code as a sorted list of path, kind and digest; and back again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import TamperedError, UsageError
from runner.layers import code
from runner.layers.code import CodeFile
from runner.state.digest import Digest, canonical, digest_bytes
from runner.store.store import open_store

names = st.text(st.characters(exclude_characters="/\n\0", exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..", "dvc.lock", "replay.yaml") and not name.endswith((".dvc", ".pyc"))
)


def write(root: Path, path: str, content: bytes = b"x", mode: int = 0o644) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(content)
    (root / path).chmod(mode)


@settings(max_examples=25, deadline=None)
@given(files=st.dictionaries(names, st.tuples(st.binary(max_size=4), st.booleans()), max_size=4))
def test_what_is_restored_is_what_was_observed(tmp_path_factory: pytest.TempPathFactory, files: dict) -> None:
    folder = tmp_path_factory.mktemp("code")
    root, again, store = folder / "root", folder / "again", open_store(folder / ".replay", create=True)
    for name, (content, executable) in files.items():
        write(root, f"sub/{name}", content, 0o755 if executable else 0o644)
    root.mkdir(exist_ok=True)
    observed = code.observe(root, ())
    assert [file.path for file in observed] == sorted(f"sub/{name}" for name in files)
    digest = code.keep(store, root, observed)
    again.mkdir()
    code.restore(store, code.files_of(store, digest), again)
    assert code.observe(again, ()) == observed


def test_kinds_and_digests(tmp_path: Path) -> None:
    write(tmp_path, "plain", b"a")
    write(tmp_path, "tool", b"a", 0o755)
    (tmp_path / "link").symlink_to("plain")
    a = digest_bytes(b"a")
    assert code.observe(tmp_path, ()) == (
        CodeFile("link", "link", digest_bytes(b"plain")),
        CodeFile("plain", "file", a),
        CodeFile("tool", "executable", a),
    )


def test_owned_paths_cover_folders_and_not_their_namesakes(tmp_path: Path) -> None:
    for path in ("out/deep/a", "outer", "out.txt", "sub/out"):
        write(tmp_path, path)
    assert [file.path for file in code.observe(tmp_path, {"out"})] == ["out.txt", "outer", "sub/out"]


def test_what_other_layers_own_is_left_out_wherever_it_lies(tmp_path: Path) -> None:
    owned = [
        "replay.yaml",
        "dvc.lock",
        "sub/dvc.lock",
        "a.dvc",
        ".dvcignore",
        "state_specs/a.yaml",
        ".replay/x",
        "r.replay.tar",
    ]
    for path in [*owned, "sub/.git/x", "sub/__pycache__/m.pyc", "sub/.dvc/config"]:
        write(tmp_path, path)
    for path in ("sub/replay.yaml", "sub/state_specs/a", "dvc.yaml", "kept"):
        write(tmp_path, path)
    assert [file.path for file in code.observe(tmp_path, ())] == [
        "dvc.yaml",
        "kept",
        "sub/replay.yaml",
        "sub/state_specs/a",
    ]


@pytest.mark.parametrize("target", ["/etc/passwd", "..", "../x", "a/../../x"])
def test_links_that_leave_the_workspace(tmp_path: Path, target: str) -> None:
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(UsageError, match="outside the workspace"):
        code.observe(tmp_path, ())


def test_a_file_that_changes_while_it_is_kept_is_an_error(tmp_path: Path) -> None:
    store = open_store(tmp_path / ".replay", create=True)
    write(tmp_path, "a", b"before")
    observed = code.observe(tmp_path, {".replay"})
    write(tmp_path, "a", b"after")
    with pytest.raises(UsageError, match="changed while"):
        code.keep(store, tmp_path, observed)


@pytest.mark.parametrize("path", ["../a", "/a", "b/../../a", ""])
def test_a_recorded_list_cannot_write_elsewhere(tmp_path: Path, path: str) -> None:
    store = open_store(tmp_path / ".replay", create=True)
    digest = store.blobs.put_bytes(canonical((CodeFile(path, "file", digest_bytes(b"")),)))
    with pytest.raises(TamperedError):
        code.files_of(store, Digest(digest))


@pytest.mark.parametrize(
    ("path", "reserved"),
    [
        ("replay.yaml", True),
        (".git/hooks/x", True),
        ("a/.dvc", True),
        (".replay", True),
        ("state_specs/a", True),
        ("a/state_specs", False),
        ("a/replay.yaml", False),
        (".gitignore", False),
        ("out", False),
    ],
)
def test_reserved_paths(path: str, reserved: bool) -> None:
    assert code.is_reserved(path) is reserved


def test_the_order_does_not_follow_the_locale(tmp_path: Path) -> None:
    for name in ("b", "B", "a", "ä", "_", "Z"):
        write(tmp_path, name)
    assert [file.path for file in code.observe(tmp_path, ())] == ["B", "Z", "_", "a", "b", "ä"]
    assert os.path.exists(tmp_path / "ä")
