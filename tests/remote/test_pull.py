"""What a pull makes of a remote that lost something, or that others wrote to. No engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runner.remote import layout
from runner.remote.layout import INLINE, Shared
from runner.remote.listed import listed_runs
from runner.remote.pull import pull
from runner.remote.push import push
from runner.state.digest import digest_bytes
from runner.state.travel import Travel
from runner.tools.remote_fs import LocalRemote
from runner.workspace import Workspace, open_workspace
from tests.attest import made
from tests.attest.made import Signed

RUN = "train-20261121-aaaaaa"
LONG = b"x" * (2 * INLINE)


@pytest.fixture
def remote(signed: Signed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalRemote:
    """A folder with one run, whose log is a blob of its own."""
    monkeypatch.setattr(made, "LOGS", made.LOGS | {"stdout": LONG})
    signed.run(RUN, outputs={"out.txt": b"Jane\n"})
    found = LocalRemote("share", str(tmp_path / "remote"))
    assert push(signed.workspace, found, [signed.workspace.run(RUN)], lambda _text: None).moved_runs == (RUN,)
    return found


@pytest.fixture
def other(tmp_path: Path) -> Workspace:
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "replay.yaml").write_text("version: 1\njobs: {}\n")
    return open_workspace(folder, folder / ".replay", create=True)


def pulled(other: Workspace, remote: LocalRemote, say: Callable[[str], None] = lambda _text: None) -> Travel:
    return pull(other, remote, listed_runs(remote), say)


def test_a_log_that_the_remote_lost_is_told_and_comes_once_it_is_there(remote: LocalRemote, other: Workspace) -> None:
    place = Path(remote.url, layout.blob_name(digest_bytes(LONG)))
    place.rename(place.with_name("kept"))
    (lost,) = pulled(other, remote).lacking
    assert (lost.kind, lost.name, lost.runs) == ("log", "stdout", (RUN,))
    assert other.run(RUN).record() is not None and not (other.run(RUN).folder / "stdout").exists()
    place.with_name("kept").rename(place)
    assert pulled(other, remote).lacking == ()
    assert (other.run(RUN).folder / "stdout").read_bytes() == LONG


@pytest.mark.parametrize(
    "path",
    [
        "x/.git/config",
        "x/conftest.py",
        f"{RUN}.yaml",
        "releases/prod/conftest.py",
        "releases/release.yaml",
        "releases/.prod/release.yaml",
        "releases/prod/x/release.yaml",
        "erased/x.tlog-proof",
        "keys/conftest.py",
        "keys/0a.pem.py",
        f"erased/{'0' * 64}.tlog-proof.d/conftest.py",
    ],
)
def test_nothing_but_releases_keys_and_tombstones_is_written(remote: LocalRemote, other: Workspace, path: str) -> None:
    shared = layout.encoded(Shared(path, b"x"))
    remote.send_bytes(layout.shared_name(digest_bytes(shared)), shared)
    said: list[str] = []
    specs = other.root / "state_specs"
    assert pulled(other, remote, said.append).statements == ()
    assert any(path in text for text in said)
    assert not (specs / path).is_file() or (specs / path).read_bytes() != b"x"


def test_what_releases_keys_and_tombstones_are_made_of_travels() -> None:
    for path in ("releases/prod-1/release.yaml", "keys/0a.pem", f"erased/{'0' * 64}.tlog-proof"):
        assert layout.is_statement(path)
