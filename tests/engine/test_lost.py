"""What the store lost of code and params is taken again where the very bytes are, else told to be lost, not changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.state.digest import digest_bytes
from tests.conftest import flip_bit
from tests.engine.conftest import Recorded

pytestmark = pytest.mark.engine

FILES = {"params": "p.yaml", "code": "lib/code.txt"}


def kept(recorded: Recorded, path: str) -> Path:
    """The blob of a file as it is in the workspace."""
    return recorded.blob(digest_bytes((recorded.root / path).read_bytes()))


@pytest.mark.parametrize("path", FILES.values(), ids=FILES)
def test_a_lost_file_is_taken_from_the_workspace(recorded: Recorded, path: str) -> None:
    blob = kept(recorded, path)
    blob.unlink()
    assert recorded.replayed(recorded.ids["steady"], "--dry-run")["possible"] and not blob.exists()
    assert recorded.replayed(recorded.ids["steady"])["verdict"] == "identical"
    assert blob.is_file()


@pytest.mark.parametrize("path", FILES.values(), ids=FILES)
def test_a_lost_file_is_taken_from_the_commit(recorded: Recorded, path: str) -> None:
    recorded.git("init", "-q")
    recorded.write(".gitignore", ".replay\nstate_specs\n")
    recorded.commit("all")
    recorded.write("also.txt", "not committed\n")
    run_id = recorded.run("steady")["run_id"]
    kept(recorded, path).unlink()
    recorded.write(path, "rate: 2\n")
    assert recorded.replayed(run_id)["verdict"] == "identical"


@pytest.mark.parametrize("what", FILES)
def test_what_is_lost_for_good_is_unrebuildable_and_what_is_damaged_is_not(recorded: Recorded, what: str) -> None:
    blob = kept(recorded, FILES[what])
    data = blob.read_bytes()
    blob.unlink()
    recorded.write(FILES[what], "rate: 2\n")
    if what == "code":
        assert not recorded.replayed(recorded.ids["steady"], "--dry-run", code=3)["possible"]
    found = recorded.replayed(recorded.ids["steady"], code=3)
    assert found["verdict"] == "unrebuildable" and what in found["error"]["what"], found
    assert "replay fsck --repair" in found["error"]["next"], found
    blob.write_bytes(data)
    flip_bit(blob)
    assert recorded.replayed(recorded.ids["steady"], code=5)["verdict"] == "tampered"


def test_a_lost_list_of_the_code_is_made_of_the_code_as_it_is(recorded: Recorded) -> None:
    recorded.blob(recorded.spec("steady")["state"]["code"]).unlink()
    assert recorded.replayed(recorded.ids["steady"], "--dry-run")["possible"]
    assert recorded.replayed(recorded.ids["steady"])["verdict"] == "identical"
