"""The database's own commands: migrate, check, rebuild. Each opens what it needs and closes it again."""

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from sqlalchemy import Connection, case, select, text, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from events import crash_points, tables
from events.acts import By, act_id, recorded_act
from events.archive import Archive
from events.batch import job_row
from events.catalog import Submitted
from events.clock import Clock
from events.errors import LogUnavailable, PhaselineError, UnknownJob
from events.holds import HoldAct
from events.job import fold
from events.keys import DEFAULT_TENANT, ApiKey, Scope, draw
from events.log import JobRow, Log, differing
from events.log_archived import WithArchive
from events.log_postgres import PostgresLog
from events.postgres_line import DRIVER_FAILURES, asyncpg_url, unreachable
from events.postgres_sql import BEGIN_EPOCH
from events.record import Recorded
from events.schedules import Schedule
from events.webhooks import Endpoint, new_secret
from phaseline import archives
from phaseline.records import tell
from phaseline.settings import Settings

if TYPE_CHECKING:
    from events.log_sqlite import SqliteLog

EPOCH_WAIT_S = 10  # a restore's command waits this long for the transactions under way
SQLITE_FILE = "phaseline.db"
DAY_MS = 24 * 3600 * 1000
T = TypeVar("T")
OpenLog: TypeAlias = "PostgresLog | SqliteLog"


def sqlite_path(settings: Settings) -> Path:
    """Where the embedded database lies; its folder is made."""
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise PhaselineError(
            f"cannot make the data directory {settings.data_dir} ({failure.strerror}); choose another --data-dir"
        ) from failure
    return settings.data_dir.resolve() / SQLITE_FILE


def make_log(settings: Settings) -> OpenLog:
    """The log these settings name, not yet open. Raises `Misconfigured`."""
    store = archives.make_store(settings)
    log: OpenLog
    if settings.database_url:
        log = PostgresLog(settings.database_url) if store is None else _Postgres(settings.database_url)
    else:
        from phaseline import embedded

        path = sqlite_path(settings)
        log = embedded.SqliteLog(path) if store is None else embedded.ArchivedSqliteLog(path)
    if store is not None and isinstance(log, WithArchive):
        log.archive = Archive(store)
    log.running_jobs_max = settings.running_jobs_max
    return log


class _Postgres(WithArchive, PostgresLog):
    pass


async def migrate(settings: Settings, revision: str = "head") -> None:
    """Brings the schema to `revision`, alone. Raises `LogUnavailable`, `OSError` when the database is away."""
    import migrations  # alembic is 9 MiB of a process that only serves

    await on_connection(settings, lambda connection: migrations.upgrade(connection, revision))


async def downgrade(settings: Settings, revision: str) -> None:
    """Takes the schema back; data is lost. For tests."""
    import migrations

    await on_connection(settings, lambda connection: migrations.downgrade(connection, revision))


async def on_connection(settings: Settings, work: Callable[[Connection], T]) -> T:
    """Does `work` on a connection of its own, which on SQLite holds the write lock. Raises `LogUnavailable`, `OSError`."""
    if settings.database_url:
        engine = create_async_engine(asyncpg_url(settings.database_url), poolclass=NullPool)
    else:
        from phaseline.embedded import sqlite_engine

        engine = sqlite_engine(sqlite_path(settings), begin="BEGIN IMMEDIATE", poolclass=NullPool)
    try:
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(engine.connect())
            except (SQLAlchemyError, *DRIVER_FAILURES) as away:
                raise unreachable(away) from away
            return await connection.run_sync(work)
    finally:
        await engine.dispose()


async def begin_epoch(settings: Settings, by: By | None = None) -> str:
    """Begins another lineage of the log and returns its epoch. Waits for appends under way; none is of both. The audit of each
    tenant tells that `by` did it, in the same transaction.

    Raises `WrongRevision`, `LogUnavailable`."""
    log = make_log(settings)
    try:
        await log.open()
        _, at = await log.act_place()
        await on_connection(settings, partial(_raise_epoch, by, at))
        await log.open()
    except DBAPIError as failure:
        raise LogUnavailable(f"the epoch could not be raised, try again: {failure.orig}") from failure
    else:
        return log.epoch
    finally:
        await log.close()


def _raise_epoch(by: By | None, at: int, connection: Connection) -> None:
    # Above any epoch of a younger log this one replaces, so that cursors into that one go on here.
    minute = Clock().now_ms() // 60_000
    higher = case((tables.log.c.epoch < minute, minute), else_=tables.log.c.epoch + 1)
    with connection.begin():
        tenants = _tenants(connection) if by else ()  # before anybody has to wait
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SET LOCAL lock_timeout = '{EPOCH_WAIT_S}s'"))
            connection.execute(text(BEGIN_EPOCH))
        began = update(tables.log).values(epoch=higher, lineage=secrets.token_hex(4))
        epoch, lineage = connection.execute(began.returning(tables.log.c.epoch, tables.log.c.lineage)).one()
        told = (
            [(tenant, by.did("log_restored", tenant, epoch=f"{epoch}-{lineage}")) for tenant in tenants] if by else []
        )
        for tenant, deed in told:
            tell(connection, recorded_act(act_id(at), at, tenant, deed))
        crash_points.reached("epoch.before_commit")
    crash_points.reached("epoch.committed")


