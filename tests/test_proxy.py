"""Each fault of the proxy is the fault it says it is."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.proxy import DOWN, UP, Proxy, proxy_to

BOUND_S = 10.0
# Long enough to show that nothing comes, when nothing may come.
SILENCE_S = 0.3


class Peer:
    """One end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def says(self, text: bytes) -> None:
        self.writer.write(text)
        await self.writer.drain()

    async def hears(self, length: int) -> bytes:
        async with asyncio.timeout(BOUND_S):
            return await self.reader.readexactly(length)

    async def hears_nothing(self) -> None:
        """Neither a byte nor the end."""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SILENCE_S):
                await self.reader.read(1)

    async def hears_the_end(self) -> None:
        async with asyncio.timeout(BOUND_S):
            assert await self.reader.read() == b""

    async def is_reset(self) -> None:
        async with asyncio.timeout(BOUND_S):
            with pytest.raises(ConnectionResetError):
                await self.reader.read()


class Line:
    """A proxy in front of a listener of this test."""

    def __init__(self, proxy: Proxy, arrived: asyncio.Queue[Peer], peers: list[Peer]) -> None:
        self.proxy = proxy
        self._arrived = arrived
        self._peers = peers

    async def connect(self) -> Peer:
        """A client; the server's side of it is `arrive`'s next."""
        self._peers.append(await connected(self.proxy))
        return self._peers[-1]

    async def arrive(self) -> Peer:
        async with asyncio.timeout(BOUND_S):
            return await self._arrived.get()

    async def pair(self) -> tuple[Peer, Peer]:
        """Client and server of one connection that works."""
        client = await self.connect()
        server = await self.arrive()
        await client.says(b"up")
        await server.says(b"down")
        assert await server.hears(2) == b"up"
        assert await client.hears(4) == b"down"
        return client, server


async def connected(proxy: Proxy) -> Peer:
    return Peer(*await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2])))


@asynccontextmanager
async def a_line() -> AsyncIterator[Line]:
    arrived: asyncio.Queue[Peer] = asyncio.Queue()
    peers: list[Peer] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(Peer(reader, writer))
        arrived.put_nowait(peers[-1])

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        async with proxy_to(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}") as proxy:
            yield Line(proxy, arrived, peers)
            for peer in peers:
                peer.writer.close()
    finally:
        server.close()


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    async with a_line() as line:
        yield line


def test_a_proxied_url_differs_in_host_and_port_only():
    proxy = Proxy("postgresql://user:word@db.example:5432/name?sslmode=disable")
    with proxy._listener as listener:
        port = listener.getsockname()[1]
        assert proxy.url == f"postgresql://user:word@127.0.0.1:{port}/name?sslmode=disable"


async def test_a_healthy_line_carries_bytes_and_half_closes_unchanged(line: Line):
    client, server = await line.pair()
    sent = bytes(range(256)) * 4096
    async with asyncio.TaskGroup() as both:
        both.create_task(client.says(sent))
        heard = both.create_task(server.hears(len(sent)))
    assert heard.result() == sent
    client.writer.write_eof()
    await server.hears_the_end()
    await server.says(b"after")
    assert await client.hears(5) == b"after"
    assert line.proxy.delivered == {UP: 2 + len(sent), DOWN: 4 + 5}


async def test_a_delayed_line_is_late_by_the_delay_and_in_one_direction_if_told(line: Line):
    client, server = await line.pair()
    line.proxy.delay(0.4, DOWN)
    await client.says(b"?")
    assert await server.hears(1) == b"?"
    asked_at = time.monotonic()
    await server.says(b"!")
    assert await client.hears(1) == b"!"
    assert time.monotonic() - asked_at > 0.39


async def test_a_delay_does_not_make_the_line_narrow(line: Line):
    client, server = await line.pair()
    line.proxy.delay(0.3)
    began_at = time.monotonic()
    async with asyncio.TaskGroup() as both:
        both.create_task(client.says(bytes(256 * 1024)))
        both.create_task(server.hears(256 * 1024))
    assert time.monotonic() - began_at < 16 * 0.3 / 2  # 16 chunks one behind the other would take 4.8 s


async def test_a_limited_line_carries_no_more_than_its_rate(line: Line):
    client, server = await line.pair()
    line.proxy.limit(10_000, UP)
    began_at = time.monotonic()
    await client.says(bytes(5_000))
    await server.hears(5_000)
    assert time.monotonic() - began_at > 0.4


async def test_a_stalled_line_delivers_late_and_loses_nothing(line: Line):
    client, server = await line.pair()
    line.proxy.stall(UP)
    await client.says(b"late")
    client.writer.close()
    await server.hears_nothing()
    await server.says(b"other way")
    line.proxy.heal()
    assert await server.hears(4) == b"late"
    await server.hears_the_end()


async def test_a_connection_made_on_a_stalled_line_is_accepted_and_works_once_healed(line: Line):
    line.proxy.stall()
    client = await line.connect()
    await client.says(b"hello")
    await client.hears_nothing()
    line.proxy.heal()
    server = await line.arrive()
    assert await server.hears(5) == b"hello"


async def test_a_dropping_line_loses_bytes_silently_and_resets_what_lost_them_when_healed(line: Line):
    client, server = await line.pair()
    idle, _ = await line.pair()
    line.proxy.drop(DOWN)
    await server.says(b"lost")
    await client.hears_nothing()
    await client.says(b"up")
    assert await server.hears(2) == b"up"
    line.proxy.heal()
    await client.is_reset()
    await server.is_reset()
    await idle.hears_nothing()


async def test_a_cut_line_closes_every_connection_and_each_new_one_until_healed(line: Line):
    client, server = await line.pair()
    line.proxy.cut()
    await client.hears_the_end()
    await server.hears_the_end()
    await (await line.connect()).hears_the_end()
    line.proxy.heal()
    await line.pair()


async def test_a_reset_ends_both_sides_with_rst_and_lets_new_connections_pass(line: Line):
    client, server = await line.pair()
    line.proxy.reset()
    await client.is_reset()
    await server.is_reset()
    await line.pair()


async def test_a_server_that_is_away_resets_the_client():
    async with proxy_to("tcp://127.0.0.1:1") as proxy:
        client = await connected(proxy)
        await client.is_reset()
        client.writer.close()


async def test_a_reset_waits_behind_a_stall(line: Line):
    client, server = await line.pair()
    line.proxy.stall()
    server.writer.transport.abort()
    await client.hears_nothing()
    line.proxy.heal()
    await client.hears_the_end()
    assert line.proxy.connections == 1


async def test_a_connection_to_be_cut_at_a_byte_brings_the_client_those_before_it_and_the_next_one_all(line: Line):
    line.proxy.cut_at(0, 3)
    for brought in (b"", b"dow"):
        client, server = await line.connect(), await line.arrive()
        await server.says(b"down")
        async with asyncio.timeout(BOUND_S):
            assert await client.reader.read() == brought
    await line.pair()
