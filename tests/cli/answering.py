"""A server that gives every call the same answer."""

from contextlib import asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def answering(handler):
    """A server with one answer for every call."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
