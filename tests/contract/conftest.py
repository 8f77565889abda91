"""Every adapter of a port, one parameter each."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from events.log import Log
from phaseline.settings import Settings
from tests.builders import Committing, committing
from tests.stores import open_log, postgres_settings, sqlite_settings


@pytest.fixture(params=["sqlite", "postgres", "postgres_18"])
async def store_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings for an empty database of each kind."""
    if request.param == "sqlite":
        return sqlite_settings(tmp_path)
    return await postgres_settings(request.getfixturevalue(request.param), tmp_path)


@pytest.fixture
async def log(store_settings: Settings) -> AsyncIterator[Log]:
    """An open log, and after the test: every job's row is the fold of its events."""
    async with open_log(store_settings) as log:
        yield log


@pytest.fixture
async def running(log: Log) -> AsyncIterator[Committing]:
    """A running committer on the log."""
    async with committing(log) as running:
        yield running
