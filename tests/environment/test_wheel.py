"""Unpacking one wheel: what comes out, and what is refused."""

from __future__ import annotations

import hashlib
import stat
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.environment import wheel as wheel_module
from runner.environment.layout import EPOCH, PROGRAM, PYTHON, Interpreter
from runner.environment.wheel import unpack
from runner.errors import ReplayError, TamperedError, UnrebuildableError, UsageError
from runner.state.digest import Digest
from runner.state.spec import Wheel

ENTRY_POINTS = "[console_scripts]\nhello = pkg.cli:main.run\n[gui_scripts]\nwindow = pkg:show\n"
FILES = {
    "pkg/__init__.py": "",
    "pkg/tool.sh": "#!/bin/sh\n",
    "pkg/naïve/データ.txt": "é",
    "pkg/__pycache__/__init__.cpython-311.pyc": b"foreign",
    "pkg-1.0.data/purelib/pure.py": "",
    "pkg-1.0.data/platlib/plat.py": "",
    "pkg-1.0.data/scripts/script": "#!python -u\nprint(1)\n",
    "pkg-1.0.data/scripts/hello": "#!python\nraise SystemExit\n",
    "pkg-1.0.data/scripts/shell": "#!/bin/sh\nexit 0\n",
    "pkg-1.0.data/data/share/pkg/data.txt": "d",
    "pkg-1.0.data/headers/pkg.h": "h",
    "pkg-1.0.dist-info/INSTALLER": "pip",
    "pkg-1.0.dist-info/REQUESTED": "",
    "pkg-1.0.dist-info/direct_url.json": "{}",
    "pkg-1.0.dist-info/licenses/LICENSE": "free",
}


class Unpacked:
    def __init__(self, shelf: Any, interpreter: Interpreter, into: Path) -> None:
        self._shelf, self._interpreter, self._into = shelf, interpreter, into

    def __call__(self, wheel: Wheel) -> tuple[dict[str, Any], Path]:
        entries = unpack(self._shelf.find(Digest(wheel.sha256)), wheel, self._into, self._interpreter)
        return {entry.path: entry for entry in entries}, self._into


@pytest.fixture
def unpacked(shelf: Any, interpreter: Interpreter, tmp_path: Path) -> Unpacked:
    return Unpacked(shelf, interpreter, tmp_path / "a" / "root")


@pytest.fixture
def site(interpreter: Interpreter) -> str:
    return interpreter.site_packages


def test_every_scheme_has_its_place(shelf: Any, unpacked: Unpacked, site: str, interpreter: Interpreter) -> None:
    entries, root = unpacked(shelf.make("pkg", FILES, entry_points=ENTRY_POINTS, programs=["pkg/tool.sh"]))
    assert set(entries) == {
        f"{site}/pkg/__init__.py",
        f"{site}/pkg/tool.sh",
        f"{site}/pkg/naïve/データ.txt",
        f"{site}/pure.py",
        f"{site}/plat.py",
        f"{site}/pkg-1.0.dist-info/METADATA",
        f"{site}/pkg-1.0.dist-info/WHEEL",
        f"{site}/pkg-1.0.dist-info/RECORD",
        f"{site}/pkg-1.0.dist-info/entry_points.txt",
        f"{site}/pkg-1.0.dist-info/licenses/LICENSE",
        "bin/hello",
        "bin/window",
        "bin/script",
        "bin/shell",
        "share/pkg/data.txt",
        f"include/site/python{interpreter.series}/pkg/pkg.h",
    }
    on_disk = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert on_disk == set(entries)
    assert {path for path, entry in entries.items() if entry.mode == PROGRAM} == {
        "bin/hello",
        "bin/window",
        "bin/script",
        "bin/shell",
        f"{site}/pkg/tool.sh",
    }


def test_modes_and_times_are_fixed(shelf: Any, unpacked: Unpacked) -> None:
    entries, root = unpacked(shelf.make("pkg", FILES, entry_points=ENTRY_POINTS))
    for path, entry in entries.items():
        found = (root / path).stat()
        assert stat.S_IMODE(found.st_mode) == int(entry.mode, 8) & 0o777
        assert (found.st_mtime_ns, found.st_size) == (EPOCH * 10**9, entry.size)


def test_scripts_name_the_interpreter_of_the_environment(shelf: Any, unpacked: Unpacked) -> None:
    _, root = unpacked(shelf.make("pkg", FILES, entry_points=ENTRY_POINTS))
    assert (root / "bin/script").read_text() == f"#!{PYTHON}\nprint(1)\n"
    assert (root / "bin/shell").read_text() == "#!/bin/sh\nexit 0\n"
    launcher = (root / "bin/hello").read_text()
    assert launcher.startswith(f"#!{PYTHON}\n")
    assert "from pkg.cli import main" in launcher and "sys.exit(main.run())" in launcher


