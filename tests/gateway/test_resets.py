"""A `reset` brings the job as it stood at the head, on every transport, and waits for room in the process like all that is
large."""

import tracemalloc
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sqlalchemy import text

from gateway.deps import HUB
from gateway.large import LARGE_BUDGET_BYTES
from gateway.sockets import SOCKETS
from tests.gateway.driving import Driver, Gateway, eventually
from tests.gateway.listening import listening
from tests.gateway.test_full import running
from tests.gateway.test_many import a_socket

BEYOND = 2**53 - 1  # the largest sequence a client may name
JOBS = 24
RESULT_BYTES = 2_000_000


async def test_viewers_that_wait_with_a_reset_hold_no_result(gateway: Gateway, driver: Driver):
    """One socket that takes nothing is enough for 128 of them."""
    body = b'"%s"' % (b"x" * RESULT_BYTES)
    jobs = []
    for _ in range(JOBS):
        attempt = await driver.started()
        await attempt.finish_apart(body, "0" * 64)
        jobs.append(attempt.job_id)
    hub, sockets = gateway.app[HUB], gateway.app[SOCKETS]
    async with a_socket(gateway, "?results=inline") as socket, sockets.large.room("other", LARGE_BUDGET_BYTES):
        tracemalloc.start()
        try:
            await socket.subscribe(*jobs, after=BEYOND)
            await eventually(lambda: hub.viewers == JOBS)
            assert tracemalloc.get_traced_memory()[0] < JOBS * RESULT_BYTES / 8
        finally:
            tracemalloc.stop()
    async with a_socket(gateway, "?results=inline") as socket:
        await socket.subscribe(jobs[0], after=BEYOND)
        await socket.until("end", jobs[0])
    hello, reset, terminal, *_ = socket.of[jobs[0]]
    assert (hello["resume"], reset["type"], terminal["type"]) == ("reset", "reset", "complete")
    assert ("results" in reset["snapshot"], reset["snapshot"]["results_ref"]["size"]) == (False, len(body))
    assert terminal["results"] == "x" * RESULT_BYTES


@pytest.mark.parametrize("wire", ["websocket", "event stream"])
async def test_what_happens_while_a_reset_waits_comes_after_its_snapshot(gateway: Gateway, driver: Driver, wire: str):
    attempt = await running(driver)
    async with AsyncExitStack() as stack:
        async with gateway.app[SOCKETS].large.room("other", LARGE_BUDGET_BYTES):
            stream = await stack.enter_async_context(_opened(gateway, wire, attempt.job_id))
            assert (await stream.frame())["head_seq"] == 5
            await attempt.finish({})
        reset = await stream.frame()
        assert (reset["type"], reset["head_seq"], reset["snapshot"]["status"]) == ("reset", 5, "running")
        assert reset["snapshot"] == (await gateway.get(f"/api/v1/jobs/{attempt.job_id}?at=5")).json
        assert [event["seq"] for event in await stream.events(2)] == [6, 7]


@pytest.mark.parametrize("wire", ["websocket", "event stream"])
async def test_a_job_that_is_removed_while_its_reset_waits_ends_the_stream(
    gateway: Gateway, driver: Driver, wire: str, caplog: pytest.LogCaptureFixture
):
    job_id = (await running(driver)).job_id
    async with AsyncExitStack() as stack:
        async with gateway.app[SOCKETS].large.room("other", LARGE_BUDGET_BYTES):
            stream = await stack.enter_async_context(_opened(gateway, wire, job_id))
            await stream.frame()
            async with gateway.storage.log._writer.begin() as connection:  # type: ignore[attr-defined]
                await connection.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": job_id})
        assert await stream.rest() == ([] if wire == "event stream" else ([], 1012))
    assert "failed" not in caplog.text


def _opened(gateway: Gateway, wire: str, job_id: str) -> Any:
    if wire == "websocket":
        return gateway.stream(f"/api/v1/jobs/{job_id}/stream?after={BEYOND}")
    return listening(gateway, f"/api/v1/jobs/{job_id}/events?after={BEYOND}", headers={"Accept": "text/event-stream"})
