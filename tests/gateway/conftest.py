"""A gateway on the real log and bus. `STORAGES` is what to extend: each entry gives an open log and bus."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from sqlalchemy import NullPool, create_engine

import migrations
from events.batch import Committed
from events.bus_memory import MemoryBus
from events.bus_rabbit import RabbitBus
from events.committer import Committer
from events.errors import LogUnavailable, PhaselineError
from events.log_postgres import PostgresLog
from events.log_sqlite import SqliteLog
from gateway.app import make_app
from gateway.deps import Deps
from tests.gateway.driving import ENGINES, Driver, Gateway, Storage, eventually
from tests.stores import postgres_settings

_CALLS = frozenset(
    {
        "transaction",
        "now",
        "head",
        "heads",
        "read",
        "lines",
        "job",
        "jobs",
        "job_ids",
        "find_key",
        "artifact",
        "engines",
        "feed",
        "feed_end",
    }
)


class Breakable:
    """Puts a real log out of reach on demand, for what streams do then; real servers die in tests/faults."""

    failure: type[PhaselineError] = LogUnavailable
    _down = False

    def interrupt(self, down: bool) -> None:
        self._down = down

    def __getattribute__(self, name: str) -> Any:
        if name in _CALLS and object.__getattribute__(self, "_down"):
            raise object.__getattribute__(self, "failure")
        return object.__getattribute__(self, name)


class BreakableSqlite(Breakable, SqliteLog):
    pass


class BreakablePostgres(Breakable, PostgresLog):
    pass


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, migrated once: each test gets a copy."""
    path = tmp_path_factory.mktemp("migrated") / "log.db"
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    with engine.connect() as connection:
        migrations.upgrade(connection)
    engine.dispose()
    return path


@asynccontextmanager
async def sqlite_and_memory(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Storage]:
    path = folder / "log.db"
    shutil.copy(request.getfixturevalue("migrated"), path)
    log, bus = BreakableSqlite(path), MemoryBus()
    await log.open()
    await bus.open()
    try:
        yield Storage(log, bus, log.interrupt)
    finally:
        await bus.close()
        await log.close()


@asynccontextmanager
async def postgres_and_rabbit(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Storage]:
    settings = await postgres_settings(request.getfixturevalue("postgres"), folder)
    vhost = await asyncio.to_thread(request.getfixturevalue("rabbit").create_vhost)
    assert settings.database_url is not None
    log, bus = BreakablePostgres(settings.database_url), RabbitBus(vhost, name="test gateway")
    await log.open()
    await bus.open()
    try:
        await eventually(lambda: bus.connected)
        yield Storage(log, bus, log.interrupt)
    finally:
        await bus.close()
        await log.close()


STORAGES = {"sqlite-memory": sqlite_and_memory, "postgres-rabbit": postgres_and_rabbit}
# What streams promise must hold on both; the rest asks nothing of a storage that the contract tests do not.
ON_EVERY_STORAGE = {"test_full", "test_classic", "test_feed"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "storage" in metafunc.fixturenames:
        everywhere = metafunc.module.__name__.rpartition(".")[2] in ON_EVERY_STORAGE
        metafunc.parametrize("storage", list(STORAGES) if everywhere else ["sqlite-memory"], indirect=True)


@pytest.fixture
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    async with STORAGES[request.param](request, tmp_path) as opened:
        yield opened


@asynccontextmanager
async def running_committer(storage: Storage) -> AsyncIterator[Committer]:
    """A committer that publishes what it appended as the composition root does, through `storage.lose`."""

    def publish(done: Committed) -> None:
        storage.bus.publish(done.epoch, storage.lose([recorded.line() for recorded in done.events]))

    committer = Committer(storage.log, publish)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(committer.run())
        try:
            yield committer
        finally:
            running.cancel()


@pytest.fixture
async def settings() -> dict[str, Any]:
    """Settings of the gateway beside its ports; a test overrides this fixture."""
    return {}


@pytest.fixture
async def gateway(storage: Storage, settings: dict[str, Any]) -> AsyncIterator[Gateway]:
    async with AsyncExitStack() as stack:
        committer = await stack.enter_async_context(running_committer(storage))
        given: dict[str, Any] = {"goodbye_window_s": 0.0, "schedules": storage.log} | settings
        deps = Deps(storage.log, storage.bus, committer, ENGINES, **given)
        app = make_app(deps)
        server = await stack.enter_async_context(TestServer(app))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Gateway(server, session, app, Driver(storage, committer), storage)


@pytest.fixture
def driver(gateway: Gateway) -> Driver:
    return gateway.driver