def test_record_lists_what_is_there(shelf: Any, unpacked: Unpacked, site: str) -> None:
    entries, root = unpacked(shelf.make("pkg", FILES, entry_points=ENTRY_POINTS))
    lines = (root / site / "pkg-1.0.dist-info/RECORD").read_text().splitlines()
    assert lines == sorted(lines)
    listed = {(root / site / line.split(",")[0]).resolve().relative_to(root).as_posix() for line in lines}
    assert listed == set(entries)
    assert "pkg-1.0.dist-info/RECORD,," in lines


def test_unpacking_repeats(shelf: Any, interpreter: Interpreter, tmp_path: Path) -> None:
    wheel = shelf.make("pkg", FILES, entry_points=ENTRY_POINTS)
    once, again = (unpack(shelf.find(wheel.sha256), wheel, tmp_path / name, interpreter) for name in "xy")
    assert once == again


def test_the_data_folder_may_be_spelt_unlike_the_file_name(shelf: Any, unpacked: Unpacked) -> None:
    files = {"My.Pkg-1.0.data/data/share/x": "x"}
    wheel = shelf.make("My.Pkg", files, wheel="my_pkg-1.0-py3-none-any.whl")
    entries, _ = unpacked(wheel)
    assert "share/x" in entries


# --- refused ----------------------------------------------------------------------------------------------


def refusal(unpacked: Unpacked, wheel: Wheel, kind: type[ReplayError]) -> str:
    with pytest.raises(kind) as caught:
        unpacked(wheel)
    assert type(caught.value) is kind
    assert wheel.wheel in caught.value.what
    assert caught.value.next
    return caught.value.why


def test_a_missing_wheel(shelf: Any, unpacked: Unpacked) -> None:
    wheel = shelf.make("pkg")
    shelf.find(wheel.sha256).unlink()
    refusal(unpacked, wheel, UnrebuildableError)


def test_other_bytes_than_those_locked(shelf: Any, unpacked: Unpacked) -> None:
    wheel = shelf.make("pkg")
    file = shelf.find(wheel.sha256)
    file.write_bytes(file.read_bytes() + b"\0")
    assert wheel.sha256 in refusal(unpacked, wheel, TamperedError)


def _forge(lines: dict[str, str]) -> None:
    lines["pkg/a.py"] = lines["pkg/b.py"].replace("pkg/b.py", "pkg/a.py")


def _forget(lines: dict[str, str]) -> None:
    del lines["pkg/a.py"]


def _invent(lines: dict[str, str]) -> None:
    lines["pkg/c.py"] = lines["pkg/a.py"].replace("pkg/a.py", "pkg/c.py")


def _unhash(lines: dict[str, str]) -> None:
    lines["pkg/a.py"] = "pkg/a.py,,"


@pytest.mark.parametrize(
    ("spoil", "said"), [(_forge, "pkg/a.py"), (_forget, "pkg/a.py"), (_invent, "pkg/c.py"), (_unhash, "pkg/a.py")]
)
def test_content_that_record_does_not_vouch_for(shelf: Any, unpacked: Unpacked, spoil: Any, said: str) -> None:
    wheel = shelf.make("pkg", {"pkg/a.py": "a = 1\n", "pkg/b.py": "b = 1\n"}, record=spoil)
    assert said in refusal(unpacked, wheel, TamperedError)


def test_record_may_spell_hashes_in_hex(shelf: Any, unpacked: Unpacked, site: str) -> None:
    def spell(lines: dict[str, str]) -> None:
        lines["pkg/a.py"] = f"pkg/a.py,sha256={hashlib.sha256(b'a = 1').hexdigest()},5"

    entries, _ = unpacked(shelf.make("pkg", {"pkg/a.py": "a = 1"}, record=spell))
    assert f"{site}/pkg/a.py" in entries


def test_a_weak_hash_in_record(shelf: Any, unpacked: Unpacked) -> None:
    def weaken(lines: dict[str, str]) -> None:
        lines["pkg/a.py"] = "pkg/a.py,md5=1B2M2Y8AsgTpgAmY7PhCfg,0"

    assert "md5" in refusal(unpacked, shelf.make("pkg", {"pkg/a.py": ""}, record=weaken), UsageError)


