"""The log on PostgreSQL 15 to 18.

The committer's single connection, a pool for beats and leader leases (which must not queue behind a batch), one for reads,
and one for reads on behalf of a tenant, whose connections row level security shows that tenant's rows alone. Hot statements carry arrays (`unnest`), one statement however many rows; the committer's go to asyncpg as they
are, since its transactions are short and many and SQLAlchemy's share of them was larger than the database's.
"""

import asyncio
import contextlib
import logging
import re
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any

import asyncpg
from sqlalchemy import ColumnElement, func, literal_column, select
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from events import crash_points
from events import postgres_sql as sql
from events import tables as t
from events.errors import Contended, LogUnavailable, PhaselineError, Unstorable
from events.fleet_sql import BEAT_S, to_held, waiting_for_room
from events.job import Job
from events.log import (
    FEED_BYTES_MAX,
    PAGE_BYTES_MAX,
    PAGE_EVENTS_MAX,
    ROOM_AFTER_LEASES,
    BeatReply,
    FeedPage,
    Head,
    Look,
    WorkerRow,
    makes_room,
)
from events.log_seals import SqlSealLog, to_envelope
from events.postgres_line import (
    CLOSE_S,
    CONNECT_ARGUMENTS,
    CONNECT_S,
    CONTENDED,
    CONTENT,
    DRIVER_FAILURES,
    SERVER_SETTINGS,
    PostgresLine,
    PostgresTransaction,
    asyncpg_url,
    unreachable,
)
from events.postgres_unlocked import PostgresUnlocked
from events.record import Line, line_of
from events.retention import Archived
from events.retention_sql import TAKE_OUT_S
from events.rows_sql import NO_LIMIT, first_line, to_recorded
from events.seal import Envelope, Range
from events.values import encode

READERS = 6
TENANT_READERS = 4
BEATERS = 2
WEEK_MS = 7 * 24 * 3600 * 1000  # one partition of `events`; a job's UUIDv7 begins with its time
WEEKS_AHEAD = 4
TENANT = "phaseline.tenant"  # the setting the policies of migration 0012 read; unset, every tenant is seen
_log = logging.getLogger(__name__)


