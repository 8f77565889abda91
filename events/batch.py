"""One transaction of the committer: many commands and claims in, recorded events out (architecture §4).

`commit_batch` decides in Python and touches the database a fixed number of times, however many commands it
carries. A refused command fails alone; anything else that goes wrong rolls the whole transaction back.
"""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from events import crash_points
from events.catalog import AnyCommand, AnyEvent, Expire, Fenced, Finish, Report, Start, Submit, Submitted
from events.errors import KeyReused, LeaseLost, PhaselineError, Refused, StillAlive, UnknownJob
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
    row: JobRow | None = None  # for a submit: the job that now has the key
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
    return str(uuid.uuid4())


async def commit_batch(tx: Transaction, items: Sequence[Item], claims: Sequence[Claim]) -> Committed:
    """Runs a batch inside an open transaction. A doubtful command that was recorded before answers with that."""
    existing = sorted({item.job_id for item in items if not isinstance(item.command, Submit)})
    jobs = await tx.lock(existing) if existing else {}
    now = await tx.now()
    done = Committed(now)
    doubtful = {item.command.command_id: item.job_id for item in items if item.doubtful}
    before = await tx.recorded(doubtful) if doubtful else {}
    pending = [item for item in items if not _answered(item, before)]
    await _insert(tx, [item for item in pending if isinstance(item.command, Submit)], now, done)
    others = [item for item in pending if not isinstance(item.command, Submit)]
    await _decide(tx, others, jobs, now, done)
    for item in pending:
        if item.artifacts and item.error is None:
            await tx.put_artifacts(item.artifacts)
            crash_points.reached("artifacts.put")
    if decided := {item.job_id for item in others if item.rows and item.error is None}:
        await tx.save([job for job_id, job in done.jobs.items() if job_id in decided])
    if claims:
        await _claim(tx, claims, now, done)
    if done.events:
        done.epoch = await tx.append(done.events)
    return done


def _answered(item: Item, before: Mapping[str, list[Recorded]]) -> bool:
    rows = before.get(item.command.command_id)
    if rows is None:
        return False
    item.rows = rows
    item.found = True
    return True


async def _insert(tx: Transaction, submits: Sequence[Item], now: int, done: Committed) -> None:
    """A loser of the race for an idempotency key reads the winner and appends nothing."""
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
    first = await tx.insert_jobs([item.row for item in ordered if item.row])
    for item in ordered:
        if winner := first.get(item.job_id):
            item.replayed = True
            item.artifacts = ()
            mine = item.row.fingerprint if item.row else None
            item.row = winner
            if winner.fingerprint != mine:
                item.error = KeyReused()
            continue
        job, item.rows = made[item.job_id]
        done.jobs[job.id] = job
        done.events += item.rows
        if item.source_job_id and isinstance(item.command, Submit):
            refs = [reused.output_ref.sha256 for reused in item.command.reused if reused.output_ref]
            await tx.copy_artifacts(item.source_job_id, item.job_id, refs)


async def _decide(tx: Transaction, items: Sequence[Item], jobs: Mapping[str, Job], now: int, done: Committed) -> None:
    live = await _live_holders(tx, items, jobs, now)
    for item in items:
        job = done.jobs.get(item.job_id) or jobs.get(item.job_id)
        try:
            if job is None or (item.tenant is not None and job.tenant != item.tenant):
                raise UnknownJob
            if isinstance(item.command, Expire) and item.command.cause == "lost" and job.worker_id in live:
                raise StillAlive
            at = max(now, job.last_at)
            changed, item.rows = _record(job, item, decide(job, item.command, at), job.tenant, at)
        except Refused as refusal:
            item.error = refusal
            continue
        if item.rows:
            done.jobs[job.id] = changed
            done.events += item.rows
            if job.worker_id and not changed.worker_id:
                done.ended.append(item.rows[-1])
                if not isinstance(item.command, Fenced):
                    done.taken_from[job.id] = (job.worker_id, job.attempt)


async def _live_holders(tx: Transaction, items: Sequence[Item], jobs: Mapping[str, Job], now: int) -> set[str]:
    suspects = {
        worker_id
        for item in items
        if isinstance(item.command, Expire) and item.command.cause == "lost" and (job := jobs.get(item.job_id))
        for worker_id in [job.worker_id]
        if worker_id
    }
    return await tx.live_workers(sorted(suspects), now) if suspects else set()


async def _claim(tx: Transaction, claims: Sequence[Claim], now: int, done: Committed) -> None:
    """All claims together and last: inside a transaction SKIP LOCKED does not skip its own rows."""
    live = await tx.live_workers(sorted({claim.worker_id for claim in claims}), now)
    wanted: dict[tuple[str, int], int] = {}
    for claim in claims:
        if claim.worker_id not in live:
            claim.error = LeaseLost("the worker's lease has ended; it beats before it claims again")
            continue
        for declared in claim.engines.items():
            wanted[declared] = wanted.get(declared, 0) + claim.slots
    careful = any(claim.idle for claim in claims)
    due = await tx.due(wanted, now, careful=careful) if wanted else []
    rows: list[Recorded] = []
    changed: list[Job] = []
    for row in sorted(due, key=lambda row: (row.job.rank, row.job.id)):
        claim_or_none = next((claim for claim in claims if _accepts(claim, row.job)), None)
        if claim_or_none is None:
            continue
        job, recorded = _start(row.job, claim_or_none.worker_id, max(now, row.job.last_at))
        claim_or_none.taken.append(Claimed(job, row.params, row.subject))
        rows += recorded
        changed.append(job)
    if rows:
        await tx.save(changed)
        done.events += rows
        done.jobs.update((job.id, job) for job in changed)


def _accepts(claim: Claim, job: Job) -> bool:
    if claim.error or claim.engines.get(job.engine) != job.engine_version or len(claim.taken) >= claim.slots:
        return False
    if any(taken.job.losses >= CAREFUL_LOSSES for taken in claim.taken):
        return False
    return job.losses < CAREFUL_LOSSES or (claim.idle and not claim.taken)


def _start(job: Job, worker_id: str, at: int) -> tuple[Job, list[Recorded]]:
    command = Start(
        command_id=str(uuid.uuid4()), actor=f"worker:{worker_id}", worker_id=worker_id, lease_id=new_lease_id()
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
