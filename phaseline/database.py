"""The database's own commands: migrate, check, rebuild. Each opens what it needs and closes it again."""

from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import migrations
from events.batch import job_row
from events.catalog import Submitted
from events.errors import PhaselineError
from events.job import fold
from events.log import JobRow, Log
from events.log_postgres import PostgresLog, asyncpg_url
from events.log_sql import same_row
from events.log_sqlite import SqliteLog, sqlite_engine
from events.record import Recorded
from phaseline.settings import Settings

SQLITE_FILE = "phaseline.db"


def sqlite_path(settings: Settings) -> Path:
    """Where the embedded database lies; its folder is made."""
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise PhaselineError(
            f"cannot make the data directory {settings.data_dir} ({failure.strerror}); choose another --data-dir"
        ) from failure
    return settings.data_dir.resolve() / SQLITE_FILE


def make_log(settings: Settings) -> PostgresLog | SqliteLog:
    """The log these settings name, not yet open."""
    if settings.database_url:
        return PostgresLog(settings.database_url)
    return SqliteLog(sqlite_path(settings))


async def migrate(settings: Settings, revision: str = "head") -> None:
    """Brings the schema to `revision`, alone. Raises the driver's error when the database is away."""
    await _on_connection(settings, lambda connection: migrations.upgrade(connection, revision))


async def downgrade(settings: Settings, revision: str) -> None:
    """Takes the schema back; data is lost. For tests."""
    await _on_connection(settings, lambda connection: migrations.downgrade(connection, revision))


async def _on_connection(settings: Settings, work: Callable[[Connection], None]) -> None:
    if settings.database_url:
        engine = create_async_engine(asyncpg_url(settings.database_url), poolclass=NullPool)
    else:
        engine = sqlite_engine(sqlite_path(settings), begin="BEGIN IMMEDIATE", poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(work)
    finally:
        await engine.dispose()


async def check(settings: Settings) -> list[str]:
    """Every difference between a job's row and the fold of its events, one sentence each; none is good."""
    log = make_log(settings)
    await log.open()
    try:
        return [problem async for row in log.all_jobs() for problem in await differences(log, row.job.id)]
    finally:
        await log.close()


async def rebuild(settings: Settings) -> int:
    """Rewrites every row that differs from its events, each under its lock; returns how many did."""
    log = make_log(settings)
    await log.open()
    rewritten = 0
    try:
        async for row in log.all_jobs():
            if await differences(log, row.job.id):
                async with log.transaction() as tx:
                    await tx.lock([row.job.id])  # nothing is appended while its events are read
                    right = row_after(await whole_stream(log, row.job.id))
                    await tx.save([right.job])
                await log.rebuild(right)
                rewritten += 1
    finally:
        await log.close()
    return rewritten


async def differences(log: Log, job_id: str) -> list[str]:
    """How one job's row differs from the fold of its events. The job may be running: the events are read first, so a
    consistent row is at their end or beyond it."""
    events = await whole_stream(log, job_id)
    row = await log.job(job_id)
    if row is None:
        return []  # removed meanwhile
    through = max(len(events), row.job.last_seq)
    while len(events) < through and (page := await log.read(job_id, len(events))):
        events += page
    try:
        right = row_after(events[:through])
    except ValueError as broken:
        return [f"job {job_id}: {broken}"]
    return [f"job {job_id}: column {name} differs from the events" for name in same_row(row, right)]


def row_after(events: Sequence[Recorded]) -> JobRow:
    """The row a job must have after these events. Raises `ValueError` when they are no stream."""
    job = fold(events)
    submitted = events[0].event() if events else None
    if job is None or not isinstance(submitted, Submitted):
        raise ValueError("has no events")
    return job_row(job, submitted)


async def whole_stream(log: Log, job_id: str) -> list[Recorded]:
    """Every event of a job, page by page."""
    events: list[Recorded] = []
    while page := await log.read(job_id, events[-1].seq if events else 0):
        events += page
    return events
