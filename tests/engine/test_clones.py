"""Clones: what a colleague who has the repository, and nothing of the store, is told and can do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.test_travel import Team, make_team

pytestmark = pytest.mark.engine


@pytest.fixture
def team(shell_image: str, tmp_path: Path) -> Team:
    made = make_team(tmp_path / "work", shell_image, str(tmp_path / "remote"))
    made.remote = tmp_path / "remote"
    made.remote.mkdir()
    return made


def test_a_release_of_a_run_that_only_the_store_has_brings_the_run_for_review(team: Team, tmp_path: Path) -> None:
    apart = team.replay(team.id, "--apart", "--json").json["run_id"]
    assert not team.spec_path(apart).exists()
    made = team.replay("release", "create", "base", apart, "--reason", "it is right")
    assert made.code == 0 and f"{apart}.*: commit them too" in made.out, made
    again = team.replay("release", "create", "again", apart, "--reason", "it is right", "--json")
    assert again.code == 0 and "of_run" not in again.json, again
    team.commit("what there is to review")
    assert team.replay("push", apart).code == 0

    other = team.clone(tmp_path / "there" / "other")
    shown = other.replay("show", "@base", "--json")
    assert shown.code == 0 and shown.json["spec"]["run"]["id"] == apart, shown
    replayed = other.replay("@base", "--trust", "--json")
    assert replayed.code == 0 and replayed.json["verdict"] == "identical", replayed


def signed_base(team: Team) -> Path:
    """The public key of a signed release, `base`, that was pushed and committed."""
    assert team.replay("keys", "init", "--plain").code == 0
    team.id = team.run("t")["run_id"]
    assert team.replay("release", "create", "base", team.id, "--reason", "it is right").code == 0
    team.commit("what there is to review")
    assert team.replay("push", team.id).code == 0
    (key,) = (team.root / "state_specs" / "keys").iterdir()
    return key


def test_what_was_not_fetched_yet_does_not_verify_and_is_told_from_what_was_changed(team: Team, tmp_path: Path) -> None:
    key = str(signed_base(team))
    other = team.clone(tmp_path / "there" / "other")
    for part in ("@base", team.id):
        told = other.replay("verify", part, "--key", key)
        assert told.code == 5 and told.out.endswith(f"next: `replay pull {team.id}`, then verify again\n"), told
    assert other.replay("keys", "trust", key).code == 0
    audit = other.replay("audit", "@base")
    assert audit.code == 5 and "**Not all of it is here: " in audit.out and "**No:" not in audit.out, audit
    assert f"next: `replay pull {team.id}`" in audit.err, audit

    assert other.replay("pull", team.id).code == 0
    assert other.replay("verify", "@base", "--key", key).code == other.replay("audit", "@base").code == 0
    spec = other.spec_path(team.id)
    spec.write_bytes(spec.read_bytes() + b"# edited\n")
    told = other.replay("verify", "@base", "--key", key)
    assert told.code == 5 and "replay pull" not in told.out, told


def test_without_a_remote_what_is_not_here_is_copied_or_bundled(team: Team, tmp_path: Path) -> None:
    team.dvc("remote", "remove", "share")
    assert team.replay("keys", "init", "--plain").code == 0
    signed = team.run("t")["run_id"]
    team.commit("what there is to review")
    other = team.clone(tmp_path / "there" / "other")
    told = other.replay("verify", signed, "--key", str(next((team.root / "state_specs" / "keys").iterdir())))
    assert told.code == 5 and "copy the store" in told.out and "replay bundle" in told.out, told


def test_of_runs_that_git_brought_it_is_told_where_their_files_are(team: Team, tmp_path: Path) -> None:
    unpushed = team.run("t")["run_id"]
    team.commit("what there is to review")
    assert team.replay("push", team.id).code == 0
    other = team.clone(tmp_path / "there" / "other")

    def places() -> dict[str, str]:
        return {one["run_id"]: one["where"] for one in other.replay("status", "--json").json["runs"]}

    assert places() == {team.id: "remote", unpushed: "neither"}
    told = other.replay("status").out
    assert "only here" not in told and "to push: 0 runs, 0 blobs" in told and "to pull: 1 run, and" in told, told
    assert told.endswith(f"next: `replay pull`\nnext: `replay push {unpushed}`, where it was recorded\n"), told

    for part in (unpushed, unpushed[-6:]):
        refused = other.replay("pull", part)
        assert refused.code == 2 and f"does not have {unpushed}" in refused.err, refused
        assert f"`replay push {unpushed}` where it was recorded" in refused.err, refused
    assert "no run is called" in other.replay("pull", "nothing").err
    assert other.replay("pull").code == 0
    assert places() == {team.id: "both", unpushed: "neither"}
    assert "1 run is here and in" in other.replay("status").out
