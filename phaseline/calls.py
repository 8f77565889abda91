"""Calls of the API: one answer or one error each, repeated within a limit where that is safe."""

import asyncio
import hashlib
import os
import random
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from events.values import decode, encode
from phaseline.backoff import Backoff
from phaseline.client_errors import Busy, ClientError, Corrupt, NotReachable, problem_of

CONNECT_S = 5.0
CHUNK_BYTES = 128 * 1024


class Calls:
    """The connections to one gateway, or to a load balancer before many, made when first needed."""

    def __init__(self, base_url: str, headers: Mapping[str, str], timeout_s: float) -> None:
        self.base_url = base_url
        self._headers = headers
        self._timeout_s = timeout_s
        self._opened: aiohttp.ClientSession | None = None
        self._answered = False  # there is a server at this URL, though it may be away

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            connecting = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
            self._opened = aiohttp.ClientSession(headers=self._headers, timeout=connecting)
        return self._opened

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    async def object(self, method: str, path: str, **asked: Any) -> dict[str, Any]:
        """The JSON object of an answer."""
        try:
            answer = decode(await self.body(method, path, **asked))
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ClientError(f"{self.base_url}{path} did not answer with a JSON object; is it a Phaseline server?")
        return answer

    async def body(self, method: str, path: str, *, repeatable: bool = True, **asked: Any) -> bytes:
        """The bytes of an answer. Raises `Problem`, `NotReachable`."""
        backoff = Backoff(random.SystemRandom().random)
        failure: ClientError | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    try:
                        async with self._answer(method, path, **asked) as response:
                            return await response.read()
                    except (Busy, _Broken) as problem:
                        failure = problem if isinstance(problem, Busy) else NotReachable(self.base_url, problem)
                        if not repeatable:
                            raise failure from problem
                        hint_s = problem.retry_after_s if isinstance(problem, Busy) else None
                        await asyncio.sleep(backoff.next_s(hint_s))
        except TimeoutError as late:
            raise failure or NotReachable(self.base_url, f"no answer within {self._timeout_s:g} s") from late

    async def download(self, ref: Mapping[str, Any], path: Path) -> int:
        """Writes what `ref` refers to, whole and checked, to `path`. Begins again when the connection breaks, until
        nothing arrived for the limit of a call."""
        backoff = Backoff(random.SystemRandom().random)
        arriving = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout_s
        try:
            while True:
                try:
                    digest, size = hashlib.sha256(), 0
                    async with self._answer("GET", ref["url"], read_s=self._timeout_s) as response:
                        with arriving.open("wb") as file:
                            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                                size += file.write(chunk)
                                digest.update(chunk)
                                until = loop.time() + self._timeout_s
                except (Busy, _Broken) as problem:
                    if loop.time() > until:
                        raise (
                            problem if isinstance(problem, Busy) else NotReachable(self.base_url, problem)
                        ) from problem
                    await asyncio.sleep(backoff.next_s(problem.retry_after_s if isinstance(problem, Busy) else None))
                    continue
                if digest.hexdigest() != ref["sha256"]:
                    raise Corrupt(f"{ref['url']} has the SHA-256 {digest.hexdigest()}, not {ref['sha256']}")
                arriving.replace(path)
                return size
        finally:
            with suppress(FileNotFoundError):
                arriving.unlink()

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        read_s: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Sends a request once; its answer, if that is below 400, for the block. Raises `_Broken` also when it breaks in
        the block. `read_s` bounds the silence between two pieces."""
        content = None if body is None else encode(body)
        sent = {"Accept": "application/json", **(headers or {})}
        if content is not None:
            sent["Content-Type"] = "application/json"
        try:
            async with self.session.request(
                method,
                self.base_url + path,
                params=query,
                data=content,
                headers=sent,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=read_s),
            ) as response:
                self._answered = True
                if response.status >= 400:
                    raise problem_of(response.status, await response.read(), response.headers)
                yield response
        except aiohttp.ClientConnectorError as nobody:
            if self._answered:
                raise _Broken(_said(nobody.os_error)) from nobody
            raise NotReachable(self.base_url, _said(nobody.os_error)) from nobody
        except aiohttp.InvalidURL as nonsense:
            raise ClientError(f"{self.base_url} is no URL such as http://127.0.0.1:8000") from nonsense
        except (aiohttp.ClientError, ConnectionError) as broken:
            raise _Broken(str(broken) or type(broken).__name__) from broken


class _Broken(Exception):
    """There was no answer, and the request may have been sent: its outcome is unknown."""


def given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


def _said(failure: OSError) -> str:
    """What the system says of it: asyncio's own text repeats the address."""
    if failure.errno and failure.errno > 0:
        return os.strerror(failure.errno)
    return failure.strerror or str(failure)
