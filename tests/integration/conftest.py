"""Whole installations: each shape of Phaseline, and what must hold after every run on one."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from events.bus_rabbit import RabbitBus
from phaseline import database
from phaseline.settings import Settings
from tests.installation import Api, Installation, api, embedded, free_port, on_servers, running
from tests.stores import open_bus, open_log, postgres_settings

# Engines for tests, and leases short enough that a takeover fits into a test.
ENVIRONMENT = {
    "PHASELINE_ENGINE_MODULES": "tests.engines",
    "PHASELINE_SLOTS": "2",
    "PHASELINE_LEASE_S": "2",
    "PHASELINE_BEAT_S": "0.5",
    "PHASELINE_SWEEP_S": "0.3",
    "PHASELINE_LEADER_S": "1",
    "PHASELINE_LOG_LEVEL": "WARNING",
}
COPY_BOUND_S = 30.0


# `rabbitmq_away`: on PostgreSQL, and nobody answers where RabbitMQ should be. Slower, and nothing else.
SHAPES = ["embedded", "servers", "rabbitmq_away"]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=SHAPES)
async def installation(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Installation]:
    """A running Phaseline that the tests of a module share; none of them ends its processes."""
    async with _installed(request, tmp_path_factory.mktemp("shared")) as made:
        yield made


@pytest.fixture(params=SHAPES)
async def own_installation(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Installation]:
    """A running Phaseline for one test, to kill and to stop."""
    async with _installed(request, tmp_path) as made:
        yield made


@asynccontextmanager
async def _installed(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Installation]:
    """Afterwards every row is the fold of its events, and the copy holds every event."""
    if request.param == "embedded":
        made = embedded(folder, **ENVIRONMENT)
        settings = Settings(data_dir=folder, database_url=None, rabbitmq_url=None)
    else:
        settings = await postgres_settings(request.getfixturevalue("postgres"), folder)
        await database.migrate(settings)
        if request.param == "servers":
            rabbit_url = await asyncio.to_thread(request.getfixturevalue("rabbit").create_vhost)
        else:
            rabbit_url = f"amqp://127.0.0.1:{free_port()}/"
        made = on_servers(str(settings.database_url), rabbit_url, **ENVIRONMENT)
    async with running(made):
        yield made
        if request.param == "servers":
            await copy_is_complete(settings, made.environment["PHASELINE_RABBITMQ_URL"])
    assert await database.check(settings) == []


@pytest.fixture
async def http(installation: Installation) -> AsyncIterator[Api]:
    """The HTTP interface of the shared installation."""
    async with api(installation.url) as http:
        yield http


async def copy_is_complete(settings: Settings, rabbit_url: str) -> None:
    """Every event of the log is in the RabbitMQ stream, read by someone who knows only CloudEvents."""
    async with open_log(settings) as log, open_bus(rabbit_url, "reader of the copy") as bus:
        recorded = {(row.job_id, row.seq) for row in (await log.feed("", 100_000)).events}
        async with asyncio.timeout(COPY_BOUND_S):
            while not recorded <= await _copied(bus):  # noqa: ASYNC110 a stream in another process
                await asyncio.sleep(0.1)  # the leader copies once a sweep


async def _copied(bus: RabbitBus) -> set[tuple[str, int]]:
    return {_key(message) async for message in bus.read_copy()} if await bus.copy_exists() else set()


def _key(message: bytes) -> tuple[str, int]:
    event = json.loads(message)
    assert {"specversion", "id", "source", "type"} <= set(event)
    return event["subject"], int(event["sequence"])
