"""Webhooks in the log's database, for both dialects: a part of `SqlLog`, whose reads and writes it uses."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Text,
    Update,
    and_,
    bindparam,
    delete,
    insert,
    select,
    text,
    tuple_,
    update,
)

from events import tables as t
from events.acts import By
from events.acts_sql import SqlActs
from events.rows_sql import RECORDED, to_recorded
from events.sql_part import WRITE_S
from events.values import decode, encode
from events.webhooks import (
    Attempt,
    Content,
    Delivery,
    DueDeliveries,
    Endpoint,
    Owed,
    Settled,
    delivery_id,
    origin_of,
)

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
        where = None if endpoint.url is None else origin_of(endpoint.url)
        if rotated:
            deed = by.did("webhooks_rotated", endpoint.tenant)
        else:
            deed = by.did("webhooks_set", endpoint.tenant, origin=where)
        async with self._acting() as acting:
            await acting.connection.execute(self._insert_or_ignore(t.webhooks).values(**values))
            await acting.connection.execute(
                update(t.webhooks).where(t.webhooks.c.tenant == endpoint.tenant).values(values)
            )
            await acting.record(endpoint.tenant, deed)

    async def drop_endpoint(self, tenant: str, by: By) -> bool:
        async with self._acting() as acting:
            found = await acting.connection.execute(delete(t.webhooks).where(t.webhooks.c.tenant == tenant))
            owed = _locked(None, t.deliveries.c.tenant == tenant, t.deliveries.c.state == "pending")
            await acting.connection.execute(_of(owed).values(state="abandoned"))
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
        # What another process is taking is passed over: who waited for it would find it taken.
        free = _locked(wanted, d.c.state == "pending", d.c.next_at <= self._now_sql(), skip_locked=True)
        claimed = (
            _of(free)
            .values(attempts=d.c.attempts + 1, next_at=self._now_sql() + int(lease_s * 1000))
            .returning(d.c.job_id, d.c.seq, d.c.tenant, d.c.lane, d.c.url, d.c.attempts, d.c.created_at)
        )
        async with self._writing(WRITE_S) as connection:
            return [Delivery(str(row[0]), *row[1:]) for row in await connection.execute(claimed)]

    async def contents(self, deliveries: Sequence[Delivery]) -> tuple[int, Mapping[str, Content]]:
        d, e, j = t.deliveries.c, t.events.c, t.jobs.c
        wanted = tuple_(d.job_id, d.seq).in_([(one.job_id, one.seq) for one in deliveries])
        owed = t.deliveries.join(t.events, and_(e.job_id == d.job_id, e.seq == d.seq)).join(t.jobs, j.id == d.job_id)
        found = select(self._now_sql(), j.engine, j.tags, j.rerun_of, *RECORDED).select_from(owed).where(wanted)
        rows = await self._rows(found)
        contents: dict[str, Content] = {}
        for row in rows:
            rerun_of = None if row.rerun_of is None else str(row.rerun_of)
            recorded = to_recorded(row[4:])
            content = Content(row.engine, tuple(decode(row.tags)), rerun_of, recorded)
            contents[delivery_id(recorded.job_id, recorded.seq)] = content
        return (rows[0][0] if rows else await self.now()), contents

    async def settle_deliveries(self, settled: Sequence[Settled]) -> None:
        d = t.deliveries.c
        now = self._now_sql()
        kept = [
            {
                "job_id": one.delivery.job_id,
                "seq": one.delivery.seq,
                "tenant": one.delivery.tenant,
                "attempt": one.delivery.attempt,
                "at": now,
                "status": one.answer.status,
                "failure": one.answer.failure,
                "duration_ms": one.answer.duration_ms,
            }
            for one in settled
        ]
        # Good news of an attempt that was given up for lost is news all the same.
        good = [(one.delivery.job_id, one.delivery.seq) for one in settled if one.state == "delivered"]
        changes = []
        if good:
            changes.append(_of(_locked(good, d.state == "pending")).values(state="delivered", next_at=now))
        for one in sorted(settled, key=lambda one: (one.delivery.job_id, one.delivery.seq)):
            if one.state != "delivered":
                this = [(one.delivery.job_id, one.delivery.seq)]
                mine = _locked(this, d.attempts == one.delivery.attempt, d.state == "pending")
                changes.append(_of(mine).values(state=one.state, next_at=now + int(one.next_in_s * 1000)))
        async with self._writing(WRITE_S) as connection:
            await connection.execute(insert(t.delivery_attempts).values(kept))
            for change in changes:
                await connection.execute(change)

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


def _locked(
    wanted: Sequence[tuple[str, int]] | None, *conditions: ColumnElement[bool], skip_locked: bool = False
) -> Select[Any]:
    """The keys of deliveries, locked in their order, so that no two transactions wait for each other. The conditions are
    judged again under each row's lock: who comes second finds what the first one did."""
    d = t.deliveries.c
    key = tuple_(d.job_id, d.seq)
    found = select(d.job_id, d.seq).where(*conditions).order_by(d.job_id, d.seq)
    return (found if wanted is None else found.where(key.in_(list(wanted)))).with_for_update(skip_locked=skip_locked)


def _of(keys: Select[Any]) -> Update:
    return update(t.deliveries).where(tuple_(t.deliveries.c.job_id, t.deliveries.c.seq).in_(keys))
