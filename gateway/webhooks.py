"""Which URL a job may name for its completion webhook."""

from aiohttp import web

from gateway.deps import DEPS, identify
from gateway.problems import invalid


async def allowed_webhook(request: web.Request, url: str | None, field: str = "webhook") -> str | None:
    """The URL as it is stored. 422 for one no webhook may go to, and where nothing signs webhooks yet."""
    if url is None:
        return None
    deps = request.app[DEPS]
    try:
        checked = deps.webhook_rules.checked(url)
    except ValueError as problem:
        raise invalid([(field, str(problem))]) from None
    if deps.webhooks is None or await deps.webhooks.endpoint(identify(request).tenant) is None:
        raise invalid([(field, "nothing signs this tenant's webhooks yet: see `phaseline webhooks set`")])
    return checked
