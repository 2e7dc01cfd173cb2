"""Every reader of what others wrote, as a function of bytes, for the fuzzers.

The promise: it gives a value, or raises a `ReplayError` in words that fit on a line; never another exception, never
a file outside its folder, and what was read can be written and read again to the same value. A reader that takes
several files, or several kinds of file, gets them as one input, told apart by `SEPARATOR` or by a first byte.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import stat
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import msgspec

from runner import capture, logs, stages
from runner.cli.output import safe
from runner.environment.layout import Interpreter
from runner.environment.project import read_project
from runner.environment.seal import DIGEST, MANIFEST, read_manifest, read_stamps
from runner.environment.wheel import unpack
from runner.errors import ReplayError
from runner.layers import access, code, data, dependencies, image, params
from runner.state import paths, strict
from runner.state.digest import Digest, digest_bytes
from runner.state.spec import DvcPin, Image, Wheel
from runner.store import index
from runner.store.runs import resolve_run_id, run_ids
from runner.store.store import open_store
from runner.tools import containers, debian, docker_context, dvc_config, dvc_files, git, pip, requirements, tar_streams
from runner.tools.dvc_objects import entries, folder_md5
from runner.workspace import Workspace

SEPARATOR = b"\n%%\n"
LONGEST_LINE, MOST_LINES = 1000, 60


class Reader(NamedTuple):
    """`read` gets the input and an empty folder. An error must name one of `named`."""

    read: Callable[[bytes, Path], None]
    named: tuple[str, ...] = ()


READERS: dict[str, Reader] = {}


def reader(*named: str) -> Callable[[Callable[[bytes, Path], None]], Callable[[bytes, Path], None]]:
    def add(read: Callable[[bytes, Path], None]) -> Callable[[bytes, Path], None]:
        READERS[read.__name__] = Reader(read, named)
        return read

    return add


def check(name: str, given: bytes) -> None:
    """Read the input; an `AssertionError`, or whatever else comes out, breaks the promise."""
    read, named = READERS[name]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        try:
            read(given, Path(folder))
        except ReplayError as error:
            _check_error(error, named)


def _check_error(error: ReplayError, named: tuple[str, ...]) -> None:
    for line in (error.what, error.next, *error.why.split("\n")):
        assert len(line) <= LONGEST_LINE and "\n" not in line, f"too long to be read: {line[:200]!r}"
        safe(line).encode()
    assert error.what and error.why.count("\n") < MOST_LINES, repr(error)
    told = f"{error.what} {error.why} {error.next}"
    assert not named or any(name in told for name in named), f"names no file: {told!r}"


def _parts(given: bytes, count: int) -> list[bytes]:
    found = given.split(SEPARATOR, count - 1)
    return found + [b""] * (count - len(found))


def _kind(given: bytes, kinds: int) -> tuple[int, bytes]:
    """A first byte, a digit in the corpus, chooses among kinds of file."""
    return (given[0] - ord("0")) % kinds if given else 0, given[1:]


# --- our own files -------------------------------------------------------------------------------------------


@reader("s.yaml", "the spec of")
def spec(given: bytes, folder: Path) -> None:
    found = strict.load_spec(given, "s.yaml")
    written = strict.dump_spec(found)
    assert strict.load_spec(written, "s.yaml") == found
    assert strict.dump_spec(strict.load_spec(written, "s.yaml")) == written
    assert (folder / found.run.id).parent == folder
    strict.check_digest(found, "s.yaml")


@reader("r.json", "the record of")
def record(given: bytes, folder: Path) -> None:
    found = strict.load_record(given, "r.json")
    written = strict.dump_record(found)
    assert strict.load_record(written, "r.json") == found
    assert strict.dump_record(strict.load_record(written, "r.json")) == written


@reader()
def workfile(given: bytes, folder: Path) -> None:
    (folder / "replay.yaml").write_bytes(given)
    workspace = Workspace(folder, open_store(folder / ".replay", create=True))
    for job in workspace.workfile().jobs.values():
        with contextlib.suppress(ReplayError):
            stages.job_of_stage(folder, job)
        _job(workspace, job)


def _job(workspace: Workspace, job: Any) -> None:
    for path in capture.contract_outputs(job):
        assert path == paths.STDOUT or _lies_inside(path)
    capture.refuse_overlaps(job, capture.contract_outputs(job))
    capture.command_of(job)
    access.limits(job.limits)
    access.read_secrets(job.secrets, workspace.root, {})
    image.image_folder(workspace.root, job.image)
    params.observe(workspace.store, workspace.root, job.params)
    for path in capture.owned_paths(workspace, job):
        assert _lies_inside(path)


@reader("p.")
def parameters(given: bytes, folder: Path) -> None:
    kind, text = _kind(given, 3)
    found = params.parse(text, ("p.yaml", "p.json", "p.toml")[kind])
    strict.check_plain(found, "p.json")
    assert params.parse(json.dumps(found).encode(), "p.json") == found


def _lies_inside(path: str) -> bool:
    return not path.startswith("/") and ".." not in path.split("/") and "\0" not in path


# --- DVC -----------------------------------------------------------------------------------------------------


@reader()
def dvc_file(given: bytes, folder: Path) -> None:
    """A `.dvc` file, or `dvc.yaml` and `dvc.lock`."""
    (folder / ".dvc").mkdir()
    if SEPARATOR in given:
        pipeline, lock = _parts(given, 2)
        (folder / "dvc.yaml").write_bytes(pipeline)
        (folder / "dvc.lock").write_bytes(lock)
    else:
        (folder / "d.dvc").write_bytes(given)
    for path in dvc_files.tracked_paths(folder):
        assert not path.startswith("../")
    for path in ("d", "d/part"):
        found = dvc_files.find_pin(folder, path)
        assert found.path == path
        msgspec.convert(msgspec.to_builtins(found.pin), DvcPin)
        if found.listing:
            entries(path, found.pin, found.listing)


@reader("dvc.yaml", "dvc.lock", "stage", "the command")
def dvc_stage(given: bytes, folder: Path) -> None:
    pipeline, lock = _parts(given, 2)
    (folder / "dvc.yaml").write_bytes(pipeline)
    (folder / "dvc.lock").write_bytes(lock)
    for name in ("s", "t"):
        job = stages.job_of_stage(folder, msgspec.convert({"stage": name, "image": "x"}, capture.Job))
        capture.command_of(job)
        assert all(isinstance(path, str) for path in (*job.data, *job.outputs))


@reader("config", "DVC's cache", "a remote's")
def dvc_configuration(given: bytes, folder: Path) -> None:
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_bytes(given)
    with mock.patch.dict(os.environ, {"DVC_SYSTEM_CONFIG_DIR": "/nowhere", "DVC_GLOBAL_CONFIG_DIR": "/nowhere"}):
        found = dvc_config.load_config(folder)
        for name in (None, *found.remotes):
            shown = dvc_config.remote_url(found, name)
            assert shown is None or isinstance(shown, str)
        assert dvc_config.cache_dir(folder).is_absolute()
        text = dvc_config.config_text({f'remote "{name}"': options for name, options in found.remotes.items()})
        (folder / ".dvc" / "config").write_text(text, encoding="utf-8")
        if all(key.isidentifier() for options in found.remotes.values() for key in options):
            assert dvc_config.load_config(folder).remotes == found.remotes


@reader("d")
def dvc_listing(given: bytes, folder: Path) -> None:
    pin = DvcPin(md5=folder_md5(given), hash="md5")
    for entry in entries("d", pin, given):
        assert _lies_inside(entry.relpath) and len(entry.md5) == 32


# --- packages ------------------------------------------------------------------------------------------------


@reader("dependencies", "r.txt", "s.txt")
def requirement_files(given: bytes, folder: Path) -> None:
    root = folder / "w"
    root.mkdir()
    for name, text in zip(("r.txt", "s.txt"), _parts(given, 2), strict=True):
        (root / name).write_bytes(text)
    found = requirements.read(root, "r.txt")
    assert all(_lies_inside(path) for path in requirements.files(root, "r.txt"))
    for line in found.lines:
        if isinstance(line.source, requirements.FolderSource):
            assert _lies_inside(line.source.path)
    assert all("\n" not in text for text in found.shown())
    assert isinstance(found.hashed, bool)


@reader("dependencies", "pyproject.toml")
def pyproject(given: bytes, folder: Path) -> None:
    (folder / "pyproject.toml").write_bytes(given)
    project = read_project(given, has_src=False)
    if project:
        strict.check_plain(msgspec.to_builtins(project), "pyproject.toml")
    for line in dependencies.read_requirements(folder, "pyproject.toml[x]").lines:
        assert "\n" not in line.text


@reader()
def hashed_lock(given: bytes, folder: Path) -> None:
    """What pip-compile printed, and names of wheels that pip made."""
    lock, names = _parts(given, 2)
    hashed, direct = pip.split_lock(lock.decode(errors="replace"))
    assert isinstance(hashed, str) and isinstance(direct, list)
    said = pip._Said()
    said.write(1, lock)
    assert len(said.telling()) <= 600
    store = open_store(folder / ".replay", create=True)
    for name in names.decode(errors="replace").splitlines()[:5]:
        if name and len(name.encode()) < 250 and not {"/", "\0"} & set(name):
            (folder / name).write_bytes(b"x")
            dependencies.keep_wheel(store, folder / name)


PYTHON = Interpreter(executable="/usr/bin/python3", version="3.11.2", cache_tag="cpython-311", magic="a70d0d0a")


@reader("a-1.0-py3-none-any.whl")
def wheel_archive(given: bytes, folder: Path) -> None:
    """A wheel as it comes, its digest the locked one."""
    _unpack_wheel(given, folder)


@reader("a-1.0-py3-none-any.whl")
def wheel_parts(given: bytes, folder: Path) -> None:
    """A whole zip with metadata and names of any kind: METADATA, WHEEL, entry points, further rows of RECORD, and a
    line for each file, its mode in octal before its name."""
    metadata, wheel, points, rows, names = _parts(given, 5)
    info = "a-1.0.dist-info"
    contents = {f"{info}/METADATA": metadata, f"{info}/WHEEL": wheel, f"{info}/entry_points.txt": points}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        described = dict.fromkeys(contents, 0o644)
        for line in names.decode(errors="replace").split("\n")[:20]:
            mode, _, name = line.partition(" ")
            if name and len(name) < 1000:
                described[name] = (
                    int(mode, 8) & 0o177777 if mode.isascii() and mode.isdecimal() and max(mode) < "8" else 0
                )
        recorded = []
        for name, mode in described.items():
            member = zipfile.ZipInfo()
            member.filename = member.orig_filename = name
            member.external_attr = mode << 16
            content = contents.get(name, b"#!python\n")
            archive.writestr(member, content)
            value = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            quoted = name.replace('"', '""')
            recorded.append(f'"{quoted}",sha256={value},{len(content)}\n')
        text = "".join(recorded).encode(errors="replace") + f"{info}/RECORD,,\n".encode() + rows
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), text)
    _unpack_wheel(out.getvalue(), folder)


def _unpack_wheel(given: bytes, folder: Path) -> None:
    (folder / "file").write_bytes(given)
    wanted = Wheel(name="a", version="1.0", wheel="a-1.0-py3-none-any.whl", sha256=digest_bytes(given))
    try:
        found = unpack(folder / "file", wanted, folder / "into", PYTHON)
    finally:
        assert sorted(os.listdir(folder)) in (["file"], ["file", "into"])
        assert not any(os.path.islink(path) for path in (folder / "into").rglob("*"))
    assert all(_lies_inside(entry.path) for entry in found)


# --- archives ------------------------------------------------------------------------------------------------


@reader()
def tar(given: bytes, folder: Path) -> None:
    """What an engine sends back of a folder."""
    target = folder / "t"
    target.mkdir()
    steps = iter(range(2000))

    def step() -> None:
        if next(steps, None) is None:
            raise tar_streams.OutsideError("stopped")

    pieces = (given[n : n + 700] for n in range(0, len(given), 700))
    try:
        tar_streams.unpack(pieces, target, step)
    finally:
        assert os.listdir(folder) == ["t"]
        for name in target.rglob("*"):
            assert stat.S_IFMT(name.lstat().st_mode) in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO)


@reader()
def saved_image(given: bytes, folder: Path) -> None:
    """A saved image: as it comes, or made of a manifest, a configuration and a layer."""
    kind, rest = _kind(given, 2)
    layer = b""
    if kind == 0:
        manifest, config, layer = _parts(rest, 3)
        out = io.BytesIO()
        with tar_streams.tarfile.open(fileobj=out, mode="w") as made:
            for name, content in {"manifest.json": manifest, "c.json": config, "layer.tar": layer}.items():
                info = tar_streams.tarfile.TarInfo(name)
                info.size = len(content)
                made.addfile(info, io.BytesIO(content))
        rest = out.getvalue()
    store = open_store(folder / ".replay", create=True)
    identity = Image(platform="linux/amd64", diff_ids=(digest_bytes(layer),))
    found = image._unpack_saved(store, iter([rest]), identity)
    assert store.blobs.has(Digest(found.config))
    assert b"".join(image._docker_archive(store, found))


# --- the store -----------------------------------------------------------------------------------------------


@reader()
def store_file(given: bytes, folder: Path) -> None:
    """Each kind of file that the store keeps."""
    kind, content = _kind(given, 12)
    store = open_store(folder / ".replay", create=True)
    place = folder / "file"
    place.write_bytes(content)
    if kind == 0:
        (store.folder / "store.json").write_bytes(content)
        open_store(store.folder, create=False)
    elif kind == 1:
        _listing(store, content)
    elif kind == 2:
        _data_listing(store, content)
    elif kind == 3:
        _archive(store, content)
    elif kind == 4:
        _locks(store, content)
    elif kind == 5:
        with mock.patch.object(data, "_version_path", return_value=place):
            data._known(store, SimpleNamespace())
    elif kind == 6:
        _index_row(place, content)
    elif kind == 7:
        _log(folder, content)
    elif kind == 8:
        debian.load_recipe(place)
    elif kind == 9:
        _manifest(folder, content)
    elif kind == 10:
        (folder / "stamps").write_bytes(content)
        read_stamps(folder)
    else:
        place.unlink()
        _runs(store, folder, content)


def _listing(store: Any, content: bytes) -> None:
    """A list of code files, restored where its blobs are there: each is a short text."""
    target = store.folder.parent / "restored"
    target.mkdir()
    content = _with_blobs(store, content)
    files = code.files_of(store, store.blobs.put_bytes(content))
    assert all(_lies_inside(file.path) for file in files)
    before = _everything(store.folder)
    code.restore(store, files, target)
    assert _everything(store.folder) == before and sorted(os.listdir(store.folder.parent)) == [
        ".replay",
        "file",
        "restored",
    ]


def _data_listing(store: Any, content: bytes) -> None:
    content = data._MARK + _with_blobs(store, content) + b"}"
    digest = store.blobs.put_bytes(content)
    files = data.files_of(store, digest) or ()
    before = _everything(store.blobs.folder)
    with contextlib.suppress(FileNotFoundError):
        data.available(store, digest)
    data.restore(store, digest)
    assert all(_lies_inside(file.path) for file in files)
    assert _everything(store.blobs.folder) == before


BLOBS = (b"../out", b"b", b"/etc")


def _with_blobs(store: Any, content: bytes) -> bytes:
    """`@0` and so on stand for the digests of blobs that are there."""
    for number, blob in enumerate(BLOBS):
        content = content.replace(f"@{number}".encode(), store.blobs.put_bytes(blob).encode())
    return content


def _everything(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_size) for path in folder.rglob("*"))


def _archive(store: Any, content: bytes) -> None:
    identity = Image(platform="linux/amd64", diff_ids=())
    image.archive_path(store, identity).write_bytes(content)
    found = image.archive_of(store, identity)
    assert found is None or all(len(blob) == 71 for blob in (found.config, *found.layers))
    assert all(len(blob) == 71 for blob in image.archived_blobs(store, identity))


def _locks(store: Any, content: bytes) -> None:
    with mock.patch.object(dependencies, "_lock_path", return_value=store.folder.parent / "file"):
        found = dependencies.find_lock(store, store.folder.parent, None, None)  # type: ignore[arg-type]
    assert found is None or all(store.blobs.has(Digest(wheel.sha256)) for wheel in found.wheels)


def _index_row(place: Path, content: bytes) -> None:
    """A row, or a whole database."""
    import sqlite3

    place.unlink()
    if content.startswith(b"SQLite"):
        place.write_bytes(content)
    else:
        with contextlib.closing(sqlite3.connect(place)) as database, database:
            database.execute(index._SCHEMA)
            database.execute("INSERT INTO runs_1 VALUES (?, ?)", ("a", content))
    rows = index.rows(place, [], lambda _id: None)  # type: ignore[arg-type, return-value]
    assert rows == []


def _log(folder: Path, content: bytes) -> None:
    for name in ("stdout", "stderr"):
        (folder / name).write_bytes(name.encode())
    (folder / "order").write_bytes(content)
    found = list(logs.read_log(folder))
    assert b"".join(text for stream, text in found if stream == logs.STDOUT) == b"stdout"


def _manifest(folder: Path, content: bytes) -> None:
    """Damage is a `ValueError` here, which its callers take for it."""
    (folder / MANIFEST).write_bytes(content)
    (folder / DIGEST).write_text(digest_bytes(content))
    with contextlib.suppress(ValueError):
        assert all(_lies_inside(entry.path) for entry in read_manifest(folder))


def _runs(store: Any, folder: Path, content: bytes) -> None:
    """Names of run folders, and what a person may give as a run."""
    part, *names = content.decode(errors="surrogateescape").split("\n")
    for name in names[:5]:
        with contextlib.suppress(OSError, ValueError):
            (store.runs / name).mkdir()
    known = run_ids(store, None)
    assert all("\n" not in run_id and safe(run_id) == run_id for run_id in known)
    for run_id in known:
        assert index.describe(Workspace(folder, store).run(run_id)).run_id == run_id
    with contextlib.suppress(ReplayError):
        assert resolve_run_id(part, known) in known
    Workspace(folder, store).find_run(part)


# --- programs and engines ------------------------------------------------------------------------------------


@reader()
def git_output(given: bytes, folder: Path) -> None:
    """Answers of git, one after the other, the last one to all further questions."""
    answers = given.split(SEPARATOR)
    (folder / "w").mkdir()
    (folder / "w" / ".gitmodules").touch()
    (folder / "outside" / ".git").mkdir(parents=True)

    def answer(where: Path, *_arguments: str, settings: object = None) -> subprocess.CompletedProcess[bytes]:
        assert folder / "w" in (where, *where.parents) and ".." not in where.parts, "git is asked outside"
        said = answers.pop(0) if len(answers) > 1 else answers[0]
        return subprocess.CompletedProcess((), 1 if said.startswith(b"!") else 0, said, said)

    with mock.patch.object(git, "_git", answer):
        for path in git.files(folder / "w"):
            assert "\0" not in path
        found = git.seen(folder / "w")
        assert all(_lies_inside(path) for path in found.submodules)
        with mock.patch.object(git, "is_work_tree", return_value=True):
            for file in code.observe(folder / "w", ()):
                assert _lies_inside(file.path)


@reader()
def engine_answer(given: bytes, folder: Path) -> None:
    """An engine's answers to being asked for an image, its version and containers; the docker client's contexts."""
    kind, content = _kind(given, 3)
    if kind == 0:
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            return
        client = mock.MagicMock(timeout=1.0, **{f"{name}.return_value": answer for name in _ASKED})
        client.load_image.return_value = iter([answer])
        engine = containers.Engine(client, "unix:///fuzz")
        _all_errors(
            lambda: _check_image(engine.image("x")),
            lambda: engine.containers_of("s"),
            engine.version,
            lambda: list(engine.images()),
            lambda: engine.load([b""]),
        )
    elif kind == 1:
        assert containers.refusal_in(content) != ""
    else:
        config, meta = _parts(content, 2)
        (folder / "contexts" / "meta" / "x").mkdir(parents=True)
        (folder / "config.json").write_bytes(config)
        (folder / "contexts" / "meta" / "x" / "meta.json").write_bytes(meta)
        with mock.patch.dict(os.environ, {"DOCKER_CONFIG": str(folder), "DOCKER_CONTEXT": ""}):
            found = docker_context.context_host()
        assert found is None or isinstance(found, str)


_ASKED = ("inspect_image", "containers", "version", "images")


def _check_image(found: Any) -> None:
    if found:
        msgspec.convert(msgspec.to_builtins(found), containers.EngineImage)


def _all_errors(*calls: Callable[[], object]) -> None:
    raised: list[ReplayError] = []
    for call in calls:
        try:
            call()
        except ReplayError as error:
            raised.append(error)
    for error in raised:
        _check_error(error, ())


@reader()
def names(given: bytes, folder: Path) -> None:
    """Paths, references and sizes as people write them."""
    text = given.decode(errors="surrogateescape")
    (folder / "images").mkdir()
    _all_errors(
        lambda: _check_inside(text),
        lambda: image.image_folder(folder, text),
        lambda: access.limits(msgspec.convert({"memory": text, "time": text}, capture.access.JobLimits)),
        lambda: access.read_secrets({"S": text}, folder, {}),
        lambda: params.observe(open_store(folder / ".replay", create=True), folder, text),
        lambda: dvc_files.find_pin(folder, text),
        lambda: requirements.read(folder, text),
        lambda: dependencies.read_requirements(folder, text),
        lambda: Workspace(folder, open_store(folder / ".replay", create=True)).find_run(text),
    )
    shown = git.without_credentials(text)
    assert git.without_credentials(shown) == shown


def _check_inside(text: str) -> None:
    found = paths.inside(text, "path")
    assert _lies_inside(found) and paths.inside(found, "path") == found
    assert not any(ord(character) < 32 or ord(character) == 127 for character in found)


def corpus(name: str) -> Iterator[Path]:
    """The inputs that every fuzzer of that reader starts from, and those that once broke it."""
    for kind in ("corpus", "regressions"):
        folder = Path(__file__).parent / kind / name
        yield from sorted(folder.iterdir()) if folder.is_dir() else ()
