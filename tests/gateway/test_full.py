"""The full protocol on one socket (docs/protocol.md §3): every event once, in order, from any point, to the end."""

import asyncio
import hashlib
import json
import random
from typing import Any

import pytest
from sqlalchemy import update

from events import tables
from events.catalog import Cancel, Log, Reopen
from events.committer import new_command_id
from gateway.deps import HUB
from gateway.viewer import Leaving
from tests.gateway.driving import Attempt, Driver, Gateway, eventually, seen

HELLO, CAUGHT_UP, RESET, HEARTBEAT = ("hello",), ("caught_up",), ("reset",), ("heartbeat",)
STREAM = [
    (1, "submitted"),
    (2, "started"),
    (3, "progress"),
    (4, "log"),
    (5, "progress"),
    (6, "progress"),
    (7, "complete"),
]


def url(job_id: str, query: str = "") -> str:
    return f"/api/v1/jobs/{job_id}/stream{query}"


async def running(driver: Driver) -> Attempt:
    """A job whose stream so far is the first five of STREAM."""
    attempt = await driver.started()
    await attempt.progress(10)
    await attempt.say(Log(level="info", message="öl ✓", fields={"n": 1}))
    await attempt.progress(20)
    return attempt


async def finished(driver: Driver) -> str:
    attempt = await running(driver)
    await attempt.finish({"gain": 4.0})
    return attempt.job_id


async def whole(gateway: Gateway, path: str) -> tuple[list[tuple[Any, ...]], int | None]:
    async with gateway.stream(path) as stream:
        frames, code = await stream.rest()
    return seen(frames), code


