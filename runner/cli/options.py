"""Options and arguments that commands of every kind take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
StoreOption = Annotated[
    Path | None,
    typer.Option("--store", help="The store to use. Default: REPLAY_STORE, or the nearest .replay upwards."),
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run-id or any unique part of one, @NAME of a release, or a spec's path.")
]
