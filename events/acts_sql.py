"""Administrative acts in the log's database, for both dialects: a part of `SqlLog`, whose reads and writes it uses."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from events import tables as t
from events.acts import Deed, act_id, recorded_act
from events.record import Recorded
from events.sql_part import WRITE_S, SqlPart

_RECORDED = tuple(t.events.c[name] for name in Recorded._fields)


@dataclass(frozen=True, slots=True)
class Acting:
    """A transaction in which something is changed, and the place of the one act that tells of it. `at` in ms."""

    connection: AsyncConnection
    stream_id: str
    at: int

    async def record(self, tenant: str, deed: Deed) -> None:
        """Appends the act. Raises `Unstorable`."""
        for statement in act_statements(recorded_act(self.stream_id, self.at, tenant, deed)):
            await self.connection.execute(statement)


class SqlActs(SqlPart):
    """See `events/acts.py` for the promises."""

    on_act: Callable[[], None] | None = None  # told after an act was committed; must not wait

    @contextlib.asynccontextmanager
    async def _acting(self) -> AsyncIterator[Acting]:
        stream_id, at = await self.act_place()
        async with self._writing(WRITE_S) as connection:
            yield Acting(connection, stream_id, at)
        if self.on_act is not None:
            self.on_act()

    async def act_place(self) -> tuple[str, int]:
        """A new act's stream id and time. Its partition is there: nobody may have served this log for weeks."""
        at = await self.now()
        stream_id = act_id(at)
        if not await self.accepts(stream_id):
            await self.make_partitions()
        return stream_id, at

    async def acts(self, tenant: str, before: str | None, limit: int) -> list[Recorded]:
        a, e = t.acts.c, t.events.c
        found = select(*_RECORDED).join(t.acts, and_(a.job_id == e.job_id, a.tenant == e.tenant))
        found = found.where(a.tenant == tenant, e.seq == 1).order_by(a.job_id.desc()).limit(limit)
        rows = await self._rows(found if before is None else found.where(a.job_id < before), tenant)
        return [_to_recorded(row) for row in rows]


def act_statements(recorded: Recorded) -> Sequence[Any]:
    """What appends an act, in any transaction. The epoch is the log's own until that ends (`BEGIN_EPOCH`)."""
    columns = recorded._asdict()
    stored = {"size": len(recorded.data), "digest": recorded.digest, "epoch": select(t.log.c.epoch).scalar_subquery()}
    return (
        insert(t.events).values(**columns, **stored).inline(),
        insert(t.acts).values(job_id=recorded.job_id, tenant=recorded.tenant),
    )


def _to_recorded(row: Sequence[Any]) -> Recorded:
    return Recorded(*row)
