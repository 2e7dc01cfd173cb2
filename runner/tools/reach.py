"""Whether something outside can be read now: files, HTTP, open ports, DVC remotes. It is asked, and nothing is fetched.

Answers are a file's or a server's own, told in words of this tool: what a stranger says may hold anything.
"""

from __future__ import annotations

import http.client
import os
import pwd
import re
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import msgspec

PATIENCE_S = 5.0
DVC_PATIENCE_S = 20.0

_ASK_AGAIN = frozenset({400, 403, 404, 405, 501})
_REFUSED = re.compile(r"\b40[13]\b|forbidden|denied|unauthori[sz]ed|credentials", re.IGNORECASE)


class Answer(msgspec.Struct, frozen=True):
    """`status` says in a few words what came of it."""

    reachable: bool
    status: str


class Login(msgspec.Struct, frozen=True):
    """What is shown to a server: a user's password, or without a user, a token."""

    user: str | None
    secret: bytes

    def header(self) -> str:
        if self.user is None:
            return f"Bearer {self.secret.strip().decode('latin-1')}"
        return f"Basic {b64encode(self.user.encode() + b':' + self.secret.strip()).decode()}"


class Asking(msgspec.Struct, frozen=True):
    ask: Callable[[], Answer]
    patience_s: float = PATIENCE_S


def ask_all(askings: Sequence[Asking]) -> list[Answer]:
    """All answers, asked for at the same time.

    A name server or a network file system may hang where nothing can interrupt it: such a thread is left to itself.
    """
    answers: dict[int, Answer] = {}

    def ask(number: int) -> None:
        answers[number] = askings[number].ask()

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(len(askings))]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread, asking in zip(threads, askings, strict=True):
        thread.join(max(0.0, started + asking.patience_s - time.monotonic()))
    return [answers.get(number) or _late(asking.patience_s) for number, asking in enumerate(askings)]


def _late(patience_s: float) -> Answer:
    return Answer(False, f"no answer within {patience_s:g} s")


def caller() -> str:
    """The user that files are read as."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"


def file(path: Path) -> Answer:
    """Whether the caller may read the file, or list the folder."""
    try:
        if path.is_dir():
            with os.scandir(path):
                return Answer(True, "a folder that can be read")
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return Answer(False, _words(error))
    return Answer(True, "a file that can be read")


def port(host: str, number: int) -> Answer:
    """Whether a server takes connections; nobody logs in."""
    try:
        socket.create_connection((host, number), PATIENCE_S).close()
    except (OSError, UnicodeError) as error:
        return Answer(False, _words(error))
    return Answer(True, "takes connections; no login was tried")


def web(url: str, login: Login | None) -> Answer:
    """What the server says of the resource. Some refuse to be asked for the head alone, or know it not."""
    answer, code = _request("HEAD", url, login)
    return _request("GET", url, login)[0] if code in _ASK_AGAIN else answer


def dvc_remote(root: Path, name: str) -> Answer:
    """Whether DVC can list the remote, with its own credentials."""
    from runner.tools import dvc

    try:
        done = dvc.list_remote(root, name, DVC_PATIENCE_S)
    except subprocess.TimeoutExpired:
        return _late(DVC_PATIENCE_S)
    if done.returncode == 0:
        return Answer(True, "DVC can list it")
    return Answer(False, "DVC is refused" if _REFUSED.search(done.stderr) else "DVC cannot list it")


def _request(method: str, url: str, login: Login | None) -> tuple[Answer, int]:
    request = urllib.request.Request(url, method=method, headers={"User-Agent": "replay"})
    if login:
        request.add_unredirected_header("Authorization", login.header())
    try:
        with urllib.request.build_opener(_Redirects()).open(request, timeout=PATIENCE_S) as answer:
            return Answer(True, _status(answer.status)), answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return Answer(False, _status(error.code)), error.code
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Answer(False, _words(error)), 0


class _Redirects(urllib.request.HTTPRedirectHandler):
    """A login is shown again on the same server only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        login = req.unredirected_hdrs.get("Authorization")
        if request and login and urlsplit(newurl)[:2] == urlsplit(req.full_url)[:2]:
            request.add_unredirected_header("Authorization", login)
        return request


def _status(code: int) -> str:
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)


def _words(error: Exception) -> str:
    """A reason without the error's own text, which may hold what was sent."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, socket.gaierror):
        return "the name is not known"
    if isinstance(reason, ssl.SSLError):
        return "its certificate does not hold" if isinstance(reason, ssl.SSLCertVerificationError) else "TLS fails"
    if isinstance(reason, http.client.HTTPException):
        return "it ends the connection without an answer"
    if isinstance(reason, TimeoutError):
        return _late(PATIENCE_S).status
    number = reason.errno if isinstance(reason, OSError) else None
    return os.strerror(number) if number else "it cannot be asked"
