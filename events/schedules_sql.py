"""Schedules in the log's database, for both dialects: a part of `SqlLog`, whose reads and writes it uses."""

from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import Row, and_, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from events import tables as t
from events.acts import By, Deed
from events.acts_sql import Acting, SqlActs
from events.catalog import ActName
from events.clock import rfc3339
from events.schedules import SCHEDULES_CHARS_MAX, SCHEDULES_MAX, Schedule, ScheduleAct
from events.sql_part import WRITE_S
from events.values import decode, encode


class SqlSchedules(SqlActs):
    """See `events/schedules.py` for the promises."""

    # -- schedules

    async def add_schedule(self, schedule: Schedule, recorded: ScheduleAct) -> Literal["made", "taken", "full"]:
        s = t.schedules
        values = {name: getattr(schedule, name) for name in Schedule.__slots__}
        values["job"] = encode(dict(schedule.job)).decode()
        changed = {"cron": schedule.cron, "timezone": schedule.timezone, "engine": schedule.job["engine"]}
        async with self._acting() as acting:
            size = func.coalesce(func.sum(func.length(s.c.job)), 0)
            there = select(func.count(), size).where(s.c.tenant == schedule.tenant)
            number, chars = (await acting.connection.execute(there)).one()
            if number >= SCHEDULES_MAX or chars + len(values["job"]) > SCHEDULES_CHARS_MAX:
                return "full"
            made = await acting.connection.execute(self._insert_or_ignore(s).values(**values))
            if not made.rowcount:
                return "taken"
            await _record(acting.connection, schedule.id, [recorded])
            await acting.record(schedule.tenant, _deed(recorded, schedule.name, **changed))
            return "made"

    async def schedules(self, tenant: str) -> list[Schedule]:
        s = t.schedules.c
        query = select(*_SCHEDULE).where(s.tenant == tenant).order_by(s.name)
        return list(map(_to_schedule, await self._rows(query, tenant)))

    async def schedule(self, tenant: str, name: str) -> Schedule | None:
        s = t.schedules.c
        rows = await self._rows(select(*_SCHEDULE).where(s.tenant == tenant, s.name == name), tenant)
        return _to_schedule(rows[0]) if rows else None

    async def set_schedule(self, schedule_id: str, next_at: int | None, recorded: ScheduleAct) -> bool:
        s = t.schedules
        changed = {} if next_at is None else {"next_at": rfc3339(next_at)}
        async with self._acting() as acting:
            moved = update(s).where(s.c.id == schedule_id).values(next_at=next_at)
            return await _administer(acting, schedule_id, moved, recorded, **changed)

    async def drop_schedule(self, schedule_id: str, recorded: ScheduleAct) -> bool:
        s = t.schedules
        async with self._acting() as acting:
            return await _administer(acting, schedule_id, delete(s).where(s.c.id == schedule_id), recorded)

    async def schedule_acts(self, schedule_id: str, limit: int) -> list[ScheduleAct]:
        a = t.schedule_acts.c
        query = select(*_ACT).where(a.schedule_id == schedule_id).order_by(a.no.desc()).limit(limit)
        return [ScheduleAct(**row._asdict()) for row in await self._rows(query)]

    async def due_schedules(self, limit: int) -> list[Schedule]:
        s = t.schedules.c
        query = select(*_SCHEDULE).where(s.next_at <= self._now_sql()).order_by(s.next_at).limit(limit)
        return list(map(_to_schedule, await self._rows(query)))

    async def advance_schedule(self, done: Schedule, next_at: int, recorded: Sequence[ScheduleAct]) -> bool:
        s = t.schedules
        moved = {"next_at": next_at, "last_at": done.last_at, "last_job_id": done.last_job_id}
        mine = and_(s.c.id == done.id, s.c.next_at == done.next_at)
        async with self._writing(WRITE_S) as connection:
            if not (await connection.execute(update(s).where(mine).values(**moved))).rowcount:
                return False
            await _record(connection, done.id, recorded)
            return True


async def _administer(acting: Acting, schedule_id: str, statement: Any, recorded: ScheduleAct, **changed: Any) -> bool:
    """What somebody does with a schedule, told to it and to the audit. False when it is gone."""
    s = t.schedules.c
    named = select(s.tenant, s.name).where(s.id == schedule_id).with_for_update()
    found = (await acting.connection.execute(named)).one_or_none()
    if found is None:
        return False
    await acting.connection.execute(statement)
    await _record(acting.connection, schedule_id, [recorded])
    await acting.record(found.tenant, _deed(recorded, found.name, **changed))
    return True


def _deed(recorded: ScheduleAct, name: str, **changed: Any) -> Deed:
    act: ActName = _ACTS[recorded.act]
    return By(recorded.actor, recorded.address, recorded.detail).did(act, name, **changed)


async def _record(connection: AsyncConnection, schedule_id: str, recorded: Sequence[ScheduleAct]) -> None:
    for one in recorded:
        values = {name: getattr(one, name) for name in ScheduleAct.__slots__}
        await connection.execute(insert(t.schedule_acts).values(schedule_id=schedule_id, **values))


_ACTS: dict[str, ActName] = {
    "created": "schedule_created",
    "paused": "schedule_paused",
    "resumed": "schedule_resumed",
    "deleted": "schedule_deleted",
}
_SCHEDULE = tuple(t.schedules.c[name] for name in Schedule.__slots__)
_ACT = tuple(t.schedule_acts.c[name] for name in ScheduleAct.__slots__)


def _to_schedule(row: Row[Any]) -> Schedule:
    return Schedule(**row._asdict() | {"job": decode(row.job)})
