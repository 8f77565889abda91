"""Logs for tests: a migrated, empty, open one on each database; and a connected bus.

The schema is made once in a process, by the migrations as in production, and copied for each test: thirty transactions
less. Tests of the migrations themselves ask for an `unmigrated` database.
"""

import asyncio
import contextlib
import functools
import itertools
import os
import secrets
import sqlite3
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from events.bus_rabbit import RabbitBus
from events.log import Log
from phaseline import database
from phaseline.settings import Settings
from tests.servers import PostgresServer, in_thread

CONNECT_S = 30.0

_numbers = itertools.count()
_making = threading.Lock()
_migrated: dict[str, str] = {}  # the name of the database to copy, by the server's URL


def unmigrated_sqlite(folder: Path) -> Settings:
    """Settings for an embedded database in `folder`."""
    return Settings(data_dir=folder, database_url=None, rabbitmq_url=None)


async def unmigrated_postgres(server: PostgresServer, folder: Path, *, template: str | None = None) -> Settings:
    """Settings for a fresh database on `server` with nothing in it but what `template` has."""
    name = f"t{os.getpid()}_{next(_numbers)}"
    url = await asyncio.to_thread(server.create_database, name, template=template)
    return Settings(data_dir=folder, database_url=url, rabbitmq_url=None)


def sqlite_settings(folder: Path) -> Settings:
    """Settings for the embedded database in `folder`; when there is none it is made, migrated and without a job."""
    settings = unmigrated_sqlite(folder)
    path = database.sqlite_path(settings)
    if not path.exists():
        path.write_bytes(_migrated_sqlite())
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(_own_lineage())
    return settings


async def postgres_settings(server: PostgresServer, folder: Path) -> Settings:
    """Settings for a fresh database on `server`, migrated and without a job."""
    settings = await unmigrated_postgres(server, folder, template=await asyncio.to_thread(_migrated_postgres, server))
    connection = await asyncpg.connect(settings.database_url, timeout=CONNECT_S)
    try:
        await connection.execute(_own_lineage())
    finally:
        await connection.close()
    return settings


@functools.cache
def _migrated_sqlite() -> bytes:
    with tempfile.TemporaryDirectory(prefix="phaseline-migrated-") as folder:
        settings = unmigrated_sqlite(Path(folder))
        in_thread(database.migrate(settings))
        return database.sqlite_path(settings).read_bytes()


def _migrated_postgres(server: PostgresServer) -> str:
    """The name of a database to copy; nobody is connected to it."""
    with _making:
        if server.url not in _migrated:
            name = f"t{os.getpid()}_migrated"
            in_thread(database.migrate(Settings(database_url=server.create_database(name), rabbitmq_url=None)))
            _migrated[server.url] = name
        return _migrated[server.url]


def _own_lineage() -> str:
    """What a migration of its own would have drawn."""
    return f"UPDATE log SET lineage = '{secrets.token_hex(4)}'"


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
    """The open log these settings name."""
    log = database.make_log(settings)
    await log.open()
    try:
        yield log
    finally:
        await log.close()