class PostgresLog(SqlSealLog):
    """`url` is `postgresql://user:password@host:port/database`. See `events/log.py` for the promises."""

    name = "postgresql"
    unlocks = True
    failures = (*SqlSealLog.failures, *DRIVER_FAILURES)

    def __init__(self, url: str) -> None:
        self.epoch = ""
        self._weeks: frozenset[int] = frozenset()
        self._line = PostgresLine(url)
        self._writer = _engine(url, BEATERS)
        # Each read is one statement: a transaction around it would make it three.
        self._reader = _engine(url, READERS).execution_options(isolation_level="AUTOCOMMIT")
        # Nothing is seen on these until a tenant is named (`_reading`).
        self._tenants = _engine(url, TENANT_READERS, {TENANT: ""}).execution_options(isolation_level="AUTOCOMMIT")
        self.alone_until = float(
            "-inf"
        )  # monotonic: so long claims do not ask again whether there is anybody to share with
        self._led: set[str] = set()  # leader leases whose rows exist
        overdue = self._overdue().compile(dialect=PGDialect_asyncpg(), compile_kwargs={"literal_binds": True})  # type: ignore[no-untyped-call]
        self._look = sql.LOOK.format(overdue=overdue)

    async def open(self) -> None:
        await self._load_epoch()
        await self._load_weeks()

    async def close(self) -> None:
        await self._line.close()
        for engine in (self._writer, self._reader, self._tenants):
            # A frozen server answers no goodbye; the sockets close with the process.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await engine.dispose()

    @contextlib.asynccontextmanager
    async def transaction(self, *, patient: bool = True) -> "AsyncIterator[PostgresTransaction]":
        try:
            async with self._line.transaction() as connection:
                if not patient:
                    await connection.execute("SET LOCAL lock_timeout = '50ms'")
                yield PostgresTransaction(connection, self)
        except self.failures as error:
            raise self._told(error) from error

    @contextlib.asynccontextmanager
    async def unlocked(self, known: Mapping[str, Job], clock: Callable[[], int]) -> "AsyncIterator[PostgresUnlocked]":
        try:
            async with self._line.statements() as connection:
                batch = PostgresUnlocked(connection, self, known, clock)
                yield batch
                await batch.write()
        except self.failures as error:
            raise self._told(error) from error

    @contextlib.asynccontextmanager
    async def _reading(self, tenant: str | None) -> AsyncIterator[AsyncConnection]:
        if tenant is None:
            async with self._reader.connect() as connection:
                yield connection
            return
        async with self._tenants.connect() as connection:
            if connection.info.get(TENANT) != tenant:  # kept with the connection: one statement each time it changes
                connection.info.pop(TENANT, None)
                await connection.exec_driver_sql("SELECT set_config($1, $2, false)", (TENANT, tenant))
                connection.info[TENANT] = tenant
            yield connection

    @contextlib.asynccontextmanager
    async def _writing(self, deadline_s: float) -> AsyncIterator[AsyncConnection]:
        try:
            async with asyncio.timeout(deadline_s), self._writer.begin() as connection:
                yield connection
        except self.failures as error:  # a missed deadline is an OSError too
            raise self._told(error) from error

    @contextlib.asynccontextmanager
    async def _writing_alone(self, deadline_s: float) -> AsyncIterator[AsyncConnection]:
        """As `_writing`, for statements that are a transaction each."""
        alone = self._writer.execution_options(isolation_level="AUTOCOMMIT")
        try:
            async with asyncio.timeout(deadline_s), alone.connect() as connection:
                yield connection
        except self.failures as error:
            raise self._told(error) from error

    def _translate(self, error: BaseException) -> PhaselineError:
        if isinstance(error, asyncpg.DataError):  # refused by the driver, before the database saw it
            return Unstorable(f"the database refused this content: {first_line(error)}")
        state = getattr(getattr(error, "orig", error), "sqlstate", None)
        if state in CONTENDED:
            return Contended()
        if state is not None:
            text = str(getattr(error, "orig", error)).partition("\n")[0]
            if state == "42P01":  # undefined table
                return self._no_table()
            if "no partition" in text:
                return Contended(text)  # one is made, or its job is refused: others need not wait
            if t.UNFINISHED in text:
                return Contended(text)  # somebody was quicker: judged again, it has a holder
            if '"pk_jobs"' in text:
                return Contended(text)  # our own, of a commit without an answer that came through after all
            if state.startswith(CONTENT):
                return Unstorable(f"the database refused this content: {text}")
            return LogUnavailable(f"the database does not answer: {text}")
        # The driver's own words, such as for a server that says goodbye while we connect: nothing about the content.
        if isinstance(error, DBAPIError):
            return unreachable(error)
        return super()._translate(error)

    def _now_sql(self) -> ColumnElement[int]:
        return literal_column(sql.NOW)

    def _insert_or_ignore(self, table: Any) -> Any:
        return postgres_insert(table).on_conflict_do_nothing()

    async def _events_estimate(self) -> int:
        counted = "SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'events'::regclass"
        return int((await self._raw(counted))[0][0])

    async def _raw(self, sql: str, *parameters: Any) -> Sequence[Any]:
        async def work(connection: AsyncConnection) -> Sequence[Any]:
            return (await connection.exec_driver_sql(sql, parameters)).all()

        rows: Sequence[Any] = await self._read(work)
        return rows

    async def lines(self, job_id: str, after: int) -> list[Line]:
        rows = await self._fetch(sql.LINES, job_id, after, after + PAGE_EVENTS_MAX, PAGE_BYTES_MAX)
        return [(row[0], row[1], line_of(job_id, *row)) for row in rows]

    async def _fetch(self, sql: str, *parameters: Any, tenant: str | None = None) -> Sequence[Any]:
        """A read past SQLAlchemy, whose share of a page of events is larger than the driver's."""

        async def work(connection: AsyncConnection) -> Sequence[Any]:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            try:
                rows: Sequence[Any] = await driver.fetch(sql, *parameters)
            except BaseException:  # the pool has not seen it: a connection that broke is not used again
                await connection.invalidate()
                raise
            return rows

        rows: Sequence[Any] = await self._read(work, tenant)
        return rows

    async def feed(
        self,
        cursor: str,
        limit: int,
        tenant: str | None = None,
        *,
        acts: bool = False,
        bytes_max: int = FEED_BYTES_MAX,
    ) -> FeedPage:
        """Ordered by (epoch, xid, pos) below the oldest running transaction: a plain identity would skip events of a
        transaction that commits late. The text of `xid` has a name of its own: ordered by it, 999 came after 1000.
        Nothing is appended to an earlier epoch any more, and its transaction ids may be another server's: all of it
        counts."""
        asked = () if tenant is None else (tenant, acts)
        rows, last = await self._behind(sql.FEED_OF_TENANT if asked else sql.FEED, cursor, limit, bytes_max, *asked)
        cursors = [f"{row[0]}:{row[1]}:{row[2]}" for row in rows]
        return FeedPage([to_recorded(row[3:-1]) for row in rows], cursors, last)

    async def sealable(self, cursor: str, limit: int) -> tuple[list[Envelope], str]:
        rows, last = await self._behind(sql.SEALABLE, cursor, limit, NO_LIMIT)
        return [to_envelope((*row[3:-1], f"{row[0]}:{row[1]}:{row[2]}")) for row in rows], last

    async def _behind(
        self, text: str, cursor: str, limit: int, bytes_max: int, tenant: str | None = None, acts: Any = None
    ) -> tuple[Sequence[Any], str]:
        """The rows of `_feed_of` behind a cursor, and the cursor behind them."""
        epoch, xid, pos = map(int, cursor.split(":")) if cursor else (0, 0, 0)
        asked: tuple[Any, ...] = (epoch, str(xid), pos, limit, bytes_max)
        if tenant is not None:
            asked = (*asked, tenant, acts)
        found = await self._fetch(text, *asked, tenant=tenant)
        if found[0]["pos"] is None and found[0]["over"]:
            later = (await self._raw("SELECT min(epoch) FROM events WHERE epoch > $1", epoch))[0][0]
            # What was still being written at the first look is there by now: a later epoch has begun.
            found = await self._fetch(text, *asked, tenant=tenant)
            if later and found[0]["pos"] is None:
                return await self._behind(text, f"{later}:0:-1", limit, bytes_max, tenant, acts)
        rows = [row for row in found if row["pos"] is not None]
        last = f"{rows[-1][0]}:{rows[-1][1]}:{rows[-1][2]}" if rows else f"{epoch}:{xid}:{pos}"
        return rows, last

    async def heads_sealed(self, job_ids: Sequence[str]) -> Mapping[str, tuple[int, bytes]]:
        return {row[0]: (row[1], row[2]) for row in await self._raw(sql.HEADS_SEALED, list(job_ids))}

    async def _put_ranges(self, connection: AsyncConnection, ranges: Sequence[Range]) -> None:
        columns = tuple([getattr(one, name) for one in ranges] for name in sql.SEALED_TYPES)
        await connection.exec_driver_sql(sql.PUT_RANGES, columns)

    def _place_sql(self) -> ColumnElement[str]:
        return literal_column("events.epoch || ':' || events.xid::text || ':' || events.pos")

    async def feed_end(self) -> str:
        rows = await self._raw("SELECT epoch, pg_snapshot_xmin(pg_current_snapshot())::text FROM log")
        return f"{rows[0][0]}:{rows[0][1]}:-1"

    async def heads(self, job_ids: Sequence[str]) -> dict[str, Head]:
        # One statement whatever their number: a list of values is another one for each, prepared anew.
        rows = await self._raw(sql.HEADS, list(job_ids)) if job_ids else ()
        self._saw(rows)
        return {row.id: Head(row.last_seq, row.status, row.tenant) for row in rows}

    async def beat(self, worker: WorkerRow, lease_s: float) -> BeatReply:
        said = (worker.id, worker.host, worker.pid, worker.build, worker.slots, encode(dict(worker.engines)).decode())
        lease_ms, room_ms = int(lease_s * 1000), int(ROOM_AFTER_LEASES * lease_s * 1000)
        async with self._writing_alone(BEAT_S) as connection:
            rows = (await connection.exec_driver_sql(sql.BEAT, (*said, worker.draining, lease_ms, room_ms))).all()
            now = rows[0].now
            room = False
            if rows[0].waiting:  # rare: a job took two workers down
                waiting = {(row.engine, row.engine_version) for row in await self._rows(waiting_for_room(now, lease_s))}
                room = makes_room(worker.id, waiting, await self.workers(), now)
        held = tuple(to_held(row) for row in rows if row.id is not None)
        return BeatReply(now, now + lease_ms, held, room)

    async def lead(self, name: str, holder: str, lease_s: float) -> bool:
        async with self._writing_alone(BEAT_S) as connection:
            taken = await connection.exec_driver_sql(sql.LEAD, (name, holder, int(lease_s * 1000)))
            if not taken.rowcount and name not in self._led:
                taken = await connection.exec_driver_sql(sql.FIRST_LEAD, (name, holder, int(lease_s * 1000)))
                self._led.add(name)
            return bool(taken.rowcount)

    async def look(self, holder: str, names: Sequence[str], lease_s: float, copied: str | None) -> Look:
        epoch, xid, pos = copied.split(":") if copied else (None, None, None)
        behind = (epoch and int(epoch), xid, pos and int(pos))
        async with self._writing_alone(BEAT_S) as connection:
            if not self._led.issuperset(names):
                await connection.exec_driver_sql(sql.FIRST_LOOK, (list(names), holder))
                self._led.update(names)
            asked = (holder, list(names), int(lease_s * 1000), *behind)
            row = (await connection.exec_driver_sql(self._look, asked)).one()
        return Look(row.now, tuple(row.leads or ()), row.overdue, row.due, row.behind, row.ticks)

    async def save_cursor(self, name: str, holder: str, cursor: str) -> bool:
        async with self._writing_alone(BEAT_S) as connection:
            saved = await connection.exec_driver_sql(
                "UPDATE leaders SET cursor = $3 WHERE name = $1 AND holder = $2", (name, holder, cursor)
            )
            return bool(saved.rowcount)

    # -- partitions

    async def accepts(self, job_id: str) -> bool:
        week = (uuid.UUID(job_id).int >> 80) // WEEK_MS
        if week not in self._weeks:
            await self._load_weeks()
        return week in self._weeks

    async def make_partitions(self) -> None:
        week = await self.now() // WEEK_MS
        async with self._writing(CONNECT_S) as connection:
            for ahead in range(WEEKS_AHEAD + 1):
                await connection.execute(select(func.phaseline_make_partition(week + ahead)))
                crash_points.reached("partitions.half_made")
        crash_points.reached("partitions.made")
        await self._load_weeks()

    # -- retention

    async def put_archived(self, went: Sequence[Archived], erased: Collection[str] = ()) -> set[str]:
        names = ("job_id", "last_seq", "place", "start", "length")
        columns = [[getattr(one, name) for one in went] for name in names] + [[one.job_id in erased for one in went]]
        _, at = await self.act_place()
        async with self._writing(TAKE_OUT_S) as connection:
            gone = {str(row[0]) for row in await _patient(connection, sql.TAKE_OUT, *columns)}
            await self._tell(connection, at, [one for one in went if one.job_id in gone])
        if self.on_act is not None:
            self.on_act()
        return gone

    async def drop_archived(self) -> int:
        await self._load_weeks()
        dropped = 0
        for week in sorted(self._weeks):
            try:
                async with self._writing_alone(TAKE_OUT_S) as connection:
                    drop = await _patient(connection, "SELECT phaseline_drop_partition($1)", week)
                dropped += bool(drop[0][0])
            except Contended:  # somebody reads the log; another pass will find a moment
                _log.info("partition events_w%d is in use and is dropped later", week)
            else:
                crash_points.reached("retention.part_dropped")
        await self._load_weeks()
        return dropped

    async def _load_weeks(self) -> None:
        rows = await self._raw(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
            "WHERE i.inhparent = 'events'::regclass"
        )
        self._weeks = frozenset(int(found[1]) for row in rows if (found := re.fullmatch(r"events_w(\d+)", row[0])))


async def _patient(connection: AsyncConnection, sql: str, *parameters: Any) -> Sequence[Any]:
    """One statement that may take longer than any other."""
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    rows: Sequence[Any] = await driver.fetch(sql, *parameters, timeout=TAKE_OUT_S)
    return rows


def _engine(url: str, size: int, settings: Mapping[str, str] | None = None) -> AsyncEngine:
    arguments = CONNECT_ARGUMENTS | {"server_settings": {**SERVER_SETTINGS, **(settings or {})}}
    return create_async_engine(
        asyncpg_url(url),
        pool_size=size,
        max_overflow=0,
        pool_timeout=CONNECT_S,
        connect_args=arguments,
    )
