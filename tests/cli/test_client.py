"""The Python client's calls: typed errors that name fields, and what it does when a server is slow, busy or gone."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from phaseline import Client
from phaseline.client_errors import Busy, ClientError, Conflict, Invalid, NotFound, NotReachable, problem_of
from phaseline.event_types import Event
from tests.cli.answering import answering
from tests.ports import free_port

QUICK = {"steps": 5, "step_s": 0}


@pytest.fixture
async def client(up) -> AsyncIterator[Client]:
    async with Client(up.url) as client:
        yield client


async def test_a_job_from_submit_to_result(client):
    told: list[Event] = []
    job = await client.submit("countdown", QUICK, tags=["client"])
    follow = client.follow(job["id"], on_event=[told.append])
    seen = [event async for event in follow]
    assert (follow.status, follow.after) == ("completed", len(seen))
    assert told == seen == [event async for event in client.events(job["id"])]
    assert (await client.job(job["id"]))["results"]["steps"] == 5
    assert b'"steps":5' in await client.results(job["id"])
    assert (await client.jobs(tag="client", limit=1)).jobs[0]["id"] == job["id"]


async def test_one_of_several_callbacks_that_breaks_changes_nothing_for_the_others(client, caplog):
    first: list[Event] = []
    last: list[Event] = []

    def breaks(event):
        raise RuntimeError("of no use")

    job = await client.submit("countdown", QUICK)
    status = await client.follow(job["id"], on_event=[first.append, breaks, last.append]).wait()
    assert status == "completed"
    assert first == last == [event async for event in client.events(job["id"])]
    assert len([record for record in caplog.records if record.exc_info]) == len(first)


async def test_several_viewers_follow_one_job_each_at_its_own_place(client):
    job = await client.submit("countdown", {"steps": 10, "step_s": 0.01})

    three_seen = asyncio.Event()

    async def seqs(after):
        seen = []
        async for event in client.follow(job["id"], after):
            seen.append(event["seq"])
            if len(seen) == 3:
                three_seen.set()
        return seen

    async def seqs_later():
        await three_seen.wait()
        return await seqs(3)

    whole, again, rest = await asyncio.gather(seqs(0), seqs(0), seqs_later())
    assert whole == again == list(range(1, whole[-1] + 1))
    assert rest == whole[3:]


async def test_invalid_params_are_named_by_their_path(client):
    with pytest.raises(Invalid) as refusal:
        await client.submit("countdown", {"steps": "many"})
    assert [path for path, _ in refusal.value.fields] == ["params.steps"]
    assert refusal.value.status == 422


async def test_refusals_have_types(client):
    with pytest.raises(NotFound, match="countdown"):
        await client.submit("teleport")
    with pytest.raises(NotFound):
        await client.job("no-such-job")
    job = await client.submit("countdown", QUICK)
    await client.follow(job["id"]).wait()
    with pytest.raises(Conflict):
        await client.cancel(job["id"])
    with pytest.raises(Conflict):
        await client.retry(job["id"])


async def test_a_busy_server_is_asked_again_with_the_same_key():
    keys = []

    async def busy_twice(request):
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) < 3:
            return web.Response(status=503, headers={"Retry-After": "0"})
        return web.json_response({"id": "j"}, status=202)

    async with answering(busy_twice) as url, Client(url) as client:
        assert await client.submit("countdown") == {"id": "j"}
    assert len(keys) == 3
    assert len(set(keys)) == 1


async def test_a_retry_is_not_sent_twice():
    calls = []

    async def busy(request):
        calls.append(request.path)
        return web.Response(status=503, headers={"Retry-After": "0"})

    async with answering(busy) as url, Client(url) as client:
        with pytest.raises(Busy):
            await client.retry("j")
    assert len(calls) == 1


async def test_a_server_that_stays_busy_or_silent_is_given_up_in_time():
    async def busy(request):
        return web.json_response({"detail": "The database is away."}, status=503, headers={"Retry-After": "60"})

    async def silent(request):
        await asyncio.sleep(60)

    async with answering(busy) as url, Client(url, timeout_s=0.3) as client:
        with pytest.raises(Busy, match="database is away"):
            await client.engines()
    async with answering(silent) as url, Client(url, timeout_s=0.3) as client:
        with pytest.raises(NotReachable, match="no answer within"):
            await client.engines()


async def test_where_nobody_listens_the_call_ends_at_once():
    async with Client(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(NotReachable):
            await client.engines()


def test_a_server_that_answered_before_is_waited_for_while_it_is_away(fresh_up):
    async def asked() -> tuple[int, int]:
        async with Client(fresh_up.url) as client:
            before = len(await client.engines())
            await asyncio.to_thread(fresh_up.kill)
            asking = asyncio.create_task(client.engines())
            await asyncio.to_thread(fresh_up.start)
            return before, len(await asking)

    before, after = asyncio.run(asked())
    assert before == after > 0


async def test_another_kind_of_server_is_recognised():
    async def page(request):
        return web.Response(text="<html>welcome</html>")

    async with answering(page) as url, Client(url) as client:
        with pytest.raises(ClientError, match="is it a Phaseline server"):
            await client.engines()


def test_an_answer_of_something_in_between_becomes_an_error_too():
    assert str(problem_of(502, b"<h1>Bad gateway</h1>", {})) == "<h1>Bad gateway</h1>"
    problem = problem_of(503, b'{"detail": "later"}', {"Retry-After": "2"})
    assert isinstance(problem, Busy)
    assert problem.retry_after_s == 2
