"""The scene of the worker's tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from events.bus_memory import MemoryBus
from tests.stores import open_log, sqlite_settings
from tests.worker.scene import Scene


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """A log on SQLite, a bus, a running committer."""
    async with open_log(sqlite_settings(tmp_path)) as log, Scene(log, MemoryBus()).on() as scene:
        yield scene
