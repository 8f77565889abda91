"""How many requests were answered, with what, and how long that took."""

import asyncio

from aiohttp import web

from gateway.deps import DEPS
from gateway.problems import Handler


@web.middleware
async def measured(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Outside every other middleware: what it counts is what the client was answered. A stream counts when it ends, and
    its time is no answer's."""
    metrics, loop = request.app[DEPS].telemetry.gateway, asyncio.get_running_loop()
    began = loop.time()
    try:
        response = await handler(request)
    except web.HTTPException as redirect:
        metrics.answers.labels(f"{redirect.status // 100}xx").inc()
        raise
    metrics.answers.labels(f"{response.status // 100}xx").inc()
    if isinstance(response, web.Response):
        metrics.answer_s.observe(loop.time() - began)
    return response
