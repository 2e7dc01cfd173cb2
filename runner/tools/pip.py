"""The door to pip: locks and wheels, made inside the image that will run them.

pip-tools is mounted into the image from this tool's own installation (it and all it needs are pure
Python), so the image needs neither it nor a recent pip. The caller's pip settings (index, proxy,
certificates) go along into these containers, and only into these.
"""

from __future__ import annotations

import filecmp
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runner.errors import InterruptedRunError, OutsideError, ReplayError, UnrebuildableError, UsageError
from runner.state.digest import digest_value, hex_of
from runner.state.spec import Limits
from runner.tools.container_request import ContainerRequest, Ended, Mount
from runner.tools.containers import Engine
from runner.tools.git import without_credentials
from runner.tools.interrupts import Interrupts

if TYPE_CHECKING:
    from packaging.tags import Tag

_DISTRIBUTIONS = (
    "pip-tools",
    "pip",
    "build",
    "click",
    "packaging",
    "pyproject_hooks",
    "setuptools",
    "wheel",
    "tomli",
)
_CARRIED = frozenset(
    (
        "cert client-cert extra-index-url find-links index-url no-index "
        "prefer-binary proxy retries timeout trusted-host"
    ).split()
)
_CARRIED_VARIABLES = (
    "SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY "
    "http_proxy https_proxy no_proxy all_proxy"
).split()
_LOOPBACK = re.compile(r"://(?:[^/@\s]*@)?(?:localhost|127\.|\[::1\])")
_NETWORK_TROUBLE = re.compile(
    r"connection|timed out|timeout|max retries|redirect|proxy|ssl|certificate|temporary failure|name resolution|"
    r"do not match the hashes|http error [45]|[45]\d\d (server|client) error",
    re.IGNORECASE,
)
_OTHER_BYTES = re.compile(r"do not match the hashes", re.IGNORECASE)
_PLAIN_ERROR = re.compile(r"ERROR: (?!Ignored the following|Exception:)")
_VERSIONS = re.compile(r" \(from versions: (?!none)[^)]*\)")
_TELLING = re.compile(r"ERROR|error|[\w.]+(Error|NotFound|Impossible)\b|There (are|is) ")
# Index addresses and proxies may hold passwords, and an engine writes a container's variables to its disk.
_TAKE_SETTINGS = """
import json, os, sys
os.environ.update(json.load(sys.stdin))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
_ASK_INDEXES = """
import base64, os, ssl, sys, urllib.parse, urllib.request
from pip._internal.models.index import PyPI
context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT") or None)
urls = os.environ.get("PIP_INDEX_URL", PyPI.simple_url).split() + os.environ.get("PIP_EXTRA_INDEX_URL", "").split()
for url in urls:
    if not url.startswith("http"):
        continue
    parts = urllib.parse.urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host).geturl().rstrip("/") + "/pip/")
    if at:
        named = urllib.parse.unquote(user if ":" in user else user + ":")
        request.add_header("Authorization", "Basic " + base64.b64encode(named.encode()).decode())
    try:
        wait = float(os.environ.get("PIP_TIMEOUT") or 15)
        urllib.request.urlopen(request, timeout=wait, context=context)
    except OSError as error:
        if getattr(error, "code", None) not in (401, 403, 404):
            sys.exit("ERROR: connection to an index failed: " + str(error))
"""
_TIME_LIMIT_S = 1800.0
_MOST_TOLD = 600
_LOCKER, _IN, _OUT, _CACHE = "/replay/locker", "/replay/in", "/replay/out", "/replay/cache"


class PipSettings(msgspec.Struct, frozen=True):
    """The caller's settings: variables for the container, and files of this machine that they name."""

    env: dict[str, str]
    files: tuple[Path, ...]

    @property
    def network(self) -> str:
        """A proxy or index on this machine's own loopback is reached from the host's network only."""
        return "host" if any(_LOOPBACK.search(value) for value in self.env.values()) else "bridge"


class Workplace(msgspec.Struct, frozen=True):
    """Folders of one locking: what goes in, what comes out, pip's cache, pip-tools."""

    folder: Path
    locker: Path
    cache: Path

    @property
    def inside(self) -> Path:
        return self.folder / "in"

    @property
    def outside(self) -> Path:
        return self.folder / "out"


