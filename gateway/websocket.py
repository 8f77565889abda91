"""Streams over WebSocket: who may open one, and which of the two protocols it speaks (docs/protocol.md §3)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

from aiohttp import web

from events import crash_points
from events.catalog import FINAL
from events.errors import LogUnavailable, Unavailable, UnknownJob
from events.log import Head
from gateway import frames
from gateway.access import ACCESS, Forbidden, Unauthorized, bearer_protocol, no_key, permit, token_in, with_pass
from gateway.analyze import ENGINE
from gateway.classic import ClassicStream
from gateway.commands import Auth, BadCommand, command_of
from gateway.connection import Connection, Ending, Talk, converse
from gateway.deps import DEPS, HUB, IDENTITY, Identity
from gateway.following import Following, FullQuery
from gateway.full import FullStream
from gateway.hosted import Hosted
from gateway.hub import TooManyWatched
from gateway.jobs import job_id_in, row_of
from gateway.limits import LIMITER
from gateway.many import ManyStream
from gateway.origins import check_origin
from gateway.problems import Problem
from gateway.queries import PASS
from gateway.sockets import SOCKETS, crowded, held, retry_after

ASKS_FOR_FULL = frozenset({"after", "last", "batch", "epoch"})
AUTH_S = 5.0  # for the first frame, where the upgrade carried no key
EARLY_CHARS_MAX = 64 * 1024  # said before it was judged

# What joins a stream for somebody and gives what to say on it. Raises what `_refusal` knows, and `LogUnavailable`.
Opening = Callable[[web.Request, Identity], AbstractAsyncContextManager[Talk]]


async def analysis_stream(request: web.Request) -> web.StreamResponse:
    """`GET /api/v1/analyze/{id}/stream`: classic, unless the request asks for full."""
    if frames.PROTOCOL in _offered(request) or ASKS_FOR_FULL & request.query.keys():
        return await _serve(request, partial(_Full, engine=ENGINE))
    return await _serve(request, _classic)


async def _serve(request: web.Request, opening: Opening) -> web.StreamResponse:
    _check_upgrade(request)
    try:
        await request.app[LIMITER].upgrade(request)
    except Problem as limit:
        return await _turn_away(request, limit)
    sockets, access = request.app[SOCKETS], request.app[ACCESS]
    full, overrun = sockets.full, sockets.overrun
    with (
        sockets.counted("websocket"),
        request.app[LIMITER].connection(request) as fits,
    ):  # before anything is waited for
        if not fits:
            return await _turn_away(request, held())
        if full:
            sockets.refused("connections")
            if overrun:
                raise crowded()
            return await _refuse(request, Ending(4429, retry_after()))
        try:
            if PASS in request.query:
                who = request[IDENTITY] = await with_pass(request)
            else:
                token = token_in(request)
                if token is None and access.asks:
                    return await _converse(request, partial(_introduced, request, opening))
                who = await _admitted(request, token)
            async with opening(request, who) as talk:
                return await _converse(request, Hosted(request, who, talk))
        except _REFUSED as no:
            return await _refuse(request, *_refusal(request, no))


async def _admitted(request: web.Request, token: str | None) -> Identity:
    """Raises `Unauthorized`, `Forbidden`, `LogUnavailable`."""
    who = request[IDENTITY] = await request.app[ACCESS].who(token, request)
    permit(who, "read")
    return who


async def _introduced(request: web.Request, opening: Opening, connection: Connection) -> Ending:
    """Asks who it is before anything else is said; what else the peer says meanwhile is heard after it."""
    first: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    early: list[str] = []

    def hear(text: str) -> None:
        if not first.done():
            first.set_result(text)
        elif sum(map(len, early)) + len(text) <= EARLY_CHARS_MAX:
            early.append(text)
        else:
            raise Ending(4429, "retry_after=10")

    connection.on_text = hear
    try:
        async with asyncio.timeout(AUTH_S):
            text = await first
    except TimeoutError:
        return Ending(4408, f"no authentication within {AUTH_S:g} s")
    try:
        who = await _admitted(request, _token_of(text))
        async with opening(request, who) as talk:
            connection.hear_first(early)
            return await Hosted(request, who, talk)(connection)
    except _REFUSED as no:
        ending, said = _refusal(request, no)
        if said is not None:
            await connection.send(said)
        return ending
    except LogUnavailable:
        return Ending(1013, "the log does not answer")
    except Unavailable:
        return Ending(1013, "the issuer of tokens does not answer")


def _token_of(text: str) -> str:
    """The key of a first frame. Raises `Unauthorized`."""
    try:
        command = command_of(text)
    except BadCommand:
        command = None
    if not isinstance(command, Auth):
        raise no_key()
    return command.token


# ---- what is opened -------------------------------------------------------------------------------------------


class _Full:
    """As a generator would, but that each viewer would keep its frame."""

    __slots__ = ("_deps", "_following", "_query")

    def __init__(self, request: web.Request, who: Identity, *, engine: str | None = None) -> None:
        self._deps = request.app[DEPS]
        self._query = FullQuery.of(request, self._deps.heartbeat_s, "compress")
        self._following = Following(request.app, who, job_id_in(request), self._query, engine=engine)

    async def __aenter__(self) -> Talk:
        place = await self._following.__aenter__()
        crash_points.reached("stream.head_read")
        return FullStream(place, self._query, self._deps).talk

    async def __aexit__(self, *_: object) -> None:
        await self._following.__aexit__()


@asynccontextmanager
async def _many(request: web.Request, who: Identity) -> AsyncIterator[Talk]:
    query = FullQuery.of_socket(request, request.app[DEPS].heartbeat_s)
    with request.app[HUB].departures.announced() as departure:
        yield ManyStream(request.app, who, query, departure, request.app[LIMITER].address_of(request)).talk


@asynccontextmanager
async def _classic(request: web.Request, who: Identity) -> AsyncIterator[Talk]:
    del who  # `row_of` asks the request
    hub = request.app[HUB]
    async with hub.watch(job_id_in(request)) as watched:
        job = (await row_of(request, engine=ENGINE)).job
        after = job.last_seq - (job.status in FINAL)  # of a finished job the terminal event is all there is to say
        async with hub.follow(watched, Head(job.last_seq, job.status), after) as viewer:
            yield ClassicStream(job, viewer, request.app[DEPS]).talk


# ---- the upgrade ----------------------------------------------------------------------------------------------


def _check_upgrade(request: web.Request) -> None:
    check_origin(request.headers.get("Origin"), request.app[DEPS].allowed_origins)
    if request.headers.get("Upgrade", "").lower() != "websocket":
        raise Problem(426, "upgrade_required", "This is a WebSocket.", headers={"Upgrade": "websocket"})
    if request.app[HUB].closing:
        raise Problem(503, "closing", "This gateway is shutting down; connect again.")


_REFUSED = (UnknownJob, TooManyWatched, Problem)


def _refusal(request: web.Request, no: Exception) -> tuple[Ending, bytes | None]:
    """How a stream that was not joined is closed, and what is said before."""
    match no:
        case UnknownJob():
            return Ending(4004, "no such job"), None
        case TooManyWatched():
            request.app[SOCKETS].refused("watched_jobs")
            return Ending(4429, retry_after()), None
        case Unauthorized():
            return Ending(4401, no.detail), None
        case Forbidden():
            return Ending(4403, no.detail), None
        case Problem(status=429):
            return Ending(4429, f"retry_after={no.headers['Retry-After']}"), None
        case Problem():
            field, message = no.errors[0]
            return Ending(4400, "bad query"), frames.command_error(f"{field}: {message}", field)
        case _:
            raise no


async def _turn_away(request: web.Request, limit: Problem) -> web.StreamResponse:
    """Tells a client at its limit when to come back. One that opens too many keeps its place until it has taken the close,
    so only so many are told that way, and the others by the answer to the upgrade."""
    with request.app[SOCKETS].turning_away() as one_of_few:
        if not one_of_few:
            raise limit
        return await _refuse(request, Ending(4429, retry_after(int(limit.headers["Retry-After"]))))


async def _refuse(request: web.Request, ending: Ending, said: bytes | None = None) -> web.StreamResponse:
    """Accepts, says why, closes: of an upgrade that was refused a browser shows nothing."""

    async def talk(connection: Connection) -> Ending:
        if said is not None:
            await connection.send(said)
        return ending

    return await _converse(request, talk)


def _offered(request: web.Request) -> set[str]:
    return {word.strip() for word in request.headers.get("Sec-WebSocket-Protocol", "").split(",")}


def _converse(request: web.Request, talk: Talk) -> Coroutine[Any, Any, web.StreamResponse]:
    bearer = None if frames.PROTOCOL in _offered(request) else bearer_protocol(request)
    return converse(
        request,
        talk,
        request.app[SOCKETS],
        # A browser takes the connection only if one of the subprotocols it offered comes back.
        protocols=(frames.PROTOCOL,) if bearer is None else (bearer,),
        stall_s=request.app[DEPS].stall_s,
        compress=request.query.get("compress") == "1",
    )


# `GET /api/v1/jobs/{id}/stream`, always full, and `GET /api/v1/stream`, as many jobs as the client asks for. No functions of
# their own: of those each viewer would keep a frame.
job_stream = partial(_serve, opening=_Full)
many_stream = partial(_serve, opening=_many)
