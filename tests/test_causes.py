"""What is said of a run whose very state is bad now, and of a bisect that came to nothing."""

from __future__ import annotations

import pytest

from runner.causes import bisected, host_words
from runner.errors import InterruptedRunError, OutsideError
from runner.run import Session
from runner.state.spec import HostSeen
from tests.report.made import run_of

THEN = HostSeen(machine="x86_64", flags=("avx",), kernel="6.1")


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (THEN, "the host does not differ from that of t-1"),
        (HostSeen("x86_64", flags=("avx",), kernel="6.8"), "the host differs from that of t-1 in kernel (6.1 → 6.8)"),
        (
            HostSeen("x86_64", flags=("sve",)),
            "the host differs from that of t-1 in flags (without avx, with sve), kernel (6.1 → unknown)",
        ),
    ],
)
def test_a_host_is_told_in_a_sentence(now: HostSeen, told: str) -> None:
    assert host_words("t-1", THEN, now) == told


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OutsideError("no engine answers"), "no cause was found: no engine answers"),
        (OSError(28, "No space left", "/x"), "no cause was found: [Errno 28] No space left: '/x'"),
        (
            IndexError("at 7"),
            "the bisect ended with an error of this tool's own: IndexError: at 7; "
            "`replay bisect train-1 train-2 --debug` shows more",
        ),
    ],
)
def test_no_error_of_a_bisect_ends_the_night(error: Exception, told: str) -> None:
    run = run_of("train-1", replay="train-2", evidence=("before",))

    def connect() -> Session:
        raise error

    assert bisected(connect, run, 1, None).evidence == ("before", told)


def test_an_interrupt_of_a_bisect_does() -> None:
    def connect() -> Session:
        raise InterruptedRunError("interrupted")

    with pytest.raises(InterruptedRunError):
        bisected(connect, run_of(), 1, None)
