"""Compression is had by asking for it, on HTTP and WebSocket, and changes no byte of what is unpacked."""

import gzip
import hashlib
import sys
from typing import Any

import aiohttp
import pytest

from events.catalog import Log
from gateway import compression
from gateway.deps import HUB
from gateway.sockets import SOCKETS
from tests.gateway.driving import Driver, Gateway, eventually, seen
from tests.gateway.test_full import CAUGHT_UP, HELLO, STREAM, running

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

UNPACK = {"gzip": gzip.decompress, "zstd": zstd.decompress}


async def raw(gateway: Gateway, path: str, **headers: str) -> tuple[dict[str, str], bytes]:
    """The bytes as they travel."""
    async with aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=["Accept-Encoding"]) as session:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with session.get(gateway.server.make_url(path), headers=sent) as response:
            assert response.status == 200
            return dict(response.headers), await response.read()


@pytest.fixture
async def job_id(driver: Driver) -> str:
    attempt = await driver.started()
    words = "the same words again and again"
    await attempt.say(*(Log(level="info", message=f"{number} {words}") for number in range(40)))
    return attempt.job_id


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_pages_and_lines_come_packed_to_who_asks(gateway: Gateway, job_id: str, coding: str):
    for path, accept in (
        (f"/api/v1/jobs/{job_id}/events", "application/json"),
        (f"/api/v1/jobs/{job_id}/events", "application/x-ndjson"),
        ("/api/v1/events", "application/x-ndjson"),
        ("/openapi.json", "*/*"),
    ):
        plain_headers, plain = await raw(gateway, path, Accept=accept)
        headers, packed = await raw(gateway, path, Accept=accept, Accept_Encoding=coding)
        assert headers["Content-Encoding"] == coding
        assert "Content-Encoding" not in plain_headers
        assert "Accept-Encoding" in headers["Vary"]
        assert "Accept-Encoding" in plain_headers["Vary"]
        assert UNPACK[coding](packed) == plain
        assert len(packed) < len(plain) / 3


async def test_the_coding_is_the_one_the_client_likes_best(gateway: Gateway, job_id: str):
    for asked, coding in (
        ("zstd, gzip", "zstd"),
        ("gzip, zstd;q=0.5", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=x", None),
        ("br, deflate", None),
        ("identity", None),
        ("GZIP", "gzip"),
    ):
        headers, _ = await raw(gateway, f"/api/v1/jobs/{job_id}/events", Accept_Encoding=asked)
        assert headers.get("Content-Encoding") == coding, asked


async def test_small_answers_exact_bytes_and_event_streams_come_as_they_are(
    gateway: Gateway, driver: Driver, job_id: str
):
    body = b'{"rows":"%s"}' % (b"x" * 5000)
    other = await driver.started()
    await other.finish_apart(body, hashlib.sha256(body).hexdigest())
    for path in ("/healthz", f"/api/v1/jobs/{other.job_id}/results"):
        headers, _ = await raw(gateway, path, Accept_Encoding="gzip")
        assert "Content-Encoding" not in headers
    sent = {"Accept": "text/event-stream", "Accept-Encoding": "gzip"}
    url = gateway.server.make_url(f"/api/v1/jobs/{other.job_id}/events")
    async with gateway.session.get(url, headers=sent) as response:
        assert "Content-Encoding" not in response.headers
        assert b"caught_up" in await response.read()


async def test_a_large_answer_is_packed_beside_the_loop(gateway: Gateway, job_id: str, monkeypatch: pytest.MonkeyPatch):
    path = f"/api/v1/jobs/{job_id}/events"
    _, plain = await raw(gateway, path)
    monkeypatch.setattr(compression, "THREAD_BYTES", 2000)
    _, packed = await raw(gateway, path, Accept_Encoding="gzip")
    assert gzip.decompress(packed) == plain


class TestSockets:
    @pytest.fixture
    async def settings(self) -> dict[str, Any]:
        return {"compressed_max": 1}

    async def test_a_socket_compresses_on_request_up_to_the_cap_and_says_the_same(
        self, gateway: Gateway, driver: Driver
    ):
        attempt = await running(driver)
        url = f"/api/v1/jobs/{attempt.job_id}/stream"
        sockets = gateway.app[SOCKETS]
        async with (
            gateway.stream(f"{url}?compress=1", compress=15) as first,
            gateway.stream(f"{url}?compress=1", compress=15) as over_the_cap,
            gateway.stream(url, compress=15) as not_asked,
        ):
            streams = (first, over_the_cap, not_asked)
            for stream in streams:
                assert seen(await stream.until("caught_up")) == [HELLO, *STREAM[:5], CAUGHT_UP]
            assert [bool(stream.socket.compress) for stream in streams] == [True, False, False]
            assert sockets.compressed == 1
            await attempt.progress(30, message="x" * 100_000)
            await attempt.finish({})
            for stream in streams:
                frames, code = await stream.rest()
                assert (seen(frames), code) == ([(6, "progress"), (7, "progress"), (8, "complete")], 1000)
        await eventually(lambda: (sockets.compressed, gateway.app[HUB].viewers) == (0, 0))

    async def test_classic_and_many_take_it_too_and_a_client_that_cannot_is_served(
        self, gateway: Gateway, driver: Driver
    ):
        attempt = await running(driver)
        for path in (f"/api/v1/analyze/{attempt.job_id}/stream", "/api/v1/stream?heartbeat=2"):
            joint = "&" if "?" in path else "?"
            async with gateway.stream(f"{path}{joint}compress=1", compress=15) as stream:
                assert stream.socket.compress
                await stream.frame()
            await eventually(lambda: gateway.app[SOCKETS].compressed == 0)
        async with gateway.stream(f"/api/v1/jobs/{attempt.job_id}/stream?compress=1") as stream:
            assert not stream.socket.compress
            await stream.until("caught_up")

    async def test_a_bad_wish_is_named(self, gateway: Gateway, driver: Driver):
        async with gateway.stream(f"/api/v1/jobs/{await driver.submit()}/stream?compress=yes") as stream:
            frames, code = await stream.rest()
        assert ([frame["field"] for frame in frames], code) == (["compress"], 4400)
