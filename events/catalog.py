"""Every event and every command, on one page. PURE.

Events are facts and are frozen for ever: a change of meaning is a new version with an upcaster in `record.py`, a
golden file in `tests/golden/` and a line in `docs/protocol.md`. Commands are requests and may be refused.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, TypeAdapter, model_serializer

from events.clock import Instant

Priority = Literal["low", "normal", "high"]
Status = Literal["queued", "running", "completed", "failed", "cancelled"]
FINAL: frozenset[str] = frozenset({"completed", "failed", "cancelled"})
CancelMode = Literal["graceful", "force"]
UniqueMode = Literal["return", "refuse", "replace"]
ErrorCode = Literal[
    "engine_error",
    "invalid_params",
    "lost",
    "killed",
    "attempt_timeout",
    "stall_timeout",
    "total_timeout",
    "start_timeout",
    "result_too_large",
]


class Frozen(BaseModel):
    """A value: immutable, no field it does not know. A field that is None and named in `omitted` is left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
    omitted: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_absent_fields(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = serialize(self)
        for name in self.omitted:
            if fields.get(name, name) is None:
                del fields[name]
        return fields


class PhaseEnd(Frozen):
    """A declared phase and the percent it ends at."""

    name: str
    until: float


class Timeouts(Frozen):
    """Seconds, None for no limit: until first started, per attempt, in all, without any event."""

    start_s: float | None = None
    attempt_s: float | None = 3600.0
    total_s: float | None = None
    stall_s: float | None = None


class Idempotency(Frozen):
    """Digests of the Idempotency-Key and of the request it came with (hex SHA-256)."""

    key_sha256: str
    fingerprint: str


class Concurrency(Frozen):
    """Of a tenant's jobs with this key at most `limit` run at once. A job is held to its own limit."""

    key: str
    limit: int = Field(1, ge=1)


class Scheduled(Frozen):
    """The schedule that made a job, and the tick it was made for."""

    name: str
    tick: Instant


class Ref(Frozen):
    """A value over 256 KiB, stored apart: where to get its exact bytes."""

    url: str
    sha256: str
    size: int


class AttemptError(Frozen):
    """Why an attempt failed. `type` is the exception's name, `exit_code` and `signal` are the child's."""

    omitted = frozenset({"exit_code", "signal"})
    type: str
    message: str
    code: ErrorCode
    retryable: bool
    exit_code: int | None = None
    signal: str | None = None


# ---- events ---------------------------------------------------------------------------------------------------


class Event(Frozen):
    """A fact in a job's stream. `version` is raised when the meaning of the stored fields changes."""

    version: ClassVar[int] = 1


def _either(fields: dict[str, Any], name: str, ref: Ref | None) -> dict[str, Any]:
    """A value may be null: whether it or its reference is left out is decided by the reference alone."""
    del fields[f"{name}_ref" if ref is None else name]
    return fields


class Submitted(Event):
    """The job was accepted; always sequence 1."""

    omitted = frozenset(
        {"idempotency", "subject", "unique_key", "webhook", "concurrency", "schedule", "address", "traceparent"}
    )
    type: Literal["submitted"] = "submitted"
    engine: str
    engine_version: int
    params: dict[str, Any]
    phases: tuple[PhaseEnd, ...]
    priority: Priority = "normal"
    not_before: Instant | None = None
    max_attempts: int = 3
    max_losses: int = 3
    timeouts: Timeouts = Timeouts()
    tags: tuple[str, ...] = ()
    rerun_of: str | None = None
    from_phase: str | None = None
    subject: str | None = (
        None  # whom the job is about, of an engine that declares it: what makes a job the next of another
    )
    unique_key: str | None = None  # of a tenant's jobs with this key one may be unfinished
    concurrency: Concurrency | None = None
    schedule: Scheduled | None = None
    webhook: str | None = None  # where its end is to be told
    idempotency: Idempotency | None = None
    address: str | None = None  # whence it was submitted: the client's, as the gateway saw it
    traceparent: str | None = None  # W3C Trace Context, where traces are on


class Started(Event):
    """An attempt was claimed. `progress` is where it begins: the end of the last reused phase, else 0."""

    type: Literal["started"] = "started"
    worker: str
    lease: str
    queue_wait_ms: int
    reused_phases: tuple[str, ...] = ()
    progress: float = 0.0


class Progress(Event):
    """An engine entered a phase or moved in it; percent 0–100, never falling within an attempt."""

    omitted = frozenset({"message", "done", "total", "unit"})
    type: Literal["progress"] = "progress"
    progress: float = Field(ge=0, le=100)
    phase: str
    message: str | None = None
    done: float | None = None
    total: float | None = None
    unit: str | None = None


class Checkpoint(Event):
    """A phase's output was recorded; `digest` is the hex SHA-256 of its exact JSON bytes."""

    type: Literal["checkpoint"] = "checkpoint"
    phase: str
    output: Any = None
    output_ref: Ref | None = None
    digest: str
    duration_ms: int

    @model_serializer(mode="wrap")
    def _one_of_two(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _either(serialize(self), "output", self.output_ref)


class Partial(Event):
    """An intermediate result worth showing."""

    type: Literal["partial"] = "partial"
    phase: str
    name: str
    value: Any


class Log(Event):
    """The engine says something to a person."""

    type: Literal["log"] = "log"
    level: Literal["debug", "info", "warning", "error"]
    message: str
    fields: dict[str, Any] = Field(default_factory=dict)


class Retry(Event):
    """An attempt failed and another follows, not before the given time."""

    type: Literal["retry"] = "retry"
    error: AttemptError
    next_attempt: int
    not_before: Instant


class Interrupted(Event):
    """An attempt ended without the engine's say and the job is queued again."""

    type: Literal["interrupted"] = "interrupted"
    reason: Literal["lost", "drained", "released"]


class CancelRequested(Event):
    """Someone asked a running job to stop; after `grace_s` its engine is killed."""

    omitted = frozenset({"address"})
    type: Literal["cancel_requested"] = "cancel_requested"
    mode: CancelMode
    grace_s: float
    reason: str | None = None
    address: str | None = None


class Complete(Event):
    """Terminal: success. The result is inline or, over 256 KiB, a reference."""

    type: Literal["complete"] = "complete"
    results: Any = None
    results_ref: Ref | None = None

    @model_serializer(mode="wrap")
    def _one_of_two(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _either(serialize(self), "results", self.results_ref)


class Error(Event):
    """Terminal: failure. `code` is the last attempt's cause; `results` the best an engine had offered."""

    omitted = frozenset({"details", "results", "results_ref"})
    type: Literal["error"] = "error"
    message: str
    code: ErrorCode
    details: AttemptError | None = None
    failures: int
    losses: int
    results: Any = None
    results_ref: Ref | None = None


class Cancelled(Event):
    """Terminal: stopped on request."""

    omitted = frozenset({"results", "results_ref", "address"})
    type: Literal["cancelled"] = "cancelled"
    reason: str | None = None
    forced: bool = False
    address: str | None = None
    results: Any = None
    results_ref: Ref | None = None


class Reopened(Event):
    """A failed or cancelled job is tried again under the same id; the stream continues."""

    omitted = frozenset({"address"})
    type: Literal["reopened"] = "reopened"
    reason: str | None = None
    address: str | None = None


ActName = Literal[
    "key_created",
    "key_revoked",
    "key_expired",
    "key_recorded",
    "schedule_created",
    "schedule_paused",
    "schedule_resumed",
    "schedule_deleted",
    "webhooks_set",
    "webhooks_rotated",
    "webhooks_removed",
    "hold_placed",
    "hold_lifted",
    "payload_erased",
    "job_pinned",
    "job_unpinned",
    "jobs_archived",
    "jobs_discarded",
    "log_restored",
]


class Administered(Event):
    """An administrative act: of no job, alone in its stream, in the tenant's audit stream. `target` is what it was done to (a
    key's id, a schedule's name, a job's id, the tenant), `changed` what it made of it, never a secret."""

    omitted = frozenset({"address", "reason"})
    type: Literal["administered"] = "administered"
    act: ActName
    target: str
    changed: dict[str, Any] = Field(default_factory=dict)
    address: str | None = None
    reason: str | None = None


AnyEvent = Annotated[
    Submitted
    | Started
    | Progress
    | Checkpoint
    | Partial
    | Log
    | Retry
    | Interrupted
    | CancelRequested
    | Complete
    | Error
    | Cancelled
    | Reopened,
    Field(discriminator="type"),
]
Said = Annotated[Progress | Checkpoint | Partial | Log, Field(discriminator="type")]
EVENTS: TypeAdapter[AnyEvent] = TypeAdapter(AnyEvent, config=ConfigDict(defer_build=True))
EVENT_TYPES: dict[str, type[Event]] = {
    cls.model_fields["type"].default: cls
    for cls in (
        Submitted,
        Started,
        Progress,
        Checkpoint,
        Partial,
        Log,
        Retry,
        Interrupted,
        CancelRequested,
        Complete,
        Error,
        Cancelled,
        Reopened,
    )
}
ACT = "administered"
RECORDED_TYPES: dict[str, type[Event]] = EVENT_TYPES | {ACT: Administered}  # of jobs, and acts
TERMINAL: frozenset[str] = frozenset({"complete", "error", "cancelled"})


# ---- commands -------------------------------------------------------------------------------------------------


class Outcome(Frozen):
    """A result to keep in a terminal event: inline or by reference."""

    value: Any = None
    ref: Ref | None = None


class Command(Frozen):
    """A request to change one job. `command_id` (UUID) makes running it twice the same as once."""

    command_id: str
    actor: str


class Submit(Command):
    """Make a job. `reused` are checkpoints of the job it reruns, copied into the new stream. `unique_mode` says what to do
    while another job with its unique key is unfinished: make none and answer with that one, refuse, or cancel that one."""

    submitted: Submitted
    reused: tuple[Checkpoint, ...] = ()
    unique_mode: UniqueMode = "return"


class Start(Command):
    """Claim one due job for a worker."""

    worker_id: str
    lease_id: str


class Fenced(Command):
    """A worker's command: it holds only while (attempt, lease) are the job's current ones."""

    attempt: int
    lease_id: str


class Report(Fenced):
    """What the engine said, in order."""

    said: tuple[Said, ...]


class Finish(Fenced):
    """The engine returned. `said` is what it said last and nobody has reported yet."""

    outcome: Outcome
    said: tuple[Said, ...] = ()


class Fail(Fenced):
    """The attempt failed by its own fault. `draw` in [0, 1) is the jitter of the backoff."""

    error: AttemptError
    draw: float
    retry_after_s: float | None = None
    best: Outcome = Outcome()


class Release(Fenced):
    """The worker gives a job back unharmed: it drains, or never began it."""

    reason: Literal["drained", "released"]
    best: Outcome = Outcome()


class Stop(Fenced):
    """The engine ended because a cancel was asked."""

    best: Outcome = Outcome()


class Expire(Command):
    """The sweeper found an overdue job; `cause` is judged again under the row's lock."""

    attempt: int
    cause: Literal["lost", "attempt_timeout", "stall_timeout", "total_timeout", "start_timeout", "cancel_grace"]
    draw: float = 0.0
    best: Outcome = Outcome()  # what the engine had offered, when its own worker says the job is overdue
    lease_id: str | None = None  # the worker's, when one says so: then it must still hold the attempt


class Cancel(Command):
    """Stop a job: queued at once, running after its grace, `force` at once in any case."""

    mode: CancelMode = "graceful"
    grace_s: float = 30.0
    reason: str | None = None
    address: str | None = None


class Reopen(Command):
    """Try a failed or cancelled job again under the same id."""

    reason: str | None = None
    address: str | None = None


AnyCommand = Submit | Start | Report | Finish | Fail | Release | Stop | Expire | Cancel | Reopen
