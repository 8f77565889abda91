"""Legal holds over HTTP: `GET` and `POST /api/v1/jobs/{id}/hold`."""

from typing import Annotated

from aiohttp import web
from pydantic import StringConstraints

from events.clock import rfc3339
from events.holds import REASON_CHARS_MAX, HoldAct, is_held
from events.values import encode
from gateway.addresses import address_of
from gateway.bodies import checked, read_object
from gateway.deps import DEPS, identify
from gateway.jobs import answer, row_of
from gateway.problems import Problem
from gateway.queries import Query
from gateway.schemas import Body


class HoldBody(Body):
    """`POST …/hold`: holds the job, or with `held` false lets it go."""

    held: bool = True
    reason: Annotated[str, StringConstraints(min_length=1, max_length=REASON_CHARS_MAX)]


async def show(request: web.Request) -> web.Response:
    """Whether the job is held, and every act."""
    Query(request)
    row = await row_of(request)
    return await _told(request, row.job.id)


async def change(request: web.Request) -> web.Response:
    """Records the act also when it changes nothing: who asked for it matters. 409 for a job that was discarded meanwhile."""
    body = checked(HoldBody, await read_object(request))
    row, who = await row_of(request), identify(request)
    holds = request.app[DEPS].holds
    if holds is None:
        raise Problem(503, "unavailable", "Holds are kept nowhere here.")
    act = HoldAct(row.job.id, row.job.tenant, body.held, 0, who.actor, address_of(request), body.reason)
    await holds.hold(act)
    return await _told(request, row.job.id)


async def _told(request: web.Request, job_id: str) -> web.Response:
    holds = request.app[DEPS].holds
    acts = [] if holds is None else await holds.hold_acts(job_id)
    shown = [
        {"held": act.held, "at": rfc3339(act.at), "actor": act.actor, "address": act.address, "reason": act.reason}
        for act in acts
    ]
    return answer(encode({"held": is_held(acts), "acts": shown}))
