"""A TCP proxy whose line can be slowed, stalled, cut and reset, to stand between any two processes.

    async with proxy_to(database_url) as line:
        environment["PHASELINE_DATABASE_URL"] = line.url  # the same URL, through the proxy
        line.delay(0.2)   # each byte comes 200 ms later
        line.limit(1024)  # no connection carries more than 1 KiB/s
        line.stall(UP)    # half-open: what the client sends is neither lost nor delivered
        line.drop()       # half-open: what is sent vanishes, as behind a firewall that forgot the connection
        line.cut()        # every connection closed, new ones closed as soon as they are made
        line.reset()      # RST on every open connection; new ones pass
        line.cut_at(0, 99)  # the next two connections end once they brought the client so many bytes
        line.heal()       # as new: late bytes arrive, connections that lost bytes are reset

`UP` is from the client to the server, `DOWN` the way back; delay, limit, stall and drop apply to both unless one is
named, and to open and new connections alike. It lives on the caller's event loop; at most 512 KiB are under way in one
direction of one connection.
"""

import asyncio
import contextlib
import math
import socket
import struct
import time
import urllib.parse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum

CHUNK_BYTES = 16 * 1024
CHUNKS_UNDER_WAY = 32
BACKLOG = 256
# A limited line moves this often, so that its bytes trickle instead of coming in gusts.
TRICKLE_S = 0.05
RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close sends RST


class Direction(Enum):
    """Where bytes go."""

    UP = "to the server"
    DOWN = "to the client"


UP = Direction.UP
DOWN = Direction.DOWN


@asynccontextmanager
async def proxy_to(url: str) -> AsyncIterator["Proxy"]:
    """A proxy to the server that `url` names, for the block."""
    proxy = Proxy(url)
    # No task group: a fixture's end runs in another task than its beginning.
    serving = asyncio.create_task(proxy.serve())
    try:
        yield proxy
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


class Proxy:
    """A line to one server. `connections` counts those made so far, `delivered` the bytes by direction."""

    def __init__(self, url: str) -> None:
        self._url = urllib.parse.urlsplit(url)
        self._ways = {direction: _Way() for direction in Direction}
        self._open: set[_Connection] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self._listener.setblocking(False)
        self._is_cut = False
        self._cuts: list[int] = []
        self.connections = 0

    @property
    def url(self) -> str:
        """The server's URL through this proxy."""
        login, at, _ = self._url.netloc.rpartition("@")
        port = self._listener.getsockname()[1]
        return self._url._replace(netloc=f"{login}{at}127.0.0.1:{port}").geturl()

    @property
    def open_connections(self) -> int:
        """Connections under way now."""
        return len(self._open)

    @property
    def delivered(self) -> dict[Direction, int]:
        """Bytes handed on so far."""
        return {direction: way.delivered for direction, way in self._ways.items()}

    def delay(self, seconds: float, *directions: Direction) -> None:
        """Each byte arrives this much later; the line carries as much as before."""
        for way in self._named(directions):
            way.delay_s = seconds

    def limit(self, bytes_per_s: float, *directions: Direction) -> None:
        """No connection carries more; the sender feels it once the buffers between are full."""
        for way in self._named(directions):
            way.bytes_per_s = bytes_per_s

    def stall(self, *directions: Direction) -> None:
        """Half-open: connections stay, new ones are accepted, nothing arrives until `heal`, not even a close."""
        for way in self._named(directions):
            way.flowing.clear()

    def drop(self, *directions: Direction) -> None:
        """Half-open: connections stay, new ones are accepted, what is sent vanishes, a close too."""
        for way in self._named(directions):
            way.dropping = True

    def cut(self) -> None:
        """Closes every connection, and each new one as soon as it is made, until `heal`."""
        self._is_cut = True
        for connection in list(self._open):
            connection.end(abruptly=False)

    def reset(self) -> None:
        """Ends every open connection with RST on both sides."""
        for connection in list(self._open):
            connection.end(abruptly=True)

    def cut_at(self, *bytes_down: int) -> None:
        """The next connections that the server answers end once they brought the client so many bytes, one count each;
        later ones pass."""
        self._cuts[:] = bytes_down

    def heal(self) -> None:
        """Takes every fault away."""
        self._is_cut = False
        self._cuts.clear()
        for way in self._ways.values():
            way.heal()
        for connection in list(self._open):
            if connection.lost_bytes:
                connection.end(abruptly=True)

    async def serve(self) -> None:
        """Carries connections until cancelled."""
        loop = asyncio.get_running_loop()
        with self._listener:
            async with asyncio.TaskGroup() as connections:
                while True:
                    client, _ = await loop.sock_accept(self._listener)
                    self.connections += 1
                    connections.create_task(self._carry(client))

    async def _carry(self, client: socket.socket) -> None:
        assert self._url.hostname is not None
        assert self._url.port is not None
        with client, socket.socket() as server:
            if self._is_cut:
                return
            connection = _Connection(client, server, self._cuts)
            self._open.add(connection)
            try:
                await connection.carry((self._url.hostname, self._url.port), self._ways)
            finally:
                self._open.discard(connection)

    def _named(self, directions: tuple[Direction, ...]) -> list["_Way"]:
        return [self._ways[direction] for direction in directions or Direction]


