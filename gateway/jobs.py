"""Jobs over HTTP: make, list, read, read as of a sequence, results, cancel, retry."""

import asyncio
import base64
import binascii
import hashlib
import re
from contextlib import suppress
from dataclasses import replace
from typing import Any

from aiohttp import web

from events.catalog import FINAL, AnyCommand, Cancel, Concurrency, Reopen, Timeouts
from events.committer import new_command_id
from events.errors import JobArchived, UnknownJob
from events.job import Job, evolve
from events.log import JobRow, Log
from events.record import Recorded
from events.values import encode
from gateway.access import permit
from gateway.addresses import address_of
from gateway.bodies import asked, checked, read_object
from gateway.delivery import deliver
from gateway.deps import DEPS, ENGINES, Identity, identify
from gateway.limits import LIMITER
from gateway.problems import Problem, bad_parameter, invalid
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
from gateway.search import Search, instant, search_of, statuses
from gateway.submissions import Draft, How, accept, replayed
from gateway.webhooks import allowed_webhook

LIST_MAX = 200
FORCE_S = 1.5  # a worker that lives ends a forced job well within it
FORCE_LOOK_S = 0.05
JOB_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UNCACHED = {"Content-Type": "application/json", "Cache-Control": "no-store"}


async def create(request: web.Request) -> web.Response:
    """`POST /api/v1/jobs`."""
    plain = await read_object(request)
    ask = asked(request, plain)
    if row := await replayed(request, ask):
        return made(request, row, "replayed")
    new = checked(NewJob, plain)
    if new.unique_mode is not None and new.unique_key is None:
        raise invalid([("unique_mode", "says nothing without a unique_key")])
    if new.unique_mode == "replace":
        permit(identify(request), "cancel")
    webhook = await allowed_webhook(request, new.webhook)
    engine = await request.app[ENGINES].get(new.engine)
    draft = Draft(
        params=new.params,
        priority=new.priority,
        not_before=new.not_before,
        max_attempts=new.max_attempts,
        timeouts=Timeouts(**new.timeouts.model_dump()),
        tags=tuple(new.tags),
        unique_key=new.unique_key,
        unique_mode=new.unique_mode or "return",
        webhook=webhook,
        concurrency=Concurrency(**new.concurrency.model_dump()) if new.concurrency else None,
    )
    return made(request, *await accept(request, engine, draft, ask))


def made(request: web.Request, row: JobRow, how: How, *, sent: bool = True) -> web.Response:
    """202 for a job that was made now or by an earlier request with the same key, 200 for one that was there anyway. `sent`:
    what is in it the caller sent, unless it was there anyway."""
    headers = {"Location": f"/api/v1/jobs/{row.job.id}"}
    if how == "replayed":
        headers["Idempotency-Replayed"] = "true"
    fields = job_fields(row)
    if how == "unfinished" or not sent:
        fields = seen_by(identify(request), fields)
    return answer(encode(fields), status=200 if how == "unfinished" else 202, headers=headers)


def seen_by(who: Identity, fields: dict[str, Any]) -> dict[str, Any]:
    """A job somebody changed: without the scope `read` nothing of what others put in or got out."""
    if who.may("read"):
        return fields
    kept = {name: value for name, value in fields.items() if name not in ("error", "webhook")}
    return kept | {"params": {}, "tags": [], "concurrency": None}


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
    query = Query(request, "q", "engine", "tag", "created_after", "cursor", "limit", repeatable=("status",))
    limit = query.number("limit", 50, least=1, most=LIST_MAX)
    wanted = _search(query, request.app[DEPS].clock.now_ms()).query(identify(request).tenant, limit)
    page = await request.app[DEPS].log.jobs(replace(wanted, before=_from_cursor(query.text("cursor"))))
    cursor = _to_cursor(page.rows[-1].job.id) if page.more else None
    return answer(encode({"jobs": [job_fields(row) for row in page.rows], "next_cursor": cursor}))


def _search(query: Query, now_ms: int) -> Search:
    status, engine, tag = query.words("status"), query.text("engine"), query.text("tag")
    since = query.text("created_after")
    if (text := query.text("q")) is not None:
        if status or not (engine is tag is since is None):
            raise bad_parameter("q", "says it all: give it alone, or the single parameters")
        return search_of(text, now_ms)
    return Search(
        statuses(list(status), "status"),
        engine,
        () if tag is None else (tag,),
        None if since is None else instant(since, "created_after", now_ms),
    )


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
    if not JOB_ID.fullmatch(job_id):
        raise UnknownJob
    return job_id


async def row_of(request: web.Request, *, engine: str | None = None) -> JobRow:
    """The job the path names. Raises `UnknownJob`, also when it is another engine's."""
    row = await request.app[DEPS].log.job(job_id_in(request), identify(request).tenant)
    if row is None or (engine is not None and row.job.engine != engine):
        raise UnknownJob
    return row


async def show(request: web.Request) -> web.StreamResponse:
    """`GET /api/v1/jobs/{id}`, `?at=<seq>`, `?results=inline`."""
    query = Query(request, "at", "results")
    inline = query.choice("results", ("inline", "ref"), "ref") == "inline"
    row = await row_of(request)
    if "at" in query:
        row = await as_of(request.app[DEPS].log, row, query.number("at", 0, least=1))
    return await show_document(request, row, inline=inline)


