"""The log on PostgreSQL 15 to 18.

The committer's single connection, a pool for beats and leader leases (which must not queue behind a batch), one for reads,
and one for reads on behalf of a tenant, whose connections row level security shows that tenant's rows alone. Hot statements carry arrays (`unnest`), one statement however many rows; the committer's go to asyncpg as they
are, since its transactions are short and many and SQLAlchemy's share of them was larger than the database's.
"""

import asyncio
import contextlib
import hashlib
import logging
import re
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

import asyncpg
from sqlalchemy import ColumnElement, func, literal_column, select
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from events import crash_points
from events import tables as t
from events.catalog import ACT
from events.clock import monotonic
from events.errors import Contended, LogUnavailable, PhaselineError, Unstorable, WrongRevision
from events.job import CAREFUL_LOSSES, Job
from events.log import (
    FEED_BYTES_MAX,
    PAGE_BYTES_MAX,
    PAGE_EVENTS_MAX,
    ROOM_AFTER_LEASES,
    Artifact,
    BeatReply,
    Claimable,
    FeedPage,
    Head,
    JobRow,
    Look,
    WorkerRow,
    makes_room,
)
from events.log_seals import ENVELOPE, SqlSealLog, to_envelope
from events.log_sql import (
    BEAT_S,
    JOB_ROW,
    NO_LIMIT,
    event_columns,
    first_line,
    job_columns,
    to_held,
    to_job,
    to_job_row,
    to_recorded,
    waiting_for_room,
    winners,
)
from events.record import Line, Recorded, line_of
from events.retention import Archived
from events.retention_sql import TAKE_OUT_S
from events.seal import Envelope, Range
from events.shares import AHEAD, LIMITED_MAX, SPARE, Candidate, by_rank, chosen
from events.values import encode

READERS = 6
TENANT_READERS = 4
BEATERS = 2
ALONE_S = 0.25  # so long a single tenant is taken to be the only one that waits: a claim asks less
WEEK_MS = 7 * 24 * 3600 * 1000  # one partition of `events`; a job's UUIDv7 begins with its time
WEEKS_AHEAD = 4
CONNECT_S = 5.0
COMMAND_S = 6.0  # above the deadlines of reads and transactions, which name themselves
CLOSE_S = 1.0
# A lock nobody gives back, or a transaction nobody ends, must not stop every writer.
SERVER_SETTINGS = {
    "application_name": "phaseline",
    "lock_timeout": "2000",
    "idle_in_transaction_session_timeout": "4000",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "jit": "off",
}
# The command timeout also bounds what the driver does behind our backs, such as the rollback of a connection that is
# given back in mid-statement: against a frozen server that waited for ever.
CONNECT_ARGUMENTS: dict[str, Any] = {
    "timeout": CONNECT_S,
    "command_timeout": COMMAND_S,
    "server_settings": SERVER_SETTINGS,
}
TENANT = "phaseline.tenant"  # the setting the policies of migration 0012 read; unset, every tenant is seen
_TAKE_OUT = "SELECT phaseline_archive($1::uuid[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[])"
_CLAIMS = 0x7068_6173_636C  # the advisory lock of claims where there are limits
_NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_log = logging.getLogger(__name__)
_CONTENDED = {"40P01", "40001", "55P03"}
# SQLAlchemy prepares a new connection outside of its own error handling: when the server ends it just then, the
# driver's errors arrive as they are.
DRIVER_FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_LINE_FAILURES = (*DRIVER_FAILURES, OSError)
_CONTENT = ("22", "23", "54")  # data exception, constraint, program limit: the command's own fault


