"""The port a worker answers scrapes on; what binds any port of ours. Loads no gateway: a worker needs none."""

import contextlib
import logging
from collections.abc import AsyncIterator

from aiohttp import web

from events.telemetry import CONTENT_TYPE, Telemetry
from phaseline.settings import Misconfigured, Settings

_log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def metrics_port(settings: Settings, telemetry: Telemetry) -> AsyncIterator[None]:
    """`/metrics` and `/healthz` of a worker, on a port of their own when one is set; a gateway has them beside its API.

    In the loop rather than a thread beside it: a scrape reads numbers the loop writes, and tells whether it turns.
    """
    if settings.metrics_port is None:
        yield
        return

    async def page(_: web.Request) -> web.Response:
        return web.Response(body=telemetry.page(), headers={"Content-Type": CONTENT_TYPE})

    async def alive(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    app = web.Application()
    app.add_routes([web.get("/metrics", page), web.get("/healthz", alive)])
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        host, port = settings.metrics_host, settings.metrics_port
        await bind(web.TCPSite(runner, host, port), host, port, "choose another PHASELINE_METRICS_PORT")
        _log.info("metrics at http://%s:%d/metrics", *runner.addresses[0][:2])
        yield
    finally:
        await runner.cleanup()


async def bind(site: web.BaseSite, host: str, port: int, cure: str) -> None:
    """Listens, or raises `Misconfigured` with what to do about it."""
    try:
        await site.start()
    except OSError as failure:
        raise Misconfigured(f"cannot listen on {host}:{port} ({failure.strerror}); {cure}, 0 picks one") from failure
