"""The feed of all jobs (docs/protocol.md §2): every event of the tenant once, from any cursor, on any transport."""

import asyncio
import json
from typing import Any

from events.catalog import Partial, PhaseEnd, Submit, Submitted
from events.committer import new_command_id
from gateway.deps import HUB
from gateway.sockets import SOCKETS
from tests.gateway.driving import Driver, Gateway, eventually
from tests.gateway.listening import listening
from tests.gateway.test_full import finished, running
from tests.gateway.test_many import a_socket

URL = "/api/v1/events"
NDJSON = {"Accept": "application/x-ndjson"}


def keys(events: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(event["job_id"], event["seq"]) for event in events if "attempt" in event]


async def paged(gateway: Gateway, cursor: str | None = None, limit: int = 3) -> tuple[list[dict[str, Any]], str]:
    events: list[dict[str, Any]] = []
    while True:
        query = f"?limit={limit}" + (f"&cursor={cursor}" if cursor else "")
        page = (await gateway.get(URL + query)).json
        cursor = page["next_cursor"]
        if not page["events"]:
            assert cursor is not None
            return events, cursor
        events += page["events"]


async def test_pages_hold_every_event_once_and_each_job_in_order(gateway: Gateway, driver: Driver):
    jobs = [await finished(driver) for _ in range(3)]
    events, cursor = await paged(gateway)
    assert keys(events) == [(job, seq) for job in jobs for seq in range(1, 8)]
    late = await driver.submit()
    assert keys((await paged(gateway, cursor))[0]) == [(late, 1)]


async def test_ndjson_is_complete_and_says_where_to_go_on(gateway: Gateway, driver: Driver):
    first = await finished(driver)
    answer = await gateway.get(URL, headers=NDJSON)
    assert keys([json.loads(line) for line in answer.body.splitlines()]) == [(first, seq) for seq in range(1, 8)]
    second = await driver.submit()
    further = await gateway.get(f"{URL}?cursor={answer.headers['Next-Cursor']}", headers=NDJSON)
    assert keys([json.loads(line) for line in further.body.splitlines()]) == [(second, 1)]
    ended = await gateway.get(f"{URL}?cursor={further.headers['Next-Cursor']}", headers=NDJSON)
    assert (ended.body, ended.headers["Next-Cursor"]) == (b"", further.headers["Next-Cursor"])
    lines = (await gateway.get(f"/api/v1/jobs/{first}/events", headers=NDJSON)).body
    assert answer.body == lines


