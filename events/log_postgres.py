"""The log on PostgreSQL 15 to 18.

Three pools: the committer's single connection, one for beats and leader leases (which must not queue behind a
batch), and one for reads. Hot statements carry arrays (`unnest`), one statement however many rows.
"""

import asyncio
import contextlib
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, literal_column, select
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from events import tables as t
from events.errors import Contended, LogUnavailable, PhaselineError, Unstorable, WrongRevision
from events.job import Job
from events.log import FEED_BYTES_MAX, Artifact, FeedPage, JobRow, Transaction
from events.log_sql import SqlLog, SqlTransaction, event_columns, job_columns, to_job, to_job_row, to_recorded
from events.record import Recorded

READERS = 6
BEATERS = 2
WEEK_MS = 7 * 24 * 3600 * 1000  # one partition of `events`; a job's UUIDv7 begins with its time
WEEKS_AHEAD = 4
CONNECT_S = 5.0
COMMAND_S = 6.0  # above the deadlines of reads and transactions, which name themselves
CLOSE_S = 1.0
# A lock nobody gives back, or a transaction nobody ends, must not stop every writer.
SERVER_SETTINGS = {
    "application_name": "phaseline",
    "lock_timeout": "2000",
    "idle_in_transaction_session_timeout": "10000",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "jit": "off",
}
_NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_CONTENDED = {"40P01", "40001", "55P03"}
_CONTENT = ("22", "23", "54")  # data exception, constraint, program limit: the command's own fault


class PostgresLog(SqlLog):
    """`url` is `postgresql://user:password@host:port/database`. See `events/log.py` for the promises."""

    name = "postgresql"

    def __init__(self, url: str) -> None:
        self.epoch = ""
        self._epoch_number = 0
        self._weeks: frozenset[int] = frozenset()
        self._writer = _engine(url, 1)
        self._beater = _engine(url, BEATERS)
        self._reader = _engine(url, READERS)

    async def open(self) -> None:
        await self._load_epoch()
        await self._load_weeks()

    async def close(self) -> None:
        for engine in (self._writer, self._beater, self._reader):
            # A frozen server answers no goodbye; the sockets close with the process.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await engine.dispose()

    @contextlib.asynccontextmanager
    async def transaction(self, *, patient: bool = True) -> AsyncIterator[Transaction]:
        try:
            async with self._writer.begin() as connection:
                if not patient:
                    await connection.exec_driver_sql("SET LOCAL lock_timeout = '50ms'")
                yield PostgresTransaction(connection, self._epoch_number)
        except (SQLAlchemyError, OSError) as error:
            raise self._translate(error) from error

    @contextlib.asynccontextmanager
    async def _writing(self, deadline_s: float) -> AsyncIterator[AsyncConnection]:
        try:
            async with asyncio.timeout(deadline_s), self._beater.begin() as connection:
                yield connection
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            raise self._translate(error) from error

    def _translate(self, error: BaseException) -> PhaselineError:
        state = getattr(getattr(error, "orig", None), "sqlstate", None) if isinstance(error, DBAPIError) else None
        if state in _CONTENDED:
            return Contended()
        if state is not None:
            text = str(getattr(error, "orig", error)).partition("\n")[0]
            if state == "42P01":  # undefined table
                return WrongRevision()
            if state.startswith(_CONTENT) and "no partition" not in text:
                return Unstorable(f"the database refused this content: {text}")
            return LogUnavailable(f"the database does not answer: {text}")
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

    async def feed(self, cursor: str, limit: int, tenant: str | None = None) -> FeedPage:
        """Ordered by (epoch, xid, pos) below the oldest running transaction: a plain identity would skip events of a
        transaction that commits late. The text of `xid` has a name of its own: ordered by it, 999 came after 1000."""
        epoch, xid, pos = map(int, cursor.split(":")) if cursor else (0, 0, 0)
        rows = await self._raw(_FEED, epoch, str(xid), pos, limit, tenant, FEED_BYTES_MAX)
        if not rows and (later := (await self._raw("SELECT min(epoch) FROM events WHERE epoch > $1", epoch))[0][0]):
            return await self.feed(f"{later}:0:-1", limit, tenant)
        last = f"{rows[-1][0]}:{rows[-1][1]}:{rows[-1][2]}" if rows else f"{epoch}:{xid}:{pos}"
        return FeedPage([to_recorded(row[3:]) for row in rows], last)

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
        await self._load_weeks()

    async def _load_weeks(self) -> None:
        rows = await self._raw(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
            "WHERE i.inhparent = 'events'::regclass"
        )
        self._weeks = frozenset(int(found[1]) for row in rows if (found := re.fullmatch(r"events_w(\d+)", row[0])))