async def show_document(request: web.Request, row: JobRow, *, inline: bool, **extra: str) -> web.StreamResponse:
    """One job as an answer, its result inside when asked for."""
    log = request.app[DEPS].log
    last = await _terminal(log, row) if inline else None
    ref = terminal_fields(last).get("results_ref") if last else None
    size = int(ref["size"]) if ref else 0
    key = (request.path, row.job.last_seq)
    return await deliver(request, key, size, lambda: document(log, row, inline=inline, **extra), _UNCACHED)


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


async def as_of(log: Log, row: JobRow, seq: int) -> JobRow:
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
    return replace(row, job=job)


async def results(request: web.Request) -> web.StreamResponse:
    """`GET /api/v1/jobs/{id}/results`: the exact bytes."""
    Query(request)
    row = await row_of(request)
    last = await _terminal(request.app[DEPS].log, row)
    if last is None:
        raise Problem(
            409, "wrong_status", f"The job is {row.job.status}; it has no result yet.", job_status=row.job.status
        )
    missing = Problem(404, "no_result", f"The job is {row.job.status} and left no result.")
    if ref := terminal_fields(last).get("results_ref"):
        return await _exact(request, row, ref["sha256"], int(ref["size"]), missing)
    body = inline_results(last)
    if body is None:
        raise missing
    headers = _digest_headers(hashlib.sha256(body).hexdigest())
    return _unchanged(request, headers) or web.Response(body=body, headers=headers)


async def artifact(request: web.Request) -> web.StreamResponse:
    """`GET /api/v1/jobs/{id}/artifacts/{sha256}`: what an `output_ref` points at."""
    Query(request)
    row = await row_of(request)
    missing = Problem(404, "unknown_artifact", "The job has no such artifact.")
    sha256 = request.match_info["sha256"]
    if not _SHA256.fullmatch(sha256):
        raise missing
    size = await request.app[DEPS].log.artifact_size(row.job.id, sha256)
    if size is None:
        raise missing
    return await _exact(request, row, sha256, size, missing)


async def _exact(request: web.Request, row: JobRow, sha256: str, size: int, missing: Problem) -> web.StreamResponse:
    """Bytes that never change, with their digest, which is also what they are stored by."""

    async def make() -> bytes:
        body = await request.app[DEPS].log.artifact(row.job.id, sha256)
        if body is None:
            raise missing
        return body

    headers = _digest_headers(sha256)
    return _unchanged(request, headers) or await deliver(request, (row.job.id, sha256), size, make, headers)


def _digest_headers(sha256: str) -> dict[str, str]:
    return {
        "ETag": f'"{sha256}"',
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:",
        "Cache-Control": "private, no-cache",
        "Content-Type": "application/json",
    }


def _unchanged(request: web.Request, headers: dict[str, str]) -> web.Response | None:
    if any(f'"{known.value}"' in (headers["ETag"], '"*"') for known in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return None


# ---- change ---------------------------------------------------------------------------------------------------


async def cancel(request: web.Request) -> web.Response:
    """`POST /api/v1/jobs/{id}/cancel`: 200 also when it is cancelled already, 409 when it ended otherwise."""
    body = checked(CancelBody, await read_object(request, optional=True))
    if body.mode == "force":
        await _cancel(request, body.model_copy(update={"mode": "graceful", "grace_s": 0.0}))
        await _ended(request.app[DEPS].log, job_id_in(request))
    await _cancel(request, body)
    return await _changed(request)


async def _changed(request: web.Request, status: int = 200) -> web.Response:
    row, who = await row_of(request), identify(request)
    if who.may("read"):
        return answer(await document(request.app[DEPS].log, row), status=status)
    return answer(encode(seen_by(who, job_fields(row))), status=status)


async def _cancel(request: web.Request, body: CancelBody) -> None:
    who = identify(request)
    command = Cancel(
        command_id=new_command_id(),
        actor=who.actor,
        mode=body.mode,
        grace_s=body.grace_s,
        reason=body.reason,
        address=address_of(request),
    )
    await execute(request, command)


async def execute(request: web.Request, command: AnyCommand) -> None:
    """Runs a command on the job the path names. Raises what refuses it; `JobArchived` for one that went."""
    deps, job_id, tenant = request.app[DEPS], job_id_in(request), identify(request).tenant
    try:
        with request.app[LIMITER].waiting(request, tenant):
            await deps.committer.execute(job_id, command, tenant=tenant)
    except UnknownJob:
        gone = (await deps.log.archived([job_id])).get(job_id)
        if gone is None or gone.place is None or gone.tenant != tenant:
            raise
        raise JobArchived(status=gone.status) from None


async def _ended(log: Log, job_id: str) -> None:
    """Leaves the worker a moment to end the job itself: it knows the best result so far, and we do not."""
    with suppress(TimeoutError):
        async with asyncio.timeout(FORCE_S):
            while (head := await log.head(job_id)) and head.status not in FINAL:  # noqa: ASYNC110 it ends elsewhere
                await asyncio.sleep(FORCE_LOOK_S)


async def retry(request: web.Request) -> web.Response:
    """`POST /api/v1/jobs/{id}/retry`: the same job once more, 409 unless it failed or was cancelled."""
    body = checked(RetryBody, await read_object(request, optional=True))
    who = identify(request)
    command = Reopen(command_id=new_command_id(), actor=who.actor, reason=body.reason, address=address_of(request))
    async with request.app[LIMITER].queueing(who.tenant):
        await execute(request, command)
    return await _changed(request, 202)
