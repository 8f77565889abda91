"""`/api/v1/schedules`: jobs made again and again, at the ticks of a cron expression (docs/protocol.md §2)."""

import re
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field, StringConstraints
from uuid_utils import uuid7

from events.acts import REASON_CHARS_MAX
from events.clock import rfc3339
from events.schedules import (
    CATCH_UP_MAX,
    NAME,
    SCHEDULES_CHARS_MAX,
    SCHEDULES_MAX,
    Act,
    BadSchedule,
    CatchUp,
    Schedule,
    ScheduleAct,
    Schedules,
)
from events.schedules import (
    checked as first_tick,
)
from events.values import encode
from gateway.access import permit
from gateway.addresses import address_of
from gateway.bodies import checked, read_object
from gateway.deps import DEPS, ENGINES, identify
from gateway.jobs import answer
from gateway.problems import Problem, bad_parameter, invalid
from gateway.queries import Query
from gateway.schemas import Body, JobTemplate, Reason
from gateway.webhooks import allowed_webhook

ACTS_SHOWN = 50


class NewSchedule(Body):
    """`POST /api/v1/schedules`. `catch_up` says what becomes of ticks missed in an outage: none, the last, or all of them
    up to `catch_up_max`, the newest."""

    name: Annotated[str, StringConstraints(pattern=f"^{NAME}$")]
    cron: str
    timezone: str = "UTC"
    catch_up: CatchUp = "last"
    catch_up_max: Annotated[int, Field(ge=1, le=CATCH_UP_MAX)] = 10
    job: JobTemplate
    reason: Reason | None = None


class Why(Body):
    """`POST …/pause` and `…/resume`, which may be empty."""

    reason: Reason | None = None


async def create(request: web.Request) -> web.Response:
    """`POST /api/v1/schedules`: 201, 409 when the tenant has one of this name."""
    new = checked(NewSchedule, await read_object(request))
    who = identify(request)
    if new.job.unique_mode is not None and new.job.unique_key is None:
        raise invalid([("job.unique_mode", "says nothing without a unique_key")])
    if new.job.unique_mode == "replace":
        permit(who, "cancel")
    webhook = await allowed_webhook(request, new.job.webhook, "job.webhook")
    engine = await request.app[ENGINES].get(new.job.engine)
    params = await request.app[ENGINES].accepted(engine, new.job.params, root="job.params")
    now = await request.app[DEPS].log.now()
    stored = {"params": params, "unique_mode": new.job.unique_mode or "return", "webhook": webhook}
    job = new.job.model_dump(mode="json") | stored
    schedule = Schedule(
        id=str(uuid7()),
        tenant=who.tenant,
        name=new.name,
        cron=" ".join(new.cron.split()),
        timezone=new.timezone,
        catch_up=new.catch_up,
        catch_up_max=new.catch_up_max,
        job=job,
        created_at=now,
        created_by=who.actor,
    )
    try:
        schedule = first_tick(schedule, now)
    except BadSchedule as wrong:
        raise invalid([(wrong.field, str(wrong))]) from None
    match await _store(request).add_schedule(schedule, _by(request, "created", now, new.reason)):
        case "taken":
            detail = f"There is a schedule {new.name!r} already; delete it first, or choose another name."
            raise Problem(409, "schedule_exists", detail, errors=[("name", "is taken")])
        case "full":
            detail = f"A tenant has {SCHEDULES_MAX} schedules at most, whose jobs are {SCHEDULES_CHARS_MAX >> 20} MiB of text together."
            raise Problem(409, "too_many_schedules", detail)
        case "made":
            location = {"Location": f"/api/v1/schedules/{schedule.name}"}
            return answer(encode(_fields(schedule)), status=201, headers=location)


async def list_schedules(request: web.Request) -> web.Response:
    """`GET /api/v1/schedules`, by name."""
    Query(request)
    found = await _store(request).schedules(identify(request).tenant)
    return answer(encode({"schedules": [_fields(schedule) for schedule in found]}))


