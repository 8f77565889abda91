"""The committer's connection to PostgreSQL and its transactions: see `Transaction` in `events/log.py`."""

import contextlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import asyncpg
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.engine import make_url

from events import postgres_sql as sql
from events.clock import monotonic
from events.errors import LogUnavailable
from events.job import CAREFUL_LOSSES, Job
from events.log import (
    Artifact,
    Claimable,
    JobRow,
)
from events.record import Recorded
from events.rows_sql import (
    NO_LIMIT,
    event_arrays,
    first_line,
    job_columns,
    to_job,
    to_job_row,
    to_recorded,
    winners,
)
from events.shares import AHEAD, LIMITED_MAX, SPARE, Candidate, by_rank, chosen

ALONE_S = 0.25  # so long a single tenant is taken to be the only one that waits: a claim asks less
CONNECT_S = 5.0
COMMAND_S = 6.0  # above the deadlines of reads and transactions, which name themselves
CLOSE_S = 1.0
# What the committer sends without a BEGIN is READ COMMITTED too, whatever the server's default is.
# A lock nobody gives back, or a transaction nobody ends, must not stop every writer.
SERVER_SETTINGS = {
    "application_name": "phaseline",
    "lock_timeout": "2000",
    "idle_in_transaction_session_timeout": "4000",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "jit": "off",
    "default_transaction_isolation": "read committed",
}
# Whatever the committer asks for it finds by key, and in the order of an index. A plan made while a table was small, or one
# that row level security makes the planner guess at, must not scan or sort a table for as long as the connection lives.
# Since no key changes the plan, each statement is planned once: planning a claim takes longer than the claim.
BY_KEY = {
    "enable_seqscan": "off",
    "enable_sort": "off",
    "enable_incremental_sort": "off",
    "plan_cache_mode": "force_generic_plan",
}
# The command timeout also bounds what the driver does behind our backs, such as the rollback of a connection that is
# given back in mid-statement: against a frozen server that waited for ever.
CONNECT_ARGUMENTS: dict[str, Any] = {
    "timeout": CONNECT_S,
    "command_timeout": COMMAND_S,
    "server_settings": SERVER_SETTINGS,
}
CONTENDED = {"40P01", "40001", "55P03"}
# SQLAlchemy prepares a new connection outside of its own error handling: when the server ends it just then, the
# driver's errors arrive as they are.
DRIVER_FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
LINE_FAILURES = (*DRIVER_FAILURES, OSError)
CONTENT = ("22", "23", "54")  # data exception, constraint, program limit: the command's own fault


class Claiming(Protocol):
    """What claims ask of their log. `alone_until` (monotonic): so long they do not ask again whether there is anybody to
    share with."""

    alone_until: float
    running_jobs_max: int


