"""Coverage-guided fuzzing of one reader for a bounded time: `python -m tests.fuzz.guided READER SECONDS FOLDER`.

Only `runner` is instrumented, so that the search follows this tool's decisions and not those of its libraries. An
input that breaks the promise is kept in FOLDER, one for each place that it breaks at; to make it a regression case,
move it to `tests/fuzz/regressions/READER/`. Exits 1 when there is one.
"""

from __future__ import annotations

import os
import resource
import sys
import traceback
from pathlib import Path

import atheris

LONGEST_INPUT = 16384
TIMEOUT_S = 10
MEMORY = 1 << 30

with atheris.instrument_imports(include=["runner"], enable_loader_override=False):
    from tests.fuzz.readers import READERS, check, corpus


def place_of(error: BaseException) -> str:
    """Where in this tool it broke, so that each place is told once."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "/runner/" in frame.filename]
    last = ours[-1] if ours else traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}-{Path(last.filename).stem}-{last.name}-{last.lineno}".replace("<", "").replace(
        ">", ""
    )


def main() -> None:
    name, seconds, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    assert name in READERS, f"no reader is called {name}; there are {', '.join(READERS)}"
    broken: set[str] = set()

    def one(given: bytes) -> None:
        try:
            check(name, given)
        except Exception as error:  # noqa: BLE001
            place = place_of(error)
            if place not in broken:
                broken.add(place)
                (folder / place).write_bytes(given)
                traceback.print_exc()
        if time_is_up():
            os._exit(1 if broken else 0)

    seeds = folder / "seeds"
    seeds.mkdir(parents=True)
    for number, file in enumerate(corpus(name)):
        (seeds / str(number)).write_bytes(file.read_bytes())
    # libFuzzer's own limit looks at the highest use ever, and a process starts with that of the one that started it.
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    options = [f"-max_len={LONGEST_INPUT}", f"-timeout={TIMEOUT_S}", "-rss_limit_mb=0"]
    options += [f"-artifact_prefix={folder}/", "-verbosity=0", "-seed=1"]
    time_is_up = _clock(float(seconds))
    atheris.Setup([sys.argv[0], *options, str(seeds)], one)
    atheris.Fuzz()


def _clock(seconds: float):  # type: ignore[no-untyped-def]
    import time

    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


if __name__ == "__main__":
    main()
