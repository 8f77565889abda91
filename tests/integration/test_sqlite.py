"""What only SQLite does: one writer, whose lock is the whole file's."""

import asyncio
import gc
import sqlite3
import tracemalloc
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from events.log import Artifact
from events.log_sqlite import sqlite_engine
from events.sqlite_line import BUSY_MS, SqliteLine
from phaseline import database
from tests.builders import committing
from tests.stores import open_log, sqlite_settings

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


@pytest.fixture
async def line(tmp_path):
    settings = sqlite_settings(tmp_path)
    line = SqliteLine(database.sqlite_path(settings))
    yield line
    await line.close()
    await line.close()  # whoever cleans up need not know whether it was


def _elsewhere(path: Path) -> sqlite3.Connection:
    """Another process's connection, which waits for nobody."""
    return sqlite3.connect(path, isolation_level=None, timeout=0)


async def test_a_batch_that_waits_for_another_process_is_given_up_at_once_and_the_next_one_goes_on(tmp_path, line):
    other = _elsewhere(database.sqlite_path(sqlite_settings(tmp_path)))
    other.execute("BEGIN IMMEDIATE")
    began = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2), line.transaction():
            raise AssertionError("two write at once")
    assert asyncio.get_running_loop().time() - began < BUSY_MS / 1000
    other.execute("ROLLBACK")
    async with line.transaction() as tx:
        assert await tx.live_workers(["nobody"], 0) == set()
    other.execute("BEGIN IMMEDIATE")  # nothing of ours holds the file any more
    other.close()


@pytest.mark.parametrize("begun_before", [False, True])
async def test_a_batch_given_up_in_its_midst_leaves_nothing_and_no_lock(tmp_path, line, begun_before):
    if begun_before:  # a connection that is kept is let go of as one that was made for it
        async with line.transaction() as tx:
            await tx.now()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(_never_ended(line), 0.2)
    async with line.transaction() as tx:  # behind what the thread still had to do
        await tx.now()
    other = _elsewhere(database.sqlite_path(sqlite_settings(tmp_path)))
    other.execute("BEGIN IMMEDIATE")
    assert other.execute("SELECT count(*) FROM artifacts").fetchone() == (0,)
    other.close()


async def _never_ended(line: SqliteLine) -> None:
    async with line.transaction() as tx:
        await tx.put_artifacts([Artifact("0", "0", b"body")])
        await asyncio.Event().wait()


async def test_a_batch_that_fails_leaves_nothing_and_the_connection_is_kept(line):
    async with line.transaction() as tx:
        kept = tx._connection
    with pytest.raises(sqlite3.IntegrityError):
        async with line.transaction() as tx:
            await tx.put_artifacts([Artifact("0", "0", b"body"), Artifact("1", None, b"")])  # type: ignore[arg-type]
    async with line.transaction() as tx:
        assert tx._connection is kept
        assert tx._connection.execute("SELECT count(*) FROM artifacts").fetchone() == (0,)


async def test_a_claim_within_limits_reads_the_params_of_what_it_takes_only(tmp_path):
    """Of a long queue whose params are large, memory holds one job's."""
    size, count = 250_000, 40
    async with open_log(sqlite_settings(tmp_path)) as log, committing(log) as running:
        key = {"key": "k", "limit": 1}
        first, *_ = [await running.submit(params={"x": "y" * size}, concurrency=key) for _ in range(count)]
        gc.collect()
        tracemalloc.start()
        try:
            [claimed] = await running.claim(slots=9)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert claimed.job.id == first
    assert peak < size * count / 2
