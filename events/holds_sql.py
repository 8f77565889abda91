"""Legal holds in the log's database, for both dialects: a part of `SqlLog`, whose reads and writes it uses."""

from sqlalchemy import insert, select

from events import tables as t
from events.acts import By
from events.acts_sql import SqlActs
from events.errors import JobArchived
from events.holds import HoldAct

_ACT = tuple(t.holds.c[name] for name in HoldAct.__slots__)


class SqlHolds(SqlActs):
    """See `events/holds.py` for the promises."""

    async def hold(self, act: HoldAct) -> None:
        values = {name: getattr(act, name) for name in HoldAct.__slots__} | {"at": self._now_sql()}
        by = By(act.actor, act.address, act.reason)
        async with self._acting() as acting:
            await acting.connection.execute(insert(t.holds).values(**values))
            # That waited for retention, too: what is left is seen by a statement that begins after it.
            j, a = t.jobs.c, t.archived.c
            left = (
                select(j.id)
                .where(j.id == act.job_id)
                .union_all(select(a.job_id).where(a.job_id == act.job_id, a.place.is_not(None)))
            )
            if (await acting.connection.execute(left)).first() is None:
                raise JobArchived("The job was discarded by retention: there is nothing to hold.")
            await acting.record(act.tenant, by.did("hold_placed" if act.held else "hold_lifted", act.job_id))

    async def hold_acts(self, job_id: str) -> list[HoldAct]:
        rows = await self._rows(select(*_ACT).where(t.holds.c.job_id == job_id).order_by(t.holds.c.no))
        return [HoldAct(**row._asdict() | {"job_id": str(row.job_id)}) for row in rows]
