"""Releases: a run accepted as a baseline, `@NAME` in the stead of its run-id, and runs that are held to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from runner.state.schemas import schemas
from tests.conftest import Done, Workspace

pytestmark = pytest.mark.engine

JOB = {"command": ["sh", "-c", "cat in.txt > out.txt; echo said"], "outputs": ["out.txt", "stdout"]}
RELEASE_STEPS = ("release", "policy", "revocation")


@pytest.fixture
def signing(workspace: Workspace, shell_image: str) -> Workspace:
    """A workspace with a key that signs, and a job."""
    workspace.write("in.txt", "hello\n")
    workspace.jobs(t=JOB | {"image": shell_image})
    workspace.job = JOB | {"image": shell_image}  # type: ignore[attr-defined]
    assert workspace.replay("keys", "init", "--plain", "--json").code == 0
    return workspace


def release(workspace: Workspace, name: str, run_id: str, *options: str) -> dict[str, Any]:
    done = workspace.replay("release", "create", name, run_id, "--reason", "it is right", *options, "--json")
    assert done.code == 0, done
    assert jsonschema_rs.is_valid(schemas()["release-written"], done.json)
    found: dict[str, Any] = done.json["release"]
    return found


def steps(found: dict[str, Any]) -> dict[str, str]:
    """What came of the steps about releases, by their reason."""
    return {check["name"]: check["reason"] for check in found["checks"] if check["name"] in RELEASE_STEPS}


def test_a_release_stands_for_its_run_and_a_run_that_deviates_is_refused_before_it_starts(signing: Workspace) -> None:
    run_id = signing.run("t")["run_id"]
    made = release(signing, "prod-1", run_id, "--accepted-by", "Ada")
    assert made["signed"] and made["status"] == "current" and made["run_id"] == run_id
    folder = signing.root / "state_specs" / "releases" / "prod-1"
    assert sorted(file.name for file in folder.iterdir()) == [
        "release.sigstore.json",
        "release.tlog-proof",
        "release.yaml",
    ]

    replayed = signing.replay("@prod-1", "--json")
    assert replayed.code == 0 and replayed.json["replay_of"] == run_id, replayed
    verified = signing.replay("verify", "@prod-1", "--json")
    assert verified.code == 0 and steps(verified.json) == dict.fromkeys(RELEASE_STEPS, "ok"), verified

    held = signing.run("t", "--release", "prod-1")
    assert held["release"]["name"] == "prod-1" and "deviations" not in held["release"]
    verified = signing.replay("verify", held["run_id"], "--json")
    assert verified.code == 0 and steps(verified.json) == dict.fromkeys(RELEASE_STEPS, "ok"), verified

    signing.write("in.txt", "other\n")
    refused = signing.replay("run", "t", "--release", "@prod-1", "--json")
    assert refused.code == 6 and refused.json["ending"] == "refused" and refused.json["outputs"] == [], refused
    (deviation,) = refused.json["release"]["deviations"]
    assert (deviation["layer"], deviation["name"]) == ("code", "in.txt")
    verified = signing.replay("verify", refused.json["run_id"], "--json")
    assert verified.code == 0 and steps(verified.json) == dict.fromkeys(RELEASE_STEPS, "ok"), verified
    told = signing.replay("run", "t", "--release", "prod-1")
    assert told.code == 6 and "code  in.txt" in told.out and told.out.startswith("refused"), told
    assert signing.replay("replay", refused.json["run_id"]).code == 2


def test_a_release_is_checked_against_the_present_and_against_a_run(signing: Workspace) -> None:
    first = signing.run("t")["run_id"]
    release(signing, "prod-1", first, "--may-move", "code")
    for part in ((), (".",), (first,)):
        done = signing.replay("release", "check", "prod-1", *part, "--json")
        assert done.code == 0 and done.json["equal"] and done.json["allowed"], done
        assert jsonschema_rs.is_valid(schemas()["release-check"], done.json)
    assert signing.replay("release", "check", "prod-1").out == "yes: @prod-1 would run here now, unchanged\n"

    signing.write("in.txt", "other\n")
    done = signing.replay("release", "check", "@prod-1", ".", "--json")
    assert done.code == 1 and done.json["allowed"] and not done.json["equal"], done
    assert [(one["layer"], one["name"]) for one in done.json["deviations"]] == [("code", "in.txt")]
    second = signing.run("t", "--release", "prod-1")["run_id"]
    done = signing.replay("release", "check", "prod-1", second, "--json")
    assert done.code == 1 and done.json["verdict"] == "diverged", done
    assert signing.replay("verify", second).code == 0

    signing.jobs(
        t=signing.job | {"env": {"MODE": "other"}, "outputs": {"out.txt": {"compare": "text"}, "stdout": None}}
    )
    done = signing.replay("release", "check", "prod-1", "--json")
    assert done.code == 6 and {one["layer"] for one in done.json["deviations"]} == {"code", "env", "contract"}, done


def test_a_pin_that_is_not_here_is_named_without_an_engine(signing: Workspace) -> None:
    made = signing.run("t")
    release(signing, "prod-1", made["run_id"])
    spec = signing.replay("show", made["run_id"], "--json").json["spec"]
    signing.blob(spec["state"]["code"]).unlink()
    done = signing.replay("release", "check", "prod-1", "--json")
    assert done.code == 3 and [pin["layer"] for pin in done.json["pins"] if not pin["here"]] == ["code"], done
    away = signing.replay("release", "check", "prod-1", "--json", DOCKER_HOST="unix:///nowhere")
    assert away.code == 3 and set(away.json["unknown"]) >= {"image"}, away


def test_what_a_run_would_lack_is_told_beforehand(signing: Workspace) -> None:
    signing.jobs(t=signing.job | {"secrets": {"KEY": "env:MY_KEY"}, "sources": ["feed"]})
    signing.write(".gitignore", "feed\n")
    signing.write("feed", "x")
    signing.git("init", "-q")
    release(signing, "prod-1", signing.run("t", MY_KEY="s3cr3t-Zq8w")["run_id"])
    assert signing.replay("release", "check", "prod-1", MY_KEY="s3cr3t-Zq8w").code == 0

    assert signing.replay("run", "t", "--release", "prod-1").code == 2
    unset = signing.replay("release", "check", "prod-1")
    assert unset.code == 1 and unset.out.splitlines() == [
        "no: KEY cannot be read here",
        "  access  secret KEY: the variable MY_KEY is not set",
    ], unset
    (signing.root / "feed").unlink()
    gone = signing.replay("release", "check", "prod-1", ".", "--json", MY_KEY="s3cr3t-Zq8w")
    assert gone.code == 1 and not gone.json["equal"] and list(gone.json["unreadable"]) == ["feed"], gone
    assert jsonschema_rs.is_valid(schemas()["release-check"], gone.json)


def test_what_a_policy_lets_is_warned_of_and_what_was_loosened_by_hand_does_not_verify(signing: Workspace) -> None:
    first = signing.run("t")["run_id"]
    release(signing, "strict", first)
    release(signing, "lenient", first, "--policy", "warn")
    signing.write("in.txt", "other\n")
    assert signing.replay("run", "t", "--release", "strict").code == 6
    warned = signing.replay("run", "t", "--release", "lenient", "--json")
    assert warned.code == 0 and "warning:" in warned.err and "code" in warned.err, warned
    assert signing.replay("verify", warned.json["run_id"]).code == 0
    loosened = signing.replay("run", "t", "--release", "strict", "--policy", "warn", "--json")
    assert loosened.code == 0 and loosened.json["release"]["policy"]["deviation"] == "warn"
    done = signing.replay("verify", loosened.json["run_id"], "--json")
    assert done.code == 5 and steps(done.json)["policy"] == "deviates", done
    assert signing.replay("run", "t", "--release", "lenient", "--policy", "refuse").code == 6
    assert signing.replay("run", "t", "--policy", "warn").code == 2
    assert signing.replay("run", "t", "--release", "nope").code == 2


def test_a_revoked_release_is_told_wherever_it_is_used_and_nothing_runs_under_it(signing: Workspace) -> None:
    first = signing.run("t")["run_id"]
    release(signing, "old", first)
    release(signing, "new", first)
    held = signing.run("t", "--release", "old")["run_id"]
    done = signing.replay("release", "supersede", "old", "--by", "@new", "--reason", "newer data", "--json")
    assert done.code == 0 and done.json["release"]["status"] == "superseded", done
    assert done.json["release"]["superseded_by"] == "new"
    verified = signing.replay("verify", held, "--json")
    assert verified.code == 0 and "superseded by new" in verified.out
    assert signing.replay("release", "supersede", "old", "--by", "new", "--reason", "again").code == 2
    before = (signing.root / "state_specs" / "releases" / "old" / "release.yaml").read_bytes()

    assert signing.replay("release", "revoke", "old", "--reason", "leaked\x1b[31m labels").code == 0
    assert (signing.root / "state_specs" / "releases" / "old" / "release.yaml").read_bytes() == before
    for words in (("show", "@old"), ("diff", "@old", "@new"), ("outputs", "@old"), ("replay", held, "-q")):
        told = signing.replay(*words)
        assert told.code == 0 and "warning: @old was revoked by" in told.err and "\x1b" not in told.err, told
    for one in (held, "@old"):
        verified = signing.replay("verify", one, "--json")
        assert verified.code == 5 and steps(verified.json)["revocation"] == "revoked", verified
    assert signing.replay("verify", "@new").code == 0
    refused = signing.replay("run", "t", "--release", "old", "--json")
    assert refused.code == 6 and refused.json["release"]["refused"] == "revoked", refused
    assert signing.replay("release", "check", "old").code == 6
    listing, shown = (
        signing.replay("release", "list", "--json").json,
        signing.replay("release", "show", "old", "--json"),
    )
    assert jsonschema_rs.is_valid(schemas()["release-list"], listing)
    assert jsonschema_rs.is_valid(schemas()["release-show"], shown.json)
    listed = listing["releases"]
    assert [(one["name"], one["status"]) for one in listed] == [("new", "current"), ("old", "revoked")]

    gone = signing.root / "state_specs" / "releases" / "old"
    for file in (*gone.glob("revoked.*"), *(signing.store / "releases" / "old").glob("revoked.*")):
        file.unlink()
    verified = signing.replay("verify", held, "--json")
    assert verified.code == 5 and steps(verified.json)["revocation"] == "revocation-removed", verified
    for command in (
        ["run", "t", "--release", "old"],
        ["release", "check", "old", held],
        ["release", "list"],
        ["audit", "@old"],
    ):
        done = signing.replay(*command)
        assert done.code == 5 and "@old was revoked" in done.err and "restore state_specs/" in done.err, done
    assert "revoked.yaml" in signing.replay("fsck").out


def test_a_release_that_was_changed_is_told_in_lists_and_hides_no_other(signing: Workspace, tmp_path: Path) -> None:
    signing.git("init", "-q")
    signing.write(".gitignore", ".replay\n")
    for name in ("forged", "good", "moved"):
        release(signing, name, signing.run("t")["run_id"])
    signing.commit("all")
    root = tmp_path / "there" / "other"
    signing.git("clone", "-q", str(signing.root), str(root))
    other = Workspace(root)

    def listed(code: int) -> dict[str, str]:
        done = other.replay("release", "list", "--json")
        assert done.code == code and jsonschema_rs.is_valid(schemas()["release-list"], done.json), done
        return {one["name"]: one.get("doubt", "") for one in done.json["releases"]}

    forged = root / "state_specs" / "releases" / "forged" / "release.yaml"
    forged.write_text(forged.read_text().replace("it is right", "it is wrong"))
    untrusting = listed(5)
    assert untrusting == {"forged": "wrong-statement", "good": "untrusted-key", "moved": "untrusted-key"}
    (key,) = (root / "state_specs" / "keys").iterdir()
    assert other.replay("keys", "trust", str(key)).code == 0
    assert listed(5) == {"forged": "wrong-statement", "good": "", "moved": ""}
    shown = other.replay("release", "show", "forged")
    assert shown.code == 5 and "not verified: wrong-statement" in shown.out and "current" not in shown.out, shown
    assert other.replay("release", "show", "good").code == 0

    moved = root / "state_specs" / "releases" / "moved" / "release.yaml"
    moved.write_bytes((root / "state_specs" / "releases" / "good" / "release.yaml").read_bytes())
    assert listed(5) == {"forged": "wrong-statement", "good": ""}
    told = other.replay("release", "list")
    assert told.code == 5 and "@good" in told.out and f"error: {moved} is not where it belongs" in told.err, told


def test_no_release_takes_the_place_of_one_that_took_its_own_nor_is_followed_by_a_revoked_one(
    signing: Workspace,
) -> None:
    run_id = signing.run("t")["run_id"]
    for name in ("a", "b", "c", "d"):
        release(signing, name, run_id)

    def superseded(name: str, by: str) -> Done:
        return signing.replay("release", "supersede", name, "--by", by, "--reason", "newer")

    assert superseded("a", "b").code == superseded("b", "c").code == 0
    circle = superseded("c", "a")
    assert circle.code == 2 and "@c cannot be superseded by @a" in circle.err, circle
    assert "superseded by @b, then by @c" in circle.err, circle
    assert signing.replay("release", "revoke", "d", "--reason", "leaked").code == 0
    revoked = superseded("c", "d")
    assert revoked.code == 2 and "revoked by" in revoked.err and "leaked" in revoked.err, revoked
    assert not list((signing.root / "state_specs" / "releases" / "c").glob("superseded.*"))


def test_the_run_of_a_release_is_not_forgotten_by_mistake(signing: Workspace) -> None:
    run_id = signing.run("t")["run_id"]
    release(signing, "prod-1", run_id)
    for part in (run_id, "@prod-1"):
        done = signing.replay("rm", part)
        assert done.code == 6 and "@prod-1" in done.err, done
    assert signing.replay("gc").code == 0
    assert signing.replay("verify", "@prod-1").code == 0
    assert signing.replay("show", run_id, "--json").json["released_as"] == ["prod-1"]
    assert signing.replay("rm", run_id, "--force").code == 0
    done = signing.replay("@prod-1")
    assert done.code == 2 and "is not here" in done.err, done


def test_releases_differ_in_states_and_in_what_they_accept(signing: Workspace) -> None:
    release(signing, "a", signing.run("t")["run_id"])
    signing.write("in.txt", "other\n")
    signing.jobs(t=signing.job | {"outputs": {"out.txt": {"compare": "text"}, "stdout": None}})
    release(signing, "b", signing.run("t")["run_id"], "--policy", "warn")
    done = signing.replay("release", "diff", "a", "b", "--json")
    assert done.code == 1 and done.json["policy"]["b"]["deviation"] == "warn", done
    assert [one["name"] for one in done.json["changes"]] == ["in.txt"]
    assert [one["name"] for one in done.json["contract"]] == ['outputs."out.txt".compare']
    assert signing.replay("release", "diff", "a", "a").code == 0


def test_without_a_key_a_release_is_unsigned_and_everybody_sees_it(workspace: Workspace, shell_image: str) -> None:
    workspace.write("in.txt", "hello\n")
    workspace.jobs(t=JOB | {"image": shell_image})
    run_id = workspace.run("t")["run_id"]
    assert release(workspace, "prod-1", run_id)["signed"] is False
    assert "not signed" in workspace.replay("release", "list").out
    held = workspace.replay("run", "t", "--release", "prod-1")
    assert held.code == 0 and "warning: @prod-1 is not signed" in held.err, held
    done = workspace.replay("verify", "@prod-1", "--json")
    assert done.code == 5 and steps(done.json)["release"] == "unsigned", done


def test_names_and_runs_that_cannot_be_released_are_refused(signing: Workspace) -> None:
    run_id = signing.run("t")["run_id"]
    release(signing, "prod-1", run_id)
    create = ("release", "create")
    assert signing.replay(*create, "prod-1", run_id, "--reason", "again").code == 2
    assert signing.replay(*create, "../x", run_id, "--reason", "x").code == 2
    assert signing.replay(*create, "x", run_id, "--reason", " ").code == 2
    assert signing.replay(*create, "x", run_id, "--reason", "x", "--may-move", "all").code == 2
    assert signing.replay(*create, "x", "@prod-2", "--reason", "x").code == 2
    signing.jobs(t=signing.job | {"command": ["sh", "-c", "exit 3"]})
    failed = signing.replay("run", "t", "--json").json["run_id"]
    assert "did not end well" in signing.replay(*create, "x", failed, "--reason", "x").err
    assert "did you mean @prod-1" in signing.replay("show", "@prod1").err


def test_a_release_goes_into_the_bundle_of_its_runs(signing: Workspace, tmp_path: Path) -> None:
    run_id = signing.run("t")["run_id"]
    release(signing, "prod-1", run_id)
    held = signing.run("t", "--release", "prod-1")["run_id"]
    (key,) = (signing.root / "state_specs" / "keys").iterdir()
    for number, one in enumerate(("@prod-1", held)):
        bundle = tmp_path / f"{number}.replay.tar"
        assert signing.replay("bundle", one, "--to", str(bundle)).code == 0
        done = signing.replay("verify", str(bundle), "--key", str(key), "--json")
        assert done.code == 0 and steps(done.json) == dict.fromkeys(RELEASE_STEPS, "ok"), done
        assert signing.replay("verify", one).code == 0


def test_an_audit_tells_on_one_page_what_ran_under_a_release_and_what_was_refused(signing: Workspace) -> None:
    hostile = "![x](http://evil)<script>|`@all`\n# No\x1b[31m"
    signing.jobs(t=signing.job | {"env": {"ZONE": "eu"}})
    first = signing.run("t")["run_id"]
    done = signing.replay("release", "create", "prod-1", first, "--reason", hostile, "--accepted-by", "Ada <a@b>")
    assert done.code == 0, done
    held = signing.run("t", "--release", "prod-1")["run_id"]
    replayed = signing.replay("@prod-1", "--json").json["run_id"]
    of_held = signing.replay(held, "--json").json["run_id"]
    signing.write("in.txt", "other\n")
    signing.write("_[a](b)|c.txt", "x\n")
    refused = signing.replay("run", "t", "--release", "prod-1", "--json").json["run_id"]

    found = signing.replay("audit", "@prod-1", "--json")
    assert found.code == 0, found
    assert jsonschema_rs.is_valid(schemas()["audit"], found.json)
    runs = {one["run_id"]: (one["tie"], one["verdict"]) for one in found.json["runs"]}
    assert runs == {
        held: ("bound", "identical"),
        replayed: ("replay", "identical"),
        of_held: ("replay of a bound run", "identical"),
    }
    (one,) = found.json["refused"]
    assert one["run_id"] == refused and {each["name"] for each in one["deviations"]} == {"_[a](b)|c.txt", "in.txt"}
    assert {each["layer"] for each in found.json["conditions"]} == set(found.json["release"]["layers"])

    page = signing.replay("audit", "prod-1")
    assert page.code == 0 and "3 runs: 3 agreed, 0 did not" in page.out, page
    assert f"| `{refused}` |" in page.out and "ZONE=eu<br>" in page.out, "what was declared comes first"
    for bad in ("<script", "[x](", "[a](", "@all", "http://evil", "\x1b", "\n# No"):
        assert bad not in page.out.replace("\\\n", ""), bad
    assert signing.replay("audit", "prod-1", "--output", "audit.md").code == 0
    assert (signing.root / "audit.md").read_text() == page.out
    assert signing.replay("audit", "prod-1", "--output", "audit.md").code == 2

    assert signing.replay("release", "revoke", "prod-1", "--reason", "wrong").code == 0
    told = signing.replay("audit", "prod-1")
    assert told.code == 5 and "It was revoked and must not be used" in told.out, told


def test_a_release_is_a_baseline_of_drift(signing: Workspace) -> None:
    signing.write("in.txt", "v\n" + "".join(f"{number}\n" for number in range(100)))
    job = signing.job | {"command": ["cp", "in.txt", "out.csv"], "outputs": ["out.csv"]}
    signing.jobs(t=job)
    first = signing.run("t")["run_id"]
    release(signing, "base", first)
    signing.jobs(t=job | {"checks": [{"name": "as released", "on": "out.csv", "drift": "@base"}]})
    assert signing.run("t")["checks"][0]["result"] == "pass"
    signing.write("in.txt", "v\n" + "".join(f"{number + 500}\n" for number in range(100)))
    moved = signing.replay("run", "t", "--json")
    assert moved.code == 6 and first in moved.json["checks"][0]["detail"], moved


def test_a_bisect_goes_from_a_release_to_a_bad_run(signing: Workspace) -> None:
    release(signing, "good", signing.run("t")["run_id"])
    signing.write("in.txt", "other\n")
    bad = signing.run("t")["run_id"]
    done = signing.replay("bisect", "@good", bad, "--json", "--quiet")
    assert done.code == 0 and [one["layer"] for one in done.json["cause"]] == ["code"], done
