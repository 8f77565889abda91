"""The Python client beyond one job: lists, bulk actions, the feed, large results, bars, errors."""

import asyncio
import io
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from rich.console import Console

from phaseline import Client, ProgressBar, client_errors
from phaseline.client_errors import BeyondHead, Conflict, Corrupt, Invalid, NoResult, NotFound, Problem, problem_of
from phaseline.event_types import Event
from tests.cli.answering import answering
from tests.ports import free_port
from tests.proxy import proxy_to

QUICK = {"steps": 5, "step_s": 0}
NEVER = "2999-01-01T00:00:00Z"


@pytest.fixture
async def client(up) -> AsyncIterator[Client]:
    async with Client(up.url) as client:
        yield client


async def some_jobs(client, tag, count):
    """Ids of jobs that wait for the next millennium, newest first."""
    made = [(await client.submit("countdown", QUICK, tags=[tag], not_before=NEVER))["id"] for _ in range(count)]
    return sorted(made, reverse=True)


# ---- lists and bulk


async def test_a_list_is_iterated_over_page_by_page_or_awaited_as_one(client):
    made = await some_jobs(client, "paged", 5)
    assert [job["id"] async for job in client.jobs("tag:paged status:queued", limit=2)] == made
    page = await client.jobs(tag="paged", limit=2)
    assert [job["id"] for job in page.jobs] == made[:2]
    assert [job["id"] async for job in client.jobs(tag="paged", cursor=page.cursor)] == made[2:]
    with pytest.raises(Invalid, match="flavour"):
        await client.jobs("flavour:sweet")


async def test_a_bulk_action_does_what_was_counted_and_nothing_that_came_after(client):
    made = await some_jobs(client, "bulk", 3)
    counted = await client.bulk("cancel", "tag:bulk", reason="all of them")
    assert counted.count == 3
    assert {job["status"] async for job in client.jobs("tag:bulk")} == {"queued"}
    later = await some_jobs(client, "bulk", 1)
    done = await counted.do()
    assert (sorted(done.jobs), done.refused) == (sorted(made), [])
    assert [job["id"] async for job in client.jobs("tag:bulk status:queued")] == later
    assert (await counted.do()).jobs == []
    again = await client.bulk("rerun", "tag:bulk status:cancelled")
    reruns = [await client.job(job_id) for job_id in (await again.do()).jobs]
    assert sorted(job["rerun_of"] for job in reruns) == sorted(made)


async def test_a_bulk_action_waits_where_there_is_no_room_for_more_however_long():
    asked: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        body = await request.json()
        asked.append(body.get("confirm"))
        if len(asked) == 1:
            return web.json_response({"count": 2, "confirm": "c1", "expires_at": NEVER})
        if len(asked) == 3:
            return web.json_response({"detail": "full"}, status=429, headers={"Retry-After": "3"})
        last = body["confirm"] == "c2"
        return web.json_response({"jobs": [body["confirm"]], "refused": [], "next": None if last else "c2"})

    async with answering(handler) as url, Client(url, timeout_s=2) as client:
        done = await (await client.bulk("rerun", "tag:x")).do()
    assert (done.jobs, asked) == (["c1", "c2"], [None, "c1", "c2", "c2"])


async def test_a_bulk_action_on_nothing_in_particular_is_refused(client):
    with pytest.raises(Invalid):
        await client.bulk("cancel", "")
    nothing = await client.bulk("retry", "tag:nobody-has-this")
    assert (nothing.count, (await nothing.do()).jobs) == (0, [])


# ---- the feed


def of(events, *job_ids):
    return {job_id: [event["seq"] for event in events if event["job_id"] == job_id] for job_id in job_ids}


