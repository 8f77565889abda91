"""The port `Log` on a simulated database: what `events/log_postgres.py` is on a real one, deadlines included."""

import asyncio
import contextlib
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from events.acts import By
from events.catalog import FINAL
from events.errors import LogUnavailable, Stale
from events.job import CAREFUL_LOSSES, Job
from events.log import (
    CLOCK_MS,
    FEED_BYTES_MAX,
    PAGE_BYTES_MAX,
    PAGE_EVENTS_MAX,
    Artifact,
    BeatReply,
    Claimable,
    EngineRow,
    FeedPage,
    Head,
    JobPage,
    JobQuery,
    JobRow,
    Look,
    Overdue,
    Stats,
    Transaction,
    UnlockedTransaction,
    WorkerRow,
    makes_room,
)
from events.record import Line as EventLine
from events.record import Recorded
from events.retention import Archived
from events.seal import Envelope, Range, Seal
from events.shares import chosen, claimable_of
from events.values import encode
from tests.simulation.line import Line, Session
from tests.simulation.loop import PROCESS
from tests.simulation.store import IMPATIENT_S, PATIENT_S, Database, Leader

READ_S, BEAT_S, CONNECT_S = 5.0, 1.5, 5.0  # as in the SQL adapters
SWEEP_MARGIN_MS = 5_000
WORKER_SHOWN_MS = 60_000
WEEK_MS = 7 * 24 * 3600 * 1000
EPOCH = "1-simulated"
WEEKS = range(2500, 3500)  # partitions that exist

T = TypeVar("T")