async def show(request: web.Request) -> web.Response:
    """`GET /api/v1/schedules/{name}`: it, and what was done with it and by it, newest first."""
    Query(request)
    schedule = await _named(request)
    return answer(encode(await _document(request, schedule)))


async def pause(request: web.Request) -> web.Response:
    """`POST …/pause`: no jobs until it is resumed. Twice is once."""
    why = checked(Why, await read_object(request, optional=True))
    schedule = await _named(request)
    if not schedule.paused:
        await _set(request, schedule, None, "paused", why.reason)
    return answer(encode(await _document(request, await _named(request))))


async def resume(request: web.Request) -> web.Response:
    """`POST …/resume`: it goes on with its next tick; what it missed while it was paused is not made up."""
    why = checked(Why, await read_object(request, optional=True))
    schedule = await _named(request)
    if schedule.paused:
        next_at = schedule.after(await request.app[DEPS].log.now())
        await _set(request, schedule, next_at, "resumed", why.reason)
    return answer(encode(await _document(request, await _named(request))))


async def delete(request: web.Request) -> web.Response:
    """`DELETE /api/v1/schedules/{name}`: the jobs it made stay, and what was recorded of it."""
    reason = Query(request, "reason").text("reason")
    if reason is not None and (not 1 <= len(reason) <= REASON_CHARS_MAX or "\0" in reason):
        raise bad_parameter("reason", f"must be 1 to {REASON_CHARS_MAX} characters")
    schedule = await _named(request)
    now = await request.app[DEPS].log.now()
    if not await _store(request).drop_schedule(schedule.id, _by(request, "deleted", now, reason)):
        raise _unknown()
    return answer(encode(_seen(request, schedule)))


async def _set(request: web.Request, schedule: Schedule, next_at: int | None, act: Act, reason: str | None) -> None:
    now = await request.app[DEPS].log.now()
    if not await _store(request).set_schedule(schedule.id, next_at, _by(request, act, now, reason)):
        raise _unknown()


async def _named(request: web.Request) -> Schedule:
    name = request.match_info["name"]
    found = await _store(request).schedule(identify(request).tenant, name) if re.fullmatch(NAME, name) else None
    if found is None:
        raise _unknown()
    return found


def _store(request: web.Request) -> Schedules:
    store = request.app[DEPS].schedules
    if store is None:
        raise Problem(503, "unavailable", "This gateway keeps no schedules.")
    return store


def _unknown() -> Problem:
    return Problem(404, "unknown_schedule", "There is no such schedule.")


def _by(request: web.Request, act: Act, now: int, reason: str | None) -> ScheduleAct:
    return ScheduleAct(act, now, identify(request).actor, address_of(request), reason)


async def _document(request: web.Request, schedule: Schedule) -> dict[str, Any]:
    acts = await _store(request).schedule_acts(schedule.id, ACTS_SHOWN) if identify(request).may("read") else []
    return _seen(request, schedule) | {"acts": [_act(act) for act in acts]}


def _seen(request: web.Request, schedule: Schedule) -> dict[str, Any]:
    """Without the scope `read` nothing of what its jobs are given."""
    fields = _fields(schedule)
    return fields if identify(request).may("read") else fields | {"job": {"engine": schedule.job["engine"]}}


def _act(act: ScheduleAct) -> dict[str, Any]:
    shown = {"act": act.act, "at": rfc3339(act.at), "actor": act.actor, "address": act.address, "detail": act.detail}
    return {name: value for name, value in shown.items() if value is not None}


def _fields(schedule: Schedule) -> dict[str, Any]:
    return {
        "name": schedule.name,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "catch_up": schedule.catch_up,
        "catch_up_max": schedule.catch_up_max,
        "job": dict(schedule.job),
        "paused": schedule.paused,
        "next_at": None if schedule.next_at is None else rfc3339(schedule.next_at),
        "last_at": None if schedule.last_at is None else rfc3339(schedule.last_at),
        "last_job_id": schedule.last_job_id,
        "created_at": rfc3339(schedule.created_at),
        "created_by": schedule.created_by,
    }
