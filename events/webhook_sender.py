"""Sends webhooks: one request on a connection of its own, to an address that was judged, with bounds on everything.

No redirect is followed, no proxy of the environment used, no cookie kept, no body read. The certificate is that of the
host in the URL, whatever address its name led to.
"""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from events.clock import monotonic
from events.webhook_url import Rules
from events.webhooks import RETRY_AFTER_MAX_S, Answer, Failure

HEAD_BYTES_MAX = 8 * 1024  # a line of the answer's head; there are at most 128


class NotAllowed(OSError):
    """The address is not one a webhook may go to."""


class Sender:
    """Holds no connection between two requests."""

    def __init__(self, session: aiohttp.ClientSession, timeout_s: float) -> None:
        self._session = session
        self._timeout_s = timeout_s

    async def send(self, url: str, headers: Mapping[str, str], body: str) -> Answer:
        """Posts; never raises for what a receiver does."""
        began = monotonic()
        answer = await self._answer(url, headers, body.encode())
        return Answer(answer.status, answer.failure, answer.retry_after_s, int((monotonic() - began) * 1000))

    async def _answer(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._session.post(
                    url, data=body, headers={"Content-Type": "application/json", **headers}, allow_redirects=False
                ) as answer,
            ):
                answer.close()  # what it says besides is not wanted
                return Answer(answer.status, retry_after_s=_retry_after_s(answer.headers.get("Retry-After")))
        except TimeoutError:
            return Answer(failure="timeout")
        except (aiohttp.ClientError, OSError, ValueError) as failure:
            return Answer(failure=_word_for(failure))


@asynccontextmanager
async def sender(rules: Rules, timeout_s: float, at_once: int, agent: str) -> AsyncIterator[Sender]:
    """A sender for the block; so many names are looked up at once."""

    def made(info: Any) -> socket.socket:
        # Here, and not where names are looked up: whatever led here, this is the address.
        family, kind, protocol, _, address = info
        if not rules.allows(str(address[0])):
            raise NotAllowed("not an address a webhook may go to")
        return socket.socket(family, kind, protocol)

    threads = ThreadPoolExecutor(at_once, "webhook-names")
    connector = aiohttp.TCPConnector(
        limit=at_once, force_close=True, use_dns_cache=False, resolver=_Names(threads), socket_factory=made
    )
    try:
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": agent},
            skip_auto_headers={"Accept-Encoding"},
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            trust_env=False,
            auto_decompress=False,
            read_bufsize=HEAD_BYTES_MAX,
            max_line_size=HEAD_BYTES_MAX,
            max_field_size=HEAD_BYTES_MAX,
        ) as session:
            yield Sender(session, timeout_s)
    finally:
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
