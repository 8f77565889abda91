"""Whole installations: each shape of Phaseline, and what must hold after every run on one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from phaseline.settings import Settings
from tests.installation import Api, Installation, api, embedded, on_servers, running
from tests.ports import free_port
from tests.stores import postgres_settings
from tests.verified import verified

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
    """Afterwards the whole run keeps what is promised of it. Some tests leave jobs that have not ended."""
    if request.param == "embedded":
        made = embedded(folder, **ENVIRONMENT)
        settings = Settings(data_dir=folder, database_url=None, rabbitmq_url=None)
    else:
        settings = await postgres_settings(request.getfixturevalue("postgres"), folder)
        if request.param == "servers":
            rabbit_url = await asyncio.to_thread(request.getfixturevalue("rabbit").create_vhost)
        else:
            rabbit_url = f"amqp://127.0.0.1:{free_port()}/"
        made = on_servers(str(settings.database_url), rabbit_url, **ENVIRONMENT)
    async with running(made):
        yield made
        if request.param == "servers":
            await verified(settings, made.environment["PHASELINE_RABBITMQ_URL"], settled=False)
    await verified(settings, settled=False)


@pytest.fixture
async def http(installation: Installation) -> AsyncIterator[Api]:
    """The HTTP interface of the shared installation."""
    async with api(installation.url) as http:
        yield http
