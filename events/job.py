"""A job's whole lifecycle. PURE: no clock, no randomness, no I/O.

Rule 1: everything that changes a job's state is in this file.
Rule 2: `decide(job, command, now) -> events` says what happens, `evolve(job, event, …) -> job` what that makes of it.
The database only locks, stores and reads; `fold` of a job's events is its `jobs` row.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import lru_cache
from operator import attrgetter
from typing import Any, assert_never, overload

from events.catalog import (
    FINAL,
    AnyCommand,
    AnyEvent,
    AttemptError,
    Cancel,
    Cancelled,
    CancelRequested,
    Checkpoint,
    Complete,
    Error,
    ErrorCode,
    Expire,
    Fail,
    Fenced,
    Finish,
    Interrupted,
    Log,
    Outcome,
    Partial,
    PhaseEnd,
    Progress,
    Release,
    Reopen,
    Reopened,
    Report,
    Retry,
    Start,
    Started,
    Status,
    Stop,
    Submit,
    Submitted,
)
from events.errors import LeaseLost, StillAlive, UnknownJob, WrongStatus
from events.record import Recorded
from events.values import decode, encode

# status -> event types that may follow in it, and the status each leads to. The picture in docs/architecture.md is
# tested against this table.
_SAME = {"progress": "running", "checkpoint": "running", "partial": "running", "log": "running"}
TRANSITIONS: dict[str | None, dict[str, Status]] = {
    None: {"submitted": "queued"},
    "queued": {"started": "running", "checkpoint": "queued", "cancelled": "cancelled", "error": "failed"},
    "running": {
        **_SAME,  # type: ignore[dict-item]
        "cancel_requested": "running",
        "retry": "queued",
        "interrupted": "queued",
        "complete": "completed",
        "error": "failed",
        "cancelled": "cancelled",
    },
    "completed": {},
    "failed": {"reopened": "queued"},
    "cancelled": {"reopened": "queued"},
}

# They keep the status, and what one of them changes none of them reads.
_SAID = frozenset({"progress", "partial", "log"})

# A job that lost its worker this often is claimed only by an idle worker, alone: a poison job takes no neighbour.
CAREFUL_LOSSES = 2
BACKOFF_BASE_S = 5.0
BACKOFF_MAX_S = 600.0
PRIORITY_STEP_MS = 60_000  # one class of priority outweighs this much waiting, so that nobody starves
PRIORITY_RANK = {"low": -1, "normal": 0, "high": 1}


@dataclass(frozen=True, slots=True)
class Job:
    """The state of one job: exactly the lifecycle columns of its row. Instants in ms, `None` for none."""

    id: str
    tenant: str
    engine: str
    engine_version: int
    phases: str  # JSON text of [{name, until}]: read only at a claim
    priority: str
    max_attempts: int
    max_losses: int
    start_s: float | None
    attempt_s: float | None
    total_s: float | None
    stall_s: float | None
    created_at: int
    opened_at: int  # from when this opening could start: `start_s` and `total_s` count from here
    status: str = "queued"
    attempt: int = 0
    failures: int = 0
    losses: int = 0
    lease_id: str | None = None
    worker_id: str | None = None
    last_seq: int = 0
    last_at: int = 0
    progress: float = 0.0
    phase: str | None = None
    rank: int = 0
    not_before: int | None = None
    recorded_phases: str = "[]"  # JSON text of the phases with a checkpoint
    started_at: int | None = None  # first start of this opening
    attempt_at: int | None = None  # start of the current attempt
    finished_at: int | None = None
    cancel_mode: str | None = None
    cancel_at: int | None = None  # when the grace of a requested cancel ends
    cancel_reason: str | None = None
    error: str | None = None  # JSON text {message, code} of the last failure

    @property
    def is_final(self) -> bool:
        """True when only `reopened` may follow."""
        return self.status in FINAL

    def due_at(self) -> int:
        """The instant from which the job may be claimed."""
        return self.created_at if self.not_before is None else self.not_before


# ---- decide ---------------------------------------------------------------------------------------------------


def decide(job: Job | None, command: AnyCommand, now: int) -> list[AnyEvent]:
    """The events `command` causes, none when it is already fulfilled. Raises a `Refused` and changes nothing."""
    if isinstance(command, Submit):
        return [command.submitted, *command.reused] if job is None else []
    if job is None:
        raise UnknownJob
    if isinstance(command, Fenced | Expire) and command.lease_id is not None and not _holds(job, command):
        raise LeaseLost
    match command:
        case Start():
            return [_started(job, command, now)]
        case Report(said=said):
            return _rising(job, said)
        case Finish(outcome=outcome, said=said):
            rising = _rising(job, said)
            return [*rising, *_finished(job, rising, outcome)]
        case Fail():
            return [_failed(job, command.error, command.draw, now, command.best, command.retry_after_s)]
        case Release(reason=reason, best=best):
            return [_cancelled(job, best) if job.cancel_mode else Interrupted(reason=reason)]
        case Stop(best=best):
            return [_cancelled(job, best) if job.cancel_mode else Interrupted(reason="released")]
        case Expire():
            return [_expired(job, command, now)]
        case Cancel():
            return _cancel(job, command, now)
        case Reopen(reason=reason, address=address):
            if job.status not in {"failed", "cancelled"}:
                raise WrongStatus(
                    f"only a failed or cancelled job can be retried; it is {job.status}", status=job.status
                )
            return [Reopened(reason=reason, address=address)]
        case _:
            assert_never(command)


def _holds(job: Job, command: Fenced | Expire) -> bool:
    return job.status == "running" and job.attempt == command.attempt and job.lease_id == command.lease_id


def _started(job: Job, command: Start, now: int) -> Started:
    if job.status != "queued" or job.due_at() > now:
        raise WrongStatus(f"the job is {job.status} and not due", status=job.status)
    recorded: list[str] = decode(job.recorded_phases)
    ends = {phase["name"]: phase["until"] for phase in decode(job.phases)}
    return Started(
        worker=command.worker_id,
        lease=command.lease_id,
        queue_wait_ms=max(now - max(job.last_at, job.due_at()), 0),
        reused_phases=tuple(recorded),
        progress=max((ends.get(name, 0.0) for name in recorded), default=0.0),
    )


def _rising(job: Job, said: Iterable[AnyEvent]) -> list[AnyEvent]:
    """Within an attempt progress never falls, whatever an engine says (protocol §1)."""
    events: list[AnyEvent] = []
    reached = job.progress
    for event in said:
        if isinstance(event, Progress):
            if event.progress < reached:
                event = event.model_copy(update={"progress": reached})  # noqa: PLW2901 the corrected event is the one said
            reached = event.progress
        events.append(event)
    return events


def _finished(job: Job, said: Iterable[AnyEvent], outcome: Outcome) -> list[AnyEvent]:
    """100 % comes exactly once, just before `complete`."""
    done: list[AnyEvent] = [Complete(results=outcome.value, results_ref=outcome.ref)]
    reached = [event.progress for event in said if isinstance(event, Progress)]
    if max([job.progress, *reached[-1:]]) < 100:
        last = decode(job.phases)[-1]["name"]
        done.insert(0, Progress(progress=100.0, phase=last))
    return done


def _failed(
    job: Job, error: AttemptError, draw: float, now: int, best: Outcome = Outcome(), retry_after_s: float | None = None
) -> AnyEvent:
    if job.cancel_mode:
        return _cancelled(job, best)
    failures = job.failures + 1
    if not error.retryable or failures >= job.max_attempts:
        return _error(error.message, error.code, failures, job.losses, best, error)
    wait_s = draw * min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2 ** (failures - 1)) if retry_after_s is None else retry_after_s
    return Retry(error=error, next_attempt=job.attempt + 1, not_before=now + int(wait_s * 1000))


def _expired(job: Job, command: Expire, now: int) -> AnyEvent:
    """Judges an overdue job again, now under its lock: what was true when the sweeper looked may be over."""
    if job.is_final or job.attempt != command.attempt or not _overdue(job, command.cause, now):
        raise StillAlive
    if command.cause == "lost":
        if job.cancel_mode:
            return _cancelled(job, command.best)
        losses = job.losses + 1
        if losses >= job.max_losses:
            message = f"the worker was lost {losses} times; the job may be taking it down"
            return _error(message, "lost", job.failures, losses)
        return Interrupted(reason="lost")
    if command.cause == "cancel_grace" or job.cancel_mode:
        return _cancelled(job, command.best)
    limit_s = {"start_timeout": job.start_s, "attempt_timeout": job.attempt_s, "total_timeout": job.total_s}.get(
        command.cause, job.stall_s
    )
    message = timeout_message(command.cause, limit_s)
    if command.cause in {"start_timeout", "total_timeout"}:
        return _error(message, command.cause, job.failures, job.losses, command.best)
    error = AttemptError(type="Timeout", message=message, code=command.cause, retryable=True)
    return _failed(job, error, command.draw, now, command.best)


def _overdue(job: Job, cause: str, now: int) -> bool:
    if cause == "start_timeout":
        return job.status == "queued" and job.started_at is None and _passed(job.opened_at, job.start_s, now)
    if cause == "total_timeout":
        return _passed(job.opened_at, job.total_s, now)
    if job.status != "running":
        return False
    match cause:
        case "attempt_timeout":
            return _passed(job.attempt_at, job.attempt_s, now)
        case "stall_timeout":
            return _passed(job.last_at, job.stall_s, now)
        case "cancel_grace":
            return job.cancel_at is not None and now >= job.cancel_at
        case _:
            return True  # lost: the transaction has checked the worker's lease


def _passed(since: int | None, limit_s: float | None, now: int) -> bool:
    return since is not None and limit_s is not None and now >= since + int(limit_s * 1000)


def timeout_message(cause: str, limit_s: float | None) -> str:
    """What a person reads when a limit of `limit_s` seconds was passed."""
    limit = f"{limit_s:g} s" if limit_s is not None else "its limit"
    return {
        "start_timeout": f"no worker started the job within {limit}",
        "attempt_timeout": f"the attempt took longer than {limit}",
        "total_timeout": f"the job took longer than {limit} in all",
    }.get(cause, f"the engine said nothing for {limit}")


def _cancel(job: Job, command: Cancel, now: int) -> list[AnyEvent]:
    if job.status == "cancelled":
        return []
    if job.is_final:
        raise WrongStatus(f"the job is already {job.status}", status=job.status)
    if job.status == "queued" or command.mode == "force":
        forced = command.mode == "force" and job.status == "running"
        return [Cancelled(reason=command.reason, forced=forced, address=command.address)]
    if job.cancel_at is not None and now + int(command.grace_s * 1000) >= job.cancel_at:
        return []  # it was asked already, with no longer a grace
    return [CancelRequested(mode=command.mode, grace_s=command.grace_s, reason=command.reason, address=command.address)]


def _cancelled(job: Job, best: Outcome = Outcome()) -> Cancelled:
    return Cancelled(reason=job.cancel_reason, results=best.value, results_ref=best.ref)


def _error(
    message: str,
    code: ErrorCode,
    failures: int,
    losses: int,
    best: Outcome = Outcome(),
    details: AttemptError | None = None,
) -> Error:
    return Error(
        message=message,
        code=code,
        details=details,
        failures=failures,
        losses=losses,
        results=best.value,
        results_ref=best.ref,
    )


# ---- evolve ---------------------------------------------------------------------------------------------------

# What every end of an attempt clears.
_NO_ATTEMPT = {"lease_id": None, "worker_id": None, "attempt_at": None}
_NO_CANCEL = {"cancel_mode": None, "cancel_at": None, "cancel_reason": None}


def evolve(job: Job | None, event: AnyEvent, *, job_id: str, tenant: str, at: int) -> Job:
    """The job after `event`, recorded at `at` (ms). Raises `ValueError` for an event the table forbids."""
    allowed = TRANSITIONS[job.status if job else None]
    if event.type not in allowed:
        raise ValueError(f"{event.type} cannot follow in status {job.status if job else 'none'}")
    if job is None:
        assert isinstance(event, Submitted)
        return _created(event, job_id, tenant, at)
    changed = _changes(job, event, at)
    return _with(job, status=allowed[event.type], last_seq=job.last_seq + 1, last_at=at, **changed)


def _with(job: Job, **changes: Any) -> Job:
    """`dataclasses.replace`, at less than half its cost: it is paid for every event."""
    values = list(_VALUES(job))
    for name, value in changes.items():
        values[_PLACE[name]] = value
    return Job(*values)


_VALUES = attrgetter(*(field.name for field in fields(Job)))
_PLACE = {field.name: place for place, field in enumerate(fields(Job))}


def _created(event: Submitted, job_id: str, tenant: str, at: int) -> Job:
    return Job(
        id=job_id,
        tenant=tenant,
        engine=event.engine,
        engine_version=event.engine_version,
        phases=_phases(event.phases),
        priority=event.priority,
        max_attempts=event.max_attempts,
        max_losses=event.max_losses,
        start_s=event.timeouts.start_s,
        attempt_s=event.timeouts.attempt_s,
        total_s=event.timeouts.total_s,
        stall_s=event.timeouts.stall_s,
        created_at=at,
        opened_at=max(at, event.not_before or 0),
        last_seq=1,
        last_at=at,
        rank=_rank(at, event.not_before, event.priority),
        not_before=event.not_before,
    )


@lru_cache(maxsize=256)  # of engines there are few, of jobs many
def _phases(declared: tuple[PhaseEnd, ...]) -> str:
    return encode([phase.model_dump() for phase in declared]).decode()


def _changes(job: Job, event: AnyEvent, at: int) -> dict[str, Any]:
    match event:
        case Progress(progress=progress, phase=phase):
            return {"progress": progress, "phase": phase}
        case Checkpoint(phase=phase):
            recorded: list[str] = decode(job.recorded_phases)
            return {} if phase in recorded else {"recorded_phases": encode([*recorded, phase]).decode()}
        case Partial() | Log():
            return {}
        case Started():
            return {
                "attempt": job.attempt + 1,
                "lease_id": event.lease,
                "worker_id": event.worker,
                "progress": event.progress,
                "phase": event.reused_phases[-1] if event.reused_phases else None,
                "started_at": job.started_at or at,
                "attempt_at": at,
            }
        case Retry():
            return {
                **_NO_ATTEMPT,
                "failures": job.failures + 1,
                "not_before": event.not_before,
                "rank": _rank(job.opened_at, event.not_before, job.priority),
                "error": encode({"message": event.error.message, "code": event.error.code}).decode(),
            }
        case Interrupted(reason=reason):
            return {**_NO_ATTEMPT, "losses": job.losses + (reason == "lost")}
        case CancelRequested():
            return {
                "cancel_mode": event.mode,
                "cancel_at": at + int(event.grace_s * 1000),
                "cancel_reason": event.reason or job.cancel_reason,
            }
        case Complete():
            return {**_NO_ATTEMPT, "finished_at": at, "error": None}
        case Error():
            error = encode({"message": event.message, "code": event.code}).decode()
            return {
                **_NO_ATTEMPT,
                "finished_at": at,
                "failures": event.failures,
                "losses": event.losses,
                "error": error,
            }
        case Cancelled():
            return {**_NO_ATTEMPT, "finished_at": at}
        case Reopened():
            return {
                **_NO_CANCEL,
                "failures": 0,
                "losses": 0,
                "opened_at": at,
                "started_at": None,
                "finished_at": None,
                "error": None,
                "progress": 0.0,
                "phase": None,
                "not_before": None,
                "rank": _rank(at, None, job.priority),
            }
        case Submitted():
            raise ValueError("submitted comes once")
        case _:
            assert_never(event)


def _rank(created: int, not_before: int | None, priority: str) -> int:
    """The order of claims, smallest first. Stored, so ageing needs no sort: waiting a minute weighs as much as one
    class of priority."""
    return max(created, not_before or 0) - PRIORITY_RANK[priority] * PRIORITY_STEP_MS


def record(
    job: Job | None, events: Iterable[AnyEvent], encoded: Iterable[str], *, job_id: str, tenant: str, actor: str,
    command_id: str, at: int,
) -> tuple[Job | None, list[Recorded]]:  # fmt: skip
    """The job after `events` and their rows; `encoded` are the events' JSON texts, in the same order."""
    rows: list[Recorded] = []
    said: dict[str, Any] = {}  # what events that wait to be applied together have changed
    seq = job.last_seq if job else 0
    for event, data in zip(events, encoded, strict=True):
        seq += 1
        if job is not None and event.type in _SAID and event.type in TRANSITIONS[job.status]:
            said |= {"last_seq": seq, **_changes(job, event, at)}
        else:
            before = _with(job, last_at=at, **said) if job is not None and said else job
            job, said = evolve(before, event, job_id=job_id, tenant=tenant, at=at), {}
        rows.append(Recorded(job_id, seq, event.type, event.version, job.attempt, actor, tenant, at, command_id, data))
    return _with(job, last_at=at, **said) if job is not None and said else job, rows


@overload
def fold(recorded: Iterable[Recorded], job: Job) -> Job: ...
@overload
def fold(recorded: Iterable[Recorded], job: None = None) -> Job | None: ...
def fold(recorded: Iterable[Recorded], job: Job | None = None) -> Job | None:
    """The job as of the last of its events: what its row must say. None for no events. With `job`, the state before
    them, these are the later ones."""
    for row in recorded:
        job = evolve(job, row.event(), job_id=row.job_id, tenant=row.tenant, at=row.at)
        if job.last_seq != row.seq or job.attempt != row.attempt:
            raise ValueError(f"event {row.seq} of job {row.job_id} is out of sequence (expected {job.last_seq})")
    return job
