"""What only SQLite does: one writer, whose lock is the whole file's."""

import asyncio
import gc

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from events.log_sqlite import BUSY_MS, sqlite_engine
from phaseline import database
from tests.stores import sqlite_settings

# Takes far longer than any bound here, and answers row by row, so that a cursor is left in the middle of it.
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 30000000) SELECT max(x) FROM n"


@pytest.fixture
def uncollected():
    """What is let go of is let go of by us, not by the garbage collector that happens to run."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("begun", ["INSERT INTO leaders (name, holder, lease_until) VALUES ('x', 'y', 1)", "SELECT 1"])
async def test_a_write_given_up_in_mid_statement_keeps_no_lock_and_leaves_nothing(tmp_path, uncollected, begun):
    settings = sqlite_settings(tmp_path)
    await database.migrate(settings)
    writer = sqlite_engine(database.sqlite_path(settings), begin="BEGIN IMMEDIATE")
    other = sqlite_engine(database.sqlite_path(settings), begin="BEGIN IMMEDIATE")
    try:
        began = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_write(writer, begun, ENDLESS), 0.2)
        assert asyncio.get_running_loop().time() - began < BUSY_MS / 1000  # the statement was ended, not waited for
        async with other.begin() as connection:
            assert (await connection.execute(text("SELECT count(*) FROM leaders"))).scalar_one() == 0
    finally:
        await writer.dispose()
        await other.dispose()


async def _write(engine: AsyncEngine, *statements: str) -> None:
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))
