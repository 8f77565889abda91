"""Sends webhooks: to an address that was judged, with bounds on everything.

No redirect is followed, no proxy of the environment used, no cookie kept, no body read. The certificate is that of the
host in the URL, whatever address its name led to.

A connection is kept for what its lane (a tenant and a host) is sent next, and for nothing else. It leads where it led when its
address was judged. Whatever is not taken ends all connections of its lane, and so does their age: then the name is looked up
again. Of those that are kept there are never more than places.
"""

import asyncio
import re
import socket
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from events.clock import monotonic
from events.webhook_url import Rules
from events.webhooks import RETRY_AFTER_MAX_S, Answer, Failure

HEAD_BYTES_MAX = 8 * 1024  # a line of the answer's head; there are at most 128
KEPT_S = 30.0  # a lane's connections, from the first; so long a name that leads elsewhere may go unnoticed
IDLE_S = 4.0  # unused ones are closed between this and twice as long; many a receiver closes them after 5 s


class NotAllowed(OSError):
    """The address is not one a webhook may go to."""


class _Kept:
    """The connections of one lane: as many as requests were under way at once, since none is made while one is unused."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.until = monotonic() + KEPT_S
        self.using = 0
        self.most = 0


@dataclass(slots=True)
class _Request:
    """`reuses`: it went out on a connection that was kept."""

    reuses: bool = False


class Sender:
    """Owns the connections."""

    def __init__(self, session: Callable[[], aiohttp.ClientSession], timeout_s: float, places: int) -> None:
        self._session = session
        self._timeout_s = timeout_s
        self._places = places
        self._kept: OrderedDict[str, _Kept] = OrderedDict()  # by lane; the one used last is last
        self._ended: list[_Kept] = []  # for no further request: whoever uses them last closes them

    async def send(self, lane: str, url: str, headers: Mapping[str, str], body: str) -> Answer:
        """Posts; never raises for what a receiver does."""
        began = monotonic()
        answer = await self._answer(lane, url, {"Content-Type": "application/json", **headers}, body.encode())
        return Answer(answer.status, answer.failure, answer.retry_after_s, int((monotonic() - began) * 1000))

    async def close(self) -> None:
        """Nothing is sent any more."""
        await asyncio.gather(*map(_closed, [*self._kept.values(), *self._ended]))

    async def _answer(self, lane: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        request = _Request()
        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    return await self._post(lane, url, headers, body, request)
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                    if not request.reuses:
                        raise
                # Closed as it was used: no sign of a receiver that fails. It may have been taken: at least once, under one id.
                return await self._post(lane, url, headers, body, request)
        except TimeoutError:
            return Answer(failure="timeout")
        except (aiohttp.ClientError, OSError, ValueError) as failure:
            return Answer(failure=_word_for(failure))

    async def _post(self, lane: str, url: str, headers: Mapping[str, str], body: bytes, request: _Request) -> Answer:
        async with (
            self._connections(lane) as kept,
            kept.session.post(
                url, data=body, headers=headers, allow_redirects=False, trace_request_ctx=request
            ) as response,
        ):
            answer = Answer(response.status, retry_after_s=_retry_after_s(response.headers.get("Retry-After")))
            response.close()  # ends the connection, unless all it says has come: that is not wanted, and not waited for
            if not answer.good:
                self._end(lane, kept)
            return answer

    @asynccontextmanager
    async def _connections(self, lane: str) -> AsyncIterator[_Kept]:
        """Those of a lane, for a request. When it fails they are for no other."""
        kept = self._of(lane)
        kept.using += 1
        kept.most = max(kept.most, kept.using)
        while len(self._kept) > 1 and sum(one.most for one in self._kept.values()) > self._places:
            self._end(*next(iter(self._kept.items())))
        try:
            await self._close_ended()
            yield kept
        except BaseException:
            self._end(lane, kept)
            raise
        finally:
            kept.using -= 1
            await self._close_ended()

    def _of(self, lane: str) -> _Kept:
        kept = self._kept.get(lane)
        if kept is not None and monotonic() >= kept.until:
            self._end(lane, kept)
            kept = None
        if kept is None:
            kept = self._kept[lane] = _Kept(self._session())
        self._kept.move_to_end(lane)
        return kept

    def _end(self, lane: str, kept: _Kept) -> None:
        if self._kept.get(lane) is kept:
            self._ended.append(self._kept.pop(lane))

    async def _close_ended(self) -> None:
        while (unused := next((kept for kept in self._ended if not kept.using), None)) is not None:
            self._ended.remove(unused)
            await _closed(unused)


async def _closed(kept: _Kept) -> None:
    """Closes connections. What a receiver has not read yet is not waited for: others would wait with it."""
    with suppress(TimeoutError):
        async with asyncio.timeout(0):
            await kept.session.close()


@asynccontextmanager
async def sender(rules: Rules, timeout_s: float, at_once: int, agent: str) -> AsyncIterator[Sender]:
    """A sender for the block; so many names are looked up at once."""

    def judged(info: Any) -> socket.socket:
        # Here, and not where names are looked up: whatever led here, this is the address.
        family, kind, protocol, _, address = info
        if not rules.allows(str(address[0])):
            raise NotAllowed("not an address a webhook may go to")
        made = socket.socket(family, kind, protocol)
        if sys.platform == "linux":  # what a receiver does not read would stay as long as it likes, closed or not
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout_s * 1000))
        return made

    async def reused(
        _: aiohttp.ClientSession, context: SimpleNamespace, __: aiohttp.TraceConnectionReuseconnParams
    ) -> None:
        context.trace_request_ctx.reuses = True

    threads = ThreadPoolExecutor(at_once, "webhook-names")
    names = _Names(threads)
    tracing = aiohttp.TraceConfig()
    tracing.on_connection_reuseconn.append(reused)

    def session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=at_once, keepalive_timeout=IDLE_S, use_dns_cache=False, resolver=names, socket_factory=judged
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": agent},
            skip_auto_headers={"Accept-Encoding"},
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            trust_env=False,
            auto_decompress=False,
            read_bufsize=HEAD_BYTES_MAX,
            max_line_size=HEAD_BYTES_MAX,
            max_field_size=HEAD_BYTES_MAX,
            trace_configs=[tracing],
        )

    sends = Sender(session, timeout_s, at_once)
    try:
        yield sends
    finally:
        await sends.close()
        threads.shutdown(wait=False, cancel_futures=True)


class _Names(AbstractResolver):
    """The system's resolver on threads of its own: names that are slow to look up hold up no other part of the process."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        look_up = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol, flags=numeric)
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """The threads are ended by who made them."""


def _word_for(failure: Exception) -> Failure:
    """No host, no address: whoever named the URL learns nothing of the network behind it."""
    if isinstance(failure, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError):
        return "tls"
    cause = getattr(failure, "os_error", failure)
    if isinstance(cause, NotAllowed):
        return "address_not_allowed"
    if isinstance(failure, aiohttp.ClientConnectorDNSError) or isinstance(cause, socket.gaierror):
        return "name_not_found"
    return "not_connected" if isinstance(failure, aiohttp.ClientConnectorError) else "broken"


def _retry_after_s(text: str | None) -> float | None:
    if text is None or not re.fullmatch(r"[0-9]{1,9}", text):
        return None
    return min(float(text), RETRY_AFTER_MAX_S)