class _Way:
    """The condition of one direction, shared by all connections."""

    def __init__(self) -> None:
        self.flowing = asyncio.Event()
        self.delivered = 0
        self.heal()

    def heal(self) -> None:
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self.dropping = False
        self.flowing.set()


class _Connection:
    """One client's connection, and the one to the server that belongs to it."""

    def __init__(self, client: socket.socket, server: socket.socket, cuts: list[int]) -> None:
        self._client = client
        self._server = server
        self._cuts = cuts
        self._bytes_left: float | None = None  # to the client; drawn when the server first speaks
        self._over = asyncio.Event()
        self.lost_bytes = False

    def end(self, *, abruptly: bool) -> None:
        if abruptly:
            for end in (self._client, self._server):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._over.set()

    async def carry(self, target: tuple[str, int], ways: dict[Direction, _Way]) -> None:
        """Until both sides have closed, one broke, or `end` was called."""
        for end in (self._client, self._server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.TaskGroup() as tasks:
            waiting = {tasks.create_task(self._pass_both(target, ways)), tasks.create_task(self._over.wait())}
            _, still = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in still:
                task.cancel()

    async def _pass_both(self, target: tuple[str, int], ways: dict[Direction, _Way]) -> None:
        try:
            await ways[UP].flowing.wait()
            await asyncio.get_running_loop().sock_connect(self._server, target)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(self._client, self._server, ways[UP]))
                both.create_task(self._pass(self._server, self._client, ways[DOWN]))
        except* OSError:  # a side is gone; the other one learns it as it would without us
            self.end(abruptly=True)

    async def _pass(self, source: socket.socket, sink: socket.socket, way: _Way) -> None:
        under_way: asyncio.Queue[tuple[float, bytes | OSError]] = asyncio.Queue(CHUNKS_UNDER_WAY)
        async with asyncio.TaskGroup() as ends:
            ends.create_task(_take(source, under_way))
            ends.create_task(self._give(sink, under_way, way))

    async def _give(
        self, sink: socket.socket, under_way: asyncio.Queue[tuple[float, bytes | OSError]], way: _Way
    ) -> None:
        while True:
            taken_at, taken = await under_way.get()
            await asyncio.sleep(taken_at + way.delay_s - time.monotonic())
            await way.flowing.wait()
            if way.dropping:
                self.lost_bytes = True
            elif isinstance(taken, OSError):
                raise taken
            elif taken:
                await _send(sink, self._passing(taken, sink), way)
                if self._bytes_left == 0:
                    self.end(abruptly=False)
            else:
                with contextlib.suppress(OSError):  # it closed first
                    sink.shutdown(socket.SHUT_WR)
            if not taken or isinstance(taken, OSError):
                return

    def _passing(self, chunk: bytes, sink: socket.socket) -> bytes:
        """What of a chunk arrives before this connection is cut."""
        if sink is self._server:
            return chunk
        if self._bytes_left is None:
            self._bytes_left = self._cuts.pop(0) if self._cuts else math.inf
        passing = chunk[: int(min(self._bytes_left, len(chunk)))]
        self._bytes_left -= len(passing)
        return passing


async def _take(source: socket.socket, under_way: asyncio.Queue[tuple[float, bytes | OSError]]) -> None:
    """Reads until the source closes. How it ended takes its turn behind what it sent, and stalls with it."""
    taken: bytes | OSError = b"first"
    while taken and not isinstance(taken, OSError):
        try:
            taken = await asyncio.get_running_loop().sock_recv(source, CHUNK_BYTES)
        except OSError as broke:
            taken = broke
        await under_way.put((time.monotonic(), taken))


async def _send(sink: socket.socket, chunk: bytes, way: _Way) -> None:
    while chunk:
        await way.flowing.wait()
        rate = way.bytes_per_s
        portion = len(chunk) if rate is None else max(1, int(rate * TRICKLE_S))
        sent, chunk = chunk[:portion], chunk[portion:]
        await asyncio.get_running_loop().sock_sendall(sink, sent)
        way.delivered += len(sent)
        if rate is not None:
            await asyncio.sleep(len(sent) / rate)
