"""Port: the log, the durable store of events and the only truth.

Promises, held by every adapter and tested once in `tests/contract/test_log.py`:
- an event exists once its transaction committed; then `read` returns it, for ever, byte for byte;
- one job's sequences are 1..n without a hole, and commit order is sequence order;
- a job's row always equals the fold of its events, for any reader at any time;
- a call that cannot reach the database raises `LogUnavailable` within its deadline and never hangs.

Only the committer writes, through `transaction`; everything else reads.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from events.job import Job
from events.record import Line, Recorded
from events.retention import Archived

PAGE_BYTES_MAX = 256 * 1024
CLOCK_MS = 250  # so far the clock may be off by which a batch without locks is decided
PAGE_EVENTS_MAX = 500
FEED_BYTES_MAX = 1024 * 1024
ROOM_AFTER_LEASES = 5  # so long a job that must run alone waits for an idle worker, before one makes room for it


@dataclass(frozen=True, slots=True)
class Head:
    """Where a stream ends: its last sequence and the job's status there; `heads` also says whose job it is."""

    seq: int
    status: str
    tenant: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job's whole row: the lifecycle state and what never changes after `submitted`."""

    job: Job
    params: str  # JSON text
    tags: tuple[str, ...] = ()
    rerun_of: str | None = None
    from_phase: str | None = None
    key_sha256: str | None = None
    fingerprint: str | None = None
    subject: str | None = None
    unique_key: str | None = None
    schedule: str | None = None  # the name of the one that made it
    webhook: str | None = None
    concurrency_key: str | None = None
    concurrency_limit: int | None = None


def differing(a: JobRow, b: JobRow) -> list[str]:
    """Names of the columns in which two rows of one job differ."""
    names = [name.name for name in fields(Job) if getattr(a.job, name.name) != getattr(b.job, name.name)]
    return names + [
        name.name for name in fields(JobRow) if name.name != "job" and getattr(a, name.name) != getattr(b, name.name)
    ]


@dataclass(frozen=True, slots=True)
class JobQuery:
    """Which jobs to list, newest first: of any of these statuses, with all of these tags, made from the job `rerun_of`.
    `before` is the id of the last job of the previous page, `up_to` that of the newest job that counts."""

    tenant: str
    status: tuple[str, ...] = ()
    engine: str | None = None
    tags: tuple[str, ...] = ()
    created_after: int | None = None
    rerun_of: str | None = None
    before: str | None = None
    up_to: str | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class JobPage:
    """Jobs as a query lists them. `more`: there are others behind the last of them."""

    rows: list[JobRow]
    more: bool


@dataclass(frozen=True, slots=True)
class Artifact:
    """Exact bytes of a value over 256 KiB, keyed by job and SHA-256 (hex)."""

    job_id: str
    sha256: str
    body: bytes


@dataclass(frozen=True, slots=True)
class EngineRow:
    """An engine's declaration as the fleet knows it: JSON Schemas and phases, as JSON values."""

    name: str
    version: int
    summary: str
    phases: list[dict[str, Any]]
    params_schema: dict[str, Any]
    result_schema: dict[str, Any]


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker process as it last said. Instants in ms by the database's clock."""

    id: str
    host: str
    pid: int
    build: str
    slots: int
    engines: Mapping[str, int]  # name -> version it runs
    draining: bool = False
    started_at: int = 0
    beat_at: int = 0
    lease_until: int = 0
    running: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """A running job as the log has it, told to its worker at each beat."""

    job_id: str
    attempt: int
    lease_id: str
    cancel_mode: str | None
    cancel_at: int | None
    total_at: int | None  # when the whole job times out


@dataclass(frozen=True, slots=True)
class BeatReply:
    """Answer to a beat: the database's time, the new lease's end, every job this worker runs, and whether to make room."""

    now: int
    lease_until: int
    held: tuple[Held, ...] = ()
    make_room: bool = False  # claim nothing until idle: a job that must run alone has waited long enough


