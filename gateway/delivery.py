"""Bodies over HTTP that may be large or are read slowly: sent in slices, so that memory for a slow reader is bounded,
and a reader that takes nothing at all is given up as on a WebSocket."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import AsyncExitStack

from aiohttp import web

from gateway.connection import LARGE_BYTES
from gateway.deps import DEPS, identify
from gateway.large import TooSlow
from gateway.sockets import SOCKETS, crowded

SLICE_BYTES = 16 * 1024  # what must be taken within the write stall; a closed TCP window reopens in larger steps
ROOM_S = 10.0  # how long an answer waits for room: others hold it for as long as they may read


class Stalled(Exception):
    """The peer took no bytes for as long as it may."""


async def write(request: web.Request, response: web.StreamResponse, body: bytes) -> None:
    """Writes it to a prepared response. Raises `Stalled`; the connection is cut then."""
    view = memoryview(body)
    try:
        for start in range(0, len(body), SLICE_BYTES):
            async with asyncio.timeout(request.app[DEPS].stall_s):
                await response.write(view[start : start + SLICE_BYTES])
    except TimeoutError:
        cut(request)
        raise Stalled from None


def cut(request: web.Request) -> None:
    """Breaks the transfer: once the status is sent, nothing else tells a client that this is not the end."""
    if request.transport is not None:
        request.transport.abort()


async def deliver(
    request: web.Request, key: Hashable, size: int, make: Callable[[], Awaitable[bytes]], headers: Mapping[str, str]
) -> web.StreamResponse:
    """Answers with a body of about `size` bytes, made when the process has room for it, and once for all who are sent the
    body of this name at a time. Raises the 503 when there is no room in time."""
    if size <= LARGE_BYTES:
        return web.Response(body=await make(), headers=headers)
    response = web.StreamResponse(headers=headers)
    reading = request.app[SOCKETS].large.body(identify(request).tenant, key, size, make)
    try:
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(ROOM_S):
                    body = await held.enter_async_context(reading)
            except TimeoutError:
                raise crowded("Too many large answers are being read at this moment; try again.") from None
            response.content_length = len(body)
            await response.prepare(request)
            if request.method != "HEAD":
                await write(request, response, body)
            await response.write_eof()
    except (Stalled, TooSlow):
        cut(request)
    return response
