"""Who is asking, and the login of the pages: a key in a cookie that scripts cannot read and other sites' pages cannot send.

The cookie is the key itself, so it ends when the key does. `gateway/access.py` takes it only from a page of this gateway.
"""

from typing import Annotated, Any

from aiohttp import web
from pydantic import StringConstraints

from events.values import encode
from gateway.access import ACCESS, COOKIE, Unauthorized, token_in
from gateway.bodies import checked, read_object
from gateway.deps import Identity
from gateway.jobs import answer
from gateway.queries import Query
from gateway.schemas import Body

KEY_CHARS_MAX = 4000  # a browser keeps cookies up to 4096 bytes, name and flags included
BODY_BYTES_MAX = 16 * 1024  # from anybody, so that many of them hold little


class Login(Body):
    """`POST /api/v1/session`."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=KEY_CHARS_MAX)]


async def show(request: web.Request) -> web.Response:
    """`GET /api/v1/session`: whether a key is asked for here, and who the request's is."""
    Query(request)
    access = request.app[ACCESS]
    try:
        who = await access.who(token_in(request), request)
    except Unauthorized:
        return answer(encode(_told(None, asks=access.asks)))
    return answer(encode(_told(who, asks=access.asks)))


async def begin(request: web.Request) -> web.Response:
    """`POST /api/v1/session`: keeps a good key in the browser until that is closed."""
    login = checked(Login, await read_object(request, bytes_max=BODY_BYTES_MAX))
    access = request.app[ACCESS]
    who = await access.who(login.key, request)
    response = answer(encode(_told(who, asks=access.asks)))
    if access.asks:
        secure = request.headers.get("Origin", "").startswith("https:")  # a proxy before us ended the TLS
        response.set_cookie(COOKIE, login.key, path="/", httponly=True, samesite="Strict", secure=secure)
    return response


async def end(request: web.Request) -> web.Response:
    """`DELETE /api/v1/session`: the browser forgets the key."""
    Query(request)
    response = answer(encode(_told(None, asks=request.app[ACCESS].asks)))
    response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")
    return response


def _told(who: Identity | None, *, asks: bool) -> dict[str, Any]:
    if who is None:
        return {"asks": asks, "tenant": None, "actor": None, "scopes": []}
    return {"asks": asks, "tenant": who.tenant, "actor": who.actor, "scopes": sorted(who.scopes)}
