"""The page in a real browser: what it shows, how it is used, that nothing in it is obeyed and nothing is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.report.history import History, fold
from runner.report.page import INDEX, page
from tests.conftest import absent, until
from tests.report.browser import PROGRAMS, Browser, chromium
from tests.report.made import FILES, diverged, night_of, nights, run_of
from tests.report.test_page import HOSTILE, hostile_files, hostile_night

RUNS, NIGHTS = 30, 12


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = chromium()
    if program is None:
        raise absent(f"there is no browser: none of {', '.join(PROGRAMS)}")
    made = Browser(program, tmp_path_factory.mktemp("browser"))
    yield made
    made.close()


def written(folder: Path, history: History, files: dict[str, bytes] = FILES, *, one_file: bool = True) -> str:
    """The address of the page in that folder."""
    made = page(history, files.get, one_file=one_file)
    for path, data in {INDEX: made.html, **made.beside}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return (folder / INDEX).as_uri()


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Browser:
    browser.look()
    browser.open(written(tmp_path, fold(nights(RUNS, NIGHTS))))
    return browser


def go(browser: Browser, place: str) -> None:
    """To a place in the page, and wait until the page has come there."""
    target = json.dumps(place)
    changed = "new Promise((done) => addEventListener('hashchange', () => done(1), {once: true}))"
    browser.evaluate(f"location.hash === {target} || (location.hash = {target}, {changed})")


def text(browser: Browser) -> str:
    found: str = browser.evaluate("document.body.innerText")
    return found


def focused(browser: Browser) -> str:
    found: str = browser.evaluate("document.activeElement.id || document.activeElement.textContent")
    return found


def first_run(browser: Browser) -> str:
    found: str = browser.evaluate("document.querySelector('tbody a').textContent")
    return found


@pytest.mark.parametrize("one_file", [True, False])
def test_a_run_opens_with_all_that_is_known(browser: Browser, tmp_path: Path, one_file: bool) -> None:
    browser.look()
    browser.open(written(tmp_path, fold(nights(RUNS, NIGHTS)), one_file=one_file))
    name = first_run(browser)
    go(browser, f"#run/{name}")
    shown = text(browser)
    for words in (
        "Cause, proven by replays both ways",
        f"replay {name}",
        "execution state drift",
        "2 rows of 4 differ",
        '-   "auc": 0.91',
        f"{NIGHTS} nights: {NIGHTS - 1} identical, 1 diverged",
    ):
        assert words in shown, shown
    assert "1 regressed" not in shown
    sizes = browser.evaluate("Promise.all([...document.images].map((i) => i.decode().then(() => i.naturalWidth)))")
    assert sizes == [160, 160, 160]
    browser.evaluate("document.querySelector('article details').open = true")
    until(lambda: "\\x1b[31mwarning" in text(browser), "the log")
    assert browser.said == []
    expected = {browser.evaluate("location.href").partition("#")[0]}
    asked = {one for one in browser.asked if not one.startswith("data:")}
    assert expected <= asked and all(one.startswith(tmp_path.as_uri()) for one in asked)
    assert one_file is (asked == expected)


def test_every_run_and_every_past_is_plotted_when_it_is_seen(opened: Browser) -> None:
    strips = "document.querySelectorAll('#tonight svg.strip').length"
    until(lambda: opened.evaluate(strips) >= 6, "the plots of those that moved")
    assert opened.evaluate(strips) == 6, "those that are folded up are not drawn"
    opened.evaluate("document.querySelector('details').open = true; scrollTo(0, 1e6)")
    until(lambda: opened.evaluate(strips) > 6, "the plots of the others")
    label = opened.evaluate("document.querySelector('svg.strip').getAttribute('aria-label')")
    assert label == f"{NIGHTS} nights: {NIGHTS - 1} identical, 1 diverged"


def test_the_keyboard_is_enough(opened: Browser) -> None:
    name = first_run(opened)
    opened.key("/", "/")
    assert focused(opened) == "filter"
    for letter in name[-6:]:
        opened.key(letter, letter)
    assert opened.evaluate("document.getElementById('found').textContent") == f"1 run of {RUNS}"
    opened.key("ArrowDown")
    assert focused(opened) == name
    opened.key("Enter", "\r")
    until(lambda: focused(opened) == "name", "the run's heading to have the focus")
    opened.key("Escape")
    until(lambda: focused(opened) == name, "the focus to be back where it was")
    opened.key("ArrowUp")
    assert focused(opened) == "filter"
    opened.key("Escape")
    assert opened.evaluate("document.getElementById('found').textContent") == ""
    opened.key("Tab")
    assert focused(opened) == name


def test_a_screen_reader_is_told_what_is_what(opened: Browser) -> None:
    def roles() -> list[str]:
        return [str(node["role"]["value"]) for node in opened.tree()]

    def names(role: str) -> list[str]:
        return [node["name"]["value"] for node in opened.tree() if node["role"]["value"] == role]

    assert {"banner", "main", "contentinfo", "table", "columnheader", "rowheader", "status"} <= set(roles())
    assert "New regressions" in names("table") and names("searchbox") == ["Filter /"]
    assert any(name.startswith("Runs in trouble over 12 nights") for name in names("image"))
    headings = opened.evaluate("[...document.querySelectorAll('h1,h2,h3')].map((h) => h.localName)")
    assert headings[0] == "h1" and headings.count("h1") == 1
    go(opened, f"#run/{first_run(opened)}")
    assert {"article", "navigation", "img", "image"} & set(roles()) >= {"article", "navigation"}
    assert all(names("link")) and all(names("button")) and all(names("image"))
    assert opened.evaluate("document.querySelectorAll('h1:not(header h1)').length") == 1


def test_the_command_can_be_copied(opened: Browser) -> None:
    name = first_run(opened)
    go(opened, f"#run/{name}")
    opened.evaluate("document.querySelector('article button').click()")
    said = "document.querySelector('article [role=status]').textContent"
    until(lambda: opened.evaluate(said) in ("copied", "selected"), "word of what became of it")
    if opened.evaluate(said) == "selected":
        assert opened.evaluate("getSelection().toString()") == f"replay {name}"


CONTRAST = """(() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const found = parts(getComputedStyle(one).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const element of document.querySelectorAll("body *")) {
    if (![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    if (element.closest("script, style, svg, caption, .skip") || !element.checkVisibility()) continue;
    const [a, b] = [light(parts(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push(element.outerHTML.slice(0, 80));
  }
  return low;
})()"""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1200])
def test_text_can_be_read_in_the_light_and_in_the_dark_wide_and_narrow(opened: Browser, dark: bool, width: int) -> None:
    opened.look(width, 800, dark=dark)
    for place in ("#tonight", f"#run/{first_run(opened)}"):
        go(opened, place)
        assert opened.evaluate(CONTRAST) == []
        assert opened.evaluate("document.documentElement.scrollWidth") <= width
    ground = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(json.loads(ground.replace("rgb(", "[").replace(")", "]"))) < 200) is dark


def test_without_a_script_tonight_is_there(browser: Browser, tmp_path: Path) -> None:
    browser.look(script=False)
    browser.open(written(tmp_path, fold(nights(RUNS, NIGHTS))))
    shown = text(browser)
    assert "1 regressed, 1 flaky" in shown and "cause: scikit-learn 1.3.2 → 1.4.0" in shown
    assert "Filter" not in shown, "nothing is offered that does not work"
    browser.look()


PROBE = "typeof window.probe"
CHECK = "[...document.querySelectorAll('*')].some((e) => [...e.attributes].some((a) => a.name.startsWith('on')))"


@pytest.mark.parametrize("words", HOSTILE)
def test_nothing_that_a_job_wrote_is_run(browser: Browser, tmp_path: Path, words: str) -> None:
    browser.look()
    browser.open(written(tmp_path, fold([hostile_night(words)] * 3), hostile_files(words)))
    _look_at_everything(browser)
    assert browser.evaluate(PROBE) == "undefined"
    assert not browser.evaluate(CHECK)
    assert browser.evaluate("document.querySelectorAll('script').length") == 2
    assert [one for one in browser.asked if not one.startswith("data:")] == [(tmp_path / INDEX).as_uri()]
    assert browser.said == []


def _look_at_everything(browser: Browser) -> None:
    go(browser, browser.evaluate("document.querySelector('tbody a').getAttribute('href')"))
    until(lambda: browser.evaluate("!!document.querySelector('article')"), "the run")
    browser.evaluate("document.querySelectorAll('article details').forEach((one) => { one.open = true })")
    until(lambda: browser.evaluate("!!document.querySelector('article details pre')"), "the log")


def test_the_policy_stops_what_should_ever_get_in(opened: Browser, tmp_path: Path) -> None:
    """The second line: even markup in the page, or a script that makes some of text, comes to nothing."""
    refused = """(() => {
      try { document.body.innerHTML = '<img src=x onerror="window.probe = 1">'; return false; }
      catch (error) { return error.name; }
    })()"""
    assert opened.evaluate(refused) == "TypeError"
    file = tmp_path / "injected.html"
    whole = page(fold([night_of(run_of())]), FILES.get, one_file=True).html.decode()
    evil = "<script>window.probe = 1</script><img src='http://192.0.2.1/x' onerror='window.probe = 1'>"
    file.write_text(whole.replace("<main", evil + "<main", 1))
    opened.open(file.as_uri())
    assert opened.evaluate(PROBE) == "undefined"
    until(
        lambda: opened.evaluate("1") and any("Content Security Policy" in one for one in opened.said),
        "word of what was stopped",
    )


def test_long_texts_and_many_lines_are_shown_side_by_side(browser: Browser, tmp_path: Path) -> None:
    files: dict[str, Any] = dict(FILES)
    files["a.json"], files["b.json"] = (
        "\n".join(f"{side} {n}" for n in range(3000)).encode() for side in ("was", "is")
    )
    browser.look()
    browser.open(written(tmp_path, fold([night_of(diverged("a-20261120-aaaaaa"))] * 2), files))
    go(browser, "#run/a-20261120-aaaaaa")
    shown = text(browser)
    assert "was 0\nwas 1" in shown and "is 0\nis 1" in shown