class SimLog:
    """One process's log. `line` is its way to the database."""

    name = "postgresql"
    unlocks = True

    def __init__(self, database: Database, line: Line | None = None) -> None:
        self.epoch = ""
        self.running_jobs_max = 0
        self._db = database
        self._line = line or Line()
        self._pools: dict[str, Session] = {}

    async def open(self) -> None:
        self.epoch = await self._read("epoch", lambda: EPOCH)

    async def close(self) -> None:
        for session in self._pools.values():
            session.hang_up()
        self._pools.clear()

    def _session(self, pool: str) -> Session:
        session = self._pools.get(pool)
        if session is None or not session.alive:
            session = self._pools[pool] = self._db.open(self._line, PROCESS.get())
        return session

    async def _read(self, name: str, query: Callable[[], T]) -> T:
        """Once more on a new connection when the pooled one turns out to be dead."""
        for last in (False, True):
            session = self._session(f"read {name}")
            try:
                async with asyncio.timeout(READ_S):
                    found: T = await session.call(name, lambda reply: reply(query()))
                    return found
            except LogUnavailable:
                if last:
                    raise
            except TimeoutError as error:
                raise LogUnavailable from error
            finally:
                self._checked(f"read {name}", session)
        raise AssertionError

    async def _write(self, deadline_s: float, *statements: tuple[str, Callable[[], Any]]) -> list[Any]:
        """Statements of one short transaction beside the committer's; the last one's effect comes with the commit."""
        name = f"write {statements[0][0]}"
        session = self._session(name)
        try:
            async with asyncio.timeout(deadline_s):
                return [
                    await session.call(statement, lambda reply, run=run: reply(run()))  # type: ignore[misc]
                    for statement, run in statements
                ]
        except TimeoutError as error:
            raise LogUnavailable("the database does not answer") from error
        finally:
            self._checked(name, session)

    def _checked(self, pool: str, session: Session) -> None:
        """A connection that broke or was given up in mid-statement is not used again."""
        if (not session.alive or session.hung_up) and self._pools.get(pool) is session:
            del self._pools[pool]

    @contextlib.asynccontextmanager
    async def transaction(self, *, patient: bool = True) -> AsyncIterator[Transaction]:
        session = self._session("writer")
        tx = SimTransaction(self._db, session, PATIENT_S if patient else IMPATIENT_S, self.running_jobs_max)
        try:
            try:
                yield tx
            except asyncio.CancelledError:
                session.hang_up()
                raise
            except BaseException:
                if session.alive and not session.hung_up:
                    with contextlib.suppress(LogUnavailable):
                        await session.call("rollback", lambda reply: self._db.abort(session, reply))
                raise
            await session.call("commit", lambda reply: self._db.commit(session, reply))
        finally:
            self._checked("writer", session)

    @contextlib.asynccontextmanager
    async def unlocked(self, known: Mapping[str, Job], clock: Callable[[], int]) -> AsyncIterator[UnlockedTransaction]:
        session = self._session("writer")
        batch = SimUnlocked(self._db, session, self.running_jobs_max, known, clock)
        try:
            try:
                yield batch
                await batch.write()
            except asyncio.CancelledError:
                session.hang_up()
                raise
        finally:
            self._checked("writer", session)

    async def accepts(self, job_id: str) -> bool:
        return (uuid.UUID(job_id).int >> 80) // WEEK_MS in WEEKS

    async def now(self) -> int:
        return await self._read("now", self._db.now_ms)

    # -- reading streams

    async def head(self, job_id: str, tenant: str | None = None) -> Head | None:
        def query() -> Head | None:
            row = self._row(job_id, tenant)
            return Head(row.job.last_seq, row.job.status) if row else None

        return await self._read("head", query)

    def _row(self, job_id: str, tenant: str | None) -> JobRow | None:
        row = self._db.rows.get(job_id)
        return row if row is not None and tenant in (None, row.job.tenant) else None

    async def heads(self, job_ids: Sequence[str]) -> dict[str, Head]:
        if not job_ids:
            return {}
        rows = self._db.rows
        return await self._read(
            "heads",
            lambda: {
                i: Head(rows[i].job.last_seq, rows[i].job.status, rows[i].job.tenant) for i in job_ids if i in rows
            },
        )

    async def read(
        self, job_id: str, after: int, *, limit: int = PAGE_EVENTS_MAX, bytes_max: int = PAGE_BYTES_MAX
    ) -> list[Recorded]:
        def query() -> list[Recorded]:
            page: list[Recorded] = []
            size = 0
            for recorded in self._db.events.get(job_id, [])[after : after + limit]:
                size += len(recorded.data)
                if page and size > bytes_max:
                    break
                page.append(recorded)
            return page

        return await self._read("read", query)

    async def lines(self, job_id: str, after: int) -> list[EventLine]:
        return [(row.seq, row.type, row.line()) for row in await self.read(job_id, after)]

    async def read_back(self, job_id: str, before: int, limit: int) -> list[Recorded]:
        return await self._read("read back", lambda: self._db.events.get(job_id, [])[: before - 1][::-1][:limit])

    async def checkpoints(self, job_id: str) -> list[Recorded]:
        return await self._read(
            "checkpoints", lambda: [row for row in self._db.events.get(job_id, []) if row.type == "checkpoint"]
        )

    async def feed(
        self,
        cursor: str,
        limit: int,
        tenant: str | None = None,
        *,
        acts: bool = False,
        bytes_max: int = FEED_BYTES_MAX,
    ) -> FeedPage:
        del acts  # nobody administers here
        _, xid, pos = map(int, cursor.split(":")) if cursor else (1, 0, 0)
        rows = await self._read("feed", lambda: self._db.feed((xid, pos), limit, tenant, bytes_max))
        cursors = [f"1:{xid}:{pos}" for (xid, pos), _ in rows]
        return FeedPage([row for _, row in rows], cursors, cursors[-1] if cursors else f"1:{xid}:{pos}")

    async def feed_end(self) -> str:
        return f"1:{await self._read('feed end', lambda: self._db.horizon)}:-1"

    # -- reading jobs

    async def job(self, job_id: str, tenant: str | None = None) -> JobRow | None:
        return await self._read("job", lambda: self._row(job_id, tenant))

    async def jobs(self, query: JobQuery) -> JobPage:
        found = await self._listed(replace(query, limit=query.limit + 1))
        page: list[JobRow] = []
        size = 0
        for row in found[: query.limit]:
            size += len((row.params + (row.job.error or "")).encode()) + len(encode(list(row.tags)))
            if page and size > PAGE_BYTES_MAX:
                break
            page.append(row)
        return JobPage(page, len(found) > len(page))

    async def job_ids(self, query: JobQuery) -> list[str]:
        return [row.job.id for row in await self._listed(query)]

    async def _listed(self, query: JobQuery) -> list[JobRow]:
        def wanted(row: JobRow) -> bool:
            job = row.job
            return (
                job.tenant == query.tenant
                and (not query.status or job.status in query.status)
                and query.engine in (None, job.engine)
                and set(query.tags) <= set(row.tags)
                and query.rerun_of in (None, row.rerun_of)
                and (query.created_after is None or job.created_at > query.created_after)
                and (query.before is None or job.id < query.before)
                and (query.up_to is None or job.id <= query.up_to)
            )

        def found() -> list[JobRow]:
            rows = sorted(filter(wanted, self._db.rows.values()), key=lambda row: row.job.id, reverse=True)
            return rows[: query.limit]

        return await self._read("jobs", found)

    async def count(self, query: JobQuery) -> int:
        return len(await self._listed(query))

    async def all_jobs(self) -> AsyncIterator[JobRow]:
        for row in await self._read("all jobs", lambda: [self._db.rows[job_id] for job_id in sorted(self._db.rows)]):
            yield row

    async def all_events(self) -> AsyncIterator[Recorded]:
        def found() -> list[Recorded]:
            return [row for job_id in sorted(self._db.events) for row in self._db.events[job_id]]

        for row in await self._read("all events", found):
            yield row

    async def archived(self, job_ids: Sequence[str]) -> dict[str, Archived]:
        del job_ids
        return {}  # nothing is old enough here

    async def find_key(self, tenant: str, key_sha256: str) -> JobRow | None:
        return await self._read("find key", lambda: self._db.found_key(tenant, key_sha256))

    async def artifact(self, job_id: str, sha256: str) -> bytes | None:
        return await self._read("artifact", lambda: self._db.artifacts.get((job_id, sha256)))

    async def artifact_size(self, job_id: str, sha256: str) -> int | None:
        def query() -> int | None:
            body = self._db.artifacts.get((job_id, sha256))
            return None if body is None else len(body)

        return await self._read("artifact_size", query)

    async def previous(self, job: Job, subject: str) -> JobRow | None:
        def query() -> JobRow | None:
            about = (job.tenant, job.engine, subject, "completed")
            done = [
                row
                for row in self._db.rows.values()
                if (row.job.tenant, row.job.engine, row.subject, row.job.status) == about
                and row.job.id != job.id
                and (row.job.finished_at or 0) <= job.created_at
            ]
            return max(done, key=lambda row: (row.job.finished_at, row.job.id), default=None)

        return await self._read("previous", query)

    async def stats(self, tenant: str) -> Stats:
        def query() -> Stats:
            counts: dict[str, int] = {}
            due = []
            for job in (row.job for row in self._db.rows.values() if row.job.tenant == tenant):
                counts[job.status] = counts.get(job.status, 0) + 1
                if job.status == "queued":
                    due.append(job.due_at())
            age = max(self._db.now_ms() - min(due), 0) if due else None
            return Stats(counts, age, sum(map(len, self._db.events.values())))

        return await self._read("stats", query)

    # -- fleet

    async def declare(self, engines: Sequence[EngineRow]) -> None:
        def run() -> None:
            for declared in engines:
                known = self._db.engines.get(declared.name)
                if known is None or known.version <= declared.version:
                    self._db.engines[declared.name] = declared

        await self._write(READ_S, ("declare", run))

    async def engines(self) -> list[EngineRow]:
        return await self._read("engines", lambda: [row for _, row in sorted(self._db.engines.items())])

    async def beat(self, worker: WorkerRow, lease_s: float) -> BeatReply:
        """The lease's end is drawn from the clock one round trip before the commit that makes it true."""
        db = self._db
        now = 0

        def begin() -> int:
            nonlocal now
            now = db.now_ms()
            return now

        def commit() -> BeatReply:
            until = now + int(lease_s * 1000)
            known = db.workers.get(worker.id)
            started_at = known.started_at if known else now
            db.workers[worker.id] = replace(worker, started_at=started_at, beat_at=now, lease_until=until, running=0)
            waiting = db.waiting_for_room(now, lease_s)
            room = bool(waiting) and makes_room(worker.id, waiting, db.workers_running(), now)
            return BeatReply(now, until, db.held_by(worker.id), room)

        _, reply = await self._write(BEAT_S, ("beat", begin), ("beat commit", commit))
        assert isinstance(reply, BeatReply)
        return reply

    async def leave(self, worker_id: str) -> None:
        await self._write(READ_S, ("leave", lambda: self._db.workers.pop(worker_id, None)))

    async def workers(self) -> list[WorkerRow]:
        def query() -> list[WorkerRow]:
            oldest = self._db.now_ms() - WORKER_SHOWN_MS
            return [row for row in self._db.workers_running() if row.lease_until > oldest]

        return await self._read("workers", query)

    async def lead(self, name: str, holder: str, lease_s: float) -> bool:
        def run() -> bool:
            now = self._db.now_ms()
            leader = self._db.leaders.get(name)
            if leader is not None and leader.holder != holder and leader.until >= now:
                return False
            cursor = leader.cursor if leader else None
            self._db.leaders[name] = Leader(holder, now + int(lease_s * 1000), cursor)
            return True

        [leads] = await self._write(BEAT_S, ("lead", run))
        return bool(leads)

    async def cursor(self, name: str) -> str | None:
        leaders = self._db.leaders
        return await self._read("cursor", lambda: leaders[name].cursor if name in leaders else None)

    async def look(self, holder: str, names: Sequence[str], lease_s: float, copied: str | None) -> Look:
        def run() -> Look:
            now = self._db.now_ms()
            leads = []
            for name in names:
                leader = self._db.leaders.get(name)
                if leader is None or leader.until < now or leader.holder == holder:
                    mine = leader is not None and leader.holder == holder and leader.until > now + lease_s * 500
                    if not mine:
                        until, cursor = now + int(lease_s * 1000), leader.cursor if leader else None
                        self._db.leaders[name] = Leader(holder, until, cursor)
                    leads.append(name)
            jobs = [row.job for row in self._db.rows.values()]
            overdue = "expire" in leads and any(self._cause(job, now) for job in jobs)
            due = "tickets" in leads and any(_due(job, now) for job in jobs)
            behind = False
            if copied is not None:
                _, xid, pos = map(int, copied.split(":"))
                behind = bool(self._db.feed((xid, pos), 1, None, FEED_BYTES_MAX))
            return Look(now, tuple(leads), overdue, due, behind)

        [seen] = await self._write(BEAT_S, ("look", run))
        assert isinstance(seen, Look)
        return seen

    async def save_cursor(self, name: str, holder: str, cursor: str) -> bool:
        def run() -> bool:
            leader = self._db.leaders.get(name)
            if leader is None or leader.holder != holder:
                return False
            leader.cursor = cursor
            return True

        [saved] = await self._write(BEAT_S, ("save cursor", run))
        return bool(saved)

    # -- keys

    async def has_keys(self) -> bool:
        return await self._read("has keys", lambda: False)

    async def tell_expired(self, by: By, limit: int) -> int:
        del by, limit
        return await self._read("expired keys", lambda: 0)

    # -- sealing

    async def last_seal(self) -> Seal | None:
        return await self._read("last seal", lambda: self._db.seals[-1] if self._db.seals else None)

    async def sealable(self, cursor: str, limit: int) -> tuple[list[Envelope], str]:
        _, xid, pos = map(int, cursor.split(":")) if cursor else (1, 0, 0)
        found = await self._read("sealable", lambda: self._db.envelopes((xid, pos), limit))
        return found, found[-1].place if found else cursor

    async def envelopes(self, job_id: str, after: int, before: int) -> list[Envelope]:
        def query() -> list[Envelope]:
            every = self._db.envelopes((0, 0), sys.maxsize)
            found = [one for one in every if one.job_id == job_id and after < one.seq < before]
            return sorted(found, key=lambda one: one.seq)

        return await self._read("envelopes", query)

    async def heads_sealed(self, job_ids: Sequence[str]) -> Mapping[str, tuple[int, bytes]]:
        sealed = self._db.sealed
        return await self._read("heads sealed", lambda: {job: sealed[job] for job in job_ids if job in sealed})

    async def put_seal(self, seal: Seal, ranges: Sequence[Range]) -> bool:
        [put] = await self._write(BEAT_S, ("seal", lambda: self._db.put_seal(seal, ranges)))
        return bool(put)

    # -- sweeping

    async def overdue(self, limit: int) -> list[Overdue]:
        def query() -> list[Overdue]:
            now = self._db.now_ms()
            causes = ((row.job, self._cause(row.job, now)) for row in self._db.rows.values())
            return [Overdue(job.id, job.attempt, cause) for job, cause in causes if cause][:limit]

        return await self._read("overdue", query)

    def _cause(self, job: Job, now: int) -> str | None:
        running = job.status == "running"
        if job.status in FINAL:
            return None
        if running and not self._db.live_workers([job.worker_id or ""], now):
            return "lost"
        if running and job.cancel_at is not None and job.cancel_at + SWEEP_MARGIN_MS < now:
            return "cancel_grace"
        if _passed(job.opened_at, job.total_s, now):
            return "total_timeout"
        if not running and job.started_at is None and _passed(job.opened_at, job.start_s, now):
            return "start_timeout"
        if running and _passed(job.attempt_at, job.attempt_s, now - SWEEP_MARGIN_MS):
            return "attempt_timeout"
        return "stall_timeout" if running and _passed(job.last_at, job.stall_s, now - SWEEP_MARGIN_MS) else None

    async def due_counts(self) -> dict[tuple[str, int], int]:
        def query() -> dict[tuple[str, int], int]:
            now = self._db.now_ms()
            running, holding = self._db.loads()
            due = Counter(
                (row.job.engine, row.job.engine_version, row.job.tenant, row.concurrency_key, row.concurrency_limit)
                for row in self._db.rows.values()
                if _due(row.job, now)
            )
            each = [(*one, number) for one, number in due.items()]
            return claimable_of(each, running, holding, self.running_jobs_max)

        return await self._read("due counts", query)

    async def make_partitions(self) -> None:
        return None

    async def rebuild(self, job: JobRow) -> None:
        def run() -> None:
            self._db.rows[job.job.id] = replace(job, job=self._db.rows[job.job.id].job)

        await self._write(READ_S, ("rebuild", run))


