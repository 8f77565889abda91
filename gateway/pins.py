"""Pins over HTTP: `GET` and `POST /api/v1/jobs/{id}/pin`. A pinned job is kept, whatever retention says."""

from typing import Annotated

from aiohttp import web
from pydantic import StringConstraints

from events.acts import By
from events.clock import rfc3339
from events.errors import JobArchived
from events.holds import REASON_CHARS_MAX
from events.values import encode
from gateway.addresses import address_of
from gateway.bodies import checked, read_object
from gateway.deps import DEPS, identify
from gateway.jobs import answer, row_of
from gateway.problems import Problem
from gateway.queries import Query
from gateway.schemas import Body


class PinBody(Body):
    """`POST …/pin`: keeps the job, or with `pinned` false lets retention have it."""

    pinned: bool = True
    reason: Annotated[str, StringConstraints(min_length=1, max_length=REASON_CHARS_MAX)]


async def show(request: web.Request) -> web.Response:
    """Whether the job is pinned, and by whom."""
    Query(request)
    row = await row_of(request)
    return await _told(request, row.job.id)


async def change(request: web.Request) -> web.Response:
    """Pins or unpins. 409 for a job that retention took out already."""
    body = checked(PinBody, await read_object(request))
    row, who = await row_of(request), identify(request)
    deps = request.app[DEPS]
    if deps.retention is None:
        raise Problem(503, "unavailable", "Pins are kept nowhere here.")
    if await deps.log.archived([row.job.id]):
        raise JobArchived
    by = By(who.actor, address_of(request), body.reason)
    if body.pinned:
        await deps.retention.pin(row.job.id, row.job.tenant, by)
    else:
        await deps.retention.unpin(row.job.id, by)
    return await _told(request, row.job.id)


async def _told(request: web.Request, job_id: str) -> web.Response:
    retention = request.app[DEPS].retention
    pin = None if retention is None else await retention.pinned(job_id)
    if pin is None:
        return answer(encode({"pinned": False, "at": None, "actor": None, "address": None, "reason": None}))
    said = {"at": rfc3339(pin.at), "actor": pin.actor, "address": pin.address, "reason": pin.reason}
    return answer(encode({"pinned": True, **said}))