async def test_hello_is_first_and_says_where_the_stream_stands(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    async with gateway.stream(url(attempt.job_id)) as stream:
        hello = await stream.frame()
    assert hello.pop("server_time").endswith("Z")
    assert hello == {
        "type": "hello",
        "protocol": "phaseline.v1",
        "job_id": attempt.job_id,
        "status": "running",
        "head_seq": 5,
        "epoch": gateway.storage.log.epoch,
        "resume": "fresh",
        "heartbeat_s": 15.0,
    }


async def test_a_viewer_gets_what_was_and_then_what_comes(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    async with gateway.stream(url(attempt.job_id)) as stream:
        assert seen(await stream.until("caught_up")) == [HELLO, *STREAM[:5], CAUGHT_UP]
        await attempt.finish({})
        frames, code = await stream.rest()
        assert (seen(frames), code) == (STREAM[5:], 1000)


async def test_replayed_and_live_frames_are_the_same_bytes(gateway: Gateway, driver: Driver):
    attempt = await driver.started()
    async with gateway.stream(url(attempt.job_id)) as live:
        await live.until("caught_up")
        await attempt.progress(20, message="Zürich 東京")
        await attempt.finish({"gain": 1.0, "é": None})
        await live.rest()
    async with gateway.stream(url(attempt.job_id, "?after=2")) as replay:
        await replay.rest()
    events = [text for text in live.text if '"attempt"' in text][2:]
    assert [text for text in replay.text if '"attempt"' in text] == events
    ndjson = await gateway.get(
        f"/api/v1/jobs/{attempt.job_id}/events?after=2", headers={"Accept": "application/x-ndjson"}
    )
    assert ndjson.body.decode().splitlines() == events


@pytest.mark.parametrize("after", range(8))
async def test_a_finished_stream_is_served_after_any_sequence(gateway: Gateway, driver: Driver, after: int):
    job_id = await finished(driver)
    assert await whole(gateway, url(job_id, f"?after={after}")) == ([HELLO, *STREAM[after:], CAUGHT_UP], 1000)


async def test_a_viewer_resumes_where_its_connection_broke(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    async with gateway.stream(url(attempt.job_id)) as stream:
        assert [event["seq"] for event in await stream.events(3)] == [1, 2, 3]
        stream.socket._response.close()
    await attempt.finish({})
    async with gateway.stream(url(attempt.job_id, f"?after=3&epoch={gateway.storage.log.epoch}")) as stream:
        assert (await stream.frame())["resume"] == "resumed"
        frames, code = await stream.rest()
        assert (seen(frames), code) == ([*STREAM[3:], CAUGHT_UP], 1000)


async def test_a_viewer_at_the_head_of_a_running_job_is_caught_up_at_once(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    async with gateway.stream(url(attempt.job_id, "?after=5")) as stream:
        assert seen(await stream.until("caught_up")) == [HELLO, CAUGHT_UP]
        await attempt.finish({})
        assert seen((await stream.rest())[0]) == STREAM[5:]


async def test_a_sequence_beyond_the_head_is_answered_with_a_reset(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    async with gateway.stream(url(attempt.job_id, "?after=99")) as stream:
        hello, reset = await stream.frame(), await stream.frame()
        assert (hello["resume"], hello["head_seq"]) == ("reset", 5)
        assert (reset["type"], reset["reason"], reset["head_seq"]) == ("reset", "seq_ahead", 5)
        assert reset["snapshot"] == (await gateway.get(f"/api/v1/jobs/{attempt.job_id}")).json
        await attempt.finish({})
        frames, code = await stream.rest()
        assert (seen(frames), code) == ([CAUGHT_UP, *STREAM[5:]], 1000)


async def test_another_epoch_is_answered_with_a_reset(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    async with gateway.stream(url(attempt.job_id, "?after=2&epoch=0-other")) as stream:
        frames = await stream.until("caught_up")
        assert seen(frames) == [HELLO, RESET, CAUGHT_UP]
        assert frames[1]["reason"] == "epoch_changed"


async def test_after_a_reset_of_a_finished_job_its_terminal_event_is_sent_again(gateway: Gateway, driver: Driver):
    job_id = await finished(driver)
    assert await whole(gateway, url(job_id, "?after=8")) == ([HELLO, RESET, (7, "complete"), CAUGHT_UP], 1000)


@pytest.mark.parametrize("last, first", [(0, 7), (1, 6), (3, 4), (7, 0), (1000, 0)])
async def test_last_k_begins_with_the_last_k_events(gateway: Gateway, driver: Driver, last: int, first: int):
    job_id = await finished(driver)
    assert await whole(gateway, url(job_id, f"?last={last}")) == ([HELLO, *STREAM[first:], CAUGHT_UP], 1000)


async def test_a_terminal_event_followed_by_reopened_is_passed_over(gateway: Gateway, driver: Driver):
    attempt = await driver.started()
    async with gateway.stream(url(attempt.job_id)) as first:
        await first.until("caught_up")
        await attempt.fail()
        frames, code = await first.rest()
        assert (seen(frames)[-1], code) == ((3, "error"), 4000)
    await driver.run(attempt.job_id, Reopen(command_id=new_command_id(), actor="user:a"))
    async with gateway.stream(url(attempt.job_id)) as stream:
        passed = [(1, "submitted"), (2, "started"), (3, "error"), (4, "reopened")]
        assert seen(await stream.until("caught_up")) == [HELLO, *passed, CAUGHT_UP]
        again = await driver.claim(attempt.job_id)
        await again.finish({})
        frames, code = await stream.rest()
        assert (seen(frames), code) == ([(5, "started"), (6, "progress"), (7, "complete")], 1000)


async def test_a_cancelled_job_ends_with_1000(gateway: Gateway, driver: Driver):
    job_id = await driver.submit()
    await driver.run(job_id, Cancel(command_id=new_command_id(), actor="user:a"))
    assert await whole(gateway, url(job_id)) == ([HELLO, (1, "submitted"), (2, "cancelled"), CAUGHT_UP], 1000)


async def test_batches_hold_at_most_64_kib_and_a_larger_event_goes_alone(gateway: Gateway, driver: Driver):
    attempt = await driver.started()
    for size in (20_000, 20_000, 20_000, 20_000, 90_000, 10):
        await attempt.progress(10, message="x" * size)
    await attempt.finish({})
    async with gateway.stream(url(attempt.job_id, "?batch=1")) as stream:
        frames, code = await stream.rest()
    batches = [[event["seq"] for event in frame["events"]] for frame in frames if frame["type"] == "batch"]
    assert (batches, code) == ([[1, 2, 3, 4, 5], [6], [7], [8, 9, 10]], 1000)
    assert [len(text) <= 64 * 1024 for text in stream.text if '"batch"' in text] == [True, True, False, True]
    assert seen(frames)[0] == HELLO


async def test_results_inline_brings_the_value_instead_of_its_reference(gateway: Gateway, driver: Driver):
    body = json.dumps({"rows": ["x" * 1000] * 400}).encode()
    attempt = await driver.started()
    await attempt.finish_apart(body, hashlib.sha256(body).hexdigest())
    for query, batch in (("?after=3&results=inline", False), ("?after=3&results=inline&batch=1", True)):
        async with gateway.stream(url(attempt.job_id, query)) as stream:
            frames, code = await stream.rest()
        (event,) = frames[1]["events"] if batch else [frames[1]]
        assert (event["type"], event["results"], "results_ref" in event, code) == (
            "complete",
            json.loads(body),
            False,
            1000,
        )
    async with gateway.stream(url(attempt.job_id, "?after=3")) as stream:
        event = (await stream.rest())[0][1]
    assert event["results_ref"]["size"] == len(body)


async def test_a_heartbeat_carries_the_head(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    async with gateway.stream(url(attempt.job_id, "?heartbeat=2")) as stream:
        assert (await stream.frame())["heartbeat_s"] == 2.0
        assert (await stream.until("heartbeat"))[-1] == {"type": "heartbeat", "seq": 5}


async def test_an_unknown_job_is_closed_with_4004(gateway: Gateway):
    for job_id in ("01a20cae-f0fd-7c5c-90af-8d1914daffc9", "nonsense"):
        assert await whole(gateway, url(job_id)) == ([], 4004)


@pytest.mark.parametrize("large", [False, True])
async def test_fifty_viewers_joining_at_any_moment_see_every_event_once_though_hints_are_lost(
    gateway: Gateway, driver: Driver, large: bool
):
    chance = random.Random(7)
    attempt = await driver.started()
    late: list[bytes] = []
    appended = [asyncio.Event() for _ in range(60)]

    def lossy(lines: list[bytes]) -> list[bytes]:
        late.extend(chance.sample(lines, chance.randint(0, len(lines))))
        kept = [line for line in lines if chance.random() < 0.7] + chance.sample(late, min(3, len(late)))
        chance.shuffle(kept)
        return kept

    gateway.storage.lose = lossy

    async def view(joins_at: int) -> tuple[list[tuple[Any, ...]], int | None]:
        await appended[joins_at].wait()
        async with gateway.stream(url(attempt.job_id, chance.choice(["", "?batch=1"]))) as stream:
            frames, code = await stream.rest()
        return [event for event in seen(frames) if len(event) == 2], code

    async with asyncio.TaskGroup() as tasks:
        views = [tasks.create_task(view(chance.randint(0, 59))) for _ in range(50)]
        for number in range(60):
            text = "x" * 70_000 if large and number % 20 == 7 else "x"
            await attempt.progress(10 + number / 2, message=text)
            appended[number].set()
        await attempt.finish({})
    expected = [(1, "submitted"), (2, "started"), *((seq, "progress") for seq in range(3, 64)), (64, "complete")]
    assert [view.result() for view in views] == [(expected, 1000)] * 50
    await eventually(lambda: gateway.app[HUB].viewers == 0)


async def test_without_any_hint_viewers_get_everything_from_comparing_heads(gateway: Gateway, driver: Driver):
    gateway.storage.lose = lambda lines: []
    attempt = await running(driver)
    async with gateway.stream(url(attempt.job_id)) as stream:
        await stream.until("caught_up")
        await attempt.finish({})
        frames, code = await stream.rest()
        assert (seen(frames), code) == (STREAM[5:], 1000)
    assert gateway.app[HUB].sweep_repairs_total == 1


async def test_hints_repair_nothing_when_none_is_lost(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    async with gateway.stream(url(attempt.job_id)) as stream:
        await stream.until("caught_up")
        for percent in range(20, 60):
            await attempt.progress(percent)
        await attempt.finish({})
        await stream.rest()
    assert (gateway.app[HUB].repairs_total, gateway.app[HUB].sweep_repairs_total) == (0, 0)


async def test_viewers_after_the_same_sequence_share_one_read_of_the_log(gateway: Gateway, driver: Driver):
    job_id = await finished(driver)
    before = gateway.app[HUB].replay.reads_total
    await asyncio.gather(*(whole(gateway, url(job_id)) for _ in range(20)))
    assert gateway.app[HUB].replay.reads_total == before + 1


async def test_open_streams_stay_open_while_the_log_is_away_and_go_on_after(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    async with gateway.stream(url(attempt.job_id, "?heartbeat=2")) as stream:
        await stream.until("caught_up")
        lost: list[bytes] = []

        def lose(lines: list[bytes]) -> list[bytes]:
            lost.extend(lines)
            return []

        gateway.storage.lose = lose
        await attempt.progress(30)
        gateway.storage.interrupt(True)
        gateway.storage.bus.publish(gateway.storage.log.epoch, [lost[0].replace(b'"seq":6', b'"seq":7')])
        assert await stream.frame() == {"type": "heartbeat", "seq": 7}
        refused = await gateway.get(f"/api/v1/jobs/{attempt.job_id}")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        with pytest.raises(Exception, match="503"):
            async with gateway.stream(url(attempt.job_id)):
                pass
        gateway.storage.interrupt(False)
        await attempt.finish({})
        frames, code = await stream.rest()
        expected = [(6, "progress"), (7, "progress"), (8, "complete")]
        assert ([event for event in seen(frames) if event != HEARTBEAT], code) == (expected, 1000)


async def test_events_of_another_epoch_send_viewers_away_with_1012(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    async with (
        gateway.stream(url(attempt.job_id)) as full,
        gateway.stream(f"/api/v1/analyze/{attempt.job_id}/stream") as classic,
    ):
        await full.until("caught_up")
        await classic.frame()
        gateway.storage.bus.publish("2-restored", [b"{}"])
        frames, code = await full.rest()
        assert ([frame["type"] for frame in frames], frames[0]["reason"], code) == (["goodbye"], "log_replaced", 1012)
        assert await classic.rest() == ([], 1012)


async def test_a_restore_nobody_announces_sends_viewers_away_once_and_resets_them(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    before = gateway.storage.log.epoch
    async with gateway.stream(url(attempt.job_id)) as stream:
        await stream.until("caught_up")
        async with gateway.storage.log._writing(5.0) as connection:  # type: ignore[attr-defined]
            await connection.execute(update(tables.log).values(epoch=tables.log.c.epoch + 1))
        frames, code = await stream.rest()
        assert ([frame["type"] for frame in frames], frames[0]["reason"], code) == (["goodbye"], "log_replaced", 1012)
    async with gateway.stream(url(attempt.job_id, f"?after=2&epoch={before}")) as stream:
        hello = await stream.frame()
        assert (hello["epoch"], hello["resume"]) == (gateway.storage.log.epoch, "reset")
        assert hello["epoch"] != before
        await stream.until("caught_up")
        gateway.storage.bus.publish(before, [b"{}"])  # a late hint from before: everybody stays
        await attempt.progress(30)
        await attempt.finish({})
        frames, code = await stream.rest()
        assert (frames[-1]["type"], code) == ("complete", 1000)


async def test_a_viewer_that_comes_just_as_its_log_is_replaced_is_sent_away(gateway: Gateway, driver: Driver):
    """No hint would ever reach it: the hub has forgotten what it watches."""
    attempt = await running(driver)
    hub = gateway.app[HUB]
    async with hub.watch(attempt.job_id) as watched:
        head = await gateway.storage.log.head(attempt.job_id)
        assert head is not None
        hub._replace([watched])
        async with hub.follow(watched, head, 0) as viewer:
            with pytest.raises(Leaving, match="log_replaced"):
                await viewer.next(1.0)


async def test_at_shutdown_viewers_are_told_when_to_come_back(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    async with gateway.stream(url(attempt.job_id)) as stream:
        await stream.until("caught_up")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(gateway.app.shutdown())
            frames, code = await stream.rest()
    (goodbye,) = frames
    assert (goodbye["type"], goodbye["reason"], code) == ("goodbye", "restarting", 1012)
    assert 500 <= goodbye["reconnect_after_ms"] <= 5000
    assert (await gateway.get("/readyz")).status == 503