class SimTransaction:
    """One READ COMMITTED transaction on the committer's connection."""

    def __init__(self, database: Database, session: Session, lock_s: float, running_jobs_max: int) -> None:
        self._db = database
        self._running_jobs_max = running_jobs_max
        self._session = session
        self._lock_s = lock_s
        self.epoch = ""

    async def _run(self, name: str, run: Callable[[Any], T]) -> T:
        result: T = await self._session.call(
            name, lambda reply: self._db.statement(self._session, self._lock_s, run, reply)
        )
        return result

    async def lock(self, job_ids: Sequence[str]) -> dict[str, Job]:
        return await self._run("lock", lambda tx: self._db.lock(tx, job_ids))

    async def now(self) -> int:
        return await self._run("now", lambda _: self._db.now_ms())

    async def recorded(self, command_ids: Mapping[str, str]) -> dict[str, list[Recorded]]:
        return await self._run("recorded", lambda tx: self._db.recorded(tx, command_ids))

    async def live_workers(self, worker_ids: Sequence[str], now: int) -> set[str]:
        return await self._run("live workers", lambda _: self._db.live_workers(worker_ids, now))

    async def rivals(self, rows: Sequence[JobRow]) -> list[JobRow]:
        await self._run("advisory locks", lambda tx: self._db.advise(tx, rows))
        return await self._run("rivals", lambda tx: self._db.rivals(tx, rows))

    async def holders(self, job_ids: Sequence[str]) -> dict[str, str]:
        return await self._run("holders", lambda tx: self._db.unique_holders(tx, job_ids))

    async def insert_jobs(self, rows: Sequence[JobRow]) -> dict[str, JobRow]:
        return await self._run("insert", lambda tx: self._db.insert_jobs(tx, rows))

    async def append(self, events: Sequence[Recorded], jobs: Sequence[Job] = ()) -> None:
        await self._run("append", lambda tx: self._db.append(tx, events, jobs))
        self.epoch = EPOCH

    async def put_artifacts(self, artifacts: Sequence[Artifact]) -> None:
        await self._run("artifacts", lambda tx: self._db.put_artifacts(tx, artifacts))

    async def copy_artifacts(self, source_job_id: str, job_id: str, sha256s: Sequence[str]) -> None:
        await self._run("copy artifacts", lambda tx: self._db.copy_artifacts(tx, source_job_id, job_id, sha256s))

    async def claimable(
        self, worker_ids: Sequence[str], wanted: Mapping[tuple[str, int], int], *, careful: bool
    ) -> Claimable:
        def query(tx: Any) -> tuple[Claimable, bool, bool]:
            now = self._db.now_ms()
            live = frozenset(self._db.live_workers(worker_ids, now))
            several, keyed = self._db.shares(tx)
            limited = keyed or self._running_jobs_max > 0
            plain = live and not (several or limited)
            return (
                Claimable(now, live, self._db.due(tx, wanted, now, careful=careful) if plain else []),
                several,
                limited,
            )

        found, several, limited = await self._run("claimable", query)
        if not found.live or not (several or limited):
            return found
        if limited:
            await self._run("claims take turns", self._db.take_turns)
        candidates = await self._run(
            "candidates", lambda tx: self._db.candidates(tx, wanted, found.now, careful=careful)
        )
        ids = chosen(candidates, wanted, self._running_jobs_max)
        return replace(found, due=await self._run("take", lambda tx: self._db.take_due(tx, ids, found.now)))


