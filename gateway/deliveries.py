"""`GET /api/v1/jobs/{id}/deliveries`: the webhooks a job owes, and what became of each attempt."""

from typing import Any

from aiohttp import web

from events.clock import rfc3339
from events.values import encode
from events.webhooks import Attempt, Owed
from gateway.deps import DEPS
from gateway.jobs import answer, row_of
from gateway.queries import Query


async def show(request: web.Request) -> web.Response:
    """One for each terminal event the job came to, the oldest first."""
    Query(request)
    row = await row_of(request)
    webhooks = request.app[DEPS].webhooks
    owed = [] if webhooks is None else await webhooks.deliveries(row.job.id)
    return answer(encode({"deliveries": [_delivery(one) for one in owed]}))


def _delivery(owed: Owed) -> dict[str, Any]:
    return {
        "id": f"{owed.job_id}.{owed.seq}",
        "seq": owed.seq,
        "url": owed.url,
        "state": owed.state,
        "created_at": rfc3339(owed.created_at),
        "next_at": rfc3339(owed.next_at) if owed.state == "pending" else None,
        "attempts": [_attempt(one) for one in owed.tried],
    }


def _attempt(tried: Attempt) -> dict[str, Any]:
    return {
        "attempt": tried.attempt,
        "at": rfc3339(tried.at),
        "status": tried.status,
        "failure": tried.failure,
        "duration_ms": tried.duration_ms,
    }
