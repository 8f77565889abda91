"""Logs for tests: a migrated, empty, open one on each database; and a connected bus."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from events.bus_rabbit import RabbitBus
from events.log import Log
from phaseline import database
from phaseline.settings import Settings
from tests.servers import PostgresServer

_numbers = itertools.count()


def sqlite_settings(folder: Path) -> Settings:
    """Settings for an embedded database in `folder`."""
    return Settings(data_dir=folder, database_url=None, rabbitmq_url=None)


async def postgres_settings(server: PostgresServer, folder: Path) -> Settings:
    """Settings for a fresh, empty database on `server`."""
    url = await asyncio.to_thread(server.create_database, f"t{os.getpid()}_{next(_numbers)}")
    return Settings(data_dir=folder, database_url=url, rabbitmq_url=None)


CONNECT_S = 30.0


@asynccontextmanager
async def open_bus(url: str, name: str) -> AsyncIterator[RabbitBus]:
    """A bus that is connected to RabbitMQ."""
    bus = RabbitBus(url, name=name)
    await bus.open()
    try:
        async with asyncio.timeout(CONNECT_S):
            while not bus.connected:  # noqa: ASYNC110 the port has no signal for it
                await asyncio.sleep(0.02)
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def open_log(settings: Settings) -> AsyncIterator[Log]:
    """The migrated, open log these settings name."""
    await database.migrate(settings)
    log = database.make_log(settings)
    await log.open()
    try:
        yield log
    finally:
        await log.close()