def _tenants(connection: Connection) -> list[str]:
    """Everybody with a job, a key or an act, and the one there always is."""
    named = (select(table.c.tenant) for table in (tables.api_keys, tables.acts, tables.archived))
    return sorted({DEFAULT_TENANT, *connection.scalars(select(tables.jobs.c.tenant).union(*named))})


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[OpenLog]:
    """The log, open for the block."""
    log = make_log(settings)
    await log.open()
    try:
        yield log
    finally:
        await log.close()


async def create_key(
    settings: Settings, tenant: str, name: str, scopes: Sequence[Scope], days: float | None, by: By
) -> tuple[ApiKey, str]:
    """Makes an API key that is good for so many days, or for ever. Its text is nowhere else."""
    async with opened(settings) as log:
        now_ms = await log.now()
        expires_at = None if days is None else now_ms + int(days * DAY_MS)
        key, text = draw(tenant, name, scopes, now_ms=now_ms, expires_at=expires_at)
        await log.add_key(key, by)
        return key, text


async def list_keys(settings: Settings, tenant: str | None) -> list[ApiKey]:
    """Every key, of one tenant when given."""
    async with opened(settings) as log:
        return await log.keys(tenant)


async def revoke_key(settings: Settings, key_id: str, by: By) -> list[Schedule] | None:
    """Makes a key good for nothing; None when there is none of this id. Returns the schedules it made that go on: they are
    the tenant's."""
    async with opened(settings) as log:
        if not await log.revoke_key(key_id, by):
            return None
        key = (await log.find_keys([key_id]))[key_id]
        return [it for it in await log.schedules(key.tenant) if it.created_by == f"key:{key_id}" and not it.paused]


async def hold(settings: Settings, job_id: str, *, held: bool, actor: str, reason: str) -> None:
    """Holds a job, or lets it go. Raises `UnknownJob`."""
    async with opened(settings) as log:
        row = await log.job(job_id)
        if row is None:
            raise UnknownJob
        await log.hold(HoldAct(job_id, row.job.tenant, held, 0, actor, None, reason))


async def set_webhooks(settings: Settings, tenant: str, url: str | None, by: By) -> Endpoint:
    """Gives a tenant webhooks, or changes where they go; its secret stays."""
    async with opened(settings) as log:
        now_ms = await log.now()
        known = await log.endpoint(tenant) or Endpoint(tenant, new_secret(), None, None, url, now_ms)
        changed = replace(known, url=url, changed_at=now_ms)
        await log.keep_endpoint(changed, by)
        return changed


async def rotate_webhooks(settings: Settings, tenant: str, by: By) -> Endpoint | None:
    """A new secret; the old one signs beside it for a day. None when the tenant has no webhooks."""
    async with opened(settings) as log:
        known = await log.endpoint(tenant)
        if known is None:
            return None
        changed = known.rotated(await log.now())
        await log.keep_endpoint(changed, by, rotated=True)
        return changed


async def list_webhooks(settings: Settings) -> list[Endpoint]:
    """Every tenant that has webhooks."""
    async with opened(settings) as log:
        return await log.endpoints()


async def remove_webhooks(settings: Settings, tenant: str, by: By) -> bool:
    """Ends a tenant's webhooks; False when it has none."""
    async with opened(settings) as log:
        return await log.drop_endpoint(tenant, by)


async def check(settings: Settings) -> list[str]:
    """Every difference between a job's row and the fold of its events, one sentence each; none is good."""
    async with opened(settings) as log:
        return [problem async for row in log.all_jobs() for problem in await differences(log, row.job.id)]


async def rebuild(settings: Settings) -> int:
    """Rewrites every row that differs from its events, each under its lock; returns how many did."""
    log = make_log(settings)
    await log.open()
    rewritten = 0
    try:
        async for row in log.all_jobs():
            if await differences(log, row.job.id):
                await rewrite(log, row.job.id)
                rewritten += 1
    finally:
        await log.close()
    return rewritten


async def rewrite(log: Log, job_id: str) -> None:
    """Makes a job's row what its events say, under its lock."""
    # Before the transaction: a long stream takes longer than a transaction may stand still.
    right = row_after(await whole_stream(log, job_id))
    async with log.transaction() as tx:
        await tx.lock([job_id])  # nothing is appended while the rest is read
        job = right.job
        while page := await log.read(job_id, job.last_seq):
            job = fold(page, job)
        await tx.append([], [job])
    await log.rebuild(right)


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
    return [f"job {job_id}: column {name} differs from the events" for name in differing(row, right)]


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