def makes_room(worker_id: str, waiting: Collection[tuple[str, int]], workers: Iterable[WorkerRow], now: int) -> bool:
    """Whether this worker is the one to become idle for a job that must run alone. `waiting` are the engines and
    versions of such jobs, `workers` what the log knows. The emptiest that can run one is chosen: it stays so, since the
    others go on claiming."""
    able = [
        worker
        for worker in workers
        if worker.lease_until > now and not worker.draining and not worker.engines.items().isdisjoint(waiting)
    ]
    return bool(able) and min(able, key=lambda worker: (worker.running, worker.id)).id == worker_id


@dataclass(frozen=True, slots=True)
class Overdue:
    """A job the sweeper should expire, with the cause to judge again under its lock."""

    job_id: str
    attempt: int
    cause: str


@dataclass(frozen=True, slots=True)
class Look:
    """What a process sees at one look: the database's time in ms, what it leads, and whether that has something to do."""

    now: int
    leads: tuple[str, ...] = ()
    overdue: bool = False  # it leads `expire`, and a job is overdue
    due: bool = False  # it leads `tickets`, and a job is due
    behind: bool = False  # the log goes on behind the cursor of its copy
    ticks: bool = False  # it leads `schedules`, and one has a tick to make a job for


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Events of the whole log after an opaque cursor. Only `seq` orders one job's events here. `cursors` are the places
    just after each event, `cursor` is where to go on."""

    events: list[Recorded]
    cursors: list[str]
    cursor: str


def at_or_behind(cursor: str, end: str) -> bool:
    """Whether a cursor of the feed is at another one or behind it."""
    return place_of(cursor) >= place_of(end)


def place_of(cursor: str) -> tuple[int, ...]:
    """A cursor as numbers, in the order of the feed. Raises `ValueError`."""
    return tuple(map(int, cursor.split(":"))) if cursor else ()


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts for people: jobs by status, age of the oldest due job, events in the log (an estimate on Postgres)."""

    by_status: Mapping[str, int] = field(default_factory=dict)
    oldest_due_ms: int | None = None
    events: int = 0


@dataclass(frozen=True, slots=True)
class Claimable:
    """What a claim finds, at `now` by the database: which of the workers it is for are `live`, and jobs that are due, in the order
    they are handed out: by rank, or where several tenants or limits want it by shares (events/shares.py)."""

    now: int
    live: frozenset[str]
    due: list[JobRow]


class Transaction(Protocol):
    """One database transaction of the committer. Calls come in the order given here (architecture §4)."""

    epoch: str  # that the events it appended belong to, once they are written

    async def lock(self, job_ids: Sequence[str]) -> dict[str, Job]:
        """Locks the existing jobs in id order and returns their states."""

    async def now(self) -> int:
        """The database's time in ms, read after the locks."""

    async def recorded(self, command_ids: Mapping[str, str]) -> dict[str, list[Recorded]]:
        """The events already recorded for these `command_id -> job_id`: how an unknown outcome is resolved."""

    async def live_workers(self, worker_ids: Sequence[str], now: int) -> set[str]:
        """Those of the workers whose lease has not ended."""

    async def rivals(self, rows: Sequence[JobRow]) -> list[JobRow]:
        """The jobs in the way of these new ones: unfinished with the same unique key, or made with the same idempotency
        key. Until this transaction ends, others that ask for one of these keys wait."""

    async def holders(self, job_ids: Sequence[str]) -> dict[str, str]:
        """For each of these jobs whose unique key an unfinished job has: that job's id."""

    async def insert_jobs(self, rows: Sequence[JobRow]) -> dict[str, JobRow]:
        """Inserts new jobs; returns, by new id, the rows that were there first for the same idempotency key."""

    async def put_artifacts(self, artifacts: Sequence[Artifact]) -> None:
        """Stores bodies; one that is there already stays."""

    async def copy_artifacts(self, source_job_id: str, job_id: str, sha256s: Sequence[str]) -> None:
        """Gives a job its own rows of another job's artifacts."""

    async def claimable(
        self, worker_ids: Sequence[str], wanted: Mapping[tuple[str, int], int], *, careful: bool
    ) -> Claimable:
        """Locks due jobs of these engines and versions, for each up to its limit, best rank first, skipping those that
        others hold; none when no worker's lease is live. Without `careful` only jobs lost less than twice: from its
        second loss a job runs alone (architecture §8)."""

    async def append(self, events: Sequence[Recorded], jobs: Sequence[Job] = ()) -> None:
        """Inserts events and writes the lifecycle columns of `jobs`, all locked or just inserted here. The epoch the
        events belong to stays the log's until this transaction ends; a repeated (job, seq) raises and rolls everything
        back."""


