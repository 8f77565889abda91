"""Jobs over HTTP: make, list, read, read as of a sequence, results, cancel, retry."""

import base64
import binascii
import hashlib
import re

from aiohttp import web

from events.catalog import Cancel, Reopen, Status, Timeouts
from events.clock import parse_instant
from events.committer import new_command_id
from events.errors import UnknownJob
from events.job import Job, evolve
from events.log import JobQuery, JobRow, Log
from events.record import Recorded
from events.values import encode
from gateway.bodies import asked, checked, read_object
from gateway.deps import DEPS, ENGINES, identify
from gateway.problems import Problem, bad_parameter
from gateway.queries import Query
from gateway.schemas import (
    CancelBody,
    NewJob,
    RetryBody,
    inline_results,
    job_fields,
    terminal_fields,
    with_member,
)
from gateway.submissions import Draft, accept, replayed

LIST_MAX = 200
_STATUSES: tuple[Status, ...] = ("queued", "running", "completed", "failed", "cancelled")
_JOB_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


async def create(request: web.Request) -> web.Response:
    """`POST /api/v1/jobs`."""
    plain = await read_object(request)
    ask = asked(request, plain)
    if row := await replayed(request, ask):
        return made(row, replay=True)
    new = checked(NewJob, plain)
    engine = await request.app[ENGINES].get(new.engine)
    draft = Draft(
        params=new.params,
        priority=new.priority,
        not_before=new.not_before,
        max_attempts=new.max_attempts,
        timeouts=Timeouts(**new.timeouts.model_dump()),
        tags=tuple(new.tags),
    )
    row, replay = await accept(request, engine, draft, ask)
    return made(row, replay=replay)


def made(row: JobRow, *, replay: bool) -> web.Response:
    """202 for a job that was made now or by an earlier request with the same key."""
    headers = {"Location": f"/api/v1/jobs/{row.job.id}"} | ({"Idempotency-Replayed": "true"} if replay else {})
    return answer(encode(job_fields(row)), status=202, headers=headers)