class PipContainer(msgspec.Struct, frozen=True):
    """Where pip runs: an image's interpreter, as the job's user, with the caller's settings."""

    engine: Engine
    image: str
    python: str
    user: str
    settings: PipSettings
    interrupts: Interrupts


def caller_settings() -> PipSettings:
    """What pip would use here, from its files and variables. One pip start, some .3 s."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    env: dict[str, str] = {}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2]
        if name in _CARRIED and key.partition(".")[0] in ("global", ":env:", "install", "wheel", "download"):
            env["PIP_" + name.upper().replace("-", "_")] = _plain(value)
    env |= {name: os.environ[name] for name in _CARRIED_VARIABLES if os.environ.get(name)}
    if os.environ.get("UV_INDEX_URL") and "PIP_INDEX_URL" not in env:
        env["PIP_INDEX_URL"] = os.environ["UV_INDEX_URL"]
    return PipSettings(env, tuple(sorted(set(_named_files(env)))))


def ensure_locker(cache: Path) -> Path:
    """pip-tools and what it needs as one folder to be mounted, copied once per set of versions."""
    found = [_distribution(name) for name in _DISTRIBUTIONS]
    present = [distribution for distribution in found if distribution]
    folder = cache / "locker" / _locker_key(present)
    if not folder.is_dir():
        building = cache / "tmp" / f"{folder.name}.{os.getpid()}"
        for distribution in present:
            _copy_distribution(distribution, building)
        folder.parent.mkdir(exist_ok=True)
        try:
            building.rename(folder)
        except OSError:
            shutil.rmtree(building)
    return folder


def locker_damage(cache: Path) -> list[Path]:
    """Copies of pip-tools that are not what is installed here; those made of other versions are left out."""
    present = [distribution for name in _DISTRIBUTIONS if (distribution := _distribution(name))]
    folder = cache / "locker" / _locker_key(present)
    files = dict(pair for distribution in present for pair in _files_of(distribution, folder))
    if not folder.is_dir():
        return []
    strange = [path for path in folder.rglob("*") if not path.is_dir() and path not in files]
    return sorted([*strange, *(copy for copy, source in files.items() if not _same(copy, source))])


def _same(copy: Path, source: Path) -> bool:
    return copy.is_file() and filecmp.cmp(copy, source, shallow=False)


def download(file_name: str, version: str, sha256: str, into: Path) -> Path:
    """Exactly that wheel, from the indexes that pip uses here. Raises `UnrebuildableError` when none has it."""
    from packaging.utils import parse_wheel_filename

    name, _, _, tags = parse_wheel_filename(file_name)
    into.mkdir(parents=True, exist_ok=True)
    wanted = into / "wanted.txt"
    wanted.write_text(f"{name}=={version} --hash={sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-input", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--ignore-requires-python", "--require-hashes"]
    command += ["-d", str(into), "-r", str(wanted)]
    command += _target(tags)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not (into / file_name).is_file():
        told = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise UnrebuildableError(f"no index has {file_name}", (told or ["pip did not find it"])[-1][:300])
    return into / file_name


def _target(tags: Collection[Tag]) -> list[str]:
    """The Python and platform for which a wheel of these tags is; nothing for one that fits all."""
    first = next(iter(tags))
    if first.platform == "any" and first.abi == "none":
        return []
    found = ["--python-version", re.sub(r"\D", "", first.interpreter), "--implementation", first.interpreter[:2]]
    found += [word for abi in sorted({tag.abi for tag in tags}) for word in ("--abi", abi)]
    return found + [word for platform in sorted({tag.platform for tag in tags}) for word in ("--platform", platform)]


def releases(name: str) -> list[str]:
    """All versions that the indexes have, but for pre-releases. Raises `OutsideError` when none answers."""
    command = [sys.executable, "-m", "pip", "index", "versions", name, "--json", "--no-input"]
    command += ["--ignore-requires-python", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return [str(version) for version in json.loads(done.stdout)["versions"]]
    except (ValueError, LookupError, TypeError) as error:
        told = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise OutsideError(f"no index tells the releases of {name}", (told or ["pip found none"])[-1][:300]) from error


def download_release(name: str, version: str, like: str, into: Path) -> Path:
    """The wheel of another release for the same Python and platform. Raises `UnrebuildableError` when there is none."""
    from packaging.utils import parse_wheel_filename

    into.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-input", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--ignore-requires-python", "-d", str(into), f"{name}=={version}"]
    command += _target(parse_wheel_filename(like)[3])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(into.glob("*.whl"))
    if done.returncode != 0 or len(found) != 1:
        told = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise UnrebuildableError(f"no index has {name} {version} for this Python", (told or [""])[-1][:300])
    return found[0]


def compile_lock(container: PipContainer, place: Workplace, text: str, as_of: str | None = None) -> str:
    """The hashed lock of requirement text, by pip-compile; wheels only if that suffices, else sdists too. With `as_of`,
    of what was uploaded before; an index that does not tell when is refused."""
    before = f"--uploaded-prior-to {as_of}" if as_of else ""
    (place.inside / "requirements.in").write_text(text)
    arguments = (
        "-m piptools compile --rebuild --generate-hashes --allow-unsafe --strip-extras --newline lf "
        "--no-header --no-annotate --no-emit-index-url --no-emit-trusted-host --no-emit-find-links "
        f"--no-emit-options --cache-dir {_CACHE}/pip-tools "
        f"--output-file {_OUT}/lock.txt {_IN}/requirements.in"
    ).split()
    try:
        _run(
            container,
            place,
            [*arguments, "--pip-args", f"--only-binary :all: {before}".strip()],
            "lock the dependencies",
        )
    except ReplayError as wheels_only:
        if isinstance(wheels_only, OutsideError):
            raise
        _refuse_if_unreachable(container, place)
        _lock_with_sdists(container, place, [*arguments, *(["--pip-args", before] if before else [])], wheels_only.why)
    return (place.outside / "lock.txt").read_text()


def _lock_with_sdists(container: PipContainer, place: Workplace, arguments: Sequence[str], without: str) -> None:
    """Raises `UsageError` with both reasons: what no wheel was found for names the requirement."""
    try:
        _run(container, place, arguments, "lock the dependencies")
    except UsageError as error:
        why = error.why if error.why == without else f"with wheels only: {without}; from source: {error.why}"
        raise UsageError(error.what, why, error.next) from error


def _refuse_if_unreachable(container: PipContainer, place: Workplace) -> None:
    """pip and pip-tools do not say why an index gave nothing, so it is asked once more, plainly.

    Raises `OutsideError` when an index does not answer, or with an error of its own.
    """
    _run(container, place, ["-c", _ASK_INDEXES], "reach the package index")


def make_wheels(container: PipContainer, place: Workplace, lock: str) -> list[Path]:
    """The wheels of a lock: downloaded by hash where they are, built in the image where there is an sdist."""
    hashed, direct = split_lock(lock)
    arguments = ["-m", "pip", "wheel", "--progress-bar", "off", "--disable-pip-version-check", "--no-deps"]
    arguments += ["--cache-dir", f"{_CACHE}/pip", "--wheel-dir", f"{_OUT}/wheels"]
    if hashed:
        (place.inside / "lock.txt").write_text(hashed)
        try:
            _run(container, place, [*arguments, "--require-hashes", "-r", f"{_IN}/lock.txt"], "get the wheels")
        except UsageError:
            _refuse_if_unreachable(container, place)
            raise
    if direct:
        _run(container, place, [*arguments, *direct], "build wheels from source")
    return sorted((place.outside / "wheels").glob("*.whl"))


def split_lock(lock: str) -> tuple[str, list[str]]:
    """A lock's hashed lines, and the locations of requirements that come from a folder."""
    hashed, direct = [], []
    for entry in re.split(r"\n(?=\S)", lock):
        location = re.search(r"file://\S+", entry.split(" --hash=")[0])
        if location:
            direct.append(location[0])
        elif entry.strip() and not entry.startswith(("#", "-")):
            hashed.append(entry.strip())
    return "\n".join(hashed) + "\n" if hashed else "", direct


