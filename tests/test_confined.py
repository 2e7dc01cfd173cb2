"""A corpus of specs that would lead a replay, or a tool that it runs, elsewhere: each is refused, and for the reason.

They are made by changing one value of a good spec. That good ones pass, every other test shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from runner.confined import refuse_unconfined
from runner.errors import RefusedError, TamperedError
from runner.judge import Ends, Wanted, make_judge
from runner.layers.dependencies import project_of
from runner.own import remember
from runner.state.digest import digest_bytes
from runner.state.record import Record
from runner.state.spec import Dependencies
from runner.state.strict import dump_spec
from runner.tools import git
from runner.trust import Consent, admit
from tests.attest.made import Signed, example, record_for
from tests.strangers import changed

PATHS = {
    "/etc/shadow": "is absolute",
    "../outside": "climbs out",
    "a/../../outside": "climbs out",
    "m.txt/../../../../../../var/run/docker.sock": "climbs out",
    "/var/run/docker.sock": "is absolute",
    ".": "is the workspace itself",
    "a\nb": "control character",
    "a:/etc": "colon",
}
NAMES = ["../../escape", "a/b", "/tmp/x", "", "a b", "--option", "x" * 90]
DIGEST = "sha256:" + "0" * 64
STAGE = {"name": "one", "command": ["true"]}


class Case(NamedTuple):
    """What is put where, and words of the refusal."""

    name: str
    change: Callable[[dict[str, Any]], Any]
    said: str


def put(value: Any, *place: str) -> Callable[[dict[str, Any]], Any]:
    def change(tree: dict[str, Any]) -> None:
        for key in place[:-1]:
            tree = tree.setdefault(key, {})
        tree[place[-1]] = value

    return change


def staged(key: str, path: str) -> Callable[[dict[str, Any]], Any]:
    def change(tree: dict[str, Any]) -> None:
        del tree["state"]["command"]
        tree["state"]["stages"] = [STAGE | {key: [path]}]

    return change


def of_paths() -> Iterator[Case]:
    for path, said in PATHS.items():
        check = {"name": "c", "on": path, "when": "before", "metrics": {"a": "> 0"}}
        for where, change in {
            "state.data": put({path: DIGEST}, "state", "data"),
            "state.model": put({path: DIGEST}, "state", "model"),
            "state.params.file": put({"file": path, "sha256": DIGEST}, "state", "params"),
            "state.stages.one.deps": staged("deps", path),
            "state.stages.one.outs": staged("outs", path),
            "contract.outputs": put({path: {}}, "contract", "outputs"),
            "contract.checks.on": put([check], "contract", "checks"),
            "observed.image.folder": put(path, "observed", "image", "folder"),
        }.items():
            yield Case(f"{where} {path}", change, f"{where}.*{said}")


def of_names() -> Iterator[Case]:
    for name in NAMES:
        yield Case(f"job {name!r}", put(name, "run", "job"), "run.job")
    for name in ("A=B", "A\0", "1A", "A B", "", "A\nB", "é"):
        yield Case(f"variable {name!r}", put({name: "x"}, "state", "env"), "state.env")
        yield Case(f"secret {name!r}", put([name], "state", "secrets"), "state.secrets")
    for name in ("--output=/tmp/x", "HEAD", "main", "a" * 39, "A" * 40, "a" * 40 + "\n"):
        yield Case(f"commit {name!r}", put(name, "observed", "code", "commit"), "observed.code.commit")
    for name in ("../../../etc/passwd", "0" * 31, "0" * 32 + ".dir/..", "--all", ""):
        pin = {"d.csv": {"dvc": {"md5": name}}}
        yield Case(f"md5 {name!r}", put(pin, "observed", "data"), r"observed.data.d.csv.dvc.md5")
        yield Case(f"model's md5 {name!r}", put(pin, "observed", "model"), r"observed.model.d.csv.dvc.md5")
    wheel = {"name": "a", "version": "1", "wheel": "a-1-py3-none-any.whl", "sha256": DIGEST}
    for key in ("name", "version", "wheel"):
        for value in ("--index-url=http://x", "1\n--index-url http://x", "../a", "1 ; x", ""):
            locked = put([wheel | {key: value}], "state", "dependencies", "locked")
            yield Case(f"wheel's {key} {value!r}", locked, f"state.dependencies.locked.{key}")


def of_images() -> Iterator[Case]:
    for value in ("../containers/json", "/etc", "--privileged", "a b", "x?all=1", "a/../../info", "", "x\n"):
        if value:
            yield Case(f"config {value!r}", put(value, "observed", "image", "config"), "observed.image.config")
            reference = put({"reference": value, "folder": None}, "observed", "image")
            yield Case(f"reference {value!r}", reference, "observed.image.reference")
        digests = put([value], "observed", "image", "repo_digests")
        yield Case(f"repo digest {value!r}", digests, "observed.image.repo_digests")
    for value in ("python:3.11", "python@sha256:00", "python:3.11@sha256:" + "0" * 63):
        digests = put([value], "observed", "image", "repo_digests")
        yield Case(f"repo digest {value!r}", digests, "observed.image.repo_digests")
    for value in ("linux", "linux/amd64 --x", "../linux/amd64", ""):
        yield Case(f"platform {value!r}", put(value, "state", "image", "platform"), "state.image.platform")


def of_limits() -> Iterator[Case]:
    for name in ("memory", "cpus", "gpus", "shm", "disk", "processes", "time"):
        yield Case(f"{name} -1", put(-1, "state", "access", "limits", name), f"limits.{name}")
        if name != "gpus":
            yield Case(f"{name} 0", put(0, "state", "access", "limits", name), f"limits.{name}")


CASES = [*of_paths(), *of_names(), *of_images(), *of_limits()]


@pytest.mark.parametrize("case", CASES, ids=[case.name.replace("\0", "NUL") for case in CASES])
def test_what_leads_elsewhere_is_refused(case: Case) -> None:
    with pytest.raises(RefusedError) as refused:
        refuse_unconfined(changed(example(), case.change))
    told = f"{refused.value.what} {refused.value.why}"
    assert re.search(case.said, told, re.DOTALL), told
    assert "no option allows it" in refused.value.next


def test_the_corpus_is_as_large_as_it_says() -> None:
    assert len(CASES) >= 150 and len({case.name for case in CASES}) == len(CASES)


def test_what_is_good_is_let_through() -> None:
    refuse_unconfined(example())


def test_neither_trust_nor_a_signature_nor_its_being_known_helps(signed: Signed) -> None:
    run = signed.run("train-20261121-first1")
    spec, record = run.spec_and_record()
    assert record
    bad = changed(spec, put("/etc", "state", "params", "file"))
    assert isinstance(record, Record)
    data = dump_spec(bad)
    remember(digest_bytes(data))
    bound = msgspec.structs.replace(record_for(bad, data, {}, replay=False), run_id=run.id)
    with pytest.raises(RefusedError, match=r"state\.params\.file"):
        admit(signed.workspace, run, bad, bound, Consent(trust=True))


def test_the_projects_description_is_read_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "private.toml").write_text("[project]\nname = 'private'\n")
    workspace = tmp_path / "work"
    workspace.mkdir()
    (workspace / "pyproject.toml").symlink_to("../private.toml")
    with pytest.raises(TamperedError, match="leads out"):
        project_of(Dependencies(project=True), workspace)


def test_a_judge_is_given_no_output_outside_its_folder(signed: Signed) -> None:
    run = signed.run("train-20261121-first1", outputs={"out.txt": b"x"})
    record = run.record()
    assert record
    (output,) = record.outputs
    bad = msgspec.structs.replace(record, outputs=(msgspec.structs.replace(output, path="../../escaped"),))
    ends = Ends(signed.store, run, record, run, record, {})
    judge = make_judge(Wanted(command="true"), ends, lambda *_: 0)
    with pytest.raises(TamperedError) as refused:
        judge(run, bad)
    assert "leads outside" in refused.value.why


def test_git_is_asked_for_nothing_but_commits(tmp_path: Path) -> None:
    """`git log` and `rev-list` would write to the file of an `--output`."""
    target = tmp_path / "written"
    assert git.content(tmp_path, f"--output={target}", "a") is None
    assert git.first_parents(tmp_path, f"--output={target}", "a" * 40) == []
    assert list(tmp_path.iterdir()) == []
