"""What a page shows of runs that the store has: outputs side by side, pictures, logs."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from runner.state.record import OutputVerdict, Verdict
from tests.conftest import Workspace
from tests.engine.conftest import Recorded
from tests.report.kept import keep
from tests.report.made import diverged, night_of, png
from tests.report.test_elsewhere import checked

COMMAND = """
cat $WHICH.png >plot.png; cat $WHICH.csv >scores.csv; echo x | cat - $WHICH.png >raw.bin
echo $WHICH; echo hm >&2
"""
PATHS = ("raw.bin", "plot.png", "scores.csv")


@pytest.fixture
def regressed(workspace: Workspace, shell_image: str) -> Workspace:
    """A night in which a run came out as another did."""
    for which, red in (("a", 10), ("b", 200)):
        workspace.write(f"{which}.png", png(20, 20, (red, 90, 160)))
        workspace.write(f"{which}.csv", f"id,score\n1,{red}\n2,3\n")
    ids = []
    for which in "ab":
        job = {"command": COMMAND, "image": shell_image, "python": None, "env": {"WHICH": which}}
        workspace.jobs(t=job | {"outputs": dict.fromkeys(PATHS, "auto")})
        ids.append(workspace.run("t")["run_id"])
    outputs = tuple(OutputVerdict(path, Verdict.DIVERGED, "auto") for path in PATHS)
    keep(workspace.root, [night_of(diverged(ids[0], replay=ids[1], outputs=outputs, artifacts=()))])
    return workspace


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', page)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def shown(workspace: Workspace) -> tuple[list[dict[str, Any]], dict[str, dict[str, str]]]:
    """The artifacts of the run, and what the page is told of them."""
    done = workspace.replay("report", "--one-file", "page.html", "--html", "page")
    assert done.code == 0, done
    data = data_of((workspace.root / "page.html").read_text())
    return data["runs"][0].get("artifacts", []), data["files"]


@pytest.mark.engine
def test_outputs_stand_side_by_side_with_pictures_and_logs(regressed: Workspace) -> None:
    artifacts, files = shown(regressed)
    found = {(one["output"], one["side"]): (one["kind"], files[one["file"]]) for one in artifacts}
    assert set(found) == {
        ("", "replay"),
        ("", "original"),
        ("scores.csv", "original"),
        ("scores.csv", "replay"),
        *(("plot.png", side) for side in ("original", "replay", "difference")),
    }
    said = {side: found["", side][1]["text"].splitlines() for side in ("original", "replay")}
    assert found["", "replay"][0] == "log"
    assert {side: sorted(lines) for side, lines in said.items()} == {"original": ["a", "hm"], "replay": ["b", "hm"]}
    assert found["scores.csv", "replay"] == ("text", {"text": "id,score\n1,200\n2,3\n"})
    kind, told = found["plot.png", "difference"]
    assert kind == "image" and told["src"].startswith("data:image/png;base64,")
    assert len(list((regressed.root / "page/artifacts").iterdir())) == 3
    assert not list((regressed.store / "tmp").iterdir())


@pytest.mark.engine
def test_what_is_lost_or_damaged_is_not_shown_and_no_error(regressed: Workspace) -> None:
    names = [path.name.partition(".")[0] for path in (regressed.root / "state_specs").glob("*.yaml")]
    for name in names:
        outputs = regressed.replay("outputs", name, "--json").json["outputs"]
        regressed.blob(next(one["sha256"] for one in outputs if one["path"] == "scores.csv")).unlink()
    artifacts, _ = shown(regressed)
    assert {one["output"] for one in artifacts} == {"", "plot.png"}
    for name in names:
        assert regressed.replay("rm", name).code == 0
    assert shown(regressed)[0] == []


@pytest.mark.engine
def test_a_night_writes_its_page_and_junit_when_it_has_ended(recorded: Recorded) -> None:
    for arguments in ([], ["--html", "page", "--junit", "junit.xml"]):
        recorded.replay("nightly", "-q", *arguments)
    data = data_of((recorded.root / "page/index.html").read_text())
    assert [len(run["past"]) for run in data["runs"]] == [2] * 6 and len(data["nights"]) == 2
    runs = {run["job"]: run for run in data["runs"]}
    assert (runs["where"]["past"], runs["steady"]["past"], runs["random"]["past"]) == ("dd", "ii", "nn")
    shown = {(one["output"], one["side"]) for one in runs["random"]["artifacts"]}
    assert {("r.txt", "original"), ("r.txt", "replay")} <= shown and ("s.txt", "replay") not in shown
    assert runs["random"]["command"] == f"replay {recorded.ids['random']}"
    root = checked((recorded.root / "junit.xml").read_bytes())
    assert {case.attrib["name"] for case in root.iter("testcase")} == set(recorded.ids.values())
    failures = [case.attrib["classname"] for case in root.iter("testcase") if case.find("failure") is not None]
    assert sorted(failures) == ["nightly.exits", "nightly.random", "nightly.where"]
