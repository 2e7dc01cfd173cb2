"""Waiting for what can be read."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator

import pytest

from runner.tools.interrupts import Interrupts, readable

MANY = 1100


@pytest.fixture
def high() -> Iterator[tuple[int, int]]:
    """A pipe whose reading end has a number that `select` does not know."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * MANY:
        pytest.skip("so many files may not be opened here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * MANY), hard))
    opened: list[int] = []
    reading, writing = os.pipe()
    try:
        while not opened or opened[-1] < MANY:
            opened.append(os.dup(reading))
        yield opened[-1], writing
    finally:
        for descriptor in (*opened, reading, writing):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_first_request_to_stop_can_be_waited_for() -> None:
    with contextlib.closing(Interrupts()) as interrupts:
        assert readable([interrupts], 0) == set()
        interrupts.request()
        interrupts.request()
        assert readable([interrupts]) == {interrupts.fileno()} and interrupts.count == 2


def test_a_process_with_many_files_open_waits_as_well(high: tuple[int, int]) -> None:
    reading, writing = high
    assert readable([reading], 0) == set()
    os.write(writing, b"!")
    assert readable([reading]) == {reading}
    os.close(writing)
    assert reading in readable([reading]), "the end of a stream is something to be read"
