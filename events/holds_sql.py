"""Legal holds in the log's database, for both dialects: a part of `SqlLog`, whose reads and writes it uses."""

from sqlalchemy import insert, select

from events import tables as t
from events.holds import HoldAct
from events.sql_part import WRITE_S, SqlPart

_ACT = tuple(t.holds.c[name] for name in HoldAct.__slots__)


class SqlHolds(SqlPart):
    """See `events/holds.py` for the promises."""

    async def hold(self, act: HoldAct) -> None:
        values = {name: getattr(act, name) for name in HoldAct.__slots__} | {"at": self._now_sql()}
        async with self._writing(WRITE_S) as connection:
            await connection.execute(insert(t.holds).values(**values))

    async def hold_acts(self, job_id: str) -> list[HoldAct]:
        rows = await self._rows(select(*_ACT).where(t.holds.c.job_id == job_id).order_by(t.holds.c.no))
        return [HoldAct(**row._asdict() | {"job_id": str(row.job_id)}) for row in rows]
