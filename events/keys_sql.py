"""API keys in the log's database, for both dialects: a part of `SqlLog`, whose reads and writes it uses."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, and_, delete, func, insert, or_, select, update

from events import tables as t
from events.acts import By, act_id, recorded_act
from events.acts_sql import SqlActs, act_statements
from events.clock import rfc3339
from events.keys import SCOPES, ApiKey
from events.passes import FIRST_USE_MS, LAST_MS, LIVE_MAX, Pass
from events.sql_part import WRITE_S

TOLD = "keys"  # whose cursor says up to which key expiries were told
SETTLED_MS = 10_000  # a key is stored within seconds of being drawn: none comes up behind the cursor


class SqlKeys(SqlActs):
    """See `events/keys.py` for the promises."""

    # -- keys

    async def add_key(self, key: ApiKey, by: By) -> None:
        values = {name: getattr(key, name) for name in ApiKey.__slots__} | {"scopes": " ".join(key.scopes)}
        expires = None if key.expires_at is None else rfc3339(key.expires_at)
        made = by.did("key_created", key.id, name=key.name, scopes=list(key.scopes), expires_at=expires,
                      sha256=key.sha256.hex())  # fmt: skip
        async with self._acting() as acting:
            await acting.connection.execute(insert(t.api_keys).values(**values))
            await acting.record(key.tenant, made)

    async def find_keys(self, key_ids: Sequence[str]) -> dict[str, ApiKey]:
        rows = await self._rows(select(*_KEY).where(t.api_keys.c.id.in_(list(key_ids))))
        return {row.id: _to_key(row) for row in rows}

    async def keys(self, tenant: str | None = None) -> list[ApiKey]:
        k = t.api_keys.c
        query = select(*_KEY).order_by(k.created_at, k.id)
        return [_to_key(row) for row in await self._rows(query if tenant is None else query.where(k.tenant == tenant))]

    async def has_keys(self) -> bool:
        return bool(await self._rows(select(t.api_keys.c.id).limit(1)))

    async def revoke_key(self, key_id: str, by: By) -> bool:
        k = t.api_keys
        async with self._acting() as acting:
            asked = select(k.c.tenant, k.c.name, k.c.revoked_at).where(k.c.id == key_id).with_for_update()
            found = (await acting.connection.execute(asked)).one_or_none()
            if found is not None and found.revoked_at is None:
                await acting.connection.execute(update(k).where(k.c.id == key_id).values(revoked_at=acting.at))
                await acting.record(found.tenant, by.did("key_revoked", key_id, name=found.name))
            return found is not None

    async def tell_expired(self, by: By, limit: int) -> int:
        k, leaders = t.api_keys.c, t.leaders
        _, at = await self.act_place()
        async with self._writing(WRITE_S) as connection:
            # The cursor moves with what it stands for: who comes second waits for its row, and finds them told.
            await connection.execute(self._insert_or_ignore(leaders).values(name=TOLD, holder="", lease_until=0))
            asked = select(leaders.c.cursor).where(leaders.c.name == TOLD).with_for_update()
            told = (await connection.execute(asked)).scalar_one()
            over = select(k.id, k.tenant, k.name, k.expires_at).where(
                k.expires_at <= at - SETTLED_MS, k.revoked_at.is_(None)
            )
            if told is not None:
                last, _, last_id = told.partition(" ")
                over = over.where(or_(k.expires_at > int(last), and_(k.expires_at == int(last), k.id > last_id)))
            found = (await connection.execute(over.order_by(k.expires_at, k.id).limit(limit))).all()
            for key in found:
                deed = by.did("key_expired", key.id, name=key.name, expires_at=rfc3339(key.expires_at))
                for statement in act_statements(recorded_act(act_id(at), at, key.tenant, deed)):
                    await connection.execute(statement)
            if found:
                upto = f"{found[-1].expires_at} {found[-1].id}"
                await connection.execute(update(leaders).where(leaders.c.name == TOLD).values(cursor=upto))
        if found and self.on_act is not None:
            self.on_act()
        return len(found)

    async def touch_keys(self, key_ids: Sequence[str]) -> None:
        k = t.api_keys
        async with self._writing(WRITE_S) as connection:
            await connection.execute(update(k).where(k.c.id.in_(list(key_ids))).values(used_at=self._now_sql()))

    # -- passes

    async def add_pass(self, made: Pass) -> bool:
        p = t.stream_passes
        over = or_(
            p.c.created_at <= made.created_at - LAST_MS,
            and_(p.c.used_at.is_(None), p.c.created_at <= made.created_at - FIRST_USE_MS),
        )
        values = {name: getattr(made, name) for name in Pass.__slots__} | {"jobs": " ".join(sorted(made.jobs))}
        async with self._writing(WRITE_S) as connection:
            await connection.execute(delete(p).where(p.c.tenant == made.tenant, over))
            live = await connection.execute(select(func.count()).select_from(p).where(p.c.tenant == made.tenant))
            if live.scalar_one() >= LIVE_MAX:
                return False
            await connection.execute(insert(p).values(**values))
            return True

    async def use_pass(self, sha256: bytes) -> Pass | None:
        p = t.stream_passes
        rows = await self._rows(select(*_PASS).where(p.c.sha256 == sha256))
        if not rows:
            return None
        values = rows[0]._asdict()
        found = Pass(**values | {"sha256": bytes(rows[0].sha256), "jobs": frozenset(values["jobs"].split())})
        if found.used_at is None:
            async with self._writing(WRITE_S) as connection:
                unused = update(p).where(p.c.sha256 == sha256, p.c.used_at.is_(None))
                await connection.execute(unused.values(used_at=self._now_sql()))
        return found


_PASS = tuple(t.stream_passes.c[name] for name in Pass.__slots__)
_KEY = tuple(t.api_keys.c[name] for name in ApiKey.__slots__)


def _to_key(row: Row[Any]) -> ApiKey:
    values = row._asdict()
    granted = values["scopes"].split()
    return ApiKey(**values | {"sha256": bytes(row.sha256), "scopes": tuple(s for s in SCOPES if s in granted)})
