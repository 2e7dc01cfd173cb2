"""What a page of many nights takes to make, to send and to open."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from tests.bench.harness import SLOW, Measured, Row, Side, command, timed
from tests.bench.laid_out import PLACE, ROOT
from tests.report.browser import Browser, chromium
from tests.report.kept import keep
from tests.report.made import FILES, nights

RUNS, NIGHTS = 1000, 90
OPENED = "performance.getEntriesByType('navigation')[0].loadEventEnd / 1000"


def making() -> Measured:
    """The command, start to end: nights read, the page written."""
    folder = PLACE / "page"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    keep(folder, nights(RUNS, NIGHTS), FILES)
    here = os.environ | {"PYTHONPATH": str(ROOT)}
    act = command([sys.executable, "-m", "runner", "report", "--one-file", "page.html"], folder, env=here)
    taken = [timed(Side(act)) for _ in range(SLOW)]
    return Measured(statistics.median(taken), None, statistics.median(taken))


def sending() -> Measured:
    size = _page().stat().st_size / 2**20
    return Measured(size, None, size, "MB")


def opening() -> Measured | str:
    """From the address to the end of its load event, by the browser's own clock."""
    program = chromium()
    if program is None:
        return "there is no Chromium"
    page = _page()
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(program, Path(profile))
        try:
            taken = [_opened(browser, page) for _ in range(SLOW + 1)][1:]
        finally:
            browser.close()
    return Measured(statistics.median(taken), None, statistics.median(taken))


def _opened(browser: Browser, page: Path) -> float:
    browser.open(page.as_uri())
    return float(browser.evaluate(OPENED))


def _page() -> Path:
    page = PLACE / "page" / "page.html"
    if not page.is_file():
        making()
    return page


ABOUT = f"page of {RUNS:,} runs × {NIGHTS} nights"
ROWS = (
    Row("page", f"making the {ABOUT}", "", None, making),
    Row("page-size", f"the {ABOUT}, as one file", "", None, sending),
    Row("page-open", f"opening the {ABOUT}", "", 1.0, opening),
)
