"""Streams over WebSocket: who may open one, and which of the two protocols it speaks (docs/protocol.md §3)."""

import ipaddress
from urllib.parse import urlsplit

from aiohttp import web

from events.catalog import FINAL
from events.errors import UnknownJob
from events.log import Head
from gateway import frames
from gateway.analyze import ENGINE
from gateway.classic import ClassicStream
from gateway.connection import Connection, Ending, LargeFrames, Talk, converse
from gateway.deps import DEPS, HUB, identify
from gateway.full import FullQuery, FullStream
from gateway.jobs import document, job_id_in, row_of
from gateway.problems import Problem

ASKS_FOR_FULL = frozenset({"after", "last", "batch", "epoch"})

LARGE = web.AppKey("large", LargeFrames)


async def job_stream(request: web.Request) -> web.StreamResponse:
    """`GET /api/v1/jobs/{id}/stream`: always full."""
    _check_upgrade(request)
    return await _full(request)


async def analysis_stream(request: web.Request) -> web.StreamResponse:
    """`GET /api/v1/analyze/{id}/stream`: classic, unless the request asks for full."""
    _check_upgrade(request)
    offered = {word.strip() for word in request.headers.get("Sec-WebSocket-Protocol", "").split(",")}
    if frames.PROTOCOL in offered or ASKS_FOR_FULL & request.query.keys():
        return await _full(request, engine=ENGINE)
    return await _classic(request)


async def _full(request: web.Request, *, engine: str | None = None) -> web.StreamResponse:
    deps, hub = request.app[DEPS], request.app[HUB]
    try:
        query = FullQuery.of(request, deps.heartbeat_s)
    except Problem as bad:
        field, message = bad.errors[0]
        return await _refuse(request, 4400, "bad query", frames.command_error(f"{field}: {message}", field))
    try:
        job_id = job_id_in(request)
        async with hub.watch(job_id) as watched:
            if engine is not None:
                await row_of(request, engine=engine)
            head = await deps.log.head(job_id, identify(request).tenant)
            if head is None:
                raise UnknownJob
            snapshot = None
            if reason := query.unusable(head, deps.log.epoch):
                row = await row_of(request)
                head = Head(row.job.last_seq, row.job.status)
                snapshot = frames.reset(reason, head.seq, await document(deps.log, row, inline=query.inline))
            async with hub.follow(watched, head, query.start(head, reset=snapshot is not None)) as viewer:
                stream = FullStream(job_id, query, head, viewer, deps, snapshot)
                return await _converse(request, stream.talk)
    except UnknownJob:
        return await _refuse(request, 4004, "no such job")


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
    stall_s = request.app[DEPS].stall_s
    return await converse(request, talk, request.app[LARGE], protocols=(frames.PROTOCOL,), stall_s=stall_s)
