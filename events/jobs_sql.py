"""Jobs as people ask for them, for both dialects: one, pages, counts. A part of `SqlLog`, whose reads it uses."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Integer,
    Select,
    and_,
    bindparam,
    func,
    or_,
    select,
    union_all,
    update,
)

from events import tables as t
from events.job import Job
from events.log import (
    PAGE_BYTES_MAX,
    JobPage,
    JobQuery,
    JobRow,
    Stats,
)
from events.rows_sql import JOB_ROW, job_columns, to_job_row
from events.sql_part import WRITE_S, SqlPart

JOBS_PAGE = 500
YOUNG_MAX = 500  # jobs looked at one by one, instead of going through all of them


class SqlJobs(SqlPart):
    """See `Log` for the promises."""

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

    async def find_key(self, tenant: str, key_sha256: str) -> JobRow | None:
        query = select(*JOB_ROW).where(t.jobs.c.tenant == tenant, t.jobs.c.key_sha256 == key_sha256)
        rows = await self._rows(query, tenant)
        return to_job_row(rows[0]) if rows else None

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

    async def rebuild(self, job: JobRow) -> None:
        columns = {name: value for name, value in job_columns(job).items() if name not in (*t.CHANGING, "id")}
        async with self._writing(WRITE_S) as connection:
            await connection.execute(update(t.jobs).where(t.jobs.c.id == job.job.id).values(**columns))


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
