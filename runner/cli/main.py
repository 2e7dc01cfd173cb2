"""The command line: parse, wire, print, exit codes. Nothing else in this package prints or exits."""

from __future__ import annotations

import errno
import itertools
import os
import re
import sys
import traceback
import warnings
from typing import Any, NoReturn

import typer

from runner.cli import commands
from runner.cli.output import print_error, print_warning
from runner.errors import Exit, InterruptedRunError, ReplayError, ReplayWarning, UsageError, disk_error

# typer has had click inside it since 0.26 and beside it before; either way this is its error for bad usage.
ClickError: Any = typer.BadParameter.__mro__[2]

_DISK = frozenset({errno.EACCES, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENOSPC, errno.EPERM, errno.EROFS})
"""What disks and permissions do to any access to a file; other numbers are mistakes of this tool."""

_EMPTY = re.compile("--[a-z-]+=")

app = typer.Typer(
    name="replay",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
commands.register(app)


def main() -> None:
    """Entry point of the `replay` command."""
    # What a job may read, and the modes that it sees, must not depend on the caller's umask.
    os.umask(0o022)
    _leave(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; its exit code. No exception leaves but under `--debug`."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", ReplayWarning)
        warnings.showwarning = print_warning(warnings.showwarning)
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    typed, arguments = arguments, with_command(arguments)
    debug = "--debug" in _own(arguments)
    as_json = "--json" in _own(arguments)
    try:
        own = [a for a in arguments if a != "--debug"] if debug else arguments
        _refuse_empty(_own(own))
        return _invoke(own)
    except ReplayError as error:
        if debug:
            traceback.print_exc()
        print_error(_or_meant(error, typed), as_json)
        return int(error.code)
    except ClickError as error:
        print_error(_or_meant(UsageError(error.format_message(), next=_help_hint(error)), typed), as_json)
        return int(Exit.USAGE)
    except (KeyboardInterrupt, typer.Abort):
        print_error(InterruptedRunError("interrupted"), as_json)
        return int(Exit.INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        return int(Exit.OK)
    except Exception as error:  # noqa: BLE001
        if isinstance(error, OSError) and error.errno in _DISK:
            if debug:
                traceback.print_exc()
            print_error(disk_error(error, f"use {error.filename or 'the disk'}"), as_json)
            return int(Exit.OUTSIDE)
        return _own_error(error, debug, as_json)


def _leave(code: int) -> NoReturn:
    """Flush and go. Everything that must be undone has been; to take the interpreter down module by module would
    cost every command 30 ms."""
    try:
        sys.stdout.flush()
        if not sys.stderr.closed:
            sys.stderr.flush()
    except BrokenPipeError:
        pass
    except OSError as error:
        print_error(disk_error(error, "write to stdout"), as_json=False)
        code = Exit.OUTSIDE
    os._exit(code)


def _invoke(arguments: list[str]) -> int:
    """As calling the app does, but interrupts and broken pipes come through: typer would end them in its own way."""
    command = typer.main.get_command(app)
    try:
        with command.make_context("replay", arguments) as context:
            return int(command.invoke(context) or 0)
    except typer.Exit as done:
        return done.exit_code


def with_command(arguments: list[str]) -> list[str]:
    """`replay X` with X no command is `replay replay X`."""
    first = _first(arguments)
    if first is None or arguments[first].startswith("-") or arguments[first] in commands.NAMES:
        return arguments
    return [*arguments[:first], "replay", *arguments[first:]]


def _first(arguments: list[str]) -> int | None:
    return next((index for index, word in enumerate(arguments) if word != "--debug"), None)


def _or_meant(error: ReplayError, typed: list[str]) -> ReplayError:
    """With the command that was likely meant, where the first word was taken for a run and is none."""
    first = _first(typed)
    if first is None or typed[first] in commands.NAMES or not isinstance(error, UsageError):
        return error
    import difflib

    meant = difflib.get_close_matches(typed[first], commands.NAMES, 1, 0.75)
    if not meant:
        return error
    return UsageError(error.what, error.why, f"`replay {meant[0]}`, if that was meant; else {error.next}")


def _own(arguments: list[str]) -> list[str]:
    """The words that are meant for this tool: those before `--`."""
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _refuse_empty(words: list[str]) -> None:
    """An unset variable of a script must not make an option say something else, or nothing."""
    for word, after in itertools.pairwise([*words, "-"]):
        if word.startswith("--") and (not after or _EMPTY.fullmatch(word)):
            raise UsageError(f"{word.rstrip('=')} is given an empty text", next="name a value, or leave the option out")


def _help_hint(error: Exception) -> str:
    context: Any = getattr(error, "ctx", None)
    return f"see `{context.command_path} --help`" if context else "see `replay --help`"


def _own_error(error: Exception, debug: bool, as_json: bool) -> int:
    if debug:
        traceback.print_exc()
    own = ReplayError(
        "an error of this tool's own",
        f"{type(error).__name__}: {error}",
        "run the command again with --debug and report what it prints",
    )
    own.code = Exit.INTERNAL
    print_error(own, as_json)
    return int(Exit.INTERNAL)
