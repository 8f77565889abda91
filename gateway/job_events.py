"""The recorded events of one job: JSON pages, and NDJSON up to the head."""

import logging

from aiohttp import web

from events.errors import PhaselineError, UnknownJob
from events.log import PAGE_BYTES_MAX, Log
from events.record import Recorded
from gateway.deps import DEPS, identify
from gateway.jobs import answer, job_id_in
from gateway.problems import Problem
from gateway.queries import Query

PAGE_MAX = 500
PAGE_DEFAULT = 100
_CHUNK = 16  # events read back at once: their size is known only afterwards

JSON = "application/json"
NDJSON = "application/x-ndjson"

log = logging.getLogger(__name__)


async def events(request: web.Request) -> web.StreamResponse:
    """`GET /api/v1/jobs/{id}/events`: what `Accept` asks for."""
    kind = _wanted(request)
    query = Query(request, "after", "limit", "order")
    store = request.app[DEPS].log
    job_id = job_id_in(request)
    head = await store.head(job_id, identify(request).tenant)
    if head is None:
        raise UnknownJob
    backwards = query.choice("order", ("asc", "desc"), "asc") == "desc"
    after = query.number("after", head.seq + 1 if backwards else 0)
    if after > head.seq + backwards:
        raise Problem(
            409, "beyond_head", f"The stream is at sequence {head.seq}.",
            errors=[("after", "is beyond the head")], head_seq=head.seq,
        )  # fmt: skip
    if kind == NDJSON:
        if backwards:
            raise Problem(400, "bad_parameter", "order=desc is for JSON pages.", errors=[("order", "must be asc here")])
        return await _ndjson(request, store, job_id, after, head.seq, query.number("limit", head.seq, least=1))
    limit = query.number("limit", PAGE_DEFAULT, least=1, most=PAGE_MAX)
    read = _read_back if backwards else _read
    return _page(job_id, await read(store, job_id, after, limit), after, head.seq)


def _wanted(request: web.Request) -> str:
    accept = request.headers.get("Accept", "*/*")
    if NDJSON in accept:
        return NDJSON
    if any(word in accept for word in (JSON, "application/*", "*/*")):
        return JSON
    raise Problem(406, "not_acceptable", f"Events come as {JSON} or {NDJSON}, live ones over the WebSocket.")


async def _read(store: Log, job_id: str, after: int, limit: int) -> list[Recorded]:
    return await store.read(job_id, after, limit=limit)


async def _read_back(store: Log, job_id: str, after: int, limit: int) -> list[Recorded]:
    """Newest first: what comes after `after` in that order."""
    found: list[Recorded] = []
    size = 0
    while len(found) < limit and size < PAGE_BYTES_MAX:
        before = found[-1].seq if found else after
        chunk = await store.read_back(job_id, before, min(_CHUNK, limit - len(found)))
        if not chunk:
            break
        found += chunk
        size += sum(len(recorded.data) for recorded in chunk)
    return found


def _page(job_id: str, page: list[Recorded], after: int, head_seq: int) -> web.Response:
    last = page[-1].seq if page else after
    head = f'{{"job_id":"{job_id}","head_seq":{head_seq},"next_after":{last},"events":['
    return answer(head.encode() + b",".join(recorded.line() for recorded in page) + b"]}")


async def _ndjson(
    request: web.Request, store: Log, job_id: str, after: int, head_seq: int, limit: int
) -> web.StreamResponse:
    page = await store.read(job_id, after, limit=min(PAGE_MAX, limit))
    response = web.StreamResponse(headers={"Content-Type": NDJSON, "Cache-Control": "no-store"})
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    last = min(head_seq, after + limit)
    try:
        while page:
            await response.write(b"".join(recorded.line() + b"\n" for recorded in page if recorded.seq <= last))
            after = page[-1].seq
            page = await store.read(job_id, after, limit=min(PAGE_MAX, last - after)) if after < last else []
        await response.write_eof()
    except PhaselineError as outage:
        # The status is sent: only a broken transfer tells the client that this is not the end.
        log.warning("events of %s broke off after %d: %s", job_id, after, outage)
        if request.transport is not None:
            request.transport.abort()
    return response
