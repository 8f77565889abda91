"""`GET /api/v1/gateway`: the gateway process that answers, in numbers.

Gateways hold no state and the log does not know them, so one can only tell of itself; behind a load balancer each answer
may come from another, which its `id` tells.
"""

import os
import socket

from aiohttp import web

from events.clock import rfc3339
from events.values import encode
from gateway.deps import DEPS, HUB
from gateway.fleet import bus_state
from gateway.hub import RINGS_BYTES_MAX
from gateway.jobs import answer
from gateway.queries import Query
from gateway.sockets import SOCKETS


async def show(request: web.Request) -> web.Response:
    """What this process serves now, and has served since it started."""
    Query(request)
    deps, hub, sockets = request.app[DEPS], request.app[HUB], request.app[SOCKETS]
    return answer(
        encode(
            {
                "id": deps.process_id,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "version": deps.version,
                "started_at": rfc3339(deps.started_at),
                "now": rfc3339(deps.clock.now_ms()),
                "closing": hub.closing,
                "connections": sockets.open,
                "connections_max": sockets.connections_max,
                "compressed": sockets.compressed,
                "viewers": hub.viewers,
                "watched_jobs": hub.watched_jobs,
                "watched_jobs_max": hub.watched_jobs_max,
                "ring_bytes": hub.ring_bytes,
                "ring_bytes_max": RINGS_BYTES_MAX,
                "page_bytes": hub.replay.kept_bytes,
                "page_reads_total": hub.replay.reads_total,
                "frames_sent_total": sockets.frames,
                "frame_bytes_sent_total": sockets.frame_bytes,
                "repairs_total": hub.repairs_total,
                "sweep_repairs_total": hub.sweep_repairs_total,
                "lag": _lag(hub.lag.recent_ms()),
                "log": deps.log.name,
                "bus": bus_state(request),
            }
        )
    )


def _lag(samples_ms: list[int]) -> dict[str, int | None]:
    """Quantiles of samples, least first."""

    def within(share: float) -> int | None:
        return samples_ms[min(int(share * len(samples_ms)), len(samples_ms) - 1)] if samples_ms else None

    return {"samples": len(samples_ms), "p50_ms": within(0.5), "p99_ms": within(0.99)}
