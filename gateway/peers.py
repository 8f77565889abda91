"""TCP connections by where they come from: by such that send nothing one address could hold every file a process may open.

Counted are all of them, those of streams too, when they are made and when they are gone: requests cost nothing for it.
Not counted are those of this machine, and of proxies a setting trusts: for whom a proxy connects is said by requests,
and a connection that sends none says nothing. How many of those it makes is the proxy's to bound.

All of them together are bounded too, below the limit of open files: a process that has none left reaches neither its
database nor RabbitMQ. Over that bound a connection is answered 503 and closed, without waiting for its request.
"""

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from aiohttp import web

from events.telemetry import GatewayMetrics
from gateway.addresses import Network, parsed, within
from gateway.limits import client_of
from gateway.problems import Problem

KEPT = 50  # connections beyond the bound of all, of this machine and trusted proxies: probes, metrics, operators
AGAIN_S = 5  # until somebody who found no room should ask again


def counted_as(trusted: tuple[Network, ...]) -> Callable[[str], str | None]:
    """Which client the peer of a connection is; None for one that is not counted."""

    def client(host: str) -> str | None:
        address = parsed(host)
        return None if address is None or within(address, trusted) else client_of(str(address))

    return client


class Peers:
    """The connections of one process. `most` of a client may be open, and `most_in_all` of all, 0 is no limit; more are closed
    at once."""

    def __init__(
        self, most: int, client: Callable[[str], str | None], metrics: GatewayMetrics, most_in_all: int = 0
    ) -> None:
        self.open: dict[str, int] = {}  # by client; only clients with some
        self.in_all = 0
        self._most = most
        self._most_in_all = most_in_all
        self._client = client
        self._refused = metrics.limited.labels("tcp_connections")
        self._full = metrics.refused.labels("tcp_connections")
        metrics.tcp_connections.set_function(lambda: self.in_all)

    def site(self, runner: web.BaseRunner, host: str, port: int, **handling: Any) -> "PeersSite":
        """What listens for a runner that is set up. `handling` are aiohttp's settings of a connection."""
        return PeersSite(self, runner, host, port, handling)

    def enter(self, transport: asyncio.BaseTransport) -> str | None:
        """Counts a connection; as whose is to be given to `leave`. Raises `TooMany`, or `Full`."""
        name = transport.get_extra_info("peername")
        client = self._client(name[0]) if isinstance(name, tuple) else None
        count = self.open.get(client, 0) if client is not None else 0
        if self._most and count >= self._most:
            self._refused.inc()
            raise TooMany
        if self._most_in_all and self.in_all >= self._most_in_all + (KEPT if client is None else 0):
            self._full.inc()
            raise Full
        if client is not None:
            self.open[client] = count + 1
        self.in_all += 1
        return client

    def leave(self, client: str | None) -> None:
        """It is gone."""
        self.in_all -= 1
        if client is not None:
            self.open[client] -= 1
            if not self.open[client]:
                del self.open[client]


class TooMany(Exception):
    """A client has as many connections as it may."""


class Full(Exception):
    """There are as many connections as there may be."""


class _Peer(web.RequestHandler):
    """aiohttp's own, which never hears of a connection that is one too many."""

    __slots__ = ("_client", "_entered", "_peers")

    def __init__(self, peers: Peers, server: web.Server, **handling: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **handling)
        self._peers = peers
        self._client: str | None = None
        self._entered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        try:
            self._client = self._peers.enter(transport)
        except TooMany:
            transport.close()
            return
        except Full:
            assert isinstance(transport, asyncio.WriteTransport)
            transport.write(_no_room())
            transport.close()
            return
        self._entered = True
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._entered:
            self._entered = False
            self._peers.leave(self._client)
            super().connection_lost(exc)


class PeersSite(web.BaseSite):
    """`web.TCPSite`, whose connections are counted."""

    __slots__ = ("_handling", "_host", "_peers", "_port")

    def __init__(self, peers: Peers, runner: web.BaseRunner, host: str, port: int, handling: dict[str, Any]) -> None:
        super().__init__(runner)
        self._peers = peers
        self._host = host
        self._port = port
        self._handling = handling

    @property
    def name(self) -> str:
        return f"tcp {self._host}:{self._port}"

    def peer(self) -> web.RequestHandler:
        """What serves one connection."""
        server = self._runner.server
        assert server is not None, "the runner is set up first"
        return _Peer(self._peers, server, **self._handling)

    async def start(self) -> None:
        await super().start()
        self._server = await asyncio.get_running_loop().create_server(
            self.peer, self._host, self._port, backlog=self._backlog
        )


@lru_cache
def _no_room() -> bytes:
    """An answer nobody asked for yet: whatever is asked, it would be this."""
    detail = "This gateway has as many connections as it may. Try again."
    answer = Problem(503, "full", detail, headers={"Retry-After": str(AGAIN_S), "Connection": "close"}).response()
    body = answer.body
    assert isinstance(body, bytes)
    lines = [f"{name}: {value}" for name, value in answer.headers.items()] + [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(["HTTP/1.1 503 Service Unavailable", *lines]).encode() + body
