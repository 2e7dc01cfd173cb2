"""The command line: parse, wire, print, exit codes. Nothing else in this package prints or exits."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import typer

from runner.cli import commands
from runner.cli.output import print_error
from runner.errors import Exit, InterruptedRunError, ReplayError, UsageError

# typer has had click inside it since 0.26 and beside it before; either way this is its error for bad usage.
ClickError: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="replay",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
commands.register(app)


def main() -> None:
    """Entry point of the `replay` command."""
    # What a job may read, and the modes that it sees, must not depend on the caller's umask.
    os.umask(0o022)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; its exit code. No exception leaves but under `--debug`."""
    arguments = with_command(arguments)
    debug = "--debug" in _own(arguments)
    as_json = "--json" in _own(arguments)
    try:
        own = [a for a in arguments if a != "--debug"] if debug else arguments
        return int(app(own, standalone_mode=False, prog_name="replay") or 0)
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
        return _own_error(error, debug, as_json)


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