HOSTILE = ["../evil", "/evil", "pkg/../../evil", "./evil", "pkg//evil", "pkg\\..\\evil", "pkg/\nevil", "pkg/evil\0.py"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_lead_outside(shelf: Any, unpacked: Unpacked, tmp_path: Path, name: str) -> None:
    placeholder = name.replace("\0", "@")

    def add(archive: zipfile.ZipFile) -> None:
        archive.writestr(placeholder, "evil")

    wheel = shelf.make("pkg", archive=add)
    file = shelf.find(wheel.sha256)
    file.write_bytes(file.read_bytes().replace(placeholder.encode(), name.encode()))
    wheel = shelf.keep(file, "pkg", "1.0", wheel.wheel)
    assert "evil" in refusal(unpacked, wheel, UsageError)
    assert not list(tmp_path.rglob("*evil*"))


def test_scripts_whose_names_lead_outside(shelf: Any, unpacked: Unpacked, tmp_path: Path) -> None:
    wheel = shelf.make("pkg", {"pkg.py": ""}, entry_points="[console_scripts]\n../../evil = pkg:main\n")
    assert "evil" in refusal(unpacked, wheel, UsageError)
    assert not list(tmp_path.rglob("*evil*"))


def test_links(shelf: Any, unpacked: Unpacked) -> None:
    def add(archive: zipfile.ZipFile) -> None:
        link = zipfile.ZipInfo("pkg/link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")

    assert "pkg/link" in refusal(unpacked, shelf.make("pkg", archive=add), UsageError)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice(shelf: Any, unpacked: Unpacked) -> None:
    wheel = shelf.make("pkg", {"pkg/a.py": ""}, archive=lambda archive: archive.writestr("pkg/a.py", "evil"))
    assert "twice" in refusal(unpacked, wheel, UsageError)


CLASHES = [
    {"a.py": "1", "pkg-1.0.data/purelib/a.py": "2"},
    {"a": "1", "pkg-1.0.data/purelib/a/b.py": "2"},
    {"a/b.py": "1", "pkg-1.0.data/purelib/a": "2"},
    {"x" * 300: "1"},
]


@pytest.mark.parametrize("files", CLASHES, ids=["file-file", "file-folder", "folder-file", "too-long"])
def test_files_that_have_no_place(shelf: Any, unpacked: Unpacked, files: dict[str, str]) -> None:
    assert "cannot be written" in refusal(unpacked, shelf.make("pkg", files), UsageError)


def test_more_than_the_limit(shelf: Any, unpacked: Unpacked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel_module, "LARGEST_WHEEL", 100_000)
    wheel = shelf.make("pkg", {"pkg/zeros": bytes(100_001)})
    assert "limit is 100000" in refusal(unpacked, wheel, UsageError)


def test_a_size_that_the_archive_understates(shelf: Any, unpacked: Unpacked) -> None:
    wheel = shelf.make("pkg", {"pkg/zeros": bytes(5000)})
    file = shelf.find(wheel.sha256)
    lying = file.read_bytes().replace(struct.pack("<L", 5000), struct.pack("<L", 50))
    file.write_bytes(lying)
    refusal(unpacked, shelf.keep(file, "pkg", "1.0", wheel.wheel), UsageError)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metadata": "Name: other\nVersion: 1.0\n"}, "other"),
        ({"metadata": "Name: pkg\nVersion: 2.0\n"}, "2.0"),
        ({"metadata": "Name: pkg\nVersion: ?\n"}, "?"),
        ({"metadata": "Version: 1.0\n"}, "None"),
        ({"wheel": "pkg-3.0-py3-none-any.whl"}, "3.0"),
        ({"wheel": "other-1.0-py3-none-any.whl"}, "other"),
        ({"wheel": "pkg-1.0-cp312-cp312-linux_x86_64.whl"}, "cp312"),
        ({"wheel": "pkg.zip"}, "pkg.zip"),
        ({"entry_points": "[console_scripts]\nx = no function\n"}, ""),
        ({"entry_points": "no section\n"}, ""),
    ],
)
def test_wheels_that_contradict_themselves(shelf: Any, unpacked: Unpacked, change: Any, said: str) -> None:
    assert said in refusal(unpacked, shelf.make("pkg", **change), UsageError)


def test_the_lock_must_agree_too(shelf: Any, unpacked: Unpacked) -> None:
    wheel = shelf.make("pkg")
    assert "the lock" in refusal(unpacked, Wheel("pkg", "1.1", wheel.wheel, wheel.sha256), UsageError)


@pytest.mark.parametrize("content", [b"", b"PK", b"not a wheel at all"])
def test_what_is_no_archive(shelf: Any, unpacked: Unpacked, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "pkg-1.0-py3-none-any.whl"
    file.write_bytes(content)
    refusal(unpacked, shelf.keep(file, "pkg", "1.0"), UsageError)


def test_an_archive_without_metadata(shelf: Any, unpacked: Unpacked, tmp_path: Path) -> None:
    file = tmp_path / "pkg-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("pkg.py", "")
    assert "dist-info" in refusal(unpacked, shelf.keep(file, "pkg", "1.0"), UsageError)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(position=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), length=st.integers(1, 4))
def test_no_damage_leads_outside_or_past_the_errors(
    shelf: Any,
    interpreter: Interpreter,
    tmp_path_factory: pytest.TempPathFactory,
    position: float,
    value: int,
    length: int,
) -> None:
    """Whatever bytes of a wheel are changed: it unpacks to something listed, or one of our errors says why not."""
    data = bytearray(shelf.find(shelf.make("pkg", FILES, entry_points=ENTRY_POINTS).sha256).read_bytes())
    start = int(position * len(data))
    data[start : start + length] = bytes([value]) * len(data[start : start + length])
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "w.whl").write_bytes(data)
    wheel = shelf.keep(folder / "w.whl", "pkg", "1.0", "pkg-1.0-py3-none-any.whl")
    try:
        entries = unpack(shelf.find(wheel.sha256), wheel, folder / "root", interpreter)
    except ReplayError:
        assert {path.name for path in folder.iterdir()} <= {"root"}
        return
    found = {path.relative_to(folder / "root").as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {entry.path for entry in entries}