def answer(body: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer that nobody may cache."""
    return web.Response(
        status=status,
        body=body,
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


# ---- list -----------------------------------------------------------------------------------------------------


async def list_jobs(request: web.Request) -> web.Response:
    """`GET /api/v1/jobs`, newest first."""
    query = Query(request, "engine", "tag", "created_after", "cursor", "limit", repeatable=("status",))
    limit = query.number("limit", 50, least=1, most=LIST_MAX)
    rows = await request.app[DEPS].log.jobs(
        JobQuery(
            tenant=identify(request).tenant,
            status=_statuses(query),
            engine=query.text("engine"),
            tag=query.text("tag"),
            created_after=_instant(query, "created_after"),
            before=_from_cursor(query.text("cursor")),
            limit=limit + 1,
        )
    )
    page = rows[:limit]
    cursor = _to_cursor(page[-1].job.id) if len(rows) > limit else None
    return answer(encode({"jobs": [job_fields(row) for row in page], "next_cursor": cursor}))


def _statuses(query: Query) -> tuple[str, ...]:
    asked_for = query.words("status")
    if unknown := [word for word in asked_for if word not in _STATUSES]:
        raise bad_parameter("status", f"{unknown[0]!r} is none of {', '.join(_STATUSES)}")
    return asked_for


def _instant(query: Query, name: str) -> int | None:
    if (text := query.text(name)) is None:
        return None
    try:
        return parse_instant(text)
    except ValueError:
        raise bad_parameter(name, "must be an RFC 3339 time such as 2026-11-24T08:00:00Z") from None


def _to_cursor(job_id: str) -> str:
    return base64.urlsafe_b64encode(b"1" + bytes.fromhex(job_id.replace("-", ""))).decode().rstrip("=")


def _from_cursor(cursor: str | None) -> str | None:
    if cursor is None:
        return None
    try:
        form = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        form = b""
    if len(form) != 17 or form[:1] != b"1":
        raise bad_parameter("cursor", "is not one this service gave out")
    digits = form[1:].hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


# ---- one job --------------------------------------------------------------------------------------------------


def job_id_in(request: web.Request) -> str:
    """The job id of the path. Raises `UnknownJob` when it is malformed: all unknown ids are alike."""
    job_id = request.match_info["job_id"]
    if not _JOB_ID.fullmatch(job_id):
        raise UnknownJob
    return job_id


async def row_of(request: web.Request, *, engine: str | None = None) -> JobRow:
    """The job the path names. Raises `UnknownJob`, also when it is another engine's."""
    row = await request.app[DEPS].log.job(job_id_in(request), identify(request).tenant)
    if row is None or (engine is not None and row.job.engine != engine):
        raise UnknownJob
    return row


async def show(request: web.Request) -> web.Response:
    """`GET /api/v1/jobs/{id}`, `?at=<seq>`, `?results=inline`."""
    query = Query(request, "at", "results")
    inline = query.choice("results", ("inline", "ref"), "ref") == "inline"
    row = await row_of(request)
    if "at" in query:
        row = await _as_of(request.app[DEPS].log, row, query.number("at", 0, least=1))
    return answer(await document(request.app[DEPS].log, row, inline=inline))


async def document(log: Log, row: JobRow, *, inline: bool = False, **extra: str) -> bytes:
    """One job with what its terminal event at `seq` adds: the result or where it is, the whole error."""
    fields = job_fields(row) | extra
    last = await _terminal(log, row)
    if last is None:
        return encode(fields)
    added = terminal_fields(last)
    results = inline_results(last)
    if inline and (ref := added.pop("results_ref", None)):
        results = await log.artifact(row.job.id, ref["sha256"])
    return with_member(fields | added, "results", results)


async def _terminal(log: Log, row: JobRow) -> Recorded | None:
    if not row.job.is_final:
        return None
    page = await log.read(row.job.id, row.job.last_seq - 1, limit=1)
    return page[0] if page else None


async def _as_of(log: Log, row: JobRow, seq: int) -> JobRow:
    """The job folded from its events up to `seq`."""
    if seq > row.job.last_seq:
        raise Problem(
            404, "beyond_head", f"The job is at sequence {row.job.last_seq}, there is no {seq} yet.",
            errors=[("at", "is beyond the head")], head_seq=row.job.last_seq,
        )  # fmt: skip
    job: Job | None = None
    done = 0
    while done < seq:
        page = await log.read(row.job.id, done, limit=min(seq - done, 500))
        if not page:
            raise UnknownJob
        for event in page:
            job = evolve(job, event.event(), job_id=event.job_id, tenant=event.tenant, at=event.at)
        done = page[-1].seq
    assert job is not None
    return JobRow(job, row.params, row.tags, row.rerun_of, row.from_phase)


async def results(request: web.Request) -> web.Response:
    """`GET /api/v1/jobs/{id}/results`: the exact bytes."""
    Query(request)
    log = request.app[DEPS].log
    row = await row_of(request)
    last = await _terminal(log, row)
    if last is None:
        raise Problem(
            409, "wrong_status", f"The job is {row.job.status}; it has no result yet.", job_status=row.job.status
        )
    ref = terminal_fields(last).get("results_ref")
    body = inline_results(last) if ref is None else await log.artifact(row.job.id, ref["sha256"])
    if body is None:
        raise Problem(404, "no_result", f"The job is {row.job.status} and left no result.")
    return exact(request, body)


async def artifact(request: web.Request) -> web.Response:
    """`GET /api/v1/jobs/{id}/artifacts/{sha256}`: what an `output_ref` points at."""
    Query(request)
    row = await row_of(request)
    body = await request.app[DEPS].log.artifact(row.job.id, request.match_info["sha256"])
    if body is None:
        raise Problem(404, "unknown_artifact", "The job has no such artifact.")
    return exact(request, body)


def exact(request: web.Request, body: bytes) -> web.Response:
    """Bytes that never change, with their digest."""
    digest = hashlib.sha256(body)
    tag = digest.hexdigest()
    headers = {
        "ETag": f'"{tag}"',
        "Repr-Digest": f"sha-256=:{base64.b64encode(digest.digest()).decode()}:",
        "Cache-Control": "private, no-cache",
    }
    if any(known.value in (tag, "*") for known in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, content_type="application/json", headers=headers)


# ---- change ---------------------------------------------------------------------------------------------------


async def cancel(request: web.Request) -> web.Response:
    """`POST /api/v1/jobs/{id}/cancel`: 200 also when it is cancelled already, 409 when it ended otherwise."""
    body = checked(CancelBody, await read_object(request, optional=True))
    who = identify(request)
    command = Cancel(
        command_id=new_command_id(), actor=who.actor, mode=body.mode, grace_s=body.grace_s, reason=body.reason
    )
    await request.app[DEPS].committer.execute(job_id_in(request), command, tenant=who.tenant)
    return answer(await document(request.app[DEPS].log, await row_of(request)))


async def retry(request: web.Request) -> web.Response:
    """`POST /api/v1/jobs/{id}/retry`: the same job once more, 409 unless it failed or was cancelled."""
    body = checked(RetryBody, await read_object(request, optional=True))
    who = identify(request)
    command = Reopen(command_id=new_command_id(), actor=who.actor, reason=body.reason)
    await request.app[DEPS].committer.execute(job_id_in(request), command, tenant=who.tenant)
    return answer(await document(request.app[DEPS].log, await row_of(request)), status=202)
