"""What a power cut would leave: bytes are forced to the disk before they get their name, then the name is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.endurance.test_kills import die
from tests.engine.conftest import Recorded

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("command", ["run", "replay"])
def test_what_gets_a_name_is_on_the_disk(recorded: Recorded, command: str, tmp_path: Path) -> None:
    """Sums are no part of it: they carry a check, and what a crash took of them is summed anew."""
    recorded.write("lib/code.txt", "other code\n")
    arguments = ["run", "steady"] if command == "run" else ["replay", recorded.ids["steady"]]
    assert die(recorded, 0, [*arguments, "-q"], tmp_path / "moments") == 0
    moments = [line.split("\t") for line in (tmp_path / "moments").read_text().splitlines()]
    final = (recorded.store / "blobs", recorded.store / "runs", recorded.root / "state_specs")
    named = []
    for at, (event, *paths) in enumerate(moments):
        if event == "os.rename" and paths[1].startswith(tuple(map(str, final))) and Path(paths[1]).name != "sums":
            source, target = map(Path, paths)
            assert ["os.fsync", str(source)] in moments[:at], f"{target} got its name before its bytes were safe"
            assert ["os.fsync", str(target.parent)] in moments[at:], f"the name of {target} was never made safe"
            named.append(target)
    names = [place.name for place in named]
    assert "spec.yaml" in names and names[-1] == "record.json", "the record comes last: it says that all else is there"
    if command == "run":
        assert [place for place in named if final[0] in place.parents], "code and outputs are blobs"
