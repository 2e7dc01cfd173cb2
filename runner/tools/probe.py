"""What Python an image holds: asked once per image, by running it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from runner.environment.layout import Interpreter
from runner.errors import OutsideError
from runner.state.checked import with_check, without_check
from runner.state.decode import decode_json
from runner.state.digest import digest_value, hex_of
from runner.state.plain import MALFORMED
from runner.store.files import write_atomic
from runner.tools.container_request import ContainerRequest
from runner.tools.containers import Engine
from runner.tools.engine_errors import ExecutableMissingError
from runner.tools.interrupts import Interrupts

_SCRIPT = """
import importlib.util, json, os, re, sys
try:
    from importlib.metadata import distributions
except ImportError:
    distributions = lambda: ()
names = {}
for found in distributions():
    name = found.metadata["Name"]
    if name:
        names.setdefault(re.sub(r"[-_.]+", "-", name).lower(), found.version)
print(json.dumps({
    "interpreter": {
        "executable": os.path.realpath(sys.executable),
        "version": ".".join(map(str, sys.version_info[:3])),
        "cache_tag": sys.implementation.cache_tag,
        "magic": importlib.util.MAGIC_NUMBER.hex(),
    },
    "packages": names,
}))
"""


# What the engine's init process, like a shell, ends with when it cannot find the program.
_NOT_FOUND = 127


class Probed(msgspec.Struct, frozen=True):
    """The image's interpreter and the packages that it can import, by normalised name."""

    interpreter: Interpreter
    packages: dict[str, str]


def probe(engine: Engine, cache: Path, image_id: str, python: str, interrupts: Interrupts) -> Probed | None:
    """None when the image has no such interpreter. Raises `OutsideError` when it has one that fails."""
    before = probed_before(cache, image_id, python)
    if before is not None:
        return before
    answer = _ask(engine, image_id, python, interrupts)
    if answer is None:
        return None
    known = _place(cache, image_id, python)
    known.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(known, with_check(answer), through=cache / "tmp")
    return decode_json(answer, Probed)


def answer_name(image_id: str, python: str) -> str:
    """The name of the file in `cache/probes/` that keeps what this image's interpreter answered."""
    return f"{hex_of(digest_value([image_id, python, _SCRIPT]))}.json"


def read_answer(kept: bytes) -> Probed:
    """Raises `msgspec.DecodeError` for what is not whole."""
    return decode_json(without_check(kept), Probed)


def probed_before(cache: Path, image_id: str, python: str) -> Probed | None:
    """The answer that the image gave before; None if it was never asked."""
    try:
        return read_answer(_place(cache, image_id, python).read_bytes())
    except (FileNotFoundError, *MALFORMED):
        return None


def _place(cache: Path, image_id: str, python: str) -> Path:
    return cache / "probes" / answer_name(image_id, python)


def _ask(engine: Engine, image_id: str, python: str, interrupts: Interrupts) -> bytes | None:
    said = _Output()
    request = ContainerRequest(
        image=image_id, command=(python, "-I", "-c", _SCRIPT), env={}, user="65534:65534", workdir="/"
    )
    try:
        ended = engine.run(request, said, interrupts)
    except ExecutableMissingError:
        return None
    if ended.exit_code == _NOT_FOUND:
        return None
    try:
        decode_json(bytes(said.out), Probed)
    except MALFORMED as error:
        why = said.err.decode(errors="replace").strip().splitlines()[-1:]
        raise OutsideError(
            f"the image's {python} does not work",
            why[0] if why else f"it ended with exit status {ended.exit_code}",
            "choose another image, or set `python: null` if the job needs none",
        ) from error
    return bytes(said.out)


class _Output:
    def __init__(self) -> None:
        self.out = bytearray()
        self.err = bytearray()

    def write(self, stream: int, data: bytes) -> None:
        kept = self.out if stream == 1 else self.err
        if len(kept) < 1 << 22:
            kept += data
