"""Golden transcripts of the classic protocol: fields, JSON types, order and close codes (docs/protocol.md §3)."""

import asyncio
import contextlib
import hashlib
import json
from typing import Any

import pytest

from events.catalog import Cancel, Reopen
from events.committer import new_command_id
from tests.gateway.driving import Driver, Gateway, Stream, normal, seen

UNKNOWN = "01a20cae-f0fd-7c5c-90af-8d1914daffc9"
QUEUED = {"type": "progress", "progress": 0.0, "phase": "queued", "timestamp": "TIME"}
HEARTBEAT = {"type": "heartbeat", "timestamp": "TIME"}


def progress(percent: float, phase: str) -> dict[str, Any]:
    return {"type": "progress", "progress": percent, "phase": phase, "timestamp": "TIME"}


def complete(results: Any) -> dict[str, Any]:
    return {"type": "complete", "results": results, "timestamp": "TIME"}


def error(message: str) -> dict[str, Any]:
    return {"type": "error", "message": message, "timestamp": "TIME"}


def url(job_id: str) -> str:
    return f"/api/v1/analyze/{job_id}/stream"


async def transcript(stream: Stream) -> tuple[list[dict[str, Any]], int | None]:
    frames, code = await stream.rest()
    return normal(frames), code


async def test_a_client_that_connects_while_queued_sees_the_whole_run(gateway: Gateway, driver: Driver):
    job_id = await driver.submit()
    async with gateway.stream(url(job_id)) as stream:
        assert normal([await stream.frame()]) == [QUEUED]
        attempt = await driver.claim(job_id)
        await attempt.progress(10, "collecting_data")
        await attempt.progress(50, "analyzing_transfers", message="3 of 6", done=3, total=6)
        await attempt.finish({"transfers": [{"out": 1, "in": 2}], "gain": 4.0})
        assert await transcript(stream) == (
            [
                progress(10.0, "collecting_data"),
                progress(50.0, "analyzing_transfers"),
                progress(100.0, "finalizing"),
                complete({"transfers": [{"out": 1, "in": 2}], "gain": 4.0}),
            ],
            1000,
        )


async def test_progress_is_a_json_float_on_the_wire(gateway: Gateway, driver: Driver):
    attempt = await driver.started()
    await attempt.progress(50, "analyzing_transfers")
    async with gateway.stream(url(attempt.job_id)) as stream:
        await stream.frame()
        await attempt.progress(60, "analyzing_transfers")
        await stream.frame()
    assert '"progress":50.0,' in stream.text[0]
    assert '"progress":60.0,' in stream.text[1]


async def test_a_client_that_connects_while_running_gets_the_current_state_first(gateway: Gateway, driver: Driver):
    attempt = await driver.started()
    async with gateway.stream(url(attempt.job_id)) as early:
        assert normal([await early.frame()]) == [progress(0.0, "initializing")]
    await attempt.progress(40, "analyzing_transfers")
    async with gateway.stream(url(attempt.job_id)) as stream:
        assert normal([await stream.frame()]) == [progress(40.0, "analyzing_transfers")]
        await attempt.finish({})
        assert await transcript(stream) == ([progress(100.0, "finalizing"), complete({})], 1000)


async def test_a_client_that_connects_after_the_end_gets_the_result_at_once(gateway: Gateway, driver: Driver):
    attempt = await driver.started()
    await attempt.finish({"gain": 1.5})
    async with gateway.stream(url(attempt.job_id)) as stream:
        assert await transcript(stream) == ([complete({"gain": 1.5})], 1000)


@pytest.mark.parametrize("size", [300_000, 5 * 1024 * 1024])
async def test_a_result_stored_apart_comes_inline_with_its_exact_bytes(gateway: Gateway, driver: Driver, size: int):
    body = b'{"gain":1e2, "padding":"%s"}' % (b"x" * size)
    attempt = await driver.started()
    async with gateway.stream(url(attempt.job_id)) as during:
        await during.frame()
        await attempt.finish_apart(body, hashlib.sha256(body).hexdigest())
        assert (await transcript(during)) == ([progress(100.0, "finalizing"), complete(json.loads(body))], 1000)
        assert body.decode() in during.text[-1]
    async with gateway.stream(url(attempt.job_id)) as after:
        assert (await transcript(after)) == ([complete(json.loads(body))], 1000)


@pytest.mark.parametrize("job_id", [UNKNOWN, "17", "a%20b%2Fc", UNKNOWN.upper()])
async def test_an_unknown_or_malformed_id_is_accepted_and_closed_with_4004(gateway: Gateway, job_id: str):
    async with gateway.stream(url(job_id)) as stream:
        assert await stream.rest() == ([], 4004)


async def test_a_job_of_another_engine_is_unknown_here(gateway: Gateway, driver: Driver):
    job_id = await driver.submit(engine="countdown")
    async with gateway.stream(url(job_id)) as classic, gateway.stream(url(job_id) + "?after=0") as full:
        assert await classic.rest() == ([], 4004)
        assert await full.rest() == ([], 4004)
    assert (await gateway.get(f"/api/v1/analyze/{job_id}")).status == 404


