"""A real HTTP server that plays the API, good days and bad: tells what it was asked, answers as it is told."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from engine_worker.engines.fpl.source import Source, digest

UPDATING_PAGE = b"<!DOCTYPE html><html><body>The game is being updated.</body></html>"


@dataclass
class Asked:
    """One request: the API path, its headers and when it came (monotonic seconds)."""

    path: str
    headers: dict[str, str]
    at: float


@dataclass
class Said:
    """One answer. `declared` says a longer Content-Length than the body has; `pause_s` keeps silent after half of it."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    declared: int | None = None
    pause_s: float = 0.0


Behaviour = Callable[[Asked], Said | None]


class Site:
    """Serves a source's pages under `url`. `bad` may answer first; None lets the good day answer."""

    def __init__(self, pages: Source) -> None:
        self.pages = pages
        self._bodies: dict[tuple[int, str], bytes] = {}
        self.asked: list[Asked] = []
        self.bad: Behaviour = lambda _asked: None
        self._released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.url = f"http://127.0.0.1:{self._server.server_port}/api"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def asked_for(self, path: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == path]

    def answer(self, asked: Asked) -> Said:
        if (said := self.bad(asked)) is not None:
            return said
        try:
            body = self._body(asked.path)
        except LookupError:
            return Said(404, b'{"detail": "Not found."}')
        tag = f'"{digest(body)[:16]}"'
        if asked.headers.get("if-none-match") == tag:
            return Said(304, headers={"ETag": tag})
        return Said(200, body, {"ETag": tag})

    def _body(self, path: str) -> bytes:
        key = (id(self.pages), path)
        if key not in self._bodies:
            self._bodies[key] = json.dumps(self.pages.answer(path).body).encode()
        return self._bodies[key]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.removeprefix("/api/").removesuffix("/")
                asked = Asked(path, {key.lower(): value for key, value in self.headers.items()}, time.monotonic())
                site.asked.append(asked)
                said = site.answer(asked)
                self.send_response(said.status)
                for name, value in said.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(said.declared or len(said.body)))
                self.end_headers()
                half = len(said.body) // 2 if said.pause_s else len(said.body)
                try:
                    self.wfile.write(said.body[:half])
                    if said.pause_s:
                        site._released.wait(said.pause_s)
                        self.wfile.write(said.body[half:])
                except OSError:
                    pass  # the reader gave up, as it should
                self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