class PostgresTransaction(SqlTransaction):
    """One READ COMMITTED transaction that holds the row locks of its jobs."""

    async def _run(self, sql: str, *parameters: Any) -> Any:
        return await self._connection.exec_driver_sql(sql, parameters)

    async def lock(self, job_ids: Sequence[str]) -> dict[str, Job]:
        rows = await self._run(_LOCK, list(job_ids))
        return {job.id: job for job in map(to_job, rows)}

    async def now(self) -> int:
        return int((await self._run(f"SELECT {_NOW}")).scalar_one())

    async def insert_jobs(self, rows: Sequence[JobRow]) -> dict[str, JobRow]:
        inserted = await self._run(_INSERT_JOBS, *_arrays([job_columns(row) for row in rows], _JOB_TYPES))
        return await self._winners(rows, {row[0] for row in inserted})

    async def append(self, events: Sequence[Recorded]) -> None:
        rows = [event_columns(recorded, self._epoch_number) for recorded in events]
        await self._run(_APPEND, *_arrays(rows, _EVENT_TYPES))

    async def save(self, jobs: Sequence[Job]) -> None:
        await self._run(_SAVE, *([getattr(job, name) for job in jobs] for name in _SAVE_TYPES))

    async def put_artifacts(self, artifacts: Sequence[Artifact]) -> None:
        await self._run(
            "INSERT INTO artifacts (job_id, sha256, body) SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[]) "
            "ON CONFLICT DO NOTHING",
            [a.job_id for a in artifacts], [a.sha256 for a in artifacts], [a.body for a in artifacts],
        )  # fmt: skip

    async def due(self, engine: str, version: int, limit: int, now: int, *, careful: bool) -> list[JobRow]:
        query = self._due(engine, version, limit, now, careful=careful).with_for_update(
            skip_locked=True, key_share=True
        )
        return [to_job_row(row) for row in await self._connection.execute(query)]


def _types_of(names: Sequence[str], columns: Any) -> dict[str, str]:
    words = {"Uuid": "uuid", "Text": "text", "BigInteger": "bigint", "Integer": "integer", "Float": "float8"}
    return {name: words.get(type(columns[name].type).__name__, "bytea") for name in names}


def _unnest(types: dict[str, str]) -> str:
    return f"unnest({', '.join(f'${i}::{kind}[]' for i, kind in enumerate(types.values(), 1))})"


def _arrays(rows: Sequence[dict[str, Any]], types: dict[str, str]) -> list[list[Any]]:
    return [[row[name] for row in rows] for name in types]


_JOB_TYPES = _types_of(
    [*t.LIFECYCLE, "params", "tags", "rerun_of", "from_phase", "key_sha256", "fingerprint"], t.jobs.c
)
_EVENT_TYPES = _types_of([column.name for column in t.events.c if column.name != "pos"], t.events.c)
_SAVE_TYPES = _types_of(["id", *t.CHANGING], t.jobs.c)
_RECORDED = ", ".join(f"{name}::text" if name == "job_id" else name for name in Recorded.__slots__)
_NAMES = ", ".join(Recorded.__slots__)
# One epoch at a time: the planner takes a row comparison's first column for its selectivity, and would read and sort
# everything behind the cursor for each page. The window runs over the limited rows only.
_FEED = (
    f"SELECT epoch, xid_text, pos, {_NAMES} FROM ("
    "SELECT p.*, sum(size) OVER w AS total, row_number() OVER w AS nth FROM ("
    f"SELECT epoch, xid, xid::text AS xid_text, pos, size, {_RECORDED} FROM events "
    "WHERE epoch = $1 AND (xid, pos) > ($2::text::xid8, $3) AND xid < pg_snapshot_xmin(pg_current_snapshot()) "
    "AND ($5::text IS NULL OR tenant = $5) ORDER BY events.xid, pos LIMIT $4"
    ") p WINDOW w AS (ORDER BY xid, pos)) q WHERE total <= $6 OR nth = 1 ORDER BY xid, pos"
)
# A plain update lock would also block readers of foreign keys; there are none, and this one is lighter.
_LOCK = (
    f"SELECT {', '.join(f'{name}::text' if name == 'id' else name for name in t.LIFECYCLE)} FROM jobs "
    "WHERE id = ANY($1::uuid[]) ORDER BY id FOR NO KEY UPDATE"
)
_INSERT_JOBS = (
    f"INSERT INTO jobs ({', '.join(_JOB_TYPES)}) SELECT * FROM {_unnest(_JOB_TYPES)} "
    "ON CONFLICT (tenant, key_sha256) WHERE key_sha256 IS NOT NULL DO NOTHING RETURNING id::text"
)
_APPEND = f"INSERT INTO events ({', '.join(_EVENT_TYPES)}) SELECT * FROM {_unnest(_EVENT_TYPES)}"
_SAVE = (
    f"UPDATE jobs AS j SET {', '.join(f'{name} = v.{name}' for name in t.CHANGING)} "
    f"FROM {_unnest(_SAVE_TYPES)} AS v ({', '.join(_SAVE_TYPES)}) WHERE j.id = v.id"
)


def asyncpg_url(url: str) -> str:
    """SQLAlchemy 2.1 takes bare `postgresql://` for psycopg: name the driver."""
    return re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql+asyncpg://", url)


def _engine(url: str, size: int) -> AsyncEngine:
    return create_async_engine(
        asyncpg_url(url),
        pool_size=size,
        max_overflow=0,
        pool_timeout=CONNECT_S,
        # The command timeout also bounds what the driver does behind our backs, such as the rollback of a connection
        # that is given back in mid-statement: against a frozen server that waited for ever.
        connect_args={"timeout": CONNECT_S, "command_timeout": COMMAND_S, "server_settings": SERVER_SETTINGS},
    )