class PostgresLog(SqlSealLog):
    """`url` is `postgresql://user:password@host:port/database`. See `events/log.py` for the promises."""

    name = "postgresql"
    failures = (*SqlSealLog.failures, *DRIVER_FAILURES)

    def __init__(self, url: str) -> None:
        self.epoch = ""
        self._weeks: frozenset[int] = frozenset()
        self._line = _Line(url)
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
        self._look = _LOOK.format(overdue=overdue)

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
        if state in _CONTENDED:
            return Contended()
        if state is not None:
            text = str(getattr(error, "orig", error)).partition("\n")[0]
            if state == "42P01":  # undefined table
                return WrongRevision()
            if "no partition" in text:
                return Contended(text)  # one is made, or its job is refused: others need not wait
            if t.UNFINISHED in text:
                return Contended(text)  # somebody was quicker: judged again, it has a holder
            if state.startswith(_CONTENT):
                return Unstorable(f"the database refused this content: {text}")
            return LogUnavailable(f"the database does not answer: {text}")
        # The driver's own words, such as for a server that says goodbye while we connect: nothing about the content.
        if isinstance(error, DBAPIError):
            return unreachable(error)
        return super()._translate(error)

    def _now_sql(self) -> ColumnElement[int]:
        return literal_column(_NOW)

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
        rows = await self._fetch(_LINES, job_id, after, after + PAGE_EVENTS_MAX, PAGE_BYTES_MAX)
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
        rows, last = await self._behind(_FEED, cursor, limit, tenant, bytes_max, acts=acts)
        cursors = [f"{row[0]}:{row[1]}:{row[2]}" for row in rows]
        return FeedPage([to_recorded(row[3:-1]) for row in rows], cursors, last)

    async def sealable(self, cursor: str, limit: int) -> tuple[list[Envelope], str]:
        rows, last = await self._behind(_SEALABLE, cursor, limit, None, NO_LIMIT)
        return [to_envelope((*row[3:-1], f"{row[0]}:{row[1]}:{row[2]}")) for row in rows], last

    async def _behind(
        self, sql: str, cursor: str, limit: int, tenant: str | None, bytes_max: int, *, acts: bool = True
    ) -> tuple[Sequence[Any], str]:
        """The rows of `_feed_of` behind a cursor, and the cursor behind them."""
        epoch, xid, pos = map(int, cursor.split(":")) if cursor else (0, 0, 0)
        asked = (epoch, str(xid), pos, limit, tenant, bytes_max, acts)
        found = await self._fetch(sql, *asked, tenant=tenant)
        if found[0]["pos"] is None and found[0]["over"]:
            later = (await self._raw("SELECT min(epoch) FROM events WHERE epoch > $1", epoch))[0][0]
            # What was still being written at the first look is there by now: a later epoch has begun.
            found = await self._fetch(sql, *asked, tenant=tenant)
            if later and found[0]["pos"] is None:
                return await self._behind(sql, f"{later}:0:-1", limit, tenant, bytes_max, acts=acts)
        rows = [row for row in found if row["pos"] is not None]
        last = f"{rows[-1][0]}:{rows[-1][1]}:{rows[-1][2]}" if rows else f"{epoch}:{xid}:{pos}"
        return rows, last

    async def heads_sealed(self, job_ids: Sequence[str]) -> Mapping[str, tuple[int, bytes]]:
        return {row[0]: (row[1], row[2]) for row in await self._raw(_HEADS_SEALED, list(job_ids))}

    async def _put_ranges(self, connection: AsyncConnection, ranges: Sequence[Range]) -> None:
        columns = tuple([getattr(one, name) for one in ranges] for name in _SEALED_TYPES)
        await connection.exec_driver_sql(_PUT_RANGES, columns)

    def _place_sql(self) -> ColumnElement[str]:
        return literal_column("events.epoch || ':' || events.xid::text || ':' || events.pos")

    async def feed_end(self) -> str:
        rows = await self._raw("SELECT epoch, pg_snapshot_xmin(pg_current_snapshot())::text FROM log")
        return f"{rows[0][0]}:{rows[0][1]}:-1"

    async def heads(self, job_ids: Sequence[str]) -> dict[str, Head]:
        # One statement whatever their number: a list of values is another one for each, prepared anew.
        rows = await self._raw(_HEADS, list(job_ids)) if job_ids else ()
        self._saw(rows)
        return {row.id: Head(row.last_seq, row.status, row.tenant) for row in rows}

    async def beat(self, worker: WorkerRow, lease_s: float) -> BeatReply:
        said = (worker.id, worker.host, worker.pid, worker.build, worker.slots, encode(dict(worker.engines)).decode())
        lease_ms, room_ms = int(lease_s * 1000), int(ROOM_AFTER_LEASES * lease_s * 1000)
        async with self._writing_alone(BEAT_S) as connection:
            rows = (await connection.exec_driver_sql(_BEAT, (*said, worker.draining, lease_ms, room_ms))).all()
            now = rows[0].now
            room = False
            if rows[0].waiting:  # rare: a job took two workers down
                waiting = {(row.engine, row.engine_version) for row in await self._rows(waiting_for_room(now, lease_s))}
                room = makes_room(worker.id, waiting, await self.workers(), now)
        held = tuple(to_held(row) for row in rows if row.id is not None)
        return BeatReply(now, now + lease_ms, held, room)

    async def lead(self, name: str, holder: str, lease_s: float) -> bool:
        async with self._writing_alone(BEAT_S) as connection:
            taken = await connection.exec_driver_sql(_LEAD, (name, holder, int(lease_s * 1000)))
            if not taken.rowcount and name not in self._led:
                taken = await connection.exec_driver_sql(_FIRST_LEAD, (name, holder, int(lease_s * 1000)))
                self._led.add(name)
            return bool(taken.rowcount)

    async def look(self, holder: str, names: Sequence[str], lease_s: float, copied: str | None) -> Look:
        epoch, xid, pos = copied.split(":") if copied else (None, None, None)
        behind = (epoch and int(epoch), xid, pos and int(pos))
        async with self._writing_alone(BEAT_S) as connection:
            if not self._led.issuperset(names):
                await connection.exec_driver_sql(_FIRST_LOOK, (list(names), holder))
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

    async def put_archived(self, went: Sequence[Archived]) -> set[str]:
        names = ("job_id", "last_seq", "place", "start", "length")
        columns = [[getattr(one, name) for one in went] for name in names]
        _, at = await self.act_place()
        async with self._writing(TAKE_OUT_S) as connection:
            gone = {str(row[0]) for row in await _patient(connection, _TAKE_OUT, *columns)}
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