async def test_a_failed_job_ends_with_error_and_4000(gateway: Gateway, driver: Driver):
    attempt = await driver.started()
    async with gateway.stream(url(attempt.job_id)) as during:
        assert normal([await during.frame()]) == [progress(0.0, "initializing")]
        await attempt.fail("no data for team 7")
        expected = error("Analysis failed: no data for team 7")
        assert await transcript(during) == ([expected], 4000)
    async with gateway.stream(url(attempt.job_id)) as after:
        assert await transcript(after) == ([expected], 4000)


async def test_a_cancelled_job_ends_with_an_error_that_says_so_and_4000(gateway: Gateway, driver: Driver):
    job_id = await driver.submit()
    async with gateway.stream(url(job_id)) as stream:
        assert normal([await stream.frame()]) == [QUEUED]
        await driver.run(job_id, Cancel(command_id=new_command_id(), actor="user:a", reason="wrong team"))
        assert await transcript(stream) == ([error("Analysis cancelled: wrong team")], 4000)


async def test_a_reopened_job_is_passed_over_to_its_new_end(gateway: Gateway, driver: Driver):
    attempt = await driver.started()
    await attempt.fail()
    await driver.run(attempt.job_id, Reopen(command_id=new_command_id(), actor="user:a"))
    async with gateway.stream(url(attempt.job_id)) as stream:
        assert normal([await stream.frame()]) == [QUEUED]
        again = await driver.claim(attempt.job_id)
        await again.finish({"second": True})
        assert await transcript(stream) == ([progress(100.0, "finalizing"), complete({"second": True})], 1000)


async def test_a_heartbeat_comes_after_two_seconds_without_another_frame(gateway: Gateway, driver: Driver):
    job_id = await driver.submit()
    loop = asyncio.get_running_loop()
    async with gateway.stream(url(job_id)) as stream:
        await stream.frame()
        began = loop.time()
        assert normal([await stream.frame(), await stream.frame()]) == [HEARTBEAT, HEARTBEAT]
        assert loop.time() - began >= 3.8


async def test_unknown_query_parameters_are_ignored(gateway: Gateway, driver: Driver):
    job_id = await driver.submit()
    async with gateway.stream(url(job_id) + "?token=abc&heartbeat=99&x=%00") as stream:
        assert normal([await stream.frame()]) == [QUEUED]


async def test_the_subprotocol_asks_for_the_full_protocol(gateway: Gateway, driver: Driver):
    job_id = await driver.submit()
    async with gateway.stream(url(job_id), protocols=("bearer.x", "phaseline.v1")) as stream:
        assert stream.socket.protocol == "phaseline.v1"
        assert seen(await stream.until("caught_up")) == [("hello",), (1, "submitted"), ("caught_up",)]


async def test_events_without_a_classic_form_are_left_out(gateway: Gateway, driver: Driver):
    attempt = await driver.started()
    async with gateway.stream(url(attempt.job_id)) as stream:
        assert normal([await stream.frame()]) == [progress(0.0, "initializing")]
        await attempt.checkpoint("initializing", {"squad": [1, 2]})
        await driver.run(attempt.job_id, Cancel(command_id=new_command_id(), actor="user:a", grace_s=60))
        await attempt.finish(None)
        frames = [progress(100.0, "finalizing"), complete(None)]
        assert await transcript(stream) == (frames, 1000)
    page = (await gateway.get(f"/api/v1/jobs/{attempt.job_id}/events")).json["events"]
    types = ["submitted", "started", "checkpoint", "cancel_requested", "progress", "complete"]
    assert [event["type"] for event in page] == types


async def test_fifty_viewers_see_the_same_and_one_that_breaks_harms_nobody(gateway: Gateway, driver: Driver):
    attempt = await driver.started()
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(gateway.stream(url(attempt.job_id))) for _ in range(50)]
        for stream in streams:
            await stream.frame()
        await attempt.progress(40, "analyzing_transfers")
        # Half a frame, then a reset: as rude as a client can be.
        connection = streams[0].socket._response.connection
        assert connection is not None
        broken = connection.transport
        assert broken is not None
        broken.write(b"\x81\xfe\x10")
        broken.abort()
        for percent in range(41, 60):
            await attempt.progress(percent, "analyzing_transfers")
        await attempt.finish({"gain": 2.0})
        transcripts = await asyncio.gather(*(transcript(stream) for stream in streams[1:]))
    expected = [progress(float(percent), "analyzing_transfers") for percent in range(40, 60)]
    expected += [progress(100.0, "finalizing"), complete({"gain": 2.0})]
    assert transcripts == [(expected, 1000)] * 49
    assert (await gateway.get(f"/api/v1/analyze/{attempt.job_id}")).json["status"] == "completed"
