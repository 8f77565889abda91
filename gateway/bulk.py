"""`POST /api/v1/bulk`: cancel, retry or rerun every job a query finds; counted first, done only when confirmed.

The first call changes nothing and says how many jobs it would be, with a `confirm` for exactly this. The second does the
first hundred, or as many as the client's limits leave room for, and gives the `next` confirm, until that is null. A confirm names the newest job that counts and where it
stands, so jobs made meanwhile are left alone and a repeated call does no job twice. It is a safety catch, not a secret.
"""

import asyncio
import base64
import hashlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from events.catalog import Cancel, Reopen
from events.clock import LATEST_MS, rfc3339
from events.committer import new_command_id
from events.errors import Refused
from events.values import encode
from gateway.access import permit
from gateway.addresses import address_of
from gateway.bodies import Asked, checked, read_object
from gateway.deps import DEPS, Identity, identify
from gateway.jobs import JOB_ID, answer
from gateway.limits import LIMITER, Room
from gateway.problems import Problem, invalid
from gateway.reruns import again
from gateway.schemas import BulkBody, RerunBody
from gateway.search import Search, search_of
from gateway.submissions import let_in, replayed

JOBS_MAX = 10_000  # a query that finds more must be narrowed
AT_ONCE = 50  # commands waiting for the committer, which batches them
CONFIRM_MS = 10 * 60_000
ELIGIBLE = {
    "cancel": ("queued", "running"),
    "retry": ("failed", "cancelled"),
    "rerun": ("queued", "running", "completed", "failed", "cancelled"),
}


_JobId = Annotated[str, StringConstraints(pattern=rf"^{JOB_ID.pattern}$")]
_Ms = Annotated[int, Field(ge=0, le=LATEST_MS)]


