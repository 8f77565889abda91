"""The shape of what the API answers, as models: for its description, which tests hold against real answers."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from events.catalog import ErrorCode, Priority, Ref, Status
from events.schedules import Act, CatchUp

Instant = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
JobId = Annotated[str, WithJsonSchema({"type": "string", "format": "uuid"})]
Cursor = Annotated[str, Field(description="Opaque.")]


class Answer(BaseModel):
    """Fields may be added; none is taken away."""

    model_config = ConfigDict(extra="allow")


class FieldError(Answer):
    """What is wrong with one field."""

    field: str
    message: str


class Problem(Answer):
    """Every error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError]


class JobError(Answer):
    """Why a job failed, or its last attempt did."""

    message: str
    code: ErrorCode


class Concurrency(Answer):
    """Of a tenant's jobs with this key at most `limit` run at once."""

    key: str
    limit: int


class Job(Answer):
    """A job as it stands at `seq`."""

    id: JobId
    engine: str
    engine_version: int
    status: Status
    phase: str | None
    progress: float
    attempt: int
    failures: int
    losses: int
    max_attempts: int
    priority: Priority
    params: dict[str, Any]
    tags: list[str]
    seq: int
    created_at: Instant
    started_at: Instant | None
    finished_at: Instant | None
    not_before: Instant | None
    rerun_of: JobId | None
    unique_key: str | None
    concurrency: Concurrency | None
    schedule: str | None
    stream_url: str
    results: Any = None
    results_ref: Ref | None = None
    error: JobError | None = None
    webhook: str | None = None


class Schedule(Answer):
    """Jobs made again and again. `next_at` is null while it is paused; `job` is what it submits."""

    name: str
    cron: str
    timezone: str
    catch_up: CatchUp
    catch_up_max: int
    job: dict[str, Any]
    paused: bool
    next_at: Instant | None
    last_at: Instant | None
    last_job_id: JobId | None
    created_at: Instant
    created_by: str


class ScheduleAct(Answer):
    """Something that was done with a schedule, or by it."""

    act: Act
    at: Instant
    actor: str
    address: str | None = None
    detail: str | None = None


class ScheduleShown(Schedule):
    """A schedule, and what was done with it, newest first."""

    acts: list[ScheduleAct]


class Schedules(Answer):
    """All of a tenant, by name."""

    schedules: list[Schedule]


class Analysis(Job):
    """The job of an analysis."""

    analysis_id: JobId


class AnalysisMade(Answer):
    """An analysis that was accepted."""

    analysis_id: JobId
    status: Status
    stream_url: str


class JobPage(Answer):
    """Jobs, newest first. `next_cursor` is null on the last page."""

    jobs: list[Job]
    next_cursor: Cursor | None


class BulkCounted(Answer):
    """How many jobs it would be. `confirm` is null when there is none."""

    action: Literal["cancel", "retry", "rerun"]
    q: str
    count: int
    confirm: str | None
    expires_at: Instant


class BulkRefusal(Answer):
    """A job that was left as it is, and why."""

    job_id: JobId
    detail: str


class BulkDone(Answer):
    """The ids of what was changed or made. With `next` as the confirm the call goes on."""

    action: Literal["cancel", "retry", "rerun"]
    count: int
    jobs: list[JobId]
    refused: list[BulkRefusal]
    next: str | None


class DeliveryAttempt(Answer):
    """An attempt to deliver: the receiver's status, or why there is none."""

    attempt: int
    at: Instant
    status: int | None
    failure: str | None
    duration_ms: int


class Delivery(Answer):
    """The webhook of one terminal event. `id` is the `webhook-id` of every attempt."""

    id: str
    seq: int
    url: str
    state: Literal["pending", "delivered", "abandoned"]
    created_at: Instant
    next_at: Instant | None
    attempts: list[DeliveryAttempt]


class Deliveries(Answer):
    """A job's webhooks, the oldest first."""

    deliveries: list[Delivery]


class HoldAct(Answer):
    """Somebody held the job, or let it go."""

    held: bool
    at: Instant
    actor: str
    address: str | None
    reason: str


class Hold(Answer):
    """Whether nothing of the job may go, and every act, the oldest first."""

    held: bool
    acts: list[HoldAct]


class Pin(Answer):
    """Whether retention leaves the job alone, and who wanted it."""

    pinned: bool
    at: Instant | None
    actor: str | None
    address: str | None
    reason: str | None


class PhaseInfo(Answer):
    """A phase and the percent it ends at."""

    name: str
    until: float


class EngineInfo(Answer):
    """What can run. The schemas are JSON Schema."""

    name: str
    version: int
    summary: str
    phases: list[PhaseInfo]
    params_schema: dict[str, Any]
    result_schema: dict[str, Any]


