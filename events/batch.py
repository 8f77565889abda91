"""One transaction of the committer: many commands and claims in, recorded events out (architecture §4).

`commit_batch` decides in Python and touches the database a fixed number of times, however many commands it
carries. A refused command fails alone; anything else that goes wrong rolls the whole transaction back.
"""

import hashlib
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import uuid_utils

from events import crash_points
from events.catalog import (
    AnyCommand,
    AnyEvent,
    Cancel,
    Expire,
    Fenced,
    Finish,
    Reopen,
    Report,
    Start,
    Submit,
    Submitted,
)
from events.errors import (
    Contended,
    KeyReused,
    LeaseLost,
    PhaselineError,
    Refused,
    StillAlive,
    UniqueKeyTaken,
    UnknownJob,
)
from events.job import CAREFUL_LOSSES, Job, decide, record
from events.log import Artifact, JobRow, Transaction
from events.record import Recorded, encode_event
from events.values import encode


@dataclass(eq=False, slots=True)
class Item:
    """One command on its way: what to decide on, and what was answered."""

    job_id: str
    tenant: str | None  # None: whatever the job's tenant is (workers, sweeper)
    command: AnyCommand
    artifacts: Sequence[Artifact] = ()
    source_job_id: str | None = None  # whose artifacts a rerun copies
    doubtful: bool = False  # a transaction with it had no answer: it may be recorded already
    found: bool = False  # it was doubtful, and recorded
    texts: dict[int, str] = field(default_factory=dict)  # id(event) -> JSON text encoded before queueing
    rows: list[Recorded] = field(default_factory=list)
    row: JobRow | None = None  # for a submit: the job that now has the key, idempotency or unique
    replayed: bool = False
    error: PhaselineError | None = None


