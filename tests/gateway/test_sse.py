"""A job's stream as server-sent events (docs/protocol.md §4): what the full WebSocket promises, for EventSource."""

import asyncio
import hashlib
import json
import re
from typing import Any

import pytest

from events.catalog import Cancel, Partial, Reopen
from events.committer import new_command_id
from gateway import outlet
from gateway.deps import HUB
from gateway.large import LARGE_BUDGET_BYTES
from gateway.sockets import SOCKETS
from tests.gateway.driving import Attempt, Driver, Gateway, eventually, seen
from tests.gateway.listening import listening
from tests.gateway.test_caps import _reader_that_stops
from tests.gateway.test_full import CAUGHT_UP, HELLO, RESET, STREAM, finished, running

END = ("end",)
SSE = {"Accept": "text/event-stream"}


def url(job_id: str, query: str = "") -> str:
    return f"/api/v1/jobs/{job_id}/events{query}"


async def whole(gateway: Gateway, path: str, last_event_id: str = "") -> list[tuple[Any, ...]]:
    async with listening(gateway, path, last_event_id) as listener:
        return seen(await listener.rest())


async def test_a_listener_gets_what_was_then_what_comes_then_the_end(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    async with listening(gateway, url(attempt.job_id)) as listener:
        headers = listener.response.headers
        assert headers["Content-Type"] == "text/event-stream"
        assert (headers["X-Accel-Buffering"], headers["Cache-Control"]) == ("no", "no-store")
        frames = await listener.until("caught_up")
        assert seen(frames) == [HELLO, *STREAM[:5], CAUGHT_UP]
        assert 500 <= listener.retries[0] <= 5000
        await attempt.finish({"gain": 4.0})
        frames = await listener.rest()
        assert seen(frames) == [*STREAM[5:], END]
        assert frames[-1] == {"type": "end", "job_id": attempt.job_id, "status": "completed"}


async def test_events_are_the_bytes_of_every_other_wire_and_carry_their_position(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    await attempt.progress(30, message="Zürich 東京\u2028\u0085\r\n: data")
    await attempt.finish({"é": None})
    async with listening(gateway, url(attempt.job_id)) as listener:
        await listener.rest()
    ndjson = await gateway.get(url(attempt.job_id), headers={"Accept": "application/x-ndjson"})
    events = [data for data in listener.data if '"attempt"' in data]
    assert events == ndjson.body.decode().removesuffix("\n").split("\n")
    epoch = gateway.storage.log.epoch
    assert [position for position, data in zip(listener.ids, listener.data, strict=True) if '"attempt"' in data] == [
        f"{epoch}.{seq}" for seq in range(1, 9)
    ]
    assert listener.data[0].startswith('{"type":"hello"')
    assert listener.ids[0] == ""


@pytest.mark.parametrize("after", range(7))
async def test_a_finished_stream_is_served_after_any_position(gateway: Gateway, driver: Driver, after: int):
    job_id = await finished(driver)
    epoch = gateway.storage.log.epoch
    expected = [HELLO, *STREAM[after:], CAUGHT_UP, END]
    assert await whole(gateway, url(job_id, f"?after={after}")) == expected
    assert await whole(gateway, url(job_id, "?after=3"), f"{epoch}.{after}") == expected


async def test_a_listener_that_comes_back_to_the_head_of_a_finished_job_is_told_to_stop(
    gateway: Gateway, driver: Driver
):
    job_id = await finished(driver)
    answer = await gateway.get(url(job_id), headers=SSE | {"Last-Event-ID": f"{gateway.storage.log.epoch}.7"})
    assert (answer.status, answer.body) == (204, b"")


async def test_a_listener_resumes_where_its_connection_broke(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    async with listening(gateway, url(attempt.job_id)) as listener:
        assert [event["seq"] for event in await listener.events(3)] == [1, 2, 3]
    await eventually(lambda: gateway.app[HUB].viewers == 0)
    await attempt.finish({})
    async with listening(gateway, url(attempt.job_id), listener.last_event_id) as listener:
        assert (await listener.frame())["resume"] == "resumed"
        assert seen(await listener.rest()) == [*STREAM[3:], CAUGHT_UP, END]


async def test_a_position_that_cannot_be_served_is_answered_with_a_reset(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    epoch = gateway.storage.log.epoch
    for position, reason in ((f"{epoch}.99", "seq_ahead"), ("7-other.2", "epoch_changed")):
        async with listening(gateway, url(attempt.job_id), position) as listener:
            frames = await listener.until("caught_up")
            assert seen(frames) == [HELLO, RESET, CAUGHT_UP]
            assert frames[1]["reason"] == reason
            assert frames[1]["snapshot"] == (await gateway.get(f"/api/v1/jobs/{attempt.job_id}")).json
    await attempt.finish({})
    assert await whole(gateway, url(attempt.job_id), "7-other.2") == [HELLO, RESET, (7, "complete"), CAUGHT_UP, END]


async def test_a_terminal_event_followed_by_reopened_is_passed_over(gateway: Gateway, driver: Driver):
    job_id = await driver.submit()
    await driver.run(job_id, Cancel(command_id=new_command_id(), actor="user:a"))
    assert await whole(gateway, url(job_id)) == [HELLO, (1, "submitted"), (2, "cancelled"), CAUGHT_UP, END]
    await driver.run(job_id, Reopen(command_id=new_command_id(), actor="user:a"))
    async with listening(gateway, url(job_id)) as listener:
        assert seen(await listener.until("caught_up"))[1:] == [
            (1, "submitted"),
            (2, "cancelled"),
            (3, "reopened"),
            CAUGHT_UP,
        ]


async def test_results_inline_brings_the_value_and_batches_carry_the_last_position(gateway: Gateway, driver: Driver):
    body = json.dumps({"rows": ["x" * 1000] * 400}, separators=(",", ":")).encode()
    attempt = await driver.started()
    await attempt.finish_apart(body, hashlib.sha256(body).hexdigest())
    async with listening(gateway, url(attempt.job_id, "?after=3&results=inline")) as listener:
        event = (await listener.rest())[1]
    assert (event["results"], "results_ref" in event) == (json.loads(body), False)
    assert listener.ids[1] == f"{gateway.storage.log.epoch}.4"
    async with listening(gateway, url(attempt.job_id, "?batch=1")) as listener:
        frames = await listener.rest()
    assert [[event["seq"] for event in frame["events"]] for frame in frames if frame["type"] == "batch"] == [
        [1, 2, 3, 4]
    ]
    assert listener.ids[1] == f"{gateway.storage.log.epoch}.4"


async def test_a_silent_stream_gives_signs_of_life(gateway: Gateway, driver: Driver, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outlet, "COMMENT_S", 0.3)
    job_id = await driver.submit()
    async with gateway.session.get(gateway.server.make_url(url(job_id, "?heartbeat=2")), headers=SSE) as response:
        text = b""
        async with asyncio.timeout(10):
            while b'"heartbeat","seq":1' not in text:
                text += await response.content.readany()
    assert text.count(b":\n\n") >= 3
    assert b'data: {"type":"heartbeat","seq":1}\n\n' in text


@pytest.mark.parametrize(
    "query, headers, field",
    [
        ("?after=x", {}, "after"),
        ("?after=1&last=2", {}, "last"),
        ("?limit=3", {}, "limit"),
        ("?heartbeat=1", {}, "heartbeat"),
        ("", {"Last-Event-ID": "nonsense"}, "Last-Event-ID"),
        ("", {"Last-Event-ID": "7"}, "Last-Event-ID"),
        ("", {"Last-Event-ID": "1-a.01"}, "Last-Event-ID"),
        ("", {"Last-Event-ID": "1-a.9999999999999999999"}, "Last-Event-ID"),
    ],
)
async def test_bad_input_is_400_naming_it(
    gateway: Gateway, driver: Driver, query: str, headers: dict[str, str], field: str
):
    answer = await gateway.get(url(await driver.submit(), query), headers=SSE | headers)
    assert (answer.status, [error["field"] for error in answer.json["errors"]]) == (400, [field])


async def test_an_unknown_job_is_404(gateway: Gateway):
    for job_id in ("01a20cae-f0fd-7c5c-90af-8d1914daffc9", "nonsense"):
        assert (await gateway.get(url(job_id), headers=SSE)).status == 404


async def test_at_shutdown_listeners_are_told_when_to_come_back(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    async with listening(gateway, url(attempt.job_id)) as listener:
        await listener.until("caught_up")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(gateway.app.shutdown())
            (goodbye,) = await listener.rest()
    assert (goodbye["type"], goodbye["reason"]) == ("goodbye", "restarting")
    assert listener.retries[-1] == goodbye["reconnect_after_ms"]
    assert (await gateway.get(url(attempt.job_id), headers=SSE)).status == 503


async def test_a_browser_that_comes_back_in_an_outage_is_told_to_come_later_instead_of_503(
    gateway: Gateway, driver: Driver
):
    """An EventSource that is answered 503 never tries again."""
    attempt = await running(driver)
    position = f"{gateway.storage.log.epoch}.2"
    gateway.storage.interrupt(True)
    assert (await gateway.get(url(attempt.job_id), headers=SSE)).status == 503
    async with listening(gateway, url(attempt.job_id), position) as listener:
        (goodbye,) = await listener.rest()
    assert (goodbye["type"], goodbye["reason"]) == ("goodbye", "unavailable")
    assert listener.retries == [goodbye["reconnect_after_ms"]]
    gateway.storage.interrupt(False)
    await attempt.finish({})
    assert await whole(gateway, url(attempt.job_id), position) == [HELLO, *STREAM[2:], CAUGHT_UP, END]


async def test_open_streams_stay_open_while_the_log_is_away_and_go_on_after(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    async with listening(gateway, url(attempt.job_id)) as listener:
        await listener.until("caught_up")
        gateway.storage.interrupt(True)
        assert (await gateway.get(url(attempt.job_id))).status == 503
        gateway.storage.interrupt(False)
        await attempt.finish({})
        assert seen(await listener.rest()) == [*STREAM[5:], END]


async def test_a_listener_that_left_without_a_word_is_noticed(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    async with listening(gateway, url(attempt.job_id)) as listener:
        await listener.until("caught_up")
        assert (gateway.app[HUB].viewers, gateway.app[SOCKETS].open) == (1, 1)
    await eventually(lambda: (gateway.app[HUB].viewers, gateway.app[SOCKETS].open) == (0, 0))


async def test_many_listeners_joining_at_any_moment_see_every_event_once_though_hints_are_lost(
    gateway: Gateway, driver: Driver
):
    attempt = await driver.started()
    appended = [asyncio.Event() for _ in range(40)]
    gateway.storage.lose = lambda lines: [] if attempt.number and len(lines) % 2 else lines

    async def listen(joins_at: int) -> list[tuple[Any, ...]]:
        await appended[joins_at].wait()
        return [event for event in await whole(gateway, url(attempt.job_id)) if len(event) == 2]

    async with asyncio.TaskGroup() as tasks:
        listeners = [tasks.create_task(listen(number * 2)) for number in range(20)]
        for number in range(40):
            await attempt.progress(10 + number / 2)
            appended[number].set()
        await attempt.finish({})
    expected = [(1, "submitted"), (2, "started"), *((seq, "progress") for seq in range(3, 44)), (44, "complete")]
    assert [listener.result() for listener in listeners] == [expected] * 20


class TestCaps:
    @pytest.fixture
    async def settings(self) -> dict[str, Any]:
        return {"connections_max": 1, "stall_s": 0.5}

    async def test_listeners_count_among_the_open_streams(self, gateway: Gateway, driver: Driver):
        job_id = await driver.submit()
        async with listening(gateway, url(job_id)) as listener:
            await listener.until("caught_up")
            answer = await gateway.get(url(job_id), headers=SSE)
            assert (answer.status, int(answer.headers["Retry-After"]) > 0) == (503, True)
            async with listening(gateway, url(job_id), listener.last_event_id) as again:
                assert [frame["reason"] for frame in await again.rest()] == ["overloaded"]
            async with gateway.stream(f"/api/v1/jobs/{job_id}/stream") as refused:
                assert (await refused.rest())[1] == 4429

    async def test_a_listener_that_stops_reading_is_given_up_and_holds_no_room(self, gateway: Gateway, driver: Driver):
        attempt = await driver.started()
        body = b'"%s"' % (b"x" * 5_000_000)
        await attempt.finish_apart(body, hashlib.sha256(body).hexdigest())
        sockets = gateway.app[SOCKETS]
        async with _reader_that_stops(gateway, url(attempt.job_id, "?results=inline"), "text/event-stream"):
            await eventually(lambda: sockets.large.taken > 0)
            await eventually(lambda: (sockets.large.taken, sockets.open) == (0, 0))

    async def test_a_large_result_waits_for_room_and_the_stream_stays_alive(self, gateway: Gateway, driver: Driver):
        attempt = await driver.started()
        body = b'"%s"' % (b"x" * 1_000_000)
        await attempt.finish_apart(body, hashlib.sha256(body).hexdigest())
        async with (
            listening(gateway, url(attempt.job_id, "?results=inline&heartbeat=2")) as listener,
        ):
            async with gateway.app[SOCKETS].large.room("other", LARGE_BUDGET_BYTES):
                frames = await listener.until("heartbeat")
                assert "complete" not in [frame["type"] for frame in frames]
            assert [frame["type"] for frame in await listener.rest()][-3:] == ["complete", "caught_up", "end"]

    async def test_a_slow_listener_costs_a_bounded_amount_and_misses_nothing(self, gateway: Gateway, driver: Driver):
        attempt: Attempt = await driver.started()
        async with listening(gateway, url(attempt.job_id)) as listener:
            await listener.until("caught_up")
            for _ in range(30):
                await attempt.say(Partial(phase="collecting_data", name="much", value="x" * 300_000))
            assert gateway.app[HUB]._ring_bytes <= 256 * 1024
            await attempt.finish({})
            events = [frame["seq"] for frame in await listener.rest() if "attempt" in frame]
        assert events == list(range(3, 35))


async def test_the_page_says_what_an_id_looks_like(gateway: Gateway, driver: Driver):
    async with listening(gateway, url(await driver.submit())) as listener:
        await listener.until("caught_up")
    assert re.fullmatch(r"[0-9a-z-]+\.1", listener.last_event_id)
