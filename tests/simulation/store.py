"""A simulated PostgreSQL, as far as the log uses it: rows, row locks, READ COMMITTED transactions, its own clock.

What the real one does and this one does too: locks wait and time out, SKIP LOCKED skips, a unique key waits for the
transaction that took it first, transactions are numbered when they first write and may commit in another order, a
transaction nobody goes on with is rolled back after a while, and a COMMIT that has arrived is carried out whether or not
anybody still waits for its answer.
"""

import asyncio
import sys
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from events import tables as t
from events.errors import Contended, LogUnavailable, PhaselineError, Unstorable
from events.job import CAREFUL_LOSSES, Job
from events.log import ROOM_AFTER_LEASES, Artifact, EngineRow, Held, JobRow, WorkerRow
from events.postgres_line import SERVER_SETTINGS
from events.record import Recorded
from events.seal import Envelope, Range, Seal
from events.shares import Candidate, by_rank
from tests.simulation.line import Server, Session
from tests.simulation.loop import OUTSIDE

IDLE_S = int(SERVER_SETTINGS["idle_in_transaction_session_timeout"]) / 1000
PATIENT_S = int(SERVER_SETTINGS["lock_timeout"]) / 1000
IMPATIENT_S = 0.05  # the lock_timeout of commands tried one by one

Position = tuple[int, int]  # (number of the transaction, place in the whole log)


@dataclass(slots=True)
class Leader:
    """Who leads, until when (ms), and how far it came."""

    holder: str
    until: int
    cursor: str | None = None


class Blocked(Exception):
    """Somebody else holds this lock."""

    def __init__(self, lock: str) -> None:
        super().__init__(lock)
        self.lock = lock


@dataclass(eq=False, slots=True)
class Tx:
    """One transaction: what it wrote, visible to itself only until it commits."""

    session: Session
    lock_s: float
    xid: int | None = None
    rows: dict[str, JobRow] = field(default_factory=dict)
    inserted: dict[str, None] = field(default_factory=dict)
    events: list[tuple[int, Recorded]] = field(default_factory=list)  # with their positions
    artifacts: dict[tuple[str, str], bytes] = field(default_factory=dict)
    locks: dict[str, None] = field(default_factory=dict)
    over: bool = False
    busy: bool = False
    left: bool = False  # nobody is at the other end any more
    active_at: float = 0.0


