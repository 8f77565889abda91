"""Many viewers in a process of their own: the load generator of everything that is sent to viewers.

Run as `python -m benchmarks.crowd`; it reads one JSON command a line and answers each with one line. It knows no more
of WebSocket than it must, so that it costs less than what it measures: it upgrades, reads unmasked text frames, answers
pings. Instants are those of the system's monotonic clock, which is one for all processes.
"""

import asyncio
import base64
import json
import os
import random
import resource
import struct
import sys
import time
from array import array
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

BOUND_S = 180.0
CONNECTING_MAX = 200  # upgrades under way at a time: more only wait in the server's backlog
AGAIN_S = (0.1, 0.5)  # until one that was turned away comes back
TEXT, CLOSE, PING = 1, 8, 9
PONG = b"\x8a\x80\x00\x00\x00\x00"
_SEQ = b'"seq":'
_HEADERS = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13"


class TurnedAway(Exception):
    """The answer was no upgrade, or the connection ended before it caught up."""


class Viewer(asyncio.Protocol):
    """One socket: counts events and notes when the ones that matter arrived."""

    def __init__(self, crowd: "Crowd", path: str, *, timed: bool) -> None:
        self.crowd = crowd
        self.path = path
        self.timed = timed  # notes every event's arrival
        self.events = 0
        self.last = 0
        self.first_at = 0  # of the first event
        self.last_at = 0
        self.heartbeats = 0
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.seqs, self.times = array("q"), array("q")
        self._upgraded = False
        self._rest = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        said = f"GET {self.path} HTTP/1.1\r\nHost: here\r\n{_HEADERS}\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        transport.write(said.encode())

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        position = 0
        if not self._upgraded:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._rest = data
                return
            if b" 101 " not in data[:20]:
                self._fail(data[:200].decode(errors="replace"))
                return
            self._upgraded = True
            position = end + 4
        now = time.perf_counter_ns()
        size = len(data)
        while size - position >= 2:
            length, start = data[position + 1], position + 2
            if length == 126:
                if size - start < 2:
                    break
                length, start = int.from_bytes(data[start : start + 2]), start + 2
            elif length == 127:
                if size - start < 8:
                    break
                length, start = int.from_bytes(data[start : start + 8]), start + 8
            if start + length > size:
                break
            self._frame(data[position] & 15, data, start, start + length, now)
            position = start + length
        self._rest = data[position:]

    def _frame(self, kind: int, data: bytes, start: int, end: int, now: int) -> None:
        if kind == TEXT:
            if data.startswith(b'{"job_id"', start):
                place = data.index(_SEQ, start) + 6
                self._event(int(data[place : data.index(b",", place)]), 1, now)
            elif data.startswith(b'{"type":"batch"', start):
                place = data.rindex(_SEQ, start, end) + 6
                last = int(data[place : data.index(b",", place)])
                self._event(last, last - self.last, now)
            elif data.startswith(b'{"type":"caught_up"', start):
                self.last = max(self.last, int(data[data.index(_SEQ, start) + 6 : end - 1]))
                self._set_ready()
            elif data.startswith(b'{"type":"heartbeat"', start):
                self.heartbeats += 1
        elif kind == PING and self.transport is not None:
            self.transport.write(PONG)
        elif kind == CLOSE:
            self._fail("closed before it caught up")

    def _event(self, seq: int, count: int, now: int) -> None:
        if self.timed:
            self.seqs.append(seq)
            self.times.append(now)
        if not self.events:
            self.first_at = now
        self.events += count
        self.last = seq
        self.last_at = now
        if seq >= self.crowd.until:
            self.crowd.reached()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection ended: {exc}")

    def _set_ready(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)

    def _fail(self, why: str) -> None:
        if not self.ready.done():
            self.ready.set_exception(TurnedAway(why))


