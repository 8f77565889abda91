"""What both SQL adapters of the log share: reads, the fleet's tables, and turning driver errors into ours.

An adapter adds its engine, how it locks, inserts in bulk and reads the whole log in a safe order.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Integer,
    Row,
    Select,
    Text,
    and_,
    bindparam,
    case,
    cast,
    column,
    delete,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    table,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from events import tables as t
from events.catalog import FINAL
from events.errors import Contended, LogUnavailable, PhaselineError, Unstorable, WrongRevision
from events.holds_sql import SqlHolds
from events.job import CAREFUL_LOSSES, Job
from events.keys_sql import SqlKeys
from events.log import (
    FEED_BYTES_MAX,
    PAGE_BYTES_MAX,
    PAGE_EVENTS_MAX,
    ROOM_AFTER_LEASES,
    BeatReply,
    EngineRow,
    FeedPage,
    Head,
    Held,
    JobPage,
    JobQuery,
    JobRow,
    Look,
    Overdue,
    Stats,
    WorkerRow,
    makes_room,
)
from events.record import Line, Recorded
from events.retention_sql import SqlRetention, in_database
from events.schedules_sql import SqlSchedules
from events.shares import claimable_of
from events.values import decode, encode
from events.webhooks_sql import SqlWebhooks

READ_S = 5.0  # deadline of one read
BEAT_S = 1.5  # deadline of one beat
SWEEP_MARGIN_MS = 5_000  # the sweeper enforces deadlines only when the worker, who is asked first, stayed silent
WORKER_SHOWN_MS = 60_000
JOBS_PAGE = 500
EVENTS_PAGE = 2000
NO_LIMIT = 2**31 - 1
YOUNG_MAX = 500  # jobs looked at one by one, instead of going through all of them
COUNTED_MAX = 10_000  # due jobs of an engine that are counted; a queue of tickets holds no more

# As words of the statement: a plan for any status cannot use the indexes of one.
_QUEUED = t.jobs.c.status == literal_column("'queued'")
_RUNNING = t.jobs.c.status == literal_column("'running'")
_CAREFREE = t.jobs.c.losses < literal_column(str(CAREFUL_LOSSES))

RECORDED = tuple(t.events.c[name] for name in Recorded.__slots__)
JOB_ROW = (*(t.jobs.c[name] for name in t.LIFECYCLE), *(
    t.jobs.c[name] for name in t.DETAILS
))  # fmt: skip
_N = len(t.LIFECYCLE)
EPOCH = select(cast(t.log.c.epoch, Text) + "-" + t.log.c.lineage).scalar_subquery().label("log_epoch")


def to_job(row: Sequence[Any]) -> Job:
    """A `jobs` row's lifecycle columns, in `tables.LIFECYCLE` order."""
    return Job(*row[:_N])


def to_job_row(row: Sequence[Any]) -> JobRow:
    """A whole `jobs` row selected as `JOB_ROW`."""
    params, tags, *others = row[_N:]
    return JobRow(to_job(row), params, tuple(decode(tags)), *others)


def job_columns(row: JobRow) -> dict[str, Any]:
    """Every column of a `jobs` row."""
    return {
        **{name: getattr(row.job, name) for name in t.LIFECYCLE},
        "params": row.params,
        "tags": encode(list(row.tags)).decode(),
        "rerun_of": row.rerun_of,
        "from_phase": row.from_phase,
        "key_sha256": row.key_sha256,
        "fingerprint": row.fingerprint,
        "subject": row.subject,
        "unique_key": row.unique_key,
        "schedule": row.schedule,
        "webhook": row.webhook,
        "concurrency_key": row.concurrency_key,
        "concurrency_limit": row.concurrency_limit,
    }


def to_recorded(row: Sequence[Any]) -> Recorded:
    """An `events` row selected as `RECORDED`."""
    return Recorded(*row)