async def test_a_listener_gets_what_was_then_what_comes_and_resumes_after_any_event(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    async with listening(gateway, URL) as listener:
        hello = await listener.frame()
        assert (hello["type"], hello["feed"], hello["resume"]) == ("hello", True, "fresh")
        frames = await listener.until("caught_up")
        assert keys(frames) == [(attempt.job_id, seq) for seq in range(1, 6)]
        other = await driver.submit()
        assert keys(await listener.events(1)) == [(other, 1)]
    places = [place for place, data in zip(listener.ids, listener.data, strict=True) if '"attempt"' in data]
    await attempt.finish({})
    rest = [*((attempt.job_id, seq) for seq in range(1, 6)), (other, 1), (attempt.job_id, 6), (attempt.job_id, 7)]
    for done, place in enumerate(places, 1):
        async with listening(gateway, URL, place) as again:
            assert (await again.frame())["resume"] == "resumed"
            assert keys(await again.until("caught_up")) == rest[done:]


async def test_now_is_the_end_of_the_feed(gateway: Gateway, driver: Driver):
    await finished(driver)
    async with listening(gateway, f"{URL}?cursor=now") as listener:
        assert keys(await listener.until("caught_up")) == []
        late = await driver.submit()
        assert keys(await listener.events(1)) == [(late, 1)]
    assert (await gateway.get(f"{URL}?cursor=now")).json["events"] == []


async def test_the_feed_on_a_socket_beside_a_job(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    async with a_socket(gateway) as socket:
        await socket.say("subscribe", feed=True)
        await socket.subscribe(attempt.job_id, after=4)
        await socket.until("caught_up", "feed", attempt.job_id)
        await attempt.finish({})
        await socket.until("end", attempt.job_id)
        while sum(len(frame["events"]) for frame in socket.of["feed"] if frame["type"] == "batch") < 7:
            await socket.frame()
        feed = socket.of["feed"]
        batches = [frame for frame in feed if frame["type"] == "batch"]
        assert [frame["type"] for frame in feed if frame["type"] != "batch"] == ["hello", "caught_up"]
        assert keys([event for batch in batches for event in batch["events"]]) == [
            (attempt.job_id, seq) for seq in range(1, 8)
        ]
        await socket.say("unsubscribe", feed=True)
        await socket.say("subscribe", feed=True, cursor=batches[0]["cursor"])
        after = len(batches[0]["events"])
        socket.of.clear()
        await socket.until("caught_up", "feed")
        events = [event for frame in socket.of["feed"] if frame["type"] == "batch" for event in frame["events"]]
        assert keys(events) == [(attempt.job_id, seq) for seq in range(after + 1, 8)]


async def test_many_readers_share_their_reads(gateway: Gateway, driver: Driver):
    async def read(count: int) -> list[tuple[str, int]]:
        async with listening(gateway, URL) as listener:
            return keys(await listener.events(count))

    async with asyncio.TaskGroup() as tasks:
        readers = [tasks.create_task(read(21)) for _ in range(30)]
        await eventually(lambda: gateway.app[HUB].departures.expected == 30)
        jobs = [await finished(driver) for _ in range(3)]
    expected = [(job, seq) for job in jobs for seq in range(1, 8)]
    assert [reader.result() for reader in readers] == [expected] * 30
    assert gateway.app[HUB].feed.reads_total < 300


async def test_another_tenants_events_are_not_in_it(gateway: Gateway, driver: Driver):
    submitted = Submitted(engine="fpl", engine_version=2, params={}, phases=(PhaseEnd(name="a", until=100),))
    command = Submit(command_id=new_command_id(), actor="user:x", submitted=submitted)
    row, _ = await driver.committer.submit(command, tenant="other")
    mine = await driver.submit()
    assert keys((await paged(gateway))[0]) == [(mine, 1)]
    assert row.job.id.encode() not in (await gateway.get(URL, headers=NDJSON)).body


async def test_the_feed_of_a_reader_that_waits_outlives_an_outage_of_the_log(gateway: Gateway, driver: Driver):
    attempt = await running(driver)
    async with listening(gateway, URL) as listener:
        await listener.until("caught_up")
        gateway.storage.interrupt(True)
        assert (await gateway.get(URL)).status == 503
        assert (await gateway.get(URL, headers=NDJSON)).status == 503
        gateway.storage.interrupt(False)
        await attempt.finish({})
        assert keys(await listener.events(2)) == [(attempt.job_id, 6), (attempt.job_id, 7)]


async def test_a_page_of_the_feed_is_bounded_for_each_reader(gateway: Gateway, driver: Driver):
    attempt = await driver.started()
    for _ in range(10):
        await attempt.say(Partial(phase="collecting_data", name="much", value="x" * 40_000))
    before = gateway.app[HUB].feed.reads_total
    async with listening(gateway, URL) as listener:
        assert [event["seq"] for event in await listener.events(12)] == list(range(1, 13))
    assert gateway.app[HUB].feed.reads_total - before >= 10
    await eventually(lambda: gateway.app[SOCKETS].open == 0)


async def test_a_cursor_nobody_gave_out_is_400(gateway: Gateway):
    for cursor in ("x", "", "7", "cH4xOjE", "c34xOjE6MTox", "c34tMTox", "c34x", "a" * 300, "%C3%BC"):
        for headers in ({}, NDJSON, {"Accept": "text/event-stream"}):
            answer = await gateway.get(f"{URL}?cursor={cursor}", headers=headers)
            assert answer.status == 400, (cursor, answer.body)
            assert [error["field"] for error in answer.json["errors"]] == ["cursor"]
