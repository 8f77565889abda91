"""How open sockets behave towards peers that are slow, rude, foreign or gone."""

import asyncio
import hashlib
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from events.telemetry import Telemetry
from gateway.deps import DEPS, HUB
from gateway.large import LargeBodies
from gateway.origins import origin_allowed
from gateway.problems import problems
from gateway.sockets import SOCKETS
from tests.crowd import CLOSE, PING, TEXT, peer
from tests.gateway.driving import Driver, Gateway, eventually, seen


def url(job_id: str, query: str = "") -> str:
    return f"/api/v1/jobs/{job_id}/stream{query}"


async def test_a_client_that_leaves_before_its_answer_is_no_error_of_ours():
    async def handler(request: web.Request) -> web.StreamResponse:
        raise ConnectionResetError

    answered = await problems(make_mocked_request("GET", url("any")), handler)
    assert answered.status == 400


async def test_frames_on_a_follow_socket_are_ignored(gateway: Gateway, driver: Driver):
    attempt = await driver.started()
    async with gateway.stream(url(attempt.job_id)) as stream:
        await stream.until("caught_up")
        for _ in range(10):
            await stream.socket.send_str('{"op":"subscribe"}')
        await attempt.finish({})
        assert (await stream.rest())[1] == 1000


async def test_more_than_ten_frames_a_second_close_with_4429(gateway: Gateway, driver: Driver):
    job_id = await driver.submit()
    async with gateway.stream(url(job_id)) as stream:
        await stream.until("caught_up")
        for _ in range(11):
            await stream.socket.send_str("x")
        assert await stream.rest() == ([], 4429)


async def test_a_binary_frame_closes_with_1003(gateway: Gateway, driver: Driver):
    job_id = await driver.submit()
    async with gateway.stream(url(job_id)) as stream:
        await stream.until("caught_up")
        await stream.socket.send_bytes(b"x")
        assert await stream.rest() == ([], 1003)


@pytest.mark.parametrize("size, code", [(64 * 1024, 1000), (64 * 1024 + 1, 1009)])
async def test_a_frame_over_64_kib_closes_with_1009(gateway: Gateway, driver: Driver, size: int, code: int):
    attempt = await driver.started()
    async with gateway.stream(url(attempt.job_id)) as stream:
        await stream.until("caught_up")
        await stream.socket.send_str("x" * size)
        await attempt.finish({})
        assert (await stream.rest())[1] == code


async def test_a_ping_is_answered(gateway: Gateway, driver: Driver):
    job_id = await driver.submit()
    async with gateway.session.ws_connect(gateway.server.make_url(url(job_id)), autoping=False) as socket:
        await socket.ping(b"are you there")
        async with asyncio.timeout(5):
            while (frame := await socket.receive()).type is not aiohttp.WSMsgType.PONG:
                assert frame.type is aiohttp.WSMsgType.TEXT
        assert frame.data == b"are you there"


