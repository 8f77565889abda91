"""Streams over WebSocket: who may open one, and which of the two protocols it speaks (docs/protocol.md §3)."""

import ipaddress
from collections.abc import Coroutine
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from events import crash_points
from events.catalog import FINAL
from events.errors import UnknownJob
from events.log import Head
from gateway import frames
from gateway.analyze import ENGINE
from gateway.classic import ClassicStream
from gateway.connection import Connection, Ending, Talk, converse
from gateway.deps import DEPS, HUB, identify
from gateway.following import FullQuery, following
from gateway.full import FullStream
from gateway.hub import TooManyWatched
from gateway.jobs import job_id_in, row_of
from gateway.many import ManyStream
from gateway.problems import Problem
from gateway.sockets import SOCKETS, crowded, retry_after

ASKS_FOR_FULL = frozenset({"after", "last", "batch", "epoch"})


async def job_stream(request: web.Request) -> web.StreamResponse:
    """`GET /api/v1/jobs/{id}/stream`: always full."""
    _check_upgrade(request)
    return await _within_caps(request, _full(request))


async def analysis_stream(request: web.Request) -> web.StreamResponse:
    """`GET /api/v1/analyze/{id}/stream`: classic, unless the request asks for full."""
    _check_upgrade(request)
    offered = {word.strip() for word in request.headers.get("Sec-WebSocket-Protocol", "").split(",")}
    if frames.PROTOCOL in offered or ASKS_FOR_FULL & request.query.keys():
        return await _within_caps(request, _full(request, engine=ENGINE))
    return await _within_caps(request, _classic(request))


async def many_stream(request: web.Request) -> web.StreamResponse:
    """`GET /api/v1/stream`: as many jobs as the client asks for."""
    _check_upgrade(request)
    return await _within_caps(request, _many(request))


async def _within_caps(request: web.Request, stream: Coroutine[Any, Any, web.StreamResponse]) -> web.StreamResponse:
    sockets = request.app[SOCKETS]
    full, overrun = sockets.full, sockets.overrun
    with sockets.counted("websocket"):  # before anything is waited for: many may come at once
        if full:
            stream.close()
            sockets.refused("connections")
            if overrun:
                raise crowded()
            return await _refuse(request, 4429, retry_after())
        try:
            return await stream
        except TooManyWatched:
            sockets.refused("watched_jobs")
            return await _refuse(request, 4429, retry_after())


async def _full(request: web.Request, *, engine: str | None = None) -> web.StreamResponse:
    deps = request.app[DEPS]
    try:
        query = FullQuery.of(request, deps.heartbeat_s, "compress")
    except Problem as bad:
        field, message = bad.errors[0]
        return await _refuse(request, 4400, "bad query", frames.command_error(f"{field}: {message}", field))
    try:
        async with following(request.app, identify(request), job_id_in(request), query, engine=engine) as place:
            crash_points.reached("stream.head_read")
            return await _converse(request, FullStream(place, query, deps).talk)
    except UnknownJob:
        return await _refuse(request, 4004, "no such job")


async def _many(request: web.Request) -> web.StreamResponse:
    try:
        query = FullQuery.of_socket(request, request.app[DEPS].heartbeat_s)
    except Problem as bad:
        field, message = bad.errors[0]
        return await _refuse(request, 4400, "bad query", frames.command_error(f"{field}: {message}", field))
    with request.app[HUB].departures.announced() as departure:
        return await _converse(request, ManyStream(request.app, identify(request), query, departure).talk)


async def _classic(request: web.Request) -> web.StreamResponse:
    hub = request.app[HUB]
    try:
        async with hub.watch(job_id_in(request)) as watched:
            job = (await row_of(request, engine=ENGINE)).job
            after = job.last_seq - (job.status in FINAL)  # of a finished job the terminal event is all there is to say
            async with hub.follow(watched, Head(job.last_seq, job.status), after) as viewer:
                return await _converse(request, ClassicStream(job, viewer, request.app[DEPS]).talk)
    except UnknownJob:
        return await _refuse(request, 4004, "no such job")


# ---- the upgrade ----------------------------------------------------------------------------------------------


def _check_upgrade(request: web.Request) -> None:
    deps = request.app[DEPS]
    origin = request.headers.get("Origin")
    if origin is not None and not origin_allowed(origin, deps.allowed_origins):
        raise Problem(
            403, "origin", f"The Origin {origin} may not open streams.", errors=[("Origin", "is not allowed")]
        )
    if request.headers.get("Upgrade", "").lower() != "websocket":
        raise Problem(426, "upgrade_required", "This is a WebSocket.", headers={"Upgrade": "websocket"})
    if request.app[HUB].closing:
        raise Problem(503, "closing", "This gateway is shutting down; connect again.")


def origin_allowed(origin: str, allowed: frozenset[str]) -> bool:
    """Whether a page of this origin may open a socket: one of the allowed ones, exactly, or any port of this machine."""
    if origin in allowed:
        return True
    try:
        parts = urlsplit(origin)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme not in {"http", "https"} or f"{parts.scheme}://{parts.netloc}" != origin or "@" in parts.netloc:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _refuse(request: web.Request, code: int, reason: str, frame: bytes | None = None) -> web.StreamResponse:
    """Accepts, says why, closes: of an upgrade that was refused a browser shows nothing."""

    async def talk(connection: Connection) -> Ending:
        if frame is not None:
            await connection.send(frame)
        return Ending(code, reason)

    return await _converse(request, talk)


async def _converse(request: web.Request, talk: Talk) -> web.StreamResponse:
    return await converse(
        request,
        talk,
        request.app[SOCKETS],
        protocols=(frames.PROTOCOL,),
        stall_s=request.app[DEPS].stall_s,
        compress=request.query.get("compress") == "1",
    )