async def test_the_feed_has_every_event_of_every_job_and_goes_on_behind_any_of_them(client):
    began = client.feed("now", follow=False)
    async for _ in began:  # of jobs that other tests left running
        pass
    first, second = [await client.submit("countdown", QUICK) for _ in range(2)]
    whole = {job["id"]: list(range(1, (await client.wait(job["id"]))["seq"] + 1)) for job in (first, second)}
    feed = client.feed(began.cursor, follow=False)
    seen = []
    async for event in feed:
        seen.append(event)
        if len(seen) == 7:
            break
    rest = [event async for event in client.feed(feed.cursor, follow=False)]
    # Who left inside the loop body had not finished with that event: it comes again.
    assert rest[0] == seen.pop()
    assert of([*seen, *rest], *whole) == whole


async def test_the_feed_resumes_over_broken_connections_and_shows_each_event_once(client, up):
    states: list[str] = []
    told: list[Event] = []
    began = client.feed("now", follow=False)
    async for _ in began:
        pass
    async with proxy_to(up.url) as line, Client(line.url) as distant:
        job = await client.submit("countdown", {"steps": 20, "step_s": 0.02})
        feed = distant.feed(began.cursor, on_progress=told.append, on_connection=states.append, timeout_s=60)
        seen = []
        async for event in feed:
            seen.append(event)
            if len(seen) == 3:
                line.reset()
            if event["job_id"] == job["id"] and event["type"] == "complete":
                break
    assert of(seen, job["id"])[job["id"]] == list(range(1, len(of(seen, job["id"])[job["id"]]) + 1))
    assert len({(event["job_id"], event["seq"]) for event in seen}) == len(seen)
    assert states.count("catching_up") == states.count("waiting") + 1 == 2
    assert told == [event for event in seen if event["type"] == "progress"]


async def test_a_feed_asks_to_go_on_behind_the_last_event_its_reader_had_done_with():
    asked: list[str | None] = []

    def frame(seq, identity):
        return f'id: {identity}\ndata: {{"job_id":"j","seq":{seq},"type":"log"}}\n\n'

    hello = 'data: {"type":"hello","feed":true,"epoch":"e1","heartbeat_s":15}\n\n'
    plays = [
        ": a comment\nretry: 1\n\n" + hello + frame(1, "c1") + frame(2, "c2") + 'id: c3\ndata: {"job_id":',
        hello + frame(3, "c3").replace("\n", "\r\n") + 'data: {"type":"weather"}\n\n',
        hello + 'data: {"type":"goodbye","reconnect_after_ms":1}\n\n',
        hello + frame(4, "c4") + 'data: {"type":"caught_up","cursor":"c5"}\n\n',
    ]

    async def play(request):
        asked.append(request.query.get("cursor"))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for byte in plays[len(asked) - 1].encode():
            await response.write(bytes([byte]))
        return response

    async with answering(play) as url, Client(url) as client:
        feed = client.feed(follow=False, timeout_s=60)
        cursors = [(event["seq"], feed.cursor) async for event in feed]
    assert asked == [None, "c2", "c3", "c3"]
    assert cursors == [(1, None), (2, "c1"), (3, "c2"), (4, "c3")]
    assert feed.cursor == "c5"


async def test_a_feed_ends_at_its_limit_and_at_a_cursor_nobody_gave_out(client):
    with pytest.raises(client_errors.TimedOut, match="cursor"):
        async for _ in client.feed("now", timeout_s=0.3):
            pass
    with pytest.raises(Invalid, match="cursor"):
        async for _ in client.feed("made-up"):
            pass
    async with Client(f"http://127.0.0.1:{free_port()}") as nobody:
        with pytest.raises(client_errors.TimedOut):
            async for _ in nobody.feed(timeout_s=0.3):
                pass


async def test_callbacks_come_alone_or_several_and_progress_has_its_own(client, caplog):
    events: list[Event] = []
    progress: list[Event] = []

    def breaks(event):
        raise RuntimeError("of no use")

    job = await client.submit("countdown", QUICK)
    ended = await client.wait(job["id"], on_event=events.append, on_progress=[breaks, progress.append])
    assert ended["status"] == "completed"
    assert [event["seq"] for event in events] == list(range(1, ended["seq"] + 1))
    assert progress == [event for event in events if event["type"] == "progress"]
    assert len([record for record in caplog.records if record.exc_info]) == len(progress)


# ---- large results


