"""Work in threads: every item once, and nothing is begun after the first error."""

from __future__ import annotations

import threading

import pytest

from runner.tools.threads import in_threads, in_time


def test_each_item_is_done_once_and_the_order_is_kept() -> None:
    assert in_threads(lambda number: number * 2, range(1000), 8) == [number * 2 for number in range(1000)]
    assert in_threads(str, [], 8) == []


def test_after_an_error_no_other_is_begun() -> None:
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        if number == 3:
            raise ValueError(number)

    with pytest.raises(ValueError, match="3"):
        in_threads(work, range(100), 1)
    assert begun == [0, 1, 2, 3]


def test_what_takes_too_long_or_fails_is_left_out() -> None:
    forever = threading.Event()

    def work(name: str) -> str:
        if name == "slow":
            forever.wait()
        if name == "bad":
            raise OSError
        return name.upper()

    try:
        assert in_time(work, ["quick", "bad", "slow"], 3, 2) == {"quick": "QUICK"}
    finally:
        forever.set()
