"""kill -9 between: a delivery is owed until its outcome is noted, whoever dies, and its id stays."""

import asyncio
from pathlib import Path
from typing import Any

from events.acts import By
from phaseline import database
from tests.installation import Installation, api, embedded, on_servers
from tests.stores import postgres_settings, sqlite_settings
from tests.webhooks.receiver import Receiver, receiving

DIED = -9
QUICK = {"PHASELINE_WEBHOOK_NETWORKS": "127.0.0.1", "PHASELINE_WEBHOOK_HTTP": "1", "PHASELINE_WEBHOOK_TIMEOUT_S": "2"}


async def job_told_to(up: Installation, receiver: Receiver) -> str:
    async with api(up.url) as http:
        return await http.submit("countdown", {"steps": 1, "step_s": 0}, webhook=receiver.url)


async def delivered(up: Installation, job_id: str) -> Any:
    async with api(up.url) as http, asyncio.timeout(60):
        while True:
            [owed] = (await http.get(f"/api/v1/jobs/{job_id}/deliveries"))["deliveries"]
            if owed["state"] == "delivered":
                return owed
            await asyncio.sleep(0.1)  # another process's write; the bound is above


async def test_up_killed_between_sends_it_again_under_the_same_id(tmp_path: Path):
    """At both points at once: each waits until the claim of the killed one has run out."""
    async with asyncio.TaskGroup() as group:
        for point, heard in (("webhook.claimed", 1), ("webhook.answered", 2)):
            group.create_task(_killed_between(tmp_path / point, point, heard))


async def _killed_between(folder: Path, point: str, heard: int) -> None:
    secret = (await _signed(sqlite_settings(folder))).secret
    async with receiving() as receiver:
        up = embedded(folder, **QUICK)
        up.configure("up", PHASELINE_CRASH_AT=point)
        try:
            await up.start()
            job_id = await job_told_to(up, receiver)
            async with asyncio.timeout(60):
                assert await up.processes["up"].wait() == DIED
            assert len(receiver.got) == heard - 1
            up.configure("up")
            await up.start()
            owed = await delivered(up, job_id)
        finally:
            await up.kill()
        receiver.verified(secret)
    assert receiver.ids == [owed["id"]] * heard
    assert [one["attempt"] for one in owed["attempts"]] == [2]  # the first one's outcome nobody knew


async def test_with_servers_another_process_delivers_what_a_killed_one_owed(tmp_path: Path, postgres: Any, rabbit: Any):
    settings = await postgres_settings(postgres, tmp_path)
    await _signed(settings)
    vhost = await asyncio.to_thread(rabbit.create_vhost)
    async with receiving() as receiver:
        fleet = on_servers(str(settings.database_url), vhost, **QUICK)
        fleet.configure("worker", PHASELINE_CRASH_AT="webhook.answered")
        fleet.configure("gateway", PHASELINE_WEBHOOK_PLACES="0")
        try:
            await fleet.start()
            job_id = await job_told_to(fleet, receiver)
            async with asyncio.timeout(60):
                assert await fleet.processes["worker"].wait() == DIED
            await fleet.kill("worker")  # it is dead: forgotten
            await fleet.start("worker.2")
            owed = await delivered(fleet, job_id)
        finally:
            await fleet.kill()
    assert receiver.ids == [owed["id"]] * 2


async def _signed(settings: Any) -> Any:
    return await database.set_webhooks(settings, "default", None, By("user:test"))
