"""Webhooks in the log's database, for both dialects: a part of `SqlLog`, whose reads and writes it uses."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import BigInteger, Text, and_, bindparam, delete, insert, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from events import tables as t
from events.acts import By
from events.acts_sql import SqlActs
from events.sql_part import WRITE_S
from events.values import encode
from events.webhooks import Answer, Attempt, Delivery, DueDeliveries, Endpoint, Owed, State, origin_of

_ENDPOINT = tuple(t.webhooks.c[name] for name in Endpoint.__slots__)
_ATTEMPT = tuple(t.delivery_attempts.c[name] for name in Attempt.__slots__)
_OWED = tuple(t.deliveries.c[name] for name in Owed.__slots__ if name != "tried")
_NOW = {  # in ms; asked once, so that an index may be searched for it
    "postgresql": "(SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint)",
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
}
_PAIRS = {"postgresql": "json_each_text(CAST(:after AS json))", "sqlite": "json_each(:after)"}
# One look at the index finds the next tenant, or a tenant's next lane, however much waits in the one before. Every tenant's
# first lane comes before anyone's second, and nobody's lanes are counted against another.
_LANES = """
    WITH RECURSIVE tenants (tenant) AS (
        SELECT min(tenant) FROM deliveries WHERE state = 'pending'
        UNION ALL
        SELECT (SELECT min(d.tenant) FROM deliveries d WHERE d.state = 'pending' AND d.tenant > tenants.tenant)
        FROM tenants WHERE tenants.tenant IS NOT NULL
    ), lanes (tenant, lane, place) AS (
        SELECT tenant, (SELECT min(d.lane) FROM deliveries d WHERE d.state = 'pending' AND d.tenant = tenants.tenant
            AND d.lane > coalesce(begun.value, '')), 1
        FROM tenants LEFT JOIN {pairs} AS begun ON begun.key = tenants.tenant WHERE tenant IS NOT NULL
        UNION ALL
        SELECT tenant, (SELECT min(d.lane) FROM deliveries d WHERE d.state = 'pending' AND d.tenant = lanes.tenant
            AND d.lane > lanes.lane), place + 1
        FROM lanes WHERE lane IS NOT NULL AND place < :lanes
    )
    SELECT lanes.tenant, lanes.lane, lanes.place, d.job_id, d.seq, d.next_at FROM lanes LEFT JOIN {due} ON {joined}
    WHERE lanes.lane IS NOT NULL AND (d.seq IS NOT NULL OR lanes.place = :lanes)
