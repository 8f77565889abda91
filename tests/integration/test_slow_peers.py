"""Peers that open a connection and never say a whole request: they are closed, cost little, and keep nobody out."""

import asyncio
import resource
import socket
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.figures import note
from tests.installation import Installation, embedded, running

PEERS = 10_000
SPARE_FILES = 1000
BYTES_A_PEER_MAX = 32 * 1024
UPGRADE = b"GET /api/v1/stream HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"


async def test_a_connection_without_a_whole_request_is_closed(tmp_path: Path):
    async with running(embedded(tmp_path, PHASELINE_IDLE_S="2")) as made:
        silent, half = await opened(made, b""), await opened(made, UPGRADE)
        dripping = await opened(made, b"GET / HTTP/1.1\r\n")
        served = await opened(made, b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
        assert (await served[0].readline()).split()[1] == b"200"
        async with asyncio.timeout(60):
            drip = asyncio.ensure_future(dripped(dripping[1]))
            for reader, _ in (silent, half, served):
                await reader.read()  # to the end: what they sent last was idle for the whole of the time
            await drip
        for _, writer in (silent, half, dripping, served):
            writer.transport.abort()


async def test_of_one_address_so_many_connections_are_held(tmp_path: Path):
    """From an address of this machine's own that is not loopback, which is not counted."""
    others = [
        of.address
        for interface in psutil.net_if_addrs().values()
        for of in interface
        if of.family == socket.AF_INET and not of.address.startswith("127.")
    ]
    if not others:
        pytest.skip("this machine has no address but loopback")
    bounded = {"PHASELINE_TCP_CONNECTIONS_PER_ADDRESS": "3", "PHASELINE_HOST": "0.0.0.0", "PHASELINE_AUTH": "open"}
    async with running(embedded(tmp_path, **bounded)) as made:
        pairs = [await asyncio.open_connection(others[0], made.port) for _ in range(4)]
        async with asyncio.timeout(20):
            assert await pairs[3][0].read() == b""
        pairs[0][1].write(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
        assert (await pairs[0][0].readline()).split()[1] == b"200"
        async with aiohttp.ClientSession() as session, session.get(f"{made.url}/metrics") as page:
            assert 'phaseline_limited_total{limit="tcp_connections"} 1.0' in await page.text()
        for _, writer in pairs:
            writer.transport.abort()


async def dripped(writer: asyncio.StreamWriter) -> None:
    """A header a moment, for ever: until the connection is gone."""
    try:
        while True:
            writer.write(b"X-Slow: 1\r\n")
            await writer.drain()
            await asyncio.sleep(0.1)  # the drip itself
    except ConnectionError:
        return


@pytest.mark.timeout(300)
async def test_many_half_open_upgrades_cost_little_and_keep_nobody_out(tmp_path: Path):
    async with running(embedded(tmp_path, PHASELINE_IDLE_S="120")) as made, aiohttp.ClientSession() as session:
        process = psutil.Process(made.pid("up"))
        alone = await latencies(session, made)
        before = process.memory_info().rss
        async with peers(made, within_files(PEERS)) as count:
            assert process.num_fds() > count
            grown = process.memory_info().rss - before
            among = await latencies(session, made)
        figures = {"peers": count, "KiB_a_peer": round(grown / count / 1024, 1)}
        told = {"alone_p50_ms": alone[0], "alone_max_ms": alone[1], "among_p50_ms": among[0], "among_max_ms": among[1]}
        note({"what": "half-open upgrades"} | figures | told)
        assert grown < count * BYTES_A_PEER_MAX


def within_files(wanted: int) -> int:
    """As many as this process, and the gateway with the same limit, may have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard - SPARE_FILES)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(wanted + SPARE_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[0]), hard)
    )
    return wanted


async def opened(made: Installation, said: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
    writer.write(said)
    return reader, writer


@asynccontextmanager
async def peers(made: Installation, count: int) -> AsyncIterator[int]:
    """So many half-open upgrades, opened some at a time so that the backlog of the port holds them."""
    writers: list[asyncio.StreamWriter] = []
    try:
        while len(writers) < count:
            wave = min(100, count - len(writers))
            writers += [pair[1] for pair in await asyncio.gather(*(opened(made, UPGRADE) for _ in range(wave)))]
        yield count
    finally:
        for writer in writers:
            writer.transport.abort()


async def latencies(session: aiohttp.ClientSession, made: Installation) -> tuple[float, float]:
    """Median and longest of some plain requests, ms."""
    taken = []
    for _ in range(50):
        at = time.perf_counter()
        async with session.get(f"{made.url}/api/v1/jobs") as answer:
            assert answer.status == 200
            await answer.read()
        taken.append((time.perf_counter() - at) * 1000)
    return round(statistics.median(taken), 1), round(max(taken), 1)
