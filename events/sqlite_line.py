"""The committer's connection to SQLite, and one transaction on it.

What may wait goes to a thread: beginning, while another process writes, and the commit, which syncs the disk. The
statements between them take microseconds, less than handing each over to a thread and back, so they run right here.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Executable, bindparam, insert, literal_column, select, text, update
from sqlalchemy.dialects.sqlite import dialect
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from events import tables as t
from events.job import CAREFUL_LOSSES, Job
from events.log import Artifact, Claimable, JobRow
from events.record import Recorded
from events.rows_sql import (
    JOB_ROW,
    NO_LIMIT,
    RECORDED,
    event_columns,
    job_columns,
    to_job,
    to_job_row,
    to_recorded,
    winners,
)
from events.shares import AHEAD, LIMITED_MAX, Candidate, by_rank, chosen
from events.values import encode

BUSY_MS = 5000  # another process (a backup, `db check`) may hold the file this long
PRAGMAS = (
    "journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_MS}", "foreign_keys=ON",
    "secure_delete=ON",  # what is freed is overwritten, as an erasure needs: a default of some builds only
)  # fmt: skip

T = TypeVar("T")


class SqliteLine:
    """The one connection of the committer. It lives as long as every outcome on it is known."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, "phaseline-sqlite")

    @contextlib.asynccontextmanager
    async def transaction(self, running_jobs_max: int = 0) -> AsyncIterator["SqliteTransaction"]:
        """Commits at the end of the block. Raises what the driver raises; whoever is cancelled does not know whether it
        happened."""
        connection = await self._in_thread(self._begin)
        try:
            yield SqliteTransaction(connection, running_jobs_max)
            await self._in_thread(connection.commit)
        except Exception:
            self._undo(connection)
            raise
        except BaseException:
            self._thread.submit(self._drop)
            raise

    async def close(self) -> None:
        """Lets go of the file; may be called twice."""
        with contextlib.suppress(RuntimeError):  # shut down already
            self._thread.submit(self._drop)
        self._thread.shutdown(wait=False)

    def _begin(self) -> sqlite3.Connection:
        connection = self._connection
        if connection is None:
            # Ours to share: the loop and the thread use it in turns.
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._connection = connection
            for pragma in PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN IMMEDIATE")
        return connection

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except asyncio.CancelledError:  # the thread may still be in it: that ends now, and then the connection
            if (connection := self._connection) is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.interrupt()
            self._thread.submit(self._drop)
            raise

    def _undo(self, connection: sqlite3.Connection) -> None:
        try:
            connection.rollback()
        except sqlite3.Error:
            self._thread.submit(self._drop)

    def _drop(self) -> None:
        """In the thread, behind whatever it does: the next transaction opens the file anew."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.rollback()
            connection.close()


class SqliteTransaction:
    """One `BEGIN IMMEDIATE` transaction: it holds the only write lock, so nothing else needs locking."""

    def __init__(self, connection: sqlite3.Connection, running_jobs_max: int) -> None:
        self._connection = connection
        self._running_jobs_max = running_jobs_max
        self.epoch = ""

    async def lock(self, job_ids: Sequence[str]) -> dict[str, Job]:
        rows = self._connection.execute(_LOCK, {"ids": _json(job_ids)})
        return {job.id: job for job in map(to_job, rows)}

    async def now(self) -> int:
        return time.time_ns() // 1_000_000

    async def recorded(self, command_ids: Mapping[str, str]) -> dict[str, list[Recorded]]:
        wanted = {"ids": _json(set(command_ids.values())), "command_ids": _json(command_ids)}
        found: dict[str, list[Recorded]] = {}
        for recorded in map(to_recorded, self._connection.execute(_FOUND, wanted)):
            found.setdefault(recorded.command_id, []).append(recorded)
        return found

    async def live_workers(self, worker_ids: Sequence[str], now: int) -> set[str]:
        return {row[0] for row in self._connection.execute(_LIVE, {"ids": _json(worker_ids), "now": now})}

    async def rivals(self, rows: Sequence[JobRow]) -> list[JobRow]:
        unique = {(row.job.tenant, row.unique_key) for row in rows}
        keyed = {(row.job.tenant, row.key_sha256) for row in rows if row.key_sha256}
        found = {
            row[0]: row
            for statement, keys in ((_UNFINISHED, unique), (_KEYED, keyed))
            for tenant, key in sorted(keys)
            for row in self._connection.execute(statement, {"tenant": tenant, "key": key})
        }
        return list(map(to_job_row, found.values()))

    async def holders(self, job_ids: Sequence[str]) -> dict[str, str]:
        return dict(self._connection.execute(_HOLDERS, {"ids": _json(job_ids)}).fetchall())

    async def insert_jobs(self, rows: Sequence[JobRow]) -> dict[str, JobRow]:
        losers = [row for row in rows if not self._connection.execute(_INSERT_JOB, job_columns(row)).rowcount]
        if not losers:
            return {}
        keys = [{"tenant": row.job.tenant, "key": row.key_sha256} for row in losers]
        return winners(losers, [row for key in keys for row in self._connection.execute(_KEYED, key)])

    async def claimable(
        self, worker_ids: Sequence[str], wanted: Mapping[tuple[str, int], int], *, careful: bool
    ) -> Claimable:
        now = await self.now()
        live = frozenset(await self.live_workers(worker_ids, now))
        due = {"now": now, "losses": NO_LIMIT if careful else CAREFUL_LOSSES}
        if not live:
            return Claimable(now, live, [])
        several, keyed = self._connection.execute(_SHARES).fetchone()
        if several or keyed or self._running_jobs_max:
            return Claimable(now, live, self._shared(wanted, due, limited=bool(keyed or self._running_jobs_max)))
        found: list[JobRow] = []
        for (engine, version), most in wanted.items():
            rows = self._connection.execute(_DUE, {"engine": engine, "version": version, "most": most, **due})
            found += map(to_job_row, rows)
        return Claimable(now, live, sorted(found, key=by_rank))

    def _shared(self, wanted: Mapping[tuple[str, int], int], due: Mapping[str, int], *, limited: bool) -> list[JobRow]:
        """By shares and within limits: who writes is alone, so what is counted stays so. Looked at is only what is counted;
        whole rows are read of those that start."""
        running = dict(self._connection.execute(_RUNNING).fetchall())
        holding = {(tenant, key): number for tenant, key, number in self._connection.execute(_HOLDING)}
        candidates: list[Candidate] = []
        for (tenant,) in self._connection.execute(_TENANTS).fetchall():
            for (engine, version), most in wanted.items():
                asked = {"tenant": tenant, "engine": engine, "version": version, "most": AHEAD if limited else most}
                ahead = self._connection.execute(_CANDIDATES, {**asked, **due}).fetchall()
                counted = ((*row, running.get(tenant, 0), holding.get((tenant, row[5]), 0)) for row in ahead)
                of_tenant = [Candidate(*row) for row in counted]
                fitting = [one for one in of_tenant if one.limit is None or one.holding < one.limit]
                candidates += fitting[: LIMITED_MAX if limited else most]
        ids = chosen(candidates, wanted, self._running_jobs_max)
        rows = {row.job.id: row for row in map(to_job_row, self._connection.execute(_TAKE, {"ids": _json(ids)}))}
        return [rows[job_id] for job_id in ids]

    async def append(self, events: Sequence[Recorded], jobs: Sequence[Job] = ()) -> None:
        if jobs:
            self._connection.executemany(_SAVE, [_changing(job) for job in jobs])
        epoch, lineage = self._connection.execute(_LINEAGE).fetchone()
        self._connection.executemany(_APPEND, [{**event_columns(recorded), "epoch": epoch} for recorded in events])
        self.epoch = f"{epoch}-{lineage}"

    async def put_artifacts(self, artifacts: Sequence[Artifact]) -> None:
        rows = [{"job_id": a.job_id, "sha256": a.sha256, "body": a.body} for a in artifacts]
        self._connection.executemany(_PUT_ARTIFACT, rows)

    async def copy_artifacts(self, source_job_id: str, job_id: str, sha256s: Sequence[str]) -> None:
        copied = {"source_job_id": source_job_id, "job_id": job_id, "sha256s": _json(sha256s)}
        self._connection.execute(_COPY_ARTIFACTS, copied)


def _json(values: Sequence[str] | Mapping[str, str] | set[str]) -> str:
    return encode(sorted(values)).decode()


def _changing(job: Job) -> dict[str, Any]:
    return {"this_id": job.id} | {f"new_{name}": getattr(job, name) for name in t.CHANGING}


def _sql(statement: Executable) -> str:
    """The statement as SQLite's driver takes it, with named parameters: written once, as building it takes longer than
    running it."""
    return str(statement.compile(dialect=dialect(paramstyle="named")))  # type: ignore[attr-defined]


def _among(name: str) -> Any:
    """The values of a JSON array: a list of any length, in a statement that stays the same."""
    return select(literal_column("value")).select_from(text(f"json_each(:{name})"))


_J, _E, _W = t.jobs.c, t.events.c, t.workers.c
_LOCK = _sql(select(*(_J[name] for name in t.LIFECYCLE)).where(_J.id.in_(_among("ids"))))
_FOUND = _sql(
    select(*RECORDED)
    .where(_E.job_id.in_(_among("ids")), _E.command_id.in_(_among("command_ids")))
    .order_by(_E.job_id, _E.seq)
)
_LIVE = _sql(select(_W.id).where(_W.id.in_(_among("ids")), _W.lease_until > bindparam("now")))
_INSERT_JOB = _sql(
    sqlite_insert(t.jobs).on_conflict_do_nothing(
        index_elements=[_J.tenant, _J.key_sha256], index_where=text("key_sha256 IS NOT NULL")
    )
)
_KEYED = _sql(select(*JOB_ROW).where(_J.tenant == bindparam("tenant"), _J.key_sha256 == bindparam("key")))
_UNFINISHED = _sql(
    select(*JOB_ROW).where(
        _J.tenant == bindparam("tenant"), _J.unique_key == bindparam("key"), text("status IN ('queued', 'running')")
    )
)
_HOLDERS = (
    "SELECT own.id, other.id FROM jobs own JOIN jobs other ON other.tenant = own.tenant "
    "AND other.unique_key = own.unique_key AND other.status IN ('queued', 'running') AND other.id <> own.id "
    "WHERE own.id IN (SELECT value FROM json_each(:ids))"
)
_IS_DUE = (
    _J.status == literal_column("'queued'"),
    _J.engine == bindparam("engine"),
    _J.engine_version == bindparam("version"),
    text("coalesce(jobs.not_before, 0) <= :now"),
    _J.losses < bindparam("losses"),
)
_DUE = f"{_sql(select(*JOB_ROW).where(*_IS_DUE).order_by(_J.rank))} LIMIT :most"
# As `Candidate` has them.
_COUNTED = (_J.id, _J.tenant, _J.engine, _J.engine_version, _J.rank, _J.concurrency_key, _J.concurrency_limit)
_OF_TENANT = select(*_COUNTED).where(*_IS_DUE, _J.tenant == bindparam("tenant")).order_by(_J.rank)
_CANDIDATES = f"{_sql(_OF_TENANT)} LIMIT :most"
_TAKE = _sql(select(*JOB_ROW).where(_J.id.in_(_among("ids"))))
# Whether several tenants wait, and whether a concurrency key does.
# Without being told SQLite takes the index of each tenant's jobs by status, which has the finished ones too.
_WAITING = "jobs INDEXED BY ix_jobs_share WHERE status = 'queued'"
_RUNS = "jobs INDEXED BY ix_jobs_running WHERE status = 'running'"
_SHARES = (
    f"SELECT (SELECT min(tenant) FROM {_WAITING}) IS NOT (SELECT max(tenant) FROM {_WAITING}), "
    "EXISTS (SELECT 1 FROM jobs INDEXED BY ix_jobs_concurrency WHERE concurrency_key IS NOT NULL "
    "AND status IN ('queued', 'running') AND status = 'queued')"
)
_TENANTS = (
    f"WITH RECURSIVE tenants (tenant) AS (SELECT min(tenant) FROM {_WAITING} UNION ALL SELECT "
    f"(SELECT min(tenant) FROM {_WAITING} AND tenant > tenants.tenant) FROM tenants "
    "WHERE tenants.tenant IS NOT NULL) SELECT tenant FROM tenants WHERE tenant IS NOT NULL"
)
_RUNNING = f"SELECT tenant, count(*) FROM {_RUNS} GROUP BY tenant"
_HOLDING = (
    f"SELECT tenant, concurrency_key, count(*) FROM {_RUNS} AND concurrency_key IS NOT NULL "
    "GROUP BY tenant, concurrency_key"
)
_SAVE = _sql(
    update(t.jobs).where(_J.id == bindparam("this_id")).values({name: bindparam(f"new_{name}") for name in t.CHANGING})
)
_LINEAGE = _sql(select(t.log.c.epoch, t.log.c.lineage))
_APPEND = _sql(insert(t.events).values({c.name: bindparam(c.name) for c in t.events.c if c.name != "pos"}))
_PUT_ARTIFACT = _sql(sqlite_insert(t.artifacts).on_conflict_do_nothing())
_COPY_ARTIFACTS = (
    "INSERT INTO artifacts (job_id, sha256, body) SELECT :job_id, sha256, body FROM artifacts "
    "WHERE job_id = :source_job_id AND sha256 IN (SELECT value FROM json_each(:sha256s))"
)
