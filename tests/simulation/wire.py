"""TCP between simulated clients and gateways, and a client that speaks HTTP and WebSocket over it.

The gateway's side is aiohttp's own protocol on a transport of ours: every byte it writes is parsed again by the
client. A client that does not read fills the kernel's buffer, then the transport's, as on a real socket.
"""

import asyncio
import contextvars
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp import web

from tests.simulation.line import Fifo, Line
from tests.simulation.loop import Process

KERNEL_BYTES = 64 * 1024  # taken by the two systems before the gateway's transport keeps anything
HIGH_BYTES, LOW_BYTES = 64 * 1024, 16 * 1024
ANSWER_S = 15.0  # then a client takes a request for lost; the gateway itself answers within 10 s


class Lost(Exception):
    """The connection is gone; whether the request was carried out is unknown."""


class Refused(Exception):
    """Nobody listens there."""


@dataclass(eq=False)
class Port:
    """Where a gateway's process listens."""

    process: Process
    server: Callable[[], web.RequestHandler]
    context: contextvars.Context
    open: bool = True


class GatewaySide(asyncio.Transport):
    """The gateway's end of a connection."""

    def __init__(self, port: Port, client: "ClientSide", line: Line) -> None:
        super().__init__()
        self.protocol = port.server()
        self._port = port
        self._client = client
        self._there = Fifo(line)
        self._line = line
        self._queued = 0  # written, not yet read by the client
        self._paused = False
        self._closing = False
        self._lost = False
        self.run(self.protocol.connection_made, self)

    def run(self, call: Callable[..., Any], *args: Any) -> None:
        """Calls the protocol, in its process."""
        asyncio.get_running_loop().call_soon(call, *args, context=self._port.context)

    # -- what aiohttp asks of a transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("client", 1) if name == "peername" else default

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return max(self._queued - KERNEL_BYTES, 0)

    def pause_reading(self) -> None:
        """Requests here are short: nothing to hold up."""

    def resume_reading(self) -> None:
        """See `pause_reading`."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._lost or not data:
            return
        self._queued += len(data)
        self._there.send(partial(self._client.arrived, bytes(data)))
        if self.get_write_buffer_size() > HIGH_BYTES and not self._paused:
            self._paused = True
            self.protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._there.send(self._client.ended)
            self.lose(None)

    def abort(self) -> None:
        self.close()

    # -- what happens to it

    def read(self, size: int) -> None:
        """The client took bytes."""
        self._queued -= size
        if self._paused and self.get_write_buffer_size() <= LOW_BYTES and not self._lost:
            self._paused = False
            self.run(self.protocol.resume_writing)

    def lose(self, error: Exception | None) -> None:
        """The connection ended."""
        if not self._lost:
            self._lost = self._closing = True
            self.run(self._next_turn, self._connection_lost, error)

    def _next_turn(self, call: Callable[..., Any], *args: Any) -> None:
        """A socket is first read in the turn after its connection was made."""
        asyncio.get_running_loop().call_soon(call, *args)

    def _connection_lost(self, error: Exception | None) -> None:
        self.protocol.connection_lost(error)

    def receive(self, data: bytes) -> None:
        """Bytes of the client."""
        if not self._lost:
            self.run(self._next_turn, self._received, data)

    def _received(self, data: bytes) -> None:
        if not self._lost:
            self.protocol.data_received(data)


class ClientSide:
    """A client's end of a connection."""

    def __init__(self, port: Port, line: Line) -> None:
        self.reader = asyncio.StreamReader()
        self.process = port.process
        self._line = line
        self._there = Fifo(line)
        self.over = False
        self._gateway: GatewaySide | None = None
        self._port = port
        self._there.send(self._arrive)

    def _arrive(self) -> None:
        if not (self._port.open and self.process.alive):
            self._line.carry(self.ended)
        else:
            self._gateway = GatewaySide(self._port, self, self._line)

    def write(self, data: bytes) -> None:
        """Sends bytes."""
        self._there.send(lambda: self._gateway.receive(data) if self._gateway else None)

    async def exactly(self, size: int) -> bytes:
        """The next bytes. Raises `Lost`."""
        try:
            return self._took(await self.reader.readexactly(size))
        except asyncio.IncompleteReadError:
            raise Lost from None

    async def until(self, mark: bytes) -> bytes:
        """Bytes up to and including `mark`. Raises `Lost`."""
        try:
            return self._took(await self.reader.readuntil(mark))
        except asyncio.IncompleteReadError:
            raise Lost from None

    def _took(self, data: bytes) -> bytes:
        if self._gateway:
            self._gateway.read(len(data))
        return data

    def arrived(self, data: bytes) -> None:
        """Bytes of the gateway."""
        if not self.over:
            self.reader.feed_data(data)

    def ended(self) -> None:
        """The other end closed, or is dead."""
        if not self.over:
            self.over = True
            self.reader.feed_eof()

    def close(self) -> None:
        """Closes this end."""
        self._there.send(lambda: self._gateway.lose(None) if self._gateway else None)

    def reset(self) -> None:
        """The network breaks it: both ends learn."""
        self.ended()
        self._there.send(lambda: self._gateway.lose(ConnectionResetError()) if self._gateway else None)


async def request(
    connection: ClientSide, method: str, path: str, body: dict[str, Any] | None = None, **headers: str
) -> tuple[int, dict[str, Any]]:
    """One request and its answer. Raises `Lost` when there is none."""
    content = b"" if body is None else json.dumps(body).encode()
    try:
        async with asyncio.timeout(ANSWER_S):
            connection.write(_head(method, path, content, headers) + content)
            status, answered = await _response(connection)
            length = int(answered.get("content-length", "0"))
            return status, json.loads(await connection.exactly(length)) if length else {}
    except TimeoutError:
        raise Lost from None
    finally:
        connection.close()


async def upgrade(connection: ClientSide, path: str) -> int:
    """Asks for a WebSocket; 101 when it is one."""
    words = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13"}
    try:
        async with asyncio.timeout(ANSWER_S):
            connection.write(_head("GET", path, b"", words | {"Sec_WebSocket_Key": "c2ltdWxhdGVkIGNsaWVudA=="}))
            status, _ = await _response(connection)
            return status
    except TimeoutError:
        raise Lost from None


def _head(method: str, path: str, content: bytes, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: gateway"]
    if content:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


async def _response(connection: ClientSide) -> tuple[int, dict[str, str]]:
    lines = (await connection.until(b"\r\n\r\n")).decode().split("\r\n")
    fields = (line.partition(": ") for line in lines[1:] if line)
    return int(lines[0].split(" ")[1]), {name.lower(): value for name, _, value in fields}


TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


async def frame(connection: ClientSide) -> tuple[int, bytes]:
    """The next WebSocket frame: its opcode and payload. Raises `Lost`."""
    first, length = await connection.exactly(2)
    if length == 126:
        [length] = struct.unpack(">H", await connection.exactly(2))
    elif length == 127:
        [length] = struct.unpack(">Q", await connection.exactly(8))
    return first & 0x0F, await connection.exactly(length) if length else b""


def send_frame(connection: ClientSide, opcode: int, payload: bytes = b"") -> None:
    """A short frame, masked with zeros as the protocol allows."""
    connection.write(bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload)
