"""A log of each kind with an archive in a folder, and an archiver on it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from phaseline.settings import Settings
from tests.builders import committing
from tests.retention.scene import Scene
from tests.stores import open_log, postgres_settings, sqlite_settings


@pytest.fixture(params=["sqlite", "postgres"])
async def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings for an empty database of each kind, with an archive."""
    if request.param == "postgres":
        found = await postgres_settings(request.getfixturevalue("postgres"), tmp_path)
    else:
        found = sqlite_settings(tmp_path)
    return found.model_copy(update={"archive": str(tmp_path / "archive")})


@pytest.fixture
async def scene(settings: Settings) -> AsyncIterator[Scene]:
    """An open, migrated, empty log with a committer, a sealer and an archive."""
    async with open_log(settings) as log, committing(log) as running:
        scene = Scene(settings, log, running)
        yield scene
        await scene.close()