class SqlLog(SqlKeys, SqlHolds, SqlRetention, SqlWebhooks, SqlSchedules):
    """Shared half of the SQL adapters. `_reader` serves reads, `_writer` everything that writes."""

    name: str
    epoch: str
    running_jobs_max: int = 0
    failures: ClassVar[tuple[type[Exception], ...]] = (SQLAlchemyError, OSError)  # what `_translate` is for
    _reader: AsyncEngine

    # -- what adapters give

    def _translate(self, error: BaseException) -> PhaselineError:
        """The spine's error for a driver's."""
        if "no such table" in str(error):
            return self._no_table()
        if isinstance(error, InterfaceError | OperationalError | OSError | TimeoutError):
            return LogUnavailable(f"the database does not answer: {first_line(error)}")
        if isinstance(error, DBAPIError):
            if error.connection_invalidated:
                return LogUnavailable(f"the database does not answer: {first_line(error)}")
            return Unstorable(f"the database refused this content: {first_line(error)}")
        return LogUnavailable(f"the database does not answer: {first_line(error)}")

    def _no_table(self) -> PhaselineError:
        """Never migrated. In a log that was opened already: a restore under way, which is an outage until it is done."""
        return (
            LogUnavailable("a table is not there, as while a backup is restored; try again")
            if self.epoch
            else WrongRevision()
        )

    def _told(self, error: BaseException) -> BaseException:
        """What to raise for a failed call. Whoever was cancelled meanwhile is told that, whatever the driver made of it:
        taken for an outage, a loop that was asked to end went on."""
        task = asyncio.current_task()
        return asyncio.CancelledError() if task and task.cancelling() else self._translate(error)

    @contextlib.asynccontextmanager
    async def _writing(self, deadline_s: float) -> AsyncIterator[AsyncConnection]:
        """A short write beside the committer's transactions."""
        del deadline_s
        raise NotImplementedError
        yield  # type: ignore[unreachable]  # makes this a generator

    def _now_sql(self) -> ColumnElement[int]:
        """The database's time in ms, as an SQL expression."""
        raise NotImplementedError

    async def feed(
        self,
        cursor: str,
        limit: int,
        tenant: str | None = None,
        *,
        acts: bool = False,
        bytes_max: int = FEED_BYTES_MAX,
    ) -> FeedPage:
        """As the port says."""
        raise NotImplementedError

    # -- reading

    def _reading(self, tenant: str | None) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection to read on; with a tenant one that may see nothing else, where the database can do that."""
        del tenant
        return self._reader.connect()

    async def _read(self, work: Callable[[AsyncConnection], Awaitable[Any]], tenant: str | None = None) -> Any:
        """Runs a read; once more on a new connection when the pooled one turns out to be dead."""
        for last in (False, True):
            try:
                async with asyncio.timeout(READ_S), self._reading(tenant) as connection:
                    return await work(connection)
            except self.failures as error:
                failure = self._told(error)
                if isinstance(failure, Contended):  # a migration's lock, say: to who reads, an outage like any other
                    raise LogUnavailable("A lock in the database keeps reads waiting. Try again.") from error
                if last or not isinstance(failure, LogUnavailable):
                    raise failure from error
        raise AssertionError

    async def _rows(self, query: Select[Any], tenant: str | None = None) -> Sequence[Row[Any]]:
        async def work(connection: AsyncConnection) -> Sequence[Row[Any]]:
            found: Sequence[Row[Any]] = (await connection.execute(query)).all()
            return found

        rows: Sequence[Row[Any]] = await self._read(work, tenant)
        return rows

    async def _load_epoch(self) -> None:
        version = table("alembic_version", column("version_num"))
        revision = select(version.c.version_num).scalar_subquery()
        rows = await self._rows(select(t.log.c.epoch, t.log.c.lineage, revision.label("version_num")))
        if not rows or not await self._fits(rows[0].version_num):
            raise WrongRevision
        self.epoch = f"{rows[0].epoch}-{rows[0].lineage}"

    async def _fits(self, revision: str) -> bool:
        """Whether this code can work with a schema: its own, or a later one that took nothing away. During a rollout
        processes of the version before may be started again after the migration."""
        if revision <= t.REVISION:
            return revision == t.REVISION
        since = str((await self._rows(select(t.compatible.c.since)))[0].since)
        return since <= t.REVISION

    def _saw(self, rows: Sequence[Row[Any]]) -> None:
        """A restore changes the epoch under running processes: whoever asks for a head learns it with the head."""
        if rows and rows[0].log_epoch is not None:  # a restore may bring the log's own row last
            self.epoch = rows[0].log_epoch

    async def now(self) -> int:
        return int((await self._rows(select(self._now_sql())))[0][0])

    async def head(self, job_id: str, tenant: str | None = None) -> Head | None:
        query = select(t.jobs.c.last_seq, t.jobs.c.status, EPOCH).where(t.jobs.c.id == job_id)
        if tenant is not None:
            query = query.where(t.jobs.c.tenant == tenant)
        rows = await self._rows(query, tenant)
        self._saw(rows)
        return Head(rows[0].last_seq, rows[0].status) if rows else None

    async def heads(self, job_ids: Sequence[str]) -> dict[str, Head]:
        if not job_ids:
            return {}
        rows = await self._rows(
            select(t.jobs.c.id, t.jobs.c.last_seq, t.jobs.c.status, t.jobs.c.tenant, EPOCH).where(
                t.jobs.c.id.in_(list(job_ids))
            )
        )
        self._saw(rows)
        return {str(row.id): Head(row.last_seq, row.status, row.tenant) for row in rows}

    async def read(
        self, job_id: str, after: int, *, limit: int = PAGE_EVENTS_MAX, bytes_max: int = PAGE_BYTES_MAX
    ) -> list[Recorded]:
        # Sequences have no hole, so a range of them bounds the window before anything is summed.
        e = t.events.c
        page = (
            select(*RECORDED, func.sum(e.size).over(order_by=e.seq).label("total"))
            .where(e.job_id == job_id, e.seq > after, e.seq <= after + limit)
            .subquery()
        )
        columns = [page.c[name] for name in Recorded.__slots__]
        fits = or_(page.c.total <= bytes_max, page.c.seq == after + 1)
        rows = await self._rows(select(*columns).where(fits).order_by(page.c.seq))
        return [to_recorded(row) for row in rows]

    async def lines(self, job_id: str, after: int) -> list[Line]:
        return [(row.seq, row.type, row.line()) for row in await self.read(job_id, after)]

    async def read_back(self, job_id: str, before: int, limit: int) -> list[Recorded]:
        e = t.events.c
        query = select(*RECORDED).where(e.job_id == job_id, e.seq < before).order_by(e.seq.desc()).limit(limit)
        return [to_recorded(row) for row in await self._rows(query)]

    async def checkpoints(self, job_id: str) -> list[Recorded]:
        e = t.events.c
        query = select(*RECORDED).where(e.job_id == job_id, e.type == "checkpoint").order_by(e.seq)
        return [to_recorded(row) for row in await self._rows(query)]

    async def job(self, job_id: str, tenant: str | None = None) -> JobRow | None:
        query = select(*JOB_ROW).where(t.jobs.c.id == job_id)
        if tenant is not None:
            query = query.where(t.jobs.c.tenant == tenant)
        rows = await self._rows(query, tenant)
        return to_job_row(rows[0]) if rows else None

    async def previous(self, job: Job, subject: str) -> JobRow | None:
        j = t.jobs.c
        about = (j.tenant == job.tenant, j.engine == job.engine, j.subject == subject, j.id != job.id)
        query = select(*JOB_ROW).where(*about, j.finished_at <= job.created_at, j.status == "completed")
        rows = await self._rows(query.order_by(j.finished_at.desc(), j.id.desc()).limit(1))
        return to_job_row(rows[0]) if rows else None

    async def jobs(self, query: JobQuery) -> JobPage:
        rows = await self._rows(await self._job_page(query), query.tenant)
        return JobPage([to_job_row(row[1:]) for row in rows], bool(rows) and rows[0].found > len(rows))

    async def _job_page(self, query: JobQuery) -> Select[Any]:
        """Keys and sizes first, one more than may be: bodies are read only of what fits."""
        j = t.jobs.c
        size = sum((func.coalesce(self._octets(text), 0) for text in (j.tags, j.error)), self._octets(j.params))
        ids = (await self._listed(replace(query, limit=query.limit + 1))).subquery()
        keys = select(ids.c.id, size.label("size")).join(t.jobs, j.id == ids.c.id).subquery()
        newest = keys.c.id.desc()
        total, nth = func.sum(keys.c.size).over(order_by=newest), func.row_number().over(order_by=newest)
        counted = func.count().over().label("found")
        sized = select(keys.c.id, total.label("total"), nth.label("nth"), counted).subquery()
        fits = and_(sized.c.nth <= query.limit, or_(sized.c.total <= PAGE_BYTES_MAX, sized.c.nth == 1))
        return select(sized.c.found, *JOB_ROW).join(sized, sized.c.id == j.id).where(fits).order_by(j.id.desc())

    def _octets(self, text: ColumnElement[str]) -> ColumnElement[int]:
        """The bytes of a text; PostgreSQL knows them without reading it."""
        return func.octet_length(text, type_=Integer)

    async def job_ids(self, query: JobQuery) -> list[str]:
        return [str(row.id) for row in await self._rows(await self._listed(query), query.tenant)]

    async def count(self, query: JobQuery) -> int:
        found = (await self._listed(query)).order_by(None).subquery()
        return int((await self._rows(select(func.count()).select_from(found), query.tenant))[0][0])

    async def _listed(self, query: JobQuery) -> Select[Any]:
        """Ids along an index that ends in the id, newest first, so that a page reads what it shows: the tag's, else that of
        the engine, the status or the tenant, as the planner finds best. An index alone is read, and of each status its own:
        for bodies, or for several at once, the planner may go through all jobs from the newest on."""
        young = None if query.created_after is None else await self._young(query.tenant, query.created_after)
        statuses = dict.fromkeys(query.status)  # a page shows no job twice, whoever says a status twice
        if len(statuses) < 2:
            return _ids(query, young)
        each = [_ids(replace(query, status=(status,)), young).subquery() for status in statuses]
        both = union_all(*(select(one.c.id) for one in each)).subquery()
        return select(both.c.id).order_by(both.c.id.desc()).limit(_written(query.limit))

    async def _young(self, tenant: str, created_after: int) -> list[str] | None:
        """The jobs made since, when they are few: then they are all there is to look at. When they are many, the newest
        first are soon enough of them. Times and ids differ a little, so that neither bounds the other."""
        j = t.jobs.c
        made = select(j.id).where(j.tenant == tenant, j.created_at > created_after).limit(YOUNG_MAX)
        rows = await self._rows(made.order_by(j.created_at.desc()), tenant)
        return [str(row.id) for row in rows] if len(rows) < YOUNG_MAX else None

    async def all_jobs(self) -> AsyncIterator[JobRow]:
        last: str | None = None
        while True:
            page = select(*JOB_ROW).order_by(t.jobs.c.id).limit(JOBS_PAGE)
            rows = await self._rows(page if last is None else page.where(t.jobs.c.id > last))
            for row in rows:
                yield to_job_row(row)
            if len(rows) < JOBS_PAGE:
                return
            last = str(rows[-1].id)

    async def all_events(self) -> AsyncIterator[Recorded]:
        after: tuple[str, int] | None = None
        while rows := await self._rows(_events_after(after)):
            for row in rows:
                yield to_recorded(row)
            after = rows[-1].job_id, rows[-1].seq

    async def find_key(self, tenant: str, key_sha256: str) -> JobRow | None:
        query = select(*JOB_ROW).where(t.jobs.c.tenant == tenant, t.jobs.c.key_sha256 == key_sha256)
        rows = await self._rows(query, tenant)
        return to_job_row(rows[0]) if rows else None

    async def artifact(self, job_id: str, sha256: str) -> bytes | None:
        a = t.artifacts.c
        rows = await self._rows(select(a.body).where(a.job_id == job_id, a.sha256 == sha256))
        return bytes(rows[0].body) if rows else None

    async def artifact_size(self, job_id: str, sha256: str) -> int | None:
        a = t.artifacts.c
        rows = await self._rows(select(func.length(a.body)).where(a.job_id == job_id, a.sha256 == sha256))
        return int(rows[0][0]) if rows else None

    async def stats(self, tenant: str) -> Stats:
        j = t.jobs.c
        counts = await self._rows(select(j.status, func.count()).where(j.tenant == tenant).group_by(j.status), tenant)
        due = await self._rows(
            select(self._now_sql(), func.min(func.coalesce(j.not_before, j.created_at))).where(
                j.tenant == tenant, j.status == "queued"
            ),
            tenant,
        )
        now, oldest = tuple(due[0])
        age = max(now - oldest, 0) if oldest is not None else None
        return Stats(dict(map(tuple, counts)), age, await self._events_estimate())

    async def _events_estimate(self) -> int:
        raise NotImplementedError

    # -- fleet

    async def declare(self, engines: Sequence[EngineRow]) -> None:
        e = t.engines
        async with self._writing(READ_S) as connection:
            known = {row.name: row.version for row in await connection.execute(select(e.c.name, e.c.version))}
            for declared in engines:
                values = {"version": declared.version, "declaration": encode(asdict(declared)).decode()}
                if declared.name not in known:
                    await connection.execute(self._insert_or_ignore(e).values(name=declared.name, **values))
                # Compared again in the statement: another worker may declare a newer one at the same moment.
                await connection.execute(
                    update(e).where(e.c.name == declared.name, e.c.version <= declared.version).values(**values)
                )

    async def engines(self) -> list[EngineRow]:
        rows = await self._rows(select(t.engines.c.declaration).order_by(t.engines.c.name))
        return [_to_engine(row.declaration) for row in rows]

    async def beat(self, worker: WorkerRow, lease_s: float) -> BeatReply:
        w = t.workers
        async with self._writing(BEAT_S) as connection:
            now = int((await connection.execute(select(self._now_sql()))).scalar_one())
            lease_until = now + int(lease_s * 1000)
            said = {"draining": worker.draining, "slots": worker.slots, "beat_at": now, "lease_until": lease_until}
            known = await connection.execute(update(w).where(w.c.id == worker.id).values(**said))
            if known.rowcount == 0:
                await connection.execute(
                    self._insert_or_ignore(w).values(
                        id=worker.id,
                        host=worker.host,
                        pid=worker.pid,
                        build=worker.build,
                        engines=encode(dict(worker.engines)).decode(),
                        started_at=now,
                        **said,
                    )
                )
            held = await connection.execute(_held_by(worker.id))
            waiting = (await connection.execute(waiting_for_room(now, lease_s))).all()
            room = False
            if waiting:  # rare: a job took two workers down
                workers = map(_to_worker, await connection.execute(self._seen_workers()))
                room = makes_room(worker.id, {(row.engine, row.engine_version) for row in waiting}, workers, now)
            return BeatReply(now, lease_until, tuple(to_held(row) for row in held), room)

    async def leave(self, worker_id: str) -> None:
        async with self._writing(READ_S) as connection:
            await connection.execute(delete(t.workers).where(t.workers.c.id == worker_id))

    async def workers(self) -> list[WorkerRow]:
        return [_to_worker(row) for row in await self._rows(self._seen_workers())]

    def _seen_workers(self) -> Select[Any]:
        w, j = t.workers, t.jobs
        running = select(func.count()).where(j.c.worker_id == w.c.id, _RUNNING).scalar_subquery()
        seen = select(w, running.label("running")).where(w.c.lease_until > self._now_sql() - WORKER_SHOWN_MS)
        return seen.order_by(w.c.started_at)

    async def lead(self, name: str, holder: str, lease_s: float) -> bool:
        rows = t.leaders
        async with self._writing(BEAT_S) as connection:
            now = int((await connection.execute(select(self._now_sql()))).scalar_one())
            until = now + int(lease_s * 1000)
            mine = or_(rows.c.holder == holder, rows.c.lease_until < now)
            taken = await connection.execute(
                update(rows).where(rows.c.name == name, mine).values(holder=holder, lease_until=until)
            )
            if taken.rowcount:
                return True
            made = await connection.execute(
                self._insert_or_ignore(rows).values(name=name, holder=holder, lease_until=until)
            )
            return bool(made.rowcount)

    async def look(self, holder: str, names: Sequence[str], lease_s: float, copied: str | None) -> Look:
        rows = t.leaders.c
        led = select(rows.name, rows.holder, rows.lease_until, self._now_sql().label("now"))
        known = {row.name: row for row in await self._rows(led)}
        leads = []
        for name in names:
            row = known.get(name)
            held = row is not None and row.holder == holder and row.lease_until - row.now > lease_s * 500
            if held or await self.lead(name, holder, lease_s):
                leads.append(name)
        overdue = "expire" in leads and bool(await self.overdue(1))
        due = "tickets" in leads and await self._any_due()
        behind = copied is not None and bool((await self.feed(copied, 1)).events)
        ticks = "schedules" in leads and bool(await self.due_schedules(1))
        return Look(await self.now(), tuple(leads), overdue, due, behind, ticks)

    async def cursor(self, name: str) -> str | None:
        rows = await self._rows(select(t.leaders.c.cursor).where(t.leaders.c.name == name))
        return rows[0].cursor if rows else None

    async def save_cursor(self, name: str, holder: str, cursor: str) -> bool:
        rows = t.leaders
        async with self._writing(BEAT_S) as connection:
            saved = await connection.execute(
                update(rows).where(rows.c.name == name, rows.c.holder == holder).values(cursor=cursor)
            )
            return bool(saved.rowcount)

    # -- sweeping

    async def overdue(self, limit: int) -> list[Overdue]:
        query = self._overdue().limit(limit)
        return [Overdue(str(row.id), row.attempt, row.cause) for row in await self._rows(query)]

    def _overdue(self) -> Select[Any]:
        j, w = t.jobs.c, t.workers.c
        now = self._now_sql()
        live = exists().where(w.id == j.worker_id, w.lease_until > now)
        running = _RUNNING
        started_by = and_(_QUEUED, j.started_at.is_(None), _passed(j.opened_at, j.start_s, now))
        cause = case(
            (and_(running, ~live), literal("lost")),
            (and_(running, j.cancel_at + SWEEP_MARGIN_MS < now), literal("cancel_grace")),
            (and_(j.status.not_in(FINAL), _passed(j.opened_at, j.total_s, now)), literal("total_timeout")),
            (started_by, literal("start_timeout")),
            (and_(running, _passed(j.attempt_at, j.attempt_s, now, SWEEP_MARGIN_MS)), literal("attempt_timeout")),
            (and_(running, _passed(j.last_at, j.stall_s, now, SWEEP_MARGIN_MS)), literal("stall_timeout")),
        )
        judged = select(j.id, j.attempt, cause.label("cause"))
        timed = or_(j.start_s.is_not(None), j.total_s.is_not(None))
        found = union_all(judged.where(running), judged.where(_QUEUED, timed)).subquery()  # an index each
        return select(found).where(found.c.cause.is_not(None))

    async def _any_due(self) -> bool:
        j = t.jobs.c
        first = select(func.coalesce(j.not_before, 0) <= self._now_sql()).where(_QUEUED, _CAREFREE)
        rows = await self._rows(first.order_by(j.not_before.nulls_first()).limit(1))
        return bool(rows and rows[0][0])

    async def due_counts(self) -> dict[tuple[str, int], int]:
        j = t.jobs.c
        columns = (j.engine, j.engine_version, j.tenant, j.concurrency_key, j.concurrency_limit)
        rows: list[Row[Any]] = []
        engine = ""
        while engine := (await self._rows(select(func.min(j.engine)).where(_QUEUED, j.engine > engine)))[0][0]:
            due = select(*columns).where(_QUEUED, j.engine == engine, _CAREFREE)
            due = due.where(func.coalesce(j.not_before, literal_column("0")) <= self._now_sql())
            some = due.limit(COUNTED_MAX).subquery()
            rows += await self._rows(select(*some.c, func.count()).group_by(*some.c))
        running: dict[str, int] = {}
        holding: dict[tuple[str, str], int] = {}
        if self.running_jobs_max or any(row.concurrency_key for row in rows):
            runs = select(j.tenant, j.concurrency_key, func.count()).where(_RUNNING)
            for tenant, key, number in map(tuple, await self._rows(runs.group_by(j.tenant, j.concurrency_key))):
                running[tenant] = running.get(tenant, 0) + number
                holding[tenant, key] = number
        return claimable_of(map(tuple, rows), running, holding, self.running_jobs_max)

    async def make_partitions(self) -> None:
        return None

    async def accepts(self, job_id: str) -> bool:
        del job_id
        return True

    async def rebuild(self, job: JobRow) -> None:
        columns = {name: value for name, value in job_columns(job).items() if name not in (*t.CHANGING, "id")}
        async with self._writing(READ_S) as connection:
            await connection.execute(update(t.jobs).where(t.jobs.c.id == job.job.id).values(**columns))


def winners(losers: Iterable[JobRow], found: Iterable[Sequence[Any]]) -> dict[str, JobRow]:
    """By the id of each loser, the row among those found (as `JOB_ROW`) that has its key."""
    by_key = {(row.job.tenant, row.key_sha256): row for row in map(to_job_row, found)}
    return {row.job.id: by_key[row.job.tenant, row.key_sha256] for row in losers}


def event_columns(recorded: Recorded) -> dict[str, Any]:
    """Every column of an `events` row but `epoch`, `pos` and `xid`."""
    return {
        **{name: getattr(recorded, name) for name in Recorded.__slots__},
        "size": len(recorded.data),
        "digest": recorded.digest,
    }


def _events_after(after: tuple[str, int] | None) -> Select[Any]:
    """The next page of all events by job and sequence: the keys first, so that bodies are read only of what fits."""
    e = t.events.c
    keys = select(e.job_id, e.seq, e.size).where(in_database(e.job_id)).order_by(e.job_id, e.seq).limit(EVENTS_PAGE)
    if after is not None:
        keys = keys.where(tuple_(e.job_id, e.seq) > tuple_(literal(after[0], t.Id), literal(after[1], BigInteger)))
    page = keys.subquery()
    order = (page.c.job_id, page.c.seq)
    total, nth = func.sum(page.c.size).over(order_by=order), func.row_number().over(order_by=order)
    sized = select(*order, total.label("total"), nth.label("nth")).subquery()
    fits = or_(sized.c.total <= FEED_BYTES_MAX, sized.c.nth == 1)
    found = select(*RECORDED).join(sized, and_(sized.c.job_id == e.job_id, sized.c.seq == e.seq))
    return found.where(fits).order_by(e.job_id, e.seq)


def _held_by(worker_id: str) -> Select[Any]:
    j = t.jobs.c
    return select(
        j.id, j.attempt, j.lease_id, j.cancel_mode, j.cancel_at, j.opened_at, j.total_s
    ).where(j.worker_id == worker_id, _RUNNING)  # fmt: skip


def waiting_for_room(now: int, lease_s: float) -> Select[Any]:
    """Engines and versions of jobs that must run alone and have been due for long."""
    j = t.jobs.c
    since = now - int(ROOM_AFTER_LEASES * lease_s * 1000)
    must_run_alone = and_(_QUEUED, j.losses >= literal_column(str(CAREFUL_LOSSES)))
    long_due = and_(j.last_at <= since, func.coalesce(j.not_before, 0) <= since)
    return select(j.engine, j.engine_version).distinct().where(must_run_alone, long_due)


def _ids(query: JobQuery, young: Sequence[str] | None) -> Select[Any]:
    j = t.jobs.c
    found = select(j.id).where(j.tenant == query.tenant).limit(_written(query.limit))
    place: Any = j.id
    for number, tag in enumerate(query.tags):
        tags = t.job_tags.alias(f"tag_{number}")
        found = found.join(tags, tags.c.job_id == j.id).where(tags.c.tenant == query.tenant, tags.c.tag == tag)
        place = tags.c.job_id if number == 0 else place
    if query.status:
        found = found.where(j.status.in_(query.status))
    if query.engine is not None:
        found = found.where(j.engine == query.engine)
    if query.rerun_of is not None:
        found = found.where(j.rerun_of == query.rerun_of)
    if query.created_after is not None:
        found = found.where(j.created_at > query.created_after)
        found = found if young is None else found.where(j.id.in_(young))
    if query.before is not None:
        found = found.where(place < query.before)
    if query.up_to is not None:
        found = found.where(place <= query.up_to)
    return found.order_by(place.desc())


def _written(limit: int) -> BindParameter[int]:
    """A limit that stands in the statement: of one it does not know a planner expects a tenth of all there is, and joins
    that to a whole table."""
    return bindparam("rows", limit, Integer, unique=True, literal_execute=True)


@lru_cache(maxsize=64)  # gateways ask every few seconds, the schema of a large engine is long, and neither ever changes
def _to_engine(declaration: str) -> EngineRow:
    return EngineRow(**decode(declaration))


def _to_worker(row: Row[Any]) -> WorkerRow:
    return WorkerRow(**{**row._asdict(), "engines": decode(row.engines)})


def to_held(row: Row[Any]) -> Held:
    """A row of `_held_by`."""
    total_at = row.opened_at + int(row.total_s * 1000) if row.total_s is not None else None
    return Held(str(row.id), row.attempt, row.lease_id, row.cancel_mode, row.cancel_at, total_at)


def _passed(since: Any, limit_s: Any, now: Any, margin_ms: int = 0) -> ColumnElement[bool]:
    passed: ColumnElement[bool] = since + limit_s * 1000 + margin_ms < now
    return passed


def first_line(error: BaseException) -> str:
    """What the driver said, without its hints."""
    return (str(getattr(error, "orig", None) or error) or type(error).__name__).partition("\n")[0]