async def test_a_large_result_is_written_to_a_file_piece_by_piece(client, up, tmp_path):
    job = await client.wait((await client.submit("sized", {"size": 3_000_000}))["id"])
    path = tmp_path / "result.json"
    async with proxy_to(up.url) as line, Client(line.url) as distant:
        broken = asyncio.create_task(distant.download(job["results_ref"], path))
        while not line.delivered[tuple(line.delivered)[1]]:  # noqa: ASYNC110 a proxy has no signal for it
            await asyncio.sleep(0)
        line.reset()
        assert await broken == job["results_ref"]["size"] == path.stat().st_size
    assert path.read_bytes() == b'"' + b"x" * 3_000_000 + b'"' == await client.results(job["id"])
    assert list(tmp_path.iterdir()) == [path]


async def test_what_has_another_digest_is_no_download(tmp_path):
    async def other(request):
        return web.Response(body=b"other")

    async with answering(other) as url, Client(url) as client:
        with pytest.raises(Corrupt, match="SHA-256"):
            await client.download({"url": "/there", "sha256": "0" * 64, "size": 5}, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


# ---- what a person sees


async def test_a_bar_shows_each_job_it_is_told_of(client):
    drawn = io.StringIO()
    jobs = [await client.submit("countdown", QUICK) for _ in range(2)]
    failing = await client.submit("countdown", {**QUICK, "fail_at": 2}, max_attempts=1)
    with ProgressBar(Console(file=drawn, width=200)) as bar:
        for job in [*jobs, failing]:
            await client.wait(job["id"], on_event=bar)
    *good, bad = drawn.getvalue().splitlines()
    assert len(good) == 2
    for job, line in zip(jobs, good, strict=True):
        assert job["id"] in line
        assert "100% completed" in line
    assert "told to fail at step 2" in bad


# ---- errors


def gateway_codes():
    """(status, code) of every problem the gateway's source makes."""
    folder = Path(__file__).parents[2] / "gateway"
    text = "\n".join(path.read_text() for path in folder.glob("*.py"))
    return sorted(set(re.findall(r'\b([45]\d\d), "([a-z_]+)"', text)))


NEVER_ASKED_FOR = {"method_not_allowed", "not_acceptable", "upgrade_required"}


@pytest.mark.parametrize("status, code", gateway_codes())
def test_every_problem_the_gateway_has_is_an_error_of_its_own_type(status, code):
    problem = problem_of(int(status), f'{{"type": "urn:phaseline:problem:{code}"}}'.encode(), {})
    assert problem.code == code
    assert (type(problem) is Problem) == (code in NEVER_ASKED_FOR)


def test_the_gateways_problems_are_found():
    assert len(gateway_codes()) > 20


async def test_errors_carry_what_a_program_needs(client):
    job = await client.submit("countdown", QUICK)
    ended = await client.wait(job["id"])
    with pytest.raises(client_errors.WrongStatus) as wrong:
        await client.retry(job["id"])
    assert wrong.value.job_status == "completed"
    with pytest.raises(BeyondHead) as beyond:
        await client.job(job["id"], at=999)
    assert beyond.value.head_seq == ended["seq"]
    assert isinstance(beyond.value, NotFound)
    with pytest.raises(Conflict):
        [event async for event in client.events(job["id"], 999)]
    with pytest.raises(client_errors.UnknownEngine):
        await client.submit("teleport")
    with pytest.raises(client_errors.UnknownJob):
        await client.results("no-such-job")
    await client.submit("countdown", QUICK, key="once-only")
    with pytest.raises(client_errors.KeyReused):
        await client.submit("countdown", {"steps": 6}, key="once-only")
    waiting = await some_jobs(client, "waits", 1)
    await client.cancel(waiting[0])
    with pytest.raises(NoResult):
        await client.results(waiting[0])


async def test_what_runs_and_how_it_goes_is_known(client):
    (worker,) = await client.workers()
    assert "countdown" in worker["engines"]
    stats = await client.stats()
    assert (stats["workers"], stats["log"]) == (1, "sqlite")
    assert (await client.ready())["status"] == "ready"