class UnlockedTransaction(Transaction, Protocol):
    """See `Log.unlocked`."""

    drift_ms: tuple[
        int, int
    ]  # the database's clock minus the one given: at least, and at most, as the writing found it


class Log(Protocol):
    """The durable store of events. See the module's docstring for what it promises."""

    name: str  # "postgresql" or "sqlite"
    running_jobs_max: int  # jobs of one tenant that may run at once; 0: no limit
    epoch: str  # one lineage of the log, as the last `open`, `head` or `heads` saw it; changes only after a restore

    async def open(self) -> None:
        """Connects and checks the schema's revision. Raises `WrongRevision`, `LogUnavailable`."""

    async def close(self) -> None:
        """Gives every connection back; may be called twice."""

    def transaction(self, *, patient: bool = True) -> AbstractAsyncContextManager[Transaction]:
        """Commits at the end of the block, rolls back on an exception. One at a time per process. Raises `Contended`
        when somebody else holds a row, at once unless `patient`; `LogUnavailable` when the outcome is unknown."""

    unlocks: bool  # whether `unlocked` is there: where a statement costs a round trip

    def unlocked(
        self, known: Mapping[str, Job], clock: Callable[[], int]
    ) -> AbstractAsyncContextManager[UnlockedTransaction]:
        """As `transaction`, for a batch that needs no lock (`events/batch.py`): jobs are taken to be as `known`, the database's
        time to be what `clock` says, claims look without taking, and all of it is written in one statement at the end of the
        block. Raises `Stale`, having written nothing, when a job is not as it was taken to be, when the clock is off by more
        than `CLOCK_MS`, or when only locks can tell."""

    async def accepts(self, job_id: str) -> bool:
        """False when no partition can take this job's events: refuse before anything is queued."""

    async def now(self) -> int:
        """The database's time in ms."""

    # -- reading streams
    async def head(self, job_id: str, tenant: str | None = None) -> Head | None:
        """Head of a stream, None when there is no such job (of this tenant, when given)."""

    async def heads(self, job_ids: Sequence[str]) -> dict[str, Head]:
        """Heads of many streams in one query; unknown jobs are absent."""

    async def read(
        self, job_id: str, after: int, *, limit: int = PAGE_EVENTS_MAX, bytes_max: int = PAGE_BYTES_MAX
    ) -> list[Recorded]:
        """The events after `after` in order: at most `limit`, at most `bytes_max` of data but always one."""

    async def lines(self, job_id: str, after: int) -> list[Line]:
        """As `read`, each event as clients get it."""

    async def read_back(self, job_id: str, before: int, limit: int) -> list[Recorded]:
        """At most `limit` events below sequence `before`, newest first."""

    async def checkpoints(self, job_id: str) -> list[Recorded]:
        """The `checkpoint` events of a job, in order, without reading the rest of its stream into memory."""

    async def feed(
        self,
        cursor: str,
        limit: int,
        tenant: str | None = None,
        *,
        acts: bool = False,
        bytes_max: int = FEED_BYTES_MAX,
    ) -> FeedPage:
        """Events of the whole log after `cursor` ("" for the start), at most `limit` and `bytes_max` but always one. With a
        tenant its own, and with `acts` its administrative acts. Complete: no event appears later below a cursor already returned."""

    async def feed_end(self) -> str:
        """The cursor behind everything `feed` can return now."""

    # -- reading jobs
    async def job(self, job_id: str, tenant: str | None = None) -> JobRow | None:
        """A job's row."""

    async def previous(self, job: Job, subject: str) -> JobRow | None:
        """The last job of this one's tenant and engine about `subject` that had completed when this one was submitted.
        Completed jobs never change, so every attempt of a job is told the same."""

    async def jobs(self, query: JobQuery) -> JobPage:
        """Jobs of a tenant, newest first: at most `query.limit`, at most `PAGE_BYTES_MAX` of what they were given and what
        was wrong with them, but always one."""

    async def job_ids(self, query: JobQuery) -> list[str]:
        """The ids of all that the query finds, newest first."""

    async def count(self, query: JobQuery) -> int:
        """How many jobs the query would list, `query.limit` at most."""

    def all_jobs(self) -> AsyncIterator[JobRow]:
        """Every job in id order, for `db check` and `db rebuild`."""

    def all_events(self) -> AsyncIterator[Recorded]:
        """Every event: jobs in id order, each job's events in sequence, read in bounded pages. What is appended
        meanwhile may or may not be among them."""

    async def archived(self, job_ids: Sequence[str]) -> dict[str, Archived]:
        """Those of these jobs that retention took out: `job` and `read` know them only where there is an archive."""

    async def find_key(self, tenant: str, key_sha256: str) -> JobRow | None:
        """The job made with this idempotency key."""

    async def artifact(self, job_id: str, sha256: str) -> bytes | None:
        """The exact bytes of a stored value."""

    async def artifact_size(self, job_id: str, sha256: str) -> int | None:
        """How many bytes those are, without reading them; None when there are none."""

    async def stats(self, tenant: str) -> Stats:
        """Counts of one tenant."""

    # -- fleet
    async def declare(self, engines: Sequence[EngineRow]) -> None:
        """Records declarations; a lower version than the known one changes nothing."""

    async def engines(self) -> list[EngineRow]:
        """Every engine ever declared."""

    async def beat(self, worker: WorkerRow, lease_s: float) -> BeatReply:
        """Renews a worker's lease, on a connection of its own, and says what it runs."""

    async def leave(self, worker_id: str) -> None:
        """Removes a worker that ended in peace."""

    async def workers(self) -> list[WorkerRow]:
        """The workers that beat within the last minute or still hold a lease."""

    async def lead(self, name: str, holder: str, lease_s: float) -> bool:
        """Takes or renews a leader lease; False while another process holds it."""

    async def look(self, holder: str, names: Sequence[str], lease_s: float, copied: str | None) -> Look:
        """Takes the leader leases of these names that are free, renews those half over, and looks whether what the
        holder then leads has something to do: all that an idle process has to ask, at one moment. `copied` is the
        cursor of a complete copy."""

    async def cursor(self, name: str) -> str | None:
        """What the last leader of `name` saved."""

    async def save_cursor(self, name: str, holder: str, cursor: str) -> bool:
        """Saves a leader's cursor; False when it no longer leads."""

    # -- sweeping
    async def overdue(self, limit: int) -> list[Overdue]:
        """Jobs past a deadline and running jobs without a live worker."""

    async def due_counts(self) -> dict[tuple[str, int], int]:
        """Number of due queued jobs by engine and version, of an engine 10 000 at most; left out those that must run
        alone, which polls find, and those that would pass a limit."""

    async def make_partitions(self) -> None:
        """Makes what partitions the coming days need; nothing on SQLite."""

    async def rebuild(self, job: JobRow) -> None:
        """Rewrites what never changes of one job's row, for `db rebuild`; its state is saved in a transaction."""
