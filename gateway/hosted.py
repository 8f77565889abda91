"""A WebSocket whose key is looked at again as long as it is open: it ends with 4401, or goes on with a newer one."""

from aiohttp import web

from events.errors import Unavailable
from gateway.access import ACCESS, Guest, Unauthorized
from gateway.commands import Auth, BadCommand, command_of
from gateway.connection import Connection, Ending, Talk
from gateway.deps import Identity
from gateway.problems import Problem

MANY = "/api/v1/stream"


class Hosted:
    """A talk, as long as the key is good. `{"op": "auth"}` on the socket brings another key of the same tenant."""

    __slots__ = ("_request", "_talk", "_who")

    def __init__(self, request: web.Request, who: Identity, talk: Talk) -> None:
        self._request = request
        self._who = who
        self._talk = talk

    async def __call__(self, connection: Connection) -> Ending:
        request, who, access = self._request, self._who, self._request.app[ACCESS]
        connection.tenant = who.tenant
        with access.hosting(who, connection.lose_key) as guest:
            if access.asks:
                connection.on_auth = lambda text: _renew(request, who, guest, connection, text)
            return await self._talk(connection)


def _renew(request: web.Request, who: Identity, guest: Guest, connection: Connection, text: str) -> None:
    try:
        command = command_of(text)
    except BadCommand:
        return
    if not isinstance(command, Auth):
        return
    token = command.token

    async def judge() -> None:
        try:
            newer = await request.app[ACCESS].who(token, request)
        except Unauthorized as no:
            raise Ending(4401, no.detail) from None
        except Problem as no:  # 429
            raise Ending(4429, f"retry_after={no.headers['Retry-After']}") from None
        except Unavailable:
            raise Ending(1013, "this cannot be judged now") from None
        # The feed of an operator shows what others are not shown.
        lesser = request.path == MANY and who.may("admin") and not newer.may("admin")
        if newer.tenant != who.tenant or not newer.may("read") or lesser:
            raise Ending(4403, "this key is not good for this stream")
        guest.who = newer

    connection.aside(judge())
