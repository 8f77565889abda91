"""A gateway whose streams would hear nothing new must not be sent any more viewers."""

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from gateway.hub import DEAF_S
from tests.faults.fleet import until
from tests.figures import note
from tests.installation import Api, Viewer, api, on_servers, running
from tests.scrape import scraped
from tests.servers import PostgresServer, RabbitServer
from tests.stores import postgres_settings


@pytest.mark.timeout(300)
async def test_readiness_fails_while_the_tail_is_deaf_although_the_database_answers(
    postgres: PostgresServer, rabbit: RabbitServer, tmp_path: Path
):
    """RabbitMQ frozen: the connection stands and brings nothing. The table of heads locked: only that query fails."""
    settings = await postgres_settings(postgres, tmp_path)
    rabbit_url = await asyncio.to_thread(rabbit.create_vhost)
    made = on_servers(str(settings.database_url), rabbit_url)
    async with running(made, "gateway"), api(made.url) as http, asyncio.TaskGroup() as group:
        job_id = await http.submit("countdown", {"steps": 1})
        viewer = Viewer(made.url, job_id)
        watching = group.create_task(viewer.follow_to_the_end())
        await until(lambda: viewer.seqs, "the first event")
        await asyncio.to_thread(rabbit.pause)
        try:
            table = await locked(str(settings.database_url))
            try:
                said = await until(lambda: not_ready(http), "a gateway that is not ready")
                age_s = (await scraped(made.url))["phaseline_tail_age_seconds"]
                note({"what": "deaf", "tail_age_s": round(age_s, 1), "said": said["detail"]})
                assert said["bus"]["name"] == "rabbitmq"
                assert age_s > DEAF_S
                assert (await http.get("/healthz"))["status"] == "alive"
            finally:
                await table.close()
            # RabbitMQ is still frozen: slower, and ready.
            await until(lambda: is_ready(http), "a gateway that is ready again")
            await http.post(f"/api/v1/jobs/{job_id}/cancel", {}, 200)
            await watching
        finally:
            await asyncio.to_thread(rabbit.resume)
    assert [event["type"] for event in viewer.events] == ["submitted", "cancelled"]
    assert viewer.seqs == [1, 2]


async def locked(url: str) -> asyncpg.Connection:
    """A connection that keeps every other from reading the jobs until it is closed."""
    connection = await asyncpg.connect(url)
    await connection.execute("BEGIN")
    await connection.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
    return connection


async def readiness(http: Api) -> tuple[int, dict[str, Any]]:
    async with http.session.get(f"{http.url}/readyz") as answer:
        return answer.status, await answer.json()


async def not_ready(http: Api) -> dict[str, Any] | None:
    status, said = await readiness(http)
    return said if status == 503 and said["type"].endswith(":deaf") else None


async def is_ready(http: Api) -> bool:
    return (await readiness(http))[0] == 200
