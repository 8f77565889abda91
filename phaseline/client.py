"""The Python client: `async with Client("http://127.0.0.1:8000") as phaseline: …`.

Jobs, events and engines are the JSON objects of docs/protocol.md, as dicts. Every call ends within `timeout_s` with an
answer or an exception of `phaseline.client_errors`. A call that may be repeated (reads, cancels, and whatever makes a
job, since each carries an Idempotency-Key) is repeated within that limit when the connection breaks or the server asks
to come back later.
"""

import asyncio
import os
import random
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import aiohttp

from events.values import decode, encode
from phaseline.backoff import Backoff
from phaseline.client_errors import Busy, ClientError, NotReachable, problem_of
from phaseline.follow import Callback, Connection, Event, Follow

Job = dict[str, Any]
Engine = dict[str, Any]

TIMEOUT_S = 30.0
CONNECT_S = 5.0
PAGE = 500


class JobPage(NamedTuple):
    """Jobs, newest first, and the cursor of the next page, None after the last."""

    jobs: list[Job]
    cursor: str | None


class Client:
    """Talks to one gateway, or to a load balancer before many. Close it, or use it as a context manager."""

    def __init__(
        self, base_url: str = "http://127.0.0.1:8000", *, token: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout_s = timeout_s
        self._opened: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends every connection, those of running follows too."""
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    # -- jobs
    async def submit(
        self,
        engine: str,
        params: Mapping[str, Any] | None = None,
        *,
        priority: str | None = None,
        not_before: str | None = None,
        max_attempts: int | None = None,
        timeouts: Mapping[str, float | None] | None = None,
        tags: Sequence[str] = (),
        key: str | None = None,
    ) -> Job:
        """Makes a job. `not_before` is an RFC 3339 time; `timeouts` has start_s, attempt_s, total_s, stall_s.

        The same `key` with the same request gives the same job; without one each call makes its own.
        Raises `Invalid` naming the field, `NotFound` for an unknown engine.
        """
        asked = {
            "priority": priority,
            "not_before": not_before,
            "max_attempts": max_attempts,
            "timeouts": dict(timeouts) if timeouts else None,
            "tags": list(tags) or None,
        }
        body = {"engine": engine, "params": dict(params or {})} | _given(asked)
        return await self._make("/api/v1/jobs", body, key)

    async def job(self, job_id: str, *, at: int | None = None) -> Job:
        """The job now, or as of sequence `at`."""
        return await self._object("GET", _path(job_id), query=_given({"at": at}))

    async def jobs(
        self,
        *,
        status: Sequence[str] = (),
        engine: str | None = None,
        tag: str | None = None,
        created_after: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> JobPage:
        """One page of jobs, newest first."""
        query = _given(
            {
                "status": ",".join(status) or None,
                "engine": engine,
                "tag": tag,
                "created_after": created_after,
                "cursor": cursor,
                "limit": limit,
            }
        )
        page = await self._object("GET", "/api/v1/jobs", query=query)
        return JobPage(page["jobs"], page.get("next_cursor"))

    async def events(self, job_id: str, after: int = 0, *, limit: int | None = None) -> AsyncIterator[Event]:
        """The recorded events after `after` up to the head, page by page; at most `limit`."""
        while limit is None or limit > 0:
            size = PAGE if limit is None else min(PAGE, limit)
            page = await self._object("GET", _path(job_id, "events"), query={"after": after, "limit": size})
            for event in page["events"]:
                yield event
                after = event["seq"]
            limit = None if limit is None else limit - len(page["events"])
            if not page["events"] or after >= page["head_seq"]:
                return

    async def results(self, job_id: str) -> bytes:
        """The exact JSON bytes of a job's result."""
        return await self._call("GET", _path(job_id, "results"))

    async def cancel(
        self, job_id: str, *, force: bool = False, grace_s: float | None = None, reason: str | None = None
    ) -> Job:
        """Asks a job to stop; with `force` it is cancelled at once. Raises `Conflict` when it ended otherwise."""
        body = _given({"mode": "force" if force else None, "grace_s": grace_s, "reason": reason})
        return await self._object("POST", _path(job_id, "cancel"), body=body)

    async def retry(self, job_id: str, *, reason: str | None = None) -> Job:
        """Tries a failed or cancelled job again under the same id. Raises `Conflict` for any other."""
        return await self._object("POST", _path(job_id, "retry"), body=_given({"reason": reason}), repeatable=False)

    async def rerun(
        self,
        job_id: str,
        *,
        from_phase: str | None = None,
        params: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> Job:
        """A new job with the params of this one, or others; `from_phase` reuses the phases recorded before it."""
        body = _given({"from_phase": from_phase, "params": None if params is None else dict(params)})
        return await self._make(_path(job_id, "rerun"), body, key)

    async def engines(self) -> list[Engine]:
        """What can run: name, version, summary, phases, JSON Schemas of params and result."""
        found: list[Engine] = (await self._object("GET", "/api/v1/engines"))["engines"]
        return found

    def follow(
        self,
        job_id: str,
        after: int = 0,
        *,
        epoch: str | None = None,
        on_event: Sequence[Callback] = (),
        on_connection: Callable[[Connection], None] | None = None,
        on_reset: Callable[[Job], None] | None = None,
        timeout_s: float | None = None,
    ) -> Follow:
        """Every event after `after`, then live ones until the job ends, across broken connections and restarts.

        Callbacks (plain or async) get each event before the loop does. One that raises is logged, the others and the
        stream go on. `on_reset` gets the job when the log does not know our sequence: drop what was built from it.
        After `timeout_s` seconds in all it raises `TimedOut`; the job itself goes on.
        """
        return Follow(
            self._session,
            self.base_url + _path(job_id, "stream"),
            after=after,
            epoch=epoch,
            on_event=on_event,
            on_connection=on_connection,
            on_reset=on_reset,
            timeout_s=timeout_s,
        )

    # -- calls
    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            connecting = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
            self._opened = aiohttp.ClientSession(headers=self._headers, timeout=connecting)
        return self._opened

    async def _make(self, path: str, body: dict[str, Any], key: str | None) -> Job:
        return await self._object("POST", path, body=body, headers={"Idempotency-Key": key or str(uuid.uuid4())})

    async def _object(self, method: str, path: str, **asked: Any) -> dict[str, Any]:
        try:
            answer = decode(await self._call(method, path, **asked))
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ClientError(f"{self.base_url}{path} did not answer with a JSON object; is it a Phaseline server?")
        return answer

    async def _call(self, method: str, path: str, *, repeatable: bool = True, **asked: Any) -> bytes:
        backoff = Backoff(random.SystemRandom().random)
        failure: ClientError | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    try:
                        return await self._once(method, path, **asked)
                    except (Busy, _Broken) as problem:
                        failure = problem if isinstance(problem, Busy) else NotReachable(self.base_url, problem)
                        if not repeatable:
                            raise failure from problem
                        hint_s = problem.retry_after_s if isinstance(problem, Busy) else None
                        await asyncio.sleep(backoff.next_s(hint_s))
        except TimeoutError as late:
            raise failure or NotReachable(self.base_url, f"no answer within {self._timeout_s:g} s") from late

    async def _once(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        content = None if body is None else encode(body)
        sent = {"Accept": "application/json", **(headers or {})}
        if content is not None:
            sent["Content-Type"] = "application/json"
        try:
            async with self._session.request(
                method, self.base_url + path, params=query, data=content, headers=sent, allow_redirects=False
            ) as response:
                answer = await response.read()
        except aiohttp.ClientConnectorError as nobody:
            raise NotReachable(self.base_url, _said(nobody.os_error)) from nobody
        except aiohttp.InvalidURL as nonsense:
            raise ClientError(f"{self.base_url} is no URL such as http://127.0.0.1:8000") from nonsense
        except (aiohttp.ClientError, OSError) as broken:
            raise _Broken(str(broken) or type(broken).__name__) from broken
        if response.status >= 400:
            raise problem_of(response.status, answer, response.headers)
        return answer


class _Broken(Exception):
    """The connection broke after the request may have been sent: its outcome is unknown."""


def _said(failure: OSError) -> str:
    """What the system says of it: asyncio's own text repeats the address."""
    if failure.errno and failure.errno > 0:
        return os.strerror(failure.errno)
    return failure.strerror or str(failure)


def _path(job_id: str, part: str = "") -> str:
    return f"/api/v1/jobs/{quote(job_id, safe='')}" + (f"/{part}" if part else "")


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