@dataclass(eq=False, slots=True)
class Claim:
    """A worker asks for due jobs: at most `slots`, of these engines at these versions."""

    worker_id: str
    engines: Mapping[str, int]
    slots: int
    idle: bool
    taken: list["Claimed"] = field(default_factory=list)
    error: PhaselineError | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job a worker now owns: its state just after `started`, its params (JSON text), and whom it is about."""

    job: Job
    params: str
    subject: str | None = None


@dataclass(slots=True)
class Committed:
    """What a transaction recorded, at `now` by the database: every event in order, each changed job as it stands."""

    now: int = 0
    epoch: str = ""  # the lineage of the log the events were appended to
    events: list[Recorded] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    # job -> (worker, attempt) that lost it to a cancel or an expiry
    taken_from: dict[str, tuple[str, int]] = field(default_factory=dict)
    ended: list[Recorded] = field(default_factory=list)  # the events that ended an attempt


def new_lease_id() -> str:
    """A random id: with the attempt it fences late writers."""
    return str(uuid_utils.uuid4())


async def commit_batch(tx: Transaction, items: Sequence[Item], claims: Sequence[Claim]) -> Committed:
    """Runs a batch inside an open transaction. A doubtful command that was recorded before answers with that."""
    existing = sorted({item.job_id for item in items if not isinstance(item.command, Submit)})
    jobs = await tx.lock(existing) if existing else {}
    now = await tx.now() if items else 0  # claims bring their own
    done = Committed(now)
    doubtful = {item.command.command_id: item.job_id for item in items if item.doubtful}
    before = await tx.recorded(doubtful) if doubtful else {}
    pending = [item for item in items if not _answered(item, before)]
    await _insert(tx, [item for item in pending if isinstance(item.command, Submit)], jobs, now, done)
    others = [item for item in pending if not isinstance(item.command, Submit)]
    await _decide(tx, others, jobs, now, done)
    for item in pending:
        if item.artifacts and item.error is None:
            await tx.put_artifacts(item.artifacts)
            crash_points.reached("artifacts.put")
    changed = {item.job_id for item in others if item.rows and item.error is None}
    if claims:
        changed |= await _claim(tx, claims, done, decided=changed)
    if done.events:
        await tx.append(done.events, [job for job_id, job in done.jobs.items() if job_id in changed])
    return done


def needs_no_lock(items: Sequence[Item], known: Mapping[str, Job]) -> bool:
    """Whether a batch can be decided on the states this process knows, because all it writes is held against them. What must
    be looked up, or stored beside the events, needs a transaction."""
    return all(
        not (item.doubtful or item.artifacts or item.source_job_id)
        and (
            item.command.submitted.unique_key is None
            if isinstance(item.command, Submit)
            else item.job_id in known and not isinstance(item.command, Expire | Reopen)
        )
        for item in items
    )


def told_by_writing(items: Sequence[Item]) -> bool:
    """Whether all answers rest on what is written: a refusal, or nothing to do, may come of a state that is old."""
    return all(item.rows and item.error is None for item in items)


def _answered(item: Item, before: Mapping[str, list[Recorded]]) -> bool:
    rows = before.get(item.command.command_id)
    if rows is None:
        return False
    item.rows = rows
    item.found = True
    return True


async def _insert(tx: Transaction, submits: Sequence[Item], jobs: Mapping[str, Job], now: int, done: Committed) -> None:
    """Makes the jobs of these submits, but those whose idempotency key or unique key another job has."""
    if not submits:
        return
    made: dict[str, tuple[Job, list[Recorded]]] = {}
    for item in submits:
        events = decide(None, item.command, now)
        job, rows = _record(None, item, events, item.tenant or "", now)
        made[item.job_id] = (job, rows)
        if isinstance(item.command, Submit):
            item.row = job_row(job, item.command.submitted)
    ordered = sorted(
        submits, key=lambda item: (item.tenant or "", (item.row and item.row.key_sha256) or "", item.job_id)
    )
    unique = [item for item in ordered if item.row and item.row.unique_key is not None]
    if unique:
        await _insert_unique(tx, unique, made, jobs, now, done)
        ordered = [item for item in ordered if item.row and item.row.unique_key is None]
    await _insert_all(tx, ordered, made, done)


async def _insert_unique(
    tx: Transaction,
    submits: Sequence[Item],
    made: Mapping[str, tuple[Job, list[Recorded]]],
    jobs: Mapping[str, Job],
    now: int,
    done: Committed,
) -> None:
    """Of jobs with the same unique key one is unfinished. Who asks again under an idempotency key is answered by that,
    before anything is cancelled for it."""
    keyed: dict[tuple[str, str | None], JobRow] = {}
    holders: dict[tuple[str, str | None], JobRow] = {}

    def learn(row: JobRow) -> None:
        if row.key_sha256 is not None:
            keyed[row.job.tenant, row.key_sha256] = row
        if not row.job.is_final:
            holders[row.job.tenant, row.unique_key] = row

    for rival in await tx.rivals([item.row for item in submits if item.row]):
        learn(rival)
    fresh: list[Item] = []
    for item in submits:
        row, command = item.row, item.command
        assert row is not None
        assert isinstance(command, Submit)
        holder = holders.get((row.job.tenant, row.unique_key))
        if row.key_sha256 is not None and (winner := keyed.get((row.job.tenant, row.key_sha256))):
            _replay(item, winner)
            continue
        if holder is not None and holder.job.id == item.job_id:
            raise Contended  # our own, of a transaction that had no answer: found by its command once judged again
        if holder is not None and command.unique_mode != "replace":
            item.artifacts = ()
            item.row = holder
            if command.unique_mode == "refuse":
                item.error = UniqueKeyTaken(f"job {holder.job.id} has this unique key", job_id=holder.job.id)
            continue
        if holder is not None:
            await _insert_all(tx, fresh, made, done)
            fresh = []
            await _replace(tx, item, holder.job.id, jobs, now, done)
        learn(row)
        fresh.append(item)
    await _insert_all(tx, fresh, made, done)
    if any(item.replayed for item in fresh):  # its idempotency key was taken by a job without a unique key: judge again
        raise Contended


async def _replace(
    tx: Transaction, item: Item, holder_id: str, jobs: Mapping[str, Job], now: int, done: Committed
) -> None:
    """Cancels the job whose unique key a new one takes, whatever it does: both in this transaction, or neither."""
    job = done.jobs.get(holder_id) or jobs.get(holder_id) or (await tx.lock([holder_id]))[holder_id]
    submitted = item.command.submitted if isinstance(item.command, Submit) else None
    command = Cancel(
        command_id=str(uuid_utils.uuid4()),
        actor=item.command.actor,
        mode="force",
        reason=f"replaced by job {item.job_id}",
        address=submitted.address if submitted else None,
    )
    if job.is_final:  # it ended before its row was locked
        return
    at = max(now, job.last_at)
    cancelled, rows = _record(job, Item(job.id, job.tenant, command), decide(job, command, at), job.tenant, at)
    _changed(job, cancelled, rows, done)
    if job.worker_id:
        done.taken_from[job.id] = (job.worker_id, job.attempt)
    await tx.append([], [cancelled])  # at once: the new job's row may not be there beside it


def _replay(item: Item, winner: JobRow) -> None:
    """What a submit is answered whose idempotency key made a job before: that one, if it was the same request."""
    item.replayed = True
    item.artifacts = ()
    mine = item.row.fingerprint if item.row else None
    item.row = winner
    if winner.fingerprint != mine:
        item.error = KeyReused()


async def _insert_all(
    tx: Transaction, submits: Sequence[Item], made: Mapping[str, tuple[Job, list[Recorded]]], done: Committed
) -> None:
    """A loser of the race for an idempotency key reads the winner and appends nothing."""
    first = await tx.insert_jobs([item.row for item in submits if item.row]) if submits else {}
    for item in submits:
        if winner := first.get(item.job_id):
            _replay(item, winner)
            continue
        job, item.rows = made[item.job_id]
        done.jobs[job.id] = job
        done.events += item.rows
        if item.source_job_id and isinstance(item.command, Submit):
            refs = [reused.output_ref.sha256 for reused in item.command.reused if reused.output_ref]
            await tx.copy_artifacts(item.source_job_id, item.job_id, refs)


async def _decide(tx: Transaction, items: Sequence[Item], jobs: Mapping[str, Job], now: int, done: Committed) -> None:
    live = await _live_holders(tx, items, jobs, now)
    reopened = sorted({item.job_id for item in items if isinstance(item.command, Reopen)})
    holders = await tx.holders(reopened) if reopened else {}
    for item in items:
        job = done.jobs.get(item.job_id) or jobs.get(item.job_id)
        try:
            if job is None or (item.tenant is not None and job.tenant != item.tenant):
                raise UnknownJob
            if isinstance(item.command, Expire) and item.command.cause == "lost" and job.worker_id in live:
                raise StillAlive
            if isinstance(item.command, Reopen) and job.is_final and (holder := holders.get(job.id)):
                raise UniqueKeyTaken(f"job {holder} has the unique key of this one", job_id=holder)
            at = max(now, job.last_at)
            changed, item.rows = _record(job, item, decide(job, item.command, at), job.tenant, at)
        except Refused as refusal:
            item.error = refusal
            continue
        if item.rows:
            _changed(job, changed, item.rows, done)
            if job.worker_id and not changed.worker_id and not isinstance(item.command, Fenced):
                done.taken_from[job.id] = (job.worker_id, job.attempt)


def _changed(job: Job, changed: Job, rows: list[Recorded], done: Committed) -> None:
    done.jobs[job.id] = changed
    done.events += rows
    if job.worker_id and not changed.worker_id:
        done.ended.append(rows[-1])


async def _live_holders(tx: Transaction, items: Sequence[Item], jobs: Mapping[str, Job], now: int) -> set[str]:
    suspects = {
        worker_id
        for item in items
        if isinstance(item.command, Expire) and item.command.cause == "lost" and (job := jobs.get(item.job_id))
        for worker_id in [job.worker_id]
        if worker_id
    }
    return await tx.live_workers(sorted(suspects), now) if suspects else set()


async def _claim(tx: Transaction, claims: Sequence[Claim], done: Committed, *, decided: AbstractSet[str]) -> set[str]:
    """All claims together and last: inside a transaction SKIP LOCKED does not skip its own rows. What was `decided` in
    this batch is not yet saved, so its row may still look due: its new state, if it is due, comes with the next claim.
    Returns the jobs that were claimed."""
    wanted: dict[tuple[str, int], int] = {}
    for claim in claims:
        for declared in claim.engines.items():
            wanted[declared] = wanted.get(declared, 0) + claim.slots
    worker_ids = sorted({claim.worker_id for claim in claims})
    found = await tx.claimable(worker_ids, wanted, careful=any(claim.idle for claim in claims))
    done.now = done.now or found.now
    for claim in claims:
        if claim.worker_id not in found.live:
            claim.error = LeaseLost("the worker's lease has ended; it beats before it claims again")
    claimed: set[str] = set()
    for row in found.due:
        claim_or_none = next((claim for claim in claims if _accepts(claim, row.job)), None)
        if claim_or_none is None or row.job.id in decided:
            continue
        job, recorded = _start(row.job, claim_or_none.worker_id, max(found.now, row.job.last_at))
        claim_or_none.taken.append(Claimed(job, row.params, row.subject))
        claimed.add(job.id)
        done.events += recorded
        done.jobs[job.id] = job
    return claimed


def _accepts(claim: Claim, job: Job) -> bool:
    if claim.error or claim.engines.get(job.engine) != job.engine_version or len(claim.taken) >= claim.slots:
        return False
    if any(taken.job.losses >= CAREFUL_LOSSES for taken in claim.taken):
        return False
    return job.losses < CAREFUL_LOSSES or (claim.idle and not claim.taken)


def _start(job: Job, worker_id: str, at: int) -> tuple[Job, list[Recorded]]:
    command = Start(
        command_id=str(uuid_utils.uuid4()), actor=f"worker:{worker_id}", worker_id=worker_id, lease_id=new_lease_id()
    )
    started, rows = _record(job, Item(job.id, job.tenant, command), decide(job, command, at), job.tenant, at)
    return started, rows


def _record(
    job: Job | None, item: Item, events: Sequence[AnyEvent], tenant: str, at: int
) -> tuple[Job, list[Recorded]]:
    texts = [item.texts.get(id(event)) or encode_event(event) for event in events]
    changed, rows = record(
        job,
        events,
        texts,
        job_id=item.job_id,
        tenant=tenant,
        actor=item.command.actor,
        command_id=item.command.command_id,
        at=at,
    )
    if changed is None:  # a new job's events always begin with `submitted`
        raise UnknownJob
    return changed, rows


def job_row(job: Job, submitted: Submitted) -> JobRow:
    """A job's whole row: its state, and what never changes after `submitted`."""
    key = submitted.idempotency
    return JobRow(
        job=job,
        params=encode(submitted.params).decode(),
        tags=submitted.tags,
        rerun_of=submitted.rerun_of,
        from_phase=submitted.from_phase,
        key_sha256=key.key_sha256 if key else None,
        fingerprint=key.fingerprint if key else None,
        subject=submitted.subject,
        unique_key=submitted.unique_key,
        schedule=submitted.schedule.name if submitted.schedule else None,
        webhook=submitted.webhook,
        concurrency_key=submitted.concurrency.key if submitted.concurrency else None,
        concurrency_limit=submitted.concurrency.limit if submitted.concurrency else None,
    )


def encode_early(command: AnyCommand) -> dict[int, str]:
    """JSON texts of the events a command carries, made before it is queued, so that a value no log can keep is
    refused at its sender. Raises `Unstorable`."""
    if isinstance(command, Report | Finish):
        return {id(event): encode_event(event) for event in command.said}
    if isinstance(command, Submit):
        return {id(event): encode_event(event) for event in (command.submitted, *command.reused)}
    return {}


def digest_of(text: bytes) -> str:
    """Hex SHA-256, as references and checkpoints carry it."""
    return hashlib.sha256(text).hexdigest()
