"""Viewers on bare sockets, in numbers and with every kind of manners: they cost the test little."""

import asyncio
import base64
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from tests.installation import BOUND_S

NDJSON = "application/x-ndjson"
CLOSE_1000 = b"\x88\x82\x00\x00\x00\x00\x03\xe8"  # masked with zeros
PING = b"\x89\x80\x00\x00\x00\x00"
TEXT, CLOSE = 0x1, 0x8


class Away(Exception):
    """The answer was 503: the database did not answer in time, on a busy machine."""


class Peer:
    """One client's end. It reads only when told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def head(self) -> None:
        """Reads the head of the answer. Raises `Away`."""
        status = (await self._reader.readuntil(b"\r\n\r\n")).split()[1]
        if status == b"503":
            raise Away
        assert status in {b"101", b"200"}, status

    async def frame(self) -> tuple[int, bytes]:
        """The next frame: its opcode and what it carries."""
        first, length = await self._reader.readexactly(2)
        if length == 126:
            (length,) = struct.unpack(">H", await self._reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", await self._reader.readexactly(8))
        return first & 0x0F, await self._reader.readexactly(length)

    async def until(self, word: bytes) -> None:
        """Reads frames up to one that holds this."""
        while word not in (await self.frame())[1]:
            pass

    async def closed(self) -> int:
        """Reads to the server's close and answers it; returns its code."""
        while (frame := await self.frame())[0] != CLOSE:
            pass
        self._writer.write(CLOSE_1000)
        return int.from_bytes(frame[1][:2])

    async def take(self, count: int) -> int:
        """Reads up to so many bytes; 0 at the end."""
        return len(await self._reader.read(count))

    def say(self, what: bytes) -> None:
        """Writes bytes as they are."""
        self._writer.write(what)

    async def end(self) -> None:
        """Reads to the end of the connection."""
        while await self._reader.read(65536):
            pass

    def abort(self) -> None:
        """Drops the connection without a word."""
        self._writer.transport.abort()


@asynccontextmanager
async def peer(url: str, path: str = "", *, accept: str = "", window: int | None = None) -> AsyncIterator[Peer]:
    """A connection that asked for the WebSocket at `path`; for plain HTTP when it says what it accepts; for nothing
    without a path. `window` bounds what the kernel and we take before it is read, in bytes."""
    address = urlsplit(url)
    with socket.socket() as bare:
        if window:
            bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        bare.setblocking(False)
        await asyncio.get_running_loop().sock_connect(bare, (address.hostname, address.port))
        reader, writer = await asyncio.open_connection(sock=bare.dup(), limit=window or 65536)
    connected = Peer(reader, writer)
    try:
        if path:
            connected.say(_request(path, accept))
        yield connected
    finally:
        connected.abort()


def _request(path: str, accept: str) -> bytes:
    if accept:
        return f"GET {path} HTTP/1.1\r\nHost: here\r\nAccept: {accept}\r\n\r\n".encode()
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {path} HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    ).encode()


# ---- manners ----------------------------------------------------------------------------------------------------

Manner = Callable[[str, str, str], Awaitable[None]]  # URL, a long finished job, a living one
UNKNOWN = "0192e4a0-0000-7000-8000-000000000000"


async def polite(url: str, _: str, living: str) -> None:
    """Catches up, says goodbye, waits for the answer."""
    async with peer(url, _stream(living)) as one:
        await one.head()
        await one.until(b'"caught_up"')
        one.say(CLOSE_1000)
        await one.end()


async def abrupt(url: str, _: str, living: str) -> None:
    """Leaves without a word after `hello`."""
    async with peer(url, _stream(living)) as one:
        await one.head()
        await one.frame()


async def in_the_middle(url: str, finished: str, _: str) -> None:
    """Leaves in the middle of a long replay."""
    async with peer(url, _stream(finished)) as one:
        await one.head()
        await one.take(32_768)


async def to_the_end(url: str, finished: str, _: str) -> None:
    """Takes the last events of a finished job and its close."""
    async with peer(url, f"{_stream(finished)}?last=3") as one:
        await one.head()
        assert await one.closed() == 1000


async def reading_lines(url: str, finished: str, _: str) -> None:
    """Leaves in the middle of NDJSON."""
    async with peer(url, f"/api/v1/jobs/{finished}/events", accept=NDJSON) as one:
        await one.head()
        await one.take(32_768)


async def before_hello(url: str, _: str, living: str) -> None:
    """Leaves before it was answered at all."""
    async with peer(url, _stream(living)):
        await asyncio.sleep(0)


async def without_a_request(url: str, _: str, living: str) -> None:
    """Connects, begins to ask, leaves."""
    async with peer(url) as one:
        one.say(b"GET /api/v1/jobs/")


async def unknown(url: str, _: str, __: str) -> None:
    """Asks for a job there is not."""
    async with peer(url, _stream(UNKNOWN)) as one:
        await one.head()
        assert await one.closed() == 4004


async def deaf(url: str, finished: str, _: str) -> None:
    """Asks for a long replay, reads the upgrade and nothing of it, then leaves."""
    async with peer(url, _stream(finished), window=4096) as one:
        await one.head()
        await asyncio.sleep(0.2)  # no condition to wait for: it stands still on purpose


MANNERS: Sequence[Manner] = (
    polite, abrupt, in_the_middle, reading_lines, to_the_end, before_hello, without_a_request, unknown, deaf,
)  # fmt: skip


def _stream(job_id: str) -> str:
    return f"/api/v1/jobs/{job_id}/stream"


async def crowd(url: str, finished: str, living: str, count: int, *, at_once: int = 64) -> None:
    """So many connects and drops, in every manner in turn. Raises what any of them met that it should not."""
    turns = iter(range(count))

    async def one_after_another() -> None:
        for turn in turns:
            async with asyncio.timeout(BOUND_S):
                await patiently(MANNERS[turn % len(MANNERS)])

    async def patiently(manner: Manner) -> None:
        while True:
            try:
                return await manner(url, finished, living)
            except Away:
                await asyncio.sleep(0.5)  # as a client would; the bound is above

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(one_after_another())
