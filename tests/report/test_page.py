"""The page as bytes: what it says, that it says it alike each time, and that nothing in it is anybody else's markup."""

from __future__ import annotations

import html.parser
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import UsageError
from runner.report.artifacts import LARGEST_FILE, LONGEST_TEXT
from runner.report.history import History, fold
from runner.report.page import page
from runner.state.night import Artifact, BadOutput, Moving, Night, NightRun, PinTrouble, Trouble
from runner.state.record import OutputVerdict, Verdict
from tests.report.made import FILES, PINS, diverged, night_of, nights, png, run_of

HOSTILE = [
    "<script>window.probe = 1</script>",
    '"><img src=x onerror="window.probe = 1">',
    "</script><script>window.probe = 1</script>",
    "'-->]]>&lt;b&gt;<svg onload=window.probe=1>",
    "javascript:window.probe=1",
    "\u202egnp.exe\u2066 \u200b\ufeff",
    "\x1b[31mred\x1b[0m \x9b2J \x07",
    "nul\0byte\r\u2028line",
    "{{constructor.constructor('window.probe=1')()}} ${window.probe=1} $title",
]


def hostile_night(words: str) -> Night:
    """Every text that a stranger has a say in is the same."""
    moving = (Moving(words, words, words, words, words),)
    run = NightRun(
        run_id=words,
        job=words,
        verdict="diverged",
        moved="regressed",
        since=words,
        state_digest=words,
        labels=(words,),
        replay=words,
        started=words,
        worker=words,
        outputs=(OutputVerdict(words, Verdict.DIVERGED, words, words),),
        changes=moving,
        kind=(words,),
        evidence=(words,),
        cause=moving,
        error=Trouble(7, words, words, words),
        artifacts=(
            Artifact("a.csv", words, "text", "original"),
            Artifact("log.txt", words, "log", "replay"),
            Artifact("a.png", words, "image", "replay"),
        ),
        command=words,
    )
    pins = (PinTrouble(words, words, words, (words,), (words,)),)
    return night_of(
        run, name=words, suite=words, started=words, ended=words, on=words, against=words, setting=(words,), pins=pins
    )


def hostile_files(words: str) -> dict[str, bytes]:
    return {"a.csv": words.encode(), "log.txt": words.encode() * 9, "a.png": png(4, 4, (1, 2, 3))}