class Confirm(BaseModel):
    """What was counted, and how far it is done: jobs up to `up_to` and before `before`."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)

    asked: str
    nonce: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
    at: _Ms
    count: Annotated[int, Field(ge=1, le=JOBS_MAX)]
    created_after: _Ms | None
    up_to: _JobId
    before: _JobId | None = None

    def text(self) -> str:
        """As clients are given it."""
        return base64.urlsafe_b64encode(self.model_dump_json().encode()).decode().rstrip("=")

    @classmethod
    def of(cls, text: str) -> "Confirm":
        """Raises the 422."""
        try:
            return cls.model_validate_json(
                base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            )
        except ValueError:  # binascii's and pydantic's too
            raise invalid([("confirm", "is not one this service gave out")]) from None


async def bulk(request: web.Request) -> web.Response:
    """Counts, or does what was confirmed."""
    body = checked(BulkBody, await read_object(request))
    permit(identify(request), "cancel" if body.action == "cancel" else "submit")
    now_ms = request.app[DEPS].clock.now_ms()
    try:
        search = search_of(body.q, now_ms)
    except Problem as wrong:
        raise invalid(wrong.errors) from None
    if search.empty:
        raise invalid([("q", "must name a status, an engine, a tag or an age")])
    wanted = tuple(status for status in ELIGIBLE[body.action] if not search.status or status in search.status)
    asked = hashlib.sha256(encode(body.model_dump(exclude={"confirm", "limit"}, mode="json"))).hexdigest()
    if body.confirm is None:
        return await _counted(request, body, replace(search, status=wanted), asked, now_ms, nothing=not wanted)
    confirm = Confirm.of(body.confirm)
    if confirm.asked != asked:
        raise invalid([("confirm", "is for another query or action; count again")])
    if abs(now_ms - confirm.at) > CONFIRM_MS:  # another gateway's clock may be ahead of this one's
        raise invalid([("confirm", "is over 10 minutes old; count again")])
    search = replace(search, status=wanted, created_after=confirm.created_after)
    return await _done(request, body, search, confirm, now_ms)


async def _counted(
    request: web.Request, body: BulkBody, search: Search, asked: str, now_ms: int, *, nothing: bool
) -> web.Response:
    up_to = request.app[DEPS].committer.new_job_id()
    query = replace(search.query(identify(request).tenant, JOBS_MAX + 1), up_to=up_to)
    count = 0 if nothing else await request.app[DEPS].log.count(query)
    if count > JOBS_MAX:
        raise invalid([("q", f"finds over {JOBS_MAX} jobs; narrow it, such as with created_after")])
    confirm = count and Confirm(
        asked=asked,
        nonce=secrets.token_hex(8),
        at=now_ms,
        count=count,
        created_after=search.created_after,
        up_to=up_to,
    )
    return answer(
        encode(
            {
                "action": body.action,
                "q": body.q,
                "count": count,
                "confirm": confirm.text() if confirm else None,
                "expires_at": rfc3339(now_ms + CONFIRM_MS),
            }
        )
    )


async def _done(request: web.Request, body: BulkBody, search: Search, confirm: Confirm, now_ms: int) -> web.Response:
    """Does as many as there is room for; of none it is the 429."""
    query = search.query(identify(request).tenant, body.limit + 1)
    ids = await request.app[DEPS].log.job_ids(replace(query, up_to=confirm.up_to, before=confirm.before))
    jobs, tenant = min(len(ids), body.limit), identify(request).tenant
    with request.app[LIMITER].waiting(request, tenant, min(jobs, AT_ONCE)):
        async with _room(request, body, jobs) as room:
            page = ids[: room.jobs]
            changed, refused = await _each(page, _act(request, body, confirm))
    further = confirm.model_copy(update={"before": page[-1], "at": now_ms}) if len(ids) > len(page) else None
    return answer(
        encode(
            {
                "action": body.action,
                "count": confirm.count,
                "jobs": changed,
                "refused": refused,
                "next": further.text() if further else None,
            }
        ),
        headers={"Retry-After": str(room.retry_after_s)} if room.retry_after_s else None,
    )


@asynccontextmanager
async def _room(request: web.Request, body: BulkBody, jobs: int) -> AsyncIterator[Room]:
    """For what is to be made or queued within the block."""
    who, limiter = identify(request), request.app[LIMITER]
    if body.action == "cancel" or not jobs:
        yield Room(jobs)
    elif body.action == "retry":
        async with limiter.queueing(who.tenant, jobs) as room:
            yield room
    else:
        async with limiter.submits(request, who.tenant, who.actor, jobs) as room:
            yield room


Act = Callable[[str], Awaitable[str]]


async def _each(job_ids: list[str], act: Act) -> tuple[list[str], list[dict[str, Any]]]:
    """The ids of what was changed or made, and why others were not. An outage ends it: the caller repeats the call."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(job_id: str) -> str | dict[str, Any]:
        async with turns:
            try:
                return await act(job_id)
            except (Refused, Problem) as refusal:
                if isinstance(refusal, Problem) and refusal.status >= 500:
                    raise
                return {"job_id": job_id, "detail": str(refusal)}

    done = await asyncio.gather(*map(one, job_ids), return_exceptions=True)  # all end before any is told
    if failure := next((each for each in done if isinstance(each, BaseException)), None):
        raise failure
    return [each for each in done if isinstance(each, str)], [each for each in done if isinstance(each, dict)]


def _act(request: web.Request, body: BulkBody, confirm: Confirm) -> Act:
    who = identify(request)
    match body.action:
        case "cancel":
            return lambda job_id: _cancel(request, who, job_id, body)
        case "retry":
            return lambda job_id: _retry(request, who, job_id, body)
        case "rerun":
            return lambda job_id: _rerun(request, job_id, body, confirm)


async def _cancel(request: web.Request, who: Identity, job_id: str, body: BulkBody) -> str:
    command = Cancel(
        command_id=new_command_id(),
        actor=who.actor,
        grace_s=body.grace_s,
        reason=body.reason,
        address=address_of(request),
    )
    await request.app[DEPS].committer.execute(job_id, command, tenant=who.tenant)
    return job_id


async def _retry(request: web.Request, who: Identity, job_id: str, body: BulkBody) -> str:
    command = Reopen(command_id=new_command_id(), actor=who.actor, reason=body.reason, address=address_of(request))
    await request.app[DEPS].committer.execute(job_id, command, tenant=who.tenant)
    return job_id


async def _rerun(request: web.Request, job_id: str, body: BulkBody, confirm: Confirm) -> str:
    key = hashlib.sha256(f"bulk {confirm.nonce} {job_id}".encode()).hexdigest()
    ask = Asked(key, hashlib.sha256(f"{confirm.asked} {job_id}".encode()).hexdigest())
    made = await replayed(request, ask)
    if made is None:
        engine, draft = await again(request, job_id, RerunBody(from_phase=body.from_phase))
        made, _ = await let_in(request, engine, draft, ask)
    return made.job.id
