"""The events a client gets, for type checkers: plain dicts, told apart by `type` (docs/protocol.md §5).

    match event["type"]:
        case "progress":
            print(event["phase"], event["progress"])  # known to a type checker

A server newer than this client may send types that are not here: leave them a default branch. Percent are 0–100, times
RFC 3339 in UTC, durations as the name says. A value over 256 KiB comes as its `…_ref`: see `Client.download`.
"""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12

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


class PhaseEnd(TypedDict):
    """A declared phase and the percent it ends at."""

    name: str
    until: float


class Timeouts(TypedDict):
    """Seconds, None for no limit: until first started, per attempt, in all, without any event."""

    start_s: float | None
    attempt_s: float | None
    total_s: float | None
    stall_s: float | None


class Ref(TypedDict):
    """Where the exact bytes of a large value are."""

    url: str
    sha256: str
    size: int


class AttemptError(TypedDict):
    """Why an attempt failed. `type` is the exception's name, `exit_code` and `signal` are its process's."""

    type: str
    message: str
    code: ErrorCode
    retryable: bool
    exit_code: NotRequired[int]
    signal: NotRequired[str]


class Concurrency(TypedDict):
    """Of a tenant's jobs with this key at most `limit` run at once."""

    key: str
    limit: int


class Scheduled(TypedDict):
    """The schedule that made a job, and the tick it was made for."""

    name: str
    tick: str


class Envelope(TypedDict):
    """What every event has. `seq` counts a job's events from 1, `attempt` is 0 before the first."""

    job_id: str
    seq: int
    attempt: int
    timestamp: str
    actor: str


class Submitted(Envelope):
    """The job was accepted; always sequence 1."""

    type: Literal["submitted"]
    engine: str
    engine_version: int
    params: dict[str, Any]
    phases: list[PhaseEnd]
    priority: Literal["low", "normal", "high"]
    not_before: str | None
    max_attempts: int
    max_losses: int
    timeouts: Timeouts
    tags: list[str]
    rerun_of: str | None
    from_phase: str | None
    subject: NotRequired[str]
    unique_key: NotRequired[str]
    concurrency: NotRequired[Concurrency]
    schedule: NotRequired[Scheduled]
    webhook: NotRequired[str]
    idempotency: NotRequired[dict[str, str]]
    address: NotRequired[str]
    traceparent: NotRequired[str]


class Started(Envelope):
    """An attempt was claimed. `progress` is where it begins."""

    type: Literal["started"]
    worker: str
    lease: str
    queue_wait_ms: int
    reused_phases: list[str]
    progress: float


class Progress(Envelope):
    """An engine entered a phase or moved in it; never falling within an attempt."""

    type: Literal["progress"]
    progress: float
    phase: str
    message: NotRequired[str]
    done: NotRequired[float]
    total: NotRequired[float]
    unit: NotRequired[str]


class Checkpoint(Envelope):
    """A phase's output was recorded: `output` or, when large, `output_ref`."""

    type: Literal["checkpoint"]
    phase: str
    output: NotRequired[Any]
    output_ref: NotRequired[Ref]
    digest: str
    duration_ms: int


class Partial(Envelope):
    """An intermediate result worth showing."""

    type: Literal["partial"]
    phase: str
    name: str
    value: Any


class Log(Envelope):
    """The engine says something to a person."""

    type: Literal["log"]
    level: Literal["debug", "info", "warning", "error"]
    message: str
    fields: dict[str, Any]


class Retry(Envelope):
    """An attempt failed and another follows, not before the given time."""

    type: Literal["retry"]
    error: AttemptError
    next_attempt: int
    not_before: str


class Interrupted(Envelope):
    """An attempt ended without the engine's say and the job is queued again."""

    type: Literal["interrupted"]
    reason: Literal["lost", "drained", "released"]


class CancelRequested(Envelope):
    """Someone asked a running job to stop; after `grace_s` its engine is killed."""

    type: Literal["cancel_requested"]
    mode: Literal["graceful", "force"]
    grace_s: float
    reason: str | None
    address: NotRequired[str]


class Complete(Envelope):
    """Terminal: success. `results` or, when large, `results_ref`."""

    type: Literal["complete"]
    results: NotRequired[Any]
    results_ref: NotRequired[Ref]


class Error(Envelope):
    """Terminal: failure. `results` is the best the engine had offered."""

    type: Literal["error"]
    message: str
    code: ErrorCode
    details: NotRequired[AttemptError]
    failures: int
    losses: int
    results: NotRequired[Any]
    results_ref: NotRequired[Ref]


class Cancelled(Envelope):
    """Terminal: stopped on request."""

    type: Literal["cancelled"]
    reason: str | None
    forced: bool
    address: NotRequired[str]
    results: NotRequired[Any]
    results_ref: NotRequired[Ref]


class Reopened(Envelope):
    """A failed or cancelled job is tried again under the same id; the stream continues."""

    type: Literal["reopened"]
    reason: str | None
    address: NotRequired[str]


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


class Administered(Envelope):
    """An administrative act, of no job; only the feed shows it, and only to the scope `admin`."""

    type: Literal["administered"]
    act: ActName
    target: str
    changed: dict[str, Any]
    address: NotRequired[str]
    reason: NotRequired[str]


Event = (
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
    | Reopened
    | Administered
)