"""
_NEXT = """(SELECT {columns} FROM deliveries WHERE state = 'pending' AND tenant = lanes.tenant AND lane = lanes.lane
        AND next_at <= {now} ORDER BY next_at LIMIT :each)"""


def _due(dialect: str) -> str:
    if dialect == "postgresql":
        of_lane = _NEXT.format(columns="job_id::text AS job_id, seq, next_at", now=_NOW[dialect])
        return _LANES.format(pairs=_PAIRS[dialect], due=f"LATERAL {of_lane} d", joined="true")
    of_lane = _NEXT.format(columns="rowid", now=_NOW[dialect])
    # The names are repeated inside: there they would be those of the table.
    return _LANES.format(pairs=_PAIRS[dialect], due="deliveries d", joined=f"d.rowid IN {of_lane}")


_DUE = {dialect: _due(dialect) for dialect in _PAIRS}


class SqlWebhooks(SqlActs):
    """See `events/webhooks.py` for the promises."""

    async def endpoint(self, tenant: str) -> Endpoint | None:
        rows = await self._rows(select(*_ENDPOINT).where(t.webhooks.c.tenant == tenant))
        return Endpoint(**rows[0]._asdict()) if rows else None

    async def endpoints(self) -> list[Endpoint]:
        rows = await self._rows(select(*_ENDPOINT).order_by(t.webhooks.c.tenant))
        return [Endpoint(**row._asdict()) for row in rows]

    async def keep_endpoint(self, endpoint: Endpoint, by: By, *, rotated: bool = False) -> None:
        values = {name: getattr(endpoint, name) for name in Endpoint.__slots__}
        made = (postgres_insert if self.name == "postgresql" else sqlite_insert)(t.webhooks).values(**values)
        where = None if endpoint.url is None else origin_of(endpoint.url)
        if rotated:
            deed = by.did("webhooks_rotated", endpoint.tenant)
        else:
            deed = by.did("webhooks_set", endpoint.tenant, origin=where)
        async with self._acting() as acting:
            await acting.connection.execute(made.on_conflict_do_update(index_elements=["tenant"], set_=values))
            await acting.record(endpoint.tenant, deed)

    async def drop_endpoint(self, tenant: str, by: By) -> bool:
        async with self._acting() as acting:
            found = await acting.connection.execute(delete(t.webhooks).where(t.webhooks.c.tenant == tenant))
            owed = and_(t.deliveries.c.tenant == tenant, t.deliveries.c.state == "pending")
            await acting.connection.execute(update(t.deliveries).where(owed).values(state="abandoned"))
            if found.rowcount:
                await acting.record(tenant, by.did("webhooks_removed", tenant))
            return bool(found.rowcount)

    async def due_deliveries(self, after: Mapping[str, str], lanes: int, each: int) -> DueDeliveries:
        walked = text(_DUE[self.name]).bindparams(
            bindparam("after", encode(dict(after)).decode(), Text), bindparam("lanes", lanes, BigInteger),
            bindparam("each", each, BigInteger),
        ).columns(tenant=Text, lane=Text, place=BigInteger, job_id=Text, seq=BigInteger, next_at=BigInteger)  # fmt: skip
        found = walked.subquery("due")
        due: dict[str, dict[str, list[tuple[str, int]]]] = {}
        reached: dict[str, str] = {}
        for row in await self._rows(select(found).order_by(found.c.place, found.c.tenant, found.c.next_at)):
            if row.place == lanes:
                reached[row.tenant] = row.lane
            if row.job_id is not None:
                due.setdefault(row.tenant, {}).setdefault(row.lane, []).append((row.job_id, row.seq))
        return DueDeliveries(due, reached)

    async def claim_deliveries(self, wanted: Sequence[tuple[str, int]], lease_s: float) -> list[Delivery]:
        d = t.deliveries
        # The condition is judged again under each row's lock: who comes second finds it claimed.
        claimed = (
            update(d)
            .where(
                tuple_(d.c.job_id, d.c.seq).in_(list(wanted)), d.c.state == "pending", d.c.next_at <= self._now_sql()
            )
            .values(attempts=d.c.attempts + 1, next_at=self._now_sql() + int(lease_s * 1000))
            .returning(d.c.job_id, d.c.seq, d.c.tenant, d.c.lane, d.c.url, d.c.attempts, d.c.created_at)
        )
        async with self._writing(WRITE_S) as connection:
            return [Delivery(str(row[0]), *row[1:]) for row in await connection.execute(claimed)]

    async def settle_delivery(self, delivery: Delivery, answer: Answer, state: State, next_in_s: float) -> None:
        d = t.deliveries
        this = and_(d.c.job_id == delivery.job_id, d.c.seq == delivery.seq)
        mine = and_(this, d.c.attempts == delivery.attempt, d.c.state == "pending")
        async with self._writing(WRITE_S) as connection:
            now = int((await connection.execute(select(self._now_sql()))).scalar_one())
            kept = {
                "job_id": delivery.job_id,
                "seq": delivery.seq,
                "tenant": delivery.tenant,
                "attempt": delivery.attempt,
                "at": now,
                "status": answer.status,
                "failure": answer.failure,
                "duration_ms": answer.duration_ms,
            }
            await connection.execute(insert(t.delivery_attempts).values(**kept))
            # Good news of an attempt that was given up for lost is news all the same.
            whose = and_(this, d.c.state == "pending") if state == "delivered" else mine
            await connection.execute(update(d).where(whose).values(state=state, next_at=now + int(next_in_s * 1000)))

    async def deliveries(self, job_id: str) -> list[Owed]:
        d, a = t.deliveries.c, t.delivery_attempts.c
        # One statement: a delivery of before an attempt never stands beside the attempt.
        both = t.deliveries.outerjoin(t.delivery_attempts, and_(a.job_id == d.job_id, a.seq == d.seq))
        found = select(*_OWED, *_ATTEMPT).select_from(both).where(d.job_id == job_id).order_by(d.seq, a.attempt)
        owed: dict[int, Owed] = {}
        for row in await self._rows(found):
            kept, tried = row[: len(_OWED)], row[len(_OWED) :]
            one = owed.setdefault(kept[1], Owed(str(kept[0]), *kept[1:]))
            if tried[0] is not None:
                owed[one.seq] = replace(one, tried=(*one.tried, Attempt(*tried)))
        return list(owed.values())