class SimUnlocked(SimTransaction):
    """What a batch without locks writes, in one statement."""

    def __init__(
        self,
        database: Database,
        session: Session,
        running_jobs_max: int,
        known: Mapping[str, Job],
        clock: Callable[[], int],
    ) -> None:
        super().__init__(database, session, PATIENT_S, running_jobs_max)
        self._clock = clock
        self._at: int | None = None
        self.drift_ms = (0, 0)
        self._known = known
        self._was: dict[str, Job] = {}
        self._made: list[JobRow] = []
        self._events: list[Recorded] = []
        self._changed: list[Job] = []

    async def lock(self, job_ids: Sequence[str]) -> dict[str, Job]:
        self._was |= {job_id: self._known[job_id] for job_id in job_ids}
        return dict(self._was)

    async def now(self) -> int:
        if self._at is None:
            self._at = self._clock()
        return self._at

    async def insert_jobs(self, rows: Sequence[JobRow]) -> dict[str, JobRow]:
        self._made += rows
        return {}

    async def append(self, events: Sequence[Recorded], jobs: Sequence[Job] = ()) -> None:
        self._events += events
        self._changed += jobs

    async def claimable(
        self, worker_ids: Sequence[str], wanted: Mapping[tuple[str, int], int], *, careful: bool
    ) -> Claimable:
        def query() -> tuple[Claimable, bool]:
            now = self._db.now_ms()
            live = frozenset(self._db.live_workers(worker_ids, now))
            several, keyed = self._db.committed_shares()
            due = self._db.committed_due(wanted, now, careful=careful) if live else []
            return Claimable(now, live, due), several or keyed or self._running_jobs_max > 0

        found, shared = await self._session.call("look", lambda reply: reply(query()))
        if found.live and shared:
            raise Stale
        self._was |= {row.job.id: row.job for row in found.due}
        return found

    async def write(self) -> None:
        if not self._events:
            return

        sent = self._clock()
        arrived: list[int] = []

        def run(tx: Any) -> None:
            arrived.append(self._db.now_ms())
            if self._at is not None and abs(arrived[0] - self._at) > CLOCK_MS:
                raise Stale
            locked = self._db.lock(tx, [job.id for job in self._changed])
            for job in self._changed:
                was, now = self._was[job.id], locked.get(job.id)
                if now is None or (now.last_seq, now.lease_id) != (was.last_seq, was.lease_id):
                    raise Stale
            if self._db.insert_jobs(tx, self._made):
                raise Stale
            self._db.append(tx, self._events, self._changed)

        await self._session.call("write", lambda reply: self._db.autocommit(self._session, self._lock_s, run, reply))
        self.epoch, self.drift_ms = EPOCH, (arrived[0] - self._clock(), arrived[0] - sent)


def _due(job: Job, now: int) -> bool:
    return job.status == "queued" and (job.not_before or 0) <= now and job.losses < CAREFUL_LOSSES


def _passed(since: int | None, limit_s: float | None, now: int) -> bool:
    return since is not None and limit_s is not None and since + limit_s * 1000 < now
