"""What clients send and what a job looks like to them (docs/protocol.md §2)."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from events.catalog import CancelMode, Priority, UniqueMode
from events.clock import parse_instant, rfc3339
from events.job import Job
from events.log import JobRow
from events.record import Recorded, upcast
from events.values import decode, encode
from events.webhook_url import URL_CHARS_MAX
from gateway.splice import value_of

SECONDS_MAX = 365 * 24 * 3600.0
Seconds = Annotated[float, Field(gt=0, le=SECONDS_MAX)]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=64)]
UniqueKey = Annotated[str, StringConstraints(min_length=1, max_length=255)]
WebhookUrl = Annotated[str, StringConstraints(min_length=1, max_length=URL_CHARS_MAX)]


def _when(text: Any) -> int:
    return parse_instant(text if isinstance(text, str) else None)


# RFC 3339 with an offset, kept in ms
When = Annotated[int, BeforeValidator(_when), WithJsonSchema({"type": "string", "format": "date-time"})]


class Body(BaseModel):
    """A request body: no field it does not know, no type but its own."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class Limits(Body):
    """Seconds, null for no limit."""

    start_s: Seconds | None = None
    attempt_s: Seconds | None = 3600.0
    total_s: Seconds | None = None
    stall_s: Seconds | None = None


class ConcurrencyLimit(Body):
    """Of a tenant's jobs with this key at most `limit` run at once."""

    key: UniqueKey
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1


class JobTemplate(Body):
    """What a job is made of."""

    engine: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    params: dict[str, Any] = {}
    priority: Priority = "normal"
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    timeouts: Limits = Limits()
    tags: Annotated[list[Tag], Field(max_length=20)] = []
    unique_key: UniqueKey | None = None
    unique_mode: UniqueMode | None = None
    webhook: WebhookUrl | None = None
    concurrency: ConcurrencyLimit | None = None


class NewJob(JobTemplate):
    """`POST /api/v1/jobs`."""

    not_before: When | None = None


class Hooked(Body):
    """What `POST /api/v1/analyze` takes beside the engine's params."""

    webhook: WebhookUrl | None = None


class CancelBody(Body):
    """`POST …/cancel`."""

    mode: CancelMode = "graceful"
    grace_s: Annotated[float, Field(ge=0, le=3600)] = 30.0
    reason: Reason | None = None


class RetryBody(Body):
    """`POST …/retry`."""

    reason: Reason | None = None


class RerunBody(Body):
    """`POST …/rerun`. `params` replaces the params of the source job as a whole."""

    from_phase: str | None = None
    params: dict[str, Any] | None = None


class BulkBody(Body):
    """`POST /api/v1/bulk`. Without `confirm` it only counts. `grace_s` is for cancel, `from_phase` for rerun."""

    action: Literal["cancel", "retry", "rerun"]
    q: Annotated[str, StringConstraints(min_length=1, max_length=1000)]
    confirm: Annotated[str, StringConstraints(max_length=1000)] | None = None
    limit: Annotated[int, Field(ge=1, le=500)] = 100
    grace_s: Annotated[float, Field(ge=0, le=3600)] = 30.0
    reason: Reason | None = None
    from_phase: str | None = None


def job_fields(row: JobRow) -> dict[str, Any]:
    """A job as every call returns it, without what only its terminal event knows."""
    job = row.job
    fields = {
        "id": job.id,
        "engine": job.engine,
        "engine_version": job.engine_version,
        "status": job.status,
        "phase": job.phase,
        "progress": job.progress,
        "attempt": job.attempt,
        "failures": job.failures,
        "losses": job.losses,
        "max_attempts": job.max_attempts,
        "priority": job.priority,
        "params": decode(row.params),
        "tags": list(row.tags),
        "seq": job.last_seq,
        **_instants(job),
        "rerun_of": row.rerun_of,
        "unique_key": row.unique_key,
        "concurrency": _concurrency(row),
        "schedule": row.schedule,
        "stream_url": f"/api/v1/jobs/{job.id}/stream",
    }
    if row.webhook is not None:
        fields["webhook"] = row.webhook
    if job.error is not None:
        fields["error"] = decode(job.error)
    return fields


def _concurrency(row: JobRow) -> dict[str, Any] | None:
    return None if row.concurrency_key is None else {"key": row.concurrency_key, "limit": row.concurrency_limit}


def _instants(job: Job) -> dict[str, str | None]:
    names = ("created_at", "started_at", "finished_at", "not_before")
    instants = {name: getattr(job, name) for name in names}
    return {name: None if at is None else rfc3339(at) for name, at in instants.items()}


def terminal_fields(recorded: Recorded) -> dict[str, Any]:
    """What a terminal event adds to its job: a reference to the result, the whole error. Not the result itself."""
    data = decode(upcast(recorded).data)
    fields = {}
    if "results_ref" in data:
        fields["results_ref"] = data["results_ref"]
    if recorded.type == "error":
        fields["error"] = {name: data[name] for name in ("message", "code", "details") if name in data}
    return fields


def inline_results(recorded: Recorded) -> bytes | None:
    """The exact bytes of a result kept in its terminal event, None when it has none or a reference."""
    value = value_of(upcast(recorded).data, "results")
    return None if value is None else value.encode()


def with_member(document: dict[str, Any], name: str, value: bytes | None) -> bytes:
    """The document as JSON with one more member, whose exact bytes are given."""
    text = encode(document)
    return text if value is None else b'%s,"%s":%s}' % (text[:-1], name.encode(), value)
