"""The log on SQLite, for one machine without servers. WAL, every commit synced, one writer connection.

Writes take turns on the writer under a lock: the committer's batches, and between two of them beats and leases.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path
from typing import Any

import aiosqlite
from sqlalchemy import (
    ColumnElement,
    LargeBinary,
    and_,
    cast,
    delete,
    event,
    exists,
    func,
    insert,
    literal,
    literal_column,
    not_,
    or_,
    select,
)
from sqlalchemy import Integer as SqlInteger
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from events import crash_points
from events import tables as t
from events.catalog import ACT
from events.errors import Contended, LogUnavailable, PhaselineError, Unstorable
from events.log import FEED_BYTES_MAX, FeedPage, Transaction
from events.log_seals import SqlSealLog, to_envelope
from events.retention import STATUSES, Archived
from events.retention_sql import TAKE_OUT_S, kept
from events.rows_sql import RECORDED, first_line, to_recorded
from events.seal import Envelope
from events.sqlite_line import PRAGMAS, SqliteLine

READERS = 4
DROPPED_AT_ONCE = 2000  # events of archived jobs in one transaction


class SqliteLog(SqlSealLog):
    """`path` is the database file; its folder must exist. See `events/log.py` for the promises."""

    name = "sqlite"
    failures = (*SqlSealLog.failures, sqlite3.Error)

    def __init__(self, path: Path) -> None:
        self._path = path
        self.epoch = ""
        self._turn = asyncio.Lock()
        self._reader = sqlite_engine(path, pool_size=READERS, begin="BEGIN")
        self._writer = sqlite_engine(path, begin="BEGIN IMMEDIATE", poolclass=StaticPool)
        self._line = SqliteLine(path)

    async def open(self) -> None:
        if not self._path.exists():
            raise LogUnavailable(f"there is no database at {self._path}; run `phaseline db migrate`")
        await self._load_epoch()

    async def close(self) -> None:
        await self._line.close()
        # Undisposed engines keep aiosqlite's threads, and with them the process, alive.
        await self._reader.dispose()
        await self._writer.dispose()

    @contextlib.asynccontextmanager
    async def transaction(self, *, patient: bool = True) -> AsyncIterator[Transaction]:
        del patient  # one writer: nobody else holds a row
        async with self._turn:
            try:
                async with self._line.transaction(self.running_jobs_max) as tx:
                    yield tx
            except PhaselineError:
                raise
            except self.failures as error:
                raise self._told(error) from error

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
        """Of the committer's line; what comes through SQLAlchemy is told apart as everywhere."""
        if "jobs.unique_key" in str(error):  # two jobs of one batch: one by one, the second finds the first
            return Contended()
        if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.OperationalError):
            return Unstorable(f"the database refused this content: {first_line(error)}")
        return super()._translate(error)

    def _now_sql(self) -> ColumnElement[int]:
        return literal(time.time_ns() // 1_000_000, SqlInteger())

    def _octets(self, text: ColumnElement[str]) -> ColumnElement[int]:
        return func.length(cast(text, LargeBinary), type_=SqlInteger)

    def _insert_or_ignore(self, table: Any) -> Any:
        return sqlite_insert(table).on_conflict_do_nothing()

    async def _events_estimate(self) -> int:
        rows = await self._rows(select(func.coalesce(func.max(t.events.c.pos), 0)))
        return int(rows[0][0])

    async def feed(
        self,
        cursor: str,
        limit: int,
        tenant: str | None = None,
        *,
        acts: bool = False,
        bytes_max: int = FEED_BYTES_MAX,
    ) -> FeedPage:
        # One writer: the order of `pos` is the order of commits.
        epoch, after = await self._behind(cursor)
        e = t.events.c
        keys = select(e.pos, e.size).where(e.pos > after).order_by(e.pos).limit(limit)
        if tenant is not None:
            keys = keys.where(e.tenant == tenant) if acts else keys.where(e.tenant == tenant, e.type != ACT)
        page = keys.subquery()
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

    async def put_archived(self, went: Sequence[Archived], erased: Collection[str] = ()) -> set[str]:
        j, gone = t.jobs.c, set[str]()
        _, at = await self.act_place()
        async with self._writing(TAKE_OUT_S) as connection:
            for one in went:
                sealed = exists().where(t.sealed.c.job_id == j.id, t.sealed.c.last_seq >= one.last_seq)
                gone_before = exists().where(t.erasures.c.job_id == j.id)
                as_read = gone_before if one.job_id in erased else not_(gone_before)
                as_found = and_(j.id == one.job_id, j.last_seq == one.last_seq, j.status.in_(STATUSES), sealed, as_read)
                if (await connection.execute(delete(t.jobs).where(as_found, not_(kept())))).rowcount:
                    columns = {name: getattr(one, name) for name in Archived.__slots__} | {"at": self._now_sql()}
                    await connection.execute(insert(t.archived).values(**columns))
                    await connection.execute(delete(t.artifacts).where(t.artifacts.c.job_id == one.job_id))
                    gone.add(one.job_id)
            await self._tell(connection, at, [one for one in went if one.job_id in gone])
        if self.on_act is not None:
            self.on_act()
        return gone

    async def drop_archived(self) -> int:
        e = t.events.c
        left = select(t.archived.c.job_id).where(exists().where(e.job_id == t.archived.c.job_id))
        jobs = [row.job_id for row in await self._rows(left)]
        for job_id in jobs:
            # From the end, so that readers find a beginning and take the rest from the archive; a few at a time, so
            # that appends come between.
            last = select(e.pos).where(e.job_id == job_id).order_by(e.seq.desc()).limit(DROPPED_AT_ONCE)
            deleted = DROPPED_AT_ONCE
            while deleted == DROPPED_AT_ONCE:
                async with self._writing(TAKE_OUT_S) as connection:
                    deleted = (await connection.execute(delete(t.events).where(e.pos.in_(last)))).rowcount
                crash_points.reached("retention.part_dropped")
        return len(jobs)

    def _place_sql(self) -> ColumnElement[str]:
        return literal_column("events.epoch || ':' || events.pos")

    async def feed_end(self) -> str:
        rows = await self._rows(select(func.coalesce(func.max(t.events.c.pos), 0)))
        return f"{self.epoch.partition('-')[0]}:{rows[0][0]}"


def sqlite_engine(path: Path, *, begin: str, **options: Any) -> AsyncEngine:
    """An engine whose transactions begin with `begin`; DDL takes part in them."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", **options)

    @event.listens_for(engine.sync_engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        # The driver's own implicit BEGIN is deferred: two writers would then fail at once instead of waiting.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in PRAGMAS:
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
