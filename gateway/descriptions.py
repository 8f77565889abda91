"""Serves what describes the API: `/openapi.json`, `/asyncapi.json`, `/docs`. Made once, at the first
request, and until then not even what makes them is in memory."""

from functools import lru_cache
from typing import Any

from aiohttp import web

from events.values import encode
from gateway.deps import DEPS

CACHED = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}


@lru_cache(maxsize=2)
def _documents(version: str) -> tuple[dict[str, Any], dict[str, Any]]:
    from gateway.asyncapi import asyncapi
    from gateway.openapi import Description

    return Description(version).document(), asyncapi(version)


async def serve_openapi(request: web.Request) -> web.Response:
    """`GET /openapi.json`."""
    document, _ = _documents(request.app[DEPS].version)
    return web.Response(body=encode(document), content_type="application/json", headers=CACHED)


async def serve_asyncapi(request: web.Request) -> web.Response:
    """`GET /asyncapi.json`."""
    _, document = _documents(request.app[DEPS].version)
    return web.Response(body=encode(document), content_type="application/json", headers=CACHED)


async def serve_page(request: web.Request) -> web.Response:
    """`GET /docs`."""
    from gateway.docs_page import POLICY, docs_page

    page = docs_page(*_documents(request.app[DEPS].version))
    return web.Response(text=page, content_type="text/html", headers=CACHED | {"Content-Security-Policy": POLICY})
