"""One address cannot hold every connection a process may have, whether it ever sends a request or not."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from events.telemetry import Telemetry
from gateway.addresses import networks
from gateway.peers import Peers, counted_as
from tests.gateway.driving import Driver, Gateway, eventually
from tests.gateway.test_caps import UPGRADE

MOST = 3
A, B, LOCAL = "127.0.0.2", "127.0.0.3", "127.0.0.1"
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[str], Awaitable[Pair]]


@pytest.fixture
async def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
async def settings(telemetry: Telemetry) -> dict[str, Any]:
    return {"telemetry": telemetry}


@pytest.fixture
async def peers(telemetry: Telemetry) -> Peers:
    """As a gateway has it, but that of this machine one address alone is not counted: tests have no other machine."""
    return Peers(MOST, lambda host: None if host == LOCAL else host, telemetry.gateway)


@pytest.fixture
async def connect(gateway: Gateway, peers: Peers) -> AsyncIterator[Connect]:
    """A connection from an address, on a port whose connections are counted."""
    runner = gateway.server.runner
    assert runner is not None
    await peers.site(runner, LOCAL, 0, access_log=None).start()
    port = runner.addresses[-1][1]
    made: list[asyncio.StreamWriter] = []

    async def connecting(host: str) -> Pair:
        pair = await asyncio.open_connection(LOCAL, port, local_addr=(host, 0))
        made.append(pair[1])
        return pair

    yield connecting
    for writer in made:
        writer.transport.abort()


async def closed(pair: Pair) -> bool:
    """Whether the other side closes it without a word. Waits for that."""
    try:
        async with asyncio.timeout(10):
            return await pair[0].read() == b""
    except ConnectionError:  # something was sent that nobody read
        return True


async def status(pair: Pair, path: str = "/healthz", **headers: str) -> int:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    pair[1].write(f"GET {path} HTTP/1.1\r\nHost: here\r\n{lines}\r\n".encode())
    async with asyncio.timeout(10):
        return int((await pair[0].readline()).split()[1])


async def test_connections_of_an_address_that_send_nothing_are_bounded_and_others_are_served(
    connect: Connect, peers: Peers, telemetry: Telemetry
):
    silent = [await connect(A) for _ in range(MOST)]
    await eventually(lambda: peers.open == {A: MOST})
    assert await closed(await connect(A))
    asking = await connect(A)
    asking[1].write(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
    assert await closed(asking)
    assert telemetry.value("phaseline_limited_total", limit="tcp_connections") == 2
    assert await status(await connect(B)) == 200
    assert await status(silent[0]) == 200  # those it has go on
    assert peers.open == {A: MOST, B: 1}
    silent[1][1].close()
    await eventually(lambda: peers.open == {A: MOST - 1, B: 1})
    assert await status(await connect(A)) == 200
    assert telemetry.value("phaseline_limited_total", limit="tcp_connections") == 2


async def test_streams_count_among_the_connections_of_their_address(connect: Connect, driver: Driver, peers: Peers):
    path = f"/api/v1/jobs/{await driver.submit()}/stream"
    streams = [await connect(A) for _ in range(MOST)]
    assert [await status(stream, path, **UPGRADE) for stream in streams] == [101] * MOST
    assert await closed(await connect(A))
    for _, writer in streams:
        writer.transport.abort()
    await eventually(lambda: peers.open == {})
    assert await status(await connect(A)) == 200


async def test_who_is_not_counted_is_not_bounded(connect: Connect, peers: Peers):
    pairs = [await connect(LOCAL) for _ in range(3 * MOST)]
    assert [await status(pair) for pair in pairs] == [200] * len(pairs)
    assert peers.open == {}


class TestInAll:
    @pytest.fixture
    async def peers(self, telemetry: Telemetry) -> Peers:
        return Peers(0, lambda host: None if host == LOCAL else host, telemetry.gateway, most_in_all=MOST)

    async def test_over_the_bound_of_all_a_connection_gets_503_and_probes_get_in(
        self, connect: Connect, peers: Peers, telemetry: Telemetry
    ):
        first = await connect(A)
        others = [await connect(host) for host in (B, "127.0.0.4")]
        await eventually(lambda: peers.in_all == MOST)
        assert telemetry.value("phaseline_tcp_connections") == MOST
        reader, _ = await connect("127.0.0.5")  # it says nothing, and is answered
        async with asyncio.timeout(10):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        assert lines[0] == "HTTP/1.1 503 Service Unavailable"
        assert {"Retry-After: 5", "Connection: close", f"Content-Length: {len(body)}"} <= set(lines)
        assert json.loads(body)["type"] == "urn:phaseline:problem:full"
        assert telemetry.value("phaseline_connections_refused_total", cap="tcp_connections") == 1
        assert await status(await connect(LOCAL)) == 200  # a probe on this machine
        assert await status(first) == 200
        for pair in others:
            pair[1].close()
        await eventually(lambda: peers.in_all == 2)
        assert await status(await connect("127.0.0.5")) == 200
        assert telemetry.value("phaseline_connections_refused_total", cap="tcp_connections") == 1

    async def test_what_is_kept_for_probes_is_bounded_too(
        self, connect: Connect, peers: Peers, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("gateway.peers.KEPT", 2)
        assert [await status(await connect(LOCAL)) for _ in range(MOST + 3)] == [200] * (MOST + 2) + [503]


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("fe80::7%eth0", "fe80::/64"),
        ("127.0.0.1", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        ("10.1.2.3", None),  # a proxy that is trusted: whom it connects for is not known yet
        ("::ffff:10.1.2.3", None),
        ("", None),
    ],
)
def test_whose_a_connection_is(host: str, client: str | None):
    assert counted_as(networks(("10.0.0.0/8",)))(host) == client
