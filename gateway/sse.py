"""One job's stream as server-sent events (docs/protocol.md §4): what the full WebSocket says, for EventSource and curl."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from aiohttp import web

from events.errors import LogUnavailable
from events.telemetry import Cap
from gateway import frames
from gateway.artifacts import inlined
from gateway.deps import DEPS, HUB, Deps, identify
from gateway.following import RESET_BYTES_MAX, Following, FullQuery, Place, reconnect_ms
from gateway.hub import TooManyWatched
from gateway.jobs import job_id_in
from gateway.limits import LIMITER
from gateway.outlet import Outlet, pour
from gateway.problems import Problem, bad_parameter
from gateway.ring import Entry
from gateway.sockets import SOCKETS, Sockets, crowded, held
from gateway.viewer import Leaving

LAST_EVENT_ID = "Last-Event-ID"
_POSITION = re.compile(r"([0-9a-z-]{1,64})\.(0|[1-9][0-9]{0,15})")


async def job_stream(request: web.Request) -> web.StreamResponse:
    """`GET /api/v1/jobs/{id}/events` with `Accept: text/event-stream`."""
    deps, sockets = request.app[DEPS], request.app[SOCKETS]
    query = _positioned(request, FullQuery.of(request, deps.heartbeat_s))
    job_id = job_id_in(request)
    full = sockets.full
    with sockets.counted("server_sent_events"), request.app[LIMITER].connection(request) as fits:
        try:
            await request.app[LIMITER].upgrade(request)
            if not fits:
                raise held()
            if full:
                raise _refused(sockets, "connections")
            if request.app[HUB].closing:
                raise Problem(503, "closing", "This gateway is shutting down; connect again.")
            async with Following(request.app, identify(request), job_id, query) as place:
                if place.viewer.over and query.after and place.reason is None:
                    return web.Response(status=204)  # to a browser: do not come back
                stream = JobEvents(place, query, deps, sockets)
                return await pour(request, stream.talk, retry_ms=reconnect_ms())
        except TooManyWatched:
            return await unserved(request, _refused(sockets, "watched_jobs"))
        except LogUnavailable as outage:
            return await unserved(request, Problem(503, "unavailable", str(outage)))
        except Problem as problem:
            return await unserved(request, problem)


def _refused(sockets: Sockets, cap: Cap) -> Problem:
    sockets.refused(cap)
    return crowded()


async def unserved(request: web.Request, problem: Problem) -> web.StreamResponse:
    """Raises the problem; a browser that comes back is told to come later instead: after a 429 or 503 it would give up."""
    if problem.status not in (429, 503) or LAST_EVENT_ID not in request.headers or request.app[SOCKETS].overrun:
        raise problem
    wait_ms = 1000 * int(problem.headers.get("Retry-After", 0)) + reconnect_ms()

    async def talk(outlet: Outlet) -> None:
        await outlet.control(frames.goodbye(problem.kind, wait_ms))

    return await pour(request, talk, retry_ms=wait_ms)


def _positioned(request: web.Request, query: FullQuery) -> FullQuery:
    """The query with the position of `Last-Event-ID`, which wins over every other."""
    if not (text := request.headers.get(LAST_EVENT_ID)):
        return query
    found = _POSITION.fullmatch(text)
    if found is None:
        raise bad_parameter(LAST_EVENT_ID, "is not one this service gave out")
    return replace(query, after=int(found[2]), epoch=found[1], last=None)


class JobEvents:
    """One viewer's conversation."""

    def __init__(self, place: Place, query: FullQuery, deps: Deps, sockets: Sockets) -> None:
        self._place = place
        self._query = query
        self._viewer = place.viewer
        self._deps = deps
        self._sockets = sockets
        self._epoch = deps.log.epoch.encode()

    async def talk(self, outlet: Outlet) -> None:
        """Serves the stream to its end."""
        outlet.heartbeat_s = self._query.heartbeat_s
        outlet.heartbeat = lambda: frames.heartbeat(self._viewer.head)
        place = self._place
        await outlet.control(place.hello(self._query, self._deps))
        if place.reason is not None:
            reset = partial(place.reset, self._deps.log)
            await outlet.large(self._sockets, None, place.reset_key, RESET_BYTES_MAX, reset)
        try:
            await self._follow(outlet)
        except Leaving as leaving:
            wait_ms = reconnect_ms()
            await outlet.control(frames.goodbye(leaving.reason, wait_ms), b"retry: %d\n" % wait_ms)

    async def _follow(self, outlet: Outlet) -> None:
        viewer = self._viewer
        told = False
        while True:
            if not told and viewer.caught_up:
                told = True
                await outlet.control(self._place.caught_up())
            if status := viewer.over:
                return await outlet.control(frames.end(self._place.job_id, status))
            await self._send(outlet, await viewer.next(outlet.wait_s()))
            await outlet.tick()

    async def _send(self, outlet: Outlet, entries: Sequence[Entry]) -> None:
        plain: list[Entry] = []
        for entry in entries:
            if self._query.inline and (ref := frames.ref_of(entry)) is not None:
                await self._send_plain(outlet, plain)
                plain = []
                key = (self._place.job_id, entry.seq, self._query.batch)
                make = partial(self._inlined, entry, ref.sha256)
                await outlet.large(self._sockets, self._id(entry), key, ref.size, make)
            else:
                plain.append(entry)
        await self._send_plain(outlet, plain)

    async def _send_plain(self, outlet: Outlet, entries: list[Entry]) -> None:
        if self._query.batch and entries:
            await outlet.events([(self._id(entries[-1]), frames.batch([entry.line for entry in entries]))])
        elif entries:
            await outlet.events([(self._id(entry), entry.line) for entry in entries])

    async def _inlined(self, entry: Entry, sha256: str) -> bytes:
        line = await inlined(self._deps.log, self._place.job_id, entry, sha256)
        return frames.batch([line]) if self._query.batch else line

    def _id(self, entry: Entry) -> bytes:
        return b"%s.%d" % (self._epoch, entry.seq)
