"""What can run, who runs it, how it goes, and whether this process is well."""

import asyncio
from dataclasses import asdict
from typing import Any

from aiohttp import web

from events.clock import rfc3339
from events.errors import PhaselineError
from events.log import WorkerRow
from events.telemetry import CONTENT_TYPE
from events.values import encode
from gateway.counts import COUNTS
from gateway.deps import DEPS, ENGINES, HUB, identify
from gateway.engines import KnownEngine
from gateway.jobs import answer
from gateway.problems import Problem
from gateway.queries import Query

READY_S = 2.0


async def engines(request: web.Request) -> web.Response:
    """`GET /api/v1/engines`."""
    Query(request)
    known = await request.app[ENGINES].all()
    return answer(encode({"engines": [_engine(engine) for engine in known.values()]}))


def _engine(engine: KnownEngine) -> dict[str, Any]:
    return asdict(engine.described())


async def workers(request: web.Request) -> web.Response:
    """`GET /api/v1/workers`."""
    Query(request)
    rows = await request.app[DEPS].log.workers()
    return answer(encode({"workers": [_worker(row) for row in rows]}))


def _worker(row: WorkerRow) -> dict[str, Any]:
    instants = ("started_at", "beat_at", "lease_until")
    return {
        "id": row.id,
        "host": row.host,
        "pid": row.pid,
        "build": row.build,
        "slots": row.slots,
        "running": row.running,
        "engines": dict(row.engines),
        "draining": row.draining,
    } | {name: rfc3339(getattr(row, name)) for name in instants}


async def stats(request: web.Request) -> web.Response:
    """`GET /api/v1/stats`: of this tenant; what counts everybody's only for `admin`."""
    Query(request)
    deps, hub, who = request.app[DEPS], request.app[HUB], identify(request)
    counts = await request.app[COUNTS].of(who.tenant)
    if not who.may("admin"):
        return answer(encode({"jobs": dict(counts.by_status), "oldest_due_ms": counts.oldest_due_ms}))
    rows = await deps.log.workers()
    return answer(
        encode(
            {
                "jobs": dict(counts.by_status),
                "oldest_due_ms": counts.oldest_due_ms,
                "events": counts.events,
                "workers": len(rows),
                "slots": sum(row.slots for row in rows),
                "running": sum(row.running for row in rows),
                "viewers": hub.viewers,
                "sweep_repairs_total": hub.sweep_repairs_total,
                "log": deps.log.name,
                "bus": bus_state(request),
            }
        )
    )


def bus_state(request: web.Request) -> dict[str, Any]:
    """How the bus is; jobs run without it."""
    bus = request.app[DEPS].bus
    return {"name": bus.name, "connected": bus.connected}


async def alive(request: web.Request) -> web.Response:  # noqa: ARG001 being asked is the answer
    """`GET /healthz`: this process runs."""
    return answer(b'{"status":"alive"}')


async def ready(request: web.Request) -> web.Response:
    """`GET /readyz`: the log answers, this process is not leaving, and its streams hear of new events. Says how the bus
    is; jobs run without it."""
    deps = request.app[DEPS]
    if request.app[HUB].closing or not request.app[HUB].running:
        raise Problem(503, "closing", "This gateway is shutting down.", bus=bus_state(request))
    try:
        async with asyncio.timeout(READY_S):
            await deps.log.now()
    except (PhaselineError, TimeoutError) as outage:
        detail = str(outage) or "The database does not answer in time."
        raise Problem(503, "unavailable", detail, bus=bus_state(request)) from None
    if request.app[HUB].deaf:
        age_s = request.app[HUB].tail_age_s
        detail = f"Streams here hear nothing new: heads were last compared with the log {age_s:.0f} s ago."
        raise Problem(503, "deaf", detail, bus=bus_state(request))
    return answer(encode({"status": "ready", "log": deps.log.name, "bus": bus_state(request)}))


async def metrics(request: web.Request) -> web.Response:
    """`GET /metrics`: of this process, for Prometheus."""
    page = request.app[DEPS].telemetry.page()
    return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})


def index(request: web.Request) -> web.Response:
    """`GET /` for a program: where things are."""
    deps = request.app[DEPS]
    return answer(
        encode(
            {
                "name": "phaseline",
                "version": deps.version,
                "summary": "Runs long jobs in named phases and lets anyone watch them.",
                "jobs": "/api/v1/jobs",
                "stream": "/api/v1/jobs/{id}/stream",
                "engines": "/api/v1/engines",
                "workers": "/api/v1/workers",
                "stats": "/api/v1/stats",
                "feed": "/api/v1/events",
                "docs": ["/docs", "/openapi.json", "/asyncapi.json"],
                "health": ["/healthz", "/readyz"],
                "metrics": "/metrics",
                "client": "/client/phaseline.js",
            }
        )
    )
