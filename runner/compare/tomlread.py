"""TOML of unknown origin, read within bounds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from runner.compare.jsonread import MAX_DEPTH, is_too_deep, read_float, too_deep
from runner.shown import shown
from runner.tables.malformed import MalformedError

_SHOWN = 160
# The time that `tomllib` takes for a dotted key grows with the square of its parts.
_DEEP_KEY = re.compile(
    r"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){%d}""" % MAX_DEPTH  # noqa: UP031
)


def load(path: Path) -> Any:
    """The value of a TOML file. Raises `MalformedError`, `OSError`."""
    import tomllib  # few outputs are TOML, and every command would pay for it

    try:
        text = path.read_bytes().decode("utf-8-sig")
        if _DEEP_KEY.search(text):
            raise too_deep()
        value = tomllib.loads(text, parse_float=read_float)
    except UnicodeDecodeError as error:
        raise MalformedError(f"not UTF-8 at byte {error.start}") from None
    except ValueError as error:  # numbers of too many digits and dates that are none, too
        raise MalformedError(f"not TOML: {shown(str(error), _SHOWN)}") from None
    except RecursionError:
        raise too_deep() from None
    if is_too_deep(value):
        raise too_deep()
    return value
