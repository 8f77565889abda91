"""The log on SQLite, for one machine without servers. WAL, every commit synced, one writer connection.

Writes take turns on the writer under a lock: the committer's batches, and between two of them beats and leases.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiosqlite
from sqlalchemy import ColumnElement, bindparam, event, func, insert, literal, literal_column, or_, select, update
from sqlalchemy import Integer as SqlInteger
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from events import tables as t
from events.errors import Contended, LogUnavailable, PhaselineError
from events.job import Job
from events.log import FEED_BYTES_MAX, Artifact, FeedPage, JobRow, Transaction
from events.log_seals import SqlSealLog, to_envelope
from events.log_sql import (
    RECORDED,
    SqlTransaction,
    event_columns,
    job_columns,
    to_job,
    to_job_row,
    to_recorded,
)
from events.record import Recorded
from events.seal import Envelope

BUSY_MS = 5000  # another process (a backup, `db check`) may hold the file this long
READERS = 4


class SqliteLog(SqlSealLog):
    """`path` is the database file; its folder must exist. See `events/log.py` for the promises."""

    name = "sqlite"

    def __init__(self, path: Path) -> None:
        self._path = path
        self.epoch = ""
        self._turn = asyncio.Lock()
        self._reader = sqlite_engine(path, pool_size=READERS, begin="BEGIN")
        self._writer = sqlite_engine(path, begin="BEGIN IMMEDIATE", poolclass=StaticPool)

    async def open(self) -> None:
        if not self._path.exists():
            raise LogUnavailable(f"there is no database at {self._path}; run `phaseline db migrate`")
        await self._load_epoch()

    async def close(self) -> None:
        # Undisposed engines keep aiosqlite's threads, and with them the process, alive.
        await self._reader.dispose()
        await self._writer.dispose()

    @contextlib.asynccontextmanager
    async def transaction(self, *, patient: bool = True) -> AsyncIterator[Transaction]:
        del patient  # one writer: nobody else holds a row
        async with self._writing(60.0) as connection:
            yield SqliteTransaction(connection)

    @contextlib.asynccontextmanager
    async def _writing(self, deadline_s: float) -> AsyncIterator[AsyncConnection]:
        del deadline_s  # one local file: SQLite's own busy timeout is the bound
        async with self._turn:
            try:
                async with self._writer.begin() as connection:
                    yield connection
            except PhaselineError:
                raise
            except self.failures as error:
                raise self._told(error) from error

    def _translate(self, error: BaseException) -> PhaselineError:
        if "jobs.unique_key" in str(error):  # two jobs of one batch: one by one, the second finds the first
            return Contended()
        return super()._translate(error)

    def _now_sql(self) -> ColumnElement[int]:
        return literal(time.time_ns() // 1_000_000, SqlInteger())

    def _insert_or_ignore(self, table: Any) -> Any:
        return sqlite_insert(table).on_conflict_do_nothing()

    async def _events_estimate(self) -> int:
        rows = await self._rows(select(func.coalesce(func.max(t.events.c.pos), 0)))
        return int(rows[0][0])

    async def feed(
        self, cursor: str, limit: int, tenant: str | None = None, *, bytes_max: int = FEED_BYTES_MAX
    ) -> FeedPage:
        # One writer: the order of `pos` is the order of commits.
        epoch, after = await self._behind(cursor)
        e = t.events.c
        keys = select(e.pos, e.size).where(e.pos > after).order_by(e.pos).limit(limit)
        page = (keys if tenant is None else keys.where(e.tenant == tenant)).subquery()
        total = func.sum(page.c.size).over(order_by=page.c.pos).label("total")
        sized = select(page.c.pos, total, func.row_number().over(order_by=page.c.pos).label("nth")).subquery()
        fits = or_(sized.c.total <= bytes_max, sized.c.nth == 1)
        columns = (e.pos, e.epoch, *RECORDED)
        rows = await self._rows(select(*columns).join(sized, sized.c.pos == e.pos).where(fits).order_by(e.pos))
        cursors = [f"{row.epoch}:{row.pos}" for row in rows]
        return FeedPage([to_recorded(row[2:]) for row in rows], cursors, cursors[-1] if cursors else f"{epoch}:{after}")

    async def _behind(self, cursor: str) -> tuple[int, int]:
        epoch, after = map(int, cursor.split(":")) if cursor else (0, 0)
        e = t.events.c
        if after and epoch < int(self.epoch.partition("-")[0]):
            # Restored since: positions after the restore may be used again, those of earlier epochs end before it.
            last = await self._rows(select(e.pos).where(e.epoch <= epoch).order_by(e.pos.desc()).limit(1))
            after = min(after, last[0].pos if last else 0)
        return epoch, after

    async def sealable(self, cursor: str, limit: int) -> tuple[list[Envelope], str]:
        _, after = await self._behind(cursor)
        e = t.events.c
        rows = await self._rows(select(*self._envelope()).where(e.pos > after).order_by(e.pos).limit(limit))
        found = [to_envelope(row) for row in rows]
        return found, found[-1].place if found else cursor

    def _place_sql(self) -> ColumnElement[str]:
        return literal_column("events.epoch || ':' || events.pos")

    async def feed_end(self) -> str:
        rows = await self._rows(select(func.coalesce(func.max(t.events.c.pos), 0)))
        return f"{self.epoch.partition('-')[0]}:{rows[0][0]}"


class SqliteTransaction(SqlTransaction):
    """One `BEGIN IMMEDIATE` transaction: it holds the only write lock, so nothing else needs locking."""

    async def lock(self, job_ids: Sequence[str]) -> dict[str, Job]:
        columns = [t.jobs.c[name] for name in t.LIFECYCLE]
        rows = await self._connection.execute(select(*columns).where(t.jobs.c.id.in_(list(job_ids))))
        return {job.id: job for job in map(to_job, rows)}

    async def now(self) -> int:
        return time.time_ns() // 1_000_000

    async def insert_jobs(self, rows: Sequence[JobRow]) -> dict[str, JobRow]:
        made = sqlite_insert(t.jobs).on_conflict_do_nothing().returning(t.jobs.c.id)
        inserted = await self._connection.execute(made, [job_columns(row) for row in rows])
        return await self._winners(rows, {str(row.id) for row in inserted})

    async def append(self, events: Sequence[Recorded]) -> str:
        [log] = await self._connection.execute(select(t.log.c.epoch, t.log.c.lineage))
        rows = [{**event_columns(recorded), "epoch": log.epoch} for recorded in events]
        await self._connection.execute(insert(t.events), rows)
        return f"{log.epoch}-{log.lineage}"

    async def save(self, jobs: Sequence[Job]) -> None:
        statement = update(t.jobs).where(t.jobs.c.id == bindparam("this_id")).values(_CHANGING)
        rows = [{"this_id": job.id, **{f"new_{name}": getattr(job, name) for name in t.CHANGING}} for job in jobs]
        await self._connection.execute(statement, rows)

    async def put_artifacts(self, artifacts: Sequence[Artifact]) -> None:
        rows = [{"job_id": a.job_id, "sha256": a.sha256, "body": a.body} for a in artifacts]
        await self._connection.execute(sqlite_insert(t.artifacts).on_conflict_do_nothing(), rows)

    async def due(self, wanted: Mapping[tuple[str, int], int], now: int, *, careful: bool) -> list[JobRow]:
        found: list[JobRow] = []
        for (engine, version), limit in wanted.items():
            rows = await self._connection.execute(self._due(engine, version, limit, now, careful=careful))
            found += map(to_job_row, rows)
        return found


_CHANGING: dict[str, Any] = {name: bindparam(f"new_{name}") for name in t.CHANGING}


def sqlite_engine(path: Path, *, begin: str, **options: Any) -> AsyncEngine:
    """An engine whose transactions begin with `begin`; DDL takes part in them."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", **options)

    @event.listens_for(engine.sync_engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        # The driver's own implicit BEGIN is deferred: two writers would then fail at once instead of waiting.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_MS}", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "invalidate")
    def _invalidated(connection: Any, _record: Any, _error: Any) -> None:
        connection.run_async(_let_go)

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine


async def _let_go(connection: aiosqlite.Connection) -> None:
    """Ends what a connection does that is about to be dropped: its statement now, its transaction with it.

    Closing alone lets go of nothing while a cursor of the cancelled statement is left: SQLite keeps the connection, and with
    it the write lock, until the garbage collector finds the cursor (https://sqlite.org/c3ref/close.html).
    """
    # A second cancellation may come here; the first one is being told already.
    with contextlib.suppress(sqlite3.Error, ValueError, asyncio.CancelledError):
        await connection.interrupt()
        await asyncio.shield(connection.rollback())
