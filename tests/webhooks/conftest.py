"""A log of each kind with a committer, and a deliverer that sends to receivers on loopback."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from events.acts import By
from events.deliverer import Deliverer, DelivererOptions
from events.telemetry import Telemetry
from events.webhook_sender import sender
from events.webhook_url import Rules, networks
from events.webhooks import Endpoint, Owed, new_secret
from phaseline.settings import Settings
from tests.builders import Committing, a_finish, committing
from tests.stores import open_log, postgres_settings, sqlite_settings

BOUND_S = 60.0
LOOPBACK = Rules(networks(["127.0.0.1"]), plain_http=True)


class Scene:
    def __init__(self, settings: Settings, log: Any, running: Committing) -> None:
        self.settings = settings
        self.log = log
        self.running = running
        self.telemetry = Telemetry()
        self.secret = new_secret()
        self.deliverers: list[Deliverer] = []

    async def sign(self, url: str | None = None, tenant: str = "default") -> None:
        """Gives a tenant webhooks."""
        await self.log.keep_endpoint(Endpoint(tenant, self.secret, None, None, url, 0), By("user:test"))

    async def completed(self, webhook: str | None = None, **fields: Any) -> str:
        claimed = await self.running.started(webhook=webhook, **fields)
        await self.running.committer.execute(claimed.job.id, a_finish(claimed, {"n": 1}))
        for deliverer in self.deliverers:
            deliverer.committed(self.running.committed[-1])
        return claimed.job.id

    @asynccontextmanager
    async def delivering(self, rules: Rules = LOOPBACK, **options: Any) -> AsyncIterator[Deliverer]:
        made = DelivererOptions(**{"backoff_s": 0.01, "timeout_s": 20.0} | options)
        async with sender(rules, made.timeout_s, made.places, "phaseline/test") as sends:
            deliverer = Deliverer(self.log, sends, made, self.telemetry)
            self.deliverers.append(deliverer)
            async with asyncio.TaskGroup() as group:
                task = group.create_task(deliverer.run())
                yield deliverer
                task.cancel()

    async def settled(self, job_id: str, state: str = "delivered") -> Owed:
        """The one delivery of a job, once it is in this state."""
        async with asyncio.timeout(BOUND_S):
            while True:
                [owed] = await self.log.deliveries(job_id)
                if owed.state == state:
                    return owed
                await asyncio.sleep(0.02)  # another task's write; the bound is above

    async def tried(self, job_id: str) -> Owed:
        """The one delivery of a job, once an attempt is noted."""
        async with asyncio.timeout(BOUND_S):
            while not (owed := (await self.log.deliveries(job_id))[0]).tried:  # noqa: ASYNC110 it is written elsewhere
                await asyncio.sleep(0.02)
        return owed


@pytest.fixture(params=["sqlite", "postgres"])
async def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings for an empty database of each kind."""
    if request.param == "sqlite":
        return sqlite_settings(tmp_path)
    return await postgres_settings(request.getfixturevalue("postgres"), tmp_path)


@pytest.fixture
async def scene(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr("events.deliverer.LOOK_S", 0.5)
    async with open_log(settings) as log, committing(log) as running:
        yield Scene(settings, log, running)
