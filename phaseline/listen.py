"""A gateway on its port, and a worker's port for metrics: what settings mean to who listens."""

import contextlib
import ipaddress
import logging
import resource
from collections.abc import AsyncIterator

from aiohttp import web

from events.keys import Keys
from gateway.addresses import Network, networks
from gateway.app import make_app, unbroken
from gateway.bearers import Bearers
from gateway.deps import Deps
from gateway.limits import Limits
from gateway.peers import Peers, counted_as
from phaseline.ports import bind
from phaseline.settings import OTHER_FILES, OWN_FILES, Misconfigured, Settings, words
from phaseline.spine import VERSION, Spine, background, waiting_for_database, webhook_rules

SHUTDOWN_S = 6.0  # for plain requests and closing sockets, after the viewers were sent away

_log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def listening(settings: Settings, parts: Spine) -> AsyncIterator[str]:
    """The gateway on its port; yields its URL."""
    files = _allow_files(settings)
    asks = await _asks_for_keys(settings, parts.keys)
    origins = frozenset(words(settings.allowed_origins))
    deps = Deps(
        parts.log,
        parts.bus,
        parts.committer,
        parts.engines,
        keys=parts.keys,
        tokens=_tokens(settings),
        schedules=parts.schedules,
        webhooks=parts.webhooks,
        holds=parts.holds,
        audit=parts.audit,
        retention=parts.retention,
        webhook_rules=webhook_rules(settings),
        asks=asks,
        trusted_proxies=_networks(settings),
        allowed_origins=origins,
        connections_max=settings.connections_max,
        compressed_max=settings.compressed_max,
        watched_jobs_max=settings.watched_jobs_max,
        limits=_limits(settings),
        version=VERSION,
        telemetry=parts.telemetry,
    )
    app = make_app(deps)
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        peers = Peers(
            settings.tcp_connections_per_address,
            counted_as(deps.trusted_proxies),
            parts.telemetry.gateway,
            settings.tcp_connections_max or _connections_within(files),
        )
        site = peers.site(runner, settings.host, settings.port, access_log=None, keepalive_timeout=settings.idle_s)
        await bind(site, settings.host, settings.port, "choose another --port")
        host, port = runner.addresses[0][:2]
        async with background(unbroken(app)):
            yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        await runner.cleanup()


def _tokens(settings: Settings) -> Bearers | None:
    if not settings.oidc_issuer:
        return None
    from phaseline import oidc  # with it a library of 9 MiB

    return oidc.tokens(settings)


async def _asks_for_keys(settings: Settings, keys: Keys) -> bool:
    """Whether every request needs a key from the start. Raises `Misconfigured` where strangers could come in."""
    if settings.auth == "keys" or settings.oidc_issuer or await waiting_for_database(keys.has_keys):
        return True
    if settings.auth == "auto" and not _is_loopback(settings.host):
        raise Misconfigured(
            f"listening on {settings.host} would let anybody in: there is no API key yet. Make one with `phaseline keys "
            "create`, or set PHASELINE_AUTH=open if something before this asks who comes"
        )
    _log.info("no API key is asked for: there is none yet (`phaseline keys create` makes one)")
    return False


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _networks(settings: Settings) -> tuple[Network, ...]:
    try:
        return networks(words(settings.trusted_proxies))
    except ValueError as problem:
        raise Misconfigured(f"PHASELINE_TRUSTED_PROXIES: {problem}") from problem


def _limits(settings: Settings) -> Limits:
    return Limits(
        settings.submits_per_s,
        settings.body_bytes_per_s,
        settings.upgrades_per_s,
        settings.connections_per_address,
        settings.queued_jobs_max,
        settings.refusals_per_s,
        settings.reads_per_s,
    )


def _connections_within(files: int) -> int:
    """How many connections leave a process the files it needs itself; half of them where there are very few."""
    return max(files - OWN_FILES, files // 2)


def _allow_files(settings: Settings) -> int:
    """Raises this process's own limit of open files to what its connections may need, as far as the system allows; how
    many it may open, 0 for any number."""
    needed = settings.connections_max + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < needed:
        _log.warning(
            "%d open files are allowed here, %d connections may need %d: raise `ulimit -n` or lower "
            "PHASELINE_CONNECTIONS_MAX", most, settings.connections_max, needed,
        )  # fmt: skip
    now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 if now == resource.RLIM_INFINITY else now
