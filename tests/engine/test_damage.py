"""Damage to the store: every kind of file flipped, cut short or deleted. `fsck` names it and what rests on it, a replay
over it is honest, and `fsck --repair` makes whole again what can be had again.

The job prints all that it is given, so whatever damage reached it would show in its output.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from runner.fsck.check import check
from runner.state.health import Finding, Health
from runner.state.schemas import schemas
from runner.workspace import open_damaged_workspace
from tests.conftest import Index, Workspace, flip_bit, until, wheel
from tests.engine.conftest import Recorded, check_left_over, copy_of, copy_store

pytestmark = pytest.mark.engine

JOB = (
    "import alpha, lib.part, pathlib, sys; read = lambda p: pathlib.Path(p).read_text().strip();"
    "files = ['d.csv', 'many/a.txt', 'many/b.txt', 'm.txt', 'p.yaml'];"
    "text = ' '.join([alpha.VALUE, lib.part.VALUE, *map(read, files)]);"
    "pathlib.Path('out.txt').write_text(text); print(text); print('done', file=sys.stderr)"
)
SAID = "alpha 1.0 part a,b first second model rate: 0.1\n"
PIP = {"PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": "", "PIP_RETRIES": "0"}
SECRET = {"TOKEN": "swordfish-4711"}
Ids = dict[str, str]


@pytest.fixture(scope="module")
def index_of_alpha() -> Iterator[Index]:
    made = Index()
    made.add(wheel("alpha", "1.0", {"alpha.py": "VALUE = 'alpha 1.0'\n"}))
    yield made
    made.close()


@pytest.fixture(scope="module")
def template(
    python311: str, python_store: Path, index_of_alpha: Index, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workspace, Ids]:
    """A store with every kind of file; the sources are in git, the data's remote is there."""
    made = Workspace(tmp_path_factory.mktemp("damage"))
    copy_store(python_store, made.store)
    made.git("init", "-q")
    made.dvc("init")
    made.dvc("remote", "add", "-d", "origin", str(made.root.parent / f"{made.root.name}-remote"))
    made.write("d.csv", "a,b\n")
    made.write("many/a.txt", "first\n")
    made.write("many/b.txt", "second\n")
    made.dvc("add", "d.csv", "many")
    made.dvc("push")
    made.write("lib/part.py", "VALUE = 'part'\n")
    made.write("m.txt", "model\n")
    made.write("p.yaml", "rate: 0.1\n")
    made.write("requirements.in", "alpha\n")
    job = {
        "command": ["python", "-c", JOB],
        "image": python311,
        "dependencies": "requirements.in",
        "data": ["d.csv", "many"],
        "model": ["m.txt"],
        "params": "p.yaml",
        "secrets": {"TOKEN": "env:TOKEN"},
        "outputs": ["out.txt", "stdout"],
    }
    made.jobs(all=job)
    made.write(".gitignore", ".replay/\nd.csv\nmany/\n")
    made.commit("sources")
    until(lambda: time.time() - (made.root / "m.txt").stat().st_ctime > 2.1, "hashes to be worth remembering")
    ids = {"all": made.run("all", **PIP, **SECRET, PIP_INDEX_URL=index_of_alpha.url)["run_id"]}
    assert made.replay("ls").code == 0
    assert made.replay("gc").code == 0
    return made, ids


@pytest.fixture
def whole(
    template: tuple[Workspace, Ids], index_of_alpha: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Recorded]:
    copied = copy_of(*template, tmp_path / "work")
    for name, value in (PIP | SECRET | {"PIP_INDEX_URL": index_of_alpha.url}).items():
        monkeypatch.setenv(name, value)
        copied.env[name] = value
    yield copied
    check_left_over(copied)


# --- damaging -------------------------------------------------------------------------------------------------


