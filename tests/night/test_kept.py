"""A night whose replays are done is kept, whatever comes while causes and pins are looked at."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest

import runner.cli.nightly
import runner.nightly
from runner.cli.main import run as command
from runner.errors import Exit, InterruptedRunError, OutsideError
from runner.nightly import Clock, Kept, Request, run_night
from runner.replaying import Finding, Told
from runner.report.words import headline
from runner.state.night import Moving, Night, NightRun, PinTrouble
from runner.store.nights import Nights
from tests.attest.made import Signed

ONE, TWO = "train-20261120-aaaaaa", "train-20261120-bbbbbb"
LOST = PinTrouble("data", "d.csv", "sha256:" + "ab" * 32, (), (ONE,))
CAUSE = (Moving("code", "src.txt"),)


class Workers:
    """Every run differs, for a variation ran another state."""

    def __init__(self, at_end: Callable[[], None] = lambda: None) -> None:
        self.stop = at_end

    def submit(self, run_ids: tuple[str, ...], /) -> Future[Told]:
        done: Future[Told] = Future()
        done.set_result(Told(tuple(Finding(run_id=one, verdict="diverged", replay="r", ran="s") for one in run_ids)))
        return done


class Made:
    """A workspace with two runs, and nights of it."""

    def __init__(self, signed: Signed) -> None:
        self.signed = signed
        for run_id in (ONE, TWO):
            self.signed.run(run_id)
        self.nights = Nights(self.signed.store)

    def night(
        self,
        *,
        workers: Workers | None = None,
        pins: Callable[[list[str]], tuple[PinTrouble, ...] | None] = lambda _: (LOST,),
        keep: Callable[[Night], None] | None = None,
    ) -> Kept:
        return run_night(
            self.signed.workspace,
            self.nights,
            Request(bisect=True),
            workers or Workers(),
            Clock(),
            lambda _run: None,
            lambda: pytest.fail("no engine here"),
            pins,
            keep=keep,
        )

    def kept(self) -> Night:
        """The one night of the history."""
        (head,) = self.nights.heads()
        return self.nights.night(head.night)


@pytest.fixture
def made(signed: Signed) -> Made:
    return Made(signed)


def looking(monkeypatch: pytest.MonkeyPatch, *found: Callable[[], None]) -> list[str]:
    """What each bisect in turn comes to: its cause, unless that raises. The runs whose causes were looked for."""
    turns, asked = iter(found), []

    def bisected(_here: Any, run: NightRun, _workers: int, _left: float | None) -> NightRun:
        asked.append(run.run_id)
        next(turns)()
        return msgspec.structs.replace(run, cause=CAUSE, proven=True)

    monkeypatch.setattr(runner.nightly, "bisected", bisected)
    return asked


def fine() -> None:
    pass


def interrupted() -> None:
    raise InterruptedRunError("interrupted")


def pressed() -> None:
    raise KeyboardInterrupt


def broken(_run_ids: list[str]) -> tuple[PinTrouble, ...]:
    raise IndexError("at 7")


def facts(night: Night) -> list[tuple[str, bool, list[str]]]:
    """Of each run, whether its cause is known, and what is said where it is not."""
    return [(run.run_id, run.proven, [line for line in run.evidence if "no cause" in line]) for run in night.runs]


def test_a_night_that_is_looked_at_to_its_end_says_nothing_of_that(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    looking(monkeypatch, fine, fine)
    ended = made.night()
    assert ended.trouble is None and ended.night == made.kept()
    assert (ended.night.not_looked_at, ended.night.pins) == ((), (LOST,))
    assert facts(ended.night) == [(ONE, True, []), (TWO, True, [])]


@pytest.mark.parametrize("stop", [interrupted, pressed])
def test_an_interrupted_search_for_causes_loses_neither_the_night_nor_what_was_found(
    made: Made, monkeypatch: pytest.MonkeyPatch, stop: Callable[[], None]
) -> None:
    asked = looking(monkeypatch, fine, stop)
    ended = made.night()
    assert asked == [ONE, TWO]
    assert ended.trouble and ended.trouble.code == Exit.INTERRUPTED
    assert ended.night == made.kept()
    assert ended.night.not_looked_at == ("causes", "pins") and not ended.night.is_whole
    told = f"no cause was looked for to an end: `replay bisect {TWO} r`"
    assert facts(ended.night) == [(ONE, True, []), (TWO, False, [told])]
    assert "causes and pins were not looked at" in headline(ended.night)


def test_what_is_killed_while_causes_are_looked_for_is_kept_as_it_was_then(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Night] = []
    looking(monkeypatch, lambda: seen.append(made.kept()), lambda: seen.append(made.kept()))
    made.night()
    assert [night.not_looked_at for night in seen] == [("causes", "pins")] * 2
    assert [[proven for _, proven, _ in facts(night)] for night in seen] == [[False, False], [True, False]]
    assert all(told for _, proven, told in facts(seen[0]))


@pytest.mark.parametrize(
    ("pins", "code"),
    [
        (broken, Exit.INTERNAL),
        (lambda _: (_ for _ in ()).throw(OutsideError("no remote")), Exit.OUTSIDE),
        (lambda _: (_ for _ in ()).throw(OSError(28, "No space left", "/x")), Exit.OUTSIDE),
        (lambda _: (_ for _ in ()).throw(KeyboardInterrupt), Exit.INTERRUPTED),
    ],
)
def test_no_error_while_pins_are_looked_at_loses_the_night(
    made: Made, monkeypatch: pytest.MonkeyPatch, pins: Any, code: Exit
) -> None:
    looking(monkeypatch, fine, fine)
    ended = made.night(pins=pins)
    assert ended.trouble and ended.trouble.code == code
    assert ended.night == made.kept() and ended.night.not_looked_at == ("pins",)
    assert headline(ended.night).endswith("; pins were not looked at")


def test_pins_that_could_not_be_looked_at_make_no_quiet_night(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    looking(monkeypatch, fine, fine)
    ended = made.night(pins=lambda _: None)
    assert ended.trouble is None and ended.night.not_looked_at == ("pins",)


def test_an_interrupt_after_the_last_replay_loses_no_night(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = looking(monkeypatch)
    ended = made.night(workers=Workers(pressed))
    assert not asked, "somebody wants to stop"
    assert ended.trouble and ended.trouble.code == Exit.INTERRUPTED
    assert made.kept().not_looked_at == ("causes", "pins")


def test_an_interrupt_before_it_leaves_none(made: Made) -> None:
    workers = Workers()
    monkey = workers.submit

    def submit(run_ids: tuple[str, ...], /) -> Future[Told]:
        if TWO in run_ids:
            raise KeyboardInterrupt
        return monkey(run_ids)

    workers.submit = submit  # type: ignore[method-assign]
    with pytest.raises(InterruptedRunError):
        made.night(workers=workers)
    assert not made.nights.heads()


def test_a_night_that_cannot_be_kept_at_all_is_an_error(made: Made) -> None:
    def keep(_night: Night) -> None:
        raise OSError(28, "No space left", "/x")

    with pytest.raises(OSError, match="No space left"):
        made.night(keep=keep)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_reports_such_a_night_and_ends_as_interrupted(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    looking(monkeypatch, fine, lambda: os.kill(os.getpid(), number))
    monkeypatch.setattr(runner.cli.nightly, "_workers", lambda _workspace, request, *_: (request, Workers()))
    monkeypatch.chdir(made.signed.root)
    told = {"on_regression": ["sh", "-c", "cat >told.json"]}
    (made.signed.root / "replay.yaml").write_text(json.dumps({"version": 1, "jobs": {}, "suites": {"nightly": told}}))
    code = command(["nightly", "--bisect", "--json", "--junit", "j.xml", "--html", "page"])
    out, err = capsys.readouterr()
    assert code == 130 and "warning: interrupted" in err
    printed = json.loads(out)
    assert printed["not_looked_at"] == ["causes", "pins"]
    assert [run.get("proven", False) for run in printed["runs"]] == [True, False]
    assert made.kept().night == printed["night"]
    assert "causes and pins were not looked at" in (made.signed.root / "j.xml").read_text()
    assert (made.signed.root / "page" / "index.html").is_file()
    assert json.loads((made.signed.root / "told.json").read_text()) == printed, "no later night tells it again"


def test_the_command_ends_with_what_got_worse_though_pins_met_an_error(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner.cli.nightly, "_pins", lambda *_: broken)
    monkeypatch.setattr(runner.cli.nightly, "_workers", lambda _workspace, request, *_: (request, Workers()))
    monkeypatch.chdir(made.signed.root)
    assert command(["nightly"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("WORSE") and "pins were not looked at" in out.splitlines()[0]
    assert "an error of this tool's own: IndexError: at 7" in err
    assert command(["nightly"]) == 70, "nothing is news"