def _run(container: PipContainer, place: Workplace, arguments: Sequence[str], doing: str) -> None:
    said = _Said()
    request = ContainerRequest(
        image=container.image,
        command=(container.python, "-I", "-c", _TAKE_SETTINGS, "-s", *arguments),
        env={"HOME": "/tmp", "PYTHONPATH": _LOCKER, "PYTHONDONTWRITEBYTECODE": "1", "PIP_NO_INPUT": "1"},
        mounts=(
            Mount(place.locker, _LOCKER),
            Mount(place.inside, _IN, read_only=False),
            Mount(place.outside, _OUT, read_only=False),
            Mount(place.cache, _CACHE, read_only=False, scratch=True),
            Mount(place.folder / "tmp", "/tmp", read_only=False, scratch=True),
            *(Mount(file, str(file)) for file in container.settings.files),
        ),
        user=container.user,
        workdir=_IN,
        network=container.settings.network,
        limits=Limits(time=_TIME_LIMIT_S),
        stdin=json.dumps(container.settings.env).encode(),
    )
    ended = container.engine.run(request, said, container.interrupts)
    if ended.exit_code != 0:
        raise _failure(doing, ended, said)


def _failure(doing: str, ended: Ended, said: _Said) -> ReplayError:
    if ended.stopped == "interrupted":
        return InterruptedRunError(f"interrupted while trying to {doing}", next="nothing was recorded")
    if ended.stopped:
        return OutsideError(f"cannot {doing}", f"stopped: {ended.stopped}", "try again when the index answers")
    why = said.telling() or f"pip ended with exit status {ended.exit_code}"
    if _OTHER_BYTES.search(said.text()):
        why = f"what the index sent is not what its hash promises: {why}"[:_MOST_TOLD]
    if _NETWORK_TROUBLE.search(said.text()):
        return OutsideError(
            f"cannot {doing}", why, "check the index, proxy and certificate settings of pip on this machine"
        )
    return UsageError(f"cannot {doing}", why, "correct the requirements; `pip-compile` would fail on them alike")


