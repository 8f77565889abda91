"""gzip and zstd for HTTP answers a client asks to have packed (`Accept-Encoding`).

Not packed: small answers, event streams (each frame would have to be flushed by itself), and exact bytes, whose
`ETag` and `Repr-Digest` are those of the bytes as they are stored.
"""

import asyncio
import sys
import zlib
from collections.abc import Awaitable
from typing import Protocol

from aiohttp import web

from gateway.problems import Handler

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LEAST_BYTES = 1024
THREAD_BYTES = 256 * 1024  # from here on the loop would stand for milliseconds
GZIP_LEVEL = 1  # measured: docs/performance.md
ZSTD_LEVEL = 1
CODINGS = ("zstd", "gzip")  # the better first
_PACKABLE = ("application/json", "application/problem+json", "application/x-ndjson", "text/")


class Packer(Protocol):
    """Packs bytes as they come."""

    def compress(self, data: bytes, /) -> bytes:
        """What is ready so far."""

    def flush(self) -> bytes:
        """The end."""


def packer(coding: str) -> Packer:
    """A fresh one."""
    if coding == "zstd":
        return zstd.ZstdCompressor(level=ZSTD_LEVEL)
    return zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)


def coding_of(request: web.Request) -> str | None:
    """The coding a client likes best of those we have; None when it wants the bytes as they are."""
    weights: dict[str, float] = {}
    for part in request.headers.get("Accept-Encoding", "").lower().split(","):
        name, *parameters = (word.strip() for word in part.split(";"))
        weight = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        try:
            weights[name] = float(weight)
        except ValueError:
            weights[name] = 0.0
    best = max(CODINGS, key=lambda coding: weights.get(coding, 0.0))
    return best if weights.get(best, 0.0) > 0 else None


class Packing:
    """Packs one answer that is sent as it is made, or hands it through."""

    def __init__(self, request: web.Request) -> None:
        coding = coding_of(request)
        self._packer = packer(coding) if coding else None
        self.headers = {"Vary": "Accept, Accept-Encoding"} | ({"Content-Encoding": coding} if coding else {})

    def part(self, body: bytes) -> bytes:
        """What of it can be sent now."""
        return self._packer.compress(body) if self._packer else body

    def end(self) -> bytes:
        """The rest."""
        return self._packer.flush() if self._packer else b""


@web.middleware
def packed(request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
    """Packs answers that are whole in memory. A WebSocket is none, and would keep a frame of it as long as it is open."""
    upgrade = request.headers.get("Upgrade", "").lower() == "websocket"
    return handler(request) if upgrade else _packed(request, handler)


async def _packed(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    if not isinstance(response, web.Response) or response.prepared or not _fits(response):
        return response
    response.headers.setdefault("Vary", "Accept, Accept-Encoding")
    coding, body = coding_of(request), response.body
    if coding is None or not isinstance(body, bytes):
        return response
    if len(body) < THREAD_BYTES:
        response.body = _whole(coding, body)
    else:
        response.body = await asyncio.to_thread(_whole, coding, body)
    response.headers["Content-Encoding"] = coding
    return response


def _fits(response: web.Response) -> bool:
    body = response.body
    return (
        isinstance(body, bytes)
        and len(body) >= LEAST_BYTES
        and response.content_type.startswith(_PACKABLE)
        and not {"ETag", "Content-Encoding"} & response.headers.keys()
    )


def _whole(coding: str, body: bytes) -> bytes:
    pack = packer(coding)
    return pack.compress(body) + pack.flush()
