"""A log of each kind with jobs of every fate, sealed, and an owner's connection to tamper with it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from phaseline.settings import Settings
from tests.audit.scene import Scene
from tests.builders import committing
from tests.stores import open_log, postgres_settings, sqlite_settings


@pytest.fixture(params=["sqlite", "postgres"])
async def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings for an empty database of each kind."""
    if request.param == "sqlite":
        return sqlite_settings(tmp_path)
    return await postgres_settings(request.getfixturevalue("postgres"), tmp_path)


@pytest.fixture
async def scene(settings: Settings) -> AsyncIterator[Scene]:
    """An open, migrated, empty log with a committer and a sealer."""
    async with open_log(settings) as log, committing(log) as running:
        scene = Scene(settings, log, running)
        yield scene
        await scene.close()