class Engines(Answer):
    """Every engine."""

    engines: list[EngineInfo]


class WorkerInfo(Answer):
    """A worker process."""

    id: str
    host: str
    pid: int
    build: str
    slots: int
    running: int
    engines: dict[str, int]
    draining: bool
    started_at: Instant
    beat_at: Instant
    lease_until: Instant


class Workers(Answer):
    """Every worker."""

    workers: list[WorkerInfo]


class BusState(Answer):
    """How the bus is; jobs run without it."""

    name: str
    connected: bool


class Stats(Answer):
    """Counts of the tenant's jobs, and for `admin` of the whole installation."""

    jobs: dict[Status, int]
    oldest_due_ms: int | None
    events: int | None = None
    workers: int | None = None
    slots: int | None = None
    running: int | None = None
    viewers: int | None = None
    sweep_repairs_total: int | None = None
    log: str | None = None
    bus: BusState | None = None


class Session(Answer):
    """Whether keys are asked for, and whose this one is; null without a good one."""

    asks: bool
    tenant: str | None
    actor: str | None
    scopes: list[str]


class PassMade(Answer):
    """A stream pass. Sent as `pass=` on a stream's URL, first before `use_before`."""

    pass_: Annotated[str, Field(alias="pass")]
    use_before: Instant
    expires_at: Instant


class LagState(Answer):
    """How old events were when handed to a stream that waited for them: samples of the last five minutes."""

    samples: int
    p50_ms: int | None
    p99_ms: int | None


class GatewayState(Answer):
    """The gateway process that answers; totals count from `started_at`."""

    id: str
    host: str
    pid: int
    version: str
    started_at: Instant
    now: Instant
    closing: bool
    connections: int
    connections_max: int
    compressed: int
    viewers: int
    watched_jobs: int
    watched_jobs_max: int
    ring_bytes: int
    ring_bytes_max: int
    page_bytes: int
    page_reads_total: int
    frames_sent_total: int
    frame_bytes_sent_total: int
    repairs_total: int
    sweep_repairs_total: int
    lag: LagState
    log: str
    bus: BusState


class Ready(Answer):
    """This process serves."""

    status: Literal["ready"]
    log: str
    bus: BusState


class Alive(Answer):
    """This process runs."""

    status: Literal["alive"]


# ---- control frames of full streams ---------------------------------------------------------------------------


class Hello(Answer):
    """Comes first. A job's has `job_id`, `status` and `head_seq`, the feed's has `feed`."""

    type: Literal["hello"]
    protocol: Literal["phaseline.v1"]
    job_id: JobId | None = None
    feed: Literal[True] | None = None
    status: Status | None = None
    head_seq: int | None = None
    epoch: str
    resume: Literal["fresh", "resumed", "reset"]
    heartbeat_s: float
    server_time: Instant


class CaughtUp(Answer):
    """Everything up to the head was sent."""

    type: Literal["caught_up"]
    seq: int | None = None
    job_id: JobId | None = None
    feed: Literal[True] | None = None
    cursor: Cursor | None = None


class Heartbeat(Answer):
    """The stream is alive, and `seq` is its head."""

    type: Literal["heartbeat"]
    seq: int | None = None
    job_id: JobId | None = None
    feed: Literal[True] | None = None
    cursor: Cursor | None = None


class Reset(Answer):
    """The position asked for cannot be served: drop your state and take the snapshot."""

    type: Literal["reset"]
    job_id: JobId
    reason: Literal["seq_ahead", "epoch_changed"]
    head_seq: int
    snapshot: Job


class End(Answer):
    """The last event of this job was sent (event streams, and sockets of many jobs)."""

    type: Literal["end"]
    job_id: JobId
    status: Status


class Goodbye(Answer):
    """The server closes next."""

    type: Literal["goodbye"]
    reason: str
    reconnect_after_ms: int


class CommandError(Answer):
    """A bad query or command."""

    type: Literal["command_error"]
    code: str
    message: str
    field: str | None = None
    job_id: str | None = None
    feed: Literal[True] | None = None


# ---- classic --------------------------------------------------------------------------------------------------


class ClassicProgress(Answer):
    """Where the job is."""

    type: Literal["progress"]
    progress: float
    phase: str
    timestamp: Instant


class ClassicComplete(Answer):
    """The result. The socket closes with 1000."""

    type: Literal["complete"]
    results: Any
    timestamp: Instant


class ClassicError(Answer):
    """The job failed or was cancelled. The socket closes with 4000."""

    type: Literal["error"]
    message: str
    timestamp: Instant


class ClassicHeartbeat(Answer):
    """Two seconds without another frame."""

    type: Literal["heartbeat"]
    timestamp: Instant
