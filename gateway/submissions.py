"""Accepts what makes a job, however it was asked for: a new job, an analysis, a rerun."""

from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from events.catalog import Checkpoint, Concurrency, Idempotency, Priority, Submit, Submitted, Timeouts, UniqueMode
from events.committer import new_command_id
from events.errors import KeyReused, PhaselineError
from events.log import JobRow
from events.tracing import Span, traceparent_in
from gateway.addresses import address_of
from gateway.bodies import Asked
from gateway.deps import DEPS, ENGINES, identify
from gateway.engines import KnownEngine
from gateway.limits import LIMITER

# How a request came to its job: it made it, an earlier one with the same idempotency key did, or it is the unfinished
# job that has the unique key.
How = Literal["made", "replayed", "unfinished"]


@dataclass(frozen=True, slots=True)
class Draft:
    """A job to be: everything but its params checked. `params_root` is how errors name the params."""

    params: dict[str, Any]
    params_root: str = "params"
    priority: Priority = "normal"
    not_before: int | None = None
    max_attempts: int = 3
    max_losses: int = 3
    timeouts: Timeouts = field(default_factory=Timeouts)
    tags: tuple[str, ...] = ()
    unique_key: str | None = None
    unique_mode: UniqueMode = "return"
    webhook: str | None = None
    concurrency: Concurrency | None = None
    rerun_of: str | None = None
    from_phase: str | None = None
    reused: tuple[Checkpoint, ...] = ()
    job_id: str | None = None  # when `reused` names it


async def replayed(request: web.Request, asked: Asked) -> JobRow | None:
    """The job an earlier request with this key made; it is found before anything is checked again, since what was
    accepted stays accepted. Raises `KeyReused` when that request was another."""
    if asked.key_sha256 is None:
        return None
    row = await request.app[DEPS].log.find_key(identify(request).tenant, asked.key_sha256)
    if row is not None and row.fingerprint != asked.fingerprint:
        raise KeyReused
    return row


async def accept(request: web.Request, engine: KnownEngine, draft: Draft, asked: Asked) -> tuple[JobRow, How]:
    """Checks the params and commits the job, or answers with the one that stands in its place. Raises the 429 for one too
    many."""
    who = identify(request)
    limiter = request.app[LIMITER]
    with limiter.waiting(request, who.tenant):
        async with limiter.submits(request, who.tenant, who.actor):
            return await let_in(request, engine, draft, asked)


async def let_in(request: web.Request, engine: KnownEngine, draft: Draft, asked: Asked) -> tuple[JobRow, How]:
    """As `accept`, of a job that there is room for."""
    traces = request.app[DEPS].telemetry.traces
    span = traces.begin("submit", traceparent_in(request.headers.get("traceparent")), "server", _about(engine))
    try:
        return await _accepted(request, engine, draft, asked, span)
    except PhaselineError as refusal:
        span.end(str(refusal))
        raise
    finally:
        span.end()


def _about(engine: KnownEngine) -> dict[str, str | int]:
    return {"phaseline.engine": engine.row.name, "phaseline.engine_version": engine.row.version}


async def _accepted(
    request: web.Request, engine: KnownEngine, draft: Draft, asked: Asked, span: Span
) -> tuple[JobRow, How]:
    who = identify(request)
    params = await request.app[ENGINES].accepted(engine, draft.params, root=draft.params_root)
    submitted = Submitted(
        engine=engine.row.name,
        engine_version=engine.row.version,
        params=params,
        phases=engine.phases,
        priority=draft.priority,
        not_before=draft.not_before,
        max_attempts=draft.max_attempts,
        max_losses=draft.max_losses,
        timeouts=draft.timeouts,
        tags=draft.tags,
        rerun_of=draft.rerun_of,
        from_phase=draft.from_phase,
        subject=engine.subject(params),
        unique_key=draft.unique_key,
        webhook=draft.webhook,
        concurrency=draft.concurrency,
        idempotency=_idempotency(asked),
        address=address_of(request),
        traceparent=span.traceparent,
    )
    command = Submit(
        command_id=new_command_id(),
        actor=who.actor,
        submitted=submitted,
        reused=draft.reused,
        unique_mode=draft.unique_mode,
    )
    job_id = draft.job_id or request.app[DEPS].committer.new_job_id()
    source = draft.rerun_of if draft.reused else None
    commit = request.app[DEPS].telemetry.traces.begin("commit", span.traceparent)
    try:
        row, replay = await request.app[DEPS].committer.submit(
            command, tenant=who.tenant, job_id=job_id, source_job_id=source
        )
    finally:
        commit.end()
    return row, "replayed" if replay else "made" if row.job.id == job_id else "unfinished"


def _idempotency(asked: Asked) -> Idempotency | None:
    return Idempotency(key_sha256=asked.key_sha256, fingerprint=asked.fingerprint) if asked.key_sha256 else None
