"""Releases as files: what is there is found, what does not fit is refused, and fsck knows."""

from __future__ import annotations

import warnings
from pathlib import Path

import msgspec
import pytest

from runner.errors import ReplayWarning, TamperedError, UsageError
from runner.fsck.check import check
from runner.keys import Keyring
from runner.state.digest import digest_bytes
from runner.state.strict import dump_release, load_release
from runner.store.releases import is_release_name
from tests.attest.made import Signed

RUN, OTHER = "train-20261121-first1", "train-20261121-other1"


@pytest.fixture
def made(tmp_path: Path) -> Signed:
    made = Signed(tmp_path / "work")
    made.run(RUN)
    made.run(OTHER)
    made.release("prod", RUN)
    return made


def flaws(made: Signed) -> list[tuple[str, str]]:
    health = check(made.workspace, lambda _: None, repair=False)
    return [(one.path, one.problem) for one in health.findings if one.kind == "release" or one.problem == "stray"]


def test_a_release_in_one_place_only_is_known_and_no_flaw(made: Signed) -> None:
    for place in made.release_files("prod", "release.yaml"):
        kept = {file: file.read_bytes() for file in place.parent.iterdir()}
        for file in kept:
            file.unlink()
        place.parent.rmdir()
        assert made.workspace.releases.find("prod").release.run == RUN
        assert made.workspace.releases.names() == ["prod"] and not flaws(made)
        place.parent.mkdir()
        for file, data in kept.items():
            file.write_bytes(data)
    assert not flaws(made)


def test_fsck_brings_back_a_statement_that_was_removed_and_tells_of_one_that_was_edited(made: Signed) -> None:
    made.revoke("prod")
    reviewed, kept = made.release_files("prod", "revoked.yaml")
    for file, path in ((reviewed, "state_specs/releases/prod/revoked.yaml"), (kept, "releases/prod/revoked.yaml")):
        data = file.read_bytes()
        file.unlink()
        assert flaws(made) == [(path, "missing")]
        assert made.workspace.releases.find("prod").status == "revoked"
        assert check(made.workspace, lambda _: None, repair=True).whole
        assert file.read_bytes() == data
    kept.write_bytes(data + b"\n")
    assert flaws(made) == [("state_specs/releases/prod/revoked.yaml", "damaged")]
    with pytest.raises(TamperedError, match="is not what the store keeps"):
        made.workspace.releases.find("prod")


def test_a_statement_about_another_is_refused(made: Signed) -> None:
    made.release("next", OTHER)
    made.revoke("next")
    for source, target in zip(
        made.release_files("next", "revoked.yaml"), made.release_files("prod", "revoked.yaml"), strict=True
    ):
        target.write_bytes(source.read_bytes())
    with pytest.raises(TamperedError, match="not where it belongs"):
        made.workspace.releases.find("prod")
    for source, target in zip(
        made.release_files("next", "release.yaml"), made.release_files("prod", "release.yaml"), strict=True
    ):
        target.write_bytes(source.read_bytes())
    with pytest.raises(TamperedError, match="not where it belongs"):
        made.workspace.releases.find("prod")


@pytest.mark.filterwarnings("ignore:@prod does not verify")
def test_a_run_that_is_not_the_released_one_any_more_is_refused(made: Signed) -> None:
    made.write(RUN, "yaml", made.read(RUN, "yaml") + b"\n")
    with pytest.raises(TamperedError, match="not the one that was released"):
        made.workspace.find_run("@prod")
    for file in made.files(RUN, "yaml"):
        file.unlink()
    with pytest.raises(UsageError, match="is not here"):
        made.workspace.find_run("@prod")


def test_a_name_that_was_made_to_stand_for_another_run_is_warned_of(
    made: Signed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLAY_KEYS", str(tmp_path / "keys"))
    with pytest.warns(ReplayWarning, match="@prod does not verify .untrusted-key"):
        made.workspace.find_run("@prod")
    Keyring(tmp_path / "keys").trust(made.signer.key)
    with warnings.catch_warnings(action="error"):
        assert made.workspace.find_run("@prod").id == RUN
    for file in made.release_files("prod", "release.yaml"):
        release = load_release(file.read_bytes(), "it")
        other = digest_bytes(made.read(OTHER, "yaml"))
        file.write_bytes(dump_release(msgspec.structs.replace(release, run=OTHER, spec_sha256=other)))
    with pytest.warns(ReplayWarning, match="@prod does not verify .wrong-statement"):
        assert made.workspace.find_run("@prod").id == OTHER


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", ".x", "a\n", "a b", "x" * 65, "ä"])
def test_what_is_no_name_is_looked_for_nowhere(made: Signed, name: str) -> None:
    assert not is_release_name(name)
    assert made.workspace.releases.copies(name) == {}
    with pytest.raises(UsageError):
        made.workspace.find_run("@" + name)
