"""One WebSocket: sending with one frame in flight, liveness, and what a peer may send to a follow socket.

A slow peer is waited for as long as it takes any byte at all; memory for it is bounded by the transport's buffer and
one frame. Nothing here knows jobs.
"""

import asyncio
import logging
import struct
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from aiohttp import WSMsgType, web
from aiohttp.abc import AbstractStreamWriter

from gateway.large import TooSlow
from gateway.sockets import FLUSH_S, Sockets, Vanished

INBOUND_BYTES_MAX = 64 * 1024
INBOUND_PER_S = 10  # frames on a socket that only follows; they are counted and ignored
PING_S = 20.0
PONG_S = 10.0  # due only from a peer that answered since data was last sent to it; otherwise TCP judges
CLOSE_S = 2.0  # for the peer's half of the closing handshake
LOOK_S = 5.0  # how often a full transport is looked at
SLICE_BYTES = 64 * 1024
LARGE_BYTES = 256 * 1024  # frames over this take from the process budget while in flight

log = logging.getLogger(__name__)
T = TypeVar("T")


class Ending(Exception):
    """The conversation is over: close with this code, or just leave when it is None (the peer is gone)."""

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class Connection:
    """A prepared WebSocket. `heartbeat` makes the frame that is sent after `heartbeat_s` without another."""

    __slots__ = (
        *("heartbeat", "heartbeat_s", "inbound", "on_text", "_request", "_socket", "_writer", "_tasks", "_sockets"),
        *("_stall_s", "_loop", "_sent_at", "_ping_at", "_pong_by", "_within_frame", "_answered", "_recent"),
        *("on_auth", "tenant", "_early"),
    )

    def __init__(
        self,
        request: web.Request,
        socket: web.WebSocketResponse,
        writer: AbstractStreamWriter,
        tasks: asyncio.TaskGroup,
        sockets: Sockets,
        *,
        stall_s: float,
    ) -> None:
        self.heartbeat_s = 15.0
        self.heartbeat: Callable[[], bytes] = bytes
        self.inbound = 0
        self.on_text: Callable[[str], None] | None = None  # takes what a peer says; without it that is only counted
        self.tenant = ""  # whose room large frames take
        self.on_auth: Callable[[str], None] | None = None  # takes what may be a newer key, counted or not
        self._early: Sequence[str] = ()
        self._request = request
        self._socket = socket
        self._writer = writer
        self._tasks = tasks
        self._sockets = sockets
        self._stall_s = stall_s
        self._loop = asyncio.get_running_loop()
        self._sent_at = self._loop.time()
        self._ping_at = self._sent_at + PING_S
        self._pong_by: float | None = None
        self._within_frame = False
        self._answered = False  # a pong came after the last data frame
        self._recent: deque[float] | None = None  # when the peer said something; most never do

    # -- sending

    async def send(self, frame: bytes) -> None:
        """Sends one text frame and waits until the transport takes more. Raises `Ending` when the peer takes nothing."""
        if len(frame) > LARGE_BYTES:
            await self.send_large(id(frame), len(frame), _now(frame))  # many viewers are sent one object
        else:
            await self._write(frame)

    async def send_all(self, frames: Sequence[bytes]) -> None:
        """Sends text frames in one write; together they are at most a chunk (`viewer.CHUNK_BYTES_MAX`), or one."""
        if len(frames) == 1:
            await self.send(frames[0])
        elif frames:
            await self._write(*frames)

    async def send_large(self, key: Hashable, size: int, make: Callable[[], Awaitable[bytes]]) -> None:
        """Sends a frame of about `size` bytes, made when the process has room for it, once for all who are sent the frame
        of this name at a time; heartbeats go on until it begins."""

        async def work() -> None:
            try:
                async with self._sockets.large.body(self.tenant, key, size, make) as frame:
                    await self._write_in_slices(frame)
            except TooSlow:
                raise Ending(4508, "too slow while others wait") from None
            except Vanished:
                raise Ending(1012, "log_replaced") from None

        await self.meanwhile(work())

    async def meanwhile(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, with heartbeats while it takes its time."""
        task = self._tasks.create_task(work)
        while not task.done():
            await asyncio.wait({task}, timeout=self.wait_s())
            if not task.done():
                await self.tick()
        return task.result()

    def wait_s(self) -> float:
        """Seconds until `tick` has something to do."""
        due = min(self._sent_at + self.heartbeat_s, self._ping_at, self._pong_by or self._ping_at)
        return max(due - self._loop.time(), 0.0)

    async def tick(self) -> None:
        """Sends the heartbeat or ping that is due. Raises `Ending` when a pong is overdue."""
        now = self._loop.time()
        if self._pong_by is not None and now >= self._pong_by:
            raise Ending(4408, "no answer to a ping")
        if self._busy:
            # A transport that is full needs no heartbeat: what waits in it will tell the peer that we live.
            self._sent_at = now
            self._ping_at = max(self._ping_at, now + 1.0)
            return
        if now >= self._sent_at + self.heartbeat_s:
            self._sent_at = now
            heartbeat = self.heartbeat()
            self._sockets.sent(heartbeat)
            await self._socket.send_frame(heartbeat, WSMsgType.TEXT)
        if now >= self._ping_at:
            self._ping_at = now + PING_S
            if self._answered and self._pong_by is None:
                self._pong_by = now + PONG_S
            await self._socket.ping()

    @property
    def _busy(self) -> bool:
        return self._within_frame or self._request.protocol.writing_paused

    @property
    def clear(self) -> bool:
        """Whether a small write leaves at once and nothing is half sent: then `write_now` may be used."""
        transport = self._request.transport
        return not (
            transport is None
            or self._within_frame
            or self._socket.compress
            or self._socket.closed
            or transport.is_closing()
            or transport.get_write_buffer_size()
        )

    def write_now(self, wire: bytes, frames: int, size: int) -> None:
        """Writes so many text frames of `size` bytes, their heads among them in `wire`. Never waits."""
        transport = self._request.transport
        assert transport is not None
        self._answered = False
        self._pong_by = None
        self._sockets.sent_all(frames, size)
        transport.write(wire)
        self._sent_at = self._loop.time()

    async def _write(self, *frames: bytes) -> None:
        """Past aiohttp, which takes a coroutine and a write for each frame."""
        transport = self._request.transport
        if transport is None or transport.is_closing() or self._socket.closed:
            raise Ending(None)
        self._answered = False
        self._pong_by = None
        wire: list[bytes] = []
        for frame in frames:
            self._sockets.sent(frame)
            if self._socket.compress:
                await self._socket.send_frame(frame, WSMsgType.TEXT)  # never waits by itself: see `converse`
            else:
                wire += (head_of(len(frame)), frame)
        transport.write(b"".join(wire))
        if self._busy:
            await self._drained()
        self._sent_at = self._loop.time()

    async def _write_in_slices(self, frame: bytes) -> None:
        """One text frame past aiohttp, which hands a transport all of it at once: for a slow peer a copy of its own."""
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise Ending(None)
        self._answered, self._pong_by = False, None
        self._sockets.sent(frame)
        self._within_frame = True  # nothing else may be written now
        try:
            transport.write(head_of(len(frame)))
            for start in range(0, len(frame), SLICE_BYTES):
                transport.write(memoryview(frame)[start : start + SLICE_BYTES])
                if self._request.protocol.writing_paused:
                    await self._drained()
        except BaseException:
            transport.abort()  # no close can follow half a frame
            raise
        self._within_frame = False
        self._sent_at = self._loop.time()

    async def _drained(self) -> None:
        drain = self._tasks.create_task(self._drain())
        waiting, moved_at = sys.maxsize, self._loop.time()
        while not drain.done():
            await asyncio.wait({drain}, timeout=min(LOOK_S, self._stall_s / 4))
            transport = self._request.transport
            left = transport.get_write_buffer_size() if transport is not None else 0
            if left < waiting:
                waiting, moved_at = left, self._loop.time()
            elif self._loop.time() - moved_at >= self._stall_s:
                raise Ending(4508, "took no bytes")

    async def _drain(self) -> None:
        # In a task of its own: aiohttp's drain shares one future, which a cancelled waiter would cancel for good.
        with suppress(ConnectionError):
            await self._writer.drain()

    # -- receiving

    def hear_first(self, early: Sequence[str]) -> None:
        """What a peer said while nobody could hear it: for the next who listens."""
        self.on_text, self._early = None, early

    def hear(self, on_text: Callable[[str], None]) -> None:
        """Gives what the peer says to `on_text`."""
        self.on_text = on_text
        early, self._early = self._early, ()
        for text in early:
            on_text(text)

    def aside(self, work: Coroutine[Any, Any, None]) -> None:
        """Does `work` beside the conversation, which an `Ending` it raises ends."""
        try:
            self._tasks.create_task(work)
        except RuntimeError:  # the conversation is ending already
            work.close()

    def end(self, ending: Ending) -> None:
        """Ends the conversation from outside."""

        async def now() -> None:
            raise ending

        self.aside(now())

    def lose_key(self, reason: str) -> None:
        """Ends the conversation: the key it began with is good no more."""
        self.end(Ending(4401, reason))

    async def listen(self) -> None:
        """Reads until the peer leaves or breaks a rule. Always ends by raising `Ending`."""
        while True:
            frame = await self._socket.receive()
            match frame.type:
                case WSMsgType.TEXT if self.on_text is not None:
                    self.on_text(frame.data)
                case WSMsgType.TEXT:
                    self._count()
                    if self.on_auth is not None:
                        self.on_auth(frame.data)
                case WSMsgType.BINARY:
                    raise Ending(1003, "frames are text")
                case WSMsgType.PING:
                    if not self._busy:
                        await self._socket.pong(frame.data)
                case WSMsgType.PONG:
                    self._answered, self._pong_by = True, None
                case WSMsgType.ERROR:
                    raise Ending(self._socket.close_code)  # aiohttp has closed: 1002, 1007 or 1009
                case _:
                    raise Ending(None)

    def _count(self) -> None:
        now = self._loop.time()
        self.inbound += 1
        if self._recent is None:
            self._recent = deque(maxlen=INBOUND_PER_S)
        if len(self._recent) == INBOUND_PER_S and now - self._recent[0] < 1.0:
            raise Ending(4429, "retry_after=1")
        self._recent.append(now)


Talk = Callable[[Connection], Awaitable[Ending]]


async def converse(
    request: web.Request,
    talk: Talk,
    sockets: Sockets,
    *,
    protocols: tuple[str, ...] = (),
    stall_s: float = FLUSH_S,
    compress: bool = False,
) -> web.WebSocketResponse:
    """Upgrades the request, lets `talk` use the connection and closes it as `talk` or the peer's conduct says. Frames are
    compressed if `compress`, the peer offers it, and not too many others are."""
    socket = socket_of(protocols, compress=compress and sockets.compressed < sockets.compressed_max)
    writer = await socket.prepare(request)
    ending: Ending | None = None
    with sockets.compressing(bool(socket.compress)):
        try:
            async with asyncio.TaskGroup() as tasks:
                connection = Connection(request, socket, writer, tasks, sockets, stall_s=stall_s)
                listening = tasks.create_task(connection.listen())
                ending = await talk(connection)
                listening.cancel()
        except* Ending as endings:
            ending = _first(endings)
        except* ConnectionError:
            ending = Ending(None)
        except* Exception:  # a boundary: a viewer that breaks harms no other
            log.exception("a stream failed: %s %s", request.method, request.rel_url.raw_path)
            ending = None
    ending = ending or Ending(1011, "internal error")
    sockets.ended(ending.code)
    await _close(request, socket, ending, sockets)
    return socket


def socket_of(protocols: tuple[str, ...] = (), *, compress: bool = False) -> web.WebSocketResponse:
    """A WebSocket as every stream here has it; held to RFC 6455 by tests/gateway/test_rfc6455.py."""
    return web.WebSocketResponse(
        timeout=CLOSE_S,
        autoping=False,  # pongs are what tells a live peer
        compress=compress,  # its cost: docs/performance.md
        max_msg_size=INBOUND_BYTES_MAX + 1,  # aiohttp refuses from this size on
        writer_limit=sys.maxsize,  # waiting for the transport is ours, see Connection._drained
        protocols=protocols,
    )


def _first(group: BaseExceptionGroup[Ending]) -> Ending:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _close(request: web.Request, socket: web.WebSocketResponse, ending: Ending, sockets: Sockets) -> None:
    code = 1000 if ending.code is None else ending.code
    with suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(2 * CLOSE_S):
            await socket.close(code=code, message=ending.reason.encode(), drain=False)
    if (transport := request.transport) is not None and transport.get_write_buffer_size():
        sockets.linger(transport, 1.0 if ending.code == 4508 else FLUSH_S)


def head_of(size: int) -> bytes:
    """A text frame's head, as RFC 6455 has it: final, not masked."""
    if size < 126:
        return bytes((0x81, size))
    return struct.pack(">BBH", 0x81, 126, size) if size < 65536 else struct.pack(">BBQ", 0x81, 127, size)


def _now(frame: bytes) -> Callable[[], Awaitable[bytes]]:
    async def make() -> bytes:
        return frame

    return make