async def test_only_a_peer_that_answered_before_is_held_to_answer(
    gateway: Gateway, driver: Driver, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gateway.connection.PING_S", 0.1)
    monkeypatch.setattr("gateway.connection.PONG_S", 0.3)
    target = gateway.server.make_url(url(await driver.submit()))
    async with (
        gateway.session.ws_connect(target, autoping=False) as mute,
        gateway.session.ws_connect(target, autoping=False) as faded,
        asyncio.timeout(10),
    ):
        while (frame := await faded.receive()).type is not aiohttp.WSMsgType.PING:
            pass
        await faded.pong(frame.data)
        while (frame := await faded.receive()).type is not aiohttp.WSMsgType.CLOSE:
            pass
        assert frame.data == 4408
        kinds = [(await mute.receive()).type for _ in range(6)]
        assert kinds == [aiohttp.WSMsgType.TEXT] * 3 + [aiohttp.WSMsgType.PING] * 3


async def test_bytes_that_are_no_utf8_close_with_1007(gateway: Gateway, driver: Driver):
    job_id = await driver.submit()
    async with gateway.stream(url(job_id)) as stream:
        await stream.until("caught_up")
        await stream.socket.send_frame(b"\xff\xfe", aiohttp.WSMsgType.TEXT)
        assert await stream.rest() == ([], 1007)


async def test_a_slow_reader_gets_everything_later_and_slows_nobody(gateway: Gateway, driver: Driver):
    attempt = await driver.started()
    async with gateway.stream(url(attempt.job_id)) as slow, gateway.stream(url(attempt.job_id)) as fast:
        await fast.until("caught_up")
        for number in range(250):
            await attempt.progress(10 + number / 10, message="x" * 60_000)
        await attempt.finish({})
        expected = [(seq, "progress") for seq in range(3, 254)] + [(254, "complete")]
        frames, code = await fast.rest()
        assert (seen(frames), code) == (expected, 1000)
        frames, code = await slow.rest()
        assert (seen(frames)[-252:], code) == (expected, 1000)


class TestStall:
    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return {"stall_s": 0.4}

    async def test_a_peer_that_takes_nothing_is_closed_with_4508(self, gateway: Gateway, driver: Driver):
        attempt = await driver.started()
        async with gateway.stream(url(attempt.job_id)) as stalled:
            telemetry, said = gateway.app[DEPS].telemetry, 0
            async with asyncio.timeout(60):
                while not telemetry.value("phaseline_closes_total", code="4508"):  # this peer takes nothing
                    said += 1
                    await attempt.progress(min(10 + said / 10, 90), message="x" * 60_000)
            frames, code = await stalled.rest()
            assert code == 4508
            events = [event for event in seen(frames) if len(event) == 2]
            assert [seq for seq, _ in events] == list(range(1, len(events) + 1))
            assert len(events) < said
        await eventually(lambda: gateway.app[HUB].viewers == 0)


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "http://localhost.evil.example", "null", "http://127.0.0.1.evil.example", "https://[::2]"],
)
async def test_a_foreign_origin_is_refused_before_the_upgrade(gateway: Gateway, driver: Driver, origin: str):
    job_id = await driver.submit()
    upgrade = {
        "Origin": origin,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    for path in (url(job_id), f"/api/v1/analyze/{job_id}/stream"):
        answer = await gateway.get(path, headers=upgrade)
        assert (answer.status, answer.json["errors"][0]["field"]) == (403, "Origin")
        assert answer.headers["Content-Type"].startswith("application/problem+json")


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:8000", None])
async def test_a_page_on_this_machine_may_open_a_stream(gateway: Gateway, driver: Driver, origin: str | None):
    job_id = await driver.submit()
    async with gateway.stream(url(job_id), origin=origin) as stream:
        assert (await stream.frame())["type"] == "hello"


def test_an_allowed_origin_is_matched_exactly():
    allowed = frozenset({"https://app.example"})
    asked = ["https://app.example", "http://app.example", "https://app.example:444", "https://app.example.evil.example"]
    assert [origin_allowed(origin, allowed) for origin in asked] == [True, False, False, False]


async def test_a_stream_asked_for_without_an_upgrade_says_what_it_is(gateway: Gateway, driver: Driver):
    answer = await gateway.get(url(await driver.submit()))
    assert (answer.status, answer.headers["Upgrade"]) == (426, "websocket")


class TestLarge:
    @pytest.fixture
    def telemetry(self) -> Telemetry:
        return Telemetry()

    @pytest.fixture
    def settings(self, telemetry: Telemetry) -> dict[str, Any]:
        return {"telemetry": telemetry, "heartbeat_s": 0.2}

    async def test_nothing_gets_into_the_middle_of_a_large_frame(
        self, gateway: Gateway, driver: Driver, telemetry: Telemetry
    ):
        body = b'"%s"' % (b"x" * 10_000_000)
        attempt = await driver.started()
        await attempt.finish_apart(body, "0" * 64)
        address = str(gateway.server.make_url("/")).rstrip("/")
        async with peer(address, url(attempt.job_id, "?last=1&results=inline"), window=4096) as one:
            await one.head()
            await eventually(lambda: telemetry.value("phaseline_large_frame_bytes") == len(body))
            for _ in range(3):
                one.say(PING)
                await asyncio.sleep(0.2)  # a heartbeat would be due
            assert telemetry.value("phaseline_large_frame_bytes") == len(body), "it was not in the middle"
            frames = []
            while (frame := await one.frame())[0] != CLOSE:
                frames += [json.loads(frame[1])] if frame[0] == TEXT else []
        told = [frame for frame in frames if frame["type"] != "heartbeat"]  # before it and after it they are welcome
        assert [frame["type"] for frame in told] == ["hello", "complete", "caught_up"]
        assert told[1]["results"] == "x" * 10_000_000


async def test_large_frames_wait_for_their_turn_and_give_their_bytes_back():
    large = LargeBodies(100)
    order: list[str] = []

    async def send(name: str, size: int, done: asyncio.Event) -> None:
        async with large.room("default", size):
            order.append(name)
            await done.wait()

    done = [asyncio.Event() for _ in range(4)]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(send("first", 70, done[0]))
        impatient = tasks.create_task(send("impatient", 40, done[1]))
        tasks.create_task(send("huge", 1000, done[2]))
        tasks.create_task(send("small", 10, done[3]))
        await asyncio.sleep(0)
        assert order == ["first"], "nobody overtakes"
        impatient.cancel()
        await asyncio.wait({impatient})
        done[0].set()
        await eventually(lambda: len(order) == 2)
        done[2].set()
        await eventually(lambda: len(order) == 3)
        done[3].set()
    assert order == ["first", "huge", "small"]
    async with large.room("default", 100):
        pass


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("stream?results=inline", ""),
        ("events?results=inline", "text/event-stream"),
        ("results", "application/json"),
    ],
)
async def test_while_others_wait_a_reader_of_a_large_body_has_only_so_long(
    gateway: Gateway,
    driver: Driver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    path: str,
    accept: str,
):
    monkeypatch.setattr("gateway.large.PATIENCE_S", 0.05)
    monkeypatch.setattr("gateway.large.READ_S", 0.2)
    body = b'"%s"' % (b"x" * 7_000_000)
    jobs = []
    for _ in range(2):
        attempt = await driver.started()
        await attempt.finish_apart(body, hashlib.sha256(body).hexdigest())
        jobs.append(attempt.job_id)
    large = gateway.app[SOCKETS].large = LargeBodies(10_000_000)  # room for one of them
    address = str(gateway.server.make_url("/")).rstrip("/")
    async with peer(address, f"/api/v1/jobs/{jobs[0]}/{path}", accept=accept, window=4096) as slow:
        await slow.head()
        await eventually(lambda: large.taken == len(body))
        assert (await gateway.get(f"/api/v1/jobs/{jobs[1]}/results")).body == body
        await eventually(lambda: (large.taken, gateway.app[SOCKETS].open) == (0, 0))
    assert caplog.records == []


async def test_a_large_body_is_made_once_for_all_who_hold_it_and_its_maker_may_leave():
    large = LargeBodies(100)
    made: list[asyncio.Event] = []
    sent: list[bytes] = []

    async def make() -> bytes:
        made.append(asyncio.Event())
        await made[-1].wait()
        return b"x" * 60

    async def send(done: asyncio.Event) -> None:
        async with large.body("default", "name", 60, make) as body:
            sent.append(body)
            await done.wait()

    done = [asyncio.Event() for _ in range(3)]
    async with asyncio.TaskGroup() as tasks:
        sending = [tasks.create_task(send(event)) for event in done]
        await eventually(lambda: len(made) == 1)
        sending[0].cancel()
        await eventually(lambda: len(made) == 2)
        made[1].set()
        await eventually(lambda: len(sent) == 2)
        assert sent[0] is sent[1]
        assert large.taken == 60
        done[1].set()
        await asyncio.wait({sending[1]})
        assert large.taken == 60, "the last one holds it still"
        done[2].set()
    assert large.taken == 0
