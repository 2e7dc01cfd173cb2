"""An HTTP server on loopback that answers as it is told: a status, a redirect, or no answer at all."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Answering:
    """`status` is the answer to all; 0 closes the connection, -1 never answers. `token` is what must be shown for it,
    else 401. `get_only` refuses HEAD with 405. `asked` lists method and Authorization of each request."""

    def __init__(self) -> None:
        self.status = 200
        self.token: str | None = None
        self.redirect: str | None = None
        self.get_only = False
        self.asked: list[tuple[str, str | None]] = []
        self._ended = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/feed"

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        shown = handler.headers.get("Authorization")
        self.asked.append((handler.command, shown))
        if self.status == 0:
            handler.close_connection = True
        elif self.status == -1:
            self._ended.wait(60)
        elif self.redirect and handler.path == "/feed":
            handler.send_response(302)
            handler.send_header("Location", self.redirect)
            handler.end_headers()
        else:
            refused = self.token is not None and shown != self.token
            handler.send_response(
                405 if self.get_only and handler.command == "HEAD" else 401 if refused else self.status
            )
            handler.end_headers()

    def close(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, answering: Answering, *arguments: Any) -> None:
        self._answering = answering
        super().__init__(*arguments)

    def do_HEAD(self) -> None:
        self._answering.answer(self)

    def do_GET(self) -> None:
        self._answering.answer(self)

    def log_message(self, *_arguments: Any) -> None:
        pass


@contextmanager
def answering() -> Iterator[Answering]:
    made = Answering()
    try:
        yield made
    finally:
        made.close()
