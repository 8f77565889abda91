"""`POST /api/v1/passes`: lets a page that cannot send a key watch a few streams (docs/protocol.md §5)."""

from typing import Annotated

from aiohttp import web
from pydantic import Field, StringConstraints, model_validator

from events.clock import rfc3339
from events.errors import UnknownJob
from events.passes import FIRST_USE_MS, LAST_MS, LIVE_MAX, Pass, digest_of, drawn
from events.values import encode
from gateway.access import ACCESS
from gateway.bodies import checked, read_object
from gateway.deps import DEPS, identify
from gateway.jobs import JOB_ID, answer
from gateway.problems import Problem
from gateway.schemas import Body

JOBS_MAX = 128  # as many as one socket follows


class NewPass(Body):
    """Which streams: some jobs, or with `feed` every job of the tenant."""

    jobs: Annotated[list[Annotated[str, StringConstraints(max_length=64)]], Field(max_length=JOBS_MAX)] = Field(
        default_factory=list
    )
    feed: bool = False

    @model_validator(mode="after")
    def _names_something(self) -> "NewPass":
        if bool(self.jobs) == self.feed:
            raise ValueError("name jobs, or the feed")
        return self


async def create(request: web.Request) -> web.Response:
    """The pass, shown once. It is bound to the Origin of this request, if it has one."""
    new = checked(NewPass, await read_object(request))
    deps, who = request.app[DEPS], identify(request)
    for job_id in new.jobs:
        if not JOB_ID.fullmatch(job_id) or await deps.log.head(job_id, who.tenant) is None:
            raise UnknownJob
    text, now_ms = drawn(), deps.clock.now_ms()
    digest = digest_of(text)
    assert digest is not None
    jobs = frozenset(new.jobs)
    until = None if who.until is None else min(who.until, now_ms + LAST_MS)
    made = Pass(
        digest, who.key_id or "", who.tenant, jobs, new.feed, request.headers.get("Origin"), now_ms, None, until
    )
    if not await request.app[ACCESS].add_pass(made):
        raise Problem(
            429, "too_many_passes", f"This tenant has {LIVE_MAX} passes already.", headers={"Retry-After": "60"}
        )
    told = {"pass": text, "use_before": rfc3339(now_ms + FIRST_USE_MS), "expires_at": rfc3339(made.until)}
    return answer(encode(told), status=201)
