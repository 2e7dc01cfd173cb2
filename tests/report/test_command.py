"""`replay report`, on stores with nights."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from runner.errors import Exit
from runner.state.night import Trouble
from tests.conftest import Workspace
from tests.report.kept import keep
from tests.report.made import FILES, PINS, diverged, night_of, nights, run_of


@pytest.fixture
def kept(workspace: Workspace) -> Workspace:
    keep(workspace.root, nights(20, 4), FILES)
    return workspace


def test_the_last_night_is_told_in_a_few_lines(kept: Workspace) -> None:
    done = kept.replay("report")
    assert done.code == 0, done
    first, *rest = done.out.splitlines()
    assert first == "nightly, 27 Aug 2026, 03:00 UTC: 1 regressed, 1 flaky, 1 failing, 1 not run"
    assert rest[0].split()[:2] == ["regressed", "diverged"] and "cause: scikit-learn 1.3.2 → 1.4.0" in rest[0]
    assert rest[-1] == "pins in danger: 2 pins"


def test_a_quiet_night_is_a_line_whatever_else_is_counted(workspace: Workspace) -> None:
    last = tuple(msgspec.structs.replace(pin, places=("store",)) for pin in PINS)
    lost = tuple(msgspec.structs.replace(pin, places=()) for pin in PINS)
    latest, failed = ("dependencies=latest",), "the original failed, too"
    runs = run_of(evidence=(failed,)), run_of("b-20261120-bbbbbb")
    keep(
        workspace.root,
        [
            night_of(*runs, name="a", pins=last, setting=latest, as_recorded=1),
            night_of(*runs, name="b", pins=lost),
            night_of(*runs, name="c", left_out=8),
            night_of(*runs, name="d", setting=latest, as_recorded=2),
            night_of(*runs, name="e", gone=("c-20261120-cccccc",)),
        ],
    )
    assert workspace.replay("nights", "a").out == (
        "QUIET  a --set dependencies=latest: 2 runs: 2 steady; 1 of 2 runs is as recorded: nothing newer fits its "
        "requirements; 2 pins are down to their last copies (`replay pins`)\n"
    )
    first, *rest = workspace.replay("nights", "b").out.splitlines()
    assert first == "NO WORSE  b: 2 runs: 2 steady" and [line.split()[0] for line in rest] == ["lost", "lost"]
    assert workspace.replay("nights", "c").out == ("NO WORSE  c: 2 runs: 2 steady; 8 not looked at for want of time\n")
    assert workspace.replay("nights", "d").out.startswith("NO WORSE  d --set dependencies=latest: 2 runs: 2 steady; ")
    assert workspace.replay("nights", "e").out == (
        "NO WORSE  e: 2 runs: 2 steady\n1 run of last night is gone: c-20261120-cccccc\n"
    )
    told = [workspace.replay("report", name).out for name in "bcde"]
    assert len(told) == 4 and not any("quiet" in one for one in told), told


def test_a_night_in_which_nothing_ran_says_nothing_of_what_got_worse(workspace: Workspace) -> None:
    trouble = Trouble(Exit.OUTSIDE, "no container engine answers", "connection refused", "start it")
    stuck = run_of(verdict="not-run", moved="not-run", error=trouble)
    keep(workspace.root, [night_of(stuck, name="a"), night_of(stuck, run_of("b-20261120-bbbbbb"), name="b")])
    assert workspace.replay("nights", "a").out.startswith("NOTHING RAN  a: 1 run: 1 not-run")
    assert workspace.replay("nights", "b").out.startswith("NO WORSE  b: 2 runs: ")


def test_older_nights_are_listed_in_json_and_counted_in_text(workspace: Workspace) -> None:
    named = [f"n{number:02}" for number in range(22)]
    keep(workspace.root, [night_of(run_of(), name=name) for name in named])
    found = workspace.replay("nights")
    assert [line.split()[0] for line in found.out.splitlines()] == named[:1:-1], found
    assert found.err == "2 older nights are not shown; --json has them\n"
    whole = workspace.replay("nights", "--json")
    assert [one["night"] for one in whole.json["nights"]] == named and not whole.err


def test_a_folder_holds_the_page_and_only_what_it_needs(kept: Workspace) -> None:
    for _ in range(2):
        kept.write("out/artifacts/mine.txt", "mine")
        kept.write(f"out/artifacts/{'0' * 32}.png", "of an earlier night")
        done = kept.replay("report", "--html", "out", "--one-file", "mail/page.html", "--json")
        assert done.code == 0, done
        assert done.json["written"] == ["out/index.html", "mail/page.html"] and done.json["nights"] == 4
        assert done.json["moved"]["regressed"] == 1
    beside = sorted(path.name for path in (kept.root / "out/artifacts").iterdir())
    assert len(beside) == 4 and "mine.txt" in beside and f"{'0' * 32}.png" not in beside
    assert b"data:image/png" in (kept.root / "mail/page.html").read_bytes()
    assert b"data:image/png" not in (kept.root / "out/index.html").read_bytes()


def test_nights_are_named_by_how_they_begin_and_suites_by_name(kept: Workspace) -> None:
    weekly = night_of(run_of(), name="weekly-1", suite="weekly", started="2027-01-01T00:00:00Z")
    keep(kept.root, [weekly])
    assert kept.replay("report", "--json").json["suite"] == "weekly"
    assert kept.replay("report", "--suite", "nightly", "--json").json["night"] == "2026-08-27"
    assert kept.replay("report", "2026-08-25", "2026-08-24", "--json").json["night"] == "2026-08-25"
    for arguments in (["2026"], ["x"], ["--suite", "other"], ["weekly-1", "2026-08-24"], ["x", "--suite", "weekly"]):
        done = kept.replay("report", *arguments, "--json")
        assert done.code == 2 and done.json["error"]["what"], done


def test_nights_that_vary_something_have_a_history_of_their_own(kept: Workspace) -> None:
    for day in ("11", "12"):
        varied = night_of(
            run_of(), name=f"v{day}", started=f"2027-01-{day}T00:00:00Z", setting=("dependencies=latest",)
        )
        keep(kept.root, [varied])
    told = kept.replay("report", "--json").json
    assert (told["night"], told["nights"], told["setting"]) == ("v12", 2, ["dependencies=latest"])
    assert kept.replay("report").out.startswith("nightly --set dependencies=latest, 12 Jan 2027, 00:00 UTC: ")
    assert "\nv11 --set dependencies=latest  1 run: 1 steady\n" in kept.replay("nights").out
    assert kept.replay("nights", "v11").out == "QUIET  v11 --set dependencies=latest: 1 run: 1 steady\n"
    assert "2026-08-27  " in kept.replay("nights").out


def test_what_is_not_there_or_is_damaged_is_said(workspace: Workspace) -> None:
    keep(workspace.root, [])
    assert "no night here yet" in workspace.replay("report").err
    keep(workspace.root, [night_of(run_of(), name="a")])
    (workspace.store / "nights/a/night.json").write_text("{")
    done = workspace.replay("report")
    assert done.code == 5 and "night.json is no night" in done.err


def test_files_outside_of_the_night_are_not_read(workspace: Workspace) -> None:
    workspace.write("secret.txt", "do not tell")
    run = diverged("a-20261120-aaaaaa")
    files = [artifact.file for artifact in run.artifacts]
    keep(workspace.root, [night_of(run, name="a")], FILES)
    folder = workspace.store / "nights/a"
    (folder / "log.txt").unlink()
    (folder / "log.txt").symlink_to(workspace.root / "secret.txt")
    text = (folder / "night.json").read_text().replace(files[0], "../../../secret.txt")
    (folder / "night.json").write_text(text)
    assert workspace.replay("report", "--one-file", "p.html").code == 0
    assert "do not tell" not in Path(workspace.root / "p.html").read_text()


def test_a_folder_that_cannot_be_written_is_an_error_with_a_way_out(kept: Workspace) -> None:
    (kept.root / "file").write_text("")
    done = kept.replay("report", "--html", "file/x")
    assert done.code == 7 and "cannot write" in done.err, done
