"""`/api/v1/audit`: a tenant's administrative acts, its stored events held against their seals, and all of them for elsewhere.

A check sees what is the tenant's: the chain of each of its acts and jobs; and the chain of the whole log, of which others'
jobs are not named. That a job is gone with its row and with what sealed it shows there. What only somebody at the
database can see (jobs whose row alone is gone, anchors) is for `phaseline audit verify`.
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from aiohttp import web

from events import audit
from events.audit import AuditedLog
from events.errors import PhaselineError
from events.log import JobQuery, Log
from events.seal_check import ChainCheck, Finding
from events.values import encode
from gateway.compression import Packing
from gateway.delivery import Stalled, cut, write
from gateway.deps import DEPS, identify
from gateway.job_events import NDJSON, PAGE_MAX
from gateway.jobs import JOB_ID, answer
from gateway.problems import Problem, bad_parameter
from gateway.queries import Query
from gateway.sockets import SOCKETS, crowded
from gateway.turns import Turns

ACTS_DEFAULT = 50
IDS_PAGE = 200
EVENTS_MAX = 50_000  # of one check, and the job it is at; then a client goes on with the cursor
FINDINGS_MAX = 200  # of one check, as well
SECONDS_MAX = 20.0  # likewise
PROGRESS_S = 0.5
TURNS = web.AppKey("audit_turns", Turns)
BUSY_S = 5
_TOTALS = ("seals", "acts", "jobs", "events", "unsealed", "erased", "unread", "findings")
_UUID = JOB_ID.pattern
_CURSOR = re.compile(rf"(seal)\.(\d{{1,18}})|(act|job|archived)\.({_UUID})?")

log = logging.getLogger(__name__)
Say = Callable[[Mapping[str, Any]], Awaitable[None]]


async def acts(request: web.Request) -> web.Response:
    """`GET /api/v1/audit`: newest first."""
    query = Query(request, "cursor", "limit")
    limit = query.number("limit", ACTS_DEFAULT, least=1, most=PAGE_MAX)
    cursor = query.text("cursor")
    if cursor is not None and not JOB_ID.fullmatch(cursor):
        raise bad_parameter("cursor", "is not one this service gave out")
    found = await _log(request).acts(identify(request).tenant, cursor, limit)
    following = found[-1].job_id if len(found) == limit else None
    tail = b'],"next_cursor":%s}' % encode(following)
    return answer(b'{"events":[' + b",".join(one.line() for one in found) + tail)


async def check(request: web.Request) -> web.StreamResponse:
    """`GET /api/v1/audit/check`: progress, findings as they are found, and where to go on."""
    cursor = Query(request, "cursor").text("cursor")
    if cursor is not None and not _CURSOR.fullmatch(cursor):
        raise bad_parameter("cursor", "is not one this service gave out")
    told = _Check(_log(request), request.app[DEPS].log, identify(request).tenant, cursor or "seal.0")
    return await _lines(request, told.run)


async def export(request: web.Request) -> web.StreamResponse:
    """`GET /api/v1/audit/export`: as `phaseline audit export`, of the tenant, in one file whose last line says that it is whole."""
    Query(request)
    store, jobs, tenant = _log(request), request.app[DEPS].log, identify(request).tenant

    async def every(say: Say) -> None:
        last = await store.last_seal()
        counts = {"events": 0, "sealed": 0}
        for ids in (_acts(store, tenant, None), _jobs(jobs, tenant, None), _archived(store, tenant, None)):
            async for stream_id in ids:
                async for stored in store.stored(stream_id):
                    counts["events"] += 1
                    await say({"kind": "event", **audit.event_line(stored)})
                async for one in store.ranges(last.no if last else 0, stream_id):
                    counts["sealed"] += 1
                    await say({"kind": "sealed", **audit.seal_line(one)})
        await say({"kind": "end", **counts, "seal": {"no": last.no, "hash": last.hash.hex()} if last else None})

    named = {"Content-Disposition": 'attachment; filename="phaseline-audit.ndjson"'}
    return await _lines(request, every, Packing(request), named)


def _log(request: web.Request) -> AuditedLog:
    found = request.app[DEPS].audit
    if found is None:
        raise Problem(503, "unavailable", "This gateway keeps no audit.")
    return found


async def _lines(
    request: web.Request,
    work: Callable[[Say], Awaitable[None]],
    packing: Packing | None = None,
    more: Mapping[str, str] = MappingProxyType({}),
) -> web.StreamResponse:
    """NDJSON made by `work`, when there is a turn for it; unpacked each line arrives when it was said. What breaks off is cut, so that nobody takes it for whole."""
    sockets = request.app[SOCKETS]
    with request.app[TURNS].take(identify(request).tenant, lambda: cut(request)) as turn:
        if turn is None:
            busy = "Other checks or exports run at this gateway; try again."
            raise Problem(503, "busy", busy, headers={"Retry-After": str(BUSY_S)})
        if sockets.full:
            sockets.refused("connections")
            raise crowded()
        with sockets.counted("ndjson"):
            headers = {"Content-Type": NDJSON, "Cache-Control": "no-store", **more}
            headers |= packing.headers if packing else {}
            response = web.StreamResponse(headers=headers)
            await response.prepare(request)
            if request.method == "HEAD":
                return response

            async def send(body: bytes) -> None:
                with turn.waiting():
                    await write(request, response, body)

            async def say(line: Mapping[str, Any]) -> None:
                body = encode(line) + b"\n"
                await send(packing.part(body) if packing else body)

            try:
                await work(say)
                if packing:
                    await send(packing.end())
                await response.write_eof()
            except PhaselineError as outage:
                log.warning("an audit broke off: %s", outage)
                cut(request)
            except Stalled:
                log.info("an audit: its reader took nothing")
            return response


async def _acts(store: AuditedLog, tenant: str, before: str | None) -> AsyncIterator[str]:
    while page := await store.acts(tenant, before, IDS_PAGE):
        for one in page:
            yield one.job_id
        before = page[-1].job_id


async def _jobs(store: Log, tenant: str, before: str | None) -> AsyncIterator[str]:
    while page := await store.job_ids(JobQuery(tenant, before=before, limit=IDS_PAGE)):
        for job_id in page:
            yield job_id
        before = page[-1]


async def _archived(store: AuditedLog, tenant: str, before: str | None) -> AsyncIterator[str]:
    while page := await store.archived_of(tenant, before, IDS_PAGE):
        for one in page:
            yield one.job_id
        before = page[-1].job_id


@dataclass(slots=True)
class _Check:
    """One check, from a cursor until it is over or has done enough: the log's chain, then acts, jobs and those retention
    took out, newest first."""

    store: AuditedLog
    jobs: Log
    tenant: str
    cursor: str
    totals: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_TOTALS, 0))
    oldest_ms: int | None = None
    _known: set[Finding] = field(default_factory=set)  # each is told once
    _until: float = 0.0
    _said: float = 0.0

    async def run(self, say: Say) -> None:
        """Says everything."""
        loop = asyncio.get_running_loop()
        self._until = loop.time() + SECONDS_MAX
        over = True
        async with aclosing(self._parts()) as parts:
            async for findings in parts:
                for finding in dict.fromkeys(findings):
                    await self._tell(finding, say)
                if loop.time() >= self._said + PROGRESS_S:
                    self._said = loop.time()
                    await say({"type": "progress", **self.totals})
                if self._enough(loop.time()):
                    over = False
                    break
        done = {"complete": over, "next_cursor": None if over else self.cursor, "oldest_unsealed_ms": self.oldest_ms}
        await say({"type": "done", **self.totals, **done})

    async def _tell(self, finding: Finding, say: Say) -> None:
        if finding not in self._known:
            self._known.add(finding)
            self.totals["findings"] += 1
            await say({"type": "finding", **asdict(finding)})

    def _enough(self, now: float) -> bool:
        much = self.totals["events"] >= EVENTS_MAX or self.totals["findings"] >= FINDINGS_MAX
        return much or now >= self._until

    async def _parts(self) -> AsyncGenerator[list[Finding], None]:
        """Findings part by part, each time with the cursor behind it."""
        kind, _, place = self.cursor.partition(".")
        if kind == "seal":
            async for findings in self._chain(int(place)):
                yield findings
            kind, place = "act", ""
        if kind == "act":
            async for stream_id in _acts(self.store, self.tenant, place or None):
                yield await self._stream("act", stream_id)
            place = ""
        if kind != "archived":
            async for stream_id in _jobs(self.jobs, self.tenant, place or None):
                yield await self._stream("job", stream_id)
            place = ""
        async for stream_id in _archived(self.store, self.tenant, place or None):
            yield await self._stream("archived", stream_id)

    async def _chain(self, after: int) -> AsyncIterator[list[Finding]]:
        chain = ChainCheck()
        chain.last = await self.store.seal(after) if after else None
        last = await self.store.last_seal()
        async for seal, ranges in self.store.seals(after, last.no if last else 0):
            found = [await self._mine(finding) for finding in chain.take(seal, ranges)]
            self.totals["seals"] += 1
            self.cursor = f"seal.{seal.no}"
            yield found
        self.cursor = "act."

    async def _mine(self, finding: Finding) -> Finding:
        """Without the id of what is not the tenant's, or is gone."""
        if finding.job_id is None or await self.jobs.head(finding.job_id, self.tenant) is not None:
            return finding
        detail = f"{finding.detail}, of a job that is gone, or that is not of this tenant"
        return Finding(finding.what, detail, None, None, finding.seal)

    async def _stream(self, kind: str, stream_id: str) -> list[Finding]:
        report = await audit.verify(self.store, job_id=stream_id)
        self.totals["acts" if kind == "act" else "jobs"] += 1
        for name in ("events", "unsealed", "erased", "unread"):
            self.totals[name] += getattr(report, name)
        if report.oldest_unsealed_ms is not None:
            self.oldest_ms = max(self.oldest_ms or 0, report.oldest_unsealed_ms)
        self.cursor = f"{kind}.{stream_id}"
        return report.findings
