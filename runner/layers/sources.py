"""Layer `access`: declared sources, which a job's results depend on and which may not be there tomorrow.

Each is asked whether it could be read, and as whom, when a run is recorded, before each replay and when a run is
compared with the present. What is asked is what is recorded: a URI holds no password, so that the next can ask again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from runner.errors import ReplayError, UsageError
from runner.layers.access import read_secrets, telling
from runner.state.job import Job, JobSource
from runner.state.paths import is_text
from runner.state.spec import SourceSeen

if TYPE_CHECKING:
    from runner.tools import reach

PORTS = {
    "amqp": 5672,
    "clickhouse": 9000,
    "kafka": 9092,
    "mongodb": 27017,
    "mssql": 1433,
    "mysql": 3306,
    "oracle": 1521,
    "postgres": 5432,
    "postgresql": 5432,
    "redis": 6379,
    "sftp": 22,
    "ssh": 22,
}
_WEB = ("http", "https")
_HOST_PORT = re.compile(r"^[A-Za-z0-9._-]+:[0-9]{1,5}$|^\[[0-9A-Fa-f:.]+\]:[0-9]{1,5}$")
_DVC = re.compile(r"^dvc:([\w.-]+)$")
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*):")


class _File(msgspec.Struct, frozen=True):
    path: str


class _Web(msgspec.Struct, frozen=True):
    url: str
    user: str | None


class _Port(msgspec.Struct, frozen=True):
    host: str
    number: int
    user: str | None


class _Dvc(msgspec.Struct, frozen=True):
    remote: str


def declared(job: Job) -> tuple[JobSource, ...]:
    """The job's sources in one form. Raises `UsageError` for one that cannot be asked, or that holds a password."""
    found = tuple(JobSource(one) if isinstance(one, str) else one for one in job.sources)
    for number, source in enumerate(found):
        place = _place(source.uri)
        if source.secret is not None and not isinstance(place, _Web):
            raise UsageError(
                f"sources: {source.uri} takes no secret",
                "only http(s) is asked with one; of a port it is asked whether it takes connections",
                "leave `secret` out",
            )
        if source.secret is not None and source.secret not in job.secrets:
            raise UsageError(
                f"sources: {source.uri} names the secret {source.secret}, which the job does not declare",
                next=f"declare it: `secrets: {{{source.secret}: env:{source.secret}}}`",
            )
        if source.uri in (one.uri for one in found[:number]):
            raise UsageError(f"sources: {source.uri} is declared twice", next="declare it once")
    return found


def refuse_telling(sources: Sequence[JobSource], secrets: Mapping[str, bytes]) -> None:
    """Raises `UsageError` for a URI that holds the value of a secret: it would be recorded."""
    values = telling(secrets.values())
    for number, source in enumerate(sources, 1):
        if any(value in source.uri.encode() for value in values):
            raise UsageError(
                f"sources: number {number} holds the value of a secret",
                "URIs are recorded in specs, which are shared",
                "write it without, and name the secret beside it: `{uri: …, secret: NAME}`",
            )


def observe(root: Path, sources: Sequence[JobSource], secrets: Mapping[str, bytes]) -> tuple[SourceSeen, ...]:
    """Whether each can be read now, and as whom; all are asked at the same time. One whose secret is not in `secrets`
    is not asked."""
    if not sources:
        return ()
    from runner.tools import reach

    places = [_place(source.uri) for source in sources]
    askings = [_asking(root, place, one.secret, secrets) for place, one in zip(places, sources, strict=True)]
    answers = iter(reach.ask_all([asking for asking in askings if asking]))
    seen = []
    for source, place, asking in zip(sources, places, askings, strict=True):
        found = next(answers) if asking else reach.Answer(False, f"secret {source.secret} cannot be read")
        seen.append(
            SourceSeen(
                uri=source.uri,
                reachable=found.reachable,
                identity=_identity(place, source.secret),
                status=found.status,
                secret=source.secret,
            )
        )
    return tuple(sorted(seen, key=lambda one: one.uri))


def of_seen(seen: Sequence[SourceSeen]) -> tuple[JobSource, ...]:
    """What was asked then, to be asked again. A recorded URI that cannot be asked is left out."""
    return tuple(JobSource(one.uri, one.secret) for one in seen if _can_be_asked(one.uri))


