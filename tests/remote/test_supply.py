"""What is brought, and what is told to be brought, from a remote that still has all of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.erase import erase, find
from runner.remote import layout
from runner.remote.select import default_remote
from runner.remote.status import status
from runner.state.digest import digest_bytes
from runner.supply import Asked, bring_blobs, bring_ends
from tests.attest.made import Signed

GOOD, BAD = "train-20261121-good01", "train-20261121-bad001"
ERASED, LOST = b"Jane Doe\n", b"lost\n"


@pytest.fixture
def made(trusted: Signed, tmp_path: Path) -> Signed:
    """Two runs; of what one gave, an output was erased and another is lost, and the remote has both."""
    made = trusted
    config = made.root / ".dvc" / "config"
    config.parent.mkdir()
    config.write_text(f"[core]\n    remote = r\n['remote \"r\"']\n    url = {tmp_path / 'remote'}\n")
    (tmp_path / "remote").mkdir()
    made.run(GOOD)
    run = made.run(BAD, outputs={"erased.txt": ERASED, "lost.txt": LOST})
    remote = default_remote(made.workspace)
    assert remote
    for content in (ERASED, LOST):
        remote.send_bytes(layout.blob_name(digest_bytes(content)), content)
    erase(made.workspace, find(made.workspace, run, "erased.txt", logs=False), "by request", made.sealer)
    made.store.blobs.discard(digest_bytes(LOST))
    return made


def is_here(made: Signed, content: bytes) -> bool:
    return made.store.blobs.has(digest_bytes(content))


def test_the_ends_of_a_bisect_bring_back_what_was_lost_and_nothing_that_was_erased(made: Signed) -> None:
    ends = [made.workspace.run(run_id) for run_id in (GOOD, BAD)]
    asked, said = Asked(), list[str]()
    bring_ends(made.workspace, ends, said.append, asked)
    assert is_here(made, LOST) and not is_here(made, ERASED)
    assert asked.remote and "1 blob" in said[0]
    asked = Asked()
    bring_ends(made.workspace, ends, said.append, asked)
    assert asked.remote is None, "nothing is lacking: the remote is not asked"


def test_outputs_to_compare_are_brought_unless_they_were_erased(made: Signed) -> None:
    session: Any = SimpleNamespace(workspace=made.workspace)
    bring_blobs(session, [digest_bytes(ERASED), digest_bytes(LOST)])
    assert is_here(made, LOST) and not is_here(made, ERASED)


def test_a_pull_is_not_asked_for_what_was_erased(made: Signed) -> None:
    remote = default_remote(made.workspace)
    assert remote
    ids = {GOOD, BAD}
    listed = {run_id: {digest_bytes(run_id.encode())} for run_id in ids}
    assert status(made.workspace, remote, ids, listed).pull.blobs == 1, "what was lost"
    made.store.blobs.put_bytes(LOST)
    assert status(made.workspace, remote, ids, listed).pull.blobs == 0
