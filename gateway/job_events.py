"""The recorded events of one job: JSON pages, NDJSON up to the head, or as they come (`gateway/sse.py`)."""

import asyncio
import logging

from aiohttp import web

from events.errors import LogUnavailable, PhaselineError, UnknownJob
from events.log import PAGE_BYTES_MAX, Log
from events.record import Recorded
from gateway import sse
from gateway.access import EVENT_STREAM
from gateway.compression import Packing
from gateway.delivery import Stalled, cut, write
from gateway.deps import DEPS, HUB, identify
from gateway.jobs import answer, job_id_in
from gateway.limits import LIMITER
from gateway.problems import Problem
from gateway.queries import Query
from gateway.replay import Replay
from gateway.ring import Entry
from gateway.sockets import SOCKETS, crowded, held
from gateway.viewer import cut_to_chunk

PAGE_MAX = 500
PAGE_DEFAULT = 100
_CHUNK = 16  # events read back at once: their size is known only afterwards

JSON = "application/json"
NDJSON = "application/x-ndjson"

log = logging.getLogger(__name__)


async def events(request: web.Request) -> web.StreamResponse:
    """`GET /api/v1/jobs/{id}/events`: what `Accept` asks for."""
    kind = wanted(request)
    if kind == EVENT_STREAM:
        return await sse.job_stream(request)
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
        limit = query.number("limit", head.seq, least=1)
        return await _ndjson(request, job_id, after, min(head.seq, after + limit))
    limit = query.number("limit", PAGE_DEFAULT, least=1, most=PAGE_MAX)
    read = _read_back if backwards else _read
    return _page(job_id, await read(store, job_id, after, limit), after, head.seq)


def wanted(request: web.Request) -> str:
    """The form of events that `Accept` asks for."""
    accept = request.headers.get("Accept", "*/*")
    for kind in (EVENT_STREAM, NDJSON):
        if kind in accept:
            return kind
    if any(word in accept for word in (JSON, "application/*", "*/*")):
        return JSON
    raise Problem(406, "not_acceptable", f"Events come as {JSON}, {NDJSON} or {EVENT_STREAM}.")


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


async def _ndjson(request: web.Request, job_id: str, after: int, last: int) -> web.StreamResponse:
    """From the pages all viewers share: a slow reader holds what it is being sent and nothing else."""
    sockets, replay = request.app[SOCKETS], request.app[HUB].replay
    if sockets.full:
        sockets.refused("connections")
        raise crowded()
    with sockets.counted("ndjson"), request.app[LIMITER].connection(request) as fits:
        if not fits:
            raise held()
        entries = await _chunk(replay, job_id, after, last)
        packing = Packing(request)
        headers = {"Content-Type": NDJSON, "Cache-Control": "no-store", **packing.headers}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        try:
            while entries:
                await write(request, response, packing.part(b"".join(entry.line + b"\n" for entry in entries)))
                after = entries[-1].seq
                entries = await _chunk(replay, job_id, after, last)
            await write(request, response, packing.end())
            await response.write_eof()
        except PhaselineError as outage:
            log.warning(
                "events of %s broke off after %d: %s", job_id, after, outage, extra={"job_id": job_id, "after": after}
            )
            cut(request)
        except Stalled:
            log.info("events of %s: the reader took nothing", job_id, extra={"job_id": job_id, "after": after})
    return response


async def _chunk(replay: Replay, job_id: str, after: int, last: int) -> list[Entry]:
    """The events just after `after`, up to `last`. Raises `LogUnavailable`."""
    if after >= last:
        return []
    reading = replay.after(job_id, after, last)
    await asyncio.wait({reading})  # others wait for the same one: it must not be cancelled with this request
    page = reading.result()
    if not page:
        raise LogUnavailable
    return [entry for entry in cut_to_chunk(page) if entry.seq <= last]
