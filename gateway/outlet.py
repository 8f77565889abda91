"""One open `text/event-stream`: frames out, a sign of life when silent, a peer that left or stopped reading noticed.

Frames are JSON as we write it, so a `data:` line is one frame: no raw newline is in it. One write at a time; memory for
a slow reader is the transport's buffer and what is being written.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable

from aiohttp import web

from gateway.access import ACCESS, EVENT_STREAM
from gateway.delivery import Stalled, cut, write
from gateway.deps import identify
from gateway.large import TooSlow
from gateway.sockets import Sockets, Vanished

COMMENT_S = 15.0  # without a byte; proxies cut what is silent for longer
LOOK_S = 2.0  # how often a peer that left without a word is noticed while there is nothing to say

_HEADERS = {"Content-Type": EVENT_STREAM, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}

log = logging.getLogger(__name__)


class Gone(Exception):
    """The peer left."""


class Outlet:
    """A prepared response. `heartbeat` makes the frame that is sent after `heartbeat_s` without another."""

    def __init__(self, request: web.Request, response: web.StreamResponse, tasks: asyncio.TaskGroup) -> None:
        self.heartbeat_s = COMMENT_S
        self.heartbeat: Callable[[], bytes] = lambda: b""
        self._request = request
        self._response = response
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._framed_at = self._wrote_at = self._loop.time()
        self._within_frame = False

    def wait_s(self) -> float:
        """Seconds until `tick` has something to do."""
        due = min(self._framed_at + self.heartbeat_s, self._wrote_at + COMMENT_S, self._loop.time() + LOOK_S)
        return max(due - self._loop.time(), 0.0)

    async def tick(self) -> None:
        """Sends the sign of life that is due. Raises `Gone`."""
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise Gone
        now = self._loop.time()
        if self._within_frame:
            return
        silent = now >= self._wrote_at + COMMENT_S
        if now >= self._framed_at + self.heartbeat_s:
            await self.control(self.heartbeat(), b":\n\n" if silent else b"")
        elif silent:
            await self._write(b":\n\n")

    async def control(self, frame: bytes, before: bytes = b"") -> None:
        """Sends a frame that is no event. `before` are lines of the format itself."""
        await self._write(b"%sdata: %s\n\n" % (before, frame))
        self._framed_at = self._loop.time()

    async def events(self, identified: Iterable[tuple[bytes, bytes]]) -> None:
        """Sends frames with their ids, in one write."""
        await self._write(b"".join([b"id: %s\ndata: %s\n\n" % pair for pair in identified]))
        self._framed_at = self._loop.time()

    async def large(
        self, sockets: Sockets, identity: bytes | None, key: Hashable, size: int, make: Callable[[], Awaitable[bytes]]
    ) -> None:
        """Sends a frame of about `size` bytes, made when the process has room for it, once for all who are sent the frame
        of this name at a time; signs of life go on until it begins. One that is no event has no `identity`."""

        async def work() -> None:
            async with sockets.large.body(identify(self._request).tenant, key, size, make) as frame:
                self._within_frame = True
                await self._write(b"data: " if identity is None else b"id: %s\ndata: " % identity)
                await self._write(frame)
                await self._write(b"\n\n")
                self._within_frame = False
                self._framed_at = self._loop.time()

        async def bounded() -> None:
            try:
                await work()
            except TooSlow:
                cut(self._request)
                raise Stalled from None
            except Vanished:
                raise Gone from None

        task = self._tasks.create_task(bounded())
        while not task.done():
            await asyncio.wait({task}, timeout=self.wait_s())
            if not task.done():
                await self.tick()

    def end(self, reason: str) -> None:
        """Ends the answer from outside; whoever comes back is told why."""

        async def now() -> None:
            raise Gone(reason)

        ending = now()
        try:
            self._tasks.create_task(ending)
        except RuntimeError:  # it is ending already
            ending.close()

    async def _write(self, body: bytes) -> None:
        await write(self._request, self._response, body)
        self._wrote_at = self._loop.time()


Talk = Callable[[Outlet], Awaitable[None]]


async def pour(request: web.Request, talk: Talk, *, retry_ms: int) -> web.StreamResponse:
    """Answers with an event stream that `talk` fills; it ends when `talk` returns. `retry_ms` is when to come back."""
    response = web.StreamResponse(headers=_HEADERS)
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    try:
        async with asyncio.TaskGroup() as tasks:
            outlet = Outlet(request, response, tasks)
            with request.app[ACCESS].hosting(identify(request), outlet.end):
                await write(request, response, b"retry: %d\n\n" % retry_ms)
                await talk(outlet)
        await response.write_eof()
    except* (Gone, Stalled, ConnectionError):
        pass
    except* Exception:  # a boundary: the status is sent, and a viewer that breaks harms no other
        log.exception("an event stream failed: %s %s", request.method, request.rel_url.raw_path)
        cut(request)
    return response