class Database(Server):
    """The server. `on_commit` hears every transaction that recorded something, in the order of commits."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        super().__init__(LogUnavailable)
        self.now_ms = now_ms
        self.rows: dict[str, JobRow] = {}
        self.events: dict[str, list[Recorded]] = {}
        self.artifacts: dict[tuple[str, str], bytes] = {}
        self.workers: dict[str, WorkerRow] = {}
        self.engines: dict[str, EngineRow] = {}
        self.leaders: dict[str, Leader] = {}
        self.seals: list[Seal] = []
        self.sealed: dict[str, tuple[int, bytes]] = {}  # sequence and head a job is sealed up to
        self.on_commit: Callable[[Tx], None] = lambda _: None
        self.commits = 0
        self.rollbacks = 0
        self._keys: dict[tuple[str, str], str] = {}
        self._by_command: dict[str, list[Recorded]] = {}
        self._feed: list[tuple[Position, Recorded]] = []
        self._holders: dict[str, Tx] = {}
        self._waiting: dict[str, list[Callable[[], None]]] = {}
        self._running: dict[int, Tx] = {}
        self._txs: dict[Session, Tx] = {}
        self._next_xid = 1
        self._next_pos = 1

    # -- transactions

    def statement(self, session: Session, lock_s: float, run: Callable[[Tx], Any], reply: Callable[..., None]) -> None:
        """Runs a statement of the session's transaction, beginning one when there is none. A lock that is held is
        waited for, then the statement goes on."""
        tx = self._txs.get(session)
        if tx is None:
            tx = self._txs[session] = Tx(session, lock_s)
            self._watch(tx)
        tx.busy = True
        self._try(tx, run, reply, None)

    def _try(
        self,
        tx: Tx,
        run: Callable[[Tx], Any],
        reply: Callable[..., None],
        waited: tuple[str, asyncio.TimerHandle] | None,
    ) -> None:
        if tx.over:
            return
        if waited:
            waited[1].cancel()
        try:
            result = run(tx)
        except Blocked as blocked:
            timer = asyncio.get_running_loop().call_later(
                tx.lock_s, self.handle, lambda: self._gave_up(tx, reply), context=OUTSIDE
            )
            again = (blocked.lock, timer)
            self._waiting.setdefault(blocked.lock, []).append(lambda: self._try(tx, run, reply, again))
        except PhaselineError as error:
            self.rollback(tx)
            reply(error=error)
        else:
            tx.busy = False
            tx.active_at = asyncio.get_running_loop().time()
            reply(result)
            if tx.left:
                tx.session.end()

    def _gave_up(self, tx: Tx, reply: Callable[..., None]) -> None:
        if not tx.over:
            self.rollback(tx)
            reply(error=Contended())

    def _watch(self, tx: Tx) -> None:
        """Rolls back a transaction nobody goes on with, and ends its session."""
        loop = asyncio.get_running_loop()
        tx.active_at = loop.time()

        def look() -> None:
            if tx.over:
                return
            left_s = IDLE_S - (loop.time() - tx.active_at)
            if tx.busy or self.frozen or left_s > 0:
                loop.call_later(max(left_s, 1.0), look, context=OUTSIDE)
            else:
                tx.session.end()

        loop.call_later(IDLE_S, look, context=OUTSIDE)

    def autocommit(self, session: Session, lock_s: float, run: Callable[[Tx], Any], reply: Callable[..., None]) -> None:
        """A statement that is a transaction of its own."""

        def done(result: Any = None, *, error: PhaselineError | None = None) -> None:
            if error is not None:
                reply(error=error)
            else:
                self.commit(session, lambda _: reply(result))

        self.statement(session, lock_s, run, done)

    def commit(self, session: Session, reply: Callable[..., None]) -> None:
        """Makes everything the transaction wrote true at once."""
        tx = self._txs.get(session)
        if tx is not None:
            self._apply(tx)
            self._finish(tx)
            if tx.events:
                self.on_commit(tx)
            self.commits += 1
        reply(None)

    def rollback(self, tx: Tx) -> None:
        """Forgets everything the transaction wrote."""
        self.rollbacks += 1
        self._finish(tx)

    def abort(self, session: Session, reply: Callable[..., None]) -> None:
        """ROLLBACK, as the client says it."""
        if tx := self._txs.get(session):
            self.rollback(tx)
        reply(None)

    def left(self, session: Session) -> None:
        """A statement that waits is not interrupted: it is only then that the server finds nobody at the other end."""
        if (tx := self._txs.get(session)) is not None and tx.busy:
            tx.left = True
        else:
            session.end()

    def ended(self, session: Session) -> None:
        if tx := self._txs.get(session):
            self.rollback(tx)

    def _finish(self, tx: Tx) -> None:
        tx.over = True
        self._txs.pop(tx.session, None)
        if tx.xid is not None:
            del self._running[tx.xid]
        woken: list[Callable[[], None]] = []
        for lock in tx.locks:
            del self._holders[lock]
            woken += self._waiting.pop(lock, ())
        for again in woken:
            again()

    def _apply(self, tx: Tx) -> None:
        self.rows.update(tx.rows)
        for job_id in tx.inserted:
            row = tx.rows[job_id]
            if row.key_sha256 is not None:
                self._keys[row.job.tenant, row.key_sha256] = job_id
        for pos, recorded in tx.events:
            self.events.setdefault(recorded.job_id, []).append(recorded)
            self._by_command.setdefault(recorded.command_id, []).append(recorded)
            insort(self._feed, ((tx.xid or 0, pos), recorded), key=lambda entry: entry[0])
        for key, body in tx.artifacts.items():
            self.artifacts.setdefault(key, body)

    def _take(self, tx: Tx, lock: str) -> None:
        holder = self._holders.get(lock)
        if holder is tx:
            return
        if holder is not None:
            raise Blocked(lock)
        self._number(tx)
        self._holders[lock] = tx
        tx.locks[lock] = None

    def _number(self, tx: Tx) -> int:
        if tx.xid is None:
            tx.xid = self._next_xid
            self._next_xid += 1
            self._running[tx.xid] = tx
        return tx.xid

    # -- statements of the committer

    def lock(self, tx: Tx, job_ids: Sequence[str]) -> dict[str, Job]:
        """FOR NO KEY UPDATE in id order."""
        for job_id in sorted(set(job_ids)):
            if job_id in self.rows or job_id in tx.rows:
                self._take(tx, job_id)
        return {job_id: row.job for job_id in job_ids if (row := self._seen(tx, job_id)) is not None}

    def _seen(self, tx: Tx, job_id: str) -> JobRow | None:
        return tx.rows.get(job_id) or self.rows.get(job_id)

    def recorded(self, tx: Tx, command_ids: Mapping[str, str]) -> dict[str, list[Recorded]]:
        """What these commands recorded."""
        found = {command_id: self._by_command.get(command_id) for command_id in sorted(command_ids)}
        return {command_id: list(rows) for command_id, rows in found.items() if rows}

    def live_workers(self, worker_ids: Sequence[str], now: int) -> set[str]:
        """Those whose lease has not ended."""
        return {one for one in worker_ids if (row := self.workers.get(one)) is not None and row.lease_until > now}

    def advise(self, tx: Tx, rows: Sequence[JobRow]) -> None:
        """Advisory locks of the keys of new jobs, until the transaction ends."""
        keys = {f"advisory key {row.job.tenant} {row.key_sha256}" for row in rows if row.key_sha256}
        for lock in sorted(keys | {f"advisory unique {row.job.tenant} {row.unique_key}" for row in rows}):
            self._take(tx, lock)

    def rivals(self, tx: Tx, rows: Sequence[JobRow]) -> list[JobRow]:
        """What is in the way of new jobs."""
        found = {}
        for row in rows:
            if holder := self._unfinished(tx, row):
                found[holder.job.id] = holder
            if row.key_sha256 is not None and (winner := self.found_key(row.job.tenant, row.key_sha256)):
                found[winner.job.id] = winner
        return list(found.values())

    def unique_holders(self, tx: Tx, job_ids: Sequence[str]) -> dict[str, str]:
        """Who else has the unique keys of these jobs."""
        own = {job_id: row for job_id in job_ids if (row := self._seen(tx, job_id)) is not None}
        return {job_id: holder.job.id for job_id, row in own.items() if (holder := self._unfinished(tx, row))}

    def _unfinished(self, tx: Tx, row: JobRow) -> JobRow | None:
        """Another unfinished job with the unique key of this one."""
        if row.unique_key is None:
            return None
        others = (self._seen(tx, job_id) for job_id in dict.fromkeys([*self.rows, *tx.inserted]))
        same = (other for other in others if other is not None and other.job.id != row.job.id)
        wanted = (row.job.tenant, row.unique_key)
        return next((o for o in same if (o.job.tenant, o.unique_key) == wanted and not o.job.is_final), None)

    def _index_unfinished(self, tx: Tx, row: JobRow) -> None:
        """The unique index of unfinished jobs: waits for whoever writes the same, then refuses as the adapter says it."""
        if row.unique_key is not None and not row.job.is_final:
            self._take(tx, f"unfinished {row.job.tenant} {row.unique_key}")
            if self._unfinished(tx, row):
                raise Contended

    def insert_jobs(self, tx: Tx, rows: Sequence[JobRow]) -> dict[str, JobRow]:
        """ON CONFLICT of the key DO NOTHING; a conflict of the id is an error. Both wait for whoever came first."""
        winners = {}
        for row in rows:
            job = row.job
            if job.id in tx.rows:
                continue  # inserted before this statement had to wait
            if row.key_sha256 is not None:
                lock = f"key {job.tenant} {row.key_sha256}"
                if lock in self._holders or (job.tenant, row.key_sha256) not in self._keys:
                    self._take(tx, lock)
                if winner := self._keys.get((job.tenant, row.key_sha256)):
                    winners[job.id] = self.rows[winner]
                    continue
                if own := next((r for r in tx.rows.values() if _key(r) == _key(row)), None):
                    winners[job.id] = own
                    continue
            self._take(tx, job.id)
            if job.id in self.rows:
                raise Unstorable(f"the database refused this content: job {job.id} is there already")
            self._index_unfinished(tx, row)
            tx.rows[job.id] = row
            tx.inserted[job.id] = None
        return winners

    def append(self, tx: Tx, events: Sequence[Recorded], jobs: Sequence[Job]) -> None:
        """A repeated (job, seq) raises. Of the jobs the columns that change are written."""
        for job in jobs:
            self._take(tx, job.id)
            row = self._seen(tx, job.id)
            if row is not None:
                changed = {name: getattr(job, name) for name in t.CHANGING}
                if row.job.is_final and not job.is_final:
                    self._index_unfinished(tx, replace(row, job=job))
                tx.rows[job.id] = replace(row, job=replace(row.job, **changed))
        self._number(tx)
        mine = {(recorded.job_id, recorded.seq) for _, recorded in tx.events}
        for recorded in events:
            key = (recorded.job_id, recorded.seq)
            if key in mine or recorded.seq <= len(self.events.get(recorded.job_id, ())):
                raise Unstorable("the database refused this content: a sequence is there already")
            mine.add(key)
            tx.events.append((self._next_pos, recorded))
            self._next_pos += 1

    def put_artifacts(self, tx: Tx, artifacts: Sequence[Artifact]) -> None:
        """One that is there already stays."""
        for one in artifacts:
            tx.artifacts.setdefault((one.job_id, one.sha256), one.body)

    def copy_artifacts(self, tx: Tx, source: str, job_id: str, sha256s: Sequence[str]) -> None:
        """Another job's rows as one's own."""
        for sha256 in sha256s:
            body = tx.artifacts.get((source, sha256)) or self.artifacts.get((source, sha256))
            if body is not None:
                tx.artifacts[job_id, sha256] = body

    def due(self, tx: Tx, wanted: Mapping[tuple[str, int], int], now: int, *, careful: bool) -> list[JobRow]:
        """For each engine best rank first, FOR NO KEY UPDATE SKIP LOCKED."""
        ids = dict.fromkeys([*self.rows, *tx.inserted])
        rows = [row for job_id in ids if (row := self._seen(tx, job_id)) is not None]
        found: list[JobRow] = []
        for declared, limit in wanted.items():
            found += [
                row
                for row in sorted(rows, key=lambda row: row.job.rank)
                if _is_due(row.job, declared, now, careful=careful) and self._holders.get(row.job.id, tx) is tx
            ][:limit]
        for row in found:
            self._take(tx, row.job.id)
        return sorted(found, key=by_rank)

    def committed_due(self, wanted: Mapping[tuple[str, int], int], now: int, *, careful: bool) -> list[JobRow]:
        """What `due` would find, as far as it is committed, and nothing taken."""
        found: list[JobRow] = []
        for declared, limit in wanted.items():
            ranked = sorted(self.rows.values(), key=lambda row: row.job.rank)
            found += [row for row in ranked if _is_due(row.job, declared, now, careful=careful)][:limit]
        return sorted(found, key=by_rank)

    def committed_shares(self) -> tuple[bool, bool]:
        """What `shares` would find, as far as it is committed."""
        queued = [row for row in self.rows.values() if row.job.status == "queued"]
        return len({row.job.tenant for row in queued}) > 1, any(row.concurrency_key is not None for row in queued)

    def shares(self, tx: Tx) -> tuple[bool, bool]:
        """Whether several tenants wait, and whether a concurrency key does."""
        queued = [row for row in self._all(tx) if row.job.status == "queued"]
        return len({row.job.tenant for row in queued}) > 1, any(row.concurrency_key is not None for row in queued)

    def take_turns(self, tx: Tx) -> None:
        """The advisory lock of claims."""
        self._take(tx, "advisory claims")

    def candidates(self, tx: Tx, wanted: Mapping[tuple[str, int], int], now: int, *, careful: bool) -> list[Candidate]:
        """Every due job, with what its tenant runs and its key holds, as far as it is committed."""
        running, holding = self.loads()
        return [
            Candidate(
                *(
                    job.id,
                    job.tenant,
                    job.engine,
                    job.engine_version,
                    job.rank,
                    row.concurrency_key,
                    row.concurrency_limit,
                ),
                running.get(job.tenant, 0),
                holding.get((job.tenant, row.concurrency_key or ""), 0),
            )
            for row in self._all(tx)
            for job in [row.job]
            if job.status == "queued"
            and (job.engine, job.engine_version) in wanted
            and (job.not_before or 0) <= now
            and (careful or job.losses < CAREFUL_LOSSES)
        ]

    def take_due(self, tx: Tx, ids: Sequence[str], now: int) -> list[JobRow]:
        """Those of them that are still due, SKIP LOCKED."""
        rows = [row for job_id in ids if (row := self._seen(tx, job_id)) is not None]
        free = [row for row in rows if self._holders.get(row.job.id, tx) is tx]
        found = [row for row in free if row.job.status == "queued" and (row.job.not_before or 0) <= now]
        for row in found:
            self._take(tx, row.job.id)
        return found

    def loads(self) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
        """What each tenant runs, and each of its concurrency keys."""
        runs = [row for row in self.rows.values() if row.job.status == "running"]
        keyed = Counter((row.job.tenant, row.concurrency_key) for row in runs if row.concurrency_key is not None)
        return dict(Counter(row.job.tenant for row in runs)), dict(keyed)

    def _all(self, tx: Tx) -> list[JobRow]:
        ids = dict.fromkeys([*self.rows, *tx.inserted])
        return [row for job_id in ids if (row := self._seen(tx, job_id)) is not None]

    # -- what readers ask

    @property
    def horizon(self) -> int:
        """The oldest transaction that still runs, or the next one."""
        return min(self._running, default=self._next_xid)

    def feed(self, after: Position, limit: int, tenant: str | None, bytes_max: int) -> list[tuple[Position, Recorded]]:
        """In the order of transactions, below the oldest that still runs."""
        horizon = self.horizon
        page: list[tuple[Position, Recorded]] = []
        size = 0
        for position, recorded in self._feed[bisect_right(self._feed, after, key=lambda entry: entry[0]) :]:
            if position[0] >= horizon or len(page) == limit:
                break
            if tenant is not None and recorded.tenant != tenant:
                continue
            size += len(recorded.data)
            if page and size > bytes_max:
                break
            page.append((position, recorded))
        return page

    def envelopes(self, after: Position, limit: int) -> list[Envelope]:
        """The feed without its data, each event with its place there."""
        return [
            Envelope(
                *(
                    row.job_id,
                    row.seq,
                    row.type,
                    row.version,
                    row.attempt,
                    row.actor,
                    row.tenant,
                    row.at,
                    row.command_id,
                ),
                row.digest,
                f"1:{xid}:{pos}",
            )
            for (xid, pos), row in self.feed(after, limit, None, sys.maxsize)
        ]

    def put_seal(self, seal: Seal, ranges: Sequence[Range]) -> bool:
        """False when there is one of this number."""
        if seal.no != len(self.seals) + 1:
            return False
        self.seals.append(seal)
        self.sealed.update((one.job_id, (one.last_seq, one.head)) for one in ranges)
        return True

    def found_key(self, tenant: str, key_sha256: str) -> JobRow | None:
        """The job made with a key."""
        return self.rows.get(self._keys.get((tenant, key_sha256), ""))

    def workers_running(self) -> list[WorkerRow]:
        """The workers, each with the number of jobs it runs."""
        return [replace(row, running=len(self.held_by(row.id))) for row in self.workers.values()]

    def waiting_for_room(self, now: int, lease_s: float) -> set[tuple[str, int]]:
        """Engines and versions of jobs that must run alone and have waited long enough."""
        since = now - int(ROOM_AFTER_LEASES * lease_s * 1000)
        jobs = (row.job for row in self.rows.values() if row.job.status == "queued")
        long_due = (job for job in jobs if max(job.last_at, job.not_before or 0) <= since)
        return {(job.engine, job.engine_version) for job in long_due if job.losses >= CAREFUL_LOSSES}

    def held_by(self, worker_id: str) -> tuple[Held, ...]:
        """The running jobs of a worker."""
        jobs = [row.job for row in self.rows.values() if row.job.status == "running" and row.job.worker_id == worker_id]
        return tuple(
            Held(
                job.id,
                job.attempt,
                job.lease_id or "",
                job.cancel_mode,
                job.cancel_at,
                job.opened_at + int(job.total_s * 1000) if job.total_s is not None else None,
            )
            for job in jobs
        )


def _is_due(job: Job, declared: tuple[str, int], now: int, *, careful: bool) -> bool:
    return (
        (job.status, (job.engine, job.engine_version)) == ("queued", declared)
        and (job.not_before or 0) <= now
        and (careful or job.losses < CAREFUL_LOSSES)
    )


def _key(row: JobRow) -> tuple[str, str | None]:
    return row.job.tenant, row.key_sha256
