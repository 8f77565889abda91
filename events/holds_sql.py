"""Legal holds in the log's database, for both dialects: a part of `SqlLog`, whose reads and writes it uses."""

from sqlalchemy import insert, select

from events import tables as t
from events.acts import By
from events.acts_sql import SqlActs
from events.holds import HoldAct

_ACT = tuple(t.holds.c[name] for name in HoldAct.__slots__)


class SqlHolds(SqlActs):
    """See `events/holds.py` for the promises."""

    async def hold(self, act: HoldAct) -> None:
        values = {name: getattr(act, name) for name in HoldAct.__slots__} | {"at": self._now_sql()}
        by = By(act.actor, act.address, act.reason)
        async with self._acting() as acting:
            await acting.connection.execute(insert(t.holds).values(**values))
            await acting.record(act.tenant, by.did("hold_placed" if act.held else "hold_lifted", act.job_id))

    async def hold_acts(self, job_id: str) -> list[HoldAct]:
        rows = await self._rows(select(*_ACT).where(t.holds.c.job_id == job_id).order_by(t.holds.c.no))
        return [HoldAct(**row._asdict() | {"job_id": str(row.job_id)}) for row in rows]