class _Said:
    """The end of what pip printed, bounded."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def write(self, _stream: int, data: bytes) -> None:
        self._kept = (self._kept + data)[-65536:]

    def text(self) -> str:
        return self._kept.decode(errors="replace")

    def telling(self) -> str:
        """pip's own errors, else the exceptions it ended with, else its last line; 600 characters at most."""
        lines = [_VERSIONS.sub("", line.strip()) for line in self.text().splitlines() if line.strip()]
        plain = [line.removeprefix("ERROR: ") for line in lines if _PLAIN_ERROR.match(line)]
        errors = plain or [line for line in lines if _TELLING.match(line)]
        return without_credentials("; ".join(dict.fromkeys(errors[-4:] or lines[-1:])))[:_MOST_TOLD]


def _plain(value: str) -> str:
    """`pip config list` quotes values as Python does; several stand on lines of their own."""
    unquoted = value.strip().strip("'\"").replace("\\n", " ")
    return " ".join(unquoted.split())


def _named_files(env: dict[str, str]) -> Iterator[Path]:
    for value in env.values():
        for word in value.split():
            path = Path(word.removeprefix("file://"))
            if path.is_absolute() and path.exists():
                # An index's pages lead to files beside it.
                yield path.parent if word.startswith("file://") else path
                yield from _link_targets(path)


def _link_targets(path: Path) -> Iterator[Path]:
    """A folder of certificates is links into another; without their targets it would be empty."""
    resolved = path.resolve()
    if resolved != path:
        yield resolved
    if path.is_dir() and any(part in ("certs", "ssl") for part in path.parts):
        parents = {entry.resolve().parent for entry in path.iterdir() if entry.is_symlink()}
        yield from (parent for parent in parents if parent != path and parent.is_dir())


def _distribution(name: str) -> importlib.metadata.Distribution | None:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _locker_key(present: Sequence[importlib.metadata.Distribution]) -> str:
    return hex_of(digest_value(sorted([found.metadata["Name"], found.version] for found in present)))[:16]


def _copy_distribution(distribution: importlib.metadata.Distribution, target: Path) -> None:
    for place, source in _files_of(distribution, target):
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)


def _files_of(distribution: importlib.metadata.Distribution, target: Path) -> Iterator[tuple[Path, Path]]:
    """Where each file of a distribution goes, and where it is."""
    for file in distribution.files or ():
        if ".." not in file.parts and "__pycache__" not in file.parts:
            yield target / file, Path(str(file.locate()))
