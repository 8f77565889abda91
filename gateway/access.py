"""Who asks, and whether they may: every request passes here before its handler, open streams are looked at again.

What a route needs is declared beside it in `gateway/app.py`; a route that declares nothing answers nobody. A key is read
from the log once in `FRESH_S`, however many requests carry it, and its last use is written once in `TOUCH_S`.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

from aiohttp import web

from events.errors import PhaselineError, UnknownJob
from events.keys import ApiKey, Scope, Token, token_of
from events.passes import Doors, Pass, digest_of
from gateway.bearers import BadToken, Bearers
from gateway.deps import DEPS, EVERYONE, IDENTITY, Deps, Identity
from gateway.limits import LIMITER, Limiter
from gateway.origins import check_host, check_origin
from gateway.problems import Handler, Problem
from gateway.queries import PASS, PASSED

FRESH_S = 5.0  # so long a revoked key may still be let in
LOOK_S = 5.0  # how often keys of open streams are looked at
KEPT_MAX = 10_000  # keys remembered
LOOKUPS_MAX = 4  # at once: guesses must not take the log's connections
TOUCH_S = 60.0
COOKIE = "phaseline_key"  # of the pages, see `gateway/sessions.py`
BEARER = "bearer."  # a WebSocket subprotocol: browsers cannot set a header there
SAFE = ("GET", "HEAD")
EVENT_STREAM = "text/event-stream"
PASSABLE = ("/api/v1/jobs/{job_id}/events", "/api/v1/events")  # beside WebSockets: event streams

# Beside the scopes: anybody; any key; a stream of many kinds of refusal, which asks by itself for `read`.
Need = Scope | Literal["nobody", "any key", "stream"]

log = logging.getLogger(__name__)


class Unauthorized(Problem):
    """401: no key, or none that is good. A wrong secret and an unknown id are told apart by nothing."""

    def __init__(self, detail: str, *, presented: bool) -> None:
        challenge = 'Bearer realm="phaseline"' + (', error="invalid_token"' if presented else "")
        super().__init__(401, "unauthorized", detail, headers={"WWW-Authenticate": challenge})


class Forbidden(Problem):
    """403: a good key without this scope."""

    def __init__(self, scope: Scope) -> None:
        challenge = f'Bearer realm="phaseline", error="insufficient_scope", scope="{scope}"'
        super().__init__(
            403,
            "forbidden",
            f"This key may not do this: it needs the scope {scope}.",
            headers={"WWW-Authenticate": challenge},
            scope=scope,
        )


def no_key() -> Unauthorized:
    """For who sent none."""
    return Unauthorized("A key is needed here: send it as `Authorization: Bearer …`.", presented=False)


def permit(who: Identity, scope: Scope) -> None:
    """Raises the 403."""
    if not who.may(scope):
        raise Forbidden(scope)


@dataclass(slots=True, eq=False)
class Guest:
    """An open stream, what it was opened with, and how to end it. The block of `Access.hosting`."""

    who: Identity
    end: Callable[[str], None]
    among: "dict[Guest, None]"

    def __enter__(self) -> Self:
        self.among[self] = None
        return self

    def __exit__(self, *_: object) -> None:
        del self.among[self]

    def over(self, now_ms: int) -> bool:
        """Whether the pass or token it came with has ended."""
        return self.who.until is not None and self.who.until <= now_ms


class Access:
    """One per gateway process."""

    def __init__(self, deps: Deps, limiter: Limiter) -> None:
        self._limiter = limiter
        self.asks = deps.asks or deps.tokens is not None
        self._tokens = deps.tokens
        self._store = deps.keys
        self._clock = deps.clock
        self._kept: OrderedDict[str, tuple[float, ApiKey]] = OrderedDict()  # since when
        self._lookups = asyncio.Semaphore(LOOKUPS_MAX)
        self._used: dict[str, None] = {}  # since they were last said to be
        self._guests: dict[Guest, None] = {}

    async def who(self, text: str | None, request: web.Request) -> Identity:
        """Whose key or token this is. Raises `Unauthorized`, the 429 for too many that are not good, `Unavailable`."""
        if not self.asks:
            return EVERYONE
        if text is None:
            raise no_key()
        async with self._limiter.refusals(request, Unauthorized):
            if self._tokens is not None and text.count(".") == 2:  # no key has a dot
                return await self._bearer(self._tokens, text)
            return await self._holder(text, request)

    async def _bearer(self, tokens: Bearers, text: str) -> Identity:
        try:
            bearer = await tokens.who(text)
        except BadToken as wrong:
            raise Unauthorized(f"This token is not good here: {wrong}.", presented=True) from None
        return Identity(bearer.tenant, f"user:{bearer.subject}", bearer.scopes, until=bearer.until)

    async def _holder(self, text: str, request: web.Request) -> Identity:
        token = token_of(text)
        if token is not None and token.key_id not in self._kept:
            self._limiter.may_be_refused(request)  # or guesses would take the log's time
        key = await self._key(token) if token is not None else None
        if key is None:
            raise Unauthorized("This key is not known here.", presented=True)
        if why := key.over(self._clock.now_ms()):
            raise Unauthorized(f"This key is {why}.", presented=True)
        self._used[key.id] = None
        return Identity(key.tenant, f"key:{key.id}", frozenset(key.scopes), key.id)

    async def who_has(self, text: str, request: web.Request) -> Identity:
        """Whose pass this is. Raises `Unauthorized`, the 429 for too many that are not good, `LogUnavailable`."""
        if not self.asks or self._store is None:
            return EVERYONE
        self._limiter.may_be_refused(request)
        async with self._limiter.refusals(request, Unauthorized):
            return await self._passer(self._store, text, request.headers.get("Origin"))

    async def _passer(self, store: Doors, text: str, origin: str | None) -> Identity:
        digest, found = digest_of(text), None
        if digest is not None:
            async with self._lookups:
                found = await store.use_pass(digest)
        if found is None or (found.origin is not None and found.origin != origin):
            raise Unauthorized("This pass is not known here.", presented=True)
        now_ms = self._clock.now_ms()
        why = found.over(now_ms)
        if not why and found.expires_at is None:  # it is one of a key; made before there was one, of none
            key = await self._known(found.key_id)
            why = key.over(now_ms) if key else "of no key"
        if why:
            raise Unauthorized(f"This pass, or its key, {why}.", presented=True)
        actor = f"key:{found.key_id}" if found.key_id else "pass:of-token"
        only = None if found.feed else found.jobs
        return Identity(found.tenant, actor, frozenset(("read",)), found.key_id or None, only, found.until)

    async def add_pass(self, made: Pass) -> bool:
        """Stores a pass; False when the tenant has too many."""
        return self._store is None or await self._store.add_pass(made)

    async def _key(self, token: Token) -> ApiKey | None:
        found = await self._known(token.key_id)
        return found if found is not None and found.opens(token.sha256) else None

    async def _known(self, key_id: str) -> ApiKey | None:
        found = self._fresh(key_id)
        if found is None and self._store is not None:
            async with self._lookups:
                found = self._fresh(key_id)  # others may have asked meanwhile
                if found is None:
                    found = (await self._store.find_keys([key_id])).get(key_id)
                    if found is not None:
                        self._keep(found)
        return found

    def _fresh(self, key_id: str) -> ApiKey | None:
        since, key = self._kept.get(key_id, (0.0, None))
        return key if key is not None and asyncio.get_running_loop().time() - since < FRESH_S else None

    def _keep(self, key: ApiKey) -> None:
        self._kept.pop(key.id, None)
        self._kept[key.id] = asyncio.get_running_loop().time(), key
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)

    # -- open streams

    def hosting(self, who: Identity, end: Callable[[str], None]) -> Guest:
        """Calls `end` with a reason when the key an open stream came with is good no more, while the block lasts."""
        return Guest(who, end, self._guests)

    async def run(self) -> None:
        """Looks at keys again until cancelled, and fetches those of tokens."""
        async with asyncio.TaskGroup() as tasks:
            if self._tokens is not None:
                tasks.create_task(self._tokens.run())
            tasks.create_task(self._look_again())

    async def _look_again(self) -> None:
        loop = asyncio.get_running_loop()
        touched = loop.time()
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
                if self._store is not None and self._used and loop.time() - touched >= TOUCH_S:
                    used, self._used, touched = list(self._used), {}, loop.time()
                    await self._store.touch_keys(used)
            except PhaselineError as away:
                log.warning("keys were not looked at: %s", away)

    async def look(self) -> None:
        """Ends streams whose key was revoked or has expired; begins to ask once there is a key."""
        if self._store is None:
            self._part()
            return
        if not self.asks and await self._store.has_keys():
            self.asks = True
            log.warning("there is a key now: from here on every request needs one")
        wanted = sorted({guest.who.key_id for guest in self._guests if guest.who.key_id is not None})
        if wanted:
            try:
                for key in (await self._store.find_keys(wanted)).values():
                    self._keep(key)
            finally:  # what is known of expiries holds without the log too
                self._part()
        elif self.asks:
            self._part()

    def _part(self) -> None:
        now_ms = self._clock.now_ms()
        for guest in list(self._guests):
            key_id = guest.who.key_id
            if guest.over(now_ms):
                guest.end("the token or pass has expired")
            elif key_id is None:
                if self.asks and guest.who.until is None:
                    guest.end("a key is needed")
            elif key_id in self._kept and (why := self._kept[key_id][1].over(now_ms)):
                guest.end(f"the key is {why}")


ACCESS = web.AppKey("access", Access)


class Gate:
    """What each route needs. Routes are added through it."""

    def __init__(self) -> None:
        self.needs: dict[tuple[str, str], Need] = {}  # by method and path

    def add(self, app: web.Application, need: Need, *routes: web.RouteDef) -> None:
        """Adds routes that need this."""
        for definition in routes:
            for route in definition.register(app.router):
                assert route.resource is not None
                self.needs[route.method, route.resource.canonical] = need

    def need_of(self, route: web.AbstractRoute) -> Need | None:
        """What a route needs; None when nobody said."""
        if route.resource is None:
            return "nobody"  # there is nothing at this path, or no such method: said to anybody
        method = "GET" if route.method == "HEAD" else route.method
        return self.needs.get((method, route.resource.canonical))


GATE = web.AppKey("gate", Gate)


def token_in(request: web.Request) -> str | None:
    """The key a request carries. Raises `Unauthorized` for what is no bearer token."""
    given = request.headers.getall("Authorization", [])
    if given:
        scheme, _, token = given[0].partition(" ")
        if len(given) > 1 or scheme.lower() != "bearer":
            raise Unauthorized("Send one header `Authorization: Bearer …`.", presented=True)
        return token.strip()
    offered = bearer_protocol(request)
    if offered is not None:
        return offered.removeprefix(BEARER)
    return request.cookies.get(COOKIE) if _of_own_page(request) else None


def _of_own_page(request: web.Request) -> bool:
    """Whether a page of this gateway asks, by what no script can set. Cookies alone do not tell: they know no ports."""
    origin = request.headers.get("Origin")
    if origin is not None:
        own = origin.removeprefix("https://").removeprefix("http://") == request.headers.get("Host")
        return own or origin in request.app[DEPS].allowed_origins
    reads = request.method in SAFE and "Upgrade" not in request.headers
    return reads and request.headers.get("Sec-Fetch-Site", "none") in ("same-origin", "none")


def bearer_protocol(request: web.Request) -> str | None:
    """The subprotocol that carries a key."""
    words = (word.strip() for word in request.headers.get("Sec-WebSocket-Protocol", "").split(","))
    return next((word for word in words if word.startswith(BEARER)), None)


@web.middleware
async def admitted(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Lets a request to its handler once its key is good for what the route needs."""
    need = request.app[GATE].need_of(request.match_info.route)
    if need is None:
        raise Problem(403, "closed", "Nobody said who may do this.")
    allowed = request.app[DEPS].allowed_origins
    if request.method not in SAFE:
        check_origin(request.headers.get("Origin"), allowed)
    if need != "nobody" and not request.app[ACCESS].asks:
        check_host(request.headers.get("Host"), allowed)
    if need != "nobody" and need != "stream":  # noqa: PLR1714 so that the types narrow
        who = request[IDENTITY] = await _caller(request)
        if need != "any key":
            permit(who, need)
        if request.method in SAFE and _held_to_reads(request):
            await request.app[LIMITER].read(request, who.tenant, who.actor)
    return await handler(request)


def _held_to_reads(request: web.Request) -> bool:
    """Whether it is one of the API that answers at once. Event streams are held to the limit of streams, whose refusal a
    browser survives."""
    resource = request.match_info.route.resource
    if resource is None or not resource.canonical.startswith("/api/"):
        return False
    return resource.canonical not in PASSABLE or EVENT_STREAM not in request.headers.get("Accept", "")


async def _caller(request: web.Request) -> Identity:
    resource = request.match_info.route.resource
    if PASS in request.query and resource is not None and resource.canonical in PASSABLE:
        return await with_pass(request)
    return await request.app[ACCESS].who(token_in(request), request)


async def with_pass(request: web.Request) -> Identity:
    """Who comes with a pass to a stream. Raises `Unauthorized`, and `UnknownJob` for a stream it is not good for."""
    request[PASSED] = True
    who = await request.app[ACCESS].who_has(request.query[PASS], request)
    many = request.match_info.route.resource is not None and request.path == "/api/v1/stream"
    if not many and not who.watches(request.match_info.get("job_id")):
        raise UnknownJob
    return who