class _Line:
    """The committer's connection. It lives as long as every outcome on it is known, and is replaced after that."""

    def __init__(self, url: str) -> None:
        self._url = make_url(asyncpg_url(url))
        self._connection: Any = None

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """Commits at the end of the block. Raises what the driver raises; only what it refused for its content or for a
        lock is known not to have happened."""
        connection = await self._open()
        try:
            await connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            yield connection
            await connection.execute("COMMIT")
        except BaseException as error:
            if not isinstance(error, Exception) or not await _rolled_back(connection, error):
                self._drop()
            raise

    async def close(self) -> None:
        """Says goodbye; a frozen server answers none."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*_LINE_FAILURES, TimeoutError):
                await connection.close(timeout=CLOSE_S)

    async def _open(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            _, arguments = PGDialect_asyncpg().create_connect_args(self._url)  # type: ignore[no-untyped-call]
            arguments.pop("prepared_statement_cache_size", None)  # SQLAlchemy's, of which this line has none
            self._connection = await asyncpg.connect(**arguments, **CONNECT_ARGUMENTS)
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


async def _rolled_back(connection: Any, error: Exception) -> bool:
    """False when nobody knows what became of the transaction, or when the connection may be spoilt."""
    state = getattr(error, "sqlstate", None)
    if isinstance(error, _LINE_FAILURES) and (state is None or not (state in _CONTENDED or state.startswith(_CONTENT))):
        return False
    try:
        await connection.execute("ROLLBACK")
    except (*_LINE_FAILURES, TimeoutError):
        return False
    return True


class PostgresTransaction:
    """One READ COMMITTED transaction that holds the row locks of its jobs."""

    def __init__(self, connection: Any, log: PostgresLog) -> None:
        self._connection = connection
        self._log = log
        self._now: int | None = None

    async def lock(self, job_ids: Sequence[str]) -> dict[str, Job]:
        rows = await self._connection.fetch(_LOCK, job_ids)
        if rows:
            self._now = rows[-1]["now"]  # read when the last row was locked
        return {job.id: job for job in map(to_job, rows)}

    async def now(self) -> int:
        return int(await self._connection.fetchval(f"SELECT {_NOW}")) if self._now is None else self._now

    async def recorded(self, command_ids: Mapping[str, str]) -> dict[str, list[Recorded]]:
        found: dict[str, list[Recorded]] = {}
        for row in await self._connection.fetch(_FOUND, sorted(set(command_ids.values())), sorted(command_ids)):
            recorded = to_recorded(row)
            found.setdefault(recorded.command_id, []).append(recorded)
        return found

    async def live_workers(self, worker_ids: Sequence[str], now: int) -> set[str]:
        rows = await self._connection.fetch(
            "SELECT id FROM workers WHERE id = ANY($1::text[]) AND lease_until > $2", worker_ids, now
        )
        return {row["id"] for row in rows}

    async def rivals(self, rows: Sequence[JobRow]) -> list[JobRow]:
        """Locked first, in a statement of its own: the next one sees what was committed by whoever was waited for."""
        unique = {(row.job.tenant, row.unique_key) for row in rows}
        keyed = {(row.job.tenant, row.key_sha256) for row in rows if row.key_sha256}
        locks = sorted(
            {*map(_lock_of, ("unique",) * len(unique), unique), *map(_lock_of, ("key",) * len(keyed), keyed)}
        )
        await self._connection.execute("SELECT pg_advisory_xact_lock(n) FROM unnest($1::bigint[]) AS n", locks)
        columns = [[row.job.tenant for row in rows], [row.unique_key for row in rows], [row.key_sha256 for row in rows]]
        return list(map(to_job_row, await self._connection.fetch(_RIVALS, *columns)))

    async def holders(self, job_ids: Sequence[str]) -> dict[str, str]:
        return {row["id"]: row["holder"] for row in await self._connection.fetch(_HOLDERS, job_ids)}

    async def insert_jobs(self, rows: Sequence[JobRow]) -> dict[str, JobRow]:
        inserted = await self._connection.fetch(_INSERT_JOBS, *_arrays([job_columns(row) for row in rows], _JOB_TYPES))
        made = {row["id"] for row in inserted}
        losers = [row for row in rows if row.job.id not in made]
        if not losers:
            return {}
        keys = sorted({row.key_sha256 or "" for row in losers})
        return winners(losers, await self._connection.fetch(_KEYED, keys))

    async def append(self, events: Sequence[Recorded], jobs: Sequence[Job] = ()) -> str:
        columns = _arrays([event_columns(recorded) for recorded in events], _EVENT_TYPES)
        if not jobs:
            return str(await self._connection.fetchval(_APPEND, *columns))
        saved = ([getattr(job, name) for job in jobs] for name in _SAVE_TYPES)
        return str(await self._connection.fetchval(_SAVE_AND_APPEND, *columns, *saved))

    async def put_artifacts(self, artifacts: Sequence[Artifact]) -> None:
        await self._connection.execute(
            "INSERT INTO artifacts (job_id, sha256, body) SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[]) "
            "ON CONFLICT DO NOTHING",
            [a.job_id for a in artifacts], [a.sha256 for a in artifacts], [a.body for a in artifacts],
        )  # fmt: skip

    async def copy_artifacts(self, source_job_id: str, job_id: str, sha256s: Sequence[str]) -> None:
        await self._connection.execute(
            "INSERT INTO artifacts (job_id, sha256, body) SELECT $2::uuid, sha256, body FROM artifacts "
            "WHERE job_id = $1::uuid AND sha256 = ANY($3::text[])",
            source_job_id, job_id, sha256s,
        )  # fmt: skip

    async def claimable(
        self, worker_ids: Sequence[str], wanted: Mapping[tuple[str, int], int], *, careful: bool
    ) -> Claimable:
        engines, versions = [engine for engine, _ in wanted], [version for _, version in wanted]
        losses_below = NO_LIMIT if careful else CAREFUL_LOSSES
        asked = (worker_ids, engines, versions, list(wanted.values()), losses_below)
        alone = self._log.alone_until > monotonic() and not self._log.running_jobs_max
        if alone:
            rows = await self._connection.fetch(_CLAIMABLE_ALONE, *asked)
        else:
            rows = await self._connection.fetch(_CLAIMABLE, *asked, self._log.running_jobs_max > 0)
        first = rows[0]
        due = sorted((to_job_row(row[4:]) for row in rows if row["id"] is not None), key=by_rank)
        if first["shared"] and first["live"]:
            due = await self._shared(wanted, first["now"], losses_below, limited=first["limited"])
        elif not alone and due:
            self._log.alone_until = monotonic() + ALONE_S
        return Claimable(first["now"], frozenset(first["live"]), due)

    async def _shared(
        self, wanted: Mapping[tuple[str, int], int], now: int, losses_below: int, *, limited: bool
    ) -> list[JobRow]:
        """By shares and within limits. Where there are limits claims take turns until their commits, so that each counts
        what those before it started."""
        if limited:
            await self._connection.execute("SELECT pg_advisory_xact_lock($1)", _CLAIMS)
        more = {declared: most + SPARE for declared, most in wanted.items()}
        engines, versions = [engine for engine, _ in more], [version for _, version in more]
        most = [LIMITED_MAX if limited else number for number in more.values()]
        ahead = AHEAD if limited else max(most)
        found = await self._connection.fetch(_CANDIDATES, engines, versions, most, now, losses_below, ahead)
        ids = chosen([Candidate(*row) for row in found], more, self._log.running_jobs_max)
        taken = {row.job.id: row for row in map(to_job_row, await self._connection.fetch(_TAKE, ids, now))}
        return [taken[job_id] for job_id in ids if job_id in taken]


def _lock_of(kind: str, key: tuple[str, str | None]) -> int:
    """The number of an advisory lock (64 bits, signed). Two keys with one number wait for each other, no more."""
    return int.from_bytes(hashlib.sha256(repr((kind, key)).encode()).digest()[:8], signed=True)


def _types_of(names: Sequence[str], columns: Any) -> dict[str, str]:
    words = {"Uuid": "uuid", "Text": "text", "BigInteger": "bigint", "Integer": "integer", "Float": "float8"}
    return {name: words.get(type(columns[name].type).__name__, "bytea") for name in names}


def _unnest(types: dict[str, str], *, after: int = 0) -> str:
    """An array for each column, of the parameters after `after`."""
    return f"unnest({', '.join(f'${i}::{kind}[]' for i, kind in enumerate(types.values(), after + 1))})"


def _texts(names: Iterable[str]) -> str:
    """Columns to select, ids as the text we know them by."""
    return ", ".join(f"{name}::text" if name in {"id", "job_id", "rerun_of"} else name for name in names)


def _arrays(rows: Sequence[dict[str, Any]], types: dict[str, str]) -> list[list[Any]]:
    return [[row[name] for row in rows] for name in types]


_JOB_TYPES = _types_of([*t.LIFECYCLE, *t.DETAILS], t.jobs.c)
_EVENT_TYPES = _types_of([column.name for column in t.events.c if column.name not in {"pos", "epoch"}], t.events.c)
_SAVE_TYPES = _types_of(["id", *t.CHANGING], t.jobs.c)
_SEALED_TYPES = _types_of(Range.__slots__, t.sealed.c)
_RECORDED = _texts(Recorded.__slots__)


# One epoch at a time: the planner takes a row comparison's first column for its selectivity, and would read and sort
# everything behind the cursor for each page. The window runs over the limited rows only. The end is one expression, so
# that the index ends there too: behind a transaction that runs for long nothing is read again and again.
# With nothing behind the cursor there is one row, which says whether the log's epoch is a later one.
def _feed_of(names: Sequence[str]) -> str:
    return (
        f"SELECT q.epoch, xid_text, pos, {', '.join(names)}, log.epoch > $1 AS over FROM log LEFT JOIN ("
        "SELECT p.*, sum(size) OVER w AS total, row_number() OVER w AS nth FROM ("
        f"SELECT epoch, xid, xid::text AS xid_text, pos, size, {_texts(names)} FROM events "
        "WHERE epoch = $1 AND (xid, pos) > ($2::text::xid8, $3) "
        "AND xid < CASE WHEN $1 < (SELECT epoch FROM log) THEN '18446744073709551615'::xid8 "
        "ELSE pg_snapshot_xmin(pg_current_snapshot()) END "
        f"AND ($5::text IS NULL OR tenant = $5 AND ($7::boolean OR type <> '{ACT}')) ORDER BY events.xid, pos LIMIT $4"
        ") p WINDOW w AS (ORDER BY xid, pos)) q ON total <= $6 OR nth = 1 ORDER BY xid, pos"
    )


_FEED = _feed_of(Recorded.__slots__)
_SEALABLE = _feed_of(ENVELOPE)
# Sequences have no hole, so a range of them bounds the window before anything is summed. In the order of `line_of`.
_LINES = (
    "SELECT seq, type, version, attempt, actor, at, data FROM ("
    "SELECT seq, type, version, attempt, actor, at, data, sum(size) OVER (ORDER BY seq) AS total FROM events "
    "WHERE job_id = $1 AND seq > $2 AND seq <= $3"
    ") page WHERE total <= $4 OR seq = $2 + 1 ORDER BY seq"
)
# A plain update lock would also block readers of foreign keys; there are none, and this one is lighter.
# The clock is read outside of what locks, row by row: in the last row, after all locks.
_LOCK = (
    f"SELECT q.*, {_NOW} AS now FROM (SELECT {_texts(t.LIFECYCLE)} FROM jobs "
    "WHERE id = ANY($1::uuid[]) ORDER BY id FOR NO KEY UPDATE) q"
)
_JOB_ROW = _texts(column.name for column in JOB_ROW)
_HEADS = (
    "SELECT id::text, last_seq, status, tenant, (SELECT epoch || '-' || lineage FROM log) AS log_epoch FROM jobs "
    "WHERE id = ANY($1::uuid[])"
)
_HEADS_SEALED = (
    "SELECT id::text, last.last_seq, last.head FROM unnest($1::uuid[]) AS id, LATERAL (SELECT last_seq, head FROM sealed "
    "WHERE job_id = id ORDER BY first_seq DESC LIMIT 1) AS last"
)
_PUT_RANGES = f"INSERT INTO sealed ({', '.join(_SEALED_TYPES)}) SELECT * FROM {_unnest(_SEALED_TYPES)}"
_CLOCK = f"WITH clock AS MATERIALIZED (SELECT {_NOW} AS now)"


# All that a claim asks. The clock is read before any job is locked; whether a worker is live is asked once, and without one
# no job is looked at.
def _claimable(shares: str, alone: str) -> str:
    return (
        f"{_CLOCK}, live AS MATERIALIZED (SELECT array(SELECT id FROM workers WHERE id = ANY($1::text[]) "
        "AND lease_until > (SELECT now FROM clock)) AS ids), "
        f"shares AS MATERIALIZED ({shares}), due AS ("
        "SELECT found.* FROM unnest($2::text[], $3::integer[], $4::bigint[]) AS wanted (engine, version, most), LATERAL ("
        f"SELECT {_JOB_ROW} FROM jobs WHERE status = 'queued' AND engine = wanted.engine "
        "AND engine_version = wanted.version AND coalesce(not_before, 0) <= (SELECT now FROM clock) AND losses < $5 "
        f"AND (SELECT ids <> '{{}}' FROM live) AND {alone} "
        "ORDER BY rank LIMIT wanted.most FOR NO KEY UPDATE SKIP LOCKED) AS found) "
        "SELECT clock.now, live.ids AS live, shares.shared, shares.limited, due.* "
        "FROM clock CROSS JOIN live CROSS JOIN shares LEFT JOIN due ON true"
    )


_CLAIMABLE = _claimable(
    "SELECT limited, limited OR several AS shared FROM (SELECT $6::boolean OR EXISTS ("
    "SELECT FROM jobs WHERE concurrency_key IS NOT NULL AND status = 'queued') AS limited, "
    "(SELECT min(tenant) FROM jobs WHERE status = 'queued') IS DISTINCT FROM "
    "(SELECT max(tenant) FROM jobs WHERE status = 'queued') AS several OFFSET 0) AS asked",
    "NOT (SELECT shared FROM shares)",
)
# Soon after nobody was found to share with: a job that has a limit waits for the next question, none passes it.
_CLAIMABLE_ALONE = _claimable("SELECT false AS limited, false AS shared", "concurrency_key IS NULL")
# Each tenant that has queued jobs, found by one look at an index each; what it runs; and its next jobs of each engine that
# are within the limits of their concurrency keys. As columns of `Candidate`.
_CANDIDATES = (
    "WITH RECURSIVE tenants (tenant) AS (SELECT min(tenant) FROM jobs WHERE status = 'queued' UNION ALL SELECT "
    "(SELECT min(tenant) FROM jobs WHERE status = 'queued' AND tenant > tenants.tenant) FROM tenants "
    "WHERE tenants.tenant IS NOT NULL), busy AS MATERIALIZED (SELECT tenant, concurrency_key, count(*) AS holding FROM jobs "
    "WHERE status = 'running' AND concurrency_key IS NOT NULL GROUP BY tenant, concurrency_key) "
    "SELECT found.id::text, found.tenant, found.engine, found.engine_version, found.rank, found.concurrency_key, "
    "found.concurrency_limit, load.running, found.holding FROM tenants CROSS JOIN LATERAL ("
    "SELECT count(*) AS running FROM jobs WHERE tenant = tenants.tenant AND status = 'running') AS load "
    "CROSS JOIN unnest($1::text[], $2::integer[], $3::bigint[]) AS wanted (engine, version, most) CROSS JOIN LATERAL ("
    "SELECT ahead.*, coalesce(busy.holding, 0) AS holding FROM (SELECT id, tenant, engine, engine_version, rank, "
    "concurrency_key, concurrency_limit FROM jobs WHERE status = 'queued' AND tenant = tenants.tenant "
    "AND engine = wanted.engine AND engine_version = wanted.version AND coalesce(not_before, 0) <= $4 AND losses < $5 "
    "ORDER BY rank LIMIT $6) AS ahead LEFT JOIN busy USING (tenant, concurrency_key) "
    "WHERE concurrency_limit IS NULL OR coalesce(busy.holding, 0) < concurrency_limit "
    "ORDER BY rank LIMIT wanted.most) AS found"
)
_TAKE = (
    f"SELECT {_JOB_ROW} FROM jobs WHERE id = ANY($1::uuid[]) AND status = 'queued' "
    "AND coalesce(not_before, 0) <= $2 FOR NO KEY UPDATE SKIP LOCKED"
)
# All that a beat says and asks, in one statement and thus at one moment.
_BEAT = (
    f"{_CLOCK}, beaten AS (INSERT INTO workers (id, host, pid, build, slots, engines, draining, started_at, beat_at, "
    "lease_until) SELECT $1::text, $2, $3::integer, $4, $5::integer, $6, $7::boolean, now, now, now + $8::bigint FROM clock ON CONFLICT (id) DO UPDATE "
    "SET draining = excluded.draining, slots = excluded.slots, beat_at = excluded.beat_at, "
    "lease_until = excluded.lease_until) SELECT clock.now, EXISTS (SELECT FROM jobs WHERE status = 'queued' "
    f"AND losses >= {CAREFUL_LOSSES} AND last_at <= now - $9::bigint AND coalesce(not_before, 0) <= now - $9::bigint) "
    "AS waiting, jobs.id::text AS id, attempt, lease_id, cancel_mode, cancel_at, opened_at, total_s "
    "FROM clock LEFT JOIN jobs ON worker_id = $1::text AND status = 'running'"
)
_LEAD = (
    f"UPDATE leaders SET holder = $2, lease_until = {_NOW} + $3 WHERE name = $1 "
    f"AND (holder = $2 OR lease_until < {_NOW})"
)
_FIRST_LEAD = (
    f"INSERT INTO leaders (name, holder, lease_until) VALUES ($1, $2, {_NOW} + $3) ON CONFLICT (name) DO NOTHING"
)
_FIRST_LOOK = (
    "INSERT INTO leaders (name, holder, lease_until) SELECT name, $2, 0 FROM unnest($1::text[]) AS name "
    "ON CONFLICT (name) DO NOTHING"
)
# A lease that is locked just now is left alone until the next look: two that look must not wait for each other. What
# only a leader needs to know is asked only for it: PostgreSQL evaluates no further than the first false condition.
_LOOK = (
    f"{_CLOCK}, renewed AS (UPDATE leaders SET holder = $1, lease_until = {_NOW} + $3::bigint WHERE name IN ("
    "SELECT name FROM leaders WHERE name = ANY($2::text[]) "
    f"AND (holder = $1 AND lease_until < {_NOW} + $3::bigint / 2 OR lease_until < {_NOW}) FOR UPDATE SKIP LOCKED"
    ") RETURNING name), mine AS MATERIALIZED (SELECT name FROM renewed UNION SELECT name FROM leaders, clock "
    "WHERE name = ANY($2::text[]) AND holder = $1 AND lease_until > now) "
    "SELECT now, (SELECT array_agg(name) FROM mine) AS leads, "
    "EXISTS (SELECT FROM mine WHERE name = 'expire') AND EXISTS ({overdue}) AS overdue, "
    "EXISTS (SELECT FROM mine WHERE name = 'tickets') AND EXISTS (SELECT FROM jobs WHERE status = 'queued' "
    f"AND coalesce(not_before, 0) <= {_NOW} AND losses < {CAREFUL_LOSSES}) AS due, "
    "$4::bigint IS NOT NULL AND ((SELECT epoch FROM log) > $4 OR EXISTS (SELECT FROM events WHERE epoch = $4 "
    "AND (xid, pos) > ($5::text::xid8, $6::bigint) AND xid < pg_snapshot_xmin(pg_current_snapshot()))) AS behind, "
    "EXISTS (SELECT FROM mine WHERE name = 'schedules') "
    "AND EXISTS (SELECT FROM schedules WHERE next_at <= (SELECT now FROM clock)) AS ticks "
    "FROM clock"
)
# Two arms, an index each.
_RIVALS = (
    "WITH new AS MATERIALIZED (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) AS n (whose, one, keyed)) "
    f"SELECT {_JOB_ROW} FROM new JOIN jobs ON tenant = whose AND unique_key = one AND status IN ('queued', 'running') "
    f"UNION SELECT {_JOB_ROW} FROM new JOIN jobs ON tenant = whose AND key_sha256 = keyed"
)
_HOLDERS = (
    "SELECT own.id::text AS id, other.id::text AS holder FROM jobs own JOIN jobs other ON other.tenant = own.tenant "
    "AND other.unique_key = own.unique_key AND other.status IN ('queued', 'running') AND other.id <> own.id "
    "WHERE own.id = ANY($1::uuid[])"
)
_KEYED = f"SELECT {_JOB_ROW} FROM jobs WHERE key_sha256 = ANY($1::text[])"
_FOUND = (
    f"SELECT {_RECORDED} FROM events WHERE job_id = ANY($1::uuid[]) AND command_id = ANY($2::text[]) "
    "ORDER BY job_id, seq"
)
_INSERT_JOBS = (
    f"INSERT INTO jobs ({', '.join(_JOB_TYPES)}) SELECT * FROM {_unnest(_JOB_TYPES)} "
    "ON CONFLICT (tenant, key_sha256) WHERE key_sha256 IS NOT NULL DO NOTHING RETURNING id::text"
)
# The epoch is the log's own at this moment, and stays so until the commit: who raises it first locks `events` against
# appends (see `BEGIN_EPOCH`), and a statement reads only once it has its locks.
_APPENDED = (
    f"WITH lineage AS (SELECT epoch, lineage FROM log), appended AS (INSERT INTO events ({', '.join(_EVENT_TYPES)}, epoch) "
    f"SELECT v.*, lineage.epoch FROM {_unnest(_EVENT_TYPES)} AS v, lineage)"
)
_LINEAGE = "SELECT epoch || '-' || lineage FROM lineage"
_APPEND = f"{_APPENDED} {_LINEAGE}"
BEGIN_EPOCH = "LOCK TABLE events IN SHARE ROW EXCLUSIVE MODE"  # waits for every append under way; readers go on
_SAVE_AND_APPEND = (
    f"{_APPENDED}, saved AS (UPDATE jobs AS j SET {', '.join(f'{name} = v.{name}' for name in t.CHANGING)} "
    f"FROM {_unnest(_SAVE_TYPES, after=len(_EVENT_TYPES))} AS v ({', '.join(_SAVE_TYPES)}) WHERE j.id = v.id) {_LINEAGE}"
)


def unreachable(error: BaseException) -> LogUnavailable:
    """What a driver's error means that says nothing about the content."""
    return LogUnavailable(f"the database does not answer: {first_line(error)}")


def asyncpg_url(url: str) -> str:
    """SQLAlchemy 2.1 takes bare `postgresql://` for psycopg: name the driver."""
    return re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql+asyncpg://", url)


def _engine(url: str, size: int, settings: Mapping[str, str] | None = None) -> AsyncEngine:
    arguments = CONNECT_ARGUMENTS | {"server_settings": {**SERVER_SETTINGS, **(settings or {})}}
    return create_async_engine(
        asyncpg_url(url),
        pool_size=size,
        max_overflow=0,
        pool_timeout=CONNECT_S,
        connect_args=arguments,
    )
