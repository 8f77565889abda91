"""Every adapter of a port, one parameter each."""

import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest

from events.log import Log
from phaseline import database
from phaseline.settings import Settings
from tests.builders import Committing, committing
from tests.simulation.log import SimLog
from tests.simulation.store import Database
from tests.stores import open_log, postgres_settings, sqlite_settings


@pytest.fixture(params=["sqlite", "postgres", "postgres_18", "simulated"])
def store(request: pytest.FixtureRequest) -> str:
    """Each kind of database; `simulated` is the simulator's (tests/simulation), with no fault."""
    name: str = request.param
    return name


@pytest.fixture
async def store_settings(request: pytest.FixtureRequest, store: str, tmp_path: Path) -> Settings:
    """Settings for an empty database of each kind that has some."""
    if store == "sqlite":
        return sqlite_settings(tmp_path)
    return await postgres_settings(request.getfixturevalue(store), tmp_path)


@pytest.fixture
def make_log(request: pytest.FixtureRequest, store: str) -> Callable[[], Log]:
    """Makes a log on the test's database, not yet open."""
    if store == "simulated":
        return partial(SimLog, Database(lambda: time.time_ns() // 1_000_000))
    return partial(database.make_log, request.getfixturevalue("store_settings"))


@pytest.fixture
async def log(request: pytest.FixtureRequest, store: str, make_log: Callable[[], Log]) -> AsyncIterator[Log]:
    """An open log, and after the test: every job's row is the fold of its events."""
    if store == "simulated":
        log = make_log()
        await log.open()
        yield log
        await log.close()
        return
    async with open_log(request.getfixturevalue("store_settings")) as log:
        yield log


@pytest.fixture
async def running(log: Log) -> AsyncIterator[Committing]:
    """A running committer on the log."""
    async with committing(log) as running:
        yield running
