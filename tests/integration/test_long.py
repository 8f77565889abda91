"""A job may run longer than RabbitMQ lets any consumer sit on a message: nobody sits on one while it works."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import pytest

from tests.installation import Viewer, api, on_servers, running
from tests.integration.conftest import ENVIRONMENT
from tests.scrape import scraped
from tests.servers import PostgresServer, RabbitServer
from tests.stores import postgres_settings
from tests.verified import verified

# RabbitMQ's default is 30 minutes, looked at every minute: a 900th of it, with leases a 900th shorter than a job of hours.
CONSUMER_TIMEOUT_S = 2.0
LOOK_S = 0.5
DEFAULTS_MS = (1_800_000, 60_000)
JOB_S = 3 * CONSUMER_TIMEOUT_S
BOUND_S = 30.0


@pytest.fixture
async def impatient(rabbit: RabbitServer) -> AsyncIterator[RabbitServer]:
    """The node ends a channel whose consumer leaves a message unacknowledged for two seconds."""
    await _set_timeouts(rabbit, int(CONSUMER_TIMEOUT_S * 1000), int(LOOK_S * 1000))
    try:
        yield rabbit
    finally:
        await _set_timeouts(rabbit, *DEFAULTS_MS)


async def _set_timeouts(rabbit: RabbitServer, consumer_ms: int, look_ms: int) -> None:
    settings = f"[{{consumer_timeout, {consumer_ms}}}, {{channel_tick_interval, {look_ms}}}]"
    await asyncio.to_thread(rabbit.evaluate, f"[application:set_env(rabbit, K, V) || {{K, V}} <- {settings}].")


async def test_a_job_outlives_the_consumer_timeout_many_times_over(
    postgres: PostgresServer, impatient: RabbitServer, tmp_path: Path
) -> None:
    settings = await postgres_settings(postgres, tmp_path)
    url = await asyncio.to_thread(impatient.create_vhost)
    made = on_servers(str(settings.database_url), url, **ENVIRONMENT | {"PHASELINE_SLOTS": "1"})
    made.forked = True
    async with running(made), api(made.url) as http, _sitting_on_a_message(url) as ended:
        began = time.monotonic()
        # One runs, the ticket of the other waits: the worker is full, then has room, then is full again.
        jobs = [await http.submit("countdown", {"steps": 20, "step_s": JOB_S / 20}) for _ in range(2)]
        viewers = await asyncio.gather(*(Viewer(made.url, job_id).follow() for job_id in jobs))
        assert time.monotonic() - began > 2 * JOB_S
        for viewer in viewers:
            assert (viewer.events[-1]["type"], viewer.events[-1]["attempt"]) == ("complete", 1)
        # Whoever does sit on a message lost its channel meanwhile: the node means it.
        assert "timeout" in str(ended.result()).lower()
        assert made.logged("beginning anew") == []
        assert (await scraped(made.url))["phaseline_bus_connected"] == 1
        await verified(settings, url, viewers)


@asynccontextmanager
async def _sitting_on_a_message(url: str) -> AsyncIterator["asyncio.Future[BaseException | None]"]:
    """A consumer as nobody should write one; yields why its channel ended."""
    ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        channel.close_callbacks.add(lambda _, why: None if ended.done() else ended.set_result(why))
        queue = await channel.declare_queue("sat_on", auto_delete=True)
        await channel.default_exchange.publish(aio_pika.Message(b"work"), queue.name)
        await queue.consume(_never_acknowledge)
        yield ended


async def _never_acknowledge(message: aio_pika.abc.AbstractIncomingMessage) -> None:
    """Works on it for hours."""
