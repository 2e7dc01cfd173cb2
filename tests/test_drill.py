"""Drills, on values and an empty store: what a change's parts make of the bad state."""

from __future__ import annotations

from pathlib import Path

from runner.drill import drill_of
from runner.hybrid import between
from runner.state.spec import Dependencies, Image
from runner.store.store import open_store
from runner.workspace import Workspace
from tests.test_hybrid import SHA, spec, wheel


def test_none_of_the_releases_is_the_good_one_and_all_are_the_bad_one(tmp_path: Path) -> None:
    """Once a trial came out both ways, a drill looks at its ends, too."""
    tags = "cp311-cp311-linux_x86_64", "cp313-cp313-linux_x86_64"
    good = spec(dependencies=Dependencies(python="3.11.2", locked=(wheel("model", "1", tags[0]), wheel("other", "1"))))
    bad = spec(
        image=Image("linux/amd64", (SHA, SHA)),
        dependencies=Dependencies(python="3.13.5", locked=(wheel("model", "3", tags[1]), wheel("other", "2"))),
    )
    shelf = [wheel("model", "1", tags[1]), wheel("model", "3", tags[0])]
    found = between(good, bad, None, shelf)
    (change,) = [one for one in found.changes if one.name == "model"]
    drill = drill_of(
        Workspace(tmp_path, open_store(tmp_path, create=True)),
        found,
        change,
        lambda _wheel, _held: (["1", "2", "3"], True),
    )
    assert drill and drill.names == ("2", "3")
    whole = found.hybrid(range(len(found.changes)))
    none = drill.replaced(whole, frozenset()).state.dependencies.locked
    assert none == (wheel("model", "1", tags[1]), wheel("other", "2"))
    assert drill.replaced(whole, frozenset({0, 1})).state == bad.state
