"""The command line itself: exit codes and words of what no command has foreseen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.cli.main import run
from runner.cli.output import print_warning
from runner.errors import ReplayWarning, disk_error


def test_without_a_command_it_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("Usage: replay") and said.err == ""


@pytest.mark.parametrize("arguments", [["--nothing"], ["ls", "--nothing"], ["ls", "-n", "x"]])
def test_bad_usage_is_one_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*arguments, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == 2


@pytest.mark.parametrize(
    ("typed", "meant"), [("bisekt a b", "bisect"), ("dif", "diff"), ("--debug nightli", "nightly")]
)
def test_a_mistyped_command_is_told_which_was_meant(
    typed: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".replay").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REPLAY_STORE", raising=False)
    assert run([*typed.split(), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["next"].startswith(f"`replay {meant}`, if that was meant")


@pytest.mark.parametrize("typed", ["caf4ed", "ls --nothing", "show dif"])
def test_what_is_no_mistyped_command_is_told_nothing_of_it(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REPLAY_STORE", raising=False)
    assert run([*typed.split(), "--json"]) == 2
    assert "if that was meant" not in json.loads(capsys.readouterr().out)["error"]["next"]


@pytest.mark.parametrize("command", ["pins", "status", "pull", "ls"])
def test_a_folder_that_is_no_project_is_left_as_it_is(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REPLAY_STORE", raising=False)
    assert run([command]) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["run", "j", "--at", ""], ["run", "j", "--as-of="], ["outputs", "x", "--to", ""]])
def test_an_option_with_an_empty_text_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words, "--json"]) == 2
    assert "empty text" in json.loads(capsys.readouterr().out)["error"]["what"]


def test_a_disk_that_fails_is_no_error_of_this_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "replay.yaml").symlink_to("/proc/self/mem")  # reading it is an input/output error, for root too
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REPLAY_STORE", raising=False)
    assert run(["run", "j", "--json"]) == 7
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], error["why"]) == (7, "Input/output error")


def test_a_folder_that_is_not_there_is_named() -> None:
    assert disk_error(FileNotFoundError(2, "no", "a/.b.tmp"), "write a/b").next == "see that there is a folder a"
    assert disk_error(FileNotFoundError(2, "no", "b"), "write b").next == "look at b"


@pytest.mark.parametrize("arguments", [["ls"], ["gc"], ["show", "x"], ["rm", "x"]])
def test_a_store_that_was_named_wrongly_is_not_made(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state_specs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REPLAY_STORE", raising=False)
    assert run([*arguments, "--store", str(tmp_path / "typo")]) == 2
    assert not (tmp_path / "typo").exists()
    assert run(["ls"]) == 0, "a clone with specs only"
    monkeypatch.setenv("REPLAY_STORE", str(tmp_path / "typo"))
    assert run(arguments) == 2
    assert not (tmp_path / "typo").exists()


def test_a_warning_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    others: list[object] = []
    show = print_warning(lambda *one: others.append(one))
    for message, category in (("a", ReplayWarning), ("b", ReplayWarning), ("a", ReplayWarning), ("a", UserWarning)):
        show(message, category, "file", 1)
    assert capsys.readouterr().err == "warning: a\nwarning: b\n" and len(others) == 1
