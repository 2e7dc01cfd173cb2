"""What is known before a night, of stores whose runs are gone or damaged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from runner.nightly import Request, known
from runner.store.nights import Nights
from runner.store.store import open_store
from runner.workspace import Workspace, open_workspace
from tests.attest.made import Signed
from tests.report.made import night_of, run_of

RUN, OTHER = "train-20261120-aaaaaa", "train-20261120-bbbbbb"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    open_store(tmp_path / ".replay", create=True)
    return open_workspace(tmp_path, None)


def gone(workspace: Workspace, *nights: tuple[str, Sequence[str]], damaged: str = "") -> tuple[str, ...]:
    """Of which runs the next night of `nightly` says that they are gone, after nights of so many suites' runs."""
    kept = Nights(workspace.store)
    for number, (suite, runs) in enumerate(nights):
        name = f"{suite}-20261120-0{number}0000"
        kept.write(night_of(*map(run_of, runs), name=name, suite=suite, started=f"2026-11-20T0{number}:00:00Z"))
        if suite == damaged:
            (kept.folder / name / "night.json").write_text("{")
    return known(workspace, kept, Request(), {}).gone


def test_runs_that_are_gone_are_those_of_the_night_before(workspace: Workspace) -> None:
    assert gone(workspace, ("nightly", [RUN]), ("other", [])) == (RUN,)


def test_a_night_without_runs_has_told_of_those_that_are_gone(workspace: Workspace) -> None:
    assert gone(workspace, ("nightly", [RUN]), ("nightly", [])) == ()


def test_no_night_is_no_trouble_and_neither_is_one_that_is_damaged(workspace: Workspace) -> None:
    assert gone(workspace) == ()
    assert gone(workspace, ("nightly", [RUN]), ("other", []), damaged="other") == (RUN,)


@pytest.mark.parametrize("file", ["spec.yaml", "record.json"])
def test_a_run_that_cannot_be_read_is_still_one_to_replay(tmp_path: Path, file: str) -> None:
    """Whether the index has it from before or not: the night is to tell that it was damaged."""
    made = Signed(tmp_path / "made")
    made.run(RUN)
    made.run(OTHER)

    def candidates() -> list[tuple[str, str]]:
        found = known(made.workspace, Nights(made.store), Request(), {}).candidates
        return [(one.run_id, one.job) for one in found]

    expected = [(RUN, "train"), (OTHER, "train")]
    assert candidates() == expected
    (made.store.runs / RUN / file).write_bytes(b"{")
    assert candidates() == expected
    (made.store.folder / "index.sqlite").unlink()
    assert candidates() == expected


def test_a_replay_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    made = Signed(tmp_path / "made")
    made.run(RUN, replay=True)
    (made.store.runs / RUN / "spec.yaml").write_bytes(b"{")
    assert known(made.workspace, Nights(made.store), Request(), {}).candidates == ()


def test_a_damaged_run_of_which_nothing_tells_that_it_is_none_of_a_night_is_gone(tmp_path: Path) -> None:
    """In the store alone are replays of nights, too."""
    made = Signed(tmp_path / "made")
    made.run(RUN)
    kept = Nights(made.store)
    kept.write(night_of(run_of(RUN), name="nightly-20261120-000000"))
    (made.store.runs / RUN / "spec.yaml").write_bytes(b"{")
    for reviewed in (made.root / "state_specs").iterdir():
        reviewed.unlink()
    found = known(made.workspace, kept, Request(), {})
    assert (found.candidates, found.gone) == ((), (RUN,))
