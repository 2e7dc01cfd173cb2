"""Access drift: a source that was readable and is refused now, a credential that changed. It is told before the job
starts, in the verdict's diagnosis and in differences, without the value of any secret."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.answering import Answering, answering
from tests.conftest import Done, Workspace

pytestmark = pytest.mark.engine

SECRET = "s3cr3t-Zq8w"
OTHER = "0th3r-Kk1x"


@pytest.fixture
def server() -> Iterator[Answering]:
    with answering() as made:
        yield made


@pytest.fixture
def declare(workspace: Workspace, shell_image: str) -> Any:
    def declared(command: str = "echo 1 > out", **more: Any) -> None:
        base = {"command": command, "image": shell_image, "python": None, "outputs": ["out"]}
        workspace.jobs(j=base | more)

    return declared


def nothing_leaked(workspace: Workspace, *done: Done) -> None:
    said = "".join(one.out + one.err for one in done)
    for file in workspace.root.rglob("*"):
        if file.is_file():
            said += file.read_bytes().decode(errors="replace")
    assert SECRET not in said and OTHER not in said


def changes(done: Done) -> dict[tuple[str, str], tuple[Any, Any]]:
    return {(one["layer"], one["name"]): (one.get("a"), one.get("b")) for one in done.json["changes"]}


def test_a_source_that_is_refused_now(declare: Any, workspace: Workspace, server: Answering) -> None:
    sources = [{"uri": server.url, "secret": "KEY"}, "feed"]
    declare("echo started >&2; echo 1 > out", sources=sources, secrets={"KEY": "env:KEY"})
    workspace.write("feed", "x")
    run_id = workspace.run(KEY=SECRET)["run_id"]
    spec = workspace.replay("show", run_id, "--json").json["spec"]
    assert spec["observed"]["access"]["sources"] == [
        {"uri": "feed", "reachable": True, "identity": me(), "status": "a file that can be read"},
        {
            "uri": server.url,
            "reachable": True,
            "identity": "secret KEY",
            "status": "200 OK",
            "secret": "KEY",
        },
    ]
    assert "readable as secret KEY" in workspace.replay("show", run_id).out
    same = workspace.replay("diff", run_id, ".", "--json", KEY=SECRET)
    assert same.code == 0 and same.json["changes"] == [], same

    server.status = 403
    again = workspace.replay("replay", run_id, KEY=SECRET)
    words = f"access: {server.url}: not readable as secret KEY: 403 Forbidden; at the original readable as secret KEY"
    assert again.code == 0 and "IDENTICAL" in again.out, "the job itself needs it not"
    assert words in again.out and "diagnosis" not in again.out, again
    assert again.err.index(words) < again.err.index("started"), "it is told before the job starts"
    present = workspace.replay("diff", run_id, ".", "--json", KEY=SECRET)
    wanted = {("access", server.url): ("readable as secret KEY", "not readable as secret KEY: 403 Forbidden")}
    assert present.code == 1 and changes(present) == wanted and not present.json["equal"], present
    assert present.json["diagnosis"]["kind"] == ["execution state drift"]
    assert present.json["diagnosis"]["evidence"][0].startswith(f"access: {server.url} readable")
    between = workspace.replay("diff", run_id, replays(workspace)[0], "--json")
    assert between.code == 1 and changes(between) == wanted, between
    assert server.url in workspace.replay("diff", run_id, ".", KEY=SECRET).out
    nothing_leaked(workspace, again, present, between)


def test_it_explains_a_job_with_an_open_network_that_fails(
    declare: Any, workspace: Workspace, server: Answering
) -> None:
    """The job stands for one that reads the source: what it does depends on the secret that it has."""
    declare("test ${#KEY} = 11 && echo 1 > out", network="open", sources=[server.url], secrets={"KEY": "env:KEY"})
    run_id = workspace.run(KEY=SECRET)["run_id"]
    server.status = 401
    done = workspace.replay("replay", run_id, "--json", KEY=OTHER)
    assert done.code == 4 and done.json["verdict"] == "failed", done
    assert done.json["diagnosis"]["kind"] == ["execution state drift"]
    assert done.json["diagnosis"]["evidence"] == [
        "access: KEY (the credential changed)",
        f"access: {server.url} readable as anonymous → not readable as anonymous: 401 Unauthorized",
    ]
    assert "credential" in done.json["diagnosis"]["next"][0]
    nothing_leaked(workspace, done)


def test_a_source_explains_nothing_to_a_job_without_network(
    declare: Any, workspace: Workspace, server: Answering
) -> None:
    declare("echo ${#KEY} > out", sources=[server.url], secrets={"KEY": "env:KEY"})
    run_id = workspace.run(KEY=SECRET)["run_id"]
    server.status = 0
    done = workspace.replay("replay", run_id, "--json", KEY=OTHER)
    assert done.json["verdict"] == "diverged", done
    assert done.json["diagnosis"]["evidence"] == ["access: KEY (the credential changed)"]
    assert any(server.url in note for note in done.json["notes"])


def test_a_credential_that_changed(declare: Any, workspace: Workspace) -> None:
    declare("echo ${#KEY} > out", secrets={"KEY": "env:KEY"})
    first, second = (workspace.run(KEY=value)["run_id"] for value in (SECRET, OTHER))
    between = workspace.replay("diff", first, second, "--json")
    assert between.code == 1 and list(changes(between)) == [("access", "KEY")], between
    assert between.json["diagnosis"]["evidence"] == ["access: KEY (the credential changed)"]
    same = workspace.replay("diff", first, ".", "--json", KEY=SECRET)
    assert same.code == 0 and same.json["changes"] == [], same
    present = workspace.replay("diff", first, ".", "--json", KEY=OTHER)
    assert present.code == 1 and list(changes(present)) == [("access", "KEY")], present
    unset = workspace.replay("diff", first, ".", "--json")
    assert unset.code == 1 and list(changes(unset)) == [("access", "KEY")], unset
    assert unset.json["diagnosis"]["evidence"] == ["access: KEY (the credential cannot be read)"]
    again = workspace.replay("replay", first, "--json", KEY=OTHER)
    assert again.code == 1 and again.json["diagnosis"]["evidence"] == ["access: KEY (the credential changed)"], again
    assert "access: KEY: the credential changed" in again.json["notes"]
    nothing_leaked(workspace, between, present, again)


def test_the_key_of_another_store_tells_nothing(declare: Any, workspace: Workspace) -> None:
    declare(secrets={"KEY": "env:KEY"})
    first = workspace.run(KEY=SECRET)["run_id"]
    (workspace.store / "key").unlink()
    second = workspace.run(KEY=OTHER)["run_id"]
    done = workspace.replay("diff", first, second, "--json")
    assert done.code == 0 and done.json["changes"] == [], done


def test_a_source_that_cannot_be_read_at_first_is_said_and_recorded(declare: Any, workspace: Workspace) -> None:
    declare(sources=["gone"])
    done = workspace.replay("run")
    assert done.code == 0 and "access: gone is not readable" in done.err, done


def test_a_dvc_remote_is_a_source(declare: Any, workspace: Workspace) -> None:
    workspace.git("init", "-q")
    workspace.dvc("init")
    remote = workspace.root.parent / "remote"
    remote.mkdir()
    workspace.dvc("remote", "add", "prod", str(remote))
    declare(sources=["dvc:prod"])
    run_id = workspace.run()["run_id"]
    assert workspace.replay("diff", run_id, ".", "--json").json["changes"] == []
    remote.rmdir()
    done = workspace.replay("diff", run_id, ".", "--json")
    assert changes(done)[("access", "dvc:prod")][1] == f"not readable as {me()}: DVC cannot list it", done


@pytest.mark.parametrize("uri", [f"http://u:{SECRET}@127.0.0.1/x", f"http://127.0.0.1/{SECRET}/x"])
def test_a_uri_that_holds_a_credential_is_refused(declare: Any, workspace: Workspace, uri: str) -> None:
    declare(sources=[uri], secrets={"KEY": "env:KEY"})
    done = workspace.replay("run", KEY=SECRET)
    assert done.code == 2 and SECRET not in done.out + done.err, done
    assert not list(workspace.store.glob("runs/*"))


def me() -> str:
    from runner.tools import reach

    return reach.caller()


def replays(workspace: Workspace) -> list[str]:
    found = workspace.replay("ls", "--json").json["runs"]
    return [one["run_id"] for one in found if one.get("replay_of")]
