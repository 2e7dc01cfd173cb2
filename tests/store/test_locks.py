"""The store's locks, between real processes; and opening a store."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runner.errors import OutsideError, UsageError
from runner.store.files import FileLock, is_locked, remove_tree, write_atomic
from runner.store.store import Store, find_store, open_store
from tests.conftest import until

HOLD = "import sys; from pathlib import Path; from runner.store.files import FileLock\n"
HOLD += "FileLock(Path(sys.argv[1])).acquire(); print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / ".replay", create=True)


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    place = tmp_path / "lock"
    assert not is_locked(place), "and looking makes no file"
    assert not place.exists()
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin and holder.stdout
    assert holder.stdout.readline() == b"held\n"
    assert is_locked(place) and not FileLock(place).acquire(wait=False)
    holder.kill()
    holder.communicate()
    assert not is_locked(place)
    again = FileLock(place)
    assert again.acquire(wait=False)
    again.release()


def test_many_add_at_once_and_a_collector_is_alone(store: Store) -> None:
    with store.adding(), store.adding():
        collected = threading.Event()
        collector = threading.Thread(target=lambda: collect(store, collected))
        collector.start()
        assert not collected.wait(0.1), "somebody is adding"
    assert collected.wait(120)
    collector.join()


def test_a_waiting_collector_is_not_overtaken(store: Store) -> None:
    order: list[str] = []
    with store.adding():
        collector = threading.Thread(target=lambda: collect(store, None, order))
        collector.start()
        until(lambda: is_locked(store.folder / "turnstile.lock"), "the collector to wait")
        adder = threading.Thread(target=lambda: add(store, order))
        adder.start()
        assert not order
    for thread in (collector, adder):
        thread.join(120)
    assert order == ["collected", "added"]


def collect(store: Store, done: threading.Event | None = None, order: list[str] | None = None) -> None:
    with store.collecting():
        if order is not None:
            order.append("collected")
        if done:
            done.set()


def add(store: Store, order: list[str]) -> None:
    with store.adding():
        order.append("added")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "file"
    write_atomic(place, b"one", mode=0o600)
    assert place.stat().st_mode & 0o777 == 0o600
    write_atomic(place, b"two")
    assert place.read_bytes() == b"two"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutsideError, match="cannot write"):
        write_atomic(tmp_path / "folder", b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_tree_that_a_job_locked_is_removed(tmp_path: Path) -> None:
    deep = tmp_path / "tree" / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    (deep / "link").symlink_to(tmp_path)
    deep.chmod(0)
    deep.parent.chmod(0o500)
    remove_tree(tmp_path / "tree")
    remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists() and tmp_path.is_dir()


def test_opening(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_store(store.folder, create=False).id == store.id
    with pytest.raises(UsageError, match="no store"):
        open_store(tmp_path / "nothere", create=False)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.delenv("REPLAY_STORE", raising=False)
    assert find_store(below) == store.folder
    monkeypatch.setenv("REPLAY_STORE", str(tmp_path / "other"))
    assert find_store(below) == tmp_path / "other"

    marker = store.folder / "store.json"
    marker.write_text('{"format": 99, "id": "x"}')
    with pytest.raises(UsageError, match="newer"):
        open_store(store.folder, create=False)
    marker.write_text("{")
    with pytest.raises(OutsideError, match="cannot be read"):
        open_store(store.folder, create=True)


def test_the_fingerprint_key_is_private_and_stays(store: Store) -> None:
    key = store.fingerprint_key()
    assert key == store.fingerprint_key() and len(key) == 32
    assert (store.folder / "key").stat().st_mode & 0o077 == 0


def test_what_a_killed_write_leaves_is_where_it_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after the cache was deleted, its temporary folder with it."""
    left: list[list[str]] = []
    monkeypatch.setattr(os, "fsync", lambda _: left.append([*os.listdir(tmp_path), *os.listdir(tmp_path / "swept")]))
    write_atomic(tmp_path / "file", b"x", through=tmp_path / "swept")
    assert left[0][0] == "swept" and left[0][1].endswith(".tmp") and len(left[0]) == 2
    assert (tmp_path / "file").read_bytes() == b"x" and not os.listdir(tmp_path / "swept")


def test_two_that_ask_for_a_lock_do_not_see_each_other(tmp_path: Path) -> None:
    """Or a run that was killed would be shown as running while another command looks at it."""
    place = tmp_path / "lock"
    place.touch()
    asking = FileLock(place)
    assert asking.acquire(shared=True)
    assert not is_locked(place)
    asking.release()


def test_a_tree_that_is_being_removed_may_be_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sweeps comes upon a folder that its own process is still emptying: one of the two removes it."""
    tree, begun, go_on = tmp_path / "tree", threading.Event(), threading.Event()
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "file").touch()
    unlink = os.unlink

    def slow(name: str, **rest: int) -> None:
        begun.set()
        go_on.wait(120)
        unlink(name, **rest)

    monkeypatch.setattr(os, "unlink", slow)
    with ThreadPoolExecutor(1) as pool:
        removing = pool.submit(remove_tree, tree)
        assert begun.wait(120)
        (claimed,) = tmp_path.iterdir()
        monkeypatch.setattr(os, "unlink", unlink)
        remove_tree(claimed)
        assert claimed.exists(), "it is left to the first"
        go_on.set()
        removing.result()
    assert not list(tmp_path.iterdir())
    (tmp_path / ".tree.x.gone" / "a").mkdir(parents=True)
    remove_tree(tmp_path / ".tree.x.gone")
    assert not list(tmp_path.iterdir()), "what a killed process had begun to remove"


def test_several_first_commands_make_one_store(tmp_path: Path) -> None:
    """Or containers would be labelled for a store that is no more, and fingerprints made with a key that is lost."""
    for turn in range(20):
        start = threading.Barrier(4)

        def first(folder: Path, start: threading.Barrier = start) -> tuple[str, bytes]:
            start.wait(120)
            made = open_store(folder, create=True)
            start.wait(120)
            return made.id, made.fingerprint_key()

        with ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(first, [tmp_path / f"{turn}"] * 4))) == 1
