"""What an engine's refusals mean, in the words of this tool."""

from __future__ import annotations

import math
import os
from typing import Any

from runner.errors import OutsideError, UsageError

TIMEOUT = "REPLAY_TIMEOUT"
_PATIENCE_S = 120.0


class ExecutableMissingError(OutsideError):
    """The image does not hold the program that the command names."""


class UnseenError(OutsideError):
    """The engine does not find what is to be mounted."""


def words_of(error: Any) -> str:
    return str(getattr(error, "explanation", None) or error).strip()


def is_unseen(words: str) -> bool:
    """Whether the engine says that what is to be mounted is not there, as docker and podman put it."""
    return "bind source path does not exist" in words or ("statfs" in words and "no such file" in words)


def create_error(error: Any) -> OutsideError:
    words = words_of(error)
    if "no command specified" in words.lower():
        return OutsideError("the job has no command", words)
    if is_unseen(words):
        return UnseenError("the engine does not find what is to be mounted", words, "run the command again")
    return OutsideError("the engine refused to create the container", words)


def start_error(error: Any, program: str) -> OutsideError:
    words = words_of(error)
    if is_unseen(words):
        return UnseenError("the engine does not find what is to be mounted", words, "run the command again")
    if "executable file not found" in words or "no such file or directory" in words:
        return not_started(program, words.splitlines()[-1][-300:])
    return OutsideError("the engine could not start the container", words, "if this goes on, restart the engine")


def not_started(program: str, words: str) -> ExecutableMissingError:
    return ExecutableMissingError(
        f"the image cannot start {program!r}",
        words,
        "give `command` as a list that names a program of the image, or choose another image",
    )


def ended_from_outside() -> OutsideError:
    return OutsideError(
        "the job was ended from outside",
        "its container was stopped or removed, or the engine was, while the job ran",
        "run the command again",
    )


def left_open() -> OutsideError:
    return OutsideError(
        "the engine does not say where the job's output ends",
        "the job has ended, its stream is still open, and nothing comes any more: some of it may be missing",
        "run the command again; if it stays so, restart the engine",
    )


def patience_s() -> float:
    """How long an engine or a registry may stay silent, in seconds. Raises `UsageError` for what is no time."""
    given = os.environ.get(TIMEOUT)
    try:
        seconds = float(given) if given else _PATIENCE_S
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UsageError(f"{TIMEOUT} is no time: {given!r}", next="give seconds, like 120")
    return seconds


def plain_words(error: BaseException) -> str:
    """What went wrong below the layers of the transport that wrap it."""
    if isinstance(error, Exception) and is_timeout(error):
        return f"no answer for {patience_s():g} s ({TIMEOUT} says how long to wait)"
    inner = [one for one in (error.__cause__, *error.args) if isinstance(one, BaseException)]
    if isinstance(error, OSError) and error.errno and error.strerror:
        return error.strerror.lower()
    return plain_words(inner[0]) if inner else str(error)


def transport_errors() -> tuple[type[Exception], ...]:
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    return (RequestException, HTTPError)


def is_timeout(error: Exception) -> bool:
    """A request that ran out of time: a ReadTimeout, or a ConnectionError that wraps one."""
    from requests.exceptions import ReadTimeout

    return isinstance(error, ReadTimeout) or "timed out" in str(error).lower()
