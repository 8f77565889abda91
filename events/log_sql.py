"""What both SQL adapters of the log share: reads of events, and turning driver errors into ours.

An adapter adds its engine, how it locks, inserts in bulk and reads the whole log in a safe order.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Row,
    Select,
    Text,
    and_,
    cast,
    column,
    func,
    literal,
    or_,
    select,
    table,
    tuple_,
)
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from events import tables as t
from events.errors import Contended, LogUnavailable, PhaselineError, Unstorable, WrongRevision
from events.fleet_sql import SqlFleet
from events.holds_sql import SqlHolds
from events.job import Job
from events.jobs_sql import SqlJobs
from events.keys_sql import SqlKeys
from events.log import (
    FEED_BYTES_MAX,
    PAGE_BYTES_MAX,
    PAGE_EVENTS_MAX,
    FeedPage,
    Head,
    Look,
    UnlockedTransaction,
)
from events.record import Line, Recorded
from events.retention_sql import SqlRetention, in_database
from events.rows_sql import RECORDED, first_line, to_recorded
from events.schedules_sql import SqlSchedules
from events.webhooks_sql import SqlWebhooks

READ_S = 5.0  # deadline of one read
EVENTS_PAGE = 2000

EPOCH = select(cast(t.log.c.epoch, Text) + "-" + t.log.c.lineage).scalar_subquery().label("log_epoch")


class SqlLog(SqlJobs, SqlFleet, SqlKeys, SqlHolds, SqlRetention, SqlWebhooks, SqlSchedules):
    """Shared half of the SQL adapters. `_reader` serves reads, `_writer` everything that writes."""

    name: str
    epoch: str
    unlocks: bool = False
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

    def unlocked(
        self, known: Mapping[str, Job], clock: Callable[[], int]
    ) -> AbstractAsyncContextManager[UnlockedTransaction]:
        """As the port says."""
        raise NotImplementedError

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
        columns = [page.c[name] for name in Recorded._fields]
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

    async def all_events(self) -> AsyncIterator[Recorded]:
        after: tuple[str, int] | None = None
        while rows := await self._rows(_events_after(after)):
            for row in rows:
                yield to_recorded(row)
            after = rows[-1].job_id, rows[-1].seq

    async def artifact(self, job_id: str, sha256: str) -> bytes | None:
        a = t.artifacts.c
        rows = await self._rows(select(a.body).where(a.job_id == job_id, a.sha256 == sha256))
        return bytes(rows[0].body) if rows else None

    async def artifact_size(self, job_id: str, sha256: str) -> int | None:
        a = t.artifacts.c
        rows = await self._rows(select(func.length(a.body)).where(a.job_id == job_id, a.sha256 == sha256))
        return int(rows[0][0]) if rows else None

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

    async def make_partitions(self) -> None:
        return None

    async def accepts(self, job_id: str) -> bool:
        del job_id
        return True


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
