"""Builders and collectors wait for each other."""

from __future__ import annotations

import fcntl
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from runner.environment.locks import building, collecting, locked


def is_free(cache: Path, name: str, kind: int) -> bool:
    with (cache / "locks" / name).open("a") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@pytest.mark.parametrize(
    ("held", "others_may_build", "others_may_collect"), [(building, True, False), (collecting, False, False)]
)
def test_who_waits_for_whom(tmp_path: Path, held: object, others_may_build: bool, others_may_collect: bool) -> None:
    holder: AbstractContextManager[None] = held(tmp_path)  # type: ignore[operator]
    with holder:
        assert is_free(tmp_path, "gc", fcntl.LOCK_SH) is others_may_build
        assert is_free(tmp_path, "gc", fcntl.LOCK_EX) is others_may_collect
    assert is_free(tmp_path, "gc", fcntl.LOCK_EX)


def test_a_lock_ends_with_a_failure(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), locked(tmp_path, "one"):
        assert not is_free(tmp_path, "one", fcntl.LOCK_EX)
        raise RuntimeError
    assert is_free(tmp_path, "one", fcntl.LOCK_EX)