class Crowd:
    """All viewers of this process, and the commands about them."""

    def __init__(self) -> None:
        self.viewers: list[Viewer] = []
        self.until = 2**62
        self._missing = 0
        self._all = asyncio.Event()

    async def connect(self, url: str, paths: list[str], each: int, *, timed: bool = False) -> dict[str, Any]:
        """Opens `each` viewers a path; returns when all caught up, how long it took, and how long each took. Who is
        turned away comes back, as clients do; `again` counts them."""
        address = urlsplit(url)
        gate = asyncio.Semaphore(CONNECTING_MAX)
        took: list[float] = []
        again = 0

        async def one(path: str) -> None:
            nonlocal again
            async with gate:
                began = time.perf_counter_ns()
                while not await self._entered(address.hostname or "", address.port or 80, path, timed=timed):
                    again += 1
                    await asyncio.sleep(random.uniform(*AGAIN_S))
                took.append((time.perf_counter_ns() - began) / 1e6)

        began = time.monotonic()
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group:
            for _ in range(each):
                for path in paths:
                    group.create_task(one(path))
        events = sum(viewer.events for viewer in self.viewers)
        return {"seconds": time.monotonic() - began, "each_ms": took, "events": events, "again": again}

    async def _entered(self, host: str, port: int, path: str, *, timed: bool) -> bool:
        viewer = Viewer(self, path, timed=timed)
        try:
            await asyncio.get_running_loop().create_connection(lambda: viewer, host, port)
            await viewer.ready
        except (OSError, TurnedAway):
            if viewer.transport is not None:
                viewer.transport.abort()
            return False
        self.viewers.append(viewer)
        return True

    async def expect(self, seq: int) -> dict[str, Any]:
        """From now on `reached` waits for every viewer to get this sequence."""
        self._all.clear()
        self.until = seq
        self._missing = sum(viewer.last < seq for viewer in self.viewers)
        if not self._missing:
            self._all.set()
        return {"missing": self._missing}

    def reached(self) -> None:
        """One viewer more has what is expected."""
        self._missing -= 1
        if self._missing <= 0:
            self._all.set()

    async def wait(self) -> dict[str, Any]:
        """Returns when all have what is expected; `last_ns` is when the last one got it."""
        async with asyncio.timeout(BOUND_S):
            await self._all.wait()
        self.until = 2**62
        return {"last_ns": max(v.last_at for v in self.viewers), "events": sum(v.events for v in self.viewers)}

    async def arrivals(self) -> dict[str, Any]:
        """Sequences and instants of every event of every timed viewer, and forgets them."""
        found = [[list(viewer.seqs), list(viewer.times)] for viewer in self.viewers]
        for viewer in self.viewers:
            viewer.seqs, viewer.times = array("q"), array("q")
        return {"arrivals": found}

    async def replay(self, url: str, path: str, events: int) -> dict[str, Any]:
        """One viewer reads so many events; seconds from before the connect to the last one, ms to the first one."""
        address = urlsplit(url)
        viewer = Viewer(self, path, timed=False)
        self.viewers.append(viewer)
        await self.expect(events)
        self._missing = 1
        began = time.perf_counter_ns()
        await asyncio.get_running_loop().create_connection(lambda: viewer, address.hostname or "", address.port or 80)
        await self.wait()
        assert viewer.transport is not None
        viewer.transport.abort()
        self.viewers.remove(viewer)
        return {
            "seconds": (viewer.last_at - began) / 1e9,
            "first_ms": (viewer.first_at - began) / 1e6,
            "events": viewer.events,
        }

    async def heartbeats(self) -> dict[str, Any]:
        """How many heartbeats came since the last call."""
        count = sum(viewer.heartbeats for viewer in self.viewers)
        for viewer in self.viewers:
            viewer.heartbeats = 0
        return {"heartbeats": count, "open": sum(v.transport is not None for v in self.viewers)}

    async def drop(self) -> dict[str, Any]:
        """Drops every connection without a word."""
        for viewer in self.viewers:
            viewer.ready.cancel()
            if viewer.transport is not None:
                viewer.transport.abort()
        count = len(self.viewers)
        self.viewers = []
        return {"dropped": count}


async def serve() -> None:
    """Answers commands until standard input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    crowd = Crowd()
    while line := await reader.readline():
        asked = json.loads(line)
        act: Callable[..., Awaitable[dict[str, Any]]] = getattr(crowd, asked.pop("do"))
        try:
            answer = await act(**asked)
        except Exception as failure:
            answer = {"failed": f"{type(failure).__name__}: {failure}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def frame(text: bytes) -> bytes:
    """A text frame as a server sends it."""
    if len(text) < 126:
        return struct.pack(">BB", 0x81, len(text)) + text
    if len(text) < 65536:
        return struct.pack(">BBH", 0x81, 126, len(text)) + text
    return struct.pack(">BBQ", 0x81, 127, len(text)) + text


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(serve())
