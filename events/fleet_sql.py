"""Workers, leaders, and what waits for them or ran too long, for both dialects: a part of `SqlLog`."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    and_,
    case,
    delete,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    union_all,
    update,
)

from events import tables as t
from events.catalog import FINAL
from events.job import CAREFUL_LOSSES
from events.log import (
    ROOM_AFTER_LEASES,
    BeatReply,
    EngineRow,
    Held,
    Overdue,
    WorkerRow,
    makes_room,
)
from events.shares import claimable_of
from events.sql_part import WRITE_S, SqlPart
from events.values import decode, encode

BEAT_S = 1.5  # deadline of one beat
SWEEP_MARGIN_MS = 5_000  # the sweeper enforces deadlines only when the worker, who is asked first, stayed silent
WORKER_SHOWN_MS = 60_000
COUNTED_MAX = 10_000  # due jobs of an engine that are counted; a queue of tickets holds no more

# As words of the statement: a plan for any status cannot use the indexes of one.
_QUEUED = t.jobs.c.status == literal_column("'queued'")
_RUNNING = t.jobs.c.status == literal_column("'running'")
_CAREFREE = t.jobs.c.losses < literal_column(str(CAREFUL_LOSSES))


class SqlFleet(SqlPart):
    """See `Log` for the promises."""

    running_jobs_max: int = 0

    async def declare(self, engines: Sequence[EngineRow]) -> None:
        e = t.engines
        async with self._writing(WRITE_S) as connection:
            known = {row.name: row.version for row in await connection.execute(select(e.c.name, e.c.version))}
            for declared in engines:
                values = {"version": declared.version, "declaration": encode(asdict(declared)).decode()}
                if declared.name not in known:
                    await connection.execute(self._insert_or_ignore(e).values(name=declared.name, **values))
                # Compared again in the statement: another worker may declare a newer one at the same moment.
                await connection.execute(
                    update(e).where(e.c.name == declared.name, e.c.version <= declared.version).values(**values)
                )

    async def engines(self) -> list[EngineRow]:
        rows = await self._rows(select(t.engines.c.declaration).order_by(t.engines.c.name))
        return [_to_engine(row.declaration) for row in rows]

    async def beat(self, worker: WorkerRow, lease_s: float) -> BeatReply:
        w = t.workers
        async with self._writing(BEAT_S) as connection:
            now = int((await connection.execute(select(self._now_sql()))).scalar_one())
            lease_until = now + int(lease_s * 1000)
            said = {"draining": worker.draining, "slots": worker.slots, "beat_at": now, "lease_until": lease_until}
            known = await connection.execute(update(w).where(w.c.id == worker.id).values(**said))
            if known.rowcount == 0:
                await connection.execute(
                    self._insert_or_ignore(w).values(
                        id=worker.id,
                        host=worker.host,
                        pid=worker.pid,
                        build=worker.build,
                        engines=encode(dict(worker.engines)).decode(),
                        started_at=now,
                        **said,
                    )
                )
            held = await connection.execute(_held_by(worker.id))
            waiting = (await connection.execute(waiting_for_room(now, lease_s))).all()
            room = False
            if waiting:  # rare: a job took two workers down
                workers = map(_to_worker, await connection.execute(self._seen_workers()))
                room = makes_room(worker.id, {(row.engine, row.engine_version) for row in waiting}, workers, now)
            return BeatReply(now, lease_until, tuple(to_held(row) for row in held), room)

    async def leave(self, worker_id: str) -> None:
        async with self._writing(WRITE_S) as connection:
            await connection.execute(delete(t.workers).where(t.workers.c.id == worker_id))

    async def workers(self) -> list[WorkerRow]:
        return [_to_worker(row) for row in await self._rows(self._seen_workers())]

    def _seen_workers(self) -> Select[Any]:
        w, j = t.workers, t.jobs
        running = select(func.count()).where(j.c.worker_id == w.c.id, _RUNNING).scalar_subquery()
        seen = select(w, running.label("running")).where(w.c.lease_until > self._now_sql() - WORKER_SHOWN_MS)
        return seen.order_by(w.c.started_at)

    async def lead(self, name: str, holder: str, lease_s: float) -> bool:
        rows = t.leaders
        async with self._writing(BEAT_S) as connection:
            now = int((await connection.execute(select(self._now_sql()))).scalar_one())
            until = now + int(lease_s * 1000)
            mine = or_(rows.c.holder == holder, rows.c.lease_until < now)
            taken = await connection.execute(
                update(rows).where(rows.c.name == name, mine).values(holder=holder, lease_until=until)
            )
            if taken.rowcount:
                return True
            made = await connection.execute(
                self._insert_or_ignore(rows).values(name=name, holder=holder, lease_until=until)
            )
            return bool(made.rowcount)

    async def cursor(self, name: str) -> str | None:
        rows = await self._rows(select(t.leaders.c.cursor).where(t.leaders.c.name == name))
        return rows[0].cursor if rows else None

    async def save_cursor(self, name: str, holder: str, cursor: str) -> bool:
        rows = t.leaders
        async with self._writing(BEAT_S) as connection:
            saved = await connection.execute(
                update(rows).where(rows.c.name == name, rows.c.holder == holder).values(cursor=cursor)
            )
            return bool(saved.rowcount)

    async def overdue(self, limit: int) -> list[Overdue]:
        query = self._overdue().limit(limit)
        return [Overdue(str(row.id), row.attempt, row.cause) for row in await self._rows(query)]

    def _overdue(self) -> Select[Any]:
        j, w = t.jobs.c, t.workers.c
        now = self._now_sql()
        live = exists().where(w.id == j.worker_id, w.lease_until > now)
        running = _RUNNING
        started_by = and_(_QUEUED, j.started_at.is_(None), _passed(j.opened_at, j.start_s, now))
        cause = case(
            (and_(running, ~live), literal("lost")),
            (and_(running, j.cancel_at + SWEEP_MARGIN_MS < now), literal("cancel_grace")),
            (and_(j.status.not_in(FINAL), _passed(j.opened_at, j.total_s, now)), literal("total_timeout")),
            (started_by, literal("start_timeout")),
            (and_(running, _passed(j.attempt_at, j.attempt_s, now, SWEEP_MARGIN_MS)), literal("attempt_timeout")),
            (and_(running, _passed(j.last_at, j.stall_s, now, SWEEP_MARGIN_MS)), literal("stall_timeout")),
        )
        judged = select(j.id, j.attempt, cause.label("cause"))
        timed = or_(j.start_s.is_not(None), j.total_s.is_not(None))
        found = union_all(judged.where(running), judged.where(_QUEUED, timed)).subquery()  # an index each
        return select(found).where(found.c.cause.is_not(None))

    async def _any_due(self) -> bool:
        j = t.jobs.c
        first = select(func.coalesce(j.not_before, 0) <= self._now_sql()).where(_QUEUED, _CAREFREE)
        rows = await self._rows(first.order_by(j.not_before.nulls_first()).limit(1))
        return bool(rows and rows[0][0])

    async def due_counts(self) -> dict[tuple[str, int], int]:
        j = t.jobs.c
        columns = (j.engine, j.engine_version, j.tenant, j.concurrency_key, j.concurrency_limit)
        rows: list[Row[Any]] = []
        engine = ""
        while engine := (await self._rows(select(func.min(j.engine)).where(_QUEUED, j.engine > engine)))[0][0]:
            due = select(*columns).where(_QUEUED, j.engine == engine, _CAREFREE)
            due = due.where(func.coalesce(j.not_before, literal_column("0")) <= self._now_sql())
            some = due.limit(COUNTED_MAX).subquery()
            rows += await self._rows(select(*some.c, func.count()).group_by(*some.c))
        running: dict[str, int] = {}
        holding: dict[tuple[str, str], int] = {}
        if self.running_jobs_max or any(row.concurrency_key for row in rows):
            runs = select(j.tenant, j.concurrency_key, func.count()).where(_RUNNING)
            for tenant, key, number in map(tuple, await self._rows(runs.group_by(j.tenant, j.concurrency_key))):
                running[tenant] = running.get(tenant, 0) + number
                holding[tenant, key] = number
        return claimable_of(map(tuple, rows), running, holding, self.running_jobs_max)


def _held_by(worker_id: str) -> Select[Any]:
    j = t.jobs.c
    return select(
        j.id, j.attempt, j.lease_id, j.cancel_mode, j.cancel_at, j.opened_at, j.total_s
    ).where(j.worker_id == worker_id, _RUNNING)  # fmt: skip


def waiting_for_room(now: int, lease_s: float) -> Select[Any]:
    """Engines and versions of jobs that must run alone and have been due for long."""
    j = t.jobs.c
    since = now - int(ROOM_AFTER_LEASES * lease_s * 1000)
    must_run_alone = and_(_QUEUED, j.losses >= literal_column(str(CAREFUL_LOSSES)))
    long_due = and_(j.last_at <= since, func.coalesce(j.not_before, 0) <= since)
    return select(j.engine, j.engine_version).distinct().where(must_run_alone, long_due)


@lru_cache(maxsize=64)  # gateways ask every few seconds, the schema of a large engine is long, and neither ever changes
def _to_engine(declaration: str) -> EngineRow:
    return EngineRow(**decode(declaration))


def _to_worker(row: Row[Any]) -> WorkerRow:
    return WorkerRow(**{**row._asdict(), "engines": decode(row.engines)})


def to_held(row: Row[Any]) -> Held:
    """A row of `_held_by`."""
    total_at = row.opened_at + int(row.total_s * 1000) if row.total_s is not None else None
    return Held(str(row.id), row.attempt, row.lease_id, row.cancel_mode, row.cancel_at, total_at)


def _passed(since: Any, limit_s: Any, now: Any, margin_ms: int = 0) -> ColumnElement[bool]:
    passed: ColumnElement[bool] = since + limit_s * 1000 + margin_ms < now
    return passed
