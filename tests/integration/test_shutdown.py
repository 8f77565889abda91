"""SIGTERM ends each process within its grace, whatever stands still around it."""

import asyncio
import time
from pathlib import Path

import pytest

from tests.installation import api, on_servers, running
from tests.integration.conftest import ENVIRONMENT
from tests.servers import PostgresServer, RabbitServer
from tests.stores import postgres_settings

GRACE_S = 30.0


@pytest.mark.parametrize("frozen", ["postgres", "rabbit"])
async def test_gateway_and_worker_end_although_a_server_stands_still(
    postgres: PostgresServer, rabbit: RabbitServer, tmp_path: Path, frozen: str
) -> None:
    settings = await postgres_settings(postgres, tmp_path)
    url = await asyncio.to_thread(rabbit.create_vhost)
    made = on_servers(str(settings.database_url), url, **ENVIRONMENT, PHASELINE_DRAIN_S="1")
    server = postgres if frozen == "postgres" else rabbit
    async with running(made), api(made.url) as http:
        async with asyncio.timeout(GRACE_S):
            while not (await http.get("/api/v1/workers"))["workers"]:  # noqa: ASYNC110 another process
                await asyncio.sleep(0.1)
        await asyncio.to_thread(server.pause)
        try:
            began = time.monotonic()
            assert await made.stop() == [0, 0]
            assert time.monotonic() - began < GRACE_S
        finally:
            await asyncio.to_thread(server.resume)