def truncate(file: Path) -> None:
    data, mode = file.read_bytes(), file.stat().st_mode
    file.unlink()
    file.write_bytes(data[: len(data) // 2])
    file.chmod(mode)


def delete(file: Path) -> None:
    file.unlink()


WAYS: dict[str, Callable[[Path], None]] = {"flip": flip_bit, "truncate": truncate, "delete": delete}


def fsck(workspace: Workspace, *arguments: str, code: int) -> dict[str, Any]:
    done = workspace.replay("fsck", *arguments, "--json")
    assert done.code == code, done
    jsonschema_rs.Draft202012Validator(schemas()["fsck"]).validate(done.json)
    return done.json


def findings(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["path"]: one for one in found["findings"]}


def through(finding: dict[str, Any]) -> set[tuple[str, str]]:
    return {(need.get("run_id") or need.get("lock"), need["through"]) for need in finding.get("needed_by", ())}


# --- what there is ------------------------------------------------------------------------------------------------


def blobs_of(whole: Recorded) -> dict[str, set[str]]:
    """What each blob is needed as, read from spec and record as anybody could."""
    shown = whole.replay("show", whole.ids["all"], "--json").json
    state, record = shown["spec"]["state"], shown["record"]
    needed: dict[str, set[str]] = {}

    def add(digest: str, as_what: str) -> None:
        needed.setdefault(digest, set()).add(as_what)

    add(state["code"], "list of the code")
    for path, _, digest in json.loads(whole.blob(state["code"]).read_bytes()):
        add(digest, f"code {path}")
    add(state["params"]["sha256"], "params p.yaml")
    add(state["dependencies"]["locked"][0]["sha256"], "wheel of alpha 1.0")
    add(state["data"]["d.csv"], "data d.csv")
    add(state["data"]["many"], "data many, the list of its files")
    for path, digest, _ in json.loads(whole.blob(state["data"]["many"]).read_bytes())["files"]:
        add(digest, f"data many/{path}")
    add(state["model"]["m.txt"], "model m.txt")
    image = shown["spec"]["observed"]["image"]["reference"]
    for number, layer in enumerate(state["image"]["diff_ids"], 1):
        add(layer, f"layer {number} of the image {image}")
    (archive,) = (whole.store / "images").glob("*.json")
    config = archive.read_text().split('"config":"')[1].split('"')[0]
    add(config, f"configuration of the image {image}")
    for output in record["outputs"]:
        add(output["sha256"], f"output {output['path']}")
    return needed


def path_of(digest: str) -> str:
    digits = digest.removeprefix("sha256:")
    return f"blobs/{digits[:2]}/{digits[2:]}"


# Files that nothing refers to: when one is gone, it is made anew, and there is nothing to say.
UNNAMED = ("cache/probes/", "cache/profiles/", "cache/versions/", "cache/stat/", "locks/", "index.sqlite")
# What no run rests on: it can be made anew at any moment.
REMADE = ("index.sqlite", ".gitignore", "store.json", "cache/stat/", "cache/locker/", "locks/")
# What is nowhere else: the bytes of an output that no replay made again, and what a job printed.
LOST = {"output out.txt", "stderr", "order"}
# Empty, or not this tool's: pip's own cache is told to be unchecked.
EXEMPT = ("gc.lock", "turnstile.lock", "cache/locks/", "cache/pip/", "/lock")


def kinds(whole: Recorded) -> dict[str, Path]:
    """One file of each kind, by what it is needed as; blobs by all that they are needed as."""
    store, run_id = whole.store, whole.ids["all"]
    found = {name: store / path_of(digest) for digest, names in blobs_of(whole).items() for name in names}
    for name in ("spec.yaml", "record.json", "sums", "stdout", "stderr", "order"):
        found[name] = store / "runs" / run_id / name
    found["reviewed spec"] = whole.spec_path(run_id)
    found["reviewed record"] = whole.root / "state_specs" / f"{run_id}.record.json"
    for folder in ("trees", "environments", "views"):
        (place, *_) = sorted((store / "cache" / folder).iterdir())
        for name in ("manifest", "digest", "stamps"):
            found[f"{folder} {name}"] = place / name
        found[f"{folder} file"] = next(p for p in sorted((place / "root").rglob("*")) if p.is_file())
    found["environments recipe"] = next((store / "cache" / "environments").glob("*/recipe"))
    for folder in ("probes", "versions", "stat"):
        (found[folder], *_) = sorted((store / "cache" / folder).iterdir())
    (found["images"],) = (store / "images").iterdir()
    (found["locks"],) = (store / "locks").iterdir()
    for name in ("store.json", "key", ".gitignore", "index.sqlite"):
        found[name] = store / name
    found["locker"] = next(p for p in sorted((store / "cache" / "locker").rglob("*.py")) if p.stat().st_size > 99)
    return found


def every_file(whole: Recorded) -> list[Path]:
    """All files of the store and the reviewed copies, of pip-tools' copy only a few."""
    inside = [p for p in sorted(whole.store.rglob("*")) if p.is_file() and not p.is_symlink()]
    locker = [p for p in inside if "/cache/locker/" in str(p) and p.stat().st_size > 2][::200]
    checked = [p for p in inside if "/cache/locker/" not in str(p) and not exempt(name_of(whole, p))]
    return [*checked, *locker, *sorted((whole.root / "state_specs").iterdir())]


def exempt(name: str) -> bool:
    return any(part in name for part in EXEMPT)


def name_of(whole: Recorded, file: Path) -> str:
    return str(file.relative_to(whole.store if whole.store in file.parents else whole.root))


def look(whole: Recorded, *, repair: bool = False) -> Health:
    """The check in this process: an exhaustive test looks hundreds of times."""
    return check(open_damaged_workspace(whole.root, whole.store), lambda _text: None, repair=repair)


def named(health: Health) -> dict[str, Finding]:
    return {finding.path: finding for finding in health.findings if finding.counts}


def held_back(whole: Recorded, file: Path) -> Path:
    os.link(file, held := whole.root.parent / "held")
    return held


def bring_back(cache: Path, kept: Path, file: Path) -> None:
    """A piece of the cache that mending has dropped, so that its other files can be damaged too."""
    piece = Path(*file.relative_to(cache).parts[:2])
    shutil.rmtree(cache / piece, ignore_errors=True)
    if (kept / piece).is_dir():
        shutil.copytree(kept / piece, cache / piece, copy_function=os.link, symlinks=True)
    else:
        os.link(kept / piece, cache / piece)


def put_back(whole: Recorded, file: Path, held: Path) -> None:
    """The file as it was, and nothing of what was done about its damage."""
    file.unlink(missing_ok=True)
    held.rename(file)
    for aside in (whole.store / "tmp").iterdir():
        aside.unlink()


def assert_identical(whole: Recorded) -> None:
    found = whole.replayed(whole.ids["all"])
    assert found["verdict"] == "identical"
    assert whole.replay("logs", found["run_id"], "--stream", "stdout").out == SAID


# --- tests ----------------------------------------------------------------------------------------------------


def test_a_whole_store_is_whole(whole: Recorded) -> None:
    found = fsck(whole, code=0)
    assert found["whole"] and found["findings"] == [] and found["files"] > 30, found
    assert [one.split(":")[0] for one in found["unchecked"]] == ["cache/pip"]
    done = whole.replay("fsck")
    assert done.code == 0 and f"in {whole.store}\n" in done.out and "whole: looked at" in done.out, done


SLOWLY = [way if way == "flip" else pytest.param(way, marks=pytest.mark.slow) for way in WAYS]


@pytest.mark.parametrize("way", SLOWLY)
def test_each_kind_of_file_is_named_with_what_rests_on_it(whole: Recorded, way: str) -> None:
    run_id, blobs = whole.ids["all"], {path_of(digest): names for digest, names in blobs_of(whole).items()}
    for kind, file in kinds(whole).items():
        name, held = name_of(whole, file), held_back(whole, file)
        WAYS[way](file)
        found = named(look(whole))
        if way == "delete" and name.startswith(UNNAMED):
            assert found == {}, (kind, found)
        else:
            assert name in found, (kind, name, found)
            problems = {"flip": {"damaged"}, "truncate": {"truncated", "damaged"}, "delete": {"missing", "damaged"}}
            assert found[name].problem in problems[way], (kind, found[name])
            needs = {(need.run_id, need.through) for need in found[name].needed_by}
            assert {(run_id, one) for one in blobs.get(name, ())} <= needs, (kind, needs)
            assert needs or name.startswith(REMADE), (kind, found[name])
            assert {need.job for need in found[name].needed_by if need.run_id} <= {"all"}
        put_back(whole, file, held)
    assert named(look(whole)) == {}


@pytest.mark.parametrize("way", SLOWLY)
def test_each_kind_of_file_is_mended_or_said_to_be_lost(whole: Recorded, way: str) -> None:
    for kind, file in kinds(whole).items():
        if not file.is_file():
            continue  # a cache that mending another file has dropped
        held = held_back(whole, file)
        WAYS[way](file)
        health = look(whole, repair=True)
        lost = {finding.path: finding for finding in health.findings if finding.mended != "repaired"}
        if kind in LOST:
            assert name_of(whole, file) in lost, (kind, health)
            assert lost[name_of(whole, file)].hint, lost
            put_back(whole, file, held)
        else:
            held.unlink()
            assert health.whole and not lost, (kind, health.findings)
        assert named(look(whole)) == {}, kind
    assert_identical(whole)


def assert_honest(whole: Recorded, name: str) -> None:
    """The replay says `identical` only of the very result; else that something was changed or cannot be had."""
    done = whole.replay(whole.ids["all"], "--json", "--quiet")
    if done.code == 0:
        assert done.json["verdict"] == "identical", (name, done)
        assert whole.replay("logs", done.json["run_id"], "--stream", "stdout").out == SAID, (name, done)
    else:
        assert done.code in ((7,) if name == "store.json" else (3, 5)), (name, done)
        assert done.json["error"]["what"] and (done.json["error"].get("why") or done.json["error"].get("next")), (
            name,
            done,
        )


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_every_file_of_the_store(whole: Recorded, way: str) -> None:
    """Named, never replayed over as if nothing were, and mended: file by file."""
    damaged = 0
    kept = shutil.copytree(whole.store / "cache", whole.root.parent / "kept", copy_function=os.link, symlinks=True)
    for file in [file for file in every_file(whole) if file.stat().st_size]:
        if not file.is_file():
            bring_back(whole.store / "cache", kept, file)
        name, held = name_of(whole, file), held_back(whole, file)
        WAYS[way](file)
        damaged += 1
        if way != "delete" or not name.startswith(UNNAMED):
            assert name in named(look(whole)), (way, name)
        assert_honest(whole, name)
        health = look(whole, repair=True)
        if health.whole:
            held.unlink()
        else:
            lost = [finding for finding in health.findings if finding.counts]
            assert [finding.path for finding in lost] == [name] and lost[0].hint, (way, health.findings)
            put_back(whole, file, held)
        assert named(look(whole)) == {}, (way, name)
    assert damaged > 50
    assert_identical(whole)


def flip_in_place(file: Path) -> None:
    """As a disk does it: every name of the inode shows the other bit."""
    file.chmod(0o644)
    with file.open("r+b") as opened:
        first = opened.read(1)[0]
        opened.seek(0)
        opened.write(bytes([first ^ 1]))


def test_data_that_went_bad_under_all_its_names_is_fetched_from_the_remote(whole: Recorded) -> None:
    """Blob, view and DVC's own object are one inode; the live file is gone."""
    whole.replay("gc")
    shutil.rmtree(whole.store / "cache" / "views")
    digest = whole.spec("all")["state"]["data"]["d.csv"]
    (cached,) = (p for p in (whole.root / ".dvc" / "cache").rglob("*") if p.is_file() and p.read_bytes() == b"a,b\n")
    whole.blob(digest).unlink()
    os.link(cached, whole.blob(digest))
    (whole.root / "d.csv").unlink()
    assert_identical(whole)
    flip_in_place(cached)
    found = findings(fsck(whole, code=5))
    assert found[path_of(digest)]["problem"] == "damaged" and any("/views/" in path for path in found), found
    assert (whole.ids["all"], "data d.csv") in through(found[path_of(digest)])
    mended = findings(fsck(whole, "--repair", code=0))
    assert mended[path_of(digest)]["repair"] == "from DVC" and cached.read_bytes() == b"a,b\n", mended
    assert_identical(whole)


def test_what_was_pushed_comes_from_the_remote(whole: Recorded, tmp_path: Path) -> None:
    """An output, which no other place has, flipped and then missing; the remote is believed by the digest alone."""
    whole.dvc("remote", "add", "-d", "-f", "share", str(tmp_path / "remote"))
    assert whole.replay("push").code == 0
    digits = hashlib.sha256(SAID.strip().encode()).hexdigest()
    out, there = whole.blob(digits), tmp_path / "remote" / "replay" / "blobs" / digits[:2] / digits[2:]
    for damage in (flip_bit, Path.unlink):
        damage(out)
        mended = findings(fsck(whole, "--repair", code=0))[path_of(digits)]
        assert (
            mended["repair"] == f"from the remote {tmp_path / 'remote'}" and out.read_bytes() == SAID.strip().encode()
        )
    out.unlink()
    flip_bit(there)
    lost = findings(fsck(whole, "--repair", code=5))[path_of(digits)]
    assert lost["mended"] == "lost" and "another digest" in lost["repair"] and not out.exists(), lost
    shutil.rmtree(tmp_path / "remote")
    lost = findings(fsck(whole, "--repair", code=5))[path_of(digits)]
    assert "there is no folder" in lost["repair"], lost


def test_code_that_was_edited_since_comes_from_its_commit(whole: Recorded) -> None:
    part = hashlib.sha256(b"VALUE = 'part'\n").hexdigest()
    whole.write("lib/part.py", "VALUE = 'other'\n")
    truncate(whole.blob(part))
    mended = findings(fsck(whole, "--repair", code=0))
    assert mended[path_of(part)]["repair"].startswith("from git's lib/part.py of "), mended
    assert_identical(whole)


def test_what_is_lost_is_said_with_what_helps_and_a_replay_brings_an_output_back(whole: Recorded) -> None:
    out = hashlib.sha256(SAID.strip().encode()).hexdigest()
    flip_bit(whole.blob(out))
    for _ in range(2):
        lost = findings(fsck(whole, "--repair", code=5))[path_of(out)]
        assert lost["mended"] == "lost" and f"replay replay {whole.ids['all']}" in lost["hint"], lost
    assert f"damaged-{out}" in os.listdir(whole.store / "tmp"), "the bytes are there for whoever wants them"
    done = whole.replay("fsck")
    assert done.code == 5 and f"missing    {path_of(out)}" in done.out and "output out.txt" in done.out, done
    assert_identical(whole)
    assert fsck(whole, code=0)["whole"]
    assert whole.replay("gc").code == 0


def test_strays_are_told_and_left_overs_removed(whole: Recorded) -> None:
    left = [whole.store / "tmp" / "blob-1", whole.store / "runs" / whole.ids["all"] / ".spec.yaml.1.tmp"]
    strange = [whole.store / "blobs" / "notes.txt", whole.store / "blobs" / "ab" / "x", whole.store / "mine"]
    for file in (*left, *strange):
        file.parent.mkdir(exist_ok=True)
        file.write_text("x")
    found = findings(fsck(whole, code=0))
    assert {path for path, one in found.items() if one["problem"] == "stray"} == {
        name_of(whole, file) for file in (*left, *strange)
    }
    fsck(whole, "--repair", code=0)
    assert [file.exists() for file in left] == [False, False] and all(file.exists() for file in strange)
    assert whole.replay("gc").code == 0, "what is no blob keeps nobody from collecting"


def test_a_listing_that_no_longer_looks_like_one_is_told_beside_a_good_view(whole: Recorded) -> None:
    digest = whole.spec("all")["state"]["data"]["many"]
    listing = whole.blob(digest).read_bytes()
    whole.blob(digest).unlink()
    whole.blob(digest).write_bytes(b"[" + listing[1:])
    assert digest in whole.error("replay", whole.ids["all"], code=5)["what"]
    fsck(whole, "--repair", code=0)
    assert_identical(whole)


def test_a_view_that_lost_its_only_file_is_made_anew(whole: Recorded) -> None:
    digest = whole.spec("all")["state"]["data"]["d.csv"].removeprefix("sha256:")
    (whole.store / "cache" / "views" / digest / "root" / "file").unlink()
    assert_identical(whole)
