"""Which files a judge's command names: another content of them is another judge."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from runner.state.digest import digest_file
from runner.tools.judge_program import files_of


def test_files_are_told_by_whole_paths_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["judge.sh", "in a.txt", "home.txt", "other.txt"]
    for name in names:
        (tmp_path / name).write_text(name)
    (tmp_path / "log").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path))
    command = (
        f'! {tmp_path}/judge.sh "$HOME/in a.txt"; nothing <~/home.txt >>{tmp_path}/log 2>&1|({tmp_path}/other.txt)'
    )
    assert files_of(command) == {str(tmp_path / name): digest_file(tmp_path / name) for name in sorted(names)}


def test_programs_are_looked_up_and_outputs_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    program = shutil.which("sh")
    assert program and list(files_of("sh ./m.json m.json")) == [program]


@pytest.mark.parametrize("command", ["", "grep 'never closed", "/nowhere/judge.sh /", "exit 125"])
def test_what_names_no_file_has_none(command: str) -> None:
    assert files_of(command) == {}