def readable(references: Mapping[str, str], root: Path, caller: Mapping[str, str]) -> dict[str, bytes]:
    """Those secrets that can be read now."""
    found: dict[str, bytes] = {}
    for name, reference in references.items():
        try:
            found |= read_secrets({name: reference}, root, caller)
        except ReplayError:
            continue
    return found


def _can_be_asked(uri: str) -> bool:
    try:
        _place(uri)
    except UsageError:
        return False
    return True


def _asking(
    root: Path, place: _File | _Web | _Port | _Dvc, secret: str | None, secrets: Mapping[str, bytes]
) -> reach.Asking | None:
    from runner.tools import reach

    if secret is not None and secret not in secrets:
        return None
    match place:
        case _File(path):
            return reach.Asking(lambda: reach.file(root / path))
        case _Web(url, user):
            login = reach.Login(user, secrets[secret]) if secret else None
            return reach.Asking(lambda: reach.web(url, login))
        case _Port(host, number, _):
            return reach.Asking(lambda: reach.port(host, number))
        case _Dvc(remote):
            return reach.Asking(lambda: reach.dvc_remote(root, remote), reach.DVC_PATIENCE_S)


def _identity(place: _File | _Web | _Port | _Dvc, secret: str | None) -> str:
    from runner.tools import reach

    if isinstance(place, _File | _Dvc):
        return reach.caller()
    shown = f"secret {secret}" if secret else ""
    return ", ".join(filter(None, (place.user, shown))) or "anonymous"


def _place(uri: str) -> _File | _Web | _Port | _Dvc:
    if not uri.strip() or not uri.isprintable() or not is_text(uri):
        raise UsageError(f"sources: {uri!r} is empty or holds what cannot be printed", next="write a path or a URI")
    if found := _DVC.match(uri):
        return _Dvc(found[1])
    if _HOST_PORT.match(uri):
        uri = f"tcp://{uri}"
    scheme = (_SCHEME.match(uri) or ("", ""))[1].lower()
    if not scheme:
        return _File(os.path.expanduser(uri))
    parts = _parts(uri)
    if scheme == "file":
        return _file_place(uri, parts)
    _refuse_password(parts)
    if not parts.hostname:
        raise _unknown(parts)
    user = unquote(parts.username) if parts.username else None
    if scheme in _WEB:
        host = parts.netloc.rpartition("@")[2]
        return _Web(parts._replace(netloc=host).geturl(), user)
    number = _port(parts) or PORTS.get(scheme)
    if number is None:
        raise _unknown(parts)
    return _Port(parts.hostname, number, user)


def _parts(uri: str) -> SplitResult:
    try:
        return urlsplit(uri)
    except ValueError:
        # The error's own words may show a password.
        raise UsageError("sources: one of them is no URI", next="write a path, or like https://HOST/PATH") from None


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:
        raise UsageError(f"sources: {parts.hostname} is given with a port that is none") from None


def _file_place(uri: str, parts: SplitResult) -> _File:
    path = unquote(parts.path) if parts.netloc in ("", "localhost") else ""
    if not path.startswith("/"):
        raise UsageError(f"sources: {uri} is no file of this machine", next="write file:///PATH, or the path alone")
    return _File(path)


def _refuse_password(parts: SplitResult) -> None:
    held = "a password" if parts.password is not None else "a query" if parts.query else ""
    if held:
        scheme, host, path = parts.scheme, parts.netloc.rpartition("@")[2], parts.path
        raise UsageError(
            f"sources: {scheme}://{host}{path} is given with {held}",
            "URIs are recorded in specs, which are shared; a query may hold a token, too",
            "write it without; for http(s), name a declared secret beside it: `{uri: …, secret: NAME}`",
        )


def _unknown(parts: SplitResult) -> UsageError:
    return UsageError(
        f"sources: {parts.scheme}: is nothing that can be asked",
        f"what can be: a path, file:, http(s)://, HOST:PORT, dvc:REMOTE, and {', '.join(sorted(PORTS))}",
        "for object storage name its DVC remote, dvc:REMOTE, or its https:// address",
    )