class PostgresLine:
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

    @contextlib.asynccontextmanager
    async def statements(self) -> AsyncIterator[Any]:
        """For statements that are a transaction each."""
        connection = await self._open()
        try:
            yield connection
        except BaseException as error:
            if not isinstance(error, Exception) or (isinstance(error, LINE_FAILURES) and not _refused(error)):
                self._drop()
            raise

    async def close(self) -> None:
        """Says goodbye; a frozen server answers none."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*LINE_FAILURES, TimeoutError):
                await connection.close(timeout=CLOSE_S)

    async def _open(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            _, arguments = PGDialect_asyncpg().create_connect_args(self._url)  # type: ignore[no-untyped-call]
            arguments.pop("prepared_statement_cache_size", None)  # SQLAlchemy's, of which this line has none
            settings = {"server_settings": SERVER_SETTINGS | BY_KEY}
            self._connection = await asyncpg.connect(**arguments, **CONNECT_ARGUMENTS | settings)
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def _refused(error: Exception) -> bool:
    """Whether the database refused a statement and is well: it did not happen, and the connection can be used again."""
    state = getattr(error, "sqlstate", None)
    return state is not None and (state in CONTENDED or state.startswith(CONTENT))


async def _rolled_back(connection: Any, error: Exception) -> bool:
    """False when nobody knows what became of the transaction, or when the connection may be spoilt."""
    if isinstance(error, LINE_FAILURES) and not _refused(error):
        return False
    try:
        await connection.execute("ROLLBACK")
    except (*LINE_FAILURES, TimeoutError):
        return False
    return True


class PostgresTransaction:
    """One READ COMMITTED transaction that holds the row locks of its jobs."""

    CLAIMABLE: ClassVar[str] = sql.CLAIMABLE
    CLAIMABLE_ALONE: ClassVar[str] = sql.CLAIMABLE_ALONE

    def __init__(self, connection: Any, log: Claiming) -> None:
        self._connection = connection
        self._log = log
        self._now: int | None = None
        self.epoch = ""

    async def lock(self, job_ids: Sequence[str]) -> dict[str, Job]:
        rows = await self._connection.fetch(sql.LOCK, job_ids)
        if rows:
            self._now = rows[-1]["now"]  # read when the last row was locked
        return {job.id: job for job in map(to_job, rows)}

    async def now(self) -> int:
        return int(await self._connection.fetchval(f"SELECT {sql.NOW}")) if self._now is None else self._now

    async def recorded(self, command_ids: Mapping[str, str]) -> dict[str, list[Recorded]]:
        found: dict[str, list[Recorded]] = {}
        for row in await self._connection.fetch(sql.FOUND, sorted(set(command_ids.values())), sorted(command_ids)):
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
            {*map(sql.lock_of, ("unique",) * len(unique), unique), *map(sql.lock_of, ("key",) * len(keyed), keyed)}
        )
        await self._connection.execute("SELECT pg_advisory_xact_lock(n) FROM unnest($1::bigint[]) AS n", locks)
        columns = [[row.job.tenant for row in rows], [row.unique_key for row in rows], [row.key_sha256 for row in rows]]
        return list(map(to_job_row, await self._connection.fetch(sql.RIVALS, *columns)))

    async def holders(self, job_ids: Sequence[str]) -> dict[str, str]:
        return {row["id"]: row["holder"] for row in await self._connection.fetch(sql.HOLDERS, job_ids)}

    async def insert_jobs(self, rows: Sequence[JobRow]) -> dict[str, JobRow]:
        inserted = await self._connection.fetch(
            sql.INSERT_JOBS, *sql.arrays([job_columns(row) for row in rows], sql.JOB_TYPES)
        )
        made = {row["id"] for row in inserted}
        losers = [row for row in rows if row.job.id not in made]
        if not losers:
            return {}
        keys = [row.job.tenant for row in losers], [row.key_sha256 for row in losers]
        return winners(losers, await self._connection.fetch(sql.KEYED, *keys))

    async def append(self, events: Sequence[Recorded], jobs: Sequence[Job] = ()) -> None:
        columns = event_arrays(events, sql.EVENT_TYPES)
        if not jobs:
            self.epoch = await self._connection.fetchval(sql.APPEND, *columns)
            return
        saved = ([getattr(job, name) for job in jobs] for name in sql.SAVE_TYPES)
        self.epoch = await self._connection.fetchval(sql.SAVE_AND_APPEND, *columns, *saved)

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
            rows = await self._connection.fetch(self.CLAIMABLE_ALONE, *asked)
        else:
            rows = await self._connection.fetch(self.CLAIMABLE, *asked, self._log.running_jobs_max > 0)
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
            await self._connection.execute("SELECT pg_advisory_xact_lock($1)", sql.CLAIMS)
        more = {declared: most + SPARE for declared, most in wanted.items()}
        engines, versions = [engine for engine, _ in more], [version for _, version in more]
        most = [LIMITED_MAX if limited else number for number in more.values()]
        ahead = AHEAD if limited else max(most)
        turns = sum(more.values())
        asked = (engines, versions, most, now, losses_below, ahead, turns, self._log.running_jobs_max)
        found = await self._connection.fetch(sql.CANDIDATES, *asked)
        ids = chosen([Candidate(*row) for row in found], more, self._log.running_jobs_max)
        taken = {row.job.id: row for row in map(to_job_row, await self._connection.fetch(sql.TAKE, ids, now))}
        return [taken[job_id] for job_id in ids if job_id in taken]


def asyncpg_url(url: str) -> str:
    """SQLAlchemy 2.1 takes bare `postgresql://` for psycopg: name the driver."""
    return re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql+asyncpg://", url)


def unreachable(error: BaseException) -> LogUnavailable:
    """What a driver's error means that says nothing about the content."""
    return LogUnavailable(f"the database does not answer: {first_line(error)}")
