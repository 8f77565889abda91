"""The gateway: HTTP API and streams, in one aiohttp application."""

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import partial

from aiohttp import web

from gateway import (
    analyze,
    audit,
    bulk,
    deliveries,
    descriptions,
    feed_events,
    fleet,
    holds,
    itself,
    job_events,
    jobs,
    passes,
    pins,
    reruns,
    schedules,
    sessions,
    websocket,
)
from gateway.access import ACCESS, GATE, Access, Gate, Need, admitted
from gateway.addresses import address_of
from gateway.bodies import BODY_BYTES_MAX
from gateway.compression import packed
from gateway.counts import COUNTS, Counts
from gateway.deps import DEPS, ENGINES, HUB, Deps
from gateway.engines import EngineBook
from gateway.hub import Hub
from gateway.limits import LIMITER, Limiter
from gateway.measured import measured
from gateway.pages import Pages
from gateway.problems import problems
from gateway.sockets import SOCKETS, Sockets
from gateway.turns import Turns

HUB_END_S = 4.0  # the bus says goodbye to its server within 3 s

_TASKS = web.AppKey("tasks", list[asyncio.Task[None]])  # without which this is no gateway

log = logging.getLogger(__name__)


def make_app(deps: Deps) -> web.Application:
    """The application on ports that are open and a committer that runs; it begins to follow the bus at startup.
    Whoever runs it awaits `unbroken` beside it.

    Its runner's `shutdown_timeout` begins after the viewers were sent away.
    """
    app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[measured, packed, problems, admitted])
    app[DEPS] = deps
    app[HUB] = Hub(deps.log, deps.bus, watched_max=deps.watched_jobs_max, telemetry=deps.telemetry, clock=deps.clock)
    app[ENGINES] = EngineBook(deps.log, deps.engines, check_s=deps.check_s)
    app[SOCKETS] = Sockets(deps.telemetry.gateway, deps.connections_max, deps.compressed_max)
    app[LIMITER] = Limiter(deps.limits, deps.log, deps.telemetry.gateway, address_of)
    app[ACCESS] = Access(deps, app[LIMITER])
    app[COUNTS] = Counts(deps.log)
    app[GATE] = Gate()
    app[audit.TURNS] = Turns()
    app[_TASKS] = []
    app.cleanup_ctx.append(_run_hub)
    app.cleanup_ctx.append(_run_access)
    app.on_shutdown.append(_say_goodbye)
    for need, routes in _routes().items():
        app[GATE].add(app, need, *routes)
    return app


async def unbroken(app: web.Application) -> None:
    """Returns never. Raises what ended the hub, or whatever else a started application cannot go on without: better
    another process than one that answers and tells viewers nothing."""
    tasks = app[_TASKS]
    ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in ended:
        task.result()


def _routes() -> dict[Need, list[web.RouteDef]]:
    """Every route, by what it takes to be answered."""
    return {
        "nobody": [
            *Pages().routes(),
            web.get("/healthz", fleet.alive),
            web.get("/readyz", fleet.ready),
            web.get("/openapi.json", descriptions.serve_openapi),
            web.get("/asyncapi.json", descriptions.serve_asyncapi),
            web.get("/docs", descriptions.serve_page),
            web.get("/api/v1/session", sessions.show),
            web.post("/api/v1/session", sessions.begin),
            web.delete("/api/v1/session", sessions.end),
        ],
        "any key": [
            web.get("/api/v1/engines", fleet.engines),
            web.post("/api/v1/bulk", bulk.bulk),  # which asks for the scope of its action
        ],
        "submit": [
            web.post("/api/v1/jobs", jobs.create),
            web.post("/api/v1/jobs/{job_id}/retry", jobs.retry),
            web.post("/api/v1/jobs/{job_id}/rerun", reruns.rerun),
            web.post("/api/v1/jobs/{job_id}/pin", pins.change),
            web.post("/api/v1/analyze", analyze.create),
            web.post("/api/v1/schedules", schedules.create),
            web.post("/api/v1/schedules/{name}/pause", schedules.pause),
            web.post("/api/v1/schedules/{name}/resume", schedules.resume),
            web.delete("/api/v1/schedules/{name}", schedules.delete),
        ],
        "read": [
            web.get("/api/v1/jobs", jobs.list_jobs),
            web.get("/api/v1/jobs/{job_id}", jobs.show),
            web.get("/api/v1/jobs/{job_id}/results", jobs.results),
            web.get("/api/v1/jobs/{job_id}/artifacts/{sha256}", jobs.artifact),
            web.get("/api/v1/jobs/{job_id}/events", job_events.events),
            web.get("/api/v1/jobs/{job_id}/deliveries", deliveries.show),
            web.get("/api/v1/jobs/{job_id}/hold", holds.show),
            web.get("/api/v1/jobs/{job_id}/pin", pins.show),
            web.get("/api/v1/analyze/{job_id}", analyze.show),
            web.get("/api/v1/events", feed_events.events),
            web.get("/api/v1/stats", fleet.stats),
            web.get("/api/v1/schedules", schedules.list_schedules),
            web.get("/api/v1/schedules/{name}", schedules.show),
            web.post("/api/v1/passes", passes.create),
        ],
        "stream": [
            web.get("/api/v1/jobs/{job_id}/stream", websocket.job_stream, allow_head=False),
            web.get("/api/v1/analyze/{job_id}/stream", websocket.analysis_stream, allow_head=False),
            web.get("/api/v1/stream", websocket.many_stream, allow_head=False),
        ],
        "cancel": [
            web.post("/api/v1/jobs/{job_id}/cancel", jobs.cancel),
        ],
        "admin": [  # what is not of one tenant alone, and what outranks everybody's wish
            web.post("/api/v1/jobs/{job_id}/hold", holds.change),
            web.get("/api/v1/audit", audit.acts),
            web.get("/api/v1/audit/check", audit.check),
            web.get("/api/v1/audit/export", audit.export),
            web.get("/api/v1/workers", fleet.workers),
            web.get("/api/v1/gateway", itself.show),
            web.get("/metrics", fleet.metrics),
        ],
    }


async def _run_hub(app: web.Application) -> AsyncIterator[None]:
    task = asyncio.create_task(app[HUB].run())  # noqa: TID251 this block owns it and waits for its end
    task.add_done_callback(partial(_report, "the hub stopped: this gateway ends, for streams would get nothing new"))
    app[_TASKS].append(task)
    yield
    task.cancel()
    if (await asyncio.wait({task}, timeout=HUB_END_S))[1]:
        log.error("the hub did not end within %g s", HUB_END_S)


async def _run_access(app: web.Application) -> AsyncIterator[None]:
    task = asyncio.create_task(app[ACCESS].run())  # noqa: TID251 this block owns it and waits for its end
    task.add_done_callback(
        partial(_report, "keys are looked at no more: this gateway ends, for streams would outlive them")
    )
    app[_TASKS].append(task)
    yield
    task.cancel()
    await asyncio.wait({task}, timeout=HUB_END_S)


def _report(what: str, task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (failure := task.exception()) is not None:
        log.critical("%s", what, exc_info=failure)


async def _say_goodbye(app: web.Application) -> None:
    await app[HUB].say_goodbye(app[DEPS].goodbye_window_s)