class Seen(html.parser.HTMLParser):
    """The elements of a page, its data, and the text that is read."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[int, str] = {}
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] in ("script", "style"):
            at = len(self.elements) - 1
            self.raw[at] = self.raw.get(at, "") + data
        else:
            self.text += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]

    @property
    def data(self) -> dict[str, object]:
        at = next(at for at, (_, attributes) in enumerate(self.elements) if attributes.get("id") == "data")
        found: dict[str, object] = json.loads(self.raw[at])
        return found


def seen(history: History, files: dict[str, bytes] = FILES, *, one_file: bool = True) -> Seen:
    return Seen(page(history, files.get, one_file=one_file).html.decode())


@pytest.mark.parametrize("one_file", [True, False])
def test_the_same_nights_give_the_same_bytes(one_file: bool) -> None:
    made = [page(fold(nights(20, 5)), FILES.get, one_file=one_file) for _ in range(2)]
    assert made[0] == made[1]


def test_what_only_the_next_night_needs_is_not_on_the_page() -> None:
    bad = (BadOutput("scores.csv", Verdict.DIVERGED, "sha256:" + "cd" * 32),)
    made = page(fold([night_of(diverged("a-20261120-aaaaaa", bad_outputs=bad))]), FILES.get, one_file=True)
    assert b"cdcdcdcd" not in made.html and b"scores.csv" in made.html


def test_tonight_can_be_read_without_a_script() -> None:
    found = seen(fold(nights(20, 5)))
    for words in ("1 regressed, 1 flaky, 1 failing, 1 not run", "cause: scikit-learn 1.3.2 → 1.4.0", "was identical"):
        assert words in found.text
    assert "3 of 20 replays" in found.text and "the wheel of alpha 1.0 cannot be had again" in found.text
    assert all(pin.name in found.text for pin in PINS) and "lost" in found.text
    assert len(found.all("tr")) == 20 + len(PINS) + len(found.all("thead"))


def test_a_quiet_night_is_quiet() -> None:
    found = seen(fold([night_of(run_of(), run_of("score-20261120-aaaaaa"))]))
    assert "A quiet night: 2 runs as good as before" in found.text
    assert "regressed" not in found.text


def test_what_is_varied_left_out_and_gone_is_said() -> None:
    first = night_of(run_of(), run_of("score-20261120-aaaaaa"), name="2026-11-20")
    last = night_of(run_of(), against=".", setting=("dependencies=latest",), left_out=1200, on="dask://h:1")
    text = seen(fold([first, last])).text
    for words in (
        "--against . --set dependencies=latest",
        "1,200 not looked at for want of time",
        "on dask://h:1",
        "1 run of the night",
    ):
        assert words in text


def test_histories_have_a_letter_for_each_night() -> None:
    a, b = "a-20261120-aaaaaa", "b-20261120-bbbbbb"
    bad = diverged(a, outputs=(OutputVerdict("m.json", Verdict.DIVERGED, "json"),))
    good = run_of(a, outputs=(OutputVerdict("m.json", Verdict.IDENTICAL, "json"),))
    three = [night_of(good, name="1"), night_of(name="2"), night_of(bad, run_of(b, moved="new"), name="3")]
    history = fold(three)
    assert history.runs[a].verdicts == "i.d" and history.runs[b].verdicts == "..i"
    assert history.runs[a].outputs == {"m.json": "i.d"}
    assert [(column.runs, column.bad) for column in history.columns] == [(1, 0), (0, 0), (2, 1)]


def test_no_night_and_two_suites_are_refused() -> None:
    with pytest.raises(UsageError, match="no night"):
        fold([])
    with pytest.raises(UsageError, match="one suite"):
        fold([night_of(run_of()), night_of(run_of(), suite="weekly")])


# --- strangers' text ------------------------------------------------------------------------------------------


def shape(found: Seen) -> list[tuple[str, list[str]]]:
    return [(tag, sorted(attributes)) for tag, attributes in found.elements]


@pytest.mark.parametrize("words", HOSTILE)
def test_no_text_becomes_markup(words: str) -> None:
    plain, hostile = (seen(fold([hostile_night(one)] * 2), hostile_files(one)) for one in ("harmless", words))
    assert shape(plain) == shape(hostile)
    hrefs = [str(attributes["href"]) for attributes in hostile.all("a")]
    assert all(href.startswith("#") for href in hrefs)
    assert len(hostile.all("script")) == 2


HARMLESS = shape(seen(fold([hostile_night("harmless")] * 2), hostile_files("x")))


@given(st.text(max_size=40))
def test_no_text_at_all_becomes_markup_or_hides(words: str) -> None:
    found = seen(fold([hostile_night("a" + words)] * 2), hostile_files("x"))
    assert shape(found) == HARMLESS
    assert all(one.isprintable() or one in "\n\t" for one in found.text)
    assert all(one.isprintable() or one in "\n\t" for one in json.dumps(found.data, ensure_ascii=False))


def test_the_policy_lets_only_this_script_and_style_run() -> None:
    for one_file, images in ((True, "data:"), (False, "'self' file:")):
        found = seen(fold(nights(20, 2)), one_file=one_file)
        (policy,) = [m["content"] for m in found.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
        rules = dict(rule.split(" ", 1) for rule in str(policy).split("; "))
        assert rules["default-src"] == "'none'" and rules["img-src"] == images
        assert re.fullmatch(r"'sha256-[\w+/=]+'", rules["script-src"])
        assert "unsafe" not in str(policy)
        assert not any(
            name in attributes for _, attributes in found.elements for name in ("style", "onclick", "onload")
        )
        assert not any("src" in attributes for _, attributes in found.elements)


# --- files beside and inside ----------------------------------------------------------------------------------


def test_files_are_taken_for_what_their_bytes_say() -> None:
    artifacts = (
        Artifact("x.html", "x", "image", "original"),
        Artifact("y.svg", "y", "text", "replay"),
        Artifact("gone.png", "z", "image", "replay"),
    )
    files = {"x.html": b"<script>1</script>", "y.svg": b"<svg onload=alert(1)>" * 9999}
    made = page(fold([night_of(diverged("a-20261120-aaaaaa", artifacts=artifacts))]), files.get, one_file=False)
    assert [re.sub("[0-9a-f]{32}", "…", path) for path in made.beside] == ["artifacts/….txt"]
    told = Seen(made.html.decode()).data["files"]
    assert isinstance(told, dict)
    assert "no image" in told["0"]["missing"] and "no longer" in told["2"]["missing"]
    assert len(told["1"]["text"]) < LONGEST_TEXT + 100 and told["1"]["whole"] in made.beside


def test_one_file_stays_small_enough_to_be_sent() -> None:
    image = png(4, 4, (0, 0, 0)) + b"\0" * (10 << 20)
    artifacts = tuple(Artifact(f"{n}.png", "x", "image", "replay") for n in range(5))
    history = fold([night_of(diverged("a-20261120-aaaaaa", artifacts=artifacts))])
    made = page(history, lambda name: image, one_file=True)
    assert len(made.html) < LARGEST_FILE + (1 << 20)
    assert b"no room" in made.html and not made.beside


def test_a_thousand_runs_of_ninety_nights_are_a_small_file() -> None:
    made = page(fold(nights(1000, 90)), FILES.get, one_file=True)
    assert len(made.html) < 3 << 20
