"""The command line: parse, wire, print, exit codes. Nothing else in this package prints or exits."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import Any, NoReturn

import typer

from runner.cli import commands
from runner.cli.output import print_error
from runner.errors import Exit, InterruptedRunError, ReplayError, UsageError, disk_error

# typer has had click inside it since 0.26 and beside it before; either way this is its error for bad usage.
ClickError: Any = typer.BadParameter.__mro__[2]

_DISK = frozenset({errno.EACCES, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENOSPC, errno.EPERM, errno.EROFS})
"""What disks and permissions do to any access to a file; other numbers are mistakes of this tool."""

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
    arguments = with_command(arguments)
    debug = "--debug" in _own(arguments)
    as_json = "--json" in _own(arguments)
    try:
        own = [a for a in arguments if a != "--debug"] if debug else arguments
        return _invoke(own)
    except ReplayError as error:
        if debug:
            traceback.print_exc()
        print_error(error, as_json)
        return int(error.code)
    except ClickError as error:
        print_error(UsageError(error.format_message(), next=_help_hint(error)), as_json)
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
    first = next((index for index, word in enumerate(arguments) if word != "--debug"), None)
    if first is None or arguments[first].startswith("-") or arguments[first] in commands.NAMES:
        return arguments
    return [*arguments[:first], "replay", *arguments[first:]]


def _own(arguments: list[str]) -> list[str]:
    """The words that are meant for this tool: those before `--`."""
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


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
