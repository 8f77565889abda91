"""Retention in the log's database, for both dialects: a part of `SqlLog`, whose reads and writes it uses."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

from sqlalchemy import ColumnElement, and_, delete, exists, false, func, insert, not_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from events import tables as t
from events.acts import By, act_id, recorded_act
from events.acts_sql import SqlActs, act_statements
from events.errors import JobArchived
from events.retention import Archived, Due, Pin, Rule, Waiting, deeds, id_at

PAGE = 500
TAKE_OUT_S = 600.0  # deadline of taking jobs out, and of looking through a partition
_ARCHIVED = tuple(t.archived.c[name] for name in Archived.__slots__)
_PIN = tuple(t.pins.c[name] for name in Pin.__slots__)
_ERASED = exists().where(t.erasures.c.job_id == t.jobs.c.id).correlate(t.jobs).label("erased")
_DUE = (*(t.jobs.c[name] for name in ("id", "tenant", "engine", "status", "last_seq", "finished_at")), _ERASED)


class SqlRetention(SqlActs):
    """See `events/retention.py` for the promises. An adapter adds how jobs are taken out."""

    async def first_job(self) -> str | None:
        rows = await self._rows(select(t.jobs.c.id).order_by(t.jobs.c.id).limit(1))
        return str(rows[0].id) if rows else None

    async def due_for_archive(self, rules: Sequence[Rule], limit: int, after: str = "", before: str = "") -> list[Due]:
        aged = [rule for rule in rules if rule.age_ms is not None]
        if not aged:
            return []
        j, now = t.jobs.c, await self.now()
        # An id is never younger than its job's end: what was made since cannot be due, and is not looked at.
        youngest = now - min(rule.age_ms or 0 for rule in aged)
        found = select(*_DUE).where(j.id < id_at(youngest), or_(*(self._old(rule, rules, now) for rule in aged)))
        if after:
            found = found.where(j.id > after)
        if before:
            found = found.where(j.id < before)
        rows = await self._rows(found.where(not_(kept())).order_by(j.id).limit(limit))
        return [_to_due(row) for row in rows]

    async def waiting_for_archive(self, rules: Sequence[Rule]) -> list[Waiting]:
        j, now = t.jobs.c, await self.now()
        waiting: list[Waiting] = []
        for rule in rules:
            due, stays, oldest = 0, 0, None
            if rule.age_ms is not None:
                counted = (kept().label("kept"), func.count().label("jobs"), func.min(j.finished_at).label("oldest"))
                counts = select(*cast(tuple[Any, ...], counted))
                for row in await self._rows(counts.where(self._old(rule, rules, now)).group_by("kept")):
                    if row.kept:
                        stays = row.jobs
                    else:
                        due, oldest = row.jobs, row.oldest
            waiting.append(Waiting(rule, due, stays, oldest))
        return waiting

    def _old(self, rule: Rule, rules: Sequence[Rule], now: int) -> ColumnElement[bool]:
        j = t.jobs.c
        if rule.age_ms is None:
            return false()
        whose: ColumnElement[bool] = j.engine == rule.engine
        if rule.engine is None:
            whose = j.engine.not_in([one.engine for one in rules if one.engine and one.status == rule.status])
        return and_(j.status == rule.status, whose, j.finished_at <= now - rule.age_ms)

    async def artifact_names(self, job_id: str) -> list[str]:
        a = t.artifacts.c
        return [row.sha256 for row in await self._rows(select(a.sha256).where(a.job_id == job_id).order_by(a.sha256))]

    async def archived(self, job_ids: Sequence[str], tenant: str | None = None) -> dict[str, Archived]:
        found = select(*_ARCHIVED).where(t.archived.c.job_id.in_(list(job_ids)))
        if tenant is not None:
            found = found.where(t.archived.c.tenant == tenant)
        return {one.job_id: one for one in map(_to_archived, await self._rows(found, tenant))}

    async def archived_of(self, tenant: str, before: str | None, limit: int) -> list[Archived]:
        a = t.archived.c
        found = select(*_ARCHIVED).where(a.tenant == tenant).order_by(a.job_id.desc()).limit(limit)
        rows = await self._rows(found if before is None else found.where(a.job_id < before), tenant)
        return [_to_archived(row) for row in rows]

    async def archived_in(self, place: str) -> list[Archived]:
        """The jobs in an object, in the order they lie in it."""
        a = t.archived.c
        rows = await self._rows(select(*_ARCHIVED).where(a.place == place).order_by(a.start))
        return [_to_archived(row) for row in rows]

    async def archives_any(self) -> bool:
        a = t.archived.c
        return bool(await self._rows(select(a.job_id).where(a.place.is_not(None)).limit(1)))

    async def places(self) -> set[str]:
        a = t.archived.c
        return {row.place for row in await self._rows(select(a.place).where(a.place.is_not(None)).distinct())}

    async def all_archived(self, job_id: str | None = None) -> AsyncIterator[Archived]:
        query = select(*_ARCHIVED).order_by(t.archived.c.job_id).limit(PAGE)
        query = query if job_id is None else query.where(t.archived.c.job_id == job_id)
        page = query
        while rows := [_to_archived(row) for row in await self._rows(page)]:
            for row in rows:
                yield row
            page = query.where(t.archived.c.job_id > rows[-1].job_id)

    async def pin(self, job_id: str, tenant: str, by: By) -> None:
        async with self._acting() as acting:
            # Until this ends retention waits for the row, or this for retention.
            there = select(t.jobs.c.id).where(t.jobs.c.id == job_id).with_for_update(read=True)
            if (await acting.connection.execute(there)).first() is None:
                raise JobArchived
            said = {"actor": by.actor, "address": by.address, "reason": by.reason or ""}
            await acting.connection.execute(delete(t.pins).where(t.pins.c.job_id == job_id))
            await acting.connection.execute(insert(t.pins).values(job_id=job_id, tenant=tenant, at=acting.at, **said))
            await acting.record(tenant, by.did("job_pinned", job_id))

    async def unpin(self, job_id: str, by: By) -> bool:
        async with self._acting() as acting:
            gone = delete(t.pins).where(t.pins.c.job_id == job_id).returning(t.pins.c.tenant)
            tenant = (await acting.connection.execute(gone)).scalar_one_or_none()
            if tenant is not None:
                await acting.record(tenant, by.did("job_unpinned", job_id))
            return tenant is not None

    async def _tell(self, connection: AsyncConnection, at: int, went: Sequence[Archived]) -> None:
        """Appends the acts of those that went."""
        for tenant, deed in deeds(went):
            for statement in act_statements(recorded_act(act_id(at), at, tenant, deed)):
                await connection.execute(statement)

    async def pinned(self, job_id: str) -> Pin | None:
        rows = await self._rows(select(*_PIN).where(t.pins.c.job_id == job_id))
        return Pin(**rows[0]._asdict() | {"job_id": str(rows[0].job_id)}) if rows else None


def kept() -> ColumnElement[bool]:
    """Whether a row of `jobs` stays, however old: it is pinned, held, or a webhook of it is still to be delivered."""
    j, p, h, d = t.jobs.c, t.pins.c, t.holds.c, t.deliveries.c
    held = select(h.held).where(h.job_id == j.id).order_by(h.no.desc()).limit(1).correlate(t.jobs).scalar_subquery()
    return or_(
        exists().where(p.job_id == j.id).correlate(t.jobs),
        func.coalesce(held, false()),
        exists().where(d.job_id == j.id, d.state == "pending").correlate(t.jobs),
    )


def in_database(job_id: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a job is not in the archive: its events may be in the database all the same, until they are dropped."""
    return not_(exists().where(t.archived.c.job_id == job_id))


def _to_due(row: Sequence[Any]) -> Due:
    return Due(str(row[0]), row[1], row[2], row[3], row[4], row[5], bool(row[6]))


def _to_archived(row: Sequence[Any]) -> Archived:
    return Archived(str(row[0]), *row[1:])
