"""`runner.tools.dvc` against the real DVC, in copies of one workspace that was added, run and pushed once."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from configobj import ConfigObj
from dvc_data.hashfile.hash import fobj_md5
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import OutsideError, ReplayError, TamperedError, UnrebuildableError, UsageError
from runner.state.digest import digest_bytes
from runner.state.spec import DvcPin
from runner.tools import dvc
from runner.tools.dvc_config import config_text, load_config, remote_url, without_credentials
from runner.tools.dvc_objects import folder_md5

CRLF = b"one\r\ntwo\r\n"
IMAGES = {"x.txt": b"x\n", "sub/y.txt": CRLF, "sub/new\nline": b"n", "sub/deep/é.bin": b"\0\r\n"}
PIPELINE = """
stages:
  make:
    cmd: cat data/a.csv > ../out.txt && echo 1 > score.json
    wdir: work
    outs: [../out.txt]
    metrics: [{score.json: {cache: false}}]
"""
HOLD_LOCK = """
import sys, zc.lockfile
lock = zc.lockfile.LockFile(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def dvc_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """No configuration of the machine's, and nothing written outside a folder of its own."""
    folder = tmp_path_factory.mktemp("dvc-environment")
    names = ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR")
    return {name: str(folder / name) for name in names} | {"DVC_NO_ANALYTICS": "1", "DVC_DAEMON": "1"}


@pytest.fixture(autouse=True)
def _environment(dvc_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in dvc_environment.items():
        monkeypatch.setenv(name, value)


def run_dvc(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> str:
    command = [sys.executable, "-P", "-m", "dvc", *arguments]
    env = {**os.environ, **(environment or {})}
    return subprocess.run(command, cwd=folder, env=env, check=True, text=True, capture_output=True).stdout


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, dvc_environment: dict[str, str]) -> Path:
    """A folder with a workspace `ws` in git and DVC, and the remote that everything was pushed to."""
    folder = tmp_path_factory.mktemp("dvc")
    ws = folder / "ws"
    write(ws, {"data/a.csv": b"k,v\n1,2\n", "work/data/a.csv": b"w\n", "dvc.yaml": PIPELINE.encode()})
    write(ws / "data/images", IMAGES)
    # A module of the workspace must not stand in for one that DVC imports.
    write(ws, {"logging.py": b"raise SystemExit('shadowed')\n"})
    subprocess.run(["git", "init", "-q"], cwd=ws, check=True)
    for arguments in (
        ("init", "-q"),
        ("add", "-q", "data/a.csv", "data/images"),
        ("repro", "-q"),
        ("remote", "add", "-q", "-d", "Main Store", "../remote#1"),
        ("push", "-q"),
    ):
        run_dvc(ws, *arguments, environment=dvc_environment)
    return folder


@pytest.fixture
def ws(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy" / "ws"


def cached_entries(ws: Path, tracked: dvc.Tracked) -> dict[str, str]:
    listing = tracked.listing or dvc.read_listing(dvc.cache_dir(tracked.repo), tracked.pin)
    return dict(dvc.entries(tracked.path, tracked.pin, listing))


def difference(ws: Path, path: str, known: dvc.HashCache | None = None) -> dvc.Difference | None:
    tracked = dvc.find_pin(ws, path)
    return dvc.working_copy_differs(ws, tracked, [*map(dvc.Entry._make, cached_entries(ws, tracked).items())], known)


def empty_cache(ws: Path) -> None:
    shutil.rmtree(dvc.cache_dir(ws) / "files")


def md5(data: bytes) -> str:
    return fobj_md5(io.BytesIO(data))


# --- finding the pin ---------------------------------------------------------------------------------


def test_file_is_pinned_with_size_and_remote(ws: Path) -> None:
    tracked = dvc.find_pin(ws, "./data/a.csv")
    remote = str(ws.parent / "remote#1")
    assert tracked.pin == DvcPin(md5=md5(b"k,v\n1,2\n"), size=8, remote=remote)
    assert (tracked.path, tracked.source, tracked.bound) == ("data/a.csv", ws / "data/a.csv.dvc", False)
    assert cached_entries(ws, tracked) == {"": tracked.pin.md5}


def test_folder_lists_every_file_with_its_md5(ws: Path) -> None:
    tracked = dvc.find_pin(ws, "data/images/")
    assert (tracked.pin.nfiles, tracked.pin.inside) == (4, None)
    assert cached_entries(ws, tracked) == {name: md5(data) for name, data in IMAGES.items()}


def test_file_inside_a_folder_has_the_folders_pin(ws: Path) -> None:
    tracked, folder = dvc.find_pin(ws, "data/images/sub/y.txt"), dvc.find_pin(ws, "data/images")
    assert (tracked.pin.md5, tracked.pin.inside, tracked.pin.size) == (folder.pin.md5, "data/images", None)
    assert cached_entries(ws, tracked) == {"": md5(CRLF)}


def test_folder_inside_a_folder_keeps_names_relative_to_itself(ws: Path) -> None:
    assert set(cached_entries(ws, dvc.find_pin(ws, "data/images/sub"))) == {
        "y.txt",
        "new\nline",
        "deep/é.bin",
    }


def test_name_that_a_tracked_folder_lacks_is_refused(ws: Path) -> None:
    with pytest.raises(UsageError, match=r"data/images has no su$") as caught:
        cached_entries(ws, dvc.find_pin(ws, "data/images/su"))
    assert caught.value.next == "dvc add data/images"


def test_output_of_a_stage_is_pinned_by_the_lock(ws: Path) -> None:
    tracked = dvc.find_pin(ws, "out.txt")
    assert (tracked.pin.md5, tracked.target) == (md5(b"w\n"), "dvc.yaml:make")
    assert difference(ws, "out.txt") is None


def test_output_of_a_removed_stage_is_not_tracked(ws: Path) -> None:
    lock = ws / "dvc.lock"
    lock.write_text(lock.read_text().replace("../out.txt", "out.txt"))
    (ws / "dvc.yaml").write_text("stages: {}\n")
    with pytest.raises(UsageError, match="not tracked"):
        dvc.find_pin(ws, "out.txt")


def test_output_that_dvc_does_not_keep_is_refused(ws: Path) -> None:
    with pytest.raises(UsageError, match=r"keeps no copy of work/score\.json"):
        dvc.find_pin(ws, "work/score.json")


def test_workspace_below_the_repository(ws: Path) -> None:
    tracked = dvc.find_pin(ws / "data", "images/x.txt")
    assert (tracked.repo, tracked.pin.inside, tracked.target) == (ws, "images", "data/images/x.txt")


def test_repository_inside_a_repository_answers_for_its_own_paths(ws: Path) -> None:
    write(ws, {"sub/data.csv": b"s"})
    run_dvc(ws / "sub", "init", "-q", "--subdir")
    run_dvc(ws / "sub", "add", "-q", "data.csv")
    tracked = dvc.find_pin(ws, "sub/data.csv")
    assert (tracked.repo, tracked.pin.remote) == (ws / "sub", None)
    assert difference(ws, "sub/data.csv") is None


def test_dvc_file_elsewhere_is_found_by_its_outs(ws: Path) -> None:
    (ws / "data/a.csv.dvc").rename(ws / "work/named.dvc")
    text = (ws / "work/named.dvc").read_text()
    (ws / "work/named.dvc").write_text(f"wdir: ../data\n{text}")
    assert "up to date" in run_dvc(ws, "status", "work/named.dvc")
    assert dvc.find_pin(ws, "data/a.csv").target == "work/named.dvc"


def test_repository_without_git(tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": b"1"})
    run_dvc(tmp_path, "init", "-q", "--no-scm")
    run_dvc(tmp_path, "add", "-q", "a.csv")
    assert dvc.find_pin(tmp_path, "a.csv").pin == DvcPin(md5=md5(b"1"), size=1)


def test_folder_on_a_version_aware_remote_brings_its_listing(ws: Path) -> None:
    pinned = dvc.find_pin(ws, "data/images").pin.md5
    files = [{"relpath": name, "md5": md5(data), "cloud": {"s3": {"version_id": "1"}}} for name, data in IMAGES.items()]
    (ws / "data/images.dvc").write_text(json.dumps({"outs": [{"path": "images", "hash": "md5", "files": files}]}))
    tracked = dvc.find_pin(ws, "data/images/sub/y.txt")
    empty_cache(ws)
    assert (tracked.pin.md5, tracked.bound) == (pinned, True)
    assert cached_entries(ws, tracked) == {"": md5(CRLF)}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("outs: [{path: b.csv, hash: md5}]", "pins no version of data/b.csv"),
        ("outs: [{path: b.csv, hash: md5, md5: ../../etc/passwd}]", "pins no version of data/b.csv"),
        (
            "outs: [{path: b.csv, hash: blake3, md5: 60b725f10c9c85c70d97880dfe8191b3}]",
            "uses the hash 'blake3'",
        ),
        ("outs: [{path: b.csv, cache: false, md5: 60b725f10c9c85c70d97880dfe8191b3}]", "keeps no copy"),
        ("outs: [{path: 's3://bucket/b.csv', etag: abc}]", "not tracked"),
        ("outs: [{path: ../../b.csv, md5: 60b725f10c9c85c70d97880dfe8191b3}]", "not tracked"),
        ("outs: {path: b.csv}", "not as DVC writes it"),
        ("", "not as DVC writes it"),
    ],
)
def test_dvc_file_that_pins_nothing_is_refused(ws: Path, content: str, why: str) -> None:
    (ws / "data/b.csv.dvc").write_text(content)
    with pytest.raises(UsageError, match=why) as caught:
        dvc.find_pin(ws, "data/b.csv")
    assert caught.value.why and caught.value.next


def test_path_that_two_files_track_is_refused(ws: Path) -> None:
    shutil.copy(ws / "data/a.csv.dvc", ws / "data/images/x.txt.dvc")
    (ws / "data/images/x.txt.dvc").write_text("outs: [{path: x.txt, hash: md5, md5: 60b725f10c9c85c70d97880dfe8191b3}]")
    with pytest.raises(UsageError, match="more than once") as caught:
        dvc.find_pin(ws, "data/images/x.txt")
    assert caught.value.why == "by data/images.dvc and data/images/x.txt.dvc"


def test_nothing_lies_inside_a_tracked_file(ws: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing inside data/a\.csv"):
        dvc.find_pin(ws, "data/a.csv/part")


def test_untracked_path_offers_dvc_add(ws: Path) -> None:
    write(ws, {"data/new.csv": b""})
    with pytest.raises(UsageError, match=r"data/new\.csv is not tracked") as caught:
        dvc.find_pin(ws, "data/new.csv")
    assert caught.value.next == "dvc add data/new.csv"


def test_folder_without_dvc_offers_to_start(tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": b""})
    with pytest.raises(UsageError) as caught:
        dvc.find_pin(tmp_path, "a.csv")
    assert caught.value.next == "dvc init && dvc add a.csv"


@pytest.mark.parametrize("path", ["../a.csv", "/etc/passwd", "s3://bucket/key", "", ".", "data/../../a"])
def test_path_outside_the_workspace_is_refused(ws: Path, path: str) -> None:
    with pytest.raises(UsageError):
        dvc.find_pin(ws, path)


# --- DVC 2 -------------------------------------------------------------------------------------------


@pytest.fixture
def dvc2(tmp_path: Path) -> Path:
    """A file and a folder as DVC 2 left them: no `hash`, text hashed with LF, another cache layout."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = True\n")
    text, listing = (
        CRLF.replace(b"\r\n", b"\n"),
        json.dumps([{"md5": md5(b"one\ntwo\n"), "relpath": "t"}]).encode(),
    )
    folder = folder_md5(listing)
    cache = tmp_path / ".dvc/cache"
    write(cache, {f"{md5(text)[:2]}/{md5(text)[2:]}": CRLF, f"{folder[:2]}/{folder[2:]}": listing})
    (tmp_path / "old.csv.dvc").write_text(f"outs:\n- md5: {md5(text)}\n  size: 10\n  path: old.csv\n")
    (tmp_path / "old.dvc").write_text(f"outs:\n- md5: {folder}\n  size: 10\n  nfiles: 1\n  path: old\n")
    run_dvc(tmp_path, "checkout", "-q")
    return tmp_path


@pytest.mark.parametrize("path", ["old.csv", "old/t"])
def test_dvc2_file_is_hashed_and_found_as_dvc_does(dvc2: Path, path: str) -> None:
    tracked = dvc.find_pin(dvc2, path)
    (entry,) = cached_entries(dvc2, tracked).values()
    stored = dvc.object_path(dvc.cache_dir(dvc2), tracked.pin.hash, entry)
    assert tracked.pin.hash == "md5-dos2unix"
    assert (dvc2 / path).read_bytes() == stored.read_bytes() == CRLF
    assert dvc.hash_file(stored, tracked.pin.hash) == (entry, digest_bytes(CRLF), len(CRLF))
    assert difference(dvc2, path) is None


def test_dvc2_object_is_fetched_from_a_dvc2_remote(dvc2: Path, tmp_path: Path) -> None:
    pin = dvc.find_pin(dvc2, "old").pin
    (dvc2 / ".dvc/cache").rename(dvc2 / "remote")
    run_dvc(dvc2, "remote", "add", "-q", "-d", "r", "remote")
    dvc.fetch(dvc2, {"old": pin})
    assert not dvc.missing_objects(dvc.cache_dir(dvc2), "old", pin)


# --- the configuration -------------------------------------------------------------------------------


def test_configuration_is_read_as_dvc_reads_it(ws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(ws.parent / "global"))
    run_dvc(ws, "cache", "dir", "--local", "../shared cache")
    run_dvc(ws, "remote", "add", "--global", "elsewhere", "ssh://me@host/x")
    run_dvc(ws, "remote", "modify", "--local", "elsewhere", "password", """a#b,'c""")
    config = load_config(ws)
    flat = {f"remote.{name}.{key}": value for name, of in config.remotes.items() for key, value in of.items()}
    listed = dict(line.split("=", 1) for line in run_dvc(ws, "config", "-l").splitlines())
    assert flat == {key: value for key, value in listed.items() if key.startswith("remote.")}
    assert str(dvc.cache_dir(ws)) == run_dvc(ws, "cache", "dir").strip() == str(ws.parent / "shared cache")
    assert remote_url(config, "elsewhere") == "ssh://me@host/x"


def test_indentation_and_comments_mean_nothing(ws: Path) -> None:
    text = "[core]\nremote = r # the only one\n  no_scm = true\n['remote \"r\"']\n\turl = 's3://b'\n    jobs = 1\n"
    (ws / ".dvc/config").write_text(text)
    assert "s3://b" in run_dvc(ws, "remote", "list")
    assert load_config(ws).core == {"remote": "r", "no_scm": "true"}
    assert load_config(ws).remotes == {"r": {"url": "s3://b", "jobs": "1"}}


def test_broken_configuration_names_its_file(ws: Path) -> None:
    (ws / ".dvc/config").write_text("remote = 1\n")
    with pytest.raises(UsageError, match=r"\.dvc/config cannot be read"):
        dvc.find_pin(ws, "data/a.csv")


@given(st.text("ab#=,;\"' [%$\\\n\u2028", max_size=8))
def test_written_configuration_is_read_back_as_one_value_or_refused(value: str) -> None:
    try:
        text = config_text({'remote "r"': {"password": value}})
    except UsageError:
        assert value.splitlines() not in ([], [value]) or {"'", '"'} <= set(value)
    else:
        read = ConfigObj(io.StringIO(text), interpolation=False)
        assert read.dict() == {'remote "r"': {"password": value}}


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("s3://key:secret@bucket/p", "s3://bucket/p"),
        ("https://token@host:8080/p?sig=secret#x", "https://host:8080/p"),
        ("ssh://me:secret@host:22/p", "ssh://me@host:22/p"),
        ("s3://bucket/p", "s3://bucket/p"),
        ("/data/store#1", "/data/store#1"),
    ],
)
def test_credentials_leave_the_url(url: str, clean: str) -> None:
    assert without_credentials(url) == clean


def test_remote_under_another_remote(ws: Path) -> None:
    run_dvc(ws, "remote", "add", "-q", "base", "https://user:secret@host/base")
    run_dvc(ws, "remote", "add", "-q", "part", "remote://base/part")
    assert remote_url(load_config(ws), "part") == "https://host/base/part"


# --- listings ----------------------------------------------------------------------------------------


def parse(listed: object) -> tuple[dvc.Entry, ...]:
    listing = json.dumps(listed).encode()
    return dvc.entries("d", DvcPin(md5=folder_md5(listing)), listing)


NAME = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: name not in {".", ".."}
)
HASH = st.text("0123456789abcdef", min_size=32, max_size=32)


@given(st.dictionaries(st.lists(NAME.map(lambda name: f"{name}-"), min_size=1, max_size=3).map("/".join), HASH))
def test_any_listing_of_proper_names_is_read(files: dict[str, str]) -> None:
    files = {name: value for name, value in files.items() if not any(one.startswith(f"{name}/") for one in files)}
    assert dict(parse([{"relpath": name, "md5": value} for name, value in files.items()])) == files


@pytest.mark.parametrize(
    "names",
    [
        ["../a"],
        ["a/../../b"],
        ["/etc/passwd"],
        [""],
        ["a//b"],
        ["."],
        ["a/"],
        ["a\0"],
        ["a", "a"],
        ["a", "a/b"],
    ],
)
def test_listing_that_climbs_out_or_contradicts_itself_is_tampered(names: list[str]) -> None:
    with pytest.raises(TamperedError):
        parse([{"relpath": name, "md5": "0" * 32} for name in names])


@pytest.mark.parametrize(
    "listed",
    [{}, None, [1], [{"relpath": "a"}], [{"relpath": "a", "md5": "x"}], [{"relpath": 1, "md5": "0" * 32}]],
)
def test_listing_of_another_shape_is_tampered(listed: object) -> None:
    with pytest.raises(TamperedError):
        parse(listed)


@pytest.mark.parametrize("listing", [b"[]", b"", None])
def test_listing_with_another_md5_is_tampered(listing: bytes | None) -> None:
    with pytest.raises(TamperedError, match="is not what DVC recorded"):
        dvc.entries("d", DvcPin(md5=folder_md5(b"[ ]")), listing)


@pytest.mark.parametrize("listing", [b"[" * 100_000, b"\xff"])
def test_listing_that_is_no_json_is_tampered(listing: bytes) -> None:
    with pytest.raises(TamperedError):
        dvc.entries("d", DvcPin(md5=folder_md5(listing)), listing)


@pytest.mark.parametrize("md5_", ["", "../../../etc/passwd", "0" * 31, "0" * 32 + "\n"])
def test_pin_that_is_no_md5_is_tampered(md5_: str) -> None:
    with pytest.raises(TamperedError, match="the pin of d is no MD5"):
        dvc.entries("d", DvcPin(md5=md5_), None)


def test_file_name_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        parse([{"relpath": "\udcff", "md5": "0" * 32}])


# --- hashing -----------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([b"\r\n", b"a", b"\r", b"\xff" * 100, b"\0", b"text " * 200])).map(b"".join))
def test_hashes_are_those_of_dvc(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / f"hashed-{os.getpid()}"
    path.write_bytes(data)
    for name in ("md5", "md5-dos2unix"):
        assert dvc.hash_file(path, name) == (
            fobj_md5(io.BytesIO(data), name=name),
            digest_bytes(data),
            len(data),
        )


@pytest.mark.parametrize(
    "data",
    [
        b"a" * (2**20 - 1) + CRLF,
        CRLF * 2**18,
        b"text\r\n" + b"a" * (2**20 - 6) + b"\0\r\n",
        b"\0" * 2**20 + CRLF,
        b"a" * 2**20,
        b"\xff" * 3 + b"abcde" + b"\r\n",
    ],
    ids=[
        "line end across chunks",
        "many chunks",
        "binary after text",
        "text after binary",
        "one full chunk",
        "just text",
    ],
)
def test_text_is_told_chunk_by_chunk_as_dvc_does(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "f").write_bytes(data)
    for name in ("md5", "md5-dos2unix"):
        assert dvc.hash_file(tmp_path / "f", name).md5 == fobj_md5(io.BytesIO(data), name=name)


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "absent"):
        with pytest.raises(OutsideError, match="cannot be read"):
            dvc.hash_file(path)


def test_corrupted_object_that_dvc_delivers_is_detected(ws: Path) -> None:
    pin = dvc.find_pin(ws, "data/a.csv").pin
    stored = dvc.object_path(dvc.cache_dir(ws), pin.hash, pin.md5)
    stored.chmod(0o644)
    stored.write_bytes(b"k,v\n1,3\n")
    stored.chmod(0o444)
    (ws / "data/a.csv").unlink()
    run_dvc(ws, "checkout", "data/a.csv")
    assert (ws / "data/a.csv").read_bytes() == b"k,v\n1,3\n"
    assert dvc.hash_file(stored).md5 != pin.md5


# --- the working copy --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["data/a.csv", "data/images", "data/images/sub", "data/images/sub/y.txt"])
def test_working_copy_as_added_does_not_differ(ws: Path, path: str) -> None:
    assert difference(ws, path) is None


def test_edited_file_differs(ws: Path) -> None:
    (ws / "data/a.csv").write_bytes(b"k,v\n1,9\n")
    assert str(difference(ws, "data/a.csv")) == "changed its content"


def test_folder_names_the_first_differences_and_counts_the_rest(ws: Path) -> None:
    images = ws / "data/images"
    (images / "x.txt").write_bytes(b"X\n")
    (images / "sub/y.txt").unlink()
    write(images, {"new1": b"", "sub/new2": b""})
    found = difference(ws, "data/images")
    assert found is not None
    assert (found.count, str(found)) == (4, "changed x.txt, added new1, added sub/new2 and 1 more")
    assert str(difference(ws, "data/images/sub")) == "added new2, removed y.txt"
    assert difference(ws, "data/images/x.txt") == dvc.Difference(1, ("changed its content",))


def test_ignored_names_and_links_to_folders_do_not_count(ws: Path) -> None:
    images = ws / "data/images"
    write(ws, {".dvcignore": b".DS_Store\n"})
    write(images, {".DS_Store": b"", "sub/.DS_Store": b""})
    (images / "empty").mkdir()
    (images / "loop").symlink_to(images)
    (images / "dangling").symlink_to("nowhere")
    assert difference(ws, "data/images") is None
    (images / "dangling").unlink()
    assert "up to date" in run_dvc(ws, "status", "data/images.dvc")
    write(images, {"other": b""})
    assert str(difference(ws, "data/images")) == "added other"


def test_file_that_became_a_folder_differs(ws: Path) -> None:
    (ws / "data/a.csv").unlink()
    (ws / "data/a.csv").mkdir()
    shutil.rmtree(ws / "data/images")
    (ws / "data/images").write_bytes(b"")
    assert str(difference(ws, "data/a.csv")) == "data/a.csv became a folder"
    assert str(difference(ws, "data/images")) == "data/images became a file"


def test_absent_working_copy_does_not_differ(ws: Path) -> None:
    shutil.rmtree(ws / "data/images")
    assert difference(ws, "data/images") is None


class Remembering(dict[tuple[str, str], dvc.Hashes]):
    """A hash cache that believes every path to be unchanged."""

    def get(self, path: str, found: os.stat_result, hash_name: str) -> dvc.Hashes | None:  # type: ignore[override]
        return super().get((path, hash_name))

    def put(self, path: str, found: os.stat_result, hash_name: str, hashes: dvc.Hashes) -> None:
        self[path, hash_name] = hashes


def test_remembered_hashes_spare_the_reading(ws: Path) -> None:
    known = Remembering()
    assert difference(ws, "data/images", known) is None
    assert len(known) == len(IMAGES)
    (ws / "data/images/x.txt").write_bytes(b"unread")
    assert difference(ws, "data/images", known) is None


# --- fetching ----------------------------------------------------------------------------------------


def test_missing_objects_are_fetched_from_the_remote(ws: Path) -> None:
    wanted = {path: dvc.find_pin(ws, path).pin for path in ("data/a.csv", "data/images", "out.txt")}
    empty_cache(ws)
    cache = dvc.cache_dir(ws)
    assert dvc.missing_objects(cache, "data/images", wanted["data/images"]) == (wanted["data/images"].md5,)
    dvc.fetch(ws, wanted)
    assert not any(dvc.missing_objects(cache, path, pin) for path, pin in wanted.items())
    assert not [*(ws / ".dvc/tmp").glob("replay-*")]


def test_part_of_a_folder_is_fetched_alone(ws: Path) -> None:
    pin = dvc.find_pin(ws, "data/images/sub/y.txt").pin
    empty_cache(ws)
    dvc.fetch(ws, {"data/images/sub/y.txt": pin})
    assert dvc.missing_objects(dvc.cache_dir(ws), "data/images/sub/y.txt", pin) == ()
    assert len(dvc.missing_objects(dvc.cache_dir(ws), "data/images", dvc.find_pin(ws, "data/images").pin)) == 3


def test_version_that_the_workspace_no_longer_pins_is_fetched(ws: Path) -> None:
    old = dvc.find_pin(ws, "data/a.csv").pin
    (ws / "data/a.csv").write_bytes(b"newer\n")
    run_dvc(ws, "add", "-q", "data/a.csv")
    empty_cache(ws)
    (ws / "dvc.yaml").write_text("not: [even, valid")
    dvc.fetch(ws, {"data/a.csv": old})
    assert dvc.hash_file(dvc.object_path(dvc.cache_dir(ws), old.hash, old.md5)).md5 == old.md5


def test_recorded_remote_serves_when_none_is_configured(ws: Path) -> None:
    pin = dvc.find_pin(ws, "data/a.csv").pin
    empty_cache(ws)
    (ws / ".dvc/config").write_text("")
    dvc.fetch(ws, {"data/a.csv": pin})
    assert dvc.missing_objects(dvc.cache_dir(ws), "data/a.csv", pin) == ()


def test_recorded_url_cannot_smuggle_in_configuration(ws: Path) -> None:
    (ws / ".dvc/config").write_text("")
    pin = DvcPin(md5="0" * 32, remote="/x\n['remote \"replay-0\"']\nbearer_token_command = touch /tmp/x")
    with pytest.raises(UsageError, match="cannot be written"):
        dvc.fetch(ws, {"data/a.csv": pin})


def test_present_objects_need_no_dvc(ws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    dvc.fetch(ws, {"data/images": dvc.find_pin(ws, "data/images").pin})


def test_object_that_no_remote_has_is_unrebuildable(ws: Path) -> None:
    pin = dvc.find_pin(ws, "data/images").pin
    empty_cache(ws)
    lost = ws.parent / "remote#1/files/md5" / md5(CRLF)[:2]
    shutil.rmtree(lost)
    with pytest.raises(UnrebuildableError, match="cannot fetch data/images") as caught:
        dvc.fetch(ws, {"data/images": pin})
    assert "1 of its objects" in caught.value.why
    assert "remote#1" in caught.value.why


def test_no_remote_at_all_is_unrebuildable(ws: Path) -> None:
    (ws / ".dvc/config").write_text("")
    pin = dvc.find_pin(ws, "data/a.csv").pin
    empty_cache(ws)
    with pytest.raises(UnrebuildableError, match="cannot fetch") as caught:
        dvc.fetch(ws, {"data/a.csv": pin})
    assert "no remote is configured" in caught.value.why


def test_no_repository_is_unrebuildable(tmp_path: Path) -> None:
    with pytest.raises(UnrebuildableError) as caught:
        dvc.fetch(tmp_path, {"a.csv": DvcPin(md5=md5(b""), remote="s3://bucket")})
    assert "s3://bucket" in caught.value.why


def test_failure_of_dvc_gives_its_own_reason(ws: Path) -> None:
    pin = dvc.find_pin(ws, "data/a.csv").pin
    empty_cache(ws)
    run_dvc(ws, "remote", "modify", "-q", "Main Store", "jobs", "1")
    config = ws / ".dvc/config"
    config.write_text(config.read_text().replace("jobs = 1", "jobs = none"))
    with pytest.raises(OutsideError) as caught:
        dvc.fetch(ws, {"data/a.csv": pin})
    assert "expected int" in caught.value.why


@pytest.fixture
def imported(ws: Path, template: Path, tmp_path: Path) -> dict[str, DvcPin]:
    """A file of another DVC repository: only its .dvc file tells where it comes from."""
    shutil.copytree(template, tmp_path / "origin")
    subprocess.run(["git", "add", "-A"], cwd=tmp_path / "origin/ws", check=True)
    git = ["git", "-c", "user.name=n", "-c", "user.email=e", "commit", "-q", "-m", "data"]
    subprocess.run(git, cwd=tmp_path / "origin/ws", check=True)
    run_dvc(ws, "import", "-q", str(tmp_path / "origin/ws"), "data/a.csv", "-o", "data/imported.csv")
    shutil.rmtree(ws.parent / "remote#1")
    tracked = dvc.find_pin(ws, "data/imported.csv")
    assert (tracked.bound, tracked.pin.remote) == (True, None)
    empty_cache(ws)
    return {"data/imported.csv": tracked.pin}


@pytest.fixture
def held_lock(ws: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD_LOCK, str(ws / ".dvc/tmp/lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/") as holder:
        yield holder
        if holder.poll() is None:
            release(holder)


def release(holder: subprocess.Popen[str]) -> None:
    holder.communicate("")


def test_import_is_fetched_once_the_lock_is_free(
    ws: Path, imported: dict[str, DvcPin], held_lock: subprocess.Popen[str]
) -> None:
    assert held_lock.stdout is not None
    assert held_lock.stdout.readline() == "held\n"
    waits: list[str] = []

    def on_wait(message: str) -> None:
        waits.append(message)
        release(held_lock)

    dvc.fetch(ws, imported, on_wait=on_wait)
    assert waits == [f"waiting for another DVC command in {ws}"]
    assert not any(dvc.missing_objects(dvc.cache_dir(ws), path, pin) for path, pin in imported.items())


def test_lock_that_stays_held_is_reported(
    ws: Path, imported: dict[str, DvcPin], held_lock: subprocess.Popen[str]
) -> None:
    assert held_lock.stdout is not None
    assert held_lock.stdout.readline() == "held\n"
    with pytest.raises(OutsideError, match="DVC is busy"):
        dvc.fetch(ws, imported, lock_wait_s=0)


def test_held_lock_does_not_hinder_a_fetch_by_content(ws: Path, held_lock: subprocess.Popen[str]) -> None:
    pin = dvc.find_pin(ws, "data/a.csv").pin
    empty_cache(ws)
    dvc.fetch(ws, {"data/a.csv": pin}, lock_wait_s=0)
    assert dvc.missing_objects(dvc.cache_dir(ws), "data/a.csv", pin) == ()


def test_every_error_says_why_and_what_next(ws: Path) -> None:
    with pytest.raises(ReplayError) as caught:
        dvc.find_pin(ws, "data/none.csv")
    assert caught.value.what and caught.value.why and caught.value.next
