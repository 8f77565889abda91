"""`GET /api/v1/events`: every event of the tenant, as JSON pages, NDJSON up to the end, or as they come."""

import logging

from aiohttp import web

from events.errors import LogUnavailable, PhaselineError
from events.log import at_or_behind
from events.values import encode
from gateway import frames
from gateway.access import EVENT_STREAM
from gateway.compression import Packing
from gateway.delivery import Stalled, cut, write
from gateway.departures import Departure
from gateway.deps import DEPS, HUB, Deps, identify
from gateway.feed import Chunk, FeedReader
from gateway.following import HEARTBEAT_S, reconnect_ms
from gateway.job_events import NDJSON, PAGE_DEFAULT, PAGE_MAX, wanted
from gateway.jobs import answer
from gateway.limits import LIMITER
from gateway.outlet import Outlet, pour
from gateway.problems import Problem
from gateway.queries import Query
from gateway.sockets import SOCKETS, crowded, held
from gateway.sse import LAST_EVENT_ID, unserved

log = logging.getLogger(__name__)


async def events(request: web.Request) -> web.StreamResponse:
    """What `Accept` asks for."""
    kind = wanted(request)
    if kind == EVENT_STREAM:
        return await _event_stream(request)
    query = Query(request, "cursor", *(() if kind == NDJSON else ("limit",)))
    if kind == NDJSON:
        return await _ndjson(request, await _start(request, query.text("cursor")))
    limit = query.number("limit", PAGE_DEFAULT, least=1, most=PAGE_MAX)
    cursor = await _start(request, query.text("cursor"))
    who = identify(request)
    page = await request.app[DEPS].log.feed(cursor, limit, who.tenant, acts=who.may("admin"))
    tail = b'],"next_cursor":%s}' % encode(request.app[HUB].feed.cursor_out(page.cursor))
    return answer(b'{"events":[' + b",".join(event.line() for event in page.events) + tail)


async def _start(request: web.Request, text: str | None) -> str:
    """The log's cursor: none is the start, `now` is the end."""
    if text == "now":
        return await request.app[DEPS].log.feed_end()
    return "" if text is None else request.app[HUB].feed.cursor_in(text)


# ---- NDJSON ---------------------------------------------------------------------------------------------------


async def _ndjson(request: web.Request, cursor: str) -> web.StreamResponse:
    """Up to the end at the time of the call, which `Next-Cursor` names: true once the whole of it arrived."""
    deps, sockets, feed = request.app[DEPS], request.app[SOCKETS], request.app[HUB].feed
    who = identify(request)
    if sockets.full:
        sockets.refused("connections")
        raise crowded()
    reading = feed.reader(who.tenant, cursor, acts=who.may("admin"))
    with sockets.counted("ndjson"), request.app[LIMITER].connection(request) as fits, reading as reader:
        if not fits:
            raise held()
        end = await deps.log.feed_end()
        following = cursor if cursor and at_or_behind(cursor, end) else end
        packing = Packing(request)
        headers = {"Content-Type": NDJSON, "Cache-Control": "no-store", "Next-Cursor": feed.cursor_out(following)}
        response = web.StreamResponse(headers=headers | packing.headers)
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        try:
            while not at_or_behind(reader.cursor, end) and (chunk := await _chunk(reader)).lines:
                await write(request, response, packing.part(b"".join(line + b"\n" for line in _up_to(chunk, end))))
            await write(request, response, packing.end())
            await response.write_eof()
        except PhaselineError as outage:
            log.warning("the feed broke off after %s: %s", reader.position, outage)
            cut(request)
        except Stalled:
            log.info("the feed: a reader took nothing")
    return response


async def _chunk(reader: FeedReader) -> Chunk:
    """Raises `LogUnavailable`."""
    chunk = await reader.read()
    if chunk is None:
        raise LogUnavailable
    return chunk


def _up_to(chunk: Chunk, end: str) -> list[bytes]:
    pairs = zip(chunk.lines, chunk.cursors, strict=True)
    return [line for line, cursor in pairs if at_or_behind(end, cursor)]


# ---- server-sent events ---------------------------------------------------------------------------------------


async def _event_stream(request: web.Request) -> web.StreamResponse:
    deps, sockets, hub = request.app[DEPS], request.app[SOCKETS], request.app[HUB]
    who = identify(request)
    query = Query(request, "cursor", "heartbeat")
    asked_s = query.number("heartbeat", 0, least=HEARTBEAT_S[0], most=HEARTBEAT_S[1])
    text = request.headers.get(LAST_EVENT_ID) or query.text("cursor")
    full = sockets.full
    with sockets.counted("server_sent_events"), request.app[LIMITER].connection(request) as fits:
        try:
            await request.app[LIMITER].upgrade(request)
            if not fits:
                raise held()
            if full:
                sockets.refused("connections")
                raise crowded()
            if hub.closing:
                raise Problem(503, "closing", "This gateway is shutting down; connect again.")
            cursor = await _start(request, text)
        except LogUnavailable as outage:
            return await unserved(request, Problem(503, "unavailable", str(outage)))
        except Problem as problem:
            return await unserved(request, problem)
        reading = hub.feed.reader(who.tenant, cursor, acts=who.may("admin"))
        with reading as reader, hub.departures.announced() as departure:
            stream = FeedEvents(reader, deps, departure, float(asked_s or deps.heartbeat_s), resumed=bool(text))
            return await pour(request, stream.talk, retry_ms=reconnect_ms())


class FeedEvents:
    """One reader's conversation."""

    def __init__(
        self, reader: FeedReader, deps: Deps, departure: Departure, heartbeat_s: float, *, resumed: bool
    ) -> None:
        self._reader = reader
        self._deps = deps
        self._departure = departure
        self._heartbeat_s = heartbeat_s
        self._resume = "resumed" if resumed else "fresh"

    async def talk(self, outlet: Outlet) -> None:
        """Goes on until the reader leaves, or has to."""
        reader, deps = self._reader, self._deps
        outlet.heartbeat_s = self._heartbeat_s
        outlet.heartbeat = lambda: frames.feed_heartbeat(reader.position)
        now_ms = deps.clock.now_ms()
        hello = frames.feed_hello(
            epoch=deps.log.epoch, resume=self._resume, heartbeat_s=self._heartbeat_s, now_ms=now_ms
        )
        await outlet.control(hello)
        told = False
        while not self._departure.due.done():
            if not told and reader.caught_up:
                told = True
                await outlet.control(frames.feed_caught_up(reader.position))
            if chunk := await reader.next(outlet.wait_s()):
                await outlet.events(
                    [(reader.public(cursor), line) for cursor, line in zip(chunk.cursors, chunk.lines, strict=True)]
                )
            await outlet.tick()
        wait_ms = reconnect_ms()
        await outlet.control(frames.goodbye("restarting", wait_ms), b"retry: %d\n" % wait_ms)
