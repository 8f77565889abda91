"""What one gateway process serves is bounded, and whoever does not fit is told when to come back."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from events.catalog import Partial
from events.telemetry import Telemetry
from gateway import delivery
from gateway.large import LARGE_BUDGET_BYTES
from gateway.sockets import REFUSALS_MAX, SOCKETS
from tests.gateway.driving import Driver, Gateway, eventually

MAX = 3


@pytest.fixture
async def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
async def settings(telemetry: Telemetry) -> dict[str, Any]:
    return {"connections_max": MAX, "watched_jobs_max": 2, "telemetry": telemetry, "stall_s": 0.5}


def url(job_id: str) -> str:
    return f"/api/v1/jobs/{job_id}/stream"


async def test_a_stream_over_the_cap_is_told_when_to_come_back_and_fits_once_another_left(
    gateway: Gateway, driver: Driver, telemetry: Telemetry
):
    job_id = await driver.submit()
    async with AsyncExitStack() as open_streams:
        for _ in range(MAX):
            stream = await open_streams.enter_async_context(gateway.stream(url(job_id)))
            await stream.until("caught_up")
        async with gateway.stream(url(job_id)) as refused:
            message = await refused.socket.receive(timeout=5)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 4429)
        word, _, seconds = str(message.extra).partition("=")
        assert word == "retry_after"
        assert 1 <= int(seconds) <= 60
        answer = await gateway.get(f"/api/v1/jobs/{job_id}/events", headers={"Accept": "application/x-ndjson"})
        assert (answer.status, int(answer.headers["Retry-After"]) > 0) == (503, True)
        assert telemetry.value("phaseline_connections_refused_total", cap="connections") == 2
        assert telemetry.value("phaseline_closes_total", code="4429") == 1
        assert (await gateway.get(f"/api/v1/jobs/{job_id}")).status == 200
    await eventually(lambda: telemetry.value("phaseline_connections") == 0)
    async with gateway.stream(url(job_id)) as stream:
        await stream.until("caught_up")


async def test_streams_that_are_opened_all_at_once_keep_to_the_cap(
    gateway: Gateway, driver: Driver, telemetry: Telemetry
):
    job_id = await driver.submit()
    async with AsyncExitStack() as open_streams, asyncio.TaskGroup() as tasks:
        opened = [
            tasks.create_task(open_streams.enter_async_context(gateway.stream(url(job_id)))) for _ in range(MAX + 9)
        ]
        await eventually(lambda: telemetry.value("phaseline_connections_refused_total", cap="connections") == 9)
        for task in opened:
            await task
        assert telemetry.value("phaseline_viewers") == MAX


async def test_a_job_over_the_cap_of_watched_jobs_is_refused_and_a_watched_one_is_not(
    gateway: Gateway, driver: Driver, telemetry: Telemetry
):
    first, second, third = [await driver.submit() for _ in range(3)]
    async with gateway.stream(url(first)) as one, gateway.stream(url(second)) as two:
        await one.until("caught_up")
        await two.until("caught_up")
        async with gateway.stream(url(third)) as refused:
            assert (await refused.rest())[1] == 4429
        async with gateway.stream(url(second)) as again:
            await again.until("caught_up")
    assert telemetry.value("phaseline_connections_refused_total", cap="watched_jobs") == 1


async def test_too_many_to_be_told_politely_get_503(gateway: Gateway, driver: Driver, telemetry: Telemetry):
    job_id = await driver.submit()
    async with AsyncExitStack() as open_streams, asyncio.TaskGroup() as tasks:
        for _ in range(MAX):
            await (await open_streams.enter_async_context(gateway.stream(url(job_id)))).until("caught_up")
        deaf = [tasks.create_task(upgrade_and_stay(gateway, url(job_id))) for _ in range(REFUSALS_MAX)]
        await eventually(lambda: telemetry.value("phaseline_connections") == MAX + REFUSALS_MAX)
        assert (await gateway.get(url(job_id), headers=UPGRADE)).status == 503
        for task in deaf:
            task.cancel()


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


async def upgrade_and_stay(gateway: Gateway, path: str, headers: Mapping[str, str] = UPGRADE) -> None:
    """A peer that never answers the closing handshake."""
    assert gateway.server.port is not None
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.server.port)
    try:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"GET {path} HTTP/1.1\r\nHost: here\r\n{lines}\r\n".encode())
        await asyncio.Event().wait()
    finally:
        writer.transport.abort()


async def test_a_reader_of_a_large_result_that_stops_is_given_up(
    gateway: Gateway, driver: Driver, telemetry: Telemetry
):
    attempt = await driver.started()
    body = b'"%s"' % (b"x" * 5_000_000)
    await attempt.finish_apart(body, "0" * 64)
    async with _reader_that_stops(gateway, f"/api/v1/jobs/{attempt.job_id}/results", "*/*"):
        await eventually(lambda: telemetry.value("phaseline_large_frame_bytes") == len(body))
        await eventually(lambda: telemetry.value("phaseline_large_frame_bytes") == 0)


async def test_a_large_result_without_room_is_503_and_served_once_there_is_room(
    gateway: Gateway, driver: Driver, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(delivery, "ROOM_S", 0.05)
    attempt = await driver.started()
    body = b'"%s"' % (b"x" * 1_000_000)
    await attempt.finish_apart(body, hashlib.sha256(body).hexdigest())
    path = f"/api/v1/jobs/{attempt.job_id}/results"
    async with gateway.app[SOCKETS].large.room("other", LARGE_BUDGET_BYTES):
        answer = await gateway.get(path)
        assert (answer.status, int(answer.headers["Retry-After"]) > 0) == (503, True)
    assert telemetry.value("phaseline_large_frame_bytes") == 0
    assert (await gateway.get(path)).body == body


async def test_a_reader_of_events_that_stops_is_given_up(gateway: Gateway, driver: Driver, telemetry: Telemetry):
    attempt = await driver.started()
    for _ in range(6):
        await attempt.say(Partial(phase="collecting_data", name="much", value="x" * 1_000_000))
    async with _reader_that_stops(gateway, f"/api/v1/jobs/{attempt.job_id}/events", "application/x-ndjson"):
        await eventually(lambda: telemetry.value("phaseline_connections") == 1)
        await eventually(lambda: telemetry.value("phaseline_connections") == 0)


@asynccontextmanager
async def _reader_that_stops(gateway: Gateway, path: str, accept: str) -> AsyncIterator[None]:
    """Reads the head of an answer and then nothing."""
    assert gateway.server.port is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.server.port, limit=1024)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: here\r\nAccept: {accept}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        yield
    finally:
        writer.transport.abort()
